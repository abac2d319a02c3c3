"""u2-MDN: Qu et al., TGRS 60, 2022.

    python -m experiments.u2mdn --out runs/u2mdn

The release fits 5,000 steps to an unregistered pair of Pavia University (103 bands, a guide of 4), which it does not
hold, in 35 spectra. Here the pair is registered and simulated from the public scene, whose wavelengths are approximate,
with Ikonos' four bands; ratio 4 and block means are unverified. The paper's numbers were not seen.
"""

from pathlib import Path

from experiments.cnn_fus import IKONOS
from experiments.runner import Experiment, main
from jfusion.data.simulate import Protocol

PAPER = Experiment(
    data="pavia_university/ssrnet",
    protocol=Protocol(ratio=4, kernel="box", guide_sensor="ikonos", guide_bands=IKONOS),
    out=Path("runs/u2mdn_pavia"),
)
EXPERIMENT = Experiment(out=Path("runs/u2mdn"))

if __name__ == "__main__":
    main("u2mdn", PAPER, EXPERIMENT)
