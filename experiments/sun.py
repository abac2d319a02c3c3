"""SUN, the subspace unrolled network of our own, after Simões et al., TGRS 53(6), 2015.

    python -m experiments.sun --out runs/sun

Its recipe is 400 steps of 2 patches of 40 x 40 pixels.
"""

from pathlib import Path

from experiments.runner import Experiment, main

EXPERIMENT = Experiment(out=Path("runs/sun"))

if __name__ == "__main__":
    main("sun", EXPERIMENT)
