"""CUCaNet: Yao et al., ECCV 2020.

    python -m experiments.cucanet --steps 300 --out runs/cucanet

The release fits 10,000 steps, blind, to two scenes of CAVE at ratio 32, with a Nikon D700 and a Gaussian of half a
pixel's standard deviation, which sees little more than the four pixels in the middle of each block. No published split
judges both scenes; the one here has chart_and_stuffed_toy among its eleven.
"""

from pathlib import Path

from experiments.runner import Experiment, main
from jfusion.data.simulate import Protocol
from jfusion.operators.psf import FWHM_PER_SIGMA

PAPER = Experiment(
    data="cave/hsrnet",
    protocol=Protocol(ratio=32, width=0.5 * FWHM_PER_SIGMA / 32, taps=32, guide_sensor="nikon_d700"),
    blind=True,
    out=Path("runs/cucanet_cave"),
)
EXPERIMENT = Experiment(out=Path("runs/cucanet"))
PUBLISHED = {
    "CAVE, chart_and_stuffed_toy, ratio 32, step 8,001 of the release's log": "PSNR 36.04 dB, SAM 8.52, ERGAS 0.74",
    "CAVE, fake_and_real_food, ratio 32, the release's log": "PSNR 39.63 dB, SAM 6.96, ERGAS 1.10",
    "Houston, ratio 10, in EU2ADL": "PSNR 42.99 dB, SAM 1.801, ERGAS 0.385",
}

if __name__ == "__main__":
    main("cucanet", PAPER, EXPERIMENT, PUBLISHED)
