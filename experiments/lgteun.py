"""LGTEUN: Li et al., IJCAI 2023.

    python -m experiments.lgteun --sizes compact --patch 32 --steps 5000 --out runs/lgteun

The paper trains 259,000 steps of 4 patches of 128 x 128 pixels on GaoFen-2, 253,000 on WorldView-2 (4 bands) and 35,000
on WorldView-3, at ratio 4. There is no builder for its data; PanCollection has GaoFen-2 too, in patches of 64 x 64
pixels, so that blocks half as wide are transformed while it learns, degraded by MTF-matched Gaussians and not by
OpenCV's cubic interpolation.
"""

from pathlib import Path

from experiments.runner import Experiment, main
from jfusion.data.simulate import Protocol

PAPER = Experiment(data="pancollection_gf2", protocol=Protocol(ratio=4), out=Path("runs/lgteun_gf2"))
EXPERIMENT = Experiment(data="landsat8_momotombo", out=Path("runs/lgteun"))
PUBLISHED = {
    "GaoFen-2, ratio 4, reduced resolution": "PSNR 45.84 dB, SSIM 0.9840, Q4 0.897, SAM 1.42, ERGAS 1.182",
    "WorldView-2, 4 bands, ratio 4, reduced resolution": "PSNR 42.68 dB, SSIM 0.9786, Q4 0.842, SAM 1.19, ERGAS 0.928",
    "WorldView-3, ratio 4, reduced resolution": "PSNR 32.22 dB, SSIM 0.9545, Q8 0.949, SAM 3.47, ERGAS 2.629",
}

if __name__ == "__main__":
    main("lgteun", PAPER, EXPERIMENT, PUBLISHED)
