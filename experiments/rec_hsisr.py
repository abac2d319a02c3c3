"""Rec-HSISR with pixel-aware refinement: Wei et al., TGRS 60, 2022.

    python -m experiments.rec_hsisr --sizes compact --out runs/rec_hsisr

The release fits 2,001 steps to images of CAVE at ratio 8, with the camera of most papers and a Gaussian of 8 x 8 taps
and a deviation of 6 pixels, and has noise of 20 dB on the hyperspectral image and of 25 dB on the guide. Which images
the paper's tables are of, and its numbers, were not seen; here it is the 12 test scenes of the split that most papers
take.
"""

from pathlib import Path

from experiments.runner import Experiment, main
from jfusion.data.simulate import Protocol

PAPER = Experiment(
    data="cave/first20",
    protocol=Protocol(ratio=8, width=1.7661, taps=8, guide_sensor="nikon_d700_nssr", lr_snr_db=20, guide_snr_db=25),
    out=Path("runs/rec_hsisr_cave"),
)
EXPERIMENT = Experiment(out=Path("runs/rec_hsisr"))

if __name__ == "__main__":
    main("rec_hsisr", PAPER, EXPERIMENT)
