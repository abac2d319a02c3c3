"""DBSR: Zhang, Nie, Wei, Li and Zhang, "Deep Blind Hyperspectral Image Super-Resolution", 2021.

A deep image prior (`priors.dip`) whose code is no noise but a first image c. Two networks, each trained on patches of
one image of the pair alone, make it: S turns the guide's bands into spectra, fitted by |S(R Y) - Y|, and U enlarges,
fitted by |U(B S(Z)) - S(Z)|; then c = 0.8 S(Z) + 0.2 U(Y). A skip network G makes the product X = G(c) and is fitted,
with what is unknown of PSF B and spectral response R, by |B X - Y| + |R X - Z|.
"""

from __future__ import annotations

import dataclasses
import math
from functools import partial
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax import Array

from jfusion.catalogue import Bands, Fitted, Paper, System
from jfusion.operators import Grid, Observation, ObservationModel, upsample
from jfusion.tasks import SPATIOSPECTRAL
from priors.degradation import WIDE, Degradation, on_logits, unknown_parts
from priors.fit import Falling, Plan, Schedule, Stage, fitter
from priors.held import Held, hold
from priors.pair import Pair, mean_l1, misfits
from priors.patches import corners, cut
from priors.sensing import SIMPLEX_SENSORS
from priors.skip import Skip

SPECTRAL_WIDTH, SPECTRAL_SCALES, SPECTRAL_SKIP = 31, 5, 4
SPATIAL_WIDTH, SPATIAL_SCALES, SPATIAL_SKIP = 40, 2, 1
"""Sizes of the networks that make the code."""

SPECTRAL_PATCH, SPATIAL_PATCH = 16, 4
"""Sides of the patches of either network, in low-resolution pixels."""

BATCH, EPOCHS = 4, 500
SHARE = 0.8
"""Of the guide's image in the code."""


# ----------------------------------------------------------------------------------------------------------------------
# The networks


def blind_prior(bands: Bands, *, width: int = 256, scales: int = 2, window: int = 5, rngs: nnx.Rngs) -> Skip:
    """G, a skip network from a code with the image's bands to the image, between 0 and 1.

    Args:
        bands: of the pair.
        width, scales, window: of `Skip`.
        rngs: of the parameters.
    """
    return Skip(bands.lr, bands.lr, width=width, scales=scales, skip=1, window=window, bounded=True, rngs=rngs)


class Dbsr(nnx.Module):
    """All that is fitted to a pair, and what the stages hand on.

    Args:
        pair: of images.
        degradation: the learned parts of the observation model.
        width, scales, window: of `blind_prior`; no network that makes the code is wider, nor its window larger.
    """

    def __init__(
        self,
        pair: Pair,
        degradation: Degradation,
        *,
        width: int = 256,
        scales: int = 2,
        window: int = 5,
        rngs: nnx.Rngs,
    ) -> None:
        bands = Bands.of(pair.observation, pair.model)
        self.degradation = degradation
        level = partial(Skip, window=window, stride=1, bounded=True, rngs=rngs)
        guide_width, lr_width = min(SPECTRAL_WIDTH, width), min(SPATIAL_WIDTH, width)
        self.spectral = level(bands.guide, bands.lr, width=guide_width, scales=SPECTRAL_SCALES, skip=SPECTRAL_SKIP)
        self.spatial = nnx.List(
            [level(bands.lr, bands.lr, width=lr_width, scales=SPATIAL_SCALES, skip=SPATIAL_SKIP) for _ in range(2)]
        )
        self.generator = blind_prior(bands, width=width, scales=scales, window=window, rngs=rngs)
        coarse, fine = ((*pair.observation[name].shape[:3], bands.lr) for name in ("lr", "guide"))
        self.mapped, self.blurred, self.code = Held(fine), Held(coarse), Held(fine)

    def enlarged(self, image: Array, grid: Grid) -> Array:
        """U: a network at either side of a bilinear interpolation by the ratio.

        Args:
            image: ``(batch, height, width, band)``.
            grid: of the pair.
        """
        before, after = self.spatial
        return after(upsample(before(image), grid, "bilinear"))


# ----------------------------------------------------------------------------------------------------------------------
# Step 1: the code


def _size(extent: tuple[int, ...], side: int) -> tuple[int, int]:
    """Height and width of a patch, the image's own where that is smaller."""
    height, width = extent
    return min(side, height), min(side, width)


def spectral_loss(module: Dbsr, pair: Pair, key: Array) -> tuple[Array, tuple[()]]:
    """``|S(R Y) - Y|``, mean over pixels and bands of random patches."""
    image, weight = pair.observation["lr"], pair.weight["lr"]
    size = _size(image.shape[1:3], SPECTRAL_PATCH)
    places = corners(key, image.shape[1:3], size, BATCH)
    target = cut(image, places, size)
    seen = module.degradation(pair.model)["guide"](target)
    return mean_l1(module.spectral(seen), target, cut(weight, places, size)), ()


def spatial_loss(module: Dbsr, pair: Pair, key: Array) -> tuple[Array, tuple[()]]:
    """``|U(B S(Z)) - S(Z)|``, mean over pixels and bands of random patches that begin with a low-resolution pixel."""
    blurred, ratio = module.blurred(), pair.model.ratio
    size = _size(blurred.shape[1:3], SPATIAL_PATCH)
    places = corners(key, blurred.shape[1:3], size, BATCH)
    target = cut(module.mapped(), ratio * places, (ratio * size[0], ratio * size[1]))
    made = module.enlarged(cut(blurred, places, size), pair.model.grid)
    return mean_l1(made, target, jnp.ones((*target.shape[:3], 1))), ()


