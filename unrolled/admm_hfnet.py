"""ADMM-HFNet: an alternating direction method of multipliers on coefficients in the image's own spectral basis.

Shen, Liu, Wu, Yang, Xiao, "ADMM-HFNet: A Matrix Decomposition-Based Deep Approach for Hyperspectral Image Fusion",
TGRS 60, 2022, doi:10.1109/TGRS.2021.3112181; code: github.com/liuofficial/ADMM-HFNet.

The scene is P V with the strongest singular vectors P of the spectra of the low-resolution image Y = D X, and sparse
coefficients V; Z = R X is the guide. With T in the place of P V and A in that of V, the problem is

    min |D T - Y|^2 / 2 + |R P V - Z|^2 / 2 + lambda |A|_1,   T = P V,   A = V.

With the multipliers H and G of its two conditions, each of 11 stages computes

    V <- a0 V - a1 P'R'(R P V - Z) + a2 A + a3 G + a4 P'(T - a5 H)      a gradient step of the augmented Lagrangian
    T <- b0 T - b1 D'(D T - Y) + b2 P V + b3 H                          another one
    A <- S(V - c0 G, c1)                                                S the soft threshold
    G <- eta1 G + eta2 A - eta3 V,   H <- mu1 H + mu2 P V - mu3 T
    X  = T - e1 R'(R T - Z) - e2 D'(D T - Y) - e3 (T - P A) - e4 (T - P V)

where X, a gradient step that starts from T, adds what no P V can hold. The product is a 3 x 3 convolution of the X of
all stages. The 22 numbers are each stage's own, free, and start from a truncated normal law of deviation 0.1.

So are R, R', D and D', convolutions with biases (``physics="free"``): 3 x 3 for R, with a leaky rectifier (slope 0.2),
and R'. D shrinks by r2, then by r1, with leaky rectifiers, r1 r2 being the ratio (2 and 4 at ratio 8); windows reach
two pixels further than the step on each side. D' enlarges by r1, then by r2, and adds after each step what three 3 x 3
convolutions with leaky rectifiers make of the image and of the guide, shrunk in D's manner or whole. The method starts
from T = R'Z and, in the place of P V, D'Y, with convolutions of their own; V, A, G and H are zero. So eight numbers of
the first stage multiply zeros, and six of the last one make multipliers that nothing uses.

With other physics (`unrolled.physics`) the responses are linear and the same in all stages, their adjoints divided by
the squared norms. The method then starts from T = Y interpolated and V = A = P'T, the numbers as the method's with all
penalties 1 and the largest safe steps, the last convolution as the X of the last stage.

Training: mean absolute error, Adam at 4e-4, 2e-4 after an eighth and 1e-4 after three eighths of 160,000 steps of 16
patches of 64 x 64 pixels. P has 20 vectors, of the patch, in training, and 8, of the image, afterwards. Kernels start
by He's truncated normal law.

Differences from the release:

- The part of the guide's D that reaches nothing (34,627 parameters) is left out.
- Its r1 is the root of the ratio, rounded down; where that does not divide the ratio, which may be a fraction, the step
  of r2 is a bilinear interpolation and a convolution. Here r1 is the largest divisor up to the root, 1 for a prime.
- A last fall of the rate to 5e-5 that is written there begins beyond the last step.
- It chooses the best of 16 steps by (PSNR + SSIM) / 2 of held-out patches and clips products to [0, 1].
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Any, NamedTuple, Unpack

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax import Array

from jfusion.catalogue import Bands, Original, Paper, Recipe, System, Table, Trained
from jfusion.classical.pixels import subspace
from jfusion.layers.conv import Conv, ConvTranspose
from jfusion.layers.init import tf_truncated_normal, tf_variance_scaling
from jfusion.layers.layouts import number, slim_layer, tensorflow_transposed_kernel
from jfusion.operators import Observation, ObservationModel, upsample
from jfusion.solvers.prox import soft_threshold
from jfusion.tasks import SPATIOSPECTRAL
from unrolled.physics import Physics, Sensor, Sensors, back_projections
from unrolled.stages import Basis, Options, Stages, Unroll, finish, run_stages

OVERLAP = 2
"""Pixels that windows of D and D' reach further than their step on each side."""

