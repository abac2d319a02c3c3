"""ADMM-HFNet: Shen et al., TGRS 60, 2022.

    python -m experiments.admm_hfnet --sizes compact --patch 32 --batch 4 --steps 2000 --out runs/admm_hfnet

The paper trains 160,000 steps of 16 patches of 64 x 64 pixels on CAVE at ratio 8: the first 20 scenes to learn from,
a fifth of their patches to choose the step, 12 to judge. The kernel is a Gaussian of 2 pixels on 8 x 8 pixels; every
eighth pixel is kept from the first on, so that the low-resolution pixels lie half a pixel after it. Noise of 30 dB is
added to them and of 40 dB to the guide; in the release it has one variance for all bands, here one for each. Harvard is
fused in the same way (`--data harvard/first30`); the paper has 10 stages there, here they stay 11.
"""

from pathlib import Path

from experiments.runner import Experiment, main
from jfusion.data.simulate import Protocol
from jfusion.operators.psf import FWHM_PER_SIGMA

PAPER = Experiment(
    data="cave/first20",
    protocol=Protocol(
        ratio=8, width=2 * FWHM_PER_SIGMA / 8, taps=8, centre=(0.5, 0.5), guide_sensor="nikon_d700_nssr", lr_snr_db=30,
        guide_snr_db=40,
    ),
    validate=0.2,
    out=Path("runs/admm_hfnet_cave"),
)  # fmt: skip
EXPERIMENT = Experiment(out=Path("runs/admm_hfnet"))

if __name__ == "__main__":
    main("admm_hfnet", PAPER, EXPERIMENT)
