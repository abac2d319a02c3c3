"""HSI-CSR: Fu et al., CVPR 2019.

    python -m experiments.hsi_csr --out runs/hsi_csr

The paper fits 5,000 steps at ratio 32 with block means and an RGB guide. Data sets and scenes are unverified; here it
is the 12 test scenes of the split of CAVE that most papers take. The release has no numbers.
"""

from pathlib import Path

from experiments.runner import Experiment, main
from jfusion.data.simulate import Protocol

PAPER = Experiment(
    data="cave/first20",
    protocol=Protocol(ratio=32, kernel="box", guide_sensor="nikon_d700_nssr"),
    out=Path("runs/hsi_csr_cave"),
)
EXPERIMENT = Experiment(out=Path("runs/hsi_csr"))

if __name__ == "__main__":
    main("hsi_csr", PAPER, EXPERIMENT)
