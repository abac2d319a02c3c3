"""Guided deep decoder: Uezato, Hong, Yokoya and He, "Guided Deep Decoder: Unsupervised Image Pair Fusion", ECCV 2020.

An untrained network turns a small random code into the product. A U-shaped network of the guide gates its features, by
feature refinement units (FRU) and upsampling refinement units (URU), so that it prefers images with the guide's
structure. It is fitted to the one pair through the sensors' operators.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from jfusion.catalogue import Bands, Fitted, Paper, System
from jfusion.layers.untrained import MirroredConv, NormedConv, activate, enlarge, normalise
from jfusion.operators import Observation, ObservationModel
from jfusion.tasks import SPATIOSPECTRAL
from priors.fit import Plan, Schedule, Stage, fitter
from priors.pair import Pair, mean_l2, misfits
from priors.rollback import Rollback

M = TypeVar("M", bound=nnx.Module)


class _Gate(nnx.Module):
    """``sigmoid(lrelu(conv1x1(guide)))``."""

    def __init__(self, width: int, *, rngs: nnx.Rngs) -> None:
        self.conv = MirroredConv(width, width, 1, rngs=rngs)

    def __call__(self, guide: Array) -> Array:
        return jax.nn.sigmoid(activate(self.conv(guide)))


class _Refinement(nnx.Module):
    """FRU: ``lrelu(norm(conv1x1(x)) gate(guide))``."""

    def __init__(self, width: int, *, rngs: nnx.Rngs) -> None:
        self.gate, self.conv = _Gate(width, rngs=rngs), NormedConv(width, width, 1, rngs=rngs)

    def __call__(self, guide: Array, x: Array) -> Array:
        return activate(self.conv(x) * self.gate(guide))


class _Encoder(nnx.Module):
    """Halves the image: a 3x3 convolution of stride 2 and one of stride 1."""

    def __init__(self, width: int, *, rngs: nnx.Rngs) -> None:
        self.down = NormedConv(width, width, 3, 2, rngs=rngs)
        self.conv = NormedConv(width, width, 3, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        return activate(self.conv(activate(self.down(x))))


class GuidedDeepDecoder(nnx.Module):
    """The network of the guide and the decoder of the code.

    Args:
        bands: of the pair; the code has as many channels as `lr`.
        width: channels of every layer.
        levels: halvings of the guide.
        shared: one set of weights for all scales, as released; False has one for each, as the paper implies.
    """

    def __init__(self, bands: Bands, *, width: int = 64, levels: int = 5, shared: bool = True, rngs: nnx.Rngs) -> None:
        def at_scales(make: Callable[[], M], count: int) -> nnx.List[M]:
            return nnx.List([make()] * count if shared else [make() for _ in range(count)])

        self.levels = levels
        self.guide = NormedConv(bands.guide, width, 3, rngs=rngs)
        self.encoders = at_scales(lambda: _Encoder(width, rngs=rngs), levels)
        self.deepest = NormedConv(width, width, 3, rngs=rngs)
        self.laterals = at_scales(lambda: NormedConv(width, width, 1, rngs=rngs), levels - 1)
        self.merges = at_scales(lambda: NormedConv(2 * width, width, 3, rngs=rngs), levels - 1)
        self.code = NormedConv(bands.lr, width, 1, rngs=rngs)
        self.gates = at_scales(lambda: _Gate(width, rngs=rngs), levels)
        self.decoders = at_scales(lambda: NormedConv(width, width, 3, rngs=rngs), levels)
        self.refinements = at_scales(lambda: _Refinement(width, rngs=rngs), levels + 1)
        self.output = MirroredConv(width, bands.lr, 1, rngs=rngs)

    def __call__(self, guide: Array, code: Array) -> Array:
        """The image for a guide ``(batch, height, width, guide band)`` and a code.

        The code is ``(batch, ceil(height / 2^levels), ceil(width / 2^levels), band)``.
        """
        encoded = [activate(self.guide(guide))]
        for encoder in self.encoders:
            encoded.append(encoder(encoded[-1]))
        *finer, coarsest = encoded
        sizes = [features.shape[1:3] for features in finer]

        decoded = [activate(self.deepest(enlarge(coarsest, sizes[-1])))]
        for level in range(self.levels - 1):
            scale = self.levels - 1 - level
            joined = jnp.concatenate([activate(self.laterals[level](finer[scale])), decoded[-1]], -1)
            decoded.append(activate(self.merges[level](enlarge(joined, sizes[scale - 1]))))

        x = self.refinements[0](coarsest, activate(self.code(code)))
        for level in range(self.levels):
            edge = finer[self.levels - 1 - level]
            x = normalise(enlarge(x, edge.shape[1:3])) * self.gates[level](edge)
            x = self.refinements[level + 1](decoded[level], activate(self.decoders[level](x)))
        return self.output(x)


class Gdd(nnx.Module):
    """The network, its code, and for a panchromatic guide the mixing of the bands that is compared with it.

    Args:
        bands: of the pair.
        size: height and width of the guide.
        sizes: of `GuidedDeepDecoder`.
    """

    def __init__(self, bands: Bands, size: tuple[int, int], *, rngs: nnx.Rngs, **sizes: Any) -> None:
        self.generator = GuidedDeepDecoder(bands, rngs=rngs, **sizes)
        height, width = (-(-n // 2**self.generator.levels) for n in size)
        code = jax.random.uniform(rngs.params(), (height * width * bands.lr,))
        self.code = nnx.Variable(0.1 * code.reshape(1, height, width, bands.lr))
        diagonal = jax.random.normal(rngs.params(), (bands.lr,))
        self.mixing = nnx.Param(jnp.diag(diagonal)) if bands.guide == 1 else None

    def __call__(self, guide: Array, key: Array, deviation: float) -> Array:
        """The image for the code with Gaussian noise of so large a standard deviation."""
        code = self.code[...]
        noise = jax.random.normal(key, (code.size,)).reshape(code.shape)  # a flat draw compiles ten times faster
        return self.generator(guide, code + deviation * noise)


def multispectral_loss(module: Gdd, pair: Pair, key: Array) -> tuple[Array, Array]:
    """``0.1 |B X - Y|^2 + |R X - Z|^2``, means over pixels and bands; the output is X."""
    product = module(pair.observation["guide"], key, 0.03)
    lr, guide = misfits(mean_l2, pair.model, product, pair)
    return 0.1 * lr + guide, product


def panchromatic_loss(module: Gdd, pair: Pair, key: Array) -> tuple[Array, Array]:
    """``10 |B X - Y|^2 + |grad(X V) - grad(Z)|^2`` with a learned V, the guide Z beside every band; the output is X."""
    observed, weight = pair.observation, pair.weight
    product = module(observed["guide"], key, 0.01)
    spatial = mean_l2(pair.model["lr"](product), observed["lr"], weight["lr"])
    assert module.mixing is not None
    mixed = jnp.matmul(product, module.mixing[...], precision="highest")
    return 10 * spatial + _gradient_l2(mixed - observed["guide"], weight["guide"]), product


def _gradient_l2(difference: Array, weight: Array) -> Array:
    """Squared differences of neighbours in both directions, summed, over weighted pixels and bands."""
    down = jnp.sum(jnp.square(jnp.diff(difference, axis=-3)) * weight[..., 1:, :, :] * weight[..., :-1, :, :])
    right = jnp.sum(jnp.square(jnp.diff(difference, axis=-2)) * weight[..., 1:, :] * weight[..., :-1, :])
    return (down + right) / (difference.shape[-1] * jnp.maximum(weight.sum(), 1))


MULTISPECTRAL = Stage(multispectral_loss, 20_001, Schedule(1e-2), rollback=Rollback(1e-5))
PANCHROMATIC = Stage(panchromatic_loss, 8_001, Schedule(1e-2), rollback=Rollback(0.1))


@fitter
def fit_gdd(
    observation: Observation,
    model: ObservationModel,
    **sizes: Any,
) -> Plan:
    """Fits the guided deep decoder to a pair; see `jfusion.catalogue.Fitter` and `priors.fit.fit`.

    Args:
        observation: `lr` and `guide`.
        model: the operator of `lr` must be known, and with more than one band in the guide that of `guide` as well.
        sizes: of `GuidedDeepDecoder`.

    Raises:
        InputError: an operator that the loss needs is not known.
    """
    pair, scale = Pair.of(observation, model).normalised()
    bands, (height, width) = Bands.of(observation, model), observation["guide"].shape[1:3]
    for name in ("lr",) if bands.guide == 1 else ("lr", "guide"):
        model[name]

    def build(key: Array) -> Gdd:
        return Gdd(bands, (height, width), rngs=nnx.Rngs(key), **sizes)

    stage = PANCHROMATIC if bands.guide == 1 else MULTISPECTRAL
    return Plan(build, pair, (stage,), scale, lambda product: (product, model))


GDD = System(
    name="gdd",
    title="GDD",
    family="prior",
    tasks=SPATIOSPECTRAL,
    paper=Paper(
        authors="T. Uezato, D. Hong, N. Yokoya, W. He",
        year=2020,
        title="Guided Deep Decoder: Unsupervised Image Pair Fusion",
        venue="European Conference on Computer Vision",
        doi="10.1007/978-3-030-58539-6_6",
        code="https://github.com/tuezato/guided-deep-decoder",
    ),
    summary="An untrained decoder of a random code, gated by features of the guide, is fitted by 0.1 |B X - Y|^2 + "
    "|R X - Z|^2, or with a panchromatic guide by 10 |B X - Y|^2 + |grad(X V) - grad(Z)|^2 with a learned V.",
    method=Fitted(
        generator=GuidedDeepDecoder,
        fit=fit_gdd,
        steps=MULTISPECTRAL.steps,
        note="Adam at 1e-2, 20,001 steps (8,001 with a panchromatic guide); Gaussian noise on the code at every step, "
        "0.03 (0.01); roll-back when the loss rises by more than 1e-5 (0.1).",
        tiny={"width": 8, "levels": 1},
    ),
    differences="B is the pair's own PSF and phase where the paper averages blocks or interpolates. All scales share "
    "one set of weights, as released (shared=False: one set each, as the paper implies). Sizes that are not multiples "
    "of 32 are handled as in the release for PAN, in both variants. A roll-back ends with the earlier "
    "parameters, from which the release takes one more step, and a second one in a row restores the same. The weight "
    "10 is the release's for reduced resolution (100 at full). The pair is scaled to a largest magnitude of one.",
    parameters=(245_151, Bands(31, 3, 32)),
    needs_model=True,
)
