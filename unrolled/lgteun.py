"""LGTEUN: a proximal gradient method whose prox is a transformer of local windows and of the global spectrum.

Li, Liu, Xiao, Huang, Yang, "Local-Global Transformer Enhanced Unfolding Network for Pan-sharpening", IJCAI 2023, arXiv
2304.14612; code: github.com/lms-07/LGTEUN.

With the spatial response S, the spectral response R, the low-resolution image X and the guide Y, stage k of 2 computes

    Z <- Z - eta_k (S'(S Z - X) + R'(R Z - Y))     (eq. 4 and 5)
    Z <- Z + LGT_k(Z)                              (eq. 6)

from the cubic interpolation of X. All stages share S, S', R and R'. S halves the image twice by cubic interpolation,
each time followed by a 3x3 convolution of every band for itself; S' doubles it twice in the same way; R and R' are 1x1
convolutions. The prior LGT has tokens of one pixel with C = 4 bands channels and the shape of a U: two blocks, half the
size and twice the channels, one block, back, and two blocks beside what the first two made. A block is

    x <- x + mixer(norm(x)),   x <- x + W3 gelu(K W2 gelu(W1 norm(x)))

with 1x1 convolutions W (four times the channels inside) and a 3x3 convolution K of every channel for itself. The mixer
sends one half of the channels through attention within windows of 8x8 pixels, in 2 heads with a learned bias for every
pair of positions (eq. 9), and the other half through a Fourier transform, where amplitude and phase are each scaled and
offset by channel (eq. 10 to 13); a 1x1 convolution mixes both. 540,043 parameters for 8 bands, 202,183 for 4.

With other physics (`unrolled.physics`) S and R are the sensors' and S' and R' their adjoints, each over the squared
norm of its operator, so that eta counts in the same units.

Training: mean absolute error, Adam at 1.5e-3, times 0.85 after every 100 of 1,000 epochs, 259,000 steps of 4 patches of
128 x 128 pixels for GaoFen-2; for WorldView-3 130 epochs, 35,000 steps. All layers start as PyTorch's, the biases of
positions from a normal law cut at two deviations.

Differences from the release:

- Z of a stage is what its prior gave, as in the paper. The release goes on with Z before the prior, so that all priors
  but the last are trained for nothing and reach nothing.
- The global half is the inverse transform itself, as in the paper. The release takes its absolute value, as does
  ``magnitude``, which its weights have learned with, and leaves out the factor of the transform, which here is the
  unitary one of eq. 10.
- A tenth of the mixers' outputs is dropped there in training, of which the paper says nothing; here none is.
- Images are resized with their pixels at their true places, by a cubic of a = -1/2 and not -3/4.
- Images are divided by their 99.9 % quantile (release: 2^11 - 1/2).
- Any size: below and to the right images are mirrored up to whole windows at half the size, and the product is cropped.
- Images larger than 128 x 128 pixels, which all of the paper's are, pass the Fourier domain in blocks of that size. A
  transform of another size has other frequencies than the network has learned.
- Any ratio: its prime factors take the place of 2 and 2.
- More than one guide band (the paper has one): R and R' have that many outputs and inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Unpack

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax import Array

from jfusion.catalogue import Bands, Layout, Original, Paper, Recipe, System, Table, Trained
from jfusion.errors import InputError
from jfusion.layers.attention import attend, from_windows, gelu, layer_norm, padded, to_windows
from jfusion.layers.conv import Conv
from jfusion.layers.init import torch_bias
from jfusion.layers.layouts import as_is, first_of_one, torch_layer, torch_norm
from jfusion.layers.resample import sample
from jfusion.operators import Grid, Observation, ObservationModel, upsample
from jfusion.operators.grid import prime_factors
from jfusion.operators.linear import single
from jfusion.tasks import SPATIOSPECTRAL
from jfusion.training.losses import mean_absolute_error
from unrolled.physics import Physics, Sensor, Sensors, back_projections
from unrolled.stages import Options, Stages, Unroll, finish, run_stages

HALF = Grid.nested(2)
"""The step between the two scales of a prior."""

ROUNDING = 1e-5
"""Share of the real part up to which an imaginary one is rounding."""

SILENT = 1e-20
"""Energy of a frequency below which it has no phase."""


def parts(grid: Grid) -> list[Grid]:
    """A grid for each prime factor of the ratio, finest first: stepped through one by one they make ``grid``."""
    share = [centre / max(grid.ratio - 1, 1) for centre in grid.centre]
    return [Grid(step, (share[0] * (step - 1), share[1] * (step - 1))) for step in prime_factors(grid.ratio)]


def _point(inputs: int, outputs: int, rngs: nnx.Rngs) -> Conv:
    return Conv(inputs, outputs, 1, bias_init=torch_bias(inputs), rngs=rngs)


def _depthwise(channels: int, window: int, rngs: nnx.Rngs) -> Conv:
    return Conv(channels, channels, window, groups=channels, bias_init=torch_bias(window**2), rngs=rngs)


class Resizing(nnx.Module):
    """Cubic steps along the prime factors of a ratio, a 3x3 convolution of every band for itself after each.

    Args:
        bands: of the image.
        ratio: of both images.
        step: `sample` on the way down, `upsample` on the way up.
    """

    def __init__(self, bands: int, ratio: int, step: Callable[[Array, Grid], Array], rngs: nnx.Rngs) -> None:
        self.convs = nnx.List([_depthwise(bands, 3, rngs) for _ in prime_factors(ratio)])
        self.step = step

    def __call__(self, x: Array, grids: Sequence[Grid]) -> Array:
        """``(batch, height, width, band)``, through the grids in order."""
        for conv, grid in zip(self.convs, grids, strict=True):
            x = conv(self.step(x, grid))
        return x


def polar(spectrum: Array) -> tuple[Array, Array]:
    """Amplitude and phase, both zero where there is next to nothing, so that their derivatives are finite.

    What is real but for rounding counts as real: the sign of that rounding would decide between phases of -pi and pi.
    """
    energy = spectrum.real**2 + spectrum.imag**2
    loud = energy > SILENT
    amplitude = jnp.where(loud, jnp.sqrt(jnp.where(loud, energy, 1)), 0)
    turned = loud & (jnp.abs(spectrum.imag) > ROUNDING * jnp.abs(spectrum.real))
    return amplitude, jnp.arctan2(jnp.where(turned, spectrum.imag, 0), jnp.where(loud, spectrum.real, 1))


class Mixer(nnx.Module):
    """One half of the channels through attention within windows, the other half through the Fourier domain.

    Args:
        width: channels, a multiple of twice the heads.
        window: side in pixels.
        heads: of the attention.
        field: side in pixels of the blocks that are transformed; what is smaller is transformed as a whole.
        magnitude: whether the inverse transform is followed by its absolute value.
    """

    def __init__(
        self, width: int, window: int, heads: int, field: int, rngs: nnx.Rngs, magnitude: bool = False
    ) -> None:
        half, tokens = width // 2, window**2
        self.asks = _point(half, 3 * half, rngs)
        self.positions = nnx.Param(jax.random.truncated_normal(rngs.params(), -2, 2, (heads, tokens, tokens)))
        self.amplitude, self.phase = _depthwise(half, 1, rngs), _depthwise(half, 1, rngs)
        self.out = _point(width, width, rngs)
        self.window, self.heads, self.field, self.magnitude = (window, window), heads, field, magnitude

    def near(self, x: Array) -> Array:
        """Eq. 9: ``(batch, height, width, channel)``, whole windows, to the same."""
        query, key, value = jnp.split(to_windows(self.asks(x), self.window), 3, -1)
        return from_windows(attend(query, key, value, self.heads, self.positions[...]), self.window)

    def far(self, x: Array) -> Array:
        """Eq. 10 to 13: ``(batch, height, width, channel)``, whole blocks, to the same."""
        block = min(x.shape[1], self.field), min(x.shape[2], self.field)
        tokens = to_windows(x, block)
        blocks = tokens.reshape(*tokens.shape[:3], *block, tokens.shape[-1])
        amplitude, phase = polar(jnp.fft.rfft2(single(blocks), axes=(-3, -2), norm="ortho"))
        amplitude, phase = self.amplitude(amplitude), self.phase(phase)
        spectrum = jax.lax.complex(amplitude * jnp.cos(phase), amplitude * jnp.sin(phase))
        blocks = jnp.fft.irfft2(spectrum, s=block, axes=(-3, -2), norm="ortho")
        far = from_windows(blocks.reshape(tokens.shape).astype(x.dtype), block)
        return jnp.abs(far) if self.magnitude else far

    def __call__(self, x: Array) -> Array:
        near, far = jnp.split(x, 2, -1)
        return self.out(jnp.concatenate([self.near(near), self.far(far)], -1))


class Block(nnx.Module):
    """The mixer of pixels and the mixer of channels, each of the normalised tokens and added to them."""

    def __init__(self, width: int, window: int, heads: int, field: int, rngs: nnx.Rngs, magnitude: bool) -> None:
        self.mixer_norm, self.channels_norm = layer_norm(width, rngs=rngs), layer_norm(width, rngs=rngs)
        self.mixer = Mixer(width, window, heads, field, rngs, magnitude)
        self.first, self.second = _point(width, 4 * width, rngs), _point(4 * width, 4 * width, rngs)
        self.spread, self.third = _depthwise(4 * width, 3, rngs), _point(4 * width, width, rngs)

    def __call__(self, x: Array) -> Array:
        x = x + self.mixer(self.mixer_norm(x))
        inner = self.second(gelu(self.first(self.channels_norm(x))))
        return x + self.third(gelu(self.spread(inner)))


class LGT(nnx.Module):
    """The prior, a U of two scales.

    Args:
        bands: of the image.
        width: C, channels of the larger scale.
        blocks: on each side of the larger scale.
        window, heads, field, magnitude: see `Mixer`; the field is that of the larger scale, a multiple of twice the
            window.
    """

    def __init__(
        self,
        bands: int,
        width: int,
        blocks: int,
        window: int,
        heads: int,
        field: int,
        rngs: nnx.Rngs,
        magnitude: bool,
    ) -> None:
        def chain(width: int, count: int, field: int = field) -> nnx.Sequential:
            return nnx.Sequential(*[Block(width, window, heads, field, rngs, magnitude) for _ in range(count)])

        self.embed = nnx.Sequential(
            _depthwise(bands, 1, rngs), _point(bands, width, rngs), layer_norm(width, rngs=rngs)
        )
        self.encoder, self.bottleneck, self.decoder = (
            chain(width, blocks),
            chain(2 * width, 1, field // 2),
            chain(width, blocks),
        )
        self.down, self.up = _point(width, 2 * width, rngs), _point(2 * width, width, rngs)
        self.join, self.tail = _point(2 * width, width, rngs), _point(width, bands, rngs)
        self.window, self.field = window, field

    def __call__(self, z: Array) -> Array:
        """``(batch, height, width, band)`` to the same."""
        height, width = z.shape[1:3]
        rows, columns = (2 * self.window if n <= self.field else self.field for n in (height, width))
        x = padded(z, (rows, columns))
        wide = self.encoder(self.embed(x))
        deep = self.bottleneck(self.down(sample(wide, HALF)))
        back = self.join(jnp.concatenate([self.up(upsample(deep, HALF)), wide], -1))
        return z + self.tail(self.decoder(back))[:, :height, :width]


class Stage(nnx.Module):
    """What a stage has of its own: eta and the prior."""

    def __init__(self, prior: LGT) -> None:
        self.eta, self.prior = nnx.Param(jnp.asarray(0.1)), prior


class LGTEUN(nnx.Module):
    """The network of Li et al., 2023.

    Args:
        bands: of the pair.
        stages: K.
        width: C, channels of a token, a multiple of twice the heads; four times the bands by default.
        blocks: on each side of the larger scale of a prior.
        window: side in pixels.
        heads: of each attention.
        field: side in pixels of the blocks that pass the Fourier domain, a multiple of twice the window; best that of
            the patches it is trained on.
        magnitude: whether the absolute value of the inverse transform is taken, as in the release.
        physics: see `unrolled.physics`.
        unroll: layout of the stages, see `unrolled.stages.Unroll`.

    Raises:
        InputError: no such physics, or a field that windows do not tile.
    """

    def __init__(
        self,
        bands: Bands,
        *,
        stages: int = 2,
        width: int | None = None,
        blocks: int = 2,
        window: int = 8,
        heads: int = 2,
        field: int = 128,
        magnitude: bool = False,
        physics: Physics = "free",
        unroll: Unroll = "loop",
        rngs: nnx.Rngs,
    ) -> None:
        if field < 1 or field % (2 * window):
            raise InputError(
                f"the field must be a multiple of twice the window, {2 * window}, which tile it at both scales, but is "
                f"{field}."
            )

        def free() -> dict[str, tuple[nnx.Module, nnx.Module]]:
            down, up = (Resizing(bands.lr, bands.ratio, step, rngs) for step in (sample, upsample))
            return {
                "lr": (down, up),
                "guide": (_point(bands.lr, bands.guide, rngs), _point(bands.guide, bands.lr, rngs)),
            }

        self.bands, self.ratio, self.unroll = bands.lr, bands.ratio, unroll
        self.sensors = Sensors(physics, bands, free)
        width = width or 4 * bands.lr
        self.stages = nnx.List(
            [Stage(LGT(bands.lr, width, blocks, window, heads, field, rngs, magnitude)) for _ in range(stages)]
        )

    def seen(self, model: ObservationModel) -> dict[str, Sensor]:
        """The sensors by key of the observation."""
        if self.sensors.free is None:
            return back_projections(self.sensors, model, self.bands)
        down, up = self.sensors.free["lr"]
        grids = parts(model.grid)
        return {**self.sensors(model), "lr": Sensor(partial(down, grids=grids), partial(up, grids=grids[::-1]))}

    def __call__(self, observation: Observation, model: ObservationModel, **options: Unpack[Options]) -> Array | Stages:
        """The product ``(batch, height, width, band)``, or what ``options`` ask of `unrolled.stages.finish`.

        Raises:
            InputError: the physics is exact, but an operator is not known.
        """
        sensors = self.seen(model)

        def body(stage: Stage, z: Array) -> tuple[Array, Array]:
            gradient = sum(sensor.back(sensor.see(z) - observation[key]) for key, sensor in sensors.items())
            z = stage.prior(z - stage.eta[...] * gradient)
            return z, z

        start = upsample(observation["lr"], model.grid)
        _, estimates = run_stages(list(self.stages), body, start, self.unroll)
        steps = {"eta": jnp.stack([stage.eta[...] for stage in self.stages])}
        return finish(estimates, observation, model, steps, **options)


def _adam(steps: int) -> optax.GradientTransformation:
    return optax.adam(optax.exponential_decay(1.5e-3, max(steps // 10, 1), 0.85, staircase=True))


# ----------------------------------------------------------------------------------------------------------------------
# The release's weights


def _release(network: LGTEUN) -> Table:
    """The names in the release, whose physics is free.

    There, only the last prior reaches the product. The others add nothing to Z once their last layer is zero.
    """
    table: Table = {}
    for path, name in (("lr/0", "D"), ("lr/1", "DT")):
        for k in range(len(prime_factors(network.ratio))):
            table |= torch_layer(f"sensors/free/{path}/convs/{k}", f"{name}.{2 * k + 1}")
    table |= torch_layer("sensors/free/guide/0", "R") | torch_layer("sensors/free/guide/1", "RT")
    for k, stage in enumerate(network.stages):
        table[f"stages/{k}/eta"] = f"eta.{k}", as_is
        table |= _prior(f"stages/{k}/prior", f"prior_module.{k}", stage.prior, last=k == len(network.stages) - 1)
    return table


def _prior(ours: str, theirs: str, prior: LGT, *, last: bool) -> Table:
    table = torch_layer(f"{ours}/embed/layers/0", f"{theirs}.patch_embed.proj.0")
    table |= torch_layer(f"{ours}/embed/layers/1", f"{theirs}.patch_embed.proj.1")
    table |= torch_norm(f"{ours}/embed/layers/2", f"{theirs}.patch_embed.norm")
    chains = {"encoder": "encoder_layers.0.0", "bottleneck": "bottleneck", "decoder": "decoder_layers.0.2"}
    for chain, name in chains.items():
        for k, block in enumerate(getattr(prior, chain).layers):
            table |= _block(f"{ours}/{chain}/layers/{k}", f"{theirs}.{name}.blocks.{k}", block.mixer.field)
    points = {"down": "encoder_layers.0.1.1", "up": "decoder_layers.0.0.1", "join": "decoder_layers.0.1"}
    for path, name in points.items():
        table |= torch_layer(f"{ours}/{path}", f"{theirs}.{name}")
    tail = torch_layer(f"{ours}/tail", f"{theirs}.tail.1")
    return table | (tail if last else {path: (name, _times(0, layout)) for path, (name, layout) in tail.items()})


def _block(ours: str, theirs: str, field: int) -> Table:
    """Offsets of amplitudes are over the side of a block, by which the release's transform is larger than ours."""
    mixer, channels = f"{theirs}.0.fn", f"{theirs}.1.fn"
    table = torch_norm(f"{ours}/mixer_norm", f"{mixer}.norm") | torch_norm(f"{ours}/channels_norm", f"{channels}.norm")
    layers = {
        "mixer/asks": f"{mixer}.fn.local_mixer.to_qkv",
        "mixer/amplitude": f"{mixer}.fn.global_mixer.conv_amp.0",
        "mixer/phase": f"{mixer}.fn.global_mixer.conv_pha.0",
        "mixer/out": f"{mixer}.fn.proj",
        "first": f"{channels}.fn.net.0",
        "second": f"{channels}.fn.net.2.point_conv",
        "spread": f"{channels}.fn.net.2.depth_conv",
        "third": f"{channels}.fn.net.4",
    }
    for path, name in layers.items():
        table |= torch_layer(f"{ours}/{path}", name)
    table[f"{ours}/mixer/positions"] = f"{mixer}.fn.local_mixer.pos_emb", first_of_one
    offset, layout = table[f"{ours}/mixer/amplitude/bias"]
    return table | {f"{ours}/mixer/amplitude/bias": (offset, _times(1 / field, layout))}