NUMBERS = {
    **dict.fromkeys(("a0", "a1", "a2", "a3", "a4"), 1 / 3), "a5": 1.0, **dict.fromkeys(("b0", "b1", "b2", "b3"), 1 / 2),
    "c0": 1.0, "c1": 1e-3, **dict.fromkeys(("eta1", "eta2", "eta3", "mu1", "mu2", "mu3"), 1.0),
    **dict.fromkeys(("e1", "e2", "e3", "e4"), 1 / 4),
}  # fmt: skip
"""The numbers of a stage, as they start where the responses are linear: penalties 1, steps one over the curvature."""


RELEASED = (
    *(f"t{k}" for k in range(6)), *(f"h{k}" for k in range(4)), "g0", "g1", "eta1", "eta2", "eta3", "mu1", "mu2", "mu3",
    *(f"d{k}" for k in range(1, 5)),
)  # fmt: skip
"""What the release calls the numbers of a stage."""


def factors(ratio: int) -> tuple[int, int]:
    """r1 and r2, whose product is the ratio: the largest divisor up to its root, and what is left."""
    first = max(step for step in range(1, math.isqrt(ratio) + 1) if ratio % step == 0)
    return first, ratio // first


def _leaky(x: Array) -> Array:
    return jax.nn.leaky_relu(x, 0.2)


def _conv(inputs: int, outputs: int, step: int | None = None, *, rngs: nnx.Rngs) -> Conv:
    """3 x 3, or strided."""
    window = 3 if step is None else step + 2 * OVERLAP
    return Conv(inputs, outputs, window, strides=step or 1, kernel_init=tf_variance_scaling, rngs=rngs)


def _conv_transpose(inputs: int, outputs: int, step: int, *, rngs: nnx.Rngs) -> ConvTranspose:
    return ConvTranspose(
        inputs, outputs, step + 2 * OVERLAP, strides=step, kernel_init=tf_variance_scaling, rngs=rngs
    )  # fmt: skip


class Leaky(nnx.Module):
    """Convolutions, each with a leaky rectifier."""

    def __init__(self, *layers: Conv) -> None:
        self.layers = nnx.List(layers)

    def __call__(self, x: Array) -> Array:
        for layer in self.layers:
            x = _leaky(layer(x))
        return x


class Adjust(nnx.Module):
    """An image plus what three convolutions make of it and of the guide.

    Args:
        channels: of the image.
        features: of the guide.
        width: channels inside.
    """

    def __init__(self, channels: int, features: int, width: int, *, rngs: nnx.Rngs) -> None:
        sizes = (channels + features, width, width, channels)
        self.residual = Leaky(*(_conv(i, o, rngs=rngs) for i, o in pairwise(sizes)))

    def __call__(self, x: Array, guide: Array) -> Array:
        return x + self.residual(jnp.concatenate([x, guide], -1))


class BackProjection(nnx.Module):
    """D': low-resolution bands to the scene's, in two steps, each adjusted to the guide at its scale.

    Args:
        bands: of the pair.
        width: channels between the steps and, plus the guide's, inside the adjustments.
    """

    def __init__(self, bands: Bands, width: int, *, rngs: nnx.Rngs) -> None:
        r1, r2 = factors(bands.ratio)
        inner = width + bands.guide
        self.enlarge = nnx.List(
            [_conv_transpose(bands.lr, width, r1, rngs=rngs), _conv_transpose(width, bands.lr, r2, rngs=rngs)]
        )
        self.adjust = nnx.List(
            [Adjust(width, width, inner, rngs=rngs), Adjust(bands.lr, bands.guide, inner, rngs=rngs)]
        )

    def __call__(self, x: Array, guides: tuple[Array, Array]) -> Array:
        """``(batch, height / ratio, width / ratio, band)`` to ``(batch, height, width, band)``.

        Args:
            x: low-resolution image.
            guides: between the scales ``(batch, height / r2, width / r2, width)``, and at the larger one.
        """
        for enlarge, adjust, guide in zip(self.enlarge, self.adjust, guides, strict=True):
            x = adjust(enlarge(x), guide)
        return x


