"""VP-Net: a proximal gradient method in which the scene, seen as pan images, has the features of the guide.

Tian, Li, Wang, Ma, "VP-Net: An Interpretable Deep Network for Variational Pansharpening", TGRS 60, 2022,
doi:10.1109/TGRS.2021.3089868; code: github.com/likun97/VP-Net.

With the low-resolution image Y, the guide P, the spatial response D, and a ratio image R that turns every band into one
that looks like P, the problem is ``min_X |D X - Y|^2 / 2 + lambda |F(R X) - F(P)|_1``. With Q in the place of R X a
stage computes

    X <- (X - rho D'(D X - Y) + mu Q / R) / (1 + mu)
    Z = R X,   Q <- Z + W3 G(S(F(W Z) - F(W0 P), theta) + F(W0 P))

S is the soft threshold. F = W11 relu(W1 .) and G = W22 relu(W2 .) are 3x3 convolutions of 40 channels; W, W0 and W3
lead from the bands and the guide to 40 channels and back; none has a bias. With y the interpolated Y and m the mean of
its bands, R is ``m / (y + 0.1)``, for 1 / R stands ``y / (m + 0.1)``, and the method starts from X = y and Q = m.
Convolutions, rho, mu and theta (0.1, 0.05 and 0.1 at first) are each stage's own; there are 7, and the product is the
last one's X.

D and D' are bilinear interpolations (``physics="free"``). With other physics (`unrolled.physics`) they are the response
of the sensor and its adjoint, over the squared norm so that rho counts in the same units, and m is the mean of what the
guide's sensor would see of y.

Training: ``10 |X - truth|^2 + 0.1 sum_k |G_k(F_k(u)) - u|^2`` with ``u = W_k Z_k``, means over all pixels and channels,
so that G undoes F; Adam at 1e-4, 55 epochs of 400 batches of 40 patches of 64 x 64 pixels. Xavier's uniform law.

Differences from the release:

- The soft threshold takes the sign of the difference, as in the paper. The release takes that of F(W Z) alone, as does
  ``sign="features"``, which its weights have learned with.
- The last stage has only rho and mu: what else the release gives it (60,841 parameters of 425,901) comes after the
  product and reaches no more than the second term of the loss. The biases that it makes are never added.
- Both images are resized with their pixels at their true places. The release leaves them to TensorFlow 1, whose
  low-resolution pixels lie on the first of each four, 1.5 pixels away from where those of its data are.
- Images are divided by their 99.9 % quantile (release: each band stretched from 0 to 1, before the data are made); what
  noise makes negative counts as zero in y.
- More than one guide band (the paper has one): W0 takes all.
"""

from __future__ import annotations

from functools import partial
from typing import Literal, Unpack, get_args

import jax.numpy as jnp
import optax
from flax import nnx
from jax import Array
from jax.nn.initializers import glorot_uniform

from jfusion.catalogue import Bands, Original, Paper, Recipe, System, Table, Trained
from jfusion.errors import InputError
from jfusion.layers.conv import Conv
from jfusion.layers.layouts import as_is
from jfusion.layers.resample import sample
from jfusion.operators import Observation, ObservationModel, upsample
from jfusion.solvers.prox import soft_threshold
from jfusion.tasks import SPATIOSPECTRAL
from unrolled.physics import Physics, Sensor, Sensors, back_projections
from unrolled.stages import Options, Stages, Unroll, finish, run_stages

Sign = Literal["difference", "features"]
"""Whose sign the soft threshold takes: F(W Z) - F(W0 P), or F(W Z)."""

FLOOR = 0.1
"""Added to what the ratio images divide by."""


class Pair(nnx.Module):
    """F or G: two 3x3 convolutions around a ReLU."""

    def __init__(self, width: int, rngs: nnx.Rngs) -> None:
        self.first, self.second = _conv(width, width, rngs), _conv(width, width, rngs)

    def __call__(self, x: Array) -> Array:
        """``(batch, height, width, channel)`` to the same."""
        return self.second(nnx.relu(self.first(x)))


def _conv(inputs: int, outputs: int, rngs: nnx.Rngs) -> Conv:
    return Conv(inputs, outputs, 3, use_bias=False, kernel_init=glorot_uniform(), rngs=rngs)


