"""u2-MDN: Qu et al., TGRS 60, 2022.

    python -m experiments.u2mdn --out runs/u2mdn

The release fits 5,000 steps to an unregistered pair of Pavia University (103 bands, a guide of 4), which it does not
hold; the wavelengths that a guide could be simulated with are not published with that scene. It also names CAVE and
Harvard; here it is the 12 test scenes of the split of CAVE that most papers take, registered, at ratio 32 with block
means, which is unverified. The paper's numbers were not seen.
"""

from pathlib import Path

from experiments.runner import Experiment, main
from jfusion.data.simulate import Protocol

PAPER = Experiment(
    data="cave/first20",
    protocol=Protocol(ratio=32, kernel="box", guide_sensor="nikon_d700_nssr"),
    out=Path("runs/u2mdn_cave"),
)
EXPERIMENT = Experiment(out=Path("runs/u2mdn"))

if __name__ == "__main__":
    main("u2mdn", PAPER, EXPERIMENT)
