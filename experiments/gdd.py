"""The guided deep decoder: Uezato et al., ECCV 2020.

    python -m experiments.gdd --steps 1000 --out runs/gdd

The paper fits 20,001 steps on CAVE at ratio 32, with block means. Which scenes it takes, and which curves of the
camera, is unverified; here it is the 12 test scenes of the split that most papers take.
"""

from pathlib import Path

from experiments.runner import Experiment, main
from jfusion.data.simulate import Protocol

PAPER = Experiment(
    data="cave/first20",
    protocol=Protocol(ratio=32, kernel="box", guide_sensor="nikon_d700_nssr"),
    out=Path("runs/gdd_cave"),
)
EXPERIMENT = Experiment(out=Path("runs/gdd"))

if __name__ == "__main__":
    main("gdd", PAPER, EXPERIMENT)
