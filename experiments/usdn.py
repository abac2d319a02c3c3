"""uSDN: Qu et al., CVPR 2018.

    python -m experiments.usdn --steps 20000 --out runs/usdn

The paper fuses images of CAVE and Harvard at ratio 32 with an RGB guide, and stops by the truth, which this fit never
sees. Which scenes it takes is unverified, and so is the blur, here block means; here it is the 12 test scenes of the
split that most papers take. The numbers are from Table I of UDALN's paper (Li et al., GRSL 19, 2022).
"""

from pathlib import Path

from experiments.runner import Experiment, main
from jfusion.data.simulate import Protocol

PAPER = Experiment(
    data="cave/first20",
    protocol=Protocol(ratio=32, kernel="box", guide_sensor="nikon_d700"),
    out=Path("runs/usdn_cave"),
)
EXPERIMENT = Experiment(out=Path("runs/usdn"))
PUBLISHED = {
    "Chikusei, ratio 5, run by others": "PSNR 43.27 dB, SAM 1.070, ERGAS 1.503",
    "Chikusei, ratio 8, run by others": "PSNR 41.54 dB, SAM 1.346, ERGAS 1.018",
}

if __name__ == "__main__":
    main("usdn", PAPER, EXPERIMENT, PUBLISHED)
