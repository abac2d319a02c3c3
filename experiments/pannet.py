"""PanNet: Yang et al., ICCV 2017.

    python -m experiments.pannet --steps 5000 --out runs/pannet

The TensorFlow code trains 255,000 steps of 32 patches of 64 x 64 pixels on WorldView-3. There is no builder for its
data; PanCollection is the nearest, with another test set.
"""

from pathlib import Path

from experiments.runner import Experiment, main
from jfusion.data.simulate import Protocol

PAPER = Experiment(data="pancollection_wv3", protocol=Protocol(ratio=4), out=Path("runs/pannet_wv3"))
EXPERIMENT = Experiment(data="landsat8_momotombo", out=Path("runs/pannet"))
PUBLISHED = {
    "WorldView-3, ratio 4, reduced resolution (as TDNet's authors report it)": "SAM 4.09, ERGAS 2.95, Q8 0.894, "
    "SCC 0.949",
    "PanCollection WorldView-3, reduced resolution (from memory of the CANConv paper)": "SAM 3.61, ERGAS 2.66, "
    "Q8 0.891",
}

if __name__ == "__main__":
    main("pannet", PAPER, EXPERIMENT, PUBLISHED)
