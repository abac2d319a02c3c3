"""What is measured: each system with the sizes of its paper, and its images."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

Images = dict[str, np.ndarray]
"""Channel-last images ``(batch, height, width, band)`` by name: "lr", "guide" and "target"."""

SCENE = "jasper_ridge"
"""The embedded scene that batches are read from."""

READ = 32
"""Batches that are read at a time, many more than are read ahead."""


@dataclasses.dataclass(frozen=True)
class Case:
    """A system and the images that it is given.

    Attributes:
        system: in the catalogue.
        lr, guide, ratio: bands of the two images, and the ratio of their grids.
        patch, batch: of a train step, the side in guide pixels.
        image: side of the one image of inference, in guide pixels.
        sizes: of the network, the paper's where there are none.
    """

    system: str
    lr: int
    guide: int
    ratio: int
    patch: int
    batch: int
    image: int = 256
    sizes: dict[str, Any] = dataclasses.field(default_factory=dict, hash=False)

    def tiny(self) -> Case:
        """The same with a tiny network and tiny images."""
        return dataclasses.replace(self, lr=3, ratio=4, patch=16, batch=2, image=32, sizes=TINY[self.system])

    def images(self, batch: int, side: int) -> Images:
        """Noise between 0 and 1."""
        rng = np.random.default_rng(0)
        shapes = {"lr": (side // self.ratio, self.lr), "guide": (side, self.guide), "target": (side, self.lr)}
        return {name: rng.random((batch, n, n, bands), np.float32) for name, (n, bands) in shapes.items()}

    def __str__(self) -> str:
        return f"{self.lr} + {self.guide} bands, ratio {self.ratio}, {self.batch} patches of {self.patch}"


CASES: tuple[Case, ...] = (
    Case("fusionnet", lr=8, guide=1, ratio=4, patch=64, batch=16),
    Case("pannet", lr=8, guide=1, ratio=4, patch=64, batch=16),
    Case("psgan", lr=4, guide=1, ratio=4, patch=64, batch=4),
    Case("panformer", lr=4, guide=1, ratio=4, patch=64, batch=4),
    Case("mhf_net", lr=31, guide=3, ratio=32, patch=96, batch=2),
)

UNROLLED: tuple[Case, ...] = (
    Case("gppnn", lr=4, guide=1, ratio=4, patch=64, batch=4),
    Case("vp_net", lr=4, guide=1, ratio=4, patch=64, batch=4),
    Case("lgteun", lr=4, guide=1, ratio=4, patch=64, batch=4, sizes={"stages": 4, "field": 64}),
    Case("admm_hfnet", lr=4, guide=1, ratio=4, patch=64, batch=4),
    Case("spfnet", lr=4, guide=1, ratio=4, patch=64, batch=4),
    Case("mhf_net", lr=31, guide=3, ratio=32, patch=96, batch=2),
)
"""Networks whose stages can be laid out in several ways."""


@dataclasses.dataclass(frozen=True)
class FitCase:
    """A system that is fitted to a pair made from `SCENE`.

    Attributes:
        system: in the catalogue.
        stage: which stage its last is.
        side: of the pair, in guide pixels.
        sizes: of the system, the paper's where there are none.
    """

    system: str
    stage: str = "the only one"
    side: int = 100
    sizes: dict[str, Any] = dataclasses.field(default_factory=dict, hash=False)

    def tiny(self) -> FitCase:
        """The same with a tiny system and a tiny pair."""
        return dataclasses.replace(self, side=16, sizes=TINY[self.system])


FITS: tuple[FitCase, ...] = (
    FitCase("udaln", "third of three"),
    FitCase("miae", "second of two"),
    FitCase("gdd"),
    FitCase("cucanet"),
)
"""Their last stages are where most of their time goes."""

LARGEST_FIT = FitCase("rec_hsisr")
"""The system whose fit takes most memory of all."""

TRAIN_STEPS = 5
"""Steps of a training at a time."""

FIT_STEPS = 8
"""Steps of a fit at a time."""

TINY: dict[str, dict[str, Any]] = {
    "fusionnet": {"width": 4, "blocks": 1},
    "pannet": {"width": 4, "blocks": 1},
    "psgan": {"width": 4, "critics": {"width": 4}},
    "panformer": {"width": 8, "heads": 2, "stages": 1},
    "mhf_net": {"stages": 2, "rank": 2, "adjust_blocks": 1},
    "gppnn": {"stages": 2, "width": 4},
    "udaln": {},
    "miae": {"endmembers": 8},
    "gdd": {"width": 8, "levels": 2},
    "cucanet": {"endmembers": 8, "widths": (8, 8, 8)},
}
