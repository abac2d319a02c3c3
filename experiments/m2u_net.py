"""M2U-Net: Li et al., TGRS 62, 2024.

    python -m experiments.m2u_net --steps 500 --out runs/m2u_net

The paper fits 24,000 steps in three stages, blind, to crops of Houston 2018 (ratio 8), Washington DC (10), TianGong-1
(12) and Chikusei (16) with WorldView-2's eight bands, a Gaussian as wide as the ratio on each block, and no noise.
Which pixels and bands is not published; here it is the upper left corner of each test tile of the contest, with 48
bands.

The published numbers are those of the iterates that are best against the truth, which this library never looks at; in
the log that comes with the release the last iterate is 0.07 dB below that. There the U-Nets need 1200 steps to be as
good as the first image that they are given. Compact sizes have a width of 20; the paper finds quality to rise with it
from 40 to 260 (Table II).
"""

from pathlib import Path

from experiments.runner import Experiment, main
from experiments.udaln import WORLDVIEW2
from jfusion.data.simulate import Protocol

PAPER = Experiment(
    data="houston2018/contest",
    protocol=Protocol(ratio=8, taps=8, guide_sensor="worldview2", guide_bands=WORLDVIEW2),
    judge=(0, 400, 0, 400),
    blind=True,
    out=Path("runs/m2u_net_houston"),
)
EXPERIMENT = Experiment(out=Path("runs/m2u_net"))
PUBLISHED = {
    "Houston, ratio 8": "PSNR 49.42 dB, SAM 0.794",
    "Washington DC, ratio 10": "PSNR 38.07 dB, SAM 1.563",
    "TianGong-1, ratio 12": "PSNR 45.93 dB, SAM 0.843",
    "Chikusei, ratio 16": "PSNR 49.74 dB, SAM 0.869",
}

if __name__ == "__main__":
    main("m2u_net", PAPER, EXPERIMENT, PUBLISHED)
