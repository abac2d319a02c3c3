"""FusionNet: Deng et al., TGRS 59(8), 2021.

    python -m experiments.fusionnet --steps 5000 --out runs/fusionnet

The paper trains 200,100 steps of 32 patches of 64 x 64 pixels on WorldView-3.
"""

from pathlib import Path

from experiments.runner import Experiment, main

EXPERIMENT = Experiment(data="landsat8_liverpool", out=Path("runs/fusionnet"))
PUBLISHED = {"WorldView-3, ratio 4, reduced resolution": "SAM 3.74, ERGAS 2.57, Q8 0.914, SCC 0.958"}

if __name__ == "__main__":
    main("fusionnet", EXPERIMENT, PUBLISHED)
