"""CNN-Fus: Dian et al., TNNLS 32(3), 2021.

    python -m experiments.cnn_fus --sizes compact --patch 32 --batch 8 --steps 3000 --out runs/cnn_fus

The paper judges on CAVE and on the University of Pavia and learns nothing: it takes the published weights of FFDNet.
Its release has Pavia's setting alone (ratio 5, a Gaussian of 2 pixels on 7 x 7, every fifth pixel from the first on,
four bands like Ikonos', 30 and 35 dB of noise), and Pavia's file has no wavelengths to simulate these bands by. So the
protocol is that on CAVE of DHSIS, by the same authors.

With the published weights, whose file the release has:

    jfusion import cnn_fus FFDNet_gray.mat weights.safetensors --scale 0.4
    jfusion simulate jasper_ridge pair --guide-bands B1 B2 B3 B4 B5 B6 B7 --lr-snr 35 --guide-snr 40
    jfusion fuse pair/lr.tif pair/guide.tif product.tif --system cnn_fus --weights weights.safetensors
"""

from pathlib import Path

from experiments.dhsis import PAPER as DHSIS
from experiments.runner import Experiment, main

PAPER = Experiment(data=DHSIS.data, protocol=DHSIS.protocol, out=Path("runs/cnn_fus_cave"))
EXPERIMENT = Experiment(out=Path("runs/cnn_fus"))

if __name__ == "__main__":
    main("cnn_fus", PAPER, EXPERIMENT)
