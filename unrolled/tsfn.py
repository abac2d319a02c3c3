"""TSFN: a two-stream network as the prior of a closed-form solution whose weight is found for each image.

Wang, Chen, Wei, Richard, "Hyperspectral Image Super-Resolution via Deep Prior Regularization with Parameter
Estimation", TCSVT 32(4), 2022.

The network predicts the scene from the interpolated low-resolution image Y and the guide Z, each through a stream of
residual blocks, X_cnn = Y up + N(Y up, Z). With H the blur and decimation of Y, and R the spectral response of Z, the
physics corrects it:

    X(mu) = argmin_X |Y - H X|^2 + |Z - R X|^2 + mu |X - X_cnn|^2

in closed form. The minimum-distance criterion sets mu: nearest to the origin, in the plane of the two costs, lies

    mu = argmin_mu  (|Y - H X|^2 + |Z - R X|^2)^2 + (w |X - X_cnn|^2)^2,    w = (l / L)^2 + (1 / s^2)^2

with l and L the bands of Z and Y and s the ratio; golden-section search over mu / w from 1e-8 to 1 finds it for each
image. The network alone is trained, by the mean absolute error of X_cnn: Adam 2e-4, 500 epochs of 125 batches of 16
patches 128 x 128, turned and mirrored. It starts from He's normal law, scales of the normalisation from a normal law
about 1. The operators are those of the observation model ("exact"); "learned" fits a PSF and a spectral response to the
training pairs; "free" is not offered, see `unrolled.closed_form`.

Differences from the release:
    - It degrades each patch anew, by a Gaussian at ratio 8, or by means over 8, 16 or 32 pixels (the last twice as
      often), so that one network serves all; here the network learns the degradation of the training pairs.
    - Its search measures the distance at mu / w, but solves at mu; here both are at mu.
    - Validation leaves its network in the mode of use, so that after the first epoch the moments of the normalisation
      never change again; here every step takes those of its batch. A product takes the running ones.
    - It clips X_cnn to [0, 1], and corrects it by a Y whose pixels lie elsewhere than those the network has seen.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Unpack

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax import Array
from jax.nn.initializers import variance_scaling

from jfusion.catalogue import Bands, Original, Paper, Recipe, System, Table, Trained
from jfusion.layers.batch_norm import ConvNorm
from jfusion.layers.conv import Conv
from jfusion.layers.layouts import as_is, torch_batch_norm, torch_layer
from jfusion.layers.prelu import PReLU
from jfusion.operators import Observation, ObservationModel, upsample
from jfusion.tasks import SPATIOSPECTRAL
from unrolled.closed_form import LinearPhysics, LinearSensors
from unrolled.stages import Options, Stages, closed_form_step, finish

GOLDEN = (math.sqrt(5) + 1) / 2

he_normal = variance_scaling(2.0, "fan_in", "normal")
"""He's law for rectifiers, not truncated: PyTorch's `kaiming_normal_`."""


def near_one(key: Array, shape: Any, dtype: Any = jnp.float32, out_sharding: Any = None) -> Array:
    """Scales of the normalisation: a normal law of deviation 0.02 about 1."""
    return 1 + 0.02 * jax.random.normal(key, shape, dtype)


def _conv_norm(inputs: int, outputs: int, rngs: nnx.Rngs) -> ConvNorm:
    return ConvNorm(
        inputs, outputs, momentum=0.9, epsilon=1e-5, kernel_init=he_normal, scale_init=near_one, rngs=rngs
    )  # fmt: skip


class Block(nnx.Module):
    """Two normalised convolutions around a PReLU, plus the identity."""

    def __init__(self, width: int, rngs: nnx.Rngs) -> None:
        self.first, self.second = _conv_norm(width, width, rngs), _conv_norm(width, width, rngs)
        self.activation = PReLU()

    def __call__(self, x: Array, running: bool | None = None) -> Array:
        return x + self.second(self.activation(self.first(x, running)), running)


class Stream(nnx.Module):
    """What the network sees in one of the images, ``(batch, height, width, channel)``."""

    def __init__(self, inputs: int, width: int, blocks: int, rngs: nnx.Rngs) -> None:
        self.first = Conv(inputs, width, 3, kernel_init=he_normal, rngs=rngs)
        self.activation = PReLU()
        self.blocks = nnx.List([Block(width, rngs) for _ in range(blocks)])
        self.last = _conv_norm(width, width, rngs)

    def __call__(self, x: Array, running: bool | None = None) -> Array:
        x = self.activation(self.first(x))
        for block in self.blocks:
            x = block(x, running)
        return self.last(x, running)


def golden_section(function: Callable[[Array], Array], low: float, high: float, tolerance: float) -> Array:
    """The scalar between ``low`` and ``high`` at which a function with one minimum has it.

    The bracket shrinks by the golden ratio, one value of the function a step, until its two inner points are no
    further apart than ``tolerance``; the middle of what is left is returned.

    Kiefer, "Sequential minimax search for a maximum", Proceedings of the AMS 4(3), 1953.
    """
    steps = max(0, math.ceil(math.log((high - low) * (2 / GOLDEN - 1) / tolerance, GOLDEN)))

    def shrink(_: int, state: tuple[Array, ...]) -> tuple[Array, ...]:
        low, high, at_left, at_right = state
        left, right = high - (high - low) / GOLDEN, low + (high - low) / GOLDEN
        lower = at_left < at_right
        low, high = jnp.where(lower, low, left), jnp.where(lower, right, high)
        new = function(jnp.where(lower, high - (high - low) / GOLDEN, low + (high - low) / GOLDEN))
        return low, high, jnp.where(lower, new, at_right), jnp.where(lower, at_left, new)

    ends = jnp.float32(low), jnp.float32(high)
    inner = [function(jnp.float32(high - width)) for width in ((high - low) / GOLDEN, (high - low) * (1 - 1 / GOLDEN))]
    low_, high_, *_ = jax.lax.fori_loop(0, steps, shrink, (*ends, *inner))
    return (low_ + high_) / 2


def balanced(prior: Array, observation: Observation, model: ObservationModel) -> tuple[Array, Array]:
    """The images X(mu), ``(batch, height, width, band)``, and mu by the minimum-distance criterion, ``(batch,)``.

    Args:
        prior: X_cnn, ``(batch, height, width, band)``.
        observation: what the sensors gave.
        model: operators that a closed form covers.
    """
    weight = (observation["guide"].shape[-1] / prior.shape[-1]) ** 2 + model.ratio**-4

    def one(prior: Array, observation: Observation) -> tuple[Array, Array]:
        def solve(mu: Array) -> Array:
            return closed_form_step(prior, observation, model, mu)

        def distance(share: Array) -> Array:
            x = solve(share * weight)
            data = sum((jnp.sum((image - observation[key]) ** 2) for key, image in model(x).items()), jnp.zeros(()))
            return jnp.hypot(data, weight * jnp.sum((x - prior) ** 2))

        mu = weight * jax.lax.stop_gradient(golden_section(distance, 1e-8, 1.0, 1e-3))
        return solve(mu), mu

    return jax.vmap(one)(prior, observation)


class TSFN(nnx.Module):
    """The network of Wang et al., 2022, and the correction by the physics.

    Args:
        bands: of the pair.
        width: channels of the streams.
        blocks: residual blocks of each stream.
        physics: "exact" or "learned".

    Raises:
        InputError: another physics.
    """

    def __init__(
        self, bands: Bands, *, width: int = 64, blocks: int = 6, physics: LinearPhysics = "exact", rngs: nnx.Rngs
    ) -> None:
        self.sensors = LinearSensors(physics, bands)
        self.lr, self.guide = (Stream(inputs, width, blocks, rngs) for inputs in (bands.lr, bands.guide))
        self.mix, self.activation = _conv_norm(2 * width, width, rngs), PReLU()
        self.last = Conv(width, bands.lr, 3, kernel_init=he_normal, rngs=rngs)

    def learn(self, observation: Observation, model: ObservationModel, running: bool | None = None) -> list[Array]:
        """``[Y up, X_cnn]``, each ``(batch, height, width, band)``; ``running`` as in `ConvNorm`."""
        interpolated = upsample(observation["lr"], model.grid)
        features = self.lr(interpolated, running), self.guide(observation["guide"], running)
        mixed = self.activation(self.mix(jnp.concatenate(features, -1), running))
        return [interpolated, interpolated + self.last(mixed)]

    def __call__(self, observation: Observation, model: ObservationModel, **options: Unpack[Options]) -> Array | Stages:
        """The product ``(batch, height, width, band)``, or what ``options`` ask of `unrolled.stages.finish`.

        The stages are Y up, X_cnn and X(mu); mu is told of each image, ``(1, batch)``.

        Raises:
            InputError: the physics is exact, and the spatial or the spectral response is not known.
        """
        estimates = self.learn(observation, model, running=True)
        corrected, mu = balanced(estimates[-1], observation, self.sensors(model))
        return finish([*estimates, corrected], observation, model, steps={"mu": mu[None]}, **options)


def prior_loss(network: TSFN, observation: Observation, model: ObservationModel, target: Array) -> Array:
    """Mean absolute error of X_cnn, with the misfit of the responses where they are learned."""
    estimate = network.learn(observation, model)[-1]
    return jnp.mean(jnp.abs(estimate - target)) + network.sensors.misfit(observation, model, target)


def _conv_and_norm(ours: str, conv: str, norm: str) -> Table:
    return torch_layer(f"{ours}/conv", conv) | torch_batch_norm(f"{ours}/norm", norm)


def _slope(ours: str, theirs: str) -> Table:
    return {f"{ours}/slope": (f"{theirs}.weight", as_is)}


def _release(network: TSFN) -> Table:
    """The names in the release."""
    table = torch_layer("last", "layer_fusion.3") | _slope("activation", "layer_fusion.2")
    table |= _conv_and_norm("mix", "layer_fusion.0", "layer_fusion.1")
    for stream, number in (("lr", 1), ("guide", 2)):
        table |= torch_layer(f"{stream}/first", f"input_{number}.0")
        table |= _slope(f"{stream}/activation", f"input_{number}.1")
        table |= _conv_and_norm(f"{stream}/last", f"output_{number}.0", f"output_{number}.1")
        for k in range(len(getattr(network, stream).blocks)):
            ours, theirs = f"{stream}/blocks/{k}", f"residual_layers_{number}.{k}.0"
            table |= _slope(f"{ours}/activation", f"{theirs}.prelu")
            for part, place in (("first", 1), ("second", 2)):
                table |= _conv_and_norm(f"{ours}/{part}", f"{theirs}.conv{place}", f"{theirs}.bn{place}")
    return table


TSFN_SYSTEM = System(
    name="tsfn",
    title="TSFN with the minimum-distance criterion",
    family="unrolled",
    tasks=SPATIOSPECTRAL,
    paper=Paper(
        authors="X. Wang, J. Chen, Q. Wei, C. Richard",
        year=2022,
        title="Hyperspectral Image Super-Resolution via Deep Prior Regularization with Parameter Estimation",
        venue="IEEE Transactions on Circuits and Systems for Video Technology 32(4)",
        doi="10.1109/TCSVT.2021.3078559",
        code="https://github.com/xiuheng-wang/Sylvester_TSFN_MDC_HSI_superresolution",
    ),
    summary="Two streams of residual blocks predict the scene from the interpolated low-resolution image and the "
    "guide; a closed form then returns to both images, with the weight of the prediction found for each image by its "
    "minimum-distance criterion.",
    method=Trained(
        network=TSFN,
        loss=prior_loss,
        recipe=Recipe(
            optimiser=lambda steps: optax.adam(2e-4),
            steps=62_500,
            patch=128,
            batch=16,
            note="Adam 2e-4; 500 epochs of 125 steps; patches turned and flipped.",
            turn=True,
        ),
        tiny={"width": 4, "blocks": 1},
        compact={"width": 32, "blocks": 2},
        originals=(
            Original(
                file="models/ssfsr_9layers_epoch500.pkl of the release, for CAVE",
                table=_release,
                bands=Bands(31, 3, 8),
                scale=1,
                note="Images go from 0 to 1.",
            ),
        ),
    ),
    differences="The network learns the degradation of the training pairs, where the release draws one of four for "
    "each patch. The search solves at the weight whose distance it measures, which the release does not. The moments "
    "of the normalisation are those of the batch in all steps, in the release they stand still after the first epoch. "
    "Nothing is clipped.",
    parameters=(1_074_990, Bands(31, 3, 8)),
    needs_model=True,
)
