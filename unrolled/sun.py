"""SUN, subspace unrolled network: jfusion's own (2026), small, built from the kit, that keeps the physics.

An unrolled half-quadratic splitting in the manner of Simões et al., 2015 (HySure) and Dian et al., 2021 (CNN-Fus). The
scene is ``X = m + E c``: m the mean spectrum of the low-resolution image, E its principal components scaled to unit
variance, c one image for each component. Both sensors look at c through their true operators, ``y = H c + noise`` and
``z = R E c + noise``, which no parameter touches. A stage is

    d(p) = sum_q w(p, q) c(q) / sum_q w(p, q),   w(p, q) = exp(b(q - p) - |s g(p) - s g(q)|^2)
    d <- c + a (d - c)                           pixels that the guide shows alike draw together
    c <- d + u (d - c) + v (g - c) + w (i - c)   a proximal step that mixes and invents nothing
    c <- E[c | y, z]                             of a Gaussian prior with mean c and covariance I

with g what the guide alone tells of c and i the interpolation of y. Learned are the offsets b; how the scale s and the
share a depend on the correlation of a component with g and on how far it rises above the noise; and a small network
that finds the shares u, v, w of each pixel from these two numbers and from c, d, g and i. The first c is the
expectation about i, which is FUSE (Wei et al., 2015): the stages learn what a Gaussian prior does not know. Since they
look at one component at a time, and the operators, the noise and the basis come from the pair, the same weights serve
any number of bands, any ratio and any sensor.
"""

from __future__ import annotations

from typing import Unpack

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax import Array

from jfusion.catalogue import Bands, Paper, Recipe, System, Trained
from jfusion.classical.hypersharpening import known_response, srf
from jfusion.classical.pixels import signed
from jfusion.classical.subspace import noise_variance, posterior_mean
from jfusion.operators import Observation, ObservationModel, one_psf, upsample
from jfusion.operators.linear import single
from jfusion.tasks import SPATIOSPECTRAL
from unrolled.stages import Basis, Convolutions, Options, Stages, Unroll, finish, run_stages, spectral_step

NEGLIGIBLE = 1e-6
"""Smallest variance of a component or of the guide's noise, as a share of the image's, that float32 can tell."""


def principal_components(image: Array, rank: int) -> tuple[Array, Array, Array]:
    """Mean spectrum ``(batch, 1, 1, band)``, orthonormal components ``(batch, band, rank)``, their deviations.

    The largest entry of each component is positive.
    """
    mean = image.mean((1, 2), keepdims=True)
    pixels = (image - mean).reshape(image.shape[0], -1, image.shape[-1])
    covariance = jnp.einsum("npl,npm->nlm", pixels, pixels, precision="highest") / pixels.shape[1]
    variance, vectors = jnp.linalg.eigh(covariance)
    variance, vectors = variance[:, ::-1][:, :rank], signed(vectors[:, :, ::-1][:, :, :rank])
    variance = jnp.maximum(variance, NEGLIGIBLE * variance[:, :1])
    return mean, vectors, jnp.sqrt(jnp.where(variance > 0, variance, 1))


