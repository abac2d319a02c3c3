"""RAFnet: Lu et al., Signal Processing 177, 2020.

    python -m experiments.rafnet --sizes compact --steps 12000 --out runs/rafnet

The release fits 500 steps to the hyperspectral image and 3,000 rounds over all patches to a pair of 103 bands and a
guide of 4, which it does not hold. So many bands has Pavia University: here the pair is simulated from that scene,
whose wavelengths are approximate, with Ikonos' four bands; ratio 4 and block means are unverified. The paper's data and
numbers were not seen.
"""

from pathlib import Path

from experiments.cnn_fus import IKONOS
from experiments.runner import Experiment, main
from jfusion.data.simulate import Protocol

PAPER = Experiment(
    data="pavia_university/ssrnet",
    protocol=Protocol(ratio=4, kernel="box", guide_sensor="ikonos", guide_bands=IKONOS),
    out=Path("runs/rafnet_pavia"),
)
EXPERIMENT = Experiment(out=Path("runs/rafnet"))

if __name__ == "__main__":
    main("rafnet", PAPER, EXPERIMENT)
