"""Deep hyperspectral prior: Sidorov and Hardeberg, ICCV Workshops 2019.

    python -m experiments.dhp --steps 500 --out runs/dhp

The paper restores single images, noise and gaps on Washington DC Mall and a half of the resolution of Pavia Centre, and
fuses nothing, so that it has no protocol or numbers for a pair; here it is fitted to the 12 test scenes of CAVE, at
ratio 8.
"""

from pathlib import Path

from experiments.runner import Experiment, main
from jfusion.data.simulate import Protocol

PAPER = Experiment(
    data="cave/first20",
    protocol=Protocol(ratio=8, guide_sensor="nikon_d700_nssr"),
    out=Path("runs/dhp_cave"),
)
EXPERIMENT = Experiment(out=Path("runs/dhp"))

if __name__ == "__main__":
    main("dhp", PAPER, EXPERIMENT)
