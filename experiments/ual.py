"""UAL: Zhang et al., CVPR 2020.

    python -m experiments.ual --sizes compact --out runs/ual

The paper trains its fusion network on the first 12 scenes of CAVE and adapts it, at ratio 8 with noise of 40 dB in both
images, to the other 20, which four motions have blurred; R is known and B is not. Here the fusion network learns from
each pair itself, a Gaussian blurs the 12 test scenes of another split of CAVE, and B is told.
"""

from pathlib import Path

from experiments.runner import Experiment, main
from jfusion.data.simulate import Protocol

PAPER = Experiment(
    data="cave/first20",
    protocol=Protocol(ratio=8, guide_sensor="nikon_d700_nssr", lr_snr_db=40, guide_snr_db=40),
    out=Path("runs/ual_cave"),
)
EXPERIMENT = Experiment(out=Path("runs/ual"))

if __name__ == "__main__":
    main("ual", PAPER, EXPERIMENT)
