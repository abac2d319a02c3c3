"""RAFnet: Lu, Chen, Cheng and Wang, "RAFnet: Recurrent attention fusion network of hyperspectral and multispectral
images", Signal Processing 177, 2020.

A variational autoencoder of spectra. The bands lie in groups, one for each band of the guide; a recurrent network reads
the bands of a group, another the groups, and attention relates them. A code of the low-resolution pixel is drawn from
that; where the guide Z lies, convolutions of it join in. One recurrent decoder with attention turns either code into a
spectrum: of the hyperspectral image Y, or of X with R X = Z. No PSF enters.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array, lax
from jax.nn.initializers import glorot_uniform

from jfusion.catalogue import Bands, Fitted, Paper, System
from jfusion.layers.conv import Conv
from jfusion.layers.init import tf_truncated_normal
from jfusion.operators import LinearOperator, Observation, ObservationModel, upsample
from jfusion.tasks import SPATIOSPECTRAL
from priors.fit import Plan, Schedule, Stage, fitter
from priors.pair import Pair
from priors.patches import corners, cut

PATCH, PATCHES = 16, 2
"""Side of a patch in high-resolution pixels, or the image's where that is smaller, and patches a step."""

DIVERGENCE = 1e-3
"""Weight of the divergence of a code's distribution from the normal one."""


def small(key: Array, shape: Sequence[int], dtype: Any = jnp.float32, out_sharding: Any = None) -> Array:
    """A normal law of deviation 0.01, cut at two deviations."""
    return tf_truncated_normal(key, shape, dtype) / 10


