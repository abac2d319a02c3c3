"""DBIN+ and EDBIN: what both images lack of a first estimate is fused like the images themselves, again and again.

Wang, Zeng, Huang, Ding, Paisley, "Deep Blind Hyperspectral Image Fusion", ICCV 2019, doi:10.1109/ICCV.2019.00425, and
Wang, Fu, Zeng, Sun, Zhan, Huang, Ding, "Enhanced Deep Blind Hyperspectral Image Fusion", TNNLS 34(3), 2023,
doi:10.1109/TNNLS.2021.3105543; code of both: github.com/wwhappylife/Deep-Blind-Hyperspectral-Image-Fusion.

With the low-resolution image Y = D X and the guide Z = R X, of which D and R are learned as well,

    X_0 = F_0(Y, Z)
    X_t = X_(t-1) + F(Y - D X_(t-1), Z - R X_(t-1)),   t = 1 .. T
    X   = C(X_0, ..., X_T)

C is a 3x3 convolution of all bands of all estimates, whose result is the product. F, D and R are the same in all
iterations; F_0 is a network of its own, of the same form: Y is enlarged, Z stands beside it, and a convolution, four
residual blocks of two and a last convolution follow, all of them 3x3. D is a convolution of 12 x 12 taps (at ratio 8)
and R one of 3x3 (``physics="free"``). Rectifiers are leaky, of slope 0.2.

DBIN+ has T = 5, 128 channels, a transposed convolution of 12 x 12 taps that enlarges, and a rectifier after every
convolution but C and that one. EDBIN has T = 8, 64 channels and none after the second convolution of a block and the
last one of F. Three things are new in it:

- Y is reassembled (CARAFE; Wang et al., ICCV 2019): a finer pixel is a mean of 5 x 5 coarse ones, whose weights two
  convolutions and a softmax predict. Three such steps make a ratio of 8.
- The result of a block is gated: a factor for each channel, from the means of all channels over the image.
- The kernels, but for those of the first novelty, are divided by their spectral norm and multiplied by 0.7, as matrices
  of (inputs and taps) x outputs. The norm is known by power iteration, one step in each step of the training. Blocks
  that add what is bounded so can be inverted, and lose nothing.

Told or learned (`unrolled.physics`), D and R are the responses of the sensors, without rectifiers, and Y is enlarged by
the adjoint D' over the squared norm; F gets the error of Z as it is, since R' would only spread it over the bands.

Training: mean absolute error, Adam at 4e-4, at 2e-4 after 20,000 and at 1e-4 after 60,000 of 251,000 steps, 32 patches
of 64 x 64 pixels, neither turned nor mirrored. Kernels start by He's law, cut at two deviations, biases at 0.

Differences from the release:

- Windows of D and of the transposed convolution lie around the low-resolution pixels of the grid, and reach a quarter
  of the ratio beyond its half on either side, as they do there for nested grids at ratio 8.
- Other ratios are enlarged by one reassembly for each of their prime factors.
- Power iteration goes on with the steps of the training; there it does with every call, eight times a step, and in use.
- C of EDBIN has a bias there that is never added (31 parameters of 1,107,765).
- It scales each band of each image to [0, 1]; here all images are divided by one number.
- The l2 regularisers that it declares never reach the loss, and so are left out.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Unpack

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax import Array
from jax.nn.initializers import glorot_uniform

from jfusion.catalogue import Bands, Original, Paper, Recipe, System, Table, Trained
from jfusion.layers.conv import Conv, ConvTranspose, Padding, conv, conv_transpose
from jfusion.layers.init import tf_variance_scaling
from jfusion.layers.layouts import as_is, first_of_one, slim_layer, tensorflow_transposed_kernel
from jfusion.layers.spectral import spectral_norm
from jfusion.operators import Grid, Observation, ObservationModel
from jfusion.operators.grid import prime_factors
from jfusion.tasks import SPATIOSPECTRAL
from jfusion.training.losses import mean_absolute_error
from unrolled.physics import Physics, Sensor, Sensors, around, back_projections
from unrolled.stages import Options, Stages, Unroll, finish, run_stages

NORM = 0.7
"""Spectral norm of EDBIN's kernels."""

TAPS = 5
"""Coarse pixels, along each axis, that a finer one is reassembled from."""

leaky = partial(jax.nn.leaky_relu, negative_slope=0.2)


def window_of(ratio: int) -> int:
    """Taps of D and of its transpose: half as many again as the ratio, 12 at 8."""
    return ratio + ratio // 2


