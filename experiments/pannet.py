"""PanNet: Yang et al., ICCV 2017.

    python -m experiments.pannet --steps 5000 --out runs/pannet

The TensorFlow code trains 255,000 steps of 32 patches of 64 x 64 pixels on WorldView-3.
"""

from pathlib import Path

from experiments.runner import Experiment, main

EXPERIMENT = Experiment(data="landsat8_liverpool", out=Path("runs/pannet"))
PUBLISHED = {
    "WorldView-3, ratio 4, reduced resolution (as TDNet's authors report it)": "SAM 4.09, ERGAS 2.95, Q8 0.894, "
    "SCC 0.949"
}

if __name__ == "__main__":
    main("pannet", EXPERIMENT, PUBLISHED)