def _mapped(module: Dbsr, pair: Pair) -> Array:
    return module.spectral(pair.observation["guide"])


def _blurred(module: Dbsr, pair: Pair) -> Array:
    return module.degradation(pair.model)["lr"](_mapped(module, pair))


def _code(module: Dbsr, pair: Pair) -> Array:
    return SHARE * module.mapped() + (1 - SHARE) * module.enlarged(pair.observation["lr"], pair.model.grid)


# ----------------------------------------------------------------------------------------------------------------------
# Step 2: the image


def image_loss(module: Dbsr, pair: Pair, key: Array) -> tuple[Array, tuple[Array, ObservationModel]]:
    """``|B X - Y| + |R X - Z|``, means over pixels and bands; the output is X and the model."""
    model, product = module.degradation(pair.model), module.generator(module.code())
    lr, guide = misfits(mean_l1, model, product, pair)
    return lr + guide, (product, model)


SPECTRAL = Stage(spectral_loss, 2000, Schedule(5e-4), trainable=("spectral",))
MAPPED = hold(mapped=_mapped, blurred=_blurred)
SPATIAL = Stage(spatial_loss, 32_000, Schedule(5e-4), trainable=("spatial",))
CODE = hold(code=_code)
IMAGE = on_logits(
    Stage(
        image_loss,
        5001,
        Falling(1.2e-3, 0.7, 5001 / 1000),
        trainable=("generator", "degradation"),
        rates=(("degradation", 1.1e-4 / 1.2e-3),),
    )
)


def epochs(stage: Stage, extent: tuple[int, ...], side: int) -> Stage:
    """The stage with as many steps as `EPOCHS` times all patches that tile an image take."""
    patches = math.prod(-(-n // m) for n, m in zip(extent, _size(extent, side), strict=True))
    return dataclasses.replace(stage, steps=EPOCHS * -(-patches // BATCH))


@fitter
def fit_dbsr(
    observation: Observation,
    model: ObservationModel,
    **sizes: Any,
) -> Plan:
    """Fits DBSR to a pair; see `jfusion.catalogue.Fitter` and `priors.fit.fit`.

    Args:
        observation: `lr` and `guide`.
        model: parts that are None are learned and returned, the others are used as they are.
        sizes: of `blind_prior`; see `Dbsr`.
    """
    pair, scale = Pair.of(observation, model).normalised()
    bands, unknown, extent = Bands.of(observation, model), unknown_parts(model), observation["lr"].shape[1:3]
    taps = max(min(WIDE, 4 * model.ratio), model.ratio)

    def build(key: Array) -> Dbsr:
        degradation = Degradation(model, bands, size=taps, psf="wide")
        return Dbsr(pair, degradation, rngs=nnx.Rngs(key), **sizes)

    spectral, spatial = epochs(SPECTRAL, extent, SPECTRAL_PATCH), epochs(SPATIAL, extent, SPATIAL_PATCH)
    stages = (spectral, MAPPED, spatial, CODE, IMAGE)
    return Plan(build, pair, (SIMPLEX_SENSORS, *stages) if "guide" in unknown else stages, scale)


DBSR = System(
    name="dbsr",
    title="DBSR",
    family="prior",
    tasks=SPATIOSPECTRAL,
    paper=Paper(
        authors="L. Zhang, J. Nie, W. Wei, Y. Li, Y. Zhang",
        year=2021,
        title="Deep Blind Hyperspectral Image Super-Resolution",
        venue="IEEE Transactions on Neural Networks and Learning Systems 32",
        doi="10.1109/TNNLS.2020.3005234",
        code="https://github.com/JiangtaoNie/DBSR",
    ),
    summary="Networks trained on the pair's own patches make a first image, 0.8 S(Z) + 0.2 U(Y) with S from "
    "|S(R Y) - Y| and U from |U(B S(Z)) - S(Z)|; an untrained skip network turns it into X and is fitted, with unknown "
    "B and R, by |B X - Y| + |R X - Z| (means).",
    method=Fitted(
        generator=blind_prior,
        fit=fit_dbsr,
        steps=SPECTRAL.steps + MAPPED.steps + SPATIAL.steps + CODE.steps + IMAGE.steps,
        note="Adam; 500 epochs of patches for S and for U at 5e-4, batch 4 (2000 and 32,000 steps on CAVE at ratio 8), "
        "then 5001 steps on G at 1.2e-3 and on B and R at 1.1e-4, times 0.7 after each 1000.",
        tiny={"width": 6, "scales": 1, "window": 3},
        compact={"width": 48, "window": 3},
    ),
    differences="S and U keep the size of their patches throughout, where the release leaves out the halving but not "
    "the doubling, so that its deeper branches see magnified crops of the centre. Patches are drawn at random, not in "
    "a fixed tiling. B in the fit of U is the pair's own, in the release a fixed Gaussian. Learned operators are kept "
    "on the simplex by softmax, without the release's offset and weight decay, at a hundred times its rate, which acts "
    "on logits and falls with that of G; the PSF starts as the mean over a pixel, there at random, and has at most 4 "
    "ratio taps a side (32 at ratio 8, as released). The release starts R from the true one; here an unknown R is "
    "found, with an unknown B, from |R Y - B Z| first. The steps of S and U grow with the number of patches that tile "
    "the image. The learning rate falls first after 1000 steps, in "
    "the release after the first step already. Odd sizes are halved upwards. The pair is scaled to a largest magnitude "
    "of one, which the product, between 0 and 1, does not exceed. The count is of G; S and U have 362,750 and 477,344.",
    parameters=(8_549_704, Bands(31, 3, 8)),
)
