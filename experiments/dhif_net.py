"""DHIF-Net: Huang et al., TCI 8, 2022.

    python -m experiments.dhif_net --sizes compact --steps 2000 --out runs/dhif_net

The paper trains 500 epochs of 5,000 steps of 4 patches of 96 x 96 pixels, turned and mirrored, on CAVE at ratio 8: the
first 20 scenes to learn from, 12 to judge, no noise. The kernel is a Gaussian of 2 pixels on each block of 8 x 8.
"""

from pathlib import Path

from experiments.runner import Experiment, main
from jfusion.data.simulate import Protocol
from jfusion.operators.psf import FWHM_PER_SIGMA

PAPER = Experiment(
    data="cave/first20",
    protocol=Protocol(ratio=8, width=2 * FWHM_PER_SIGMA / 8, taps=8, guide_sensor="nikon_d700_nssr"),
    validate=0,
    out=Path("runs/dhif_net_cave"),
)
EXPERIMENT = Experiment(out=Path("runs/dhif_net"))
PUBLISHED = {"CAVE, ratio 8, Gaussian kernel (from memory of the paper's table)": "PSNR 48.5 to 49 dB"}

if __name__ == "__main__":
    main("dhif_net", PAPER, EXPERIMENT, PUBLISHED)
