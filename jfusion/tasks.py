"""The tasks: what goes in, what comes out, what it is judged by and what it must beat."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Task:
    """One of the problems that systems solve.

    Attributes:
        name: as the catalogue and the command line say it.
        title: in words.
        keys: of the observation, with what each holds.
        product: what a system returns.
        metrics: names in `jfusion.metrics`, the first one leads.
        baseline: name of the trivial system that every other must beat.
    """

    name: str
    title: str
    keys: dict[str, str]
    product: str
    metrics: tuple[str, ...]
    baseline: str


_SPATIOSPECTRAL = {
    "product": "image with the bands of `lr` on the pixels of `guide`, (batch, height, width, band)",
    "metrics": ("psnr", "sam", "ergas", "ssim", "uiqi", "q2n", "cc", "rmse", "scc"),
    "baseline": "cubic",
}

PANSHARPENING = Task(
    "pansharpening",
    "Pansharpening",
    {"lr": "multispectral image", "guide": "panchromatic image, one band"},
    **_SPATIOSPECTRAL,  # type: ignore[arg-type]
)
HS_PANSHARPENING = Task(
    "hs_pansharpening",
    "Hyperspectral pansharpening",
    {"lr": "hyperspectral image", "guide": "panchromatic image, one band"},
    **_SPATIOSPECTRAL,  # type: ignore[arg-type]
)
HS_MS = Task(
    "hs_ms",
    "Hyperspectral and multispectral fusion",
    {"lr": "hyperspectral image", "guide": "multispectral image, a few bands"},
    **_SPATIOSPECTRAL,  # type: ignore[arg-type]
)

TASKS: dict[str, Task] = {task.name: task for task in (PANSHARPENING, HS_PANSHARPENING, HS_MS)}

SPATIOSPECTRAL: tuple[str, ...] = tuple(TASKS)
"""Names of the tasks that fuse `lr` with `guide`: one system serves them all."""

HYPERSPECTRAL_BANDS = 20
"""From so many bands on an image is called hyperspectral."""


def spatiospectral_task(bands: int, guide_bands: int) -> Task:
    """The task of a pair with so many bands in `lr` and in `guide`."""
    if guide_bands > 1:
        return HS_MS
    return HS_PANSHARPENING if bands >= HYPERSPECTRAL_BANDS else PANSHARPENING
