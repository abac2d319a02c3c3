"""UDALN: Li et al., GRSL 19, 2022.

    python -m experiments.udaln --steps 6000 --out runs/udaln

The paper fits 65,000 steps in three stages, blind, to 240 x 240 pixels of Houston 2018 (46 bands, ratio 5) and Chikusei
(110 bands, ratio 8) with WorldView-2's eight bands, a Gaussian as wide as the ratio on each block, and no noise. Which
pixels and bands is not published; here it is the upper left corner of each test tile of the contest, with 48 bands.
"""

from pathlib import Path

from experiments.runner import Experiment, main
from jfusion.data.simulate import Protocol

WORLDVIEW2 = ("Coastal", "Blue", "Green", "Yellow", "Red", "RedEdge", "NIR1", "NIR2")
PAPER = Experiment(
    data="houston2018/contest",
    protocol=Protocol(ratio=5, taps=5, guide_sensor="worldview2", guide_bands=WORLDVIEW2),
    judge=(0, 240, 0, 240),
    blind=True,
    out=Path("runs/udaln_houston"),
)
EXPERIMENT = Experiment(out=Path("runs/udaln"))
PUBLISHED = {
    "Houston, ratio 5": "PSNR 45.26 dB, SAM 0.875, ERGAS 0.523",
    "Chikusei, ratio 8": "PSNR 50.76 dB, SAM 0.760, ERGAS 0.459",
}

if __name__ == "__main__":
    main("udaln", PAPER, EXPERIMENT, PUBLISHED)
