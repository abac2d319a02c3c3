"""GPPNN: Xu et al., CVPR 2021.

    python -m experiments.gppnn --sizes compact --patch 32 --steps 5000 --out runs/gppnn

The paper trains 100 epochs of 16 patches of 32 x 32 low-resolution pixels on Landsat 8 (10 bands, ratio 2), QuickBird
and GaoFen-2 (ratio 4), reduced by picking pixels, without blur. Its data are not public; PanCollection has GaoFen-2
too, in patches of 64 x 64 pixels, degraded by MTF-matched Gaussians.
"""

from pathlib import Path

from experiments.runner import Experiment, main
from jfusion.data.simulate import Protocol

PAPER = Experiment(data="pancollection_gf2", protocol=Protocol(ratio=4), out=Path("runs/gppnn_gf2"))
EXPERIMENT = Experiment(data="landsat8_momotombo", out=Path("runs/gppnn"))
PUBLISHED = {
    "GaoFen-2, ratio 4, reduced resolution (from memory of the table of Zhou et al., ECCV 2022)": "PSNR 44.21 dB, "
    "SSIM 0.9815, SAM 0.78, ERGAS 0.736",
    "WorldView-3, ratio 4, reduced resolution (from memory of the same table)": "PSNR 30.18 dB, SSIM 0.9175, SAM 4.45, "
    "ERGAS 3.26",
}

if __name__ == "__main__":
    main("gppnn", PAPER, EXPERIMENT, PUBLISHED)
