"""PanFormer: both images as tokens of a window transformer, in which each attends to itself and then to the other.

Zhou, Liu, Wang, "PanFormer: a Transformer Based Model for Pan-sharpening", ICME 2022,
doi:10.1109/ICME52920.2022.9859770, arXiv 2203.02916; code: github.com/zhysora/PanFormer.

All features (64 channels) lie on the low-resolution grid. One stage makes a token of each patch by a linear map and
passes the tokens through two transformer blocks, the second with its windows shifted by half their side:

    x <- x + attention(norm(x)),   x <- x + perceptron(norm(x))

Attention is within windows of 4x4 tokens, in 8 heads, with one learned table of relative positions for all heads; the
perceptron is four times as wide inside, with GELU. The pan image passes two stages of patches 2x2, the multispectral
image two of patches 1x1. Three cross stages follow, in which the two streams m and p change at the same time:

    m <- stage(m; p),   p <- stage(p; m)

There queries come from the other stream, which passes the same linear map and is neither normalised nor changed
between the two blocks; keys and values come from the stream itself. Both streams, side by side, are enlarged twice by
a 3x3 convolution, pixel shuffle and ReLU and end in two 3x3 convolutions. Nothing of the interpolated image is added.
1,525,144 parameters for 4 bands, 1,527,708 for 8.

Training: mean absolute error, Adam at 1e-4, times 0.99 every 10,000 of 200,000 steps, batches of 4 patches of
256 x 256 pan pixels. All layers start as PyTorch's, the tables of positions from a normal law.

Differences from the release:

- The product is not clipped to the range of the sensor, since clipping stops the gradient; images are divided by their
  99.9 % quantile, where the release takes digital numbers as they are.
- Patches are not flipped. The release means to flip them at random, but decides once for a whole run, and one flip
  overwrites the other.
- Any size: below and to the right images are mirrored up to whole windows, and the product is cropped. Sizes that are
  whole windows, as the release demands, are unchanged. The mirrored pixels take part in the attention.
- Any ratio: its prime factors, the largest first, take the place of 2 and 2. Each is a stage of the guide, with one of
  the low-resolution image beside it, and a step of the enlargement, where they come in reverse.
- More than one guide band (the paper has one): a patch holds all of them.
"""

import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import Array
from jax.nn.initializers import normal

from jfusion.catalogue import Bands, Layout, Original, Paper, Recipe, System, Table, Trained
from jfusion.layers.attention import Perceptron, attend, from_windows, gelu, layer_norm, linear, padded, to_windows
from jfusion.layers.conv import Conv
from jfusion.layers.init import torch_bias
from jfusion.layers.layouts import as_is, torch_kernel, torch_layer, torch_norm
from jfusion.operators.grid import prime_factors
from jfusion.operators.observation import Observation, ObservationModel
from jfusion.tasks import SPATIOSPECTRAL
from jfusion.training.losses import mean_absolute_error


def relative_positions(window: int) -> tuple[np.ndarray, np.ndarray]:
    """Row and column of the table of positions for each token and each other, both ``(token, token)``."""
    place = np.stack(np.divmod(np.arange(window**2), window), -1)
    distance = place[None] - place[:, None] + window - 1
    return distance[..., 0], distance[..., 1]


def neighbours(height: int, width: int, window: int, shift: int) -> np.ndarray:
    """Which tokens of a window lie on the same side of the image's edge after a cyclic shift.

    ``(rows, columns, 1, token, token)``, for rows and columns of windows.
    """
    rows, columns = ((np.arange(n) >= n - shift).reshape(-1, window) for n in (height, width))
    above, beside = (side[:, :, None] == side[:, None, :] for side in (rows, columns))
    same = above[:, None, :, None, :, None] & beside[None, :, None, :, None, :]
    return same.reshape(len(rows), len(columns), 1, window**2, window**2)


class WindowAttention(nnx.Module):
    """Attention within windows that are shifted by some tokens; queries are asked by ``other`` where it is given."""

    def __init__(self, width: int, heads: int, window: int, shift: int, *, rngs: nnx.Rngs) -> None:
        self.query = linear(width, width, use_bias=False, rngs=rngs)
        self.key_value = linear(width, 2 * width, use_bias=False, rngs=rngs)
        self.positions = nnx.Param(normal(1.0)(rngs.params(), (2 * window - 1, 2 * window - 1)))
        self.out = linear(width, width, rngs=rngs)
        self.heads, self.window, self.shift = heads, window, shift

    def __call__(self, x: Array, other: Array | None) -> Array:
        """Both ``(batch, height, width, channel)``, whole windows, to the same shape."""
        window, shift = (self.window, self.window), self.shift
        asks = x if other is None else other
        if shift:
            asks, x = (jnp.roll(stream, (-shift, -shift), (1, 2)) for stream in (asks, x))
        bias = self.positions[...][relative_positions(self.window)]
        if shift:
            bias = jnp.where(neighbours(x.shape[1], x.shape[2], self.window, shift), bias, -jnp.inf)
        key, value = jnp.split(to_windows(self.key_value(x), window), 2, -1)
        y = from_windows(attend(to_windows(self.query(asks), window), key, value, self.heads, bias), window)
        y = self.out(y)
        return jnp.roll(y, (shift, shift), (1, 2)) if shift else y


