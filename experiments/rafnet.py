"""RAFnet: Lu et al., Signal Processing 177, 2020.

    python -m experiments.rafnet --sizes compact --steps 12000 --out runs/rafnet

The release fits 500 steps to the hyperspectral image and 3,000 rounds over all patches to a pair of 103 bands and a
guide of 4, which it does not hold. So many bands has Pavia University, but the wavelengths that a guide could be
simulated with are not published with it. In its place it is the 12 test scenes of the split of CAVE that most papers
take, at ratio 32 with block means. The paper's data and numbers were not seen.
"""

from pathlib import Path

from experiments.runner import Experiment, main
from jfusion.data.simulate import Protocol

PAPER = Experiment(
    data="cave/first20",
    protocol=Protocol(ratio=32, kernel="box", guide_sensor="nikon_d700_nssr"),
    out=Path("runs/rafnet_cave"),
)
EXPERIMENT = Experiment(out=Path("runs/rafnet"))

if __name__ == "__main__":
    main("rafnet", PAPER, EXPERIMENT)
