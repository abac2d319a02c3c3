"""DHSIS: Dian et al., TNNLS 29(11), 2018.

    python -m experiments.dhsis --sizes compact --batch 4 --steps 2000 --out runs/dhsis

The paper trains 1,000 epochs of batches of 128 patches of 32 x 32 pixels on CAVE at ratio 8: the first 20 scenes to
learn from, 12 to judge, no noise; and on Harvard in the same way (`--data harvard/first30`). Paper and release blur by
a Gaussian of 2 pixels on 8 x 8 pixels, of which the release keeps every eighth pixel from the first on, so that the
low-resolution pixels lie half a pixel after it. The release also publishes no weights.
"""

from pathlib import Path

from experiments.runner import Experiment, main
from jfusion.data.simulate import Protocol
from jfusion.operators.psf import FWHM_PER_SIGMA

PAPER = Experiment(
    data="cave/first20",
    protocol=Protocol(ratio=8, width=2 * FWHM_PER_SIGMA / 8, taps=8, centre=(0.5, 0.5), guide_sensor="nikon_d700_nssr"),
    validate=0.2,
    out=Path("runs/dhsis_cave"),
)
EXPERIMENT = Experiment(out=Path("runs/dhsis"))
PUBLISHED = {
    "CAVE, ratio 8": "PSNR 46.62 dB, SAM 3.77, SSIM 0.9912, ERGAS 0.640",
    "Harvard, ratio 8": "PSNR 46.42 dB, SAM 3.47, SSIM 0.9827, ERGAS 1.212",
    "CAVE, ratio 8, the first solution alone": "PSNR 42.87 dB, SAM 4.81",
}

if __name__ == "__main__":
    main("dhsis", PAPER, EXPERIMENT, PUBLISHED)
