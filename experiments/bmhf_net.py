"""BMHF-Net, the MHF-Net that is told the sensors: Xie et al., TPAMI 44(3), 2022.

    python -m experiments.bmhf_net --sizes compact --steps 2000 --out runs/bmhf_net

The paper trains 80,000 steps of 10 patches of 96 x 96 pixels on CAVE at ratio 32.
"""

from pathlib import Path

from experiments.runner import Experiment, main

EXPERIMENT = Experiment(out=Path("runs/bmhf_net"))

if __name__ == "__main__":
    main("bmhf_net", EXPERIMENT)
