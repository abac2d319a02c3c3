"""EU2ADL: Gao, Li, Zheng and Jia, "Enhanced Autoencoders With Attention-Embedded Degradation Learning for Unsupervised
Hyperspectral Image Super-Resolution", 2023.

Two autoencoders unmix the pair: the guide Z into abundances A of fine pixels, the image Y into abundances a of coarse
ones, Z = A e and Y = a E with endmembers e and E. A stream that both share ties them, and so do the sensors: the
product X = A E must be seen as Y and Z, and B A must be a. Where PSF B or spectral response R are unknown, small
attention networks of the pair predict them (ADLnet), fitted beforehand by |R Y - B Z|.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jax.nn.initializers import constant

from jfusion.catalogue import Bands, Fitted, Paper, System
from jfusion.errors import InputError
from jfusion.layers.conv import Conv
from jfusion.layers.init import torch_kernel
from jfusion.layers.predicted import PredictedSrf
from jfusion.layers.responses import LearnedPsf
from jfusion.operators import Observation, ObservationModel, SpatialResponse, SpectralResponse, one_psf
from jfusion.operators.linear import LinearOperator
from jfusion.tasks import SPATIOSPECTRAL
from priors.coupled import clamp, clamp_kernels, he_conv
from priors.degradation import Degradation, unknown_parts
from priors.fit import Plan, Schedule, Stage, fitter
from priors.pair import Pair, misfits, sum_l1
from priors.sensing import SIMPLEX_SENSORS, sensing_loss

SHARE = 5e-4
"""The weights omega and mu of eq. 13."""


# ----------------------------------------------------------------------------------------------------------------------
# ADLnet


class SpectralAttention(nnx.Module):
    """The spectral response that is predicted from Y.

    Args:
        bands: of the pair.
        image: Y, ``(1, height, width, band)``.
    """

    def __init__(self, bands: Bands, image: Array, *, rngs: nnx.Rngs) -> None:
        self.mean = nnx.Variable(image.mean((1, 2), keepdims=True))
        self.predicted = PredictedSrf(bands, rngs=rngs)

    def __call__(self) -> SpectralResponse:
        """The operator."""
        return self.predicted(self.mean[...])


class SpatialAttention(nnx.Module):
    """``relu(w pool(Z) + b)`` over its sum: a PSF whose taps see Z averaged over as many cells.

    It starts from positive weights: where all taps are zero, as they may be in the release, none can be learned.

    Args:
        psf: whose place and size the PSF has.
        guide: Z, ``(1, height, width, guide band)``.
    """

    def __init__(self, psf: LearnedPsf, guide: Array, *, rngs: nnx.Rngs) -> None:
        self.grid, bands = psf.grid, guide.shape[-1]
        rows, columns = (cells(size, psf.size) for size in guide.shape[1:3])
        self.cells = nnx.Variable(jnp.einsum("ih,bhwc,jw->bijc", rows, guide, columns, precision="highest"))
        self.attend = Conv(bands, 1, 1, kernel_init=positive, bias_init=constant(0.5 / math.sqrt(bands)), rngs=rngs)

    def __call__(self) -> SpatialResponse:
        """The operator, with reflected borders."""
        taps = jax.nn.relu(self.attend(self.cells[...]))[0, ::-1, ::-1, 0]
        total = taps.sum()
        kernel = jnp.where(total > 0, taps / jnp.where(total > 0, total, 1), 1 / taps.size)
        return SpatialResponse(kernel, self.grid.ratio, self.grid.phase, "reflect")


def positive(key: Array, shape: Any, dtype: Any = jnp.float32, out_sharding: Any = None) -> Array:
    """PyTorch's initial kernel without its signs."""
    return jnp.abs(torch_kernel(key, shape, dtype))


def cells(size: int, number: int) -> np.ndarray:
    """Means over ``number`` equal pieces of an axis, ``(number, size)``; a sample in two pieces counts in both."""
    edges = np.arange(number + 1) * size / number
    index = np.arange(size)
    inside = (index >= np.floor(edges[:-1, None])) & (index < np.ceil(edges[1:, None]))
    return (inside / inside.sum(1, keepdims=True)).astype(np.float32)


class Attention(nnx.Module):
    """ADLnet: networks that predict the unknown parts of an observation model from the pair; cf. `Degradation`."""

    def __init__(self, pair: Pair, bands: Bands, *, rngs: nnx.Rngs) -> None:
        unknown, observed = unknown_parts(pair.model), pair.observation
        like = LearnedPsf(pair.model.grid)
        self.psf = SpatialAttention(like, observed["guide"], rngs=rngs) if "lr" in unknown else None
        self.srf = SpectralAttention(bands, observed["lr"], rngs=rngs) if "guide" in unknown else None

    def __call__(self, model: ObservationModel) -> ObservationModel:
        """``model`` with its unknown parts filled in."""
        filled: dict[str, LinearOperator] = {}
        if self.psf is not None:
            filled["lr"] = self.psf()
        if self.srf is not None:
            filled["guide"] = self.srf()
        return model.replace(operators=model.operators | filled)


