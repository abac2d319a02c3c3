"""MHF-Net: Xie et al., CVPR 2019 and TPAMI 44, 2022.

    python -m experiments.mhf_net --sizes compact --steps 2000 --out runs/mhf_net

The paper trains 62,000 steps of 10 patches of 96 x 96 pixels on CAVE at ratio 32.
"""

from pathlib import Path

from experiments.runner import Experiment, main

EXPERIMENT = Experiment(out=Path("runs/mhf_net"))
PUBLISHED = {"CAVE, ratio 32 (from memory of the paper's table)": "PSNR 37.23 dB, SAM 7.30, ERGAS 1.87"}

if __name__ == "__main__":
    main("mhf_net", EXPERIMENT, PUBLISHED)
