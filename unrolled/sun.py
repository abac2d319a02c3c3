"""SUN, subspace unrolled network: our own small network, built from the kit, that keeps the physics.

An unrolled half-quadratic splitting in the manner of Simões et al., 2015 (HySure) and Dian et al., 2021 (CNN-Fus), with
a learned proximal step. The scene is ``X = m + E c``: m the mean spectrum of the low-resolution image, E its principal
components scaled to unit variance, c one image for each component. Both sensors look at c through their true operators,
``H c = y`` and ``R E c = z``, which no parameter touches. A stage is

    c <- prox(c, features)                     one small network for every component alike
    c <- c - a ratio^2 H' (H c - y)            a gradient step towards the low-resolution image
    c <- c - G (R E c - z)                     the exact step towards the guide, pixel by pixel

Since the proximal network sees one component at a time, and the operators and the basis come from the pair, the same
weights serve any number of bands, any ratio and any sensor.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax import Array

from jfusion.catalogue import Bands, Paper, Recipe, System, Trained
from jfusion.operators import Observation, ObservationModel, upsample
from jfusion.tasks import SPATIOSPECTRAL
from unrolled.stages import Basis, Positive, Prox, Stages, gradient_step, report, run_stages

RELATIVE_NOISE = 1e-6
"""Smallest variance of a component, as a share of the largest, that is not taken for numerical noise."""


def principal_components(image: Array, rank: int) -> tuple[Array, Array]:
    """Mean spectrum ``(batch, 1, 1, band)`` and the components scaled by their deviation ``(batch, band, rank)``."""
    mean = image.mean((1, 2), keepdims=True)
    pixels = (image - mean).reshape(image.shape[0], -1, image.shape[-1])
    covariance = jnp.einsum("npl,npm->nlm", pixels, pixels, precision="highest") / pixels.shape[1]
    variance, vectors = jnp.linalg.eigh(covariance)
    variance, vectors = variance[:, ::-1][:, :rank], vectors[:, :, ::-1][:, :, :rank]
    variance = jnp.maximum(variance, RELATIVE_NOISE * variance[:, :1])
    return mean, vectors * jnp.sqrt(jnp.where(variance > 0, variance, 1))[:, None, :]


def pixel_gain(mixing: Array, weight: Array | float) -> Array:
    """G of the exact guide step: ``argmin_c weight |M c - z|^2 + |c - prior|^2`` is ``prior - G (M prior - z)``.

    Args:
        mixing: M, ``(batch, guide band, component)``.
        weight: trust in the guide.

    Returns:
        ``(batch, component, guide band)``.
    """
    transposed = jnp.swapaxes(mixing, 1, 2)
    normal = jnp.matmul(mixing, transposed, precision="highest") + jnp.eye(mixing.shape[1]) / weight
    return jnp.matmul(transposed, jnp.linalg.inv(normal), precision="highest")


class Stage(nnx.Module):
    """What a stage learns: a proximal network and the trust in each image."""

    def __init__(self, features: int, width: int, depth: int, rngs: nnx.Rngs) -> None:
        self.prox = Prox(1, features, width=width, depth=depth, rngs=rngs)
        self.lr, self.guide = Positive(0.9), Positive(5.0)


class SUN(nnx.Module):
    """The network; its parameters do not depend on the bands.

    Args:
        bands: not used, the network serves any.
        stages: of the unrolled iteration.
        rank: most components.
        width, depth: of the proximal networks.
    """

    def __init__(
        self, bands: Bands, *, stages: int = 4, rank: int = 10, width: int = 16, depth: int = 1, rngs: nnx.Rngs
    ) -> None:
        self.rank = rank
        self.stages = nnx.List([Stage(3, width, depth, rngs) for _ in range(stages)])

    def __call__(
        self, observation: Observation, model: ObservationModel, *, stages: bool = False, scan: bool = False
    ) -> Array | Stages:
        """The product ``(batch, height, width, band)``, or with ``stages`` what each stage made.

        Raises:
            InputError: the spatial or the spectral response is not known.
        """
        lr, guide = observation["lr"], observation["guide"]
        mean, vectors = principal_components(lr, min(self.rank, lr.shape[-1]))
        basis, response = Basis(vectors), model["guide"]
        scale = jnp.sqrt(jnp.mean(lr**2, (1, 2, 3), keepdims=True))
        scale = jnp.where(scale > 0, scale, 1)
        y = Basis(vectors / jnp.sum(vectors**2, 1, keepdims=True)).T(lr - mean)
        z = (guide - response(mean)) / scale
        mixing = jnp.swapaxes(response(jnp.swapaxes(vectors, 1, 2)[:, None])[:, 0], 1, 2) / scale[:, 0]
        coarse, sensors = {"lr": y}, ObservationModel({"lr": model["lr"]}, model.grid)

        def towards_guide(c: Array, weight: Array | float) -> Array:
            error = jnp.einsum("ngr,nhwr->nhwg", mixing, c, precision="highest") - z
            return c - jnp.einsum("nrg,nhwg->nhwr", pixel_gain(mixing, weight), error, precision="highest")

        seen = towards_guide(jnp.zeros((*z.shape[:3], y.shape[-1]), y.dtype), 1e4)
        explained = jnp.einsum("nrg,ngr->nr", pixel_gain(mixing, 1e3), mixing)[:, None, None, :]
        features = (seen, upsample(y, model.grid), jnp.broadcast_to(explained, seen.shape))
        stacked = jnp.moveaxis(jnp.stack(features, -1), 3, 1)

        def body(stage: Stage, c: Array) -> tuple[Array, tuple[Array, Array, Array]]:
            c = jnp.moveaxis(stage.prox(jnp.moveaxis(c, 3, 1)[..., None], stacked)[..., 0], 1, 3)
            c = gradient_step(c, coarse, sensors, {"lr": model.ratio**2 * stage.lr()})
            c = towards_guide(c, 10 ** stage.guide())
            return c, (c, stage.lr(), stage.guide())

        start = seen + upsample(y - model["lr"](seen), model.grid)
        _, (coefficients, lr_step, guide_step) = run_stages(list(self.stages), body, start, scan=scan)
        estimates = mean + jax.vmap(basis)(coefficients)
        if not stages:
            return estimates[-1]
        steps = {"lr step": lr_step, "guide weight (log10)": guide_step}
        return report(estimates[-1], estimates, observation, model, steps)


def deeply_supervised(network: SUN, observation: Observation, model: ObservationModel, target: Array) -> Array:
    """Mean absolute error of the product relative to the scene's size, plus 0.3 times that of the earlier stages."""
    result = network(observation, model, stages=True)
    assert isinstance(result, Stages)
    size = jnp.sqrt(jnp.mean(target**2, (1, 2, 3), keepdims=True))
    errors = jnp.mean(jnp.abs(result.estimates - target) / size, (1, 2, 3, 4))
    return errors[-1] + 0.3 * jnp.sum(errors[:-1]) / max(len(errors) - 1, 1)


SUN_SYSTEM = System(
    name="sun",
    title="Subspace unrolled network (SUN)",
    family="unrolled",
    tasks=SPATIOSPECTRAL,
    paper=Paper(
        authors="M. Simões, J. Bioucas-Dias, L. B. Almeida, J. Chanussot",
        year=2015,
        title="A convex formulation for hyperspectral image superresolution via subspace-based regularization",
        venue="IEEE Transactions on Geoscience and Remote Sensing 53(6)",
        doi="10.1109/TGRS.2014.2375320",
    ),
    summary="Principal components of the low-resolution image are sharpened by a few iterations that keep the true "
    "operators of both sensors and learn a proximal step that all components share.",
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
            note="Adam 2e-3 with cosine decay, gradients clipped to norm 1; relative L1 on every stage.",
        ),
        tiny={"stages": 2, "rank": 4, "width": 4},
    ),
    differences="Our own: the model is HySure's, the vector total variation is replaced by a learned proximal step.",
    parameters=(12_236, Bands(198, 7, 4)),
    needs_model=True,
)
