"""PanFormer: Zhou et al., ICME 2022.

    python -m experiments.panformer --sizes compact --patch 32 --steps 5000 --out runs/panformer

The paper trains 200,000 steps of 4 patches of 256 x 256 pixels on GaoFen-2 and WorldView-3 at ratio 4. There is no
builder for its data; PanCollection has GaoFen-2 too, in patches of 64 x 64 pixels, degraded by MTF-matched Gaussians
and not by OpenCV's cubic interpolation.
"""

from pathlib import Path

from experiments.runner import Experiment, main
from jfusion.data.simulate import Protocol

PAPER = Experiment(data="pancollection_gf2", protocol=Protocol(ratio=4), out=Path("runs/panformer_gf2"))
EXPERIMENT = Experiment(data="landsat8_momotombo", out=Path("runs/panformer"))
PUBLISHED = {
    "WorldView-3, ratio 4, reduced resolution (as LGTEUN's authors report it)": "PSNR 30.48 dB, SSIM 0.937, Q8 0.932, "
    "SAM 3.85, ERGAS 3.18",
    "GaoFen-2, ratio 4, reduced resolution (as LGTEUN's authors report it)": "PSNR 44.85 dB",
}

if __name__ == "__main__":
    main("panformer", PAPER, EXPERIMENT, PUBLISHED)
