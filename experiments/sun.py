"""SUN, the subspace unrolled network of our own, after Simões et al., TGRS 53(6), 2015.

python -m experiments.sun --data jasper_ridge --steps 400 --out runs/sun
"""

from pathlib import Path

from experiments.runner import Experiment, main

EXPERIMENT = Experiment(out=Path("runs/sun"))

if __name__ == "__main__":
    main("sun", EXPERIMENT)
