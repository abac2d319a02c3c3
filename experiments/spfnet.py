"""SpfNet: Liu et al., JSTARS 15, 2022.

    python -m experiments.spfnet --sizes compact --patch 32 --batch 4 --steps 2000 --out runs/spfnet

The paper trains 200 epochs of 420 steps of 32 patches of 64 x 64 pixels on CAVE at ratio 8: the first 20 scenes to
learn from, 12 to judge, noise of 30 dB on the low-resolution image and of 40 dB on the guide. The kernel is a Gaussian
as wide as a low-resolution pixel on 15 x 15 taps, and every eighth pixel is kept from the first on. The release gives
all bands of an image one deviation of the noise, here each has the same ratio to its own signal; its camera curves are
a smoother version of those here; and a random fifth of the patches chooses the best step, which overlap the others.
Harvard is fused in the same way (`--data harvard/first30`).
"""

from pathlib import Path

from experiments.runner import Experiment, main
from jfusion.data.simulate import Protocol

PAPER = Experiment(
    data="cave/first20",
    protocol=Protocol(
        ratio=8, taps=15, centre=(0.0, 0.0), boundary="reflect", guide_sensor="nikon_d700_nssr", lr_snr_db=30,
        guide_snr_db=40,
    ),
    validate=0.2,
    out=Path("runs/spfnet_cave"),
)  # fmt: skip
EXPERIMENT = Experiment(out=Path("runs/spfnet"))

if __name__ == "__main__":
    main("spfnet", PAPER, EXPERIMENT)
