"""BMHF-Net, the MHF-Net that is told the sensors: Xie et al., TPAMI 44(3), 2022.

    python -m experiments.bmhf_net --sizes compact --steps 2000 --out runs/bmhf_net

The paper trains 80,000 steps of 10 patches of 96 x 96 pixels on CAVE at ratio 32. It draws PSF and SRF anew for each
batch and in ten rounds of tests, from 20 Gaussian kernels on 48 x 48 pixels and 52 camera curves, and estimates them
when it is judged. Here they are one of these kernels, that of 17.3 pixels, and one camera throughout, and the network
is told them: at ratio 32 the estimator of `jfusion.operators.estimate` has too many unknowns.
"""

from pathlib import Path

from experiments.runner import Experiment, main
from jfusion.data.simulate import Protocol
from jfusion.operators.psf import FWHM_PER_SIGMA

PAPER = Experiment(
    data="cave/mhf",
    protocol=Protocol(
        ratio=32, width=300**0.5 * FWHM_PER_SIGMA / 32, taps=48, boundary="reflect", guide_sensor="nikon_d700_nssr"
    ),
    validate=0,
    out=Path("runs/bmhf_net_cave"),
)
EXPERIMENT = Experiment(out=Path("runs/bmhf_net"))

if __name__ == "__main__":
    main("bmhf_net", PAPER, EXPERIMENT)