def bounded_kernel(kernel: Array, u: Array) -> tuple[Array, Array]:
    """A kernel ``(..., outputs)`` whose spectral norm is `NORM`, and the next ``u`` of `spectral_norm`."""
    kernel, u = spectral_norm(kernel, u)
    return NORM * kernel, u


class Layer(nnx.Module):
    """A convolution, with zeros outside the image, whose kernel may be bounded.

    Args:
        inputs, outputs: channels.
        window: taps a side.
        strides: step between two outputs.
        bounded: whether the kernel's spectral norm is `NORM`.
        use_bias: whether it has a bias.
    """

    def __init__(
        self, inputs: int, outputs: int, window: int = 3, strides: int = 1, *, bounded: bool, use_bias: bool = True,
        rngs: nnx.Rngs,
    ) -> None:  # fmt: skip
        self.conv = Conv(
            inputs, outputs, window, strides=strides, use_bias=use_bias, kernel_init=tf_variance_scaling, rngs=rngs
        )
        self.u = nnx.BatchStat(jax.random.normal(rngs.params(), (outputs,))) if bounded else None

    def kernel(self) -> Array:
        """``(window, window, inputs, outputs)``, as it is applied."""
        kernel = self.conv.kernel[...]
        return kernel if self.u is None else bounded_kernel(kernel, self.u[...])[0]

    def iterate(self) -> None:
        """One step of the power iteration, in place."""
        if self.u is not None:
            self.u[...] = bounded_kernel(self.conv.kernel[...], self.u[...])[1]

    def __call__(self, x: Array, grid: Grid | None = None) -> Array:
        """``(batch, height, width, inputs)`` to ``(batch, height / strides, width / strides, outputs)``.

        Args:
            x: an image or features.
            grid: around whose low-resolution pixels the windows lie.
        """
        kernel, bias = self.kernel(), self.conv.bias
        padding: Padding = "same" if grid is None else around(grid, kernel.shape[0])
        y = conv(x, kernel, strides=self.conv.strides, padding=padding)
        return y if bias is None else y + bias[...].astype(y.dtype)