def paper_sensors(bands: Bands, width: int, rngs: nnx.Rngs) -> dict[str, tuple[nnx.Module, nnx.Module]]:
    """The convolutions that stand for D, D', R and R'; D' takes the guides also."""
    r1, r2 = factors(bands.ratio)
    response = Leaky(_conv(bands.lr, width, r2, rngs=rngs), _conv(width, bands.lr, r1, rngs=rngs))
    return {
        "lr": (response, BackProjection(bands, width, rngs=rngs)),
        "guide": (Leaky(_conv(bands.lr, bands.guide, rngs=rngs)), _conv(bands.guide, bands.lr, rngs=rngs)),
    }


class State(NamedTuple):
    """What the stages hand on: V, P V, T, A, G and H of the module."""

    v: Array
    pv: Array
    t: Array
    a: Array
    g: Array
    h: Array


class Stage(nnx.Module):
    """A stage: its numbers and, where the physics is free, its sensors.

    Args:
        bands: of the pair.
        width: see `BackProjection`.
        free: whether the physics is.
    """

    def __init__(self, bands: Bands, width: int, free: bool, *, rngs: nnx.Rngs) -> None:
        self.sensors = Sensors("free", bands, lambda: paper_sensors(bands, width, rngs)) if free else None
        count = (len(NUMBERS),)
        self.numbers = nnx.Param(
            tf_truncated_normal(rngs.params(), count) if free else jnp.asarray([*NUMBERS.values()])
        )

    def sensors_at(self, guides: tuple[Array, Array]) -> dict[str, Sensor]:
        """The stage's own sensors, whose way back from the low resolution is led by the guides."""
        assert self.sensors is not None
        assert self.sensors.free is not None
        see, back = self.sensors.free["lr"]
        return {"lr": Sensor(see, lambda y: back(y, guides)), "guide": Sensor(*self.sensors.free["guide"])}

    def __call__(
        self, state: State, basis: Basis, observation: Observation, sensors: Mapping[str, Sensor]
    ) -> tuple[State, Array]:
        """The next state, and X ``(batch, height, width, band)``."""
        v, pv, t, a, g, h = state
        n = dict(zip(NUMBERS, self.numbers[...], strict=True))

        def error(key: str, x: Array) -> Array:
            """What one sensor's error says of the scene."""
            return sensors[key].back(sensors[key].see(x) - observation[key])

        v = n["a0"] * v - n["a1"] * basis.T(error("guide", pv)) + n["a2"] * a + n["a3"] * g
        v = v + n["a4"] * basis.T(t - n["a5"] * h)
        pv = basis(v)
        t = n["b0"] * t - n["b1"] * error("lr", t) + n["b2"] * pv + n["b3"] * h
        a = soft_threshold(v - n["c0"] * g, n["c1"])
        g = n["eta1"] * g + n["eta2"] * a - n["eta3"] * v
        h = n["mu1"] * h + n["mu2"] * pv - n["mu3"] * t
        x = t - n["e1"] * error("guide", t) - n["e2"] * error("lr", t)
        x = x - n["e3"] * (t - basis(a)) - n["e4"] * (t - pv)
        return State(v, pv, t, a, g, h), x


class Start(nnx.Module):
    """What the method starts from where the physics is free; the arguments are those of `BackProjection`."""

    def __init__(self, bands: Bands, width: int, *, rngs: nnx.Rngs) -> None:
        self.shrink = Leaky(_conv(bands.guide, width, factors(bands.ratio)[1], rngs=rngs))
        self.guide = _conv(bands.guide, bands.lr, rngs=rngs)
        self.lr = BackProjection(bands, width, rngs=rngs)

    def __call__(self, observation: Observation) -> tuple[tuple[Array, Array], Array, Array]:
        """The guides of `BackProjection`, T and what stands for P V."""
        guides = self.shrink(observation["guide"]), observation["guide"]
        return guides, self.guide(observation["guide"]), self.lr(observation["lr"], guides)


