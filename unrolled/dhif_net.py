"""DHIF-Net: iterative regularisation by a spatially adaptive filter of rows, columns and bands.

Huang, Dong, Wu, Li, Li, Shi, "Deep Hyperspectral Image Fusion Network With Iterative Spatio-Spectral Regularization",
TCI 8, 2022, doi:10.1109/TCI.2022.3152700; code: github.com/TaoHuang95/DHIF-Net.

The scene X is to agree with the low-resolution image Y = D X, with the guide Z = R X, and with itself, once it has been
filtered by a filter of its own for every pixel and band:

    min_X  |D X - Y|^2 + |R X - Z|^2 + lambda |X - U|^2,   U = K(X, Z) * X.

From the interpolated Y, each of 4 stages is one gradient step:

    F_t = conv(X, Z)                                                 64 features
    K   = filters(conv_t(F_1, ..., F_t))                             also from those of the stages before
    U   = K_bands * (K_columns * (K_rows * X))                       seven taps along each axis
    X  <- X - 2 eta_t (R'(R X - Z) + D'(D X - Y) + lambda_t (X - U))

The filters come from an encoder and decoder of five scales that all stages share, like the sensors: 64, 128, 256, 512
and 512 channels, means of 2 x 2 pixels on the way down, cubic interpolation on the way up, and three heads. The seven
taps of a pixel, a band and an axis have the Euclidean norm 1. Outside the image its edge is repeated, beyond the bands
are zeros. eta_t and lambda_t start near 0.1 and 1.

D is a convolution with 12 x 12 taps (at ratio 8) and R one with 3 x 3, both with leaky rectifiers, and convolutions of
their own stand for their adjoints (``physics="free"``). Told or learned (`unrolled.physics`), the operators are linear
and their adjoints divided by the squared norms, so that eta counts in the same units.

Training: mean absolute error, Adam at 3e-4, times 0.95 thirty times in the first 146 of 500 epochs of 5,000 steps, 4
patches of 96 x 96 pixels, turned and mirrored. Kernels start by Xavier's uniform law.

Differences from the release:

- Images whose sides are no multiples of 16 are mirrored up to them for the filters; the release cannot take them.
- Cubic interpolation has a = -1/2 and not -3/4, and its true phase.
- Ratios other than 8 and 16: one convolution up to 8, beyond that one for each of the ratio's fours and primes, which
  overlap by a quarter of their step on each side, as there.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Unpack

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax import Array
from jax.nn.initializers import xavier_uniform

from jfusion.catalogue import Bands, Original, Paper, Recipe, System, Table, Trained
from jfusion.layers.attention import padded
from jfusion.layers.conv import Conv, ConvTranspose
from jfusion.layers.init import torch_bias
from jfusion.layers.layouts import as_is, torch_kernel, torch_layer, torch_transposed_kernel
from jfusion.operators import Grid, Observation, ObservationModel, upsample
from jfusion.tasks import SPATIOSPECTRAL
from jfusion.training.losses import mean_absolute_error
from unrolled.mhf_net import factors
from unrolled.physics import Physics, Sensors, back_projections
from unrolled.stages import Options, Stages, finish

LARGEST = 8
"""Ratio that one convolution bridges; a larger one takes several."""

TINY = 1e-24
"""Squared norm below which taps are not divided by it: PyTorch divides by its root instead, a derivative of 1e12."""


def _conv(inputs: int, outputs: int, window: int = 3, *, rngs: nnx.Rngs) -> Conv:
    return Conv(inputs, outputs, window, kernel_init=xavier_uniform(), rngs=rngs)


class Leaky(nnx.Module):
    """Convolutions, strided or transposed, each with a leaky rectifier (slope 0.01)."""

    def __init__(self, layers: list[Conv | ConvTranspose]) -> None:
        self.layers = nnx.List(layers)

    def __call__(self, x: Array) -> Array:
        for layer in self.layers:
            x = jax.nn.leaky_relu(layer(x), 0.01)
        return x


def paper_sensors(bands: Bands, rngs: nnx.Rngs) -> dict[str, tuple[nnx.Module, nnx.Module]]:
    """The convolutions that stand for D, D', R and R': 12 x 12 taps at ratio 8, twice 6 x 6 at ratio 16, and 3 x 3."""
    lr, guide = bands.lr, bands.guide
    steps = [bands.ratio] if bands.ratio <= LARGEST else factors(bands.ratio)

    def shrink(step: int) -> Conv:
        overlap = max(step // 4, 1)
        return Conv(
            lr, lr, step + 2 * overlap, strides=step, padding=overlap, kernel_init=xavier_uniform(), rngs=rngs
        )  # fmt: skip

    def enlarge(step: int) -> ConvTranspose:
        overlap = max(step // 4, 1)
        window = step + 2 * overlap
        return ConvTranspose(
            lr, lr, window, strides=step, padding=overlap, kernel_init=xavier_uniform(),
            bias_init=torch_bias(lr * window**2), rngs=rngs,
        )  # fmt: skip

    return {
        "lr": (Leaky([shrink(step) for step in steps]), Leaky([enlarge(step) for step in reversed(steps)])),
        "guide": (Leaky([_conv(lr, guide, rngs=rngs)]), Leaky([_conv(guide, lr, rngs=rngs)])),
    }


class Rectified(nnx.Module):
    """Two 3 x 3 convolutions, each with a rectifier."""

    def __init__(self, inputs: int, outputs: int, *, rngs: nnx.Rngs) -> None:
        self.layers = nnx.List([_conv(i, outputs, rngs=rngs) for i in (inputs, outputs)])

    def __call__(self, x: Array) -> Array:
        for layer in self.layers:
            x = jax.nn.relu(layer(x))
        return x


class Head(nnx.Module):
    """From the features of a pixel to the taps of one axis, for each band."""

    def __init__(self, inputs: int, hidden: int, outputs: int, *, rngs: nnx.Rngs) -> None:
        self.inner = Rectified(inputs, hidden, rngs=rngs)
        self.outer = _conv(hidden, outputs, 1, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        return self.outer(self.inner(x))


def halved(x: Array) -> Array:
    """Means of 2 x 2 pixels: ``(batch, height, width, channel)`` to half the height and width, which are even."""
    batch, height, width, channels = x.shape
    return x.reshape(batch, height // 2, 2, width // 2, 2, channels).mean((2, 4))


class FilterGenerator(nnx.Module):
    """An encoder and decoder that finds the filters of every pixel and band.

    Args:
        widths: channels of the encoder's scales; the decoder's are the same, the largest scale having those of the
            second.
        bands: of the image.
        taps: along each axis.
        hidden: channels inside the three heads, as many as come out by default.
    """

    def __init__(self, widths: tuple[int, ...], bands: int, taps: int, hidden: int | None, *, rngs: nnx.Rngs) -> None:
        self.taps = taps
        self.encoders = nnx.List([Rectified(i, o, rngs=rngs) for i, o in pairwise((widths[0], *widths))])
        small, outputs = widths[-1], (widths[1], *widths[1:-1])
        self.decoders: nnx.List[Rectified] = nnx.List()
        for skip, width in zip(widths[-2::-1], outputs[::-1], strict=True):
            self.decoders.append(Rectified(small + skip, width, rngs=rngs))
            small = width
        inner = hidden or taps * bands
        self.heads = nnx.List([Head(small, inner, taps * bands, rngs=rngs) for _ in range(3)])

    def __call__(self, x: Array) -> list[Array]:
        """Features ``(batch, height, width, channel)`` to taps ``(batch, height, width, tap, band)`` for three axes."""
        height, width = x.shape[1:3]
        multiple = 2 ** len(self.decoders)
        x, skips = padded(x, (multiple, multiple)), []
        for k, encode in enumerate(self.encoders):
            x = encode(halved(x) if k else x)
            skips.append(x)
        for decode, skip in zip(self.decoders, skips[-2::-1], strict=True):
            x = decode(jnp.concatenate([skip, upsample(x, Grid.nested(2))], -1))
        maps = [head(x)[:, :height, :width] for head in self.heads]
        return [found.reshape(*found.shape[:3], self.taps, -1) for found in maps]


def filtered(x: Array, filters: list[Array]) -> Array:
    """The image filtered along its rows, then its columns, then its bands.

    Args:
        x: ``(batch, height, width, band)``.
        filters: ``(batch, height, width, tap, band)`` for each axis, the middle one of an odd number of taps on the
            pixel; they are made to have the norm 1.
    """
    for axis, weights in zip((2, 1, 3), filters, strict=True):
        taps, size = weights.shape[-2], x.shape[axis]
        reach = [(0, 0)] * x.ndim
        reach[axis] = (taps // 2, taps // 2)
        wide = jnp.pad(x, reach, mode="constant" if axis == 3 else "edge")
        total, power = jnp.zeros_like(x), jnp.zeros_like(x)
        for k in range(taps):
            weight = weights[..., k, :]
            total += weight * jax.lax.slice_in_dim(wide, k, k + size, axis=axis)
            power += weight**2
        some = power > TINY
        x = jnp.where(some, total * jax.lax.rsqrt(jnp.where(some, power, 1)), total)
    return x


def _near(mean: float, count: int, rngs: nnx.Rngs) -> nnx.Param:
    return nnx.Param(mean + 0.01 * jax.random.normal(rngs.params(), (count,)))


class DHIFNet(nnx.Module):
    """The network.

    Args:
        bands: of the pair.
        stages: T.
        widths: channels of the five scales, those of the features first; at least two.
        taps: of the filters along each axis, an odd number.
        hidden: channels inside the heads that find the filters, taps times bands by default.
        physics: what stands for the sensors, see `unrolled.physics`.
    """

    def __init__(
        self,
        bands: Bands,
        *,
        stages: int = 4,
        widths: tuple[int, ...] = (64, 128, 256, 512, 512),
        taps: int = 7,
        hidden: int | None = None,
        physics: Physics = "free",
        rngs: nnx.Rngs,
    ) -> None:
        width = widths[0]
        self.sensors = Sensors(physics, bands, lambda: paper_sensors(bands, rngs))
        self.embed = _conv(bands.lr + bands.guide, width, rngs=rngs)
        self.fuse = nnx.List([_conv((t + 1) * width, width, rngs=rngs) for t in range(stages)])
        self.generator = FilterGenerator(tuple(widths), bands.lr, taps, hidden, rngs=rngs)
        self.eta, self.trust = _near(0.1, stages, rngs), _near(1.0, stages, rngs)

    def __call__(self, observation: Observation, model: ObservationModel, **options: Unpack[Options]) -> Array | Stages:
        """The product ``(batch, height, width, band)``, or what ``options`` ask of `unrolled.stages.finish`.

        Raises:
            InputError: the physics is exact, but the spatial or the spectral response is not known.
        """
        sensors = back_projections(self.sensors, model, observation["lr"].shape[-1])
        eta, trust = self.eta[...], self.trust[...]
        x = upsample(observation["lr"], model.grid)
        features: list[Array] = []
        estimates: list[Array] = []
        for t, fuse in enumerate(self.fuse):
            features.append(self.embed(jnp.concatenate([x, observation["guide"]], -1)))
            u = filtered(x, self.generator(fuse(jnp.concatenate(features, -1))))
            errors = sum(sensor.back(sensor.see(x) - observation[key]) for key, sensor in sensors.items())
            x = x - 2 * eta[t] * (errors + trust[t] * (x - u))
            estimates.append(x)
        return finish(estimates, observation, model, {"eta": eta, "lambda": trust}, **options)


def learning_rate(steps: int) -> optax.Schedule:
    """3e-4, times 0.95 at the epochs 1, 6, ..., 146 of 500."""

    def rate(step: Array) -> Array:
        return 3e-4 * 0.95 ** jnp.clip((500 / steps * step - 1) // 5 + 1, 0, 30)

    return rate


def _leaky(ours: str, theirs: str, layers: Leaky) -> Table:
    table: Table = {}
    for k, layer in enumerate(layers.layers):
        kernel = torch_transposed_kernel if isinstance(layer, ConvTranspose) else torch_kernel
        table |= torch_layer(f"{ours}/layers/{k}", f"{theirs}.{2 * k}", kernel)
    return table


def _rectified(ours: str, theirs: str) -> Table:
    return torch_layer(f"{ours}/layers/0", f"{theirs}.0") | torch_layer(f"{ours}/layers/1", f"{theirs}.2")


def _release(network: DHIFNet) -> Table:
    """The names in the release, whose physics is free."""
    assert network.sensors.free is not None
    table = torch_layer("embed", "conv")
    for key, name in (("lr", "B"), ("guide", "R")):
        for k, (part, theirs) in enumerate(zip(network.sensors.free[key], (name, f"{name}T"), strict=True)):
            assert isinstance(part, Leaky)
            table |= _leaky(f"sensors/free/{key}/{k}", theirs, part)
    for t in range(len(network.fuse)):
        table |= torch_layer(f"fuse/{t}", f"Den_con{t + 1}")
        table |= {f"eta/{t}": (f"eta_{t}", as_is), f"trust/{t}": (f"lamda_{t}", as_is)}
    generator = network.generator
    for k in range(len(generator.encoders)):
        table |= _rectified(f"generator/encoders/{k}", f"Encoder.E{k + 1}")
    for k in range(len(generator.decoders)):
        table |= _rectified(f"generator/decoders/{k}", f"Decoder.D{k + 1}")
    for k in range(len(generator.heads)):
        head = f"generator/heads/{k}"
        table |= _rectified(f"{head}/inner", f"Decoder.K_{k + 1}")
        table |= torch_layer(f"{head}/outer", f"Decoder.K_{k + 1}.4")
    return table


def _original(ratio: int) -> Original:
    return Original(
        file=f"model.pth in CAVE/Checkpoint/f{ratio} of the release, for CAVE at ratio {ratio}; it holds the whole "
        "program, so load it there and save its state_dict()",
        table=_release,
        bands=Bands(31, 3, ratio),
        scale=1,
        note="Images go from 0 to 1. Cubic interpolation, of the image and of the features for the filters, has "
        "a = -1/2, with which the weights have not been trained (PyTorch: -3/4).",
    )


DHIF_NET = System(
    name="dhif_net",
    title="DHIF-Net",
    family="unrolled",
    tasks=SPATIOSPECTRAL,
    paper=Paper(
        authors="T. Huang, W. Dong, J. Wu, L. Li, X. Li, G. Shi",
        year=2022,
        title="Deep Hyperspectral Image Fusion Network With Iterative Spatio-Spectral Regularization",
        venue="IEEE Transactions on Computational Imaging 8",
        doi="10.1109/TCI.2022.3152700",
        code="https://github.com/TaoHuang95/DHIF-Net",
    ),
    summary="Gradient steps towards both images and towards the image itself, filtered along rows, columns and bands "
    "by filters that one shared encoder and decoder finds for every pixel and band; convolutions stand for the "
    "sensors.",
    method=Trained(
        network=DHIFNet,
        loss=mean_absolute_error,
        recipe=Recipe(
            optimiser=lambda steps: optax.adam(learning_rate(steps)),
            steps=2_500_000,
            patch=96,
            batch=4,
            note="Adam 3e-4, times 0.95 at the epochs 1, 6, ..., 146 of 500; epochs of 5,000 steps; patches turned and "
            "mirrored.",
            turn=True,
        ),
        tiny={"stages": 2, "widths": (2, 4), "taps": 3, "hidden": 4},
        compact={"stages": 2, "widths": (16, 32, 32), "taps": 5, "hidden": 16},
        originals=(_original(8), _original(16)),
    ),
    differences="Images of any size, mirrored up to multiples of 16; interpolation has its true phase; windows for "
    "ratios other than 8 and 16 follow their rule.",
    parameters=(22_669_489, Bands(31, 3, 8)),
)