class DataStep(nnx.Module):
    """The step of X: ``(x - rho D'(D x - y) + mu q) / (1 + mu)``."""

    def __init__(self) -> None:
        self.rho, self.mu = nnx.Param(jnp.asarray(0.1)), nnx.Param(jnp.asarray(0.05))

    def __call__(self, x: Array, aim: Array, observed: Array, sensor: Sensor) -> Array:
        """The next X from X and Q / R."""
        rho, mu = self.rho[...], self.mu[...]
        return (x - rho * sensor.back(sensor.see(x) - observed) + mu * aim) / (1 + mu)


class Stage(nnx.Module):
    """A stage: the step of X and that of Q.

    Args:
        bands: of the pair.
        width: channels of the features.
        sign: see `Sign`.
    """

    def __init__(self, bands: Bands, width: int, rngs: nnx.Rngs, sign: Sign = "difference") -> None:
        self.sign = sign
        self.data, self.theta = DataStep(), nnx.Param(jnp.asarray(0.1))
        self.of_scene, self.of_guide = _conv(bands.lr, width, rngs), _conv(bands.guide, width, rngs)
        self.analyse, self.restore = Pair(width, rngs), Pair(width, rngs)
        self.back = _conv(width, bands.lr, rngs)

    def match(self, z: Array, guide: Array) -> tuple[Array, Array]:
        """The next Q from Z = R X, and the mean of ``(G(F(W Z)) - W Z)^2``."""
        features = self.of_scene(z)
        analysed, aim = self.analyse(features), self.analyse(self.of_guide(guide))
        left = soft_threshold(analysed - aim, self.theta[...])
        if self.sign == "features":
            left = jnp.sign(analysed) * jnp.abs(left)
        return z + self.back(self.restore(left + aim)), jnp.mean((self.restore(analysed) - features) ** 2)


class VPNet(nnx.Module):
    """The network of Tian et al., 2022.

    Args:
        bands: of the pair.
        stages: K, the last of which has a step of X alone.
        width: channels of the features.
        sign: see `Sign`.
        physics: see `unrolled.physics`.
        unroll: layout of the stages, see `unrolled.stages.Unroll`.

    Raises:
        InputError: no such sign or physics.
    """

    def __init__(
        self,
        bands: Bands,
        *,
        stages: int = 7,
        width: int = 40,
        sign: Sign = "difference",
        physics: Physics = "free",
        unroll: Unroll = "loop",
        rngs: nnx.Rngs,
    ) -> None:
        if sign not in get_args(Sign):
            raise InputError(f"the sign must be one of {', '.join(get_args(Sign))}, but is {sign!r}.")
        self.unroll = unroll
        self.sensors = None if physics == "free" else Sensors(physics, bands)
        self.stages = nnx.List([Stage(bands, width, rngs, sign) for _ in range(stages - 1)])
        self.last = DataStep()

    def seen(self, image: Array, model: ObservationModel) -> tuple[Sensor, Array]:
        """The spatial response, and m ``(batch, height, width, 1)`` of the interpolated image."""
        if self.sensors is None:
            resize = (partial(step, grid=model.grid, method="bilinear") for step in (sample, upsample))
            return Sensor(*resize), image.mean(-1, keepdims=True)
        sensors = back_projections(self.sensors, model, image.shape[-1])
        return sensors["lr"], sensors["guide"].see(image).mean(-1, keepdims=True)

    def solve(self, observation: Observation, model: ObservationModel) -> tuple[list[Array], Array]:
        """X after every stage, and the sum over the stages of the mean of ``(G(F(u)) - u)^2``.

        Raises:
            InputError: the physics is exact, but an operator is not known.
        """
        lr, guide = observation["lr"], observation["guide"]
        start = jnp.maximum(upsample(lr, model.grid, "bilinear"), 0)
        sensor, mean = self.seen(start, model)
        ratio, inverse = mean / (start + FLOOR), start / (mean + FLOOR)

        def body(stage: Stage, carry: tuple[Array, Array]) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
            x = stage.data(carry[0], carry[1] * inverse, lr, sensor)
            q, asymmetry = stage.match(x * ratio, guide)
            return (x, q), (x, asymmetry)

        (x, q), (estimates, asymmetries) = run_stages(
            list(self.stages), body, (start, jnp.broadcast_to(mean, start.shape)), self.unroll
        )
        return [*estimates, self.last(x, q * inverse, lr, sensor)], asymmetries.sum()

    def __call__(self, observation: Observation, model: ObservationModel, **options: Unpack[Options]) -> Array | Stages:
        """The product ``(batch, height, width, band)``, or what ``options`` ask of `unrolled.stages.finish`.

        Raises:
            InputError: the physics is exact, but an operator is not known.
        """
        estimates, _ = self.solve(observation, model)
        data = [*(stage.data for stage in self.stages), self.last]
        steps = {"rho": jnp.stack([s.rho[...] for s in data]), "mu": jnp.stack([s.mu[...] for s in data])}
        return finish(estimates, observation, model, steps, **options)


