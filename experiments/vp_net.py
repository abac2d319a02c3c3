"""VP-Net: Tian et al., TGRS 60, 2022.

    python -m experiments.vp_net --sizes compact --patch 32 --steps 5000 --out runs/vp_net

The paper trains 55 epochs of 16,000 patches of 64 x 64 pixels on GaoFen-2 at ratio 4, degraded by cubic interpolation.
There is no builder for its data; PanCollection has GaoFen-2 too, degraded by MTF-matched Gaussians.
"""

from pathlib import Path

from experiments.runner import Experiment, main
from jfusion.data.simulate import Protocol

PAPER = Experiment(data="pancollection_gf2", protocol=Protocol(ratio=4), out=Path("runs/vp_net_gf2"))
EXPERIMENT = Experiment(data="landsat8_momotombo", out=Path("runs/vp_net"))
PUBLISHED = {
    "GaoFen-2, ratio 4, mean of five images (the release's logs)": "PSNR 34.14 dB, SSIM 0.929, SAM 3.28, ERGAS 2.46",
}

if __name__ == "__main__":
    main("vp_net", PAPER, EXPERIMENT, PUBLISHED)