def _times(factor: float, layout: Layout) -> Layout:
    return lambda array: factor * layout(array)


LGTEUN_SYSTEM = System(
    name="lgteun",
    title="LGTEUN",
    family="unrolled",
    tasks=SPATIOSPECTRAL,
    paper=Paper(
        authors="M. Li, Y. Liu, T. Xiao, Y. Huang, G. Yang",
        year=2023,
        title="Local-Global Transformer Enhanced Unfolding Network for Pan-sharpening",
        venue="International Joint Conference on Artificial Intelligence",
        doi="10.24963/ijcai.2023/119",
        code="https://github.com/lms-07/LGTEUN",
    ),
    summary="Proximal gradient steps with responses that all stages share; each prox is a transformer that attends "
    "within windows and scales amplitude and phase of the whole image.",
    method=Trained(
        network=LGTEUN,
        loss=mean_absolute_error,
        recipe=Recipe(
            optimiser=_adam,
            steps=259_000,
            patch=128,
            batch=4,
            note="Mean absolute error, Adam 1.5e-3, times 0.85 after every tenth of the steps; images divided by "
            "their 99.9 % quantile (release: 2^11 - 1/2).",
        ),
        tiny={"stages": 1, "width": 8, "blocks": 1, "window": 4},
        compact={"stages": 1, "width": 32, "blocks": 1, "field": 32},
        originals=(
            Original(
                file="model_iter_30000.pth of the release, for WorldView-3; those for WorldView-2 and GaoFen-2 have "
                "the bands 4 1 4; it holds the whole program, so load it there and save the core module's state_dict()",
                table=_release,
                bands=Bands(8, 1, 4),
                scale=2047.5,
                sizes={"magnitude": True},
                note="The release goes on with what a prior was given, so that only the last one reaches the product; "
                "the others are read, but with their last layer set to zero. Its cubic has a = -3/4. But for that, "
                "products of 128 x 128 pixels, which it has learned from, are the same.",
            ),
        ),
    ),
    differences="A stage goes on with what its prior gave, as in the paper, and not with what it was given, as in the "
    "release; no absolute value of the inverse transform; no dropout; images are resized at their true places, mirrored"
    " up to whole windows and, above 128 x 128 pixels, transformed in blocks; ratios other than 4 are split into their "
    "prime factors.",
    parameters=(540_043, Bands(8, 1, 4)),
)
