"""Registration inside fusion: what displacement is found, and what fusion loses by it.

    python -m experiments.registration

An embedded scene is the truth. Its low-resolution image is seen through a displacement drawn at random (an affine map
with shifts up to 3 low-resolution pixels, a smooth field up to 2, or both), by quintic splines, which no part of the
library uses. One row a scene and kind: the error of the field that is found, and the PSNR of fusion from
the pair in place, from the displaced pair with `registering`, and from the displaced pair as it is. Then the
displacements that are found in the real pairs.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from typing import Any, Literal, cast

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from scipy.ndimage import gaussian_filter, map_coordinates

from jfusion import catalogue
from jfusion.data import scenes
from jfusion.data.simulate import Protocol, Simulation, observe, reduce, simulate
from jfusion.inference.pair import make_pair
from jfusion.inference.run import run
from jfusion.metrics import psnr
from jfusion.operators import SpatialResponse, SpectralResponse
from jfusion.operators.estimate import estimate
from jfusion.operators.registration import register
from jfusion.process import answered, use_all_cores

Kind = Literal["affine", "field", "both"]
KINDS: tuple[Kind, ...] = ("affine", "field", "both")

SHIFT = 3.0
"""Largest shift along either axis, in low-resolution pixels."""

LINEAR = 0.03
"""Largest entry of the linear part of an affine map: 1.7 degrees, or 3 % of scale."""

PEAK = 2.0
"""Largest displacement of a smooth field along either axis, in low-resolution pixels."""

MARGIN = 5
"""Low-resolution pixels next to the border that are not judged: no pixel of a displaced image may show them."""

LANDSAT = ("B2", "B3", "B4", "B5", "B6", "B7")
HYPERSPECTRAL = Protocol(
    ratio=4, guide_bands=LANDSAT, lr_snr_db=35, guide_snr_db=40, seed=1, boundary="reflect", data_range=0.5
)
SIMULATED: dict[str, Protocol] = {
    "jasper_ridge": HYPERSPECTRAL,
    "aviris_california": dataclasses.replace(HYPERSPECTRAL, ratio=2),
    "landsat8_liverpool": HYPERSPECTRAL,
    "landsat8_momotombo": HYPERSPECTRAL,
}
"""Scenes and how their pairs are made; see `pair_of`."""

SYSTEMS: dict[str, dict[str, tuple[int, ...]]] = {
    "jasper_ridge": {"fuse": (0, 1, 2, 3), "miae": (0,)},
    "aviris_california": {"fuse": (0, 1, 2, 3)},
    "landsat8_liverpool": {"fuse": (0,), "mtf_glp_cbd": (0,)},
    "landsat8_momotombo": {"fuse": (0,), "mtf_glp_cbd": (0,)},
}
"""Seeds of the draws by system and scene."""

SETTINGS: dict[str, dict[str, Any]] = {"miae": {"effort": 0.03, "sizes": {"endmembers": 30}}}
"""Of `jfusion.inference.run.run`."""

REAL = {
    "paris_hs_pan": ("hsi", "pan"),
    "paris_hs_ms": ("hsi", "msi"),
    "landsat8_tiny": ("msi", "pan"),
    "landsat7_tiny": ("msi", "pan"),
    "landsat8_liverpool": ("msi", "pan"),
    "landsat8_momotombo": ("msi", "pan"),
}


def draw(kind: Kind, size: tuple[int, ...], seed: int) -> np.ndarray:
    """A displacement ``(h, w, 2)``, (row, column) in low-resolution pixels."""
    rng = np.random.default_rng(seed)
    shift, linear = rng.uniform(-SHIFT, SHIFT, 2), rng.uniform(-LINEAR, LINEAR, (2, 2))
    rows, columns = (np.arange(n) - (n - 1) / 2 for n in size)
    affine = shift + rows[:, None, None] * linear[0] + columns[None, :, None] * linear[1]
    noise = rng.standard_normal((3 * size[0], 3 * size[1], 2))
    field = gaussian_filter(noise, (size[0] / 5, size[1] / 5, 0))[size[0] : 2 * size[0], size[1] : 2 * size[1]]
    field = PEAK * field / np.abs(field).max()
    return {"affine": affine, "field": field, "both": affine + field}[kind]


def displace(pair: Simulation, displacement: np.ndarray, seed: int) -> Simulation:
    """The pair with an `lr` that is displaced: the blurred scene between its pixels, mirrored where it ends.

    Args:
        pair: with truth, in place.
        displacement: ``(h, w, 2)``, (row, column) in low-resolution pixels.
        seed: of the noise.
    """
    response = pair.model["lr"]
    assert isinstance(response, SpatialResponse)
    place = np.indices(displacement.shape[:2]) + np.moveaxis(displacement, -1, 0)
    place = response.ratio * place + np.reshape(response.phase, (2, 1, 1))
    blurred = np.moveaxis(np.asarray(response.blur(pair.target)[0]), -1, 0)
    lr = np.stack([map_coordinates(band, place, order=5, mode="mirror") for band in blurred], -1)[None]
    noise = pair.model.noise.get("lr", 0.0) * jax.random.normal(jax.random.key(seed), lr.shape)
    return pair._replace(observation=pair.observation | {"lr": jnp.asarray(lr, jnp.float32) + noise})


def pair_of(name: str, protocol: Protocol) -> tuple[Simulation, float]:
    """The whole of an embedded scene as a pair with truth, and its full scale.

    A multispectral image with a panchromatic one is one ratio lower: the multispectral image is the truth. Its guide is
    made of it too, by the response that the real one seems to have, since nobody knows how the real two lie on each
    other.
    """
    images = scenes.load(name)
    if "hsi" in images:
        hsi = images["hsi"]
        assert hsi.wavelengths is not None
        return simulate(hsi.physical(), hsi.wavelengths, protocol), protocol.data_range
    real = make_pair(images["msi"], images["pan"])
    reduced = reduce(real.observation, real.model)
    model = estimate(reduced.observation, reduced.model).model
    pair = observe(
        reduced.target, cast(SpatialResponse, model["lr"]), cast(SpectralResponse, model["guide"]), model.grid,
        protocol.lr_snr_db, protocol.guide_snr_db, jax.random.key(protocol.seed),
    )  # fmt: skip
    return pair, float(pair.target.max())


def error(found: np.ndarray, true: np.ndarray) -> float:
    """Mean length of the difference of two displacements ``(h, w, 2)``, over pixels that lie on the guide."""
    size = true.shape[:2]
    place = np.moveaxis(np.indices(size), 0, -1) + true
    inside = np.all((place >= 0) & (place <= np.array(size) - 1), -1)
    return float(np.linalg.norm(found - true, axis=-1)[inside].mean())


@dataclasses.dataclass(frozen=True)
class Line:
    """What one system lost by one displacement.

    Attributes:
        scene, kind, system: names.
        size: mean length of the displacement, in low-resolution pixels.
        error: see `error`.
        registered, recovered, ignored: PSNR in dB from the pair in place, and from the displaced pair with registration
            and without.
    """

    scene: str
    kind: Kind
    system: str
    size: float
    error: float
    registered: float
    recovered: float
    ignored: float


def measure(scene: str, pair: Simulation, full: float, seeds: Sequence[int], system: str) -> list[Line]:
    """A line for every kind, of means over the draws of ``seeds``.

    Args:
        scene: name for the table.
        pair: with truth, in place.
        full: scale of the PSNR.
        seeds: of the draws.
        system: in the catalogue.
    """
    row, settings = catalogue.get(system), SETTINGS.get(system, {})
    margin = MARGIN * pair.model.ratio
    inner = np.s_[0, margin:-margin, margin:-margin]

    def judged(pair: Simulation, **how: Any) -> tuple[float, Any]:
        done = run(row, pair.observation, pair.model, **settings, **how)
        return float(psnr(done.product[inner], pair.target[inner], data_range=full)), done.registration

    def once(kind: Kind, seed: int) -> tuple[float, ...]:
        true = draw(kind, pair.observation["lr"].shape[1:3], seed)
        moved = displace(pair, true, seed)
        recovered, found = judged(moved, registering=True)
        missed = error(np.asarray(found.displacement), true)
        return float(np.linalg.norm(true, axis=-1).mean()), missed, straight, recovered, judged(moved)[0]

    straight = judged(pair)[0]
    return [Line(scene, kind, system, *np.mean([once(kind, s) for s in seeds], 0).tolist()) for kind in KINDS]


@dataclasses.dataclass(frozen=True)
class Settings:
    """Of the measurement."""

    scenes: tuple[str, ...] = tuple(SIMULATED)
    """Simulated ones."""
    real: bool = True
    """Whether the real pairs are looked at."""


HEADER = ("scene", "displacement", "system", "size", "error", "in place", "registered", "as it is")


def main(settings: Settings) -> None:
    """Prints both tables, line by line."""
    print(f"| {' | '.join(HEADER)} |\n|{'---|' * len(HEADER)}")
    for scene in settings.scenes:
        pair, full = pair_of(scene, SIMULATED[scene])
        for system, seeds in SYSTEMS[scene].items():
            for line in measure(scene, pair, full, seeds, system):
                lengths, figures = (line.size, line.error), (line.registered, line.recovered, line.ignored)
                cells = [*(f"{v:.3f}" for v in lengths), *(f"{v:.2f}" for v in figures)]
                print(f"| {' | '.join([scene, line.kind, system, *cells])} |", flush=True)
    for scene, (lr, guide) in REAL.items() if settings.real else ():
        images = scenes.load(scene)
        real = make_pair(images[lr], images[guide])
        found = register(real.observation, real.model, jnp.asarray(real.lr.valid))
        shares = [" ".join(f"{share:.3f}" for share in part) for part in (found.before, found.explained)]
        print(f"{scene}: {found} (by band: {shares[1]}, {shares[0]})", flush=True)


if __name__ == "__main__":
    use_all_cores()
    sys.exit(answered(lambda: main(tyro.cli(Settings, prog="python -m experiments.registration"))))
