"""DL-VM: Shen et al., TGRS 57(8), 2019.

    python -m experiments.dl_vm --sizes compact --patch 32 --batch 16 --steps 3000 --out runs/dl_vm

The paper trains at most 24,000 steps of 128 patches of 40 x 40 pixels, and its release has 12 pairs of QuickBird over
Wuhan and Yichang at ratio 4, reduced by cubic interpolation. There is no builder for them; PanCollection has QuickBird
too, in patches of 64 x 64 pixels, degraded by MTF-matched Gaussians.
"""

from pathlib import Path

from experiments.runner import Experiment, main
from jfusion.data.simulate import Protocol

PAPER = Experiment(data="pancollection_qb", protocol=Protocol(ratio=4), out=Path("runs/dl_vm_qb"))
EXPERIMENT = Experiment(data="landsat8_momotombo", out=Path("runs/dl_vm"))

if __name__ == "__main__":
    main("dl_vm", PAPER, EXPERIMENT)
