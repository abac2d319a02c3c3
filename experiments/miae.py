"""MIAE: Liu et al., TGRS 60, 2022.

    python -m experiments.miae --steps 4000 --out runs/miae

The release fits Pavia University, Kennedy Space Center, Washington DC and Houston at ratios 4, 8 and 16, in files that
are not published. Here it is the protocol of M2U-Net's authors, who repeat it: ratio 8, blind, WorldView-2's eight
bands, a Gaussian as wide as the ratio on each block, and no noise, on the upper left corner of each test tile of
Houston 2018.
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
    out=Path("runs/miae_houston"),
)
EXPERIMENT = Experiment(out=Path("runs/miae"))
PUBLISHED = {
    "Houston, ratio 8 (as M2U-Net's authors report it)": "PSNR 48.54 dB, SAM 0.900",
    "Houston, ratio 10 (as EU2ADL's authors report it)": "PSNR 47.11 dB, SAM 1.193, ERGAS 0.259",
    "Chikusei, ratio 16 (as M2U-Net's authors report it)": "PSNR 47.65 dB, SAM 0.965",
    "Chikusei, ratio 16 (as EU2ADL's authors report it)": "PSNR 42.30 dB, SAM 1.177, ERGAS 0.720",
}

if __name__ == "__main__":
    main("miae", PAPER, EXPERIMENT, PUBLISHED)
