"""CNN-Fus: Dian et al., TNNLS 32(3), 2021.

    python -m experiments.cnn_fus --sizes compact --patch 32 --batch 8 --steps 3000 --out runs/cnn_fus

The paper judges on CAVE and on the University of Pavia and learns nothing: it takes the published weights of FFDNet.
Its release has Pavia's setting, which is here: ratio 5, a Gaussian of 2 pixels on 7 x 7, every fifth pixel from the
first on, four bands like Ikonos', 30 and 35 dB of noise. The release cuts off ten bands of another file of the scene;
here it is the public one with 103 bands, whose wavelengths are approximate, in SSR-NET's split. The paper's numbers
were not seen.

With the published weights, whose file the release has:

    jfusion import cnn_fus FFDNet_gray.mat weights.safetensors --scale 0.4
    jfusion simulate jasper_ridge pair --guide-bands B1 B2 B3 B4 B5 B6 B7 --lr-snr 35 --guide-snr 40
    jfusion fuse pair/lr.tif pair/guide.tif product.tif --system cnn_fus --weights weights.safetensors
"""

from pathlib import Path

from experiments.runner import Experiment, main
from jfusion.data.simulate import Protocol
from jfusion.operators.psf import FWHM_PER_SIGMA

IKONOS = ("Blue", "Green", "Red", "NIR")
PAPER = Experiment(
    data="pavia_university/ssrnet",
    protocol=Protocol(
        ratio=5,
        width=2 * FWHM_PER_SIGMA / 5,
        taps=7,
        centre=(0.0, 0.0),
        guide_sensor="ikonos",
        guide_bands=IKONOS,
        lr_snr_db=30,
        guide_snr_db=35,
    ),
    out=Path("runs/cnn_fus_pavia"),
)
EXPERIMENT = Experiment(out=Path("runs/cnn_fus"))

if __name__ == "__main__":
    main("cnn_fus", PAPER, EXPERIMENT)
