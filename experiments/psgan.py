"""PSGAN: Liu et al., TGRS 59(12), 2021.

    python -m experiments.psgan --sizes compact --patch 32 --steps 5000 --out runs/psgan

The release trains 50 epochs of 53,857 patches of 128 x 128 pixels on QuickBird at ratio 4, 32 a batch. There is no
builder for its data; PanCollection has QuickBird too, in patches of 64 x 64 pixels, degraded by MTF-matched Gaussians
and not by bilinear interpolation.
"""

from pathlib import Path

from experiments.runner import Experiment, main
from jfusion.data.simulate import Protocol

PAPER = Experiment(data="pancollection_qb", protocol=Protocol(ratio=4), out=Path("runs/psgan_qb"))
EXPERIMENT = Experiment(data="landsat8_momotombo", out=Path("runs/psgan"))

if __name__ == "__main__":
    main("psgan", PAPER, EXPERIMENT)
