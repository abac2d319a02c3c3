"""TSFN with the minimum-distance criterion: Wang et al., TCSVT 32(4), 2022.

    python -m experiments.tsfn --sizes compact --patch 32 --batch 4 --steps 2000 --out runs/tsfn

The paper trains 500 epochs of 125 batches of 16 patches of 128 x 128 pixels on CAVE: the first 20 scenes to
learn from, 12 to judge. Its release degrades every patch anew, by a Gaussian of 3 pixels on each block of 8 x 8 or by
means over blocks of 8, 16 or 32; here it is the Gaussian throughout. And it divides each scene by its maximum, where
here all are divided by full scale.
"""

from pathlib import Path

from experiments.runner import Experiment, main
from jfusion.data.simulate import Protocol
from jfusion.operators.psf import FWHM_PER_SIGMA

PAPER = Experiment(
    data="cave/first20",
    protocol=Protocol(ratio=8, width=3 * FWHM_PER_SIGMA / 8, taps=8, guide_sensor="nikon_d700_nssr"),
    validate=0,
    out=Path("runs/tsfn_cave"),
)
EXPERIMENT = Experiment(out=Path("runs/tsfn"))

if __name__ == "__main__":
    main("tsfn", PAPER, EXPERIMENT)
