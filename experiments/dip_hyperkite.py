"""DIP-HyperKite, first stage: Bandara et al., TGRS 60, 2022.

    python -m experiments.dip_hyperkite --sizes compact --out runs/dip_hyperkite

The paper sharpens tiles of Pavia Centre, Botswana and Chikusei at ratio 3 or 4, with a Gaussian as wide as the ratio,
and with the mean of many bands for a guide, whose response it does not know. Here it is the test tiles of Botswana at
ratio 4, with the panchromatic band of ALI, which flew beside Hyperion. The numbers of the first stage were not seen.
"""

from pathlib import Path

from experiments.runner import Experiment, main
from jfusion.data.simulate import Protocol

PAPER = Experiment(
    data="botswana/hyperkite",
    protocol=Protocol(ratio=4, taps=8, centre=(0.5, 0.5), guide_sensor="eo1_ali", guide_bands=("PAN",)),
    blind=True,
    out=Path("runs/dip_hyperkite_botswana"),
)
EXPERIMENT = Experiment(out=Path("runs/dip_hyperkite"))

if __name__ == "__main__":
    main("dip_hyperkite", PAPER, EXPERIMENT)
