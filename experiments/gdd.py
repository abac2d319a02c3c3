"""The guided deep decoder: Uezato et al., ECCV 2020.

    python -m experiments.gdd --steps 1000 --out runs/gdd

The paper fits 20,001 steps on CAVE at ratio 32.
"""

from pathlib import Path

from experiments.runner import Experiment, main

EXPERIMENT = Experiment(out=Path("runs/gdd"))

if __name__ == "__main__":
    main("gdd", EXPERIMENT)
