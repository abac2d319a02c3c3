"""MHF-Net: Xie et al., CVPR 2019 and TPAMI 44, 2022.

    python -m experiments.mhf_net --sizes compact --steps 2000 --out runs/mhf_net

The paper trains 62,000 steps of 10 patches of 96 x 96 pixels on CAVE at ratio 32: 20 scenes to learn from, 12 to judge,
no noise. Kernel (a Gaussian of 10 pixels on each block of 32 x 32) and camera curves are those of the release; its
variant for CVPR 2019, which the published numbers belong to, takes block means and other curves. The release reads the
bands in 8 bits, here all 16 count; and its split depends on the file system (see the data set's note).
"""

from pathlib import Path

from experiments.runner import Experiment, main
from jfusion.data.simulate import Protocol
from jfusion.operators.psf import FWHM_PER_SIGMA

PAPER = Experiment(
    data="cave/mhf",
    protocol=Protocol(ratio=32, width=10 * FWHM_PER_SIGMA / 32, taps=32, guide_sensor="nikon_d700_nssr"),
    validate=0,
    out=Path("runs/mhf_net_cave"),
)
EXPERIMENT = Experiment(out=Path("runs/mhf_net"))
PUBLISHED = {"CAVE, ratio 32 (from memory of the paper's table)": "PSNR 37.23 dB, SAM 7.30, ERGAS 1.87"}

if __name__ == "__main__":
    main("mhf_net", PAPER, EXPERIMENT, PUBLISHED)
