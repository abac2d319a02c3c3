"""DBIN+: Wang et al., ICCV 2019.

    python -m experiments.dbin --sizes compact --patch 32 --batch 4 --steps 2000 --out runs/dbin

The paper trains 251,000 steps of 32 patches of 64 x 64 pixels on CAVE at ratio 8, with 12 images to judge. The release
comes without its data and does not say how they are made; since it evaluates by the code of DHSIS, the Gaussian and the
split of DHSIS are taken here. So it is for Harvard (`--data harvard/first30`).
"""

from pathlib import Path

from experiments.runner import Experiment, main
from jfusion.data.simulate import Protocol
from jfusion.operators.psf import FWHM_PER_SIGMA

PAPER = Experiment(
    data="cave/first20",
    protocol=Protocol(ratio=8, width=2 * FWHM_PER_SIGMA / 8, taps=8, centre=(0.5, 0.5), guide_sensor="nikon_d700_nssr"),
    validate=0,
    out=Path("runs/dbin_cave"),
)
EXPERIMENT = Experiment(out=Path("runs/dbin"))
PUBLISHED = {
    "CAVE, ratio 8 (in EDBIN's table)": "PSNR 47.51 dB, SSIM 0.993, SAM 3.18, ERGAS 0.58",
    "WorldView-3, full resolution (in EDBIN's table)": "D_lambda 0.028, D_s 0.056, QNR 0.918",
}

if __name__ == "__main__":
    main("dbin", PAPER, EXPERIMENT, PUBLISHED)