# ----------------------------------------------------------------------------------------------------------------------
# The autoencoders


class _SpatialBlock(nnx.Module):
    """MSRB: three branches of a 1x1 convolution, ReLU and a 3x3, 5x5 or 7x7 one, side by side; plus identity, ReLU."""

    def __init__(self, width: int, *, rngs: nnx.Rngs) -> None:
        third = width // 3
        self.reductions = nnx.List([he_conv(width, third, rngs=rngs) for _ in range(3)])
        self.convolutions = nnx.List([he_conv(third, third, window, rngs=rngs) for window in (3, 5, 7)])

    def __call__(self, x: Array) -> Array:
        branches = zip(self.reductions, self.convolutions, strict=True)
        features = [convolve(jax.nn.relu(reduce(x))) for reduce, convolve in branches]
        return jax.nn.relu(x + jnp.concatenate(features, -1))


class _SpectralBlock(nnx.Module):
    """SRB: two 1x1 convolutions through a third of the channels, ReLU between; plus identity, ReLU."""

    def __init__(self, width: int, *, rngs: nnx.Rngs) -> None:
        self.squeeze, self.expand = he_conv(width, width // 3, rngs=rngs), he_conv(width // 3, width, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        return jax.nn.relu(x + self.expand(jax.nn.relu(self.squeeze(x))))


class CoupledAutoencoders(nnx.Module):
    """Two streams (SSTS-Net), the one that they share (PSOS-Net), and the endmembers of both images.

    Args:
        bands: of the pair.
        width: channels of the streams' blocks, a multiple of 3.
        endmembers: number of them, and channels of the shared stream.
        blocks: of each stream.

    Raises:
        InputError: the width is no multiple of 3.
    """

    def __init__(
        self, bands: Bands, *, width: int = 60, endmembers: int = 160, blocks: int = 3, rngs: nnx.Rngs
    ) -> None:
        if width % 3:
            raise InputError(f"the width must be a multiple of 3, one part for each branch, but is {width}.")

        def stream(inputs: int, window: int, block: Callable[..., nnx.Module]) -> nnx.List[nnx.Module]:
            first, last = he_conv(inputs, width, window, rngs=rngs), he_conv(width, endmembers, 3, rngs=rngs)
            return nnx.List([first, *(block(width, rngs=rngs) for _ in range(blocks)), last])

        self.guide_stream = stream(bands.guide, 3, _SpatialBlock)
        self.lr_stream = stream(bands.lr, 1, _SpectralBlock)
        self.shared = nnx.List([he_conv(endmembers, endmembers, 3, rngs=rngs) for _ in range(2)])
        self.guide_endmembers = he_conv(endmembers, bands.guide, use_bias=False, rngs=rngs)
        self.lr_endmembers = he_conv(endmembers, bands.lr, use_bias=False, rngs=rngs)

    def abundances(self, observation: Observation) -> tuple[Array, Array]:
        """a ``(batch, h, w, endmember)`` and A ``(batch, h ratio, w ratio, endmember)``, between 0 and 1 (eq. 13)."""
        salient = [observation["lr"], observation["guide"]]
        for i, stream in enumerate((self.lr_stream, self.guide_stream)):
            for layer in stream:
                salient[i] = layer(salient[i])
        first, second = self.shared
        coarse, fine = (clamp(SHARE * (second(jax.nn.relu(first(x))) + x)) for x in salient)
        return coarse, fine

    def __call__(self, observation: Observation) -> Array:
        """X ``(batch, h ratio, w ratio, band)``, between 0 and 1."""
        return clamp(self.lr_endmembers(self.abundances(observation)[1]))


class Eu2adl(nnx.Module):
    """The autoencoders and the learned parts of the observation model."""

    def __init__(self, bands: Bands, degradation: Attention | Degradation, *, rngs: nnx.Rngs, **sizes: Any) -> None:
        self.generator = CoupledAutoencoders(bands, rngs=rngs, **sizes)
        self.degradation = degradation


def fusion_loss(module: Eu2adl, pair: Pair, key: Array) -> tuple[Array, tuple[Array, ObservationModel]]:
    """Eqs. 14 to 17, summed over pixels and bands; the output is X = A E and the model.

    ``100 (|A e - Z| + |a E - Y|) + 10 (|R X - Z| + |B X - Y|) + |B A - a| + 0.01 (|sum(A) - 1| + |sum(a) - 1|)``
    """
    network, model = module.generator, module.degradation(pair.model)
    (y, z), (weight_y, weight_z) = ((group["lr"], group["guide"]) for group in (pair.observation, pair.weight))
    coarse, fine = network.abundances(pair.observation)
    product = clamp(network.lr_endmembers(fine))
    rebuilt = sum_l1(clamp(network.guide_endmembers(fine)), z, weight_z)
    rebuilt += sum_l1(clamp(network.lr_endmembers(coarse)), y, weight_y)
    lr, guide = misfits(sum_l1, model, product, pair)
    tied = sum_l1(one_psf(model["lr"])(fine), coarse, weight_y)
    totals = ((fine.sum(-1, keepdims=True), weight_z), (coarse.sum(-1, keepdims=True), weight_y))
    unity = sum(sum_l1(total, jnp.ones_like(total), weight) for total, weight in totals)
    return 100 * rebuilt + 10 * (guide + lr) + tied + 0.01 * unity, (product, model)


def clip_endmembers(module: Eu2adl) -> None:
    """Puts the endmembers back between 0 and 1."""
    clamp_kernels(module.generator.guide_endmembers, module.generator.lr_endmembers)


SENSORS = Stage(sensing_loss, 4000, Schedule(1e-3), trainable=("degradation",))
FUSION = Stage(fusion_loss, 14_000, Schedule(1.1e-3, hold=1 / 2), trainable=("generator",), project=clip_endmembers)


@fitter
def fit_eu2adl(
    observation: Observation,
    model: ObservationModel,
    *,
    attention: bool = True,
    **sizes: Any,
) -> Plan:
    """Fits EU2ADL to a pair; see `jfusion.catalogue.Fitter` and `priors.fit.fit`.

    Args:
        observation: `lr` and `guide`.
        model: parts that are None are learned and returned, the others are used as they are.
        attention: whether networks of the pair predict unknown operators; False learns their weights themselves,
            kept on the simplex by softmax.
        sizes: of `CoupledAutoencoders`.
    """
    pair, scale = Pair.of(observation, model).normalised()
    bands, known = Bands.of(observation, model), not unknown_parts(model)

    def build(key: Array) -> Eu2adl:
        rngs = nnx.Rngs(key)
        degradation = Attention(pair, bands, rngs=rngs) if attention else Degradation(model, bands)
        return Eu2adl(bands, degradation, rngs=rngs, **sizes)

    sensors = SENSORS if attention else SIMPLEX_SENSORS
    return Plan(build, pair, (FUSION,) if known else (sensors, FUSION), scale)


EU2ADL = System(
    name="eu2adl",
    title="EU2ADL",
    family="prior",
    tasks=SPATIOSPECTRAL,
    paper=Paper(
        authors="L. Gao, J. Li, K. Zheng, X. Jia",
        year=2023,
        title="Enhanced Autoencoders With Attention-Embedded Degradation Learning for Unsupervised Hyperspectral Image "
        "Super-Resolution",
        venue="IEEE Transactions on Geoscience and Remote Sensing 61",
        doi="10.1109/TGRS.2023.3267890",
        code="https://github.com/JiaxinLiCAS/EU2ADL_TGRS",
    ),
    summary="Two convolutional autoencoders with a shared stream unmix guide and image into abundances A, a and "
    "endmembers e, E; X = A E is fitted by 100 (|A e - Z| + |a E - Y|) + 10 (|R X - Z| + |B X - Y|) + |B A - a| + 0.01 "
    "(|sum(A) - 1| + |sum(a) - 1|) (sums). Unknown B and R are predicted by attention networks, fitted by |R Y - B Z|.",
    method=Fitted(
        generator=CoupledAutoencoders,
        fit=fit_eu2adl,
        steps=SENSORS.steps + FUSION.steps,
        note="Adam; 4000 steps on the attention networks at 1e-3, 14,000 on the autoencoders at 1.1e-3 (linear to 0 "
        "from 7000).",
        tiny={"width": 6, "endmembers": 8, "blocks": 1},
        compact={"width": 30, "endmembers": 40},
    ),
    differences="As in the release, |B A - a| stands for the paper's perceptual loss of the abundances, the rate is "
    "1.1e-3 (paper: 1e-3), and the first layer of the image's stream is 1x1. The predicted PSF starts from positive "
    "weights. Known operators are used as they are; on grids that are not nested a predicted PSF has 2 ratio + 1 taps "
    "a side. The pair is scaled to a largest magnitude of one, which the product does not exceed.",
    parameters=(770_040, Bands(54, 8, 12)),
)