class Block(nnx.Module):
    """Attention and perceptron, each of the normalised tokens and added to them."""

    def __init__(self, width: int, heads: int, window: int, shift: int, *, rngs: nnx.Rngs) -> None:
        self.attention_norm, self.perceptron_norm = layer_norm(width, rngs=rngs), layer_norm(width, rngs=rngs)
        self.attention = WindowAttention(width, heads, window, shift, rngs=rngs)
        self.perceptron = Perceptron(width, 4 * width, gelu, rngs=rngs)

    def __call__(self, x: Array, other: Array | None) -> Array:
        x = x + self.attention(self.attention_norm(x), other)
        return x + self.perceptron(self.perceptron_norm(x))


class Stage(nnx.Module):
    """A token of each ``step`` x ``step`` patch by one linear map, then a plain and a shifted block."""

    def __init__(self, inputs: int, step: int, width: int, heads: int, window: int, *, rngs: nnx.Rngs) -> None:
        self.embed = Conv(
            inputs, width, step, strides=step, padding="valid", bias_init=torch_bias(inputs * step**2), rngs=rngs
        )
        self.blocks = nnx.List(Block(width, heads, window, shift, rngs=rngs) for shift in (0, window // 2))

    def __call__(self, x: Array, other: Array | None = None) -> Array:
        x, other = self.embed(x), None if other is None else self.embed(other)
        for block in self.blocks:
            x = block(x, other)
        return x


def pixel_shuffle(x: Array, step: int) -> Array:
    """``(batch, height, width, step^2 channel)`` to ``(batch, height step, width step, channel)``."""
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height, width, step, step, channels // step**2).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(batch, height * step, width * step, channels // step**2)


class PanFormer(nnx.Module):
    """The network of Zhou et al., 2022.

    Args:
        width: channels of a token.
        heads: of each attention; they divide the width.
        stages: in which the two streams attend to each other.
        window: side in tokens, even.
    """

    def __init__(
        self, bands: Bands, *, width: int = 64, heads: int = 8, stages: int = 3, window: int = 4, rngs: nnx.Rngs
    ) -> None:
        def stage(inputs: int, step: int) -> Stage:
            return Stage(inputs, step, width, heads, window, rngs=rngs)

        def conv(inputs: int, outputs: int) -> Conv:
            return Conv(inputs, outputs, 3, bias_init=torch_bias(9 * inputs), rngs=rngs)

        self.factors = tuple(prime_factors(bands.ratio)[::-1]) or (1,)
        later = [width] * (len(self.factors) - 1)
        self.guide_encoder = nnx.List(map(stage, [bands.guide, *later], self.factors))
        self.lr_encoder = nnx.List(stage(inputs, 1) for inputs in [bands.lr, *later])
        self.guide_cross = nnx.List(stage(width, 1) for _ in range(stages))
        self.lr_cross = nnx.List(stage(width, 1) for _ in range(stages))
        self.enlarge = nnx.List(
            conv(inputs, width * step**2)
            for inputs, step in zip([2 * width, *later], reversed(self.factors), strict=True)
        )
        self.refine, self.tail = conv(width, width), conv(width, bands.lr)
        self.window = window

    def __call__(self, observation: Observation, model: ObservationModel) -> Array:
        """``(batch, height, width, band)``, in the units of the observation, from "lr" and "guide"."""
        height, width = observation["guide"].shape[1:3]
        lr = padded(observation["lr"], (self.window, self.window))
        guide = padded(observation["guide"], (self.window * model.ratio, self.window * model.ratio))
        for stage in self.lr_encoder:
            lr = stage(lr)
        for stage in self.guide_encoder:
            guide = stage(guide)
        for of_guide, of_lr in zip(self.guide_cross, self.lr_cross, strict=True):
            guide, lr = of_guide(guide, lr), of_lr(lr, guide)
        x = jnp.concatenate([guide, lr], -1)
        for conv, step in zip(self.enlarge, reversed(self.factors), strict=True):
            x = nnx.relu(pixel_shuffle(conv(x), step))
        return self.tail(nnx.relu(self.refine(x)))[:, :height, :width]


def _adam(steps: int) -> optax.GradientTransformation:
    return optax.adam(optax.exponential_decay(1e-4, max(steps // 20, 1), 0.99, staircase=True))


def _patches(step: int) -> Layout:
    """A linear layer of patches, whose columns are all pixels of one channel after those of another."""
    return lambda array: torch_kernel(array.reshape(len(array), -1, step, step))


def _before_shuffle(step: int, layout: Layout) -> Layout:
    """Output channels in the order of `pixel_shuffle`; PyTorch has all pixels of one channel after those of another."""

    def moved(array: np.ndarray) -> np.ndarray:
        return layout(array.reshape(-1, step**2, *array.shape[1:]).swapaxes(0, 1).reshape(array.shape))

    return moved


def _queries(array: np.ndarray) -> np.ndarray:
    """Kernel of the queries in one of queries, keys and values."""
    return torch_kernel(array)[:, : len(array) // 3]


def _keys_and_values(array: np.ndarray) -> np.ndarray:
    return torch_kernel(array)[:, len(array) // 3 :]


def _stage(ours: str, theirs: str, step: int, cross: bool) -> Table:
    table = torch_layer(f"{ours}/embed", f"{theirs}.patch_partition.linear", _patches(step))
    for k in (0, 1):
        block, original = f"{ours}/blocks/{k}", f"{theirs}.layers.0.{k}"
        attention = f"{original}.attention_block.fn.fn"
        asks = (".to_q", torch_kernel) if cross else (".to_qkv", _queries)
        tells = (".to_kv", torch_kernel) if cross else (".to_qkv", _keys_and_values)
        table |= torch_norm(f"{block}/attention_norm", f"{original}.attention_block.fn.norm")
        table |= torch_layer(f"{block}/attention/query", attention + asks[0], asks[1], use_bias=False)
        table |= torch_layer(f"{block}/attention/key_value", attention + tells[0], tells[1], use_bias=False)
        table |= torch_layer(f"{block}/attention/out", f"{attention}.to_out")
        table[f"{block}/attention/positions"] = f"{attention}.pos_embedding", as_is
        table |= torch_norm(f"{block}/perceptron_norm", f"{original}.mlp_block.fn.norm")
        table |= torch_layer(f"{block}/perceptron/first", f"{original}.mlp_block.fn.fn.net.0")
        table |= torch_layer(f"{block}/perceptron/second", f"{original}.mlp_block.fn.fn.net.2")
    return table


def _release(network: PanFormer) -> Table:
    """The names in the release, whose enlargement has a shuffle and a rectifier after each of its convolutions."""
    table: Table = {}
    for k, step in enumerate(network.factors):
        table |= _stage(f"guide_encoder/{k}", f"pan_encoder.{k}", step, cross=False)
        table |= _stage(f"lr_encoder/{k}", f"ms_encoder.{k}", 1, cross=False)
    for k in range(len(network.lr_cross)):
        table |= _stage(f"guide_cross/{k}", f"pan_cross_ms.{k}", 1, cross=True)
        table |= _stage(f"lr_cross/{k}", f"ms_cross_pan.{k}", 1, cross=True)
    for k, step in enumerate(reversed(network.factors)):
        table[f"enlarge/{k}/kernel"] = f"HR_tail.{3 * k}.weight", _before_shuffle(step, torch_kernel)
        table[f"enlarge/{k}/bias"] = f"HR_tail.{3 * k}.bias", _before_shuffle(step, as_is)
    end = 3 * len(network.factors)
    return table | torch_layer("refine", f"HR_tail.{end}") | torch_layer("tail", f"HR_tail.{end + 2}")


PANFORMER = System(
    name="panformer",
    title="PanFormer",
    family="transformer",
    tasks=SPATIOSPECTRAL,
    paper=Paper(
        authors="H. Zhou, Q. Liu, Y. Wang",
        year=2022,
        title="PanFormer: a Transformer Based Model for Pan-sharpening",
        venue="IEEE International Conference on Multimedia and Expo",
        doi="10.1109/ICME52920.2022.9859770",
        code="https://github.com/zhysora/PanFormer",
    ),
    summary="Window transformers turn both images into features on the low-resolution grid, let each attend to the "
    "other, and enlarge the result by convolutions.",
    method=Trained(
        network=PanFormer,
        loss=mean_absolute_error,
        recipe=Recipe(
            optimiser=_adam,
            steps=200_000,
            patch=256,
            batch=4,
            note="Mean absolute error, Adam 1e-4, times 0.99 after every twentieth of the steps; "
            "images divided by their 99.9 % quantile (release: digital numbers).",
        ),
        tiny={"width": 8, "heads": 2, "stages": 1},
        compact={"width": 32, "heads": 4, "stages": 1},
        originals=(
            Original(
                file="pretrained.pth of the release, for GaoFen-2; it holds the whole program, so load it there and "
                "save the core module's state_dict()",
                table=_release,
                bands=Bands(4, 1, 4),
                scale=1,
                unused=r".*\.(upper_lower|left_right)_mask",
                note="Images are digital numbers (those divided by 1023 want --scale 0.0009775); the release clips the "
                "product to those of 10 bits.",
            ),
        ),
    ),
    differences="The product is not clipped; images are mirrored up to whole windows; ratios other than 4 are split "
    "into their prime factors; several guide bands share a patch; patches are not flipped.",
    parameters=(1_525_144, Bands(4, 1, 4)),
)
