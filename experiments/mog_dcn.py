"""MoG-DCN: Dong et al., TIP 30, 2021.

    python -m experiments.mog_dcn --sizes compact --steps 2000 --out runs/mog_dcn

The paper trains a million steps of 4 patches of 96 x 96 pixels on CAVE at ratio 8: the first 20 scenes to learn from,
12 to judge, no noise; and on Harvard in the same way (`--data harvard/first30`). The kernel is a Gaussian of 2 pixels
on 8 x 8 taps, which the release samples so that the first low-resolution pixel is centred at 4.5, one pixel off the
centre of its block.
"""

from pathlib import Path

from experiments.runner import Experiment, main
from jfusion.data.simulate import Protocol
from jfusion.operators.psf import FWHM_PER_SIGMA

PAPER = Experiment(
    data="cave/first20",
    protocol=Protocol(ratio=8, width=2 * FWHM_PER_SIGMA / 8, taps=8, centre=(4.5, 4.5), guide_sensor="nikon_d700_nssr"),
    validate=0,
    out=Path("runs/mog_dcn_cave"),
)
EXPERIMENT = Experiment(out=Path("runs/mog_dcn"))
PUBLISHED = {
    "CAVE, ratio 8, Gaussian kernel (from memory of the paper's table)": "PSNR about 48 dB, SAM about 2.7",
    "CAVE, ratio 8 (as MDA-DUNet's authors report it)": "PSNR 46.32 dB, SAM 3.60, ERGAS 0.65",
}

if __name__ == "__main__":
    main("mog_dcn", PAPER, EXPERIMENT, PUBLISHED)
