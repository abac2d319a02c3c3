"""UDALN: Li et al., GRSL 19, 2022.

    python -m experiments.udaln --steps 6000 --out runs/udaln

The paper fits 65,000 steps in three stages: Houston 2018 and Chikusei with WorldView-2's eight bands.
"""

from pathlib import Path

from experiments.runner import Experiment, main

EXPERIMENT = Experiment(out=Path("runs/udaln"))
PUBLISHED = {
    "Houston, ratio 5": "PSNR 45.26 dB, SAM 0.875, ERGAS 0.523",
    "Chikusei, ratio 8": "PSNR 50.76 dB, SAM 0.760, ERGAS 0.459",
}

if __name__ == "__main__":
    main("udaln", EXPERIMENT, PUBLISHED)
