"""SpfNet: alternating directions in the spectral subspace of each patch, with two u-shaped networks as priors.

Liu, Shen, Wu, Xiao, Sun, Yan, "Patch-Aware Deep Hyperspectral and Multispectral Image Fusion by Unfolding
Subspace-Based Optimization Model", JSTARS 15, 2022, doi:10.1109/JSTARS.2022.3140211; code:
github.com/liuofficial/SpfNet.

A patch of the scene is X = A S, where the columns of A are the strongest left singular vectors, at most 31, of its
low-resolution image Y. With H the response behind Y, R that behind the guide Z, and two priors,

    min_S  |H A S - Y|^2 / 2 + |R A S - Z|^2 / 2 + f(S) + g(S),

the copies V of S for f and W for g have the scaled multipliers D and E. From zeros, a stage takes three steps

    S <- S - leaky(conv(A' H'(H A S - Y), A' R'(R A S - Z), S - V - D, S - W - E))

in which a convolution weighs the parts of the gradient, and then

    V = F(S - D),   D <- D - (S - V),   W = G(S - E),   E <- E - (S - W),   X_t = conv(A S).

F takes the coefficients down to an eighth of their size and up again, G up to twice their size and down again, both
with additive shortcuts. There are 5 stages; the product is the mean of their X_t. Convolutions are 3x3, leaky
rectifiers have the slope 0.2, all but the last convolution of a stage and H' are followed by one.

H acts on the coefficients: leaky(conv(S)) - A' Y, of 12 x 12 taps at ratio 8, and a transposed convolution leads back;
each of the three steps has its own, which the stages share. R is a matrix of each stage's own, 1 / bands at first, with
its transpose (``physics="free"``). Told or learned (`unrolled.physics`), both are linear and their adjoints divided by
the squared norms of the operators.

A and the network see 8 x 8 low-resolution pixels at a time: a larger image is fused in pieces of that size that start
two pixels apart, and the product is the mean of all that cover a pixel. A told or learned response acts on a piece as
if nothing lay around it, so that the low-resolution pixels whose PSF leaves the piece are explained in part only. In
training a patch is one piece, as it is in the paper at ratio 8; a larger one is cut into pieces side by side.

Training: mean absolute error, Adam at 1e-3, a half, a tenth, a twentieth and a hundredth of it after 20, 50, 100 and
150 of 200 epochs of 420 steps, 32 patches of 64 x 64 pixels, neither turned nor mirrored. Kernels start by He's law,
truncated.

Differences from the release:

- F and G of the last stage (86,800 parameters of 1,827,760) come after the last S, reach nothing and are left out. A
  decay of the kernels is declared there but never added to the loss, as here.
- The largest entry of each column of A is positive, there the sign is the solver's; columns without energy are zero.
  That solver, LAPACK's, makes the first column negative as a rule, the others in some pieces and not in others; the
  published weights go into a network with ``negative=True``.
- Pieces at the far edges are moved inwards, there they are enlarged.
- Images whose sides are no multiples of 8 are mirrored up to them for F, the release cannot take them.
- A second version of it, in PyTorch, has one R for all stages by mistake, is for as many columns as bands only, and
  starts the transposed convolutions by PyTorch's law. The recipe here is that of this version; that of the TensorFlow
  one is 100 epochs with two restarts.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Unpack

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import Array

from jfusion.catalogue import Bands, Original, Paper, Recipe, System, Table, Trained
from jfusion.classical.pixels import matmul, signed_subspace
from jfusion.layers.attention import padded, to_windows
from jfusion.layers.conv import Conv, ConvTranspose
from jfusion.layers.init import tf_variance_scaling
from jfusion.layers.layouts import as_is, slim_layer, tensorflow_transposed_kernel
from jfusion.operators import Grid, Observation, ObservationModel
from jfusion.tasks import SPATIOSPECTRAL
from unrolled.physics import Physics, Sensor, Sensors, around, back_projections
from unrolled.stages import Basis, Options, Stages, Unroll, finish, run_stages

Pull = Callable[[Array], Array]
"""The gradient of a data term in the coefficients."""

Copies = tuple[tuple[Array, Array], ...]
"""For each prior, the copy of the coefficients that it makes, and its multiplier."""

HALVINGS = 3
"""Scales below that of the image in F."""


# Pieces ---------------------------------------------------------------------------------------------------------------


def patch_basis(lr: Array, components: int, negative: bool = False) -> Basis:
    """A, orthonormal, strongest column first, ``(batch, band, component)``; no gradient passes through it.

    Columns without energy, and those that there are too few pixels for, are zero.

    Args:
        lr: ``(batch, height, width, band)``.
        components: columns, no more than there are bands.
        negative: whether the largest entry of each column is negative and not positive.
    """
    vectors = jax.lax.stop_gradient(signed_subspace(lr, components))
    return Basis(-vectors if negative else vectors)


def starts(size: int, piece: int) -> list[int]:
    """First samples of the pieces that cover an axis, a quarter of a piece apart; the last one ends with the axis."""
    last = size - piece
    return [*range(0, last, max(1, piece // 4)), last]


def tiles(image: Array, side: int) -> Array:
    """Pieces of ``side`` pixels, side by side, that cover each image ``(batch, height, width, band)``, as one batch.

    What they leave over at the far edges is dropped; an axis that is shorter is taken whole.
    """
    _, height, width, bands = image.shape
    rows, columns = min(side, height), min(side, width)
    whole = image[:, : height // rows * rows, : width // columns * columns]
    return to_windows(whole, (rows, columns)).reshape(-1, rows, columns, bands)


def in_pieces(
    fuse: Callable[[Observation], Array], observation: Observation, ratio: int, piece: int, images: int = 1
) -> Array:
    """The mean of what ``fuse`` makes of overlapping pieces, ``(images, batch, height, width, band)``.

    Args:
        fuse: of the observation of a piece, ``images`` images with the bands of ``lr``.
        observation: ``lr`` and ``guide`` of the whole.
        ratio: high-resolution pixels per low-resolution pixel.
        piece: side of a piece in low-resolution pixels; an axis that is shorter is taken whole.
        images: that ``fuse`` makes.
    """
    batch, rows, columns, bands = observation["lr"].shape
    size = min(piece, rows), min(piece, columns)
    corners = np.array([*product(starts(rows, size[0]), starts(columns, size[1]))])
    if len(corners) == 1:
        return fuse(observation)
    scales = {"lr": 1, "guide": ratio}
    fine = ratio * size[0], ratio * size[1]

    def cut(key: str, corner: Array) -> Array:
        image, scale = observation[key], scales[key]
        row, column = scale * corner
        return jax.lax.dynamic_slice(
            image, (0, row, column, 0), (batch, scale * size[0], scale * size[1], image.shape[-1])
        )

    def add(total: Array, corner: Array) -> tuple[Array, None]:
        made = fuse({key: cut(key, corner) for key in scales})
        row, column = ratio * corner
        place = 0, 0, row, column, 0
        before = jax.lax.dynamic_slice(total, place, (images, batch, *fine, bands))
        return jax.lax.dynamic_update_slice(total, before + made, place), None

    count = np.zeros((ratio * rows, ratio * columns, 1), np.float32)
    for row, column in ratio * corners:
        count[row : row + fine[0], column : column + fine[1]] += 1
    empty = jnp.zeros((images, batch, ratio * rows, ratio * columns, bands), observation["lr"].dtype)
    return jax.lax.scan(add, empty, jnp.asarray(corners))[0] / count


# The network ----------------------------------------------------------------------------------------------------------


def _conv(inputs: int, outputs: int, window: int = 3, strides: int = 1, *, rngs: nnx.Rngs) -> Conv:
    return Conv(inputs, outputs, window, strides=strides, kernel_init=tf_variance_scaling, rngs=rngs)


def _conv_transpose(channels: int, window: int = 3, strides: int = 2, *, rngs: nnx.Rngs) -> ConvTranspose:
    return ConvTranspose(channels, channels, window, strides=strides, kernel_init=tf_variance_scaling, rngs=rngs)


def leaky(x: Array) -> Array:
    """The leaky rectifier of slope 0.2."""
    return jax.nn.leaky_relu(x, 0.2)


class Shrinking(nnx.Module):
    """F: the coefficients at an eighth of their size, led back with shortcuts from scale to scale."""

    def __init__(self, channels: int, rngs: nnx.Rngs) -> None:
        self.down = nnx.List([_conv(channels, channels, strides=2, rngs=rngs) for _ in range(HALVINGS)])
        self.smallest = _conv(channels, channels, rngs=rngs)
        self.up = nnx.List([_conv_transpose(channels, rngs=rngs) for _ in range(HALVINGS)])

    def __call__(self, x: Array) -> Array:
        """``(batch, height, width, channel)`` to the same."""
        scales = [padded(x, (2**HALVINGS, 2**HALVINGS))]
        for layer in self.down:
            scales.append(leaky(layer(scales[-1])))
        y = scales.pop()
        y = leaky(self.smallest(y)) + y
        for enlarge, skip in zip(self.up, reversed(scales), strict=True):
            y = leaky(enlarge(y)) + skip
        return y[:, : x.shape[1], : x.shape[2]]


class Enlarging(nnx.Module):
    """G: the coefficients at twice their size, led back."""

    def __init__(self, channels: int, rngs: nnx.Rngs) -> None:
        self.up, self.largest = _conv_transpose(channels, rngs=rngs), _conv(channels, channels, rngs=rngs)
        self.down = _conv(channels, channels, strides=2, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        """``(batch, height, width, channel)`` to the same."""
        large = leaky(self.up(x))
        return leaky(self.down(leaky(self.largest(large)) + large)) + x


class Bridge(nnx.Module):
    """Convolutions between the coefficients and those of the low-resolution image, half as wide again as a pixel."""

    def __init__(self, channels: int, ratio: int, rngs: nnx.Rngs) -> None:
        window = ratio + ratio // 2
        self.shrink = _conv(channels, channels, window, ratio, rngs=rngs)
        self.back = _conv_transpose(channels, window, ratio, rngs=rngs)

    def on(self, grid: Grid) -> Sensor:
        """From ``(batch, height, width, channel)`` to ``(batch, height / ratio, width / ratio, channel)``, and back.

        Windows lie around the low-resolution pixels of the grid.
        """
        padding = around(grid, self.shrink.kernel.shape[0])
        return Sensor(lambda c: leaky(self.shrink(c, padding)), lambda e: self.back(e, padding))


class Stage(nnx.Module):
    """What a stage has of its own.

    Args:
        bands: of the pair.
        components: columns of A.
        inner: steps.
        free: whether R is the stage's own.
        last: whether no step comes after, so that there is nothing for priors to do.
    """

    def __init__(self, bands: Bands, components: int, inner: int, free: bool, last: bool, rngs: nnx.Rngs) -> None:
        self.response = nnx.Param(jnp.full((bands.guide, bands.lr), 1 / bands.lr)) if free else None
        self.weigh = nnx.List([_conv(4 * components, components, rngs=rngs) for _ in range(inner)])
        self.priors = nnx.List([] if last else [Shrinking(components, rngs), Enlarging(components, rngs)])
        self.outer = _conv(bands.lr, bands.lr, rngs=rngs)

    def fit(self, s: Array, copies: Copies, spatial: list[Pull], spectral: Pull) -> Array:
        """S after the steps, each with its own spatial term."""
        for weigh, pull in zip(self.weigh, spatial, strict=True):
            parts = [pull(s), spectral(s), *(s - v - d for v, d in copies)]
            s = s - leaky(weigh(jnp.concatenate(parts, -1)))
        return s

    def split(self, s: Array, copies: Copies) -> Copies:
        """Each prior's copy of S and the multiplier that follows; none at the last stage."""
        made = [(prior(s - d), d) for prior, (_, d) in zip(self.priors, copies, strict=False)]
        return tuple((v, d - (s - v)) for v, d in made)