def last_image(key: Array, shape: Any, dtype: Any = jnp.float32, out_sharding: Any = None) -> Array:
    """A kernel ``(*window, in, out)`` that hands on the last channels of its input."""
    middle = tuple(size // 2 for size in shape[:-2])
    return jnp.zeros(shape, dtype).at[(*middle, slice(-shape[-1], None))].set(jnp.eye(shape[-1], dtype=dtype))


class ADMMHFNet(nnx.Module):
    """The network of Shen et al., 2022.

    Args:
        bands: of the pair.
        stages: of the method.
        rank: columns of P, where it is used.
        training_rank: the same in training.
        width: channels between the two steps of D and D' and, plus the guide's, inside the adjustments; as many as the
            bands by default.
        physics: see `unrolled.physics`; responses that are learned are the same in all stages.
        unroll: layout of the stages, see `unrolled.stages.Unroll`.

    Raises:
        InputError: no such physics.
    """

    def __init__(
        self,
        bands: Bands,
        *,
        stages: int = 11,
        rank: int = 8,
        training_rank: int = 20,
        width: int | None = None,
        physics: Physics = "free",
        unroll: Unroll = "scan",
        rngs: nnx.Rngs,
    ) -> None:
        free, width = physics == "free", width or bands.lr
        self.rank, self.training_rank, self.unroll = rank, training_rank, unroll
        self.sensors = None if free else Sensors(physics, bands)
        self.start = Start(bands, width, rngs=rngs) if free else None
        self.stages = nnx.List([Stage(bands, width, free, rngs=rngs) for _ in range(stages)])
        self.mix = Conv(
            stages * bands.lr, bands.lr, 3, kernel_init=tf_variance_scaling if free else last_image, rngs=rngs
        )  # fmt: skip

    def solve(self, observation: Observation, model: ObservationModel, basis: Basis) -> list[Array]:
        """X of every stage, then the product, each ``(batch, height, width, band)``.

        Args:
            observation: what the sensors gave.
            model: of the pair.
            basis: P; the signs of its vectors do not matter.

        Raises:
            InputError: the physics is exact, but an operator is not known.
        """
        lr = observation["lr"]
        if self.start is not None:
            guides, t, pv = self.start(observation)
            v = a = jnp.zeros_like(basis.T(t))
        else:
            assert self.sensors is not None
            shared = back_projections(self.sensors, model, lr.shape[-1])
            t = upsample(lr, model.grid)
            v = a = basis.T(t)
            pv = basis(v)

        def body(stage: Stage, state: State) -> tuple[State, Array]:
            return stage(state, basis, observation, shared if self.start is None else stage.sensors_at(guides))

        state = State(v, pv, t, a, jnp.zeros_like(v), jnp.zeros_like(t))
        _, estimates = run_stages(list(self.stages), body, state, self.unroll)
        return [*estimates, self.mix(jnp.concatenate([*estimates], -1))]

    def __call__(self, observation: Observation, model: ObservationModel, **options: Unpack[Options]) -> Array | Stages:
        """The product ``(batch, height, width, band)``, or what ``options`` ask of `unrolled.stages.finish`.

        Raises:
            InputError: the physics is exact, but an operator is not known.
        """
        estimates = self.solve(observation, model, Basis(subspace(observation["lr"], self.rank)))
        numbers = jnp.stack([stage.numbers[...] for stage in self.stages], -1)
        return finish(estimates, observation, model, dict(zip(NUMBERS, numbers, strict=True)), **options)


def training_loss(network: ADMMHFNet, observation: Observation, model: ObservationModel, target: Array) -> Array:
    """Mean absolute error of the product with the basis of training."""
    basis = Basis(subspace(observation["lr"], network.training_rank))
    return jnp.mean(jnp.abs(network.solve(observation, model, basis)[-1] - target))


def _adam(steps: int) -> optax.GradientTransformation:
    return optax.adam(optax.piecewise_constant_schedule(4e-4, {steps // 8: 0.5, 3 * steps // 8: 0.5}))


def _back_projection(ours: str, theirs: str) -> Table:
    table: Table = {}
    for k, place in enumerate((1, 3)):
        table |= slim_layer(f"{ours}/enlarge/{k}", f"{theirs}/output{place}", tensorflow_transposed_kernel)
        for j in range(3):
            table |= slim_layer(f"{ours}/adjust/{k}/residual/layers/{j}", f"{theirs}/prior{place}/output{j + 1}")
    return table


def _stage(k: int) -> Table:
    sensors, n = f"stages/{k}/sensors/free", k + 1
    return (
        slim_layer(f"{sensors}/lr/0/layers/0", f"BD_stage{n}/output1")
        | slim_layer(f"{sensors}/lr/0/layers/1", f"BD_stage{n}/output3")
        | _back_projection(f"{sensors}/lr/1", f"BDT_stage{n}")
        | slim_layer(f"{sensors}/guide/0/layers/0", f"spectral_down_stage{n}/z_es")
        | slim_layer(f"{sensors}/guide/1", f"spectral_up_stage{n}/EZ")
        | {f"stages/{k}/numbers/{j}": (f"stage{n}_{name}", number) for j, name in enumerate(RELEASED)}
    )


def _release(network: ADMMHFNet) -> Table:
    """The names in the release, whose physics is free."""
    table = (
        slim_layer("start/shrink/layers/0", "BD_stage0/output1")
        | slim_layer("start/guide", "spectral_up_stage0/EZ")
        | _back_projection("start/lr", "BDT_stage0")
        | slim_layer("mix", "final")
    )
    for k in range(len(network.stages)):
        table |= _stage(k)
    return table


ADMM_HFNET = System(
    name="admm_hfnet",
    title="ADMM-HFNet",
    family="unrolled",
    tasks=SPATIOSPECTRAL,
    paper=Paper(
        authors="D. Shen, J. Liu, Z. Wu, J. Yang, L. Xiao",
        year=2022,
        title="ADMM-HFNet: A Matrix Decomposition-Based Deep Approach for Hyperspectral Image Fusion",
        venue="IEEE Transactions on Geoscience and Remote Sensing 60",
        doi="10.1109/TGRS.2021.3112181",
        code="https://github.com/liuofficial/ADMM-HFNet",
    ),
    summary="Alternating direction method of multipliers for sparse coefficients in the singular vectors of the "
    "low-resolution image, with a gradient step in each stage that adds what these cannot hold; convolutions, led by "
    "the guide, stand for the sensors, and one more mixes the estimates of all stages.",
    method=Trained(
        network=ADMMHFNet,
        loss=training_loss,
        recipe=Recipe(
            optimiser=_adam,
            steps=160_000,
            patch=64,
            batch=16,
            note="Mean absolute error; Adam 4e-4, 2e-4 after an eighth and 1e-4 after three eighths of the steps; 20 "
            "singular vectors of the patch in training, 8 of the image afterwards; patches neither turned nor "
            "mirrored.",
        ),
        tiny={"stages": 2, "width": 4},
        compact={"stages": 2, "width": 32},
        originals=(
            Original(
                file="models/CAVEMAT/-N of the release, for CAVE at ratio 8; its readme promises the file, which the "
                "repository does not hold",
                table=_release,
                bands=Bands(31, 3, 8),
                scale=1,
                unused=r"BD_stage0/output3/.*",
                note="Images go from 0 to 1, to which the release clips its products.",
            ),
        ),
    ),
    differences="What reaches nothing there (34,627 parameters) is left out. Ratios are whole numbers, bridged by two "
    "of their divisors. Nothing is clipped.",
    parameters=(3_165_025, Bands(31, 3, 8)),
)
