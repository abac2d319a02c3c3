"""PanCSC-Net: Cao et al., TGRS 60, 2022.

    python -m experiments.pancsc_net --sizes compact --patch 32 --steps 5000 --out runs/pancsc_net

The release trains 100 epochs of 9,714 patches of 64 x 64 pixels of PanCollection's WorldView-3, 64 a step. The paper is
not open, and no table with its numbers was found.
"""

from pathlib import Path

from experiments.runner import Experiment, main
from jfusion.data.simulate import Protocol

PAPER = Experiment(data="pancollection_wv3", protocol=Protocol(ratio=4), out=Path("runs/pancsc_net_wv3"))
EXPERIMENT = Experiment(data="landsat8_momotombo", out=Path("runs/pancsc_net"))
PUBLISHED: dict[str, str] = {}

if __name__ == "__main__":
    main("pancsc_net", PAPER, EXPERIMENT, PUBLISHED)
