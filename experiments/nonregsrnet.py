"""NonRegSRNet: Zheng et al., TGRS 60, 2022.

    python -m experiments.nonregsrnet --steps 1000 --out runs/nonregsrnet

The paper fits 10,000 steps, blind, to the Washington DC Mall at ratio 4 with Landsat-8's bands, and to Chikusei at
ratio 8, after the low-resolution image has been deformed by up to 1, 3 or 5 of its pixels. Neither file comes with
wavelengths, so that no guide can be simulated, and a `Protocol` deforms nothing: here the pair is registered, and the
setting otherwise that of Washington on Houston 2018, in a crop and with the four of the six bands that its wavelengths
cover. The paper's figures were not read.
"""

from pathlib import Path

from experiments.runner import Experiment, main
from jfusion.data.simulate import Protocol

PAPER = Experiment(
    data="houston2018/contest",
    protocol=Protocol(ratio=4, taps=4, guide_bands=("B2", "B3", "B4", "B5")),
    judge=(0, 300, 0, 300),
    blind=True,
    out=Path("runs/nonregsrnet_houston"),
)
EXPERIMENT = Experiment(out=Path("runs/nonregsrnet"))

if __name__ == "__main__":
    main("nonregsrnet", PAPER, EXPERIMENT)
