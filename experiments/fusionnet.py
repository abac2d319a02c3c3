"""FusionNet: Deng et al., TGRS 59(8), 2021.

    python -m experiments.fusionnet --steps 5000 --out runs/fusionnet

The paper trains 200,100 steps of 32 patches of 64 x 64 pixels on WorldView-3, degraded by cubic interpolation. There is
no builder for its data; PanCollection is its authors' later collection, degraded by MTF-matched Gaussians, with another
test set, so the numbers published on both are given.
"""

from pathlib import Path

from experiments.runner import Experiment, main
from jfusion.data.simulate import Protocol

PAPER = Experiment(data="pancollection_wv3", protocol=Protocol(ratio=4), out=Path("runs/fusionnet_wv3"))
EXPERIMENT = Experiment(data="landsat8_momotombo", out=Path("runs/fusionnet"))
PUBLISHED = {
    "WorldView-3, ratio 4, reduced resolution (as TDNet's authors report it)": "SAM 3.74, ERGAS 2.57, Q8 0.914, "
    "SCC 0.958",
    "PanCollection WorldView-3, reduced resolution (as KSDiff's authors report it)": "SAM 3.325, ERGAS 2.467, Q8 0.904",
}

if __name__ == "__main__":
    main("fusionnet", PAPER, EXPERIMENT, PUBLISHED)