class Likeness(nnx.Module):
    """Draws each pixel towards the mean of a neighbourhood, weighted by how alike the guide shows them.

    Args:
        window: pixels along a side of the neighbourhood, odd.
        traits: numbers that describe a component.
    """

    def __init__(self, window: int, traits: int, rngs: nnx.Rngs) -> None:
        self.offsets = nnx.Param(jnp.zeros((window, window)))
        self.hidden, self.outer = nnx.Linear(traits, 8, rngs=rngs), nnx.Linear(8, 2, rngs=rngs)

    def __call__(self, c: Array, seen: Array, traits: Array, spacing: int) -> Array:
        """The image ``(batch, height, width, component)`` in which each pixel has moved towards its mean.

        Args:
            c: coefficients.
            seen: what the guide alone tells of them.
            traits: of each component, first its correlation with ``seen``, ``(batch, 1, 1, component, trait)``.
            spacing: pixels between the neighbours.
        """
        scale, share = jnp.moveaxis(self.outer(jnp.tanh(self.hidden(traits))), -1, 0)
        window, count = self.offsets.shape[0], c.shape[-1]
        reach = window // 2 * spacing
        both = jnp.concatenate([jax.nn.softplus(scale + 1) * traits[..., 0] * seen, c], -1)
        padded = jnp.pad(both, ((0, 0), (reach, reach), (reach, reach), (0, 0)), mode="reflect")

        def add(sums: tuple[Array, Array], tap: tuple[Array, Array, Array]) -> tuple[tuple[Array, Array], None]:
            row, column, offset = tap
            there = jax.lax.dynamic_slice(padded, (0, row, column, 0), both.shape)
            distance = jnp.sum((both - there)[..., :count] ** 2, -1, keepdims=True)
            weight = jnp.exp(offset - distance)
            return (sums[0] + weight * there[..., count:], sums[1] + weight), None

        rows, columns = spacing * jnp.indices((window, window)).reshape(2, -1)
        none = jnp.zeros_like(c), jnp.zeros_like(c[..., :1])
        (total, weights), _ = jax.lax.scan(add, none, (rows, columns, self.offsets[...].reshape(-1)))
        return c + jax.nn.sigmoid(share) * (total / weights - c)


class Stage(nnx.Module):
    """What a stage learns: which pixels are alike, and how far a component follows each image proposed to it."""

    def __init__(self, window: int, width: int, depth: int, rngs: nnx.Rngs) -> None:
        self.likeness = Likeness(window, 2, rngs)
        self.shares = Convolutions(6, 3, width=width, depth=depth, rngs=rngs)

    def __call__(self, c: Array, seen: Array, interpolated: Array, traits: Array, spacing: int) -> Array:
        """Coefficients ``(batch, height, width, component)`` to the same.

        Args:
            c: coefficients of unit variance.
            seen: what the guide alone tells of them.
            interpolated: from the low-resolution image.
            traits: of each component, ``(batch, 1, 1, component, 2)``.
            spacing: see `Likeness`.
        """
        mean = self.likeness(c, seen, traits, spacing)
        proposals = jnp.stack([mean, seen, interpolated], -1)
        maps = jnp.concatenate([proposals, c[..., None], jnp.broadcast_to(traits, (*c.shape, 2))], -1)
        shares = jnp.moveaxis(self.shares(jnp.moveaxis(maps, 3, 1)), 1, 3)
        return mean + jnp.sum(shares * (proposals - c[..., None]), -1)


