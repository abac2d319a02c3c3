"""M2U-Net: Li, Zheng, Gao, Ni, Huang and Chanussot, "Model-Informed Multistage Unsupervised Network for Hyperspectral
Image Super-Resolution", 2024.

A deep image prior whose input is no noise. Stage 1 finds PSF B and spectral response R, where they are unknown, from
|R Y - B Z|. Stage 2 (SML-Net) learns the spectrum of a pixel from the guide's bands, by two networks that map R Y and
B Z to Y; their mean at Z is a first image. Stage 3 (dual U-Net) turns that into the product X, while a second U-Net of
Z gates its features, and is fitted by |R X - Z| + |B X - Y|.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array, lax

from jfusion.catalogue import Bands, Fitted, Paper, System
from jfusion.layers.init import normal
from jfusion.layers.untrained import Norm, activate, enlarge
from jfusion.operators import BlockAverage, Observation, ObservationModel
from jfusion.tasks import SPATIOSPECTRAL
from priors.coupled import he_conv
from priors.degradation import Degradation, unknown_parts
from priors.fit import Plan, Schedule, Stage, fitter
from priors.pair import Pair, degraded, mean_l1, misfits
from priors.sensing import SIMPLEX_SENSORS, project_sensors, sensing_loss
from priors.udaln import doubled

MIXED = 60
"""Channels within a module of the spectral mapping, in three parts."""

ACROSS = 2
"""Channels that go across at each scale of the U-Nets."""

SQUEEZE = 5
"""Channels for each one in the middle of a gate."""


# ----------------------------------------------------------------------------------------------------------------------
# Stage 2: SML-Net


class _Channels(nnx.Module):
    """CIE: three parts of the channels are mixed one after the other, each together with what came of the last."""

    def __init__(self, inputs: int, outputs: int, *, rngs: nnx.Rngs) -> None:
        part = MIXED // 3
        self.begin, self.end = he_conv(inputs, MIXED, rngs=rngs), he_conv(MIXED, outputs, rngs=rngs)
        self.parts = nnx.List([he_conv(part, part, rngs=rngs) for _ in range(3)])

    def __call__(self, x: Array) -> Array:
        x = activate(self.begin(x))
        mixed: list[Array] = []
        for layer, part in zip(self.parts, jnp.split(x, 3, -1), strict=True):
            mixed.append(activate(layer(part + mixed[-1] if mixed else part)))
        return activate(self.end(x + jnp.concatenate(mixed, -1)))


class SpectralMapping(nnx.Module):
    """One stream: modules that double the bands while they stay within the image's, then one layer to the image's.

    Args:
        bands: of the pair.
    """

    def __init__(self, bands: Bands, *, rngs: nnx.Rngs) -> None:
        widths = doubled(bands)
        self.modules = nnx.List([_Channels(a, b, rngs=rngs) for a, b in pairwise(widths)])
        self.last = he_conv(widths[-1], bands.lr, rngs=rngs)

    def __call__(self, guide: Array) -> Array:
        """``(..., height, width, guide band)`` to ``(..., height, width, band)``."""
        for module in self.modules:
            guide = module(guide)
        return activate(self.last(guide))


# ----------------------------------------------------------------------------------------------------------------------
# Stage 3: dual U-Net


class _Normalised(nnx.Module):
    """``lrelu(norm(conv(x)))``; the scales are normal around 1."""

    def __init__(self, inputs: int, outputs: int, window: int, *, rngs: nnx.Rngs) -> None:
        self.conv, self.norm = he_conv(inputs, outputs, window, rngs=rngs), Norm(outputs)
        self.norm.scale[...] += normal(0.02)(rngs.params(), (outputs,))

    def __call__(self, x: Array) -> Array:
        return activate(self.norm(self.conv(x)))


class _Guided(nnx.Module):
    """CAG: a 5x5 convolution of either stream; means of the guide's channels weight those of the image, from 0 to 1."""

    def __init__(self, inputs: tuple[int, int], width: int, *, rngs: nnx.Rngs) -> None:
        self.image, self.guide = (_Normalised(n, width, 5, rngs=rngs) for n in inputs)
        squeezed = max(width // SQUEEZE, 1)
        self.squeeze, self.excite = he_conv(width, squeezed, rngs=rngs), he_conv(squeezed, width, rngs=rngs)

    def __call__(self, x: Array, z: Array) -> tuple[Array, Array]:
        x, z = self.image(x), self.guide(z)
        means = z.mean((1, 2), keepdims=True)
        return jax.nn.sigmoid(self.excite(jax.nn.relu(self.squeeze(means)))) * x, z


def halve(x: Array) -> Array:
    """Means over 2 x 2 pixels of ``(batch, height, width, channel)``; an odd last row or column counts twice."""
    pads = ((0, 0), *((0, n % 2) for n in x.shape[1:3]), (0, 0))
    return BlockAverage(2)(jnp.pad(x, pads, mode="edge"))


class DualUNet(nnx.Module):
    """Two U-Nets of the same form, of the image and of the guide, coupled at every scale.

    Args:
        bands: of the pair.
        width: channels of every layer.
        scales: of the image, each half of the last.
    """

    def __init__(self, bands: Bands, *, width: int = 260, scales: int = 3, rngs: nnx.Rngs) -> None:
        wider = width + ACROSS
        self.down = nnx.List(
            [_Guided((width, width) if k else (bands.lr, bands.guide), width, rngs=rngs) for k in range(scales)]
        )
        self.image_across, self.guide_across = (
            nnx.List([_Normalised(width, ACROSS, 1, rngs=rngs) for _ in range(scales - 1)]) for _ in range(2)
        )
        self.up = nnx.List([_Guided((wider, wider), width, rngs=rngs) for _ in range(scales - 1)])
        self.last = he_conv(width, bands.lr, rngs=rngs)

    def __call__(self, image: Array, guide: Array) -> Array:
        """X, between 0 and 1, of any height and width.

        Args:
            image: a first one, ``(batch, height, width, band)``.
            guide: ``(batch, height, width, guide band)``.
        """
        x, z = self.down[0](image, guide)
        passed = []
        for layer, image_across, guide_across in zip(
            list(self.down)[1:], self.image_across, self.guide_across, strict=True
        ):
            passed.append((image_across(x), guide_across(z)))
            x, z = layer(halve(x), halve(z))
        for layer, (across_x, across_z) in zip(self.up, reversed(passed), strict=True):
            size = across_x.shape[1:3]
            x, z = (jnp.concatenate([a, enlarge(b, size)], -1) for a, b in ((across_x, x), (across_z, z)))
            x, z = layer(x, z)
        return jax.nn.sigmoid(self.last(x))


# ----------------------------------------------------------------------------------------------------------------------
# The fit


class M2UNet(nnx.Module):
    """The learned parts of the observation model, the two streams of the spectral mapping, and the dual U-Net."""

    def __init__(
        self, bands: Bands, degradation: Degradation, *, rngs: nnx.Rngs, width: int = 260, scales: int = 3
    ) -> None:
        self.degradation = degradation
        self.mapping = nnx.List([SpectralMapping(bands, rngs=rngs) for _ in range(2)])
        self.generator = DualUNet(bands, width=width, scales=scales, rngs=rngs)

    def first(self, guide: Array) -> Array:
        """The mean of what both streams make of the guide (eq. 11)."""
        one, other = self.mapping
        return (one(guide) + other(guide)) / 2


def mapping_loss(module: M2UNet, pair: Pair, key: Array) -> tuple[Array, tuple[()]]:
    """``|F1(R Y) - Y| + |F2(B Z) - Y|`` (eq. 10), means over pixels and bands; no gradient flows into B and R."""
    image, weight = pair.observation["lr"], pair.weight["lr"]
    seen = lax.stop_gradient(degraded(module.degradation(pair.model), pair))
    one, other = (mean_l1(stream(x), image, weight) for stream, x in zip(module.mapping, seen, strict=True))
    return one + other, ()


def image_loss(module: M2UNet, pair: Pair, key: Array) -> tuple[Array, tuple[Array, ObservationModel]]:
    """``|R X - Z| + |B X - Y|`` (eq. 16), means over pixels and bands; the output is X and the model."""
    model, z = module.degradation(pair.model), pair.observation["guide"]
    product = module.generator(lax.stop_gradient(module.first(z)), z)
    lr, guide = misfits(mean_l1, model, product, pair)
    return lr + guide, (product, model)


SENSORS = {
    "clipped": Stage(
        sensing_loss, 6000, Schedule(1e-3, hold=1 / 2), trainable=("degradation",), project=project_sensors
    ),
    "softmax": SIMPLEX_SENSORS,
}
MAPPING = Stage(mapping_loss, 4000, Schedule(4e-3, hold=1 / 2), trainable=("mapping",))
IMAGE = Stage(image_loss, 14_000, Schedule(4e-3, hold=1 / 2), trainable=("generator",))


@fitter
def fit_m2u_net(
    observation: Observation,
    model: ObservationModel,
    *,
    constraint: Literal["clipped", "softmax"] = "clipped",
    width: int = 260,
    scales: int = 3,
) -> Plan:
    """Fits M2U-Net to a pair; see `jfusion.catalogue.Fitter` and `priors.fit.fit`.

    Args:
        observation: `lr` and `guide`.
        model: parts that are None are learned and returned, the others are used as they are.
        constraint: what keeps learned responses on the simplex, see `jfusion.layers.responses.Weights`.
        width, scales: of `DualUNet`.
    """
    pair, scale = Pair.of(observation, model).normalised()
    bands, known = Bands.of(observation, model), not unknown_parts(model)

    def build(key: Array) -> M2UNet:
        degradation = Degradation(model, bands, (constraint, constraint))
        return M2UNet(bands, degradation, rngs=nnx.Rngs(key), width=width, scales=scales)

    return Plan(build, pair, (MAPPING, IMAGE) if known else (SENSORS[constraint], MAPPING, IMAGE), scale)


M2U_NET = System(
    name="m2u_net",
    title="M2U-Net",
    family="prior",
    tasks=SPATIOSPECTRAL,
    paper=Paper(
        authors="J. Li, K. Zheng, L. Gao, L. Ni, M. Huang, J. Chanussot",
        year=2024,
        title="Model-Informed Multistage Unsupervised Network for Hyperspectral Image Super-Resolution",
        venue="IEEE Transactions on Geoscience and Remote Sensing 62",
        doi="10.1109/TGRS.2024.3391014",
        code="https://github.com/JiaxinLiCAS/M2U-Net_TGRS",
    ),
    summary="Unknown PSF B and spectral response R come from |R Y - B Z| (sum); pixelwise networks F1, F2 are fitted "
    "by |F1(R Y) - Y| + |F2(B Z) - Y|, and an untrained U-Net of (F1(Z) + F2(Z)) / 2, gated by one of Z, by "
    "|R X - Z| + |B X - Y| (means).",
    method=Fitted(
        generator=DualUNet,
        fit=fit_m2u_net,
        steps=SENSORS["clipped"].steps + MAPPING.steps + IMAGE.steps,
        note="Adam, linear to 0 from half of each stage: 6000 steps on B and R at 1e-3, 4000 on F1 and F2 at 4e-3, "
        "14,000 on the U-Nets at 4e-3.",
        tiny={"width": 8, "scales": 2},
        compact={"width": 20},
    ),
    differences="The last iterate of stages 2 and 3 is taken, where the release keeps that with the best PSNR and SAM "
    "against the truth. A learned PSF, like the spectral response, is divided by its sum where it is used. Known "
    "operators are used as they are; on grids that are not nested a learned PSF has 2 ratio + 1 taps a side. Odd sizes "
    "are halved upwards. The pair is scaled to a largest magnitude of one, which the product does not exceed. The "
    "count is of the U-Nets.",
    parameters=(14_135_758, Bands(54, 8, 12)),
)
