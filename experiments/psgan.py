"""PSGAN: Liu et al., TGRS 59(12), 2021.

    python -m experiments.psgan --sizes compact --patch 32 --steps 5000 --out runs/psgan

The release trains 50 epochs of 53,857 patches of 128 x 128 pixels on QuickBird at ratio 4, 32 a batch.
"""

from pathlib import Path

from experiments.runner import Experiment, main

EXPERIMENT = Experiment(data="landsat8_liverpool", out=Path("runs/psgan"))

if __name__ == "__main__":
    main("psgan", EXPERIMENT)
