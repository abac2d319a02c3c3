"""Deep image prior: Ulyanov et al., CVPR 2018.

    python -m experiments.dip --steps 500 --out runs/dip

The paper restores single photographs, among them from a quarter and an eighth of their size (2000 and 4000 steps), and
fuses nothing, so that it has no numbers for a pair. Here it is fitted to the 12 test scenes of CAVE at ratio 8.
"""

from pathlib import Path

from experiments.runner import Experiment, main
from jfusion.data.simulate import Protocol

PAPER = Experiment(
    data="cave/first20",
    protocol=Protocol(ratio=8, guide_sensor="nikon_d700_nssr"),
    out=Path("runs/dip_cave"),
)
EXPERIMENT = Experiment(out=Path("runs/dip"))

if __name__ == "__main__":
    main("dip", PAPER, EXPERIMENT)