class Gate(nnx.Module):
    """Every channel times a factor from the means of all of them (Hu et al., CVPR 2018)."""

    def __init__(self, width: int, rngs: nnx.Rngs) -> None:
        few = max(4, width // 16)
        self.squeeze = nnx.Linear(width, few, kernel_init=glorot_uniform(), rngs=rngs)
        self.excite = nnx.Linear(few, width, kernel_init=glorot_uniform(), rngs=rngs)

    def __call__(self, x: Array) -> Array:
        """``(batch, height, width, width)`` to the same."""
        means = x.mean((-3, -2), keepdims=True)
        return x * nnx.sigmoid(self.excite(nnx.relu(self.squeeze(means))))


class Block(nnx.Module):
    """Features plus two convolutions of them, whose result is rectified, or gated if enhanced."""

    def __init__(self, width: int, enhanced: bool, rngs: nnx.Rngs) -> None:
        self.first, self.second = (Layer(width, width, bounded=enhanced, rngs=rngs) for _ in range(2))
        self.gate = Gate(width, rngs) if enhanced else None

    def __call__(self, x: Array) -> Array:
        """``(batch, height, width, width)`` to the same."""
        y = self.second(leaky(self.first(x)))
        return x + (leaky(y) if self.gate is None else self.gate(y))


class Transposed(nnx.Module):
    """A transposed convolution that enlarges an image: copies of its kernel around the low-resolution pixels."""

    def __init__(self, bands: int, ratio: int, rngs: nnx.Rngs) -> None:
        self.conv = ConvTranspose(
            bands, bands, window_of(ratio), strides=ratio, kernel_init=tf_variance_scaling, rngs=rngs
        )

    def __call__(self, y: Array, grid: Grid) -> Array:
        """``(batch, height, width, band)`` to ``(batch, height * ratio, width * ratio, band)``."""
        kernel, bias = self.conv.kernel[...], self.conv.bias
        assert bias is not None
        x = conv_transpose(y, kernel, strides=grid.ratio, padding=around(grid, kernel.shape[0]))
        return x + bias[...].astype(x.dtype)


class Reassembly(nnx.Module):
    """Enlarges by an integer: each finer pixel is a mean of `TAPS` x `TAPS` coarse ones, weighted by what they hold."""

    def __init__(self, bands: int, step: int, rngs: nnx.Rngs) -> None:
        self.first = Conv(bands, bands, 3, kernel_init=tf_variance_scaling, rngs=rngs)
        self.second = Conv(bands, (step * TAPS) ** 2, 3, kernel_init=tf_variance_scaling, rngs=rngs)
        self.step = step

    def __call__(self, y: Array) -> Array:
        """``(batch, height, width, band)`` to ``(batch, height * step, width * step, band)``."""
        batch, height, width, bands = y.shape
        scores = self.second(nnx.relu(self.first(y))).reshape(batch, height, width, self.step**2, TAPS**2)
        padded = jnp.pad(y, ((0, 0), (TAPS // 2, TAPS // 2), (TAPS // 2, TAPS // 2), (0, 0)))
        near = [padded[:, i : i + height, j : j + width] for i in range(TAPS) for j in range(TAPS)]
        fine = jnp.einsum("bhwpk,bhwkc->bhwpc", jax.nn.softmax(scores), jnp.stack(near, -2))
        fine = fine.reshape(batch, height, width, self.step, self.step, bands).transpose(0, 1, 3, 2, 4, 5)
        return fine.reshape(batch, height * self.step, width * self.step, bands)


class Reassemblies(nnx.Module):
    """A reassembly for each prime factor of the ratio; where the pixels lie, the weights learn."""

    def __init__(self, bands: int, ratio: int, rngs: nnx.Rngs) -> None:
        self.steps = nnx.List([Reassembly(bands, step, rngs) for step in prime_factors(ratio)])

    def __call__(self, y: Array, grid: Grid) -> Array:
        """``(batch, height, width, band)`` to ``(batch, height * ratio, width * ratio, band)``."""
        for step in self.steps:
            y = step(y)
        return y


class Fusion(nnx.Module):
    """F: a scene from both images, or what a scene lacks from both errors.

    Args:
        bands: of the pair.
        width: channels of the features.
        blocks: residual blocks.
        enhanced: see `DBIN`.
        free: whether it has a layer of its own that enlarges.
    """

    def __init__(
        self, bands: Bands, width: int, blocks: int, *, enhanced: bool, free: bool, rngs: nnx.Rngs
    ) -> None:  # fmt: skip
        enlarge = Reassemblies if enhanced else Transposed
        self.enlarge = enlarge(bands.lr, bands.ratio, rngs) if free else None
        self.first = Layer(bands.lr + bands.guide, width, bounded=enhanced, rngs=rngs)
        self.blocks = nnx.List([Block(width, enhanced, rngs) for _ in range(blocks)])
        self.last = Layer(width, bands.lr, bounded=enhanced, rngs=rngs)
        self.enhanced = enhanced

    def __call__(self, seen: Observation, grid: Grid, back: Callable[[Array], Array] | None) -> Array:
        """The scene ``(batch, height, width, band)``.

        Args:
            seen: both images, or their errors.
            grid: of the pair.
            back: enlarges ``lr`` where the network has no layer for that.
        """
        lr = back(seen["lr"]) if self.enlarge is None else self.enlarge(seen["lr"], grid)  # type: ignore[misc]
        x = leaky(self.first(jnp.concatenate([lr, seen["guide"]], -1)))
        for block in self.blocks:
            x = block(x)
        x = self.last(x)
        return x if self.enhanced else leaky(x)


class Refinement(nnx.Module):
    """What all iterations share: F and, where the physics is free, D and R; for the arguments see `Fusion`."""

    def __init__(
        self, bands: Bands, width: int, blocks: int, *, enhanced: bool, free: bool, rngs: nnx.Rngs
    ) -> None:  # fmt: skip
        self.fuse = Fusion(bands, width, blocks, enhanced=enhanced, free=free, rngs=rngs)
        spatial = partial(Layer, bands.lr, bands.lr, window_of(bands.ratio), bands.ratio, bounded=enhanced, rngs=rngs)
        spectral = partial(Layer, bands.lr, bands.guide, bounded=enhanced, rngs=rngs)
        self.responses = nnx.Dict({"lr": spatial(), "guide": spectral()} if free else {})

    def __call__(
        self, x: Array, observation: Observation, grid: Grid, sensors: dict[str, Sensor] | None
    ) -> Array:  # fmt: skip
        """The next estimate ``(batch, height, width, band)``.

        Args:
            x: the one before.
            observation: what the sensors gave.
            grid: of the pair.
            sensors: linear ones, None where the physics is free.
        """
        if sensors is None:
            lr, guide = self.responses["lr"], self.responses["guide"]
            seen, back = {"lr": leaky(lr(x, grid)), "guide": leaky(guide(x))}, None
        else:
            seen, back = {key: sensors[key].see(x) for key in ("lr", "guide")}, sensors["lr"].back
        errors = {key: observation[key] - image for key, image in seen.items()}
        return x + self.fuse(errors, grid, back)


class DBIN(nnx.Module):
    """The networks of Wang et al., 2019 and 2023.

    Args:
        bands: of the pair.
        iterations: T.
        width: channels of the features.
        blocks: residual blocks of F.
        enhanced: whether it is EDBIN: it reassembles, gates and bounds.
        physics: see `unrolled.physics`.
        unroll: layout of the iterations, see `unrolled.stages.Unroll`.

    Raises:
        InputError: no such physics.
    """

    def __init__(
        self,
        bands: Bands,
        *,
        iterations: int = 5,
        width: int = 128,
        blocks: int = 4,
        enhanced: bool = False,
        physics: Physics = "free",
        unroll: Unroll = "loop",
        rngs: nnx.Rngs,
    ) -> None:
        free = physics == "free"
        self.sensors = None if free else Sensors(physics, bands)
        self.initial = Fusion(bands, width, blocks, enhanced=enhanced, free=free, rngs=rngs)
        self.refinement = Refinement(bands, width, blocks, enhanced=enhanced, free=free, rngs=rngs)
        self.mix = Layer((iterations + 1) * bands.lr, bands.lr, bounded=enhanced, use_bias=not enhanced, rngs=rngs)
        self.iterations, self.unroll = iterations, unroll

    def iterate(self) -> None:
        """One step of the power iterations of all bounded kernels, in place."""
        for _, part in nnx.iter_modules(self):
            if isinstance(part, Layer):
                part.iterate()

    def __call__(self, observation: Observation, model: ObservationModel, **options: Unpack[Options]) -> Array | Stages:
        """The product ``(batch, height, width, band)``, or what ``options`` ask of `unrolled.stages.finish`.

        The estimates are X_0 to X_T and X.

        Raises:
            InputError: the physics is exact, but an operator is not known.
        """
        bands, grid = observation["lr"].shape[-1], model.grid
        sensors = None if self.sensors is None else back_projections(self.sensors, model, bands)

        def body(stage: Refinement, x: Array) -> tuple[Array, Array]:
            x = stage(x, observation, grid, sensors)
            return x, x

        first = self.initial(observation, grid, None if sensors is None else sensors["lr"].back)
        _, others = run_stages([self.refinement] * self.iterations, body, first, self.unroll)
        estimates = [first, *others]
        return finish([*estimates, self.mix(jnp.concatenate(estimates, -1))], observation, model, **options)


def iterating_error(network: DBIN, observation: Observation, model: ObservationModel, target: Array) -> Array:
    """Mean absolute error of the product; the power iterations move on."""
    error = mean_absolute_error(network, observation, model, target)
    network.iterate()
    return error


def optimiser(steps: int) -> optax.GradientTransformation:
    """Adam at 4e-4, half of it after 20 of 251 parts of the steps and a quarter after 60."""
    halves = {part * steps // 251 + 1: 0.5 for part in (20, 60)}
    return optax.adam(optax.piecewise_constant_schedule(4e-4, halves))


RECIPE = Recipe(
    optimiser=optimiser,
    steps=251_000,
    patch=64,
    batch=32,
    note="Mean absolute error, Adam at 4e-4, 2e-4 after 20,000 steps and 1e-4 after 60,000; images divided by one "
    "number (release: each band of each image scaled to [0, 1]).",
)


def _layer(ours: str, theirs: str, bounded: bool, use_bias: bool = True) -> Table:
    """A `Layer`, to which the release of EDBIN gives other names than that of DBIN+."""
    if not bounded:
        return slim_layer(f"{ours}/conv", theirs)
    table: Table = {f"{ours}/conv/kernel": (f"{theirs}/kernel", as_is), f"{ours}/u": (f"{theirs}/u", first_of_one)}
    return table | {f"{ours}/conv/bias": (f"{theirs}/bias", as_is)} if use_bias else table


def _enlarge(ours: str, theirs: str, network: Reassemblies | Transposed) -> Table:
    if isinstance(network, Transposed):
        return slim_layer(f"{ours}/conv", f"{theirs}/lms", tensorflow_transposed_kernel)
    table: Table = {}
    for k in range(len(network.steps)):
        table |= slim_layer(f"{ours}/steps/{k}/first", f"{theirs}/w{k}")
        table |= slim_layer(f"{ours}/steps/{k}/second", f"{theirs}/w1{k}")
    return table


def _fusion(ours: str, theirs: str, network: Fusion) -> Table:
    assert network.enlarge is not None
    table = _enlarge(f"{ours}/enlarge", theirs, network.enlarge)
    table |= _layer(f"{ours}/first", f"{theirs}/in", network.enhanced)
    table |= _layer(f"{ours}/last", f"{theirs}/out", network.enhanced)
    for k in range(len(network.blocks)):
        for place, (layer, part) in enumerate((("first", "squeeze"), ("second", "excite")), 1):
            table |= _layer(f"{ours}/blocks/{k}/{layer}", f"{theirs}/res{k}{place}", network.enhanced)
            if network.enhanced:
                gate = f"{ours}/blocks/{k}/gate/{part}"
                table |= {f"{gate}/{name}": (f"{theirs}/se{k}{place}/{name}", as_is) for name in ("kernel", "bias")}
    return table


def _release(network: DBIN) -> Table:
    """The names in the releases of both, whose physics is free."""
    bounded = network.initial.enhanced
    table = _fusion("initial", "fusion_net/py", network.initial)
    table |= _fusion("refinement/fuse", "fusion_net/recursive/py", network.refinement.fuse)
    for key, name in (("lr", "dy"), ("guide", "dz")):
        table |= _layer(f"refinement/responses/{key}", f"fusion_net/recursive/{name}", bounded)
    last = "fusion_net/out_conv" if bounded else "fusion_net/Conv"
    return table | _layer("mix", last, bounded, use_bias=not bounded)


_SCALING = "The release scales each band of each image to [0, 1] by itself."

DBIN_PLUS = System(
    name="dbin",
    title="DBIN+",
    family="unrolled",
    tasks=SPATIOSPECTRAL,
    paper=Paper(
        authors="W. Wang, W. Zeng, Y. Huang, X. Ding, J. Paisley",
        year=2019,
        title="Deep Blind Hyperspectral Image Fusion",
        venue="IEEE/CVF International Conference on Computer Vision",
        doi="10.1109/ICCV.2019.00425",
        code="https://github.com/wwhappylife/Deep-Blind-Hyperspectral-Image-Fusion",
    ),
    summary="What both images lack of an estimate, by responses that are convolutions, is fused by a residual network "
    "and added to the estimate, five times with the same weights; a convolution of all estimates is the product.",
    method=Trained(
        network=DBIN,
        loss=mean_absolute_error,
        recipe=RECIPE,
        tiny={"iterations": 2, "width": 6, "blocks": 1},
        compact={"iterations": 2, "width": 48, "blocks": 2},
        originals=(
            Original(
                file="what train_boost_res.py of the release saves as models_boost_res/model-250000.ckpt, which comes "
                "without its shard; that for Harvard has dilated windows and is not offered",
                table=_release,
                bands=Bands(31, 3, 8),
                scale=None,
                note=_SCALING,
            ),
        ),
    ),
    differences="Windows of the responses lie around the low-resolution pixels of any grid; what regularises in the "
    "release never reaches its loss.",
    parameters=(2_979_432, Bands(31, 3, 8)),
)

EDBIN = System(
    name="edbin",
    title="EDBIN",
    family="unrolled",
    tasks=SPATIOSPECTRAL,
    paper=Paper(
        authors="W. Wang, X. Fu, W. Zeng, L. Sun, R. Zhan, Y. Huang, X. Ding",
        year=2023,
        title="Enhanced Deep Blind Hyperspectral Image Fusion",
        venue="IEEE Transactions on Neural Networks and Learning Systems 34(3)",
        doi="10.1109/TNNLS.2021.3105543",
        code="https://github.com/wwhappylife/Deep-Blind-Hyperspectral-Image-Fusion",
    ),
    summary="DBIN+ with eight iterations of half the width, where the low-resolution image is reassembled by weights "
    "that its content decides, channels are gated, and the spectral norm of the kernels is 0.7.",
    method=Trained(
        network=partial(DBIN, iterations=8, width=64, enhanced=True),
        loss=iterating_error,
        recipe=RECIPE,
        tiny={"iterations": 2, "width": 6, "blocks": 1},
        compact={"iterations": 2, "width": 48, "blocks": 2},
        originals=(
            Original(
                file="models_ibp_sn22/model-250000.ckpt of the release, for CAVE; model-260000.ckpt beside it is of "
                "another network, which is not offered",
                table=_release,
                bands=Bands(31, 3, 8),
                scale=None,
                unused="fusion_net/out_conv/bias",
                note=f"{_SCALING} Its power iterations go on in use, here they stand still.",
            ),
        ),
    ),
    differences="As for DBIN+; the bias of the last convolution, which the release makes and never adds (31 "
    "parameters), is left out; power iteration moves one step with each of the training.",
    parameters=(1_107_734, Bands(31, 3, 8)),
)
