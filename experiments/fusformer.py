"""Fusformer: Hu et al., GRSL 19, 2022.

    python -m experiments.fusformer --sizes compact --patch 32 --steps 2000 --out runs/fusformer

The paper trains 1000 epochs of batches of 3 patches of 64 x 64 pixels on CAVE at ratio 4.
"""

from pathlib import Path

from experiments.runner import Experiment, main

EXPERIMENT = Experiment(out=Path("runs/fusformer"))
PUBLISHED = {
    "CAVE, ratio 4 (as U2Net's authors repeat it)": "PSNR 49.98 dB, SAM 2.20, ERGAS 2.53",
    "CAVE, ratio 4 (as HSR-KAN's authors report it)": "PSNR 48.56 dB, SAM 2.52, ERGAS 1.30",
}

if __name__ == "__main__":
    main("fusformer", EXPERIMENT, PUBLISHED)
