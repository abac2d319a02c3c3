"""NonRegSRNet: Zheng et al., TGRS 60, 2022.

    python -m experiments.nonregsrnet --steps 1000 --out runs/nonregsrnet

The paper fits 10,000 steps, blind, to the Washington DC Mall at ratio 4 with Landsat-8's bands, and to Chikusei at
ratio 8 with four, after the low-resolution image has been deformed by up to 1, 3 or 5 of its pixels. A `Protocol`
deforms nothing (`experiments.registration` does), so that here the pair is registered: Chikusei, a Gaussian of 1 pixel
on each block, in the tiles of HyperKite's split; which pixels are the paper's was not seen, nor were its figures.
"""

from pathlib import Path

from experiments.runner import Experiment, main
from jfusion.data.simulate import Protocol
from jfusion.operators.psf import FWHM_PER_SIGMA

PAPER = Experiment(
    data="chikusei/hyperkite",
    protocol=Protocol(ratio=8, width=FWHM_PER_SIGMA / 8, taps=8, guide_bands=("B2", "B3", "B4", "B5")),
    blind=True,
    out=Path("runs/nonregsrnet_chikusei"),
)
EXPERIMENT = Experiment(out=Path("runs/nonregsrnet"))

if __name__ == "__main__":
    main("nonregsrnet", PAPER, EXPERIMENT)
