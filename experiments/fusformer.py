"""Fusformer: Hu et al., GRSL 19, 2022.

    python -m experiments.fusformer --sizes compact --patch 32 --steps 2000 --out runs/fusformer

The paper trains 1000 epochs of batches of 3 patches of 64 x 64 pixels on CAVE at ratio 4: 20 scenes to learn from, 11
to judge. Its release does not say how it blurs; its family is said to use a Gaussian of half a pixel on 3 x 3 pixels
(unverified, and so are the pixel that is kept, here number 1 of 4, and the camera's curves).
"""

from pathlib import Path

from experiments.runner import Experiment, main
from jfusion.data.simulate import Protocol
from jfusion.operators.psf import FWHM_PER_SIGMA

PAPER = Experiment(
    data="cave/hsrnet",
    protocol=Protocol(
        ratio=4, width=0.5 * FWHM_PER_SIGMA / 4, taps=3, centre=(1.0, 1.0), guide_sensor="nikon_d700_nssr"
    ),
    validate=0,
    out=Path("runs/fusformer_cave"),
)
EXPERIMENT = Experiment(data="landsat8_momotombo", out=Path("runs/fusformer"))
PUBLISHED = {
    "CAVE, ratio 4 (as U2Net's authors repeat it)": "PSNR 49.98 dB, SAM 2.20, ERGAS 2.53",
    "CAVE, ratio 4 (as HSR-KAN's authors report it)": "PSNR 48.56 dB, SAM 2.52, ERGAS 1.30",
}

if __name__ == "__main__":
    main("fusformer", PAPER, EXPERIMENT, PUBLISHED)
