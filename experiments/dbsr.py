"""DBSR: Zhang et al., TNNLS 32, 2021.

    python -m experiments.dbsr --sizes compact --out runs/dbsr

The paper fits ICVL, CAVE and Harvard at ratios 8, 16 and 32, with noise of 40 dB in both images, blurred by four
motions, without being told of B and R. Here a Gaussian blurs the 12 test scenes of the split of CAVE that most papers
take. The release has no numbers.
"""

from pathlib import Path

from experiments.runner import Experiment, main
from jfusion.data.simulate import Protocol

PAPER = Experiment(
    data="cave/first20",
    protocol=Protocol(ratio=8, guide_sensor="nikon_d700_nssr", lr_snr_db=40, guide_snr_db=40),
    blind=True,
    out=Path("runs/dbsr_cave"),
)
EXPERIMENT = Experiment(out=Path("runs/dbsr"))

if __name__ == "__main__":
    main("dbsr", PAPER, EXPERIMENT)
