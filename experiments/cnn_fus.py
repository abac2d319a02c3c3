"""CNN-Fus: Dian et al., TNNLS 32(3), 2021.

    python -m experiments.cnn_fus --sizes compact --patch 32 --batch 8 --steps 3000 --out runs/cnn_fus

The release judges on the University of Pavia at ratio 5, a Gaussian of 2 pixels on 7 x 7, every fifth pixel from the
first on, four bands like Ikonos', 30 and 35 dB of noise, and learns nothing: it takes the published weights of FFDNet.
"""

from pathlib import Path

from experiments.runner import Experiment, main
from jfusion.data.simulate import Protocol
from jfusion.operators.psf import FWHM_PER_SIGMA

PAPER = Experiment(
    data="pavia_university",
    protocol=Protocol(
        ratio=5,
        width=2 * FWHM_PER_SIGMA / 5,
        taps=7,
        centre=(0.0, 0.0),
        guide_sensor="ikonos",
        lr_snr_db=30,
        guide_snr_db=35,
    ),
    out=Path("runs/cnn_fus_pavia"),
)
EXPERIMENT = Experiment(out=Path("runs/cnn_fus"))

if __name__ == "__main__":
    main("cnn_fus", PAPER, EXPERIMENT)
