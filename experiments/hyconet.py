"""HyCoNet: Zheng et al., TGRS 59, 2021.

    python -m experiments.hyconet --steps 1000 --out runs/hyconet

The release fits 10,000 steps to Pavia University at ratio 4, with a guide of four bands; their responses and its
figures were not seen. The setting here is one that figures are known of, that of the comparison in EU2ADL (L. Gao et
al., TGRS 2023): blind, 400 x 400 pixels of Houston 2018 at ratio 10, WorldView-2's eight bands, a Gaussian as wide as
the ratio on each block, and no noise. Which pixels and bands is not published; here it is the upper left corner of
each test tile of the contest, with 48 bands.
"""

from pathlib import Path

from experiments.runner import Experiment, main
from experiments.udaln import WORLDVIEW2
from jfusion.data.simulate import Protocol

PAPER = Experiment(
    data="houston2018/contest",
    protocol=Protocol(ratio=10, taps=10, guide_sensor="worldview2", guide_bands=WORLDVIEW2),
    judge=(0, 400, 0, 400),
    blind=True,
    out=Path("runs/hyconet_houston"),
)
EXPERIMENT = Experiment(out=Path("runs/hyconet"))
PUBLISHED = {
    "Houston, ratio 10, in EU2ADL": "PSNR 43.00 dB, SAM 1.973, ERGAS 0.469",
    "Chikusei, ratio 16, in EU2ADL": "PSNR 47.86 dB, SAM 1.118, ERGAS 0.628",
}

if __name__ == "__main__":
    main("hyconet", PAPER, EXPERIMENT, PUBLISHED)
