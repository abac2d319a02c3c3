"""EDBIN: Wang et al., TNNLS 34(3), 2023.

    python -m experiments.edbin --sizes compact --patch 32 --batch 4 --steps 2000 --out runs/edbin

The paper trains and judges on CAVE as that of DBIN+ does, see `experiments.dbin`.
"""

import dataclasses
from pathlib import Path

from experiments import dbin
from experiments.runner import Experiment, main

PAPER = dataclasses.replace(dbin.PAPER, out=Path("runs/edbin_cave"))
EXPERIMENT = Experiment(out=Path("runs/edbin"))
PUBLISHED = {
    "CAVE, ratio 8": "PSNR 48.47 dB, SSIM 0.994, SAM 3.02, ERGAS 0.53",
    "WorldView-3, full resolution": "D_lambda 0.033, D_s 0.027, QNR 0.941",
}

if __name__ == "__main__":
    main("edbin", PAPER, EXPERIMENT, PUBLISHED)
