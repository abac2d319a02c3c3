"""Deep decoder: Heckel and Hand, ICLR 2019.

    python -m experiments.deep_decoder --steps 2000 --out runs/deep_decoder

The paper compresses and restores single photographs and fuses nothing, so that it has no numbers for a pair. Here it is
fitted to the 12 test scenes of CAVE at ratio 8.
"""

from pathlib import Path

from experiments.runner import Experiment, main
from jfusion.data.simulate import Protocol

PAPER = Experiment(
    data="cave/first20",
    protocol=Protocol(ratio=8, guide_sensor="nikon_d700_nssr"),
    out=Path("runs/deep_decoder_cave"),
)
EXPERIMENT = Experiment(out=Path("runs/deep_decoder"))

if __name__ == "__main__":
    main("deep_decoder", PAPER, EXPERIMENT)
