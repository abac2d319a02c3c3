"""MoG-DCN: a model-guided network that alternates a denoiser with steps towards both images.

Dong, Zhou, Wu, Wu, Shi, Li, "Model-Guided Deep Hyperspectral Image Super-Resolution", TIP 30, 2021,
doi:10.1109/TIP.2021.3078058; code: github.com/chengerr/Model-Guided-Deep-Hyperspectral-Image-Super-resolution.

With the low-resolution image Y = D X and the guide Z = R X, the problem is

    min_X  |D X - Y|^2 / 2 + |R X - Z|^2 / 2 + lambda J(X),

where a denoiser stands for the prior J. From the interpolated Y, each of 4 stages denoises twice, the second time what
the guide has corrected:

    V = X + U(F_t(X))                                      the first denoised image
    W = X - a (R'(R X - Z) + b (X - V))                    a gradient step of |W - X|^2 + |R W - Z|^2 + b |W - V|^2
    C = W + U(G_t(W))                                      the second one
    X <- X - c (R'(R X - Z) + D'(D X - Y) + d (X - C))     a gradient step of the problem, C drawing X to the prior

C of the last stage is the product. U is an encoder and decoder of five scales, with four convolutions each and a
learned slope of the rectifiers' negative half. All calls share it, and so they share the sensors and the numbers a, b,
c, d (0.1, 0.9, 0.1, 0.9 at first). F_t and G_t are convolutions of an image's 64 features and of the 128 that U made at
its largest scale: F_t takes those of the first halves of all stages before, G_t those of the same stage.

D is a convolution with 13 x 13 taps (at ratio 8) and R one with 3 x 3, and convolutions of their own stand for their
adjoints (``physics="free"``). Told or learned (`unrolled.physics`), the adjoints are divided by the squared norms of
the operators, so that a and c count in the same units.

Training: mean absolute error, Adam at 1e-4, weight decay 1e-8, a million steps of 4 patches of 96 x 96 pixels, neither
turned nor mirrored. Kernels start by Xavier's normal law, transposed ones and biases as PyTorch's.

Differences from the release:

- Signs are those of the problem. The release adds D'(D X - Y), which a convolution in the place of D' makes up for, and
  takes X + V instead of X - V, which pushes W away from the denoised image; ``repelled=True`` does so too, for weights
  that were trained there.
- It makes seven pairs of step sizes, of which two are used, and two more slopes: 12 parameters that reach nothing and
  that are left out here.
- Cubic interpolation has a = -1/2 and not -3/4, and its true phase; the release's low-resolution pixels lie one pixel
  beside the place where it interpolates them.
- Ratios other than 8: the window reaches two pixels further than half the ratio, as it does there. The release's
  variants of three convolutions with rectifiers and of five stages are not offered.
"""

from __future__ import annotations

from typing import Unpack

import jax.numpy as jnp
import optax
from flax import nnx
from jax import Array
from jax.nn.initializers import variance_scaling

from jfusion.catalogue import Bands, Layout, Original, Paper, Recipe, System, Table, Trained
from jfusion.layers import layouts
from jfusion.layers.conv import Conv, ConvTranspose
from jfusion.layers.init import torch_bias, torch_transposed_kernel
from jfusion.layers.layouts import as_is, negated, number, torch_kernel, torch_layer
from jfusion.layers.prelu import PReLU
from jfusion.operators import Observation, ObservationModel, upsample
from jfusion.tasks import SPATIOSPECTRAL
from jfusion.training.losses import mean_absolute_error
from unrolled.physics import Physics, Sensors, back_projections
from unrolled.stages import Options, Stages, finish

STEPS = {"a": 0.1, "b": 0.9, "c": 0.1, "d": 0.9}
"""The numbers of the module's equations, at first."""

xavier_normal = variance_scaling(1.0, "fan_avg", "normal")


def _conv(inputs: int, outputs: int, window: int, strides: int = 1, *, rngs: nnx.Rngs) -> Conv:
    return Conv(
        inputs, outputs, window, strides=strides, padding=window // 2, kernel_init=xavier_normal,
        bias_init=torch_bias(inputs * window**2), rngs=rngs,
    )  # fmt: skip


