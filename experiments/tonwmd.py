"""TONWMD: Shen et al., JSTARS 13, 2020.

    python -m experiments.tonwmd --sizes compact --patch 48 --batch 4 --steps 2000 --out runs/tonwmd

The paper trains 150 epochs of batches of 64 patches of 32 x 32 pixels on CAVE at ratio 8: the first 20 scenes to learn
from, 12 to judge, no noise. The release blurs by a Gaussian of 8 pixels on 8 x 8 pixels, nearly a mean, and keeps every
eighth pixel from the first on, so that the low-resolution pixels lie half a pixel after it.
"""

from pathlib import Path

from experiments.runner import Experiment, main
from jfusion.data.simulate import Protocol
from jfusion.operators.psf import FWHM_PER_SIGMA

PAPER = Experiment(
    data="cave/first20",
    protocol=Protocol(ratio=8, width=FWHM_PER_SIGMA, taps=8, centre=(0.5, 0.5), guide_sensor="nikon_d700_nssr"),
    validate=0.2,
    out=Path("runs/tonwmd_cave"),
)
EXPERIMENT = Experiment(out=Path("runs/tonwmd"))

if __name__ == "__main__":
    main("tonwmd", PAPER, EXPERIMENT)
