"""VO+Net: Wu et al., TGRS 60, 2022.

    python -m experiments.vo_net --patch 32 --steps 5000 --out runs/vo_net

The release has one Pleiades image at ratio 4, degraded by Gaussians with an MTF of 0.30, and the product of a network
that it does not name. The paper's other data are not public; PanCollection is its authors' later collection, degraded
by MTF-matched Gaussians. The network is FusionNet, trained as in its own script.
"""

from pathlib import Path

from experiments.runner import Experiment, main
from jfusion.data.simulate import Protocol

PAPER = Experiment(data="pancollection_wv3", protocol=Protocol(ratio=4), out=Path("runs/vo_net_wv3"))
EXPERIMENT = Experiment(data="landsat8_momotombo", out=Path("runs/vo_net"))

if __name__ == "__main__":
    main("vo_net", PAPER, EXPERIMENT)