class SpfNet(nnx.Module):
    """The network of Liu et al., 2022.

    Args:
        bands: of the pair.
        stages: of the alternating directions, at least two.
        inner: steps on S in each.
        components: columns of A, or as many as there are bands.
        piece: side in low-resolution pixels of the pieces that an image is fused in.
        negative: the sign of A, see `patch_basis`.
        physics: see `unrolled.physics`; responses that are learned are the same in all stages.
        unroll: layout of the stages, see `unrolled.stages.Unroll`.

    Raises:
        InputError: no such physics.
    """

    def __init__(
        self,
        bands: Bands,
        *,
        stages: int = 5,
        inner: int = 3,
        components: int = 31,
        piece: int = 8,
        negative: bool = False,
        physics: Physics = "free",
        unroll: Unroll = "scan",
        rngs: nnx.Rngs,
    ) -> None:
        self.inner, self.components, self.piece, self.unroll = inner, min(bands.lr, components), piece, unroll
        self.negative = negative
        free = physics == "free"
        self.sensors = None if free else Sensors(physics, bands)
        self.bridges = nnx.List([Bridge(self.components, bands.ratio, rngs) for _ in range(inner if free else 0)])
        self.stages = nnx.List(
            [Stage(bands, self.components, inner, free, k == stages - 1, rngs) for k in range(stages)]
        )

    def pulls(
        self, observation: Observation, model: ObservationModel, basis: Basis
    ) -> tuple[list[Pull], Callable[[Stage], Pull]]:
        """The gradients of the spatial term, one for each step, and of the spectral term of a stage.

        Raises:
            InputError: the physics is exact, but an operator is not known.
        """
        lr, guide = observation["lr"], observation["guide"]

        def pull(sensor: Sensor, seen: Array) -> Pull:
            return lambda s: sensor.back(sensor.see(s) - seen)

        if self.sensors is None:

            def spectral(stage: Stage) -> Pull:
                assert stage.response is not None
                mixing = Basis(matmul(stage.response[...], basis.vectors))
                return pull(Sensor(mixing, mixing.T), guide)

            return [pull(bridge.on(model.grid), basis.T(lr)) for bridge in self.bridges], spectral

        sensors = back_projections(self.sensors, model, lr.shape[-1])

        def on_basis(key: str) -> Pull:
            see, back = sensors[key]
            return pull(Sensor(lambda s: see(basis(s)), lambda e: basis.T(back(e))), observation[key])

        linear = on_basis("guide")
        return [on_basis("lr")] * self.inner, lambda stage: linear

    def solve(self, observation: Observation, model: ObservationModel) -> Array:
        """X_t of every stage, ``(stage, batch, height, width, band)``, the image taken in one piece.

        Raises:
            InputError: the physics is exact, but an operator is not known.
        """
        basis = patch_basis(observation["lr"], self.components, self.negative)
        spatial, spectral = self.pulls(observation, model, basis)

        def body(stage: Stage, carry: tuple[Array, Copies]) -> tuple[tuple[Array, Copies], Array]:
            s, copies = carry
            s = stage.fit(s, copies, spatial, spectral(stage))
            return (s, stage.split(s, copies)), stage.outer(basis(s))

        *before, last = self.stages
        guide = observation["guide"]
        zero = jnp.zeros((*guide.shape[:-1], self.components), guide.dtype)
        start: tuple[Array, Copies] = zero, ((zero, zero),) * 2
        carry, estimates = run_stages(before, body, start, self.unroll)
        return jnp.concatenate([estimates, body(last, carry)[1][None]])

    def __call__(self, observation: Observation, model: ObservationModel, **options: Unpack[Options]) -> Array | Stages:
        """The product ``(batch, height, width, band)``, or what ``options`` ask of `unrolled.stages.finish`.

        The estimates are X_t of every stage and their mean.

        Raises:
            InputError: the physics is exact, but an operator is not known.
        """
        told = bool(options.get("stages"))

        def fuse(seen: Observation) -> Array:
            made = self.solve(seen, model)
            mean = made.mean(0, keepdims=True)
            return jnp.concatenate([made, mean]) if told else mean

        images = len(self.stages) + 1 if told else 1
        made = in_pieces(fuse, observation, model.ratio, self.piece, images)
        return finish(made, observation, model, **options)


