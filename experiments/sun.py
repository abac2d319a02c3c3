"""SUN, the subspace unrolled network that is jfusion's own, after Simões et al., TGRS 53(6), 2015.

    python -m experiments.sun --out runs/sun

Its recipe is 400 steps of 2 patches of 40 x 40 pixels. On CAVE it takes what most papers take: ratio 8, a Gaussian of 2
pixels on each block of 8 x 8, no noise, the first 20 scenes to learn from and 12 to judge (as DHIF-Net's release does).
"""

from pathlib import Path

from experiments.runner import Experiment, main
from jfusion.data.simulate import Protocol
from jfusion.operators.psf import FWHM_PER_SIGMA

PAPER = Experiment(
    data="cave/first20",
    protocol=Protocol(ratio=8, width=2 * FWHM_PER_SIGMA / 8, taps=8, guide_sensor="nikon_d700_nssr"),
    out=Path("runs/sun_cave"),
)
EXPERIMENT = Experiment(out=Path("runs/sun"))

if __name__ == "__main__":
    main("sun", PAPER, EXPERIMENT)