def _conv_transpose(inputs: int, outputs: int, window: int, strides: int, *, rngs: nnx.Rngs) -> ConvTranspose:
    """Sample i lies at ``strides i`` of the output, which has ``strides`` times the size; the window is odd."""
    cut = window // 2, window // 2 + 1 - strides
    return ConvTranspose(
        inputs, outputs, window, strides=strides, padding=(cut, cut), kernel_init=torch_transposed_kernel,
        bias_init=torch_bias(outputs * window**2), rngs=rngs,
    )  # fmt: skip


class Encoder(nnx.Module):
    """One scale on the way down: features of twice the width, and, but for the last scale, half the size.

    Args:
        width: channels that come in and that go to the next scale.
        last: whether there is no next scale.
    """

    def __init__(self, width: int, last: bool, *, rngs: nnx.Rngs) -> None:
        self.inner = nnx.List([_conv(width, width, 3, rngs=rngs) for _ in range(3)])
        self.features = _conv(width, 2 * width, 3, rngs=rngs)
        self.shrink = None if last else _conv(2 * width, width, 3, 2, rngs=rngs)
        self.rectify = PReLU()

    def __call__(self, x: Array) -> tuple[Array, Array]:
        """Features ``(batch, height, width, 2 channel)``, and what the next scale gets: half of them, or the same."""
        for conv in self.inner:
            x = self.rectify(conv(x))
        features = self.features(x)
        return features, features if self.shrink is None else self.rectify(self.shrink(features))


class Decoder(nnx.Module):
    """One scale on the way up: twice the size, then convolutions beside the features of the encoder.

    Args:
        inputs: channels of the smaller scale.
        features: channels of the encoder's features, and inside.
        outputs: channels that come out.
        window: of the last convolution.
    """

    def __init__(self, inputs: int, features: int, outputs: int, window: int, *, rngs: nnx.Rngs) -> None:
        self.enlarge = _conv_transpose(inputs, features, 3, 2, rngs=rngs)
        self.inner = nnx.List([_conv(n * features, features, 3, rngs=rngs) for n in (2, 1, 1)])
        self.outer = _conv(features, outputs, window, rngs=rngs)
        self.rectify = PReLU()

    def __call__(self, x: Array, features: Array) -> Array:
        """``(batch, ceil(height / 2), ceil(width / 2), inputs)`` to ``(batch, height, width, outputs)``."""
        height, width = features.shape[1:3]
        x = jnp.concatenate([self.enlarge(x)[:, :height, :width], features], -1)
        for conv in self.inner:
            x = self.rectify(conv(x))
        return self.outer(x)


class Denoiser(nnx.Module):
    """U: what is to be added to an image, from its features; any image size.

    Args:
        width: channels of the features.
        bands: of the image.
        scales: encoders, each but the last of which halves the size.
    """

    def __init__(self, width: int, bands: int, scales: int, *, rngs: nnx.Rngs) -> None:
        skip, wide = 2 * width, 8 * width
        self.encoders = nnx.List([Encoder(width, k == scales - 1, rngs=rngs) for k in range(scales)])
        inputs = [skip] + [wide] * (scales - 2)
        outputs = [(wide, 1)] * (scales - 2) + [(bands, 3)]
        self.decoders = nnx.List([Decoder(i, skip, *o, rngs=rngs) for i, o in zip(inputs, outputs, strict=True)])

    def __call__(self, x: Array) -> tuple[Array, Array]:
        """``(batch, height, width, width)`` to the residual ``(..., bands)`` and the features of the first encoder."""
        skips = []
        for encode in self.encoders:
            features, x = encode(x)
            skips.append(features)
        for decode, features in zip(self.decoders, skips[-2::-1], strict=True):
            x = decode(x, features)
        return x, skips[0]