def vp_loss(network: VPNet, observation: Observation, model: ObservationModel, target: Array) -> Array:
    """Ten times the squared error of the product and a tenth of how far G is from undoing F in each stage."""
    estimates, asymmetry = network.solve(observation, model)
    return 10 * jnp.mean((estimates[-1] - target) ** 2) + 0.1 * asymmetry


def _release(network: VPNet) -> Table:
    """The names in the release."""
    table: Table = {}
    for k, stage in enumerate([*(f"stages/{k}/data" for k in range(len(network.stages))), "last"]):
        table |= {f"{stage}/rho": (f"conv_{k}/Variable", as_is), f"{stage}/mu": (f"conv_{k}/Variable_1", as_is)}
    kernels = {
        "of_scene": 4, "of_guide": 0, "analyse/first": 1, "analyse/second": 11, "restore/first": 2,
        "restore/second": 22, "back": 3,
    }  # fmt: skip
    for k in range(len(network.stages)):
        table[f"stages/{k}/theta"] = f"conv_{k}/Variable_2", as_is
        for path, number in kernels.items():
            table[f"stages/{k}/{path}/kernel"] = f"conv_{k}/weight_bias_scope/Weights_{number}", as_is
    return table


VP_NET = System(
    name="vp_net",
    title="VP-Net",
    family="unrolled",
    tasks=SPATIOSPECTRAL,
    paper=Paper(
        authors="X. Tian, K. Li, Z. Wang, J. Ma",
        year=2022,
        title="VP-Net: An Interpretable Deep Network for Variational Pansharpening",
        venue="IEEE Transactions on Geoscience and Remote Sensing 60",
        doi="10.1109/TGRS.2021.3089868",
        code="https://github.com/likun97/VP-Net",
    ),
    summary="Gradient steps on the low-resolution image take turns with a soft threshold that draws learned features "
    "of the scene, turned into pan images by a ratio image, to those of the guide.",
    method=Trained(
        network=VPNet,
        loss=vp_loss,
        recipe=Recipe(
            optimiser=lambda steps: optax.adam(1e-4),
            steps=22_000,
            patch=64,
            batch=40,
            note="Ten times the mean squared error and a tenth of the asymmetry, Adam at 1e-4; images divided by their "
            "99.9 % quantile (release: each band stretched from 0 to 1).",
        ),
        tiny={"stages": 3, "width": 8},
        compact={"stages": 4, "width": 24},
        originals=(
            Original(
                file="cheackpoint/VP_Model_50.cpkt of the release, for GaoFen-2",
                table=_release,
                bands=Bands(4, 1, 4),
                scale=None,
                sizes={"sign": "features"},
                unused=r"conv_\d+/weight_bias_scope(_\d+)?/biases_\d+|conv_6/(weight_bias_scope/Weights_\d+|Variable_2)",
                note="The release stretches each band from 0 to 1, and resizes as if low-resolution pixels lay on the "
                "first of each four, so that the weights make up for a displacement that its data do not have; a grid "
                "with that centre, (0, 0), does the same.",
            ),
        ),
    ),
    differences="The soft threshold has the sign of the difference, as in the paper; the last stage is a step of the "
    "scene alone, since the rest of it (60,841 parameters) reaches nothing; images are resized at their true places.",
    parameters=(365_060, Bands(4, 1, 4)),
)
