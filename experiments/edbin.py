"""EDBIN: Wang et al., TNNLS 34(3), 2023.

    python -m experiments.edbin --sizes compact --patch 32 --batch 4 --steps 2000 --out runs/edbin

The paper trains 251,000 steps of 32 patches of 64 x 64 pixels on CAVE at ratio 8, with 12 images to judge. The release
comes without its data and does not say how they are made; since it evaluates by the code of DHSIS, the Gaussian and the
split of DHSIS are taken here.
"""

from pathlib import Path

from experiments.runner import Experiment, main
from jfusion.data.simulate import Protocol
from jfusion.operators.psf import FWHM_PER_SIGMA

PAPER = Experiment(
    data="cave/first20",
    protocol=Protocol(ratio=8, width=2 * FWHM_PER_SIGMA / 8, taps=8, centre=(0.5, 0.5), guide_sensor="nikon_d700_nssr"),
    validate=0,
    out=Path("runs/edbin_cave"),
)
EXPERIMENT = Experiment(out=Path("runs/edbin"))
PUBLISHED = {
    "CAVE, ratio 8": "PSNR 48.47 dB, SSIM 0.994, SAM 3.02, ERGAS 0.53",
    "WorldView-3, full resolution": "D_lambda 0.033, D_s 0.027, QNR 0.941",
}

if __name__ == "__main__":
    main("edbin", PAPER, EXPERIMENT, PUBLISHED)