class SUN(nnx.Module):
    """The network; its parameters do not depend on the bands.

    Args:
        bands: not used, the network serves any.
        stages: of the unrolled iteration.
        rank: most components.
        window: of the mean over alike pixels, whose neighbours lie half a low-resolution pixel apart.
        width, depth: of the networks that find the shares.
        unroll: layout of the stages, see `unrolled.stages.Unroll`.
    """

    def __init__(
        self,
        bands: Bands,
        *,
        stages: int = 2,
        rank: int = 10,
        window: int = 7,
        width: int = 16,
        depth: int = 1,
        unroll: Unroll = "loop",
        rngs: nnx.Rngs,
    ) -> None:
        self.rank, self.unroll = rank, unroll
        self.stages = nnx.List([Stage(window, width, depth, rngs) for _ in range(stages)])

    def __call__(self, observation: Observation, model: ObservationModel, **options: Unpack[Options]) -> Array | Stages:
        """The product ``(batch, height, width, band)``, or what ``options`` ask of `unrolled.stages.finish`.

        Raises:
            InputError: the spatial or the spectral response is not known.
        """
        observation = single(observation)
        lr, guide = observation["lr"], observation["guide"]
        response, weights = one_psf(known_response(model)), srf(model)
        mean, vectors, deviation = principal_components(lr, min(self.rank, lr.shape[-1]))
        basis, size = Basis(vectors), deviation[:, None, None]
        y, z = basis.T(lr - mean), guide - model["guide"](mean)
        mixing = jnp.einsum("gl,nlr->ngr", weights, vectors, precision="highest")
        lr_noise = noise_variance(observation, model, "lr").mean(1)
        guide_noise = noise_variance(observation, model, "guide")
        guide_noise = jnp.maximum(guide_noise, NEGLIGIBLE * jnp.mean(guide**2, (1, 2, 3))[:, None])

        def expectation(c: Array) -> Array:
            def one(prior: Array, y: Array, z: Array, d: Array, m: Array, v: Array, w: Array) -> Array:
                return posterior_mean(y, z, prior, jnp.diag(d**2), m, response, v, w)

            return jax.vmap(one)(c * size, y, z, deviation, mixing, lr_noise, guide_noise) / size

        def told(z: Array) -> Array:
            """What the guide alone tells of the coefficients."""
            prior = jnp.zeros((*z.shape[:3], size.shape[-1]))
            return jax.vmap(spectral_step)(prior, z, mixing * deviation[:, None], 1 / guide_noise)

        interpolated = upsample(y / size, model.grid)
        seen = told(z)
        units = jnp.swapaxes(mixing * deviation[:, None], 1, 2)[:, None]
        correlation = jnp.sqrt(jnp.maximum(jnp.diagonal(told(units)[:, 0], axis1=1, axis2=2), 0))
        clear = jnp.log10(deviation**2 / lr_noise[:, None]) / 4
        traits = jnp.stack([correlation, clear], -1)[:, None, None]

        def body(stage: Stage, c: Array) -> tuple[Array, Array]:
            c = expectation(stage(c, seen, interpolated, traits, max(model.ratio // 2, 1)))
            return c, c

        _, coefficients = run_stages(list(self.stages), body, expectation(interpolated), self.unroll)
        estimates = mean + basis(coefficients * size)
        return finish(estimates, observation, model, **options)


def deeply_supervised(network: SUN, observation: Observation, model: ObservationModel, target: Array) -> Array:
    """Mean absolute error of the product relative to the scene's size, plus 0.3 times that of the earlier stages.

    A low-resolution pixel along the border is left out: a patch cut from a larger scene is not periodic there.
    """
    result = network(observation, model, stages=True)
    assert isinstance(result, Stages)
    height, width = target.shape[1:3]
    margin = min(model.ratio, (min(height, width) - 1) // 2)
    size = jnp.sqrt(jnp.mean(target**2, (1, 2, 3), keepdims=True))
    errors = jnp.abs(result.estimates - target) / jnp.where(size > 0, size, 1)
    errors = jnp.mean(errors[:, :, margin : height - margin, margin : width - margin], (1, 2, 3, 4))
    return errors[-1] + 0.3 * jnp.sum(errors[:-1]) / max(len(errors) - 1, 1)


SUN_SYSTEM = System(
    name="sun",
    title="Subspace unrolled network (SUN)",
    family="unrolled",
    tasks=SPATIOSPECTRAL,
    paper=Paper(authors="jfusion", year=2026, title="Subspace unrolled network", venue="Unpublished"),
    summary="After HySure (Simões 2015): starts from FUSE in the principal components of the low-resolution image; "
    "each stage draws pixels that the guide shows alike together, in shares that one small network finds for every "
    "component, and returns to both images by the exact Gaussian posterior mean.",
    method=Trained(
        network=SUN,
        loss=deeply_supervised,
        recipe=Recipe(
            optimiser=lambda steps: optax.chain(
                optax.clip_by_global_norm(1.0), optax.adam(optax.cosine_decay_schedule(2e-3, steps))
            ),
            steps=400,
            patch=40,
            batch=2,
            note="Adam 2e-3 with cosine decay, gradients clipped to norm 1; relative L1 on every stage, a "
            "low-resolution pixel away from the border.",
        ),
        tiny={"stages": 2, "rank": 4, "window": 3, "width": 4},
        any_bands=True,
    ),
    differences="Our own: the model is HySure's; a learned proximal step takes the place of the vector total "
    "variation, FUSE's closed form that of its data steps.",
    parameters=(7_452, Bands(198, 7, 4)),
    needs_model=True,
)