def paper_sensors(bands: Bands, rngs: nnx.Rngs) -> dict[str, tuple[nnx.Module, nnx.Module]]:
    """The convolutions that stand for D, D', R and R': 13 x 13 taps at ratio 8, and 3 x 3.

    At other ratios the window reaches two pixels further than half the ratio, as it does there.
    """
    lr, guide, window = bands.lr, bands.guide, 2 * (bands.ratio // 2 + 2) + 1
    return {
        "lr": (
            _conv(lr, lr, window, bands.ratio, rngs=rngs),
            _conv_transpose(lr, lr, window, bands.ratio, rngs=rngs),
        ),
        "guide": (_conv(lr, guide, 3, rngs=rngs), _conv(guide, lr, 3, rngs=rngs)),
    }


class MoGDCN(nnx.Module):
    """The network.

    Args:
        bands: of the pair.
        stages: T, at least two.
        width: channels of the features.
        scales: of the denoiser, at least two.
        repelled: whether V has the release's sign in the step to W.
        physics: what stands for the sensors, see `unrolled.physics`.
    """

    def __init__(
        self,
        bands: Bands,
        *,
        stages: int = 4,
        width: int = 64,
        scales: int = 5,
        repelled: bool = False,
        physics: Physics = "free",
        rngs: nnx.Rngs,
    ) -> None:
        self.repelled = repelled
        self.sensors = Sensors(physics, bands, lambda: paper_sensors(bands, rngs))
        self.embed = _conv(bands.lr, width, 3, rngs=rngs)
        self.first = nnx.List([_conv((1 + 2 * t) * width, width, 3, rngs=rngs) for t in range(1, stages)])
        self.second = nnx.List([_conv(3 * width, width, 3, rngs=rngs) for _ in range(stages)])
        self.denoiser = Denoiser(width, bands.lr, scales, rngs=rngs)
        self.steps = nnx.Param(jnp.asarray(list(STEPS.values())))

    def __call__(self, observation: Observation, model: ObservationModel, **options: Unpack[Options]) -> Array | Stages:
        """The product ``(batch, height, width, band)``, or what ``options`` ask of `unrolled.stages.finish`.

        The estimates are X after each stage but the last, then C.

        Raises:
            InputError: the physics is exact, but the spatial or the spectral response is not known.
        """
        sensors = back_projections(self.sensors, model, observation["lr"].shape[-1])
        a, b, c, d = self.steps[...]
        x = upsample(observation["lr"], model.grid)
        before: list[Array] = []
        estimates: list[Array] = []

        def error(key: str, x: Array) -> Array:
            """What one sensor's error says of the scene."""
            return sensors[key].back(sensors[key].see(x) - observation[key])

        for t, second in enumerate(self.second):
            features = jnp.concatenate([self.embed(x), *before], -1)
            denoised, skip = self.denoiser(self.first[t - 1](features) if t else features)
            guided = error("guide", x)
            away = 2 * x + denoised if self.repelled else -denoised
            w = x - a * (guided + b * away)
            again, _ = self.denoiser(second(jnp.concatenate([self.embed(w), skip], -1)))
            cleaned = w + again
            if t < len(self.second) - 1:
                x = x - c * (guided + error("lr", x) + d * (x - cleaned))
                estimates.append(x)
            before.append(skip)
        shared = {name: jnp.full(len(self.second), value) for name, value in zip(STEPS, (a, b, c, d), strict=True)}
        return finish([*estimates, cleaned], observation, model, shared, **options)


def _negated_layer(ours: str, theirs: str, kernel: Layout) -> Table:
    return {f"{ours}/kernel": (f"{theirs}.weight", kernel), f"{ours}/bias": (f"{theirs}.bias", negated(as_is))}


def _sensors() -> Table:
    """The release adds what comes back from Z - R X and from D X - Y, where the module subtracts it of both errors."""
    lr, guide = "sensors/free/lr", "sensors/free/guide"
    return (
        torch_layer(f"{lr}/0", "conv_downsample")
        | _negated_layer(f"{lr}/1", "conv_upsample", negated(layouts.torch_transposed_kernel))
        | torch_layer(f"{guide}/0", "conv_torgb")
        | _negated_layer(f"{guide}/1", "conv_tohsi", torch_kernel)
    )


def _encoder(ours: str, theirs: str, encoder: Encoder) -> Table:
    table: Table = {f"{ours}/rectify/slope": (f"{theirs}.act.weight", as_is)}
    for k in range(3):
        table |= torch_layer(f"{ours}/inner/{k}", f"{theirs}.conv{k + 1}")
    table |= torch_layer(f"{ours}/features", f"{theirs}.conv4")
    return table if encoder.shrink is None else table | torch_layer(f"{ours}/shrink", f"{theirs}.conv5")


def _decoder(ours: str, theirs: str) -> Table:
    table: Table = {f"{ours}/rectify/slope": (f"{theirs}.act.weight", as_is)}
    for k in range(3):
        table |= torch_layer(f"{ours}/inner/{k}", f"{theirs}.conv{k}")
    table |= torch_layer(f"{ours}/enlarge", f"{theirs}.up", layouts.torch_transposed_kernel)
    return table | torch_layer(f"{ours}/outer", f"{theirs}.conv3")


def _denoiser(denoiser: Denoiser) -> Table:
    table: Table = {}
    encoders, decoders = list(denoiser.encoders), len(denoiser.decoders)
    for k, encoder in enumerate(encoders):
        name = "Encoding_block_end" if encoder.shrink is None else f"Encoding_block{k + 1}"
        table |= _encoder(f"denoiser/encoders/{k}", f"spatial.{name}", encoder)
    for k in range(decoders):
        name = "Decoding_block_End" if k == decoders - 1 else f"Decoding_block{k + 1}"
        table |= _decoder(f"denoiser/decoders/{k}", f"spatial.{name}")
    return table


def _release(network: MoGDCN) -> Table:
    """The names in the release, whose physics is free."""
    table = torch_layer("embed", "fe_conv1") | _sensors() | _denoiser(network.denoiser)
    for t in range(len(network.second)):
        table |= torch_layer(f"second/{t}", f"fe_conv{2 * t + 2}")
        if t:
            table |= torch_layer(f"first/{t - 1}", f"fe_conv{2 * t + 1}")
    return table | {f"steps/{k}": (name, number) for k, name in enumerate(("delta_0", "eta_0", "delta_3", "eta_3"))}


MOG_DCN = System(
    name="mog_dcn",
    title="MoG-DCN",
    family="unrolled",
    tasks=SPATIOSPECTRAL,
    paper=Paper(
        authors="W. Dong, C. Zhou, F. Wu, J. Wu, G. Shi, X. Li",
        year=2021,
        title="Model-Guided Deep Hyperspectral Image Super-Resolution",
        venue="IEEE Transactions on Image Processing 30",
        doi="10.1109/TIP.2021.3078058",
        code="https://github.com/chengerr/Model-Guided-Deep-Hyperspectral-Image-Super-resolution",
    ),
    summary="Gradient steps towards both images alternate with one shared denoiser, an encoder and decoder of five "
    "scales that is called twice a stage and sees its own features of the stages before; convolutions stand for the "
    "sensors.",
    method=Trained(
        network=MoGDCN,
        loss=mean_absolute_error,
        recipe=Recipe(
            optimiser=lambda steps: optax.chain(optax.add_decayed_weights(1e-8), optax.adam(1e-4)),
            steps=1_000_000,
            patch=96,
            batch=4,
            note="Adam 1e-4 without a schedule, weight decay 1e-8; 200,000 epochs of one patch from each of 20 images, "
            "neither turned nor mirrored.",
        ),
        tiny={"stages": 2, "width": 2, "scales": 2},
        compact={"stages": 2, "width": 16, "scales": 3},
        originals=(
            Original(
                file="eopch_N_params.pkl, which sf_8_CAVE/train.py of the release saves, for CAVE at ratio 8; it comes "
                "without weights",
                table=_release,
                bands=Bands(31, 3, 8),
                scale=1,
                sizes={"repelled": True},
                unused=r"P|(spatial\.)?acti\.weight|(delta|eta)_[12456]",
                note="Images go from 0 to 1. Cubic interpolation has a = -1/2, with which the weights have not been "
                "trained (PyTorch: -3/4). The low-resolution pixels of its data lie one pixel beyond the middle of "
                "each eight, where it interpolates them, so that the weights make up for that displacement.",
            ),
        ),
    ),
    differences="Signs are those of the problem, two of which the release turns round; what reaches nothing there (12 "
    "parameters) is left out; interpolation has its true phase; windows for ratios other than 8 follow its rule.",
    parameters=(7_070_824, Bands(31, 3, 8)),
)