def even_split(bands: int, groups: int) -> tuple[int, ...]:
    """Where groups of nearly the same size end."""
    return tuple(bands * (group + 1) // groups for group in range(groups))


def response_split(response: LinearOperator, bands: int) -> tuple[int, ...]:
    """Where the groups of bands end that belong to the guide's bands, in order: half way between their centroids.

    A guide of as many bands or more makes each band a group.
    """
    srf = np.abs(np.asarray(response(jnp.eye(bands)))).T
    if len(srf) >= bands:
        return even_split(bands, bands)
    centroids = np.sort(srf @ np.arange(bands) / np.maximum(srf.sum(1), 1e-12))
    ends: list[int] = []
    for group, middle in enumerate((centroids[:-1] + centroids[1:]) / 2, start=1):
        least, most = (ends[-1] if ends else 0) + 1, bands - len(centroids) + group
        ends.append(min(max(math.floor(middle) + 1, least), most))
    return (*ends, bands)


def affine(weight: Array, bias: Array, x: Array, state: Array) -> Array:
    """``W^T [x, state] + b`` of features that come first, which is what the loops over a sequence are quickest with.

    Args:
        weight: ``(inputs + width, outputs)``.
        bias: ``(outputs, 1)``.
        x: ``(inputs, pixel)``.
        state: ``(width, pixel)``.
    """
    inputs = len(x)
    return weight[:inputs].T @ x + weight[inputs:].T @ state + bias


class Gru(nnx.Module):
    """Gated recurrent unit whose reset gate acts before the product; ``(features, pixel)`` all along."""

    def __init__(self, inputs: int, width: int, *, rngs: nnx.Rngs) -> None:
        self.gates = nnx.Param(glorot_uniform()(rngs.params(), (inputs + width, 2 * width)))
        self.gates_bias = nnx.Param(jnp.ones((2 * width, 1)))
        self.candidate = nnx.Param(glorot_uniform()(rngs.params(), (inputs + width, width)))
        self.candidate_bias = nnx.Param(jnp.zeros((width, 1)))
        self.width = width

    def begin(self, pixels: int) -> Array:
        """The state before a sequence."""
        return jnp.zeros((self.width, pixels))

    def __call__(self, state: Array, x: Array) -> tuple[Array, Array]:
        """New state and output."""
        reset, keep = jnp.split(jax.nn.sigmoid(affine(self.gates[...], self.gates_bias[...], x, state)), 2)
        candidate = affine(self.candidate[...], self.candidate_bias[...], x, reset * state)
        state = keep * state + (1 - keep) * jnp.tanh(candidate)
        return state, state


class Lstm(nnx.Module):
    """Long short-term memory whose forget gate starts open; ``(features, pixel)`` all along."""

    def __init__(self, inputs: int, width: int, *, rngs: nnx.Rngs) -> None:
        self.gates = nnx.Param(glorot_uniform()(rngs.params(), (inputs + width, 4 * width)))
        self.bias = nnx.Param(jnp.zeros((4 * width, 1)))
        self.width = width

    def begin(self, pixels: int) -> tuple[Array, Array]:
        """Cell and output before a sequence."""
        return jnp.zeros((self.width, pixels)), jnp.zeros((self.width, pixels))

    def __call__(self, state: tuple[Array, Array], x: Array) -> tuple[tuple[Array, Array], Array]:
        """New state and output."""
        cell, output = state
        write, content, forget, show = jnp.split(affine(self.gates[...], self.bias[...], x, output), 4)
        cell = jax.nn.sigmoid(forget + 1) * cell + jax.nn.sigmoid(write) * jnp.tanh(content)
        output = jax.nn.sigmoid(show) * jnp.tanh(cell)
        return (cell, output), output


class BothWays(nnx.Module):
    """Two cells, of which one reads a sequence from its end."""

    def __init__(self, cell: type[Gru] | type[Lstm], inputs: int, width: int, *, rngs: nnx.Rngs) -> None:
        self.forward, self.backward = (cell(inputs, width, rngs=rngs) for _ in range(2))

    def __call__(self, sequence: Array) -> Array:
        """``(..., step, inputs)`` to ``(..., step, 2 width)``."""
        steps = jnp.moveaxis(sequence.reshape(-1, *sequence.shape[-2:]), 0, -1)

        def outputs(cell: Any, reverse: bool) -> Array:
            return lax.scan(lambda state, x: cell(state, x), cell.begin(steps.shape[-1]), steps, reverse=reverse)[1]

        both = jnp.concatenate([outputs(self.forward, False), outputs(self.backward, True)], -2)
        return jnp.moveaxis(both, -1, 0).reshape(*sequence.shape[:-1], -1)


class Map(nnx.Module):
    """A linear map, without bias."""

    def __init__(self, inputs: int, outputs: int, *, rngs: nnx.Rngs) -> None:
        self.weight = nnx.Param(small(rngs.params(), (inputs, outputs)))

    def __call__(self, x: Array) -> Array:
        """``(..., inputs)`` to ``(..., outputs)``."""
        return x @ self.weight[...]


def attend(query: Array, key: Array, value: Array) -> Array:
    """``softmax(Q K^T / sqrt(features)) V`` over ``(..., group, features)``."""
    scores = query @ jnp.swapaxes(key, -1, -2) / math.sqrt(query.shape[-1])
    return jax.nn.softmax(scores, -1) @ value


class Latent(nnx.Module):
    """Mean and logarithm of the deviation of a code, from the features of all groups."""

    def __init__(self, groups: int, features: int, code: int, *, rngs: nnx.Rngs) -> None:
        self.mean = Conv(groups * features, groups * code, 1, kernel_init=small, rngs=rngs)
        self.deviation = Conv(groups * features, groups * code, 1, kernel_init=small, rngs=rngs)

    def __call__(self, features: Array) -> tuple[Array, Array]:
        """``(..., height, width, group, features)`` to two of ``(..., height, width, group, code)``."""
        flat = features.reshape(*features.shape[:-2], -1)
        shape = (*features.shape[:-1], -1)
        return self.mean(flat).reshape(shape), self.deviation(flat).reshape(shape) / 2


class RecurrentAttentionFusion(nnx.Module):
    """Encoders, latent codes and decoder (Lu et al., 2020).

    Args:
        bands: of the pair.
        split: where the groups of bands end, one for each band of the guide; None for an even split.
        local: features of the network that reads a group's bands.
        width: features of the networks that read the groups, one way.
        attention: features of the decoder's attention.
    """

    def __init__(
        self,
        bands: Bands,
        *,
        split: tuple[int, ...] | None = None,
        local: int = 30,
        width: int = 20,
        attention: int = 30,
        rngs: nnx.Rngs,
    ) -> None:
        self.split = split or even_split(bands.lr, min(bands.guide, bands.lr))
        groups = len(self.split)
        self.local = Gru(1, local, rngs=rngs)
        self.across = BothWays(Gru, local, width, rngs=rngs)
        self.query, self.key, self.value = (Map(2 * width, 2 * width, rngs=rngs) for _ in range(3))
        inputs, outputs = (bands.guide, width, width), (width, width, 2 * width * groups)
        self.spatial = nnx.List(
            [
                Conv(a, b, window, kernel_init=small, rngs=rngs)
                for a, b, window in zip(inputs, outputs, (5, 3, 1), strict=True)
            ]
        )
        self.lr, self.guide = (Latent(groups, 2 * width, width, rngs=rngs) for _ in range(2))
        self.back = BothWays(Lstm, width, width, rngs=rngs)
        self.wanted = Map(2 * width, attention, rngs=rngs)
        self.offered, self.content = (Map(width, attention, rngs=rngs) for _ in range(2))
        self.heads = nnx.Param(small(rngs.params(), (attention, bands.lr)))
        self.heads_bias = nnx.Param(small(rngs.params(), (bands.lr,)))
        self.noise = nnx.Param(small(rngs.params(), ()))

    def read(self, spectra: Array) -> Array:
        """Features of the groups of spectra: ``(..., band)`` to ``(..., group, features)``."""
        bands = spectra.reshape(-1, spectra.shape[-1]).T

        def step(state: Array, band: Array) -> tuple[Array, None]:
            return self.local(state, band[None])[0], None

        remembered, start = jax.checkpoint(step), self.local.begin(bands.shape[-1])
        states = [lax.scan(remembered, start, group)[0] for group in jnp.split(bands, self.split[:-1])]
        return self.across(jnp.moveaxis(jnp.stack(states), -1, 0).reshape(*spectra.shape[:-1], len(states), -1))

    def related(self, features: Array) -> Array:
        """Attention between the groups."""
        return attend(self.query(features), self.key(features), self.value(features))

    def lr_code(self, read: Array) -> tuple[Array, Array]:
        """Mean and logarithm of the deviation of the code of Y, with the features of Y."""
        return self.lr(self.related(read))

    def guide_code(self, guide: Array, read: Array) -> tuple[Array, Array]:
        """Mean and logarithm of the deviation of the code at Z, with the features of Y interpolated there."""
        x = guide
        for layer in self.spatial:
            x = jnp.tanh(layer(x))
        return self.guide(self.related(0.5 * read + x.reshape(read.shape)))

    def decode(self, code: Array) -> Array:
        """``(..., group, code)`` to spectra between 0 and 1, ``(..., band)``."""
        told = attend(self.wanted(self.back(code)), self.offered(code), self.content(code))
        heads = jnp.split(self.heads[...], self.split[:-1], axis=-1)
        spectra = [told[..., group, :] @ head for group, head in enumerate(heads)]
        return jax.nn.sigmoid(jnp.concatenate(spectra, -1) + self.heads_bias[...])

    def __call__(self, guide: Array, upsampled: Array) -> Array:
        """The image ``(batch, height, width, band)`` that the mean codes at the guide stand for.

        Args:
            guide: ``(batch, height, width, guide band)``.
            upsampled: Y interpolated there.
        """
        return self.decode(self.guide_code(guide, self.read(upsampled))[0])


def drawn(code: tuple[Array, Array], key: Array) -> Array:
    """A code of that mean and logarithm of the deviation."""
    mean, deviation = code
    return mean + jnp.exp(deviation) * jax.random.normal(key, (mean.size,)).reshape(mean.shape)


def divergence(code: tuple[Array, Array], weight: Array) -> Array:
    """Kullback-Leibler divergence of codes from the normal law, sum over weighted pixels.

    Args:
        code: mean and logarithm of the deviation, ``(batch, height, width, group, code)``.
        weight: ``(batch, height, width, 1)``.
    """
    mean, deviation = code
    return 0.5 * jnp.sum((mean**2 + jnp.exp(2 * deviation) - 1 - 2 * deviation) * weight[..., None])


def lr_evidence(code: tuple[Array, Array], made: Array, lr: Array, weight: Array) -> Array:
    """Negative evidence of Y, of unit variance, ``2 (|D(c) - Y|^2 / 2 + 1e-3 KL)``, sums; 2 are the patches a step.

    Args:
        code: of Y, see `divergence`.
        made: D(c), ``(batch, height, width, band)``.
        lr: Y.
        weight: of its pixels.
    """
    return PATCHES * (0.5 * jnp.sum(jnp.square(made - lr) * weight) + DIVERGENCE * divergence(code, weight))


def lr_loss(module: RecurrentAttentionFusion, pair: Pair, key: Array) -> tuple[Array, tuple[()]]:
    """`lr_evidence` for a code that is drawn."""
    lr, weight = pair.observation["lr"], pair.weight["lr"]
    code = module.lr_code(module.read(lr))
    return lr_evidence(code, module.decode(drawn(code, key)), lr, weight), ()


def at_once(function: Callable[[Array], Array], *images: Array) -> list[Array]:
    """What a function of pixels makes of images, in one call for all.

    Args:
        function: of ``(pixel, ...)`` to ``(pixel, ...)``.
        images: ``(batch, height, width, ...)``.
    """
    pixels = [image.reshape(-1, *image.shape[3:]) for image in images]
    parts = jnp.split(function(jnp.concatenate(pixels)), np.cumsum([len(part) for part in pixels])[:-1])
    return [part.reshape(*image.shape[:3], *part.shape[1:]) for part, image in zip(parts, images, strict=True)]


def joint_loss(module: RecurrentAttentionFusion, pair: Pair, key: Array) -> tuple[Array, Array]:
    """`lr_evidence` and, on two patches, ``|R D(c) - Z|^2 / (2 sigma^2) + l log sigma + 1e-3 KL`` with learned sigma.

    The guide has l bands. A normal law of all the numbers in the patches would ask for as many times log sigma; sigma
    then falls to the residual, and next to so sharp a Z nothing holds the spectra to Y, whose variance is 1. This is
    the release's form, where sigma is the wider the more numbers there are. The output is X for the mean codes.
    """
    observed, height, width = pair.observation, *pair.observation["guide"].shape[1:3]
    places, *keys = jax.random.split(key, 3)
    size = min(PATCH, height), min(PATCH, width)
    at = corners(places, (height, width), size, PATCHES)
    images = observed["guide"], observed["upsampled"], pair.weight["guide"]
    guide, upsampled, weight = (cut(image, at, size) for image in images)
    read = at_once(module.read, observed["lr"], upsampled)
    codes = module.lr_code(read[0]), module.guide_code(guide, read[1])
    image, spectra = at_once(module.decode, *(drawn(code, k) for code, k in zip(codes, keys, strict=True)))
    sigma = module.noise[...]
    error = jnp.square((pair.model["guide"](spectra) - guide) * jnp.exp(-sigma))
    evidence = 0.5 * jnp.sum(error * weight) + guide.shape[-1] * sigma
    loss = lr_evidence(codes[0], image, observed["lr"], pair.weight["lr"])
    product = module(observed["guide"], observed["upsampled"])
    return loss + evidence + DIVERGENCE * divergence(codes[1], weight), product


STAGES = (Stage(lr_loss, 500, Schedule(1e-3)), Stage(joint_loss, 96_000, Schedule(1e-3)))


@fitter
def fit_rafnet(
    observation: Observation,
    model: ObservationModel,
    **sizes: Any,
) -> Plan:
    """Fits RAFnet to a pair; see `jfusion.catalogue.Fitter` and `priors.fit.fit`.

    Args:
        observation: `lr` and `guide`.
        model: the operator of `guide` must be known, and says which bands form a group; that of `lr` does not enter.
        sizes: of `RecurrentAttentionFusion`.

    Raises:
        InputError: the operator of `guide` is not known.
    """
    pair, scale = Pair.of(observation, model).normalised()
    images = pair.observation
    pair = dataclasses.replace(pair, observation=images | {"upsampled": upsample(images["lr"], model.grid)})
    bands = Bands.of(observation, model)
    split = response_split(model["guide"], bands.lr)

    def build(key: Array) -> RecurrentAttentionFusion:
        return RecurrentAttentionFusion(bands, split=split, rngs=nnx.Rngs(key), **sizes)

    return Plan(build, pair, STAGES, scale, lambda product: (product, model))


RAFNET = System(
    name="rafnet",
    title="RAFnet",
    family="prior",
    tasks=SPATIOSPECTRAL,
    paper=Paper(
        authors="R. Lu, B. Chen, Z. Cheng, P. Wang",
        year=2020,
        title="RAFnet: Recurrent attention fusion network of hyperspectral and multispectral images",
        venue="Signal Processing 177",
        doi="10.1016/j.sigpro.2020.107737",
        code="https://github.com/RuiyingLu/RAFnet",
    ),
    summary="A variational autoencoder of spectra: recurrent networks read the bands of a group and the groups, "
    "attention relates them, convolutions of the guide join in, and a recurrent decoder makes Y of low-resolution "
    "codes and X of codes at the guide; fitted to the evidence of Y and of Z = R X.",
    method=Fitted(
        generator=RecurrentAttentionFusion,
        fit=fit_rafnet,
        steps=sum(stage.steps for stage in STAGES),
        note="Adam at 1e-3; 500 steps on Y alone, then 96,000, which are 3,000 rounds over 64 patches of 16 x 16 "
        "pixels, two a step, as 100 x 100 pixels have them.",
        tiny={"local": 4, "width": 4, "attention": 4},
        compact={"local": 10, "width": 10, "attention": 15},
    ),
    differences="The groups are read one after the other; the release mixes their features before. Attention is "
    "divided by the root of its own features. Patches are drawn anywhere, not at every twelfth pixel, and the number "
    "of steps does not grow with the image. The bands are parted half way between the centroids of the guide's "
    "responses, where the release has fixed groups. Y is interpolated with the pair's own phase. The last parameters "
    "are taken, where the release leaves the choice of a checkpoint to its user. The pair is scaled to a largest "
    "magnitude of one.",
    parameters=(86_474, Bands(103, 4, 4)),
    needs_model=True,
)