# Training -------------------------------------------------------------------------------------------------------------


def patch_loss(network: SpfNet, observation: Observation, model: ObservationModel, target: Array) -> Array:
    """Mean absolute error of the mean of the stages' X_t, over pieces that do not overlap."""
    fine = model.ratio * network.piece
    pieces = {"lr": tiles(observation["lr"], network.piece), "guide": tiles(observation["guide"], fine)}
    return jnp.mean(jnp.abs(network.solve(pieces, model).mean(0) - tiles(target, fine)))


def _adam(steps: int) -> optax.GradientTransformation:
    falls = {steps // 10: 0.5, steps // 4: 0.2, steps // 2: 0.5, 3 * steps // 4: 0.2}
    return optax.adam(optax.piecewise_constant_schedule(1e-3, falls))


def _priors(ours: str, number: int) -> Table:
    """Both priors of the stage of that number, whose layers the release counts by scale."""
    shrinking, enlarging = (f"spat_fusion/{name}{number}" for name in ("down", "up"))
    table = slim_layer(f"{ours}/0/smallest", f"{shrinking}/cnn")
    for k in range(HALVINGS):
        table |= slim_layer(f"{ours}/0/down/{k}", f"{shrinking}/d{k + 1}")
        table |= slim_layer(f"{ours}/0/up/{k}", f"{shrinking}/u{HALVINGS - k}", tensorflow_transposed_kernel)
    table |= slim_layer(f"{ours}/1/up", f"{enlarging}/u1", tensorflow_transposed_kernel)
    return table | slim_layer(f"{ours}/1/largest", f"{enlarging}/cnn") | slim_layer(f"{ours}/1/down", f"{enlarging}/d1")


def _release(network: SpfNet) -> Table:
    """The names in the release's TensorFlow version, whose physics is free."""
    table: Table = {}
    for j in range(network.inner):
        theirs = f"spat_fusion/fus_subnet_{j}"
        table |= slim_layer(f"bridges/{j}/shrink", f"{theirs}/B")
        table |= slim_layer(f"bridges/{j}/back", f"{theirs}/Bt", tensorflow_transposed_kernel)
    for k, stage in enumerate(network.stages):
        table[f"stages/{k}/response"] = f"spat_fusion/R{k}", as_is
        table |= slim_layer(f"stages/{k}/outer", f"spat_fusion/out{k}")
        for j in range(network.inner):
            table |= slim_layer(f"stages/{k}/weigh/{j}", f"spat_fusion/fus_subnet_{k}_{j}/fus")
        if len(stage.priors):
            table |= _priors(f"stages/{k}/priors", k)
    return table


SPFNET = System(
    name="spfnet",
    title="SpfNet",
    family="unrolled",
    tasks=SPATIOSPECTRAL,
    paper=Paper(
        authors="J. Liu, D. Shen, Z. Wu, L. Xiao, J. Sun, H. Yan",
        year=2022,
        title="Patch-Aware Deep Hyperspectral and Multispectral Image Fusion by Unfolding Subspace-Based Optimization "
        "Model",
        venue="IEEE Journal of Selected Topics in Applied Earth Observations and Remote Sensing 15",
        doi="10.1109/JSTARS.2022.3140211",
        code="https://github.com/liuofficial/SpfNet",
    ),
    summary="Alternating directions on the coefficients of each small piece in its own spectral subspace: convolutions "
    "weigh the gradients of both data terms and of two priors, one that shrinks the coefficients and one that enlarges "
    "them; the mean of all stages and of all overlapping pieces is the product.",
    method=Trained(
        network=SpfNet,
        loss=patch_loss,
        recipe=Recipe(
            optimiser=_adam,
            steps=84_100,
            patch=64,
            batch=32,
            note="Mean absolute error; Adam at 1e-3, times 0.5, 0.1, 0.05 and 0.01 after 20, 50, 100 and 150 of 200 "
            "epochs of 420 steps; patches neither turned nor mirrored.",
        ),
        tiny={"stages": 2, "inner": 1, "components": 3},
        compact={"stages": 3, "components": 10},
        originals=(
            Original(
                file="cave_data/SpfNet-net/model/-200 of the release, for CAVE; windows of its PyTorch version lie "
                "elsewhere, and what that saves is not offered",
                table=_release,
                bands=Bands(31, 3, 8),
                scale=1,
                sizes={"negative": True},
                unused=r"spat_fusion/(down|up)4/.*",
                note="Images go from 0 to 1. The largest entry of each singular vector is negative; LAPACK, whose "
                "vectors the release takes, makes the first one so, and the signs of others vary from piece to piece.",
            ),
        ),
    ),
    differences="The priors of the last stage, which reach nothing (86,800 parameters), are left out; the signs of the "
    "singular vectors are fixed; pieces at the far edges are moved inwards, where the release enlarges them. "
    "The network is that of the release's TensorFlow version, the recipe that of its PyTorch version, where the "
    "former's is 100 epochs with two restarts.",
    parameters=(1_740_960, Bands(31, 3, 8)),
)
