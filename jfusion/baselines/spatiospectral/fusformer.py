"""Fusformer: a transformer whose tokens are pixels finds the details that the interpolated image lacks.

Hu, Huang, Deng, Dou, Hong, Vivone, "Fusformer: A Transformer-Based Fusion Network for Hyperspectral Image
Super-Resolution", IEEE GRSL 19, 2022, doi:10.1109/LGRS.2022.3194257, arXiv 2109.02079; code:
github.com/J-FHu/Fusformer.

With M the interpolated low-resolution image and Z the guide,

    product = M + r(d(e(L [M, Z])))

L is a linear map of each pixel to 48 channels. The encoder e has two layers and the decoder d two; a layer is one
attention (two in the decoder) and one perceptron, each of the normalised tokens and added to them:

    x <- x + attention(norm(x)),   x <- x + perceptron(norm(x))

Each pixel attends to all pixels of an image of 64 x 64, in 3 heads; there is no embedding of positions. The perceptron
is as wide inside as outside, with a leaky ReLU. r is a 3x3 convolution, leaky ReLU and a 3x3 convolution to the bands.
111,247 parameters for 31 + 3 bands, whatever the ratio.

Training: mean absolute error, Adam at 1e-3, divided by ten after every 200 of 1000 epochs, batches of 3 patches of
64 x 64 pixels, data within 0 to 1. All layers start as PyTorch's; the release has another initialisation and does not
call it.

Differences from the release:

- The interpolated image and the product are not clipped to [0, 1]; the release clips in place, which stops the gradient
  outside, and with it the training of such pixels.
- The release declares two embeddings of 4096 positions and adds them nowhere; they are left out.
- Any size: an image of more than 64 pixels is split evenly into windows of at most 64 x 64, and pixels attend to those
  of their window; the last row and column are mirrored where the windows do not come out even, and the product is
  cropped. The release does the same by hand with the patches of an image, but for the convolutions, which here see
  beyond the window.
- M is cubic interpolation with Keys' a = -1/2 (PyTorch: -3/4), where its pixels really lie on the fine grid.
"""

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax import Array, lax

from jfusion.catalogue import Bands, Original, Paper, Recipe, System, Table, Trained
from jfusion.layers.attention import Perceptron, attend, from_windows, layer_norm, linear, padded, to_windows
from jfusion.layers.conv import Conv
from jfusion.layers.init import torch_bias
from jfusion.layers.layouts import torch_layer, torch_norm
from jfusion.operators.observation import Observation, ObservationModel
from jfusion.operators.resample import upsample
from jfusion.tasks import SPATIOSPECTRAL
from jfusion.training.losses import mean_absolute_error

PAIRS = 64**4
"""Pairs of tokens that are compared at a time: those of one published window."""


class Attention(nnx.Module):
    """Attention of all tokens to all, of the normalised tokens and added to them."""

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs) -> None:
        self.norm = layer_norm(width, rngs=rngs)
        self.query_key_value = linear(width, 3 * width, use_bias=False, rngs=rngs)
        self.out = linear(width, width, rngs=rngs)
        self.heads = heads

    def __call__(self, x: Array) -> Array:
        query, key, value = jnp.split(self.query_key_value(self.norm(x)), 3, -1)
        return x + self.out(attend(query, key, value, self.heads))


class Layer(nnx.Module):
    """One attention or more and a perceptron."""

    def __init__(self, width: int, heads: int, attentions: int, *, rngs: nnx.Rngs) -> None:
        self.attentions = nnx.List(Attention(width, heads, rngs=rngs) for _ in range(attentions))
        self.norm = layer_norm(width, rngs=rngs)
        self.perceptron = Perceptron(width, width, jax.nn.leaky_relu, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        for attention in self.attentions:
            x = attention(x)
        return x + self.perceptron(self.norm(x))


class Fusformer(nnx.Module):
    """The network of Hu et al., 2022.

    Args:
        width: channels of a token.
        heads: of each attention; they divide the width.
        depth: layers of the encoder, and of the decoder.
        window: largest side, in pixels, of the windows within which pixels attend to each other.
    """

    def __init__(
        self, bands: Bands, *, width: int = 48, heads: int = 3, depth: int = 2, window: int = 64, rngs: nnx.Rngs
    ) -> None:
        self.embed = linear(bands.lr + bands.guide, width, rngs=rngs)
        self.encoder = nnx.List(Layer(width, heads, 1, rngs=rngs) for _ in range(depth))
        self.decoder = nnx.List(Layer(width, heads, 2, rngs=rngs) for _ in range(depth))
        self.refine = Conv(width, width, 3, bias_init=torch_bias(9 * width), rngs=rngs)
        self.tail = Conv(width, bands.lr, 3, bias_init=torch_bias(9 * width), rngs=rngs)
        self.window = window

    def __call__(self, observation: Observation, model: ObservationModel) -> Array:
        """``(batch, height, width, band)``, in the units of the observation, from "lr" and "guide"."""
        interpolated = upsample(observation["lr"], model.grid, "cubic")
        features = self.transform(self.embed(jnp.concatenate([interpolated, observation["guide"]], -1)))
        return interpolated + self.tail(jax.nn.leaky_relu(self.refine(features)))

    def transform(self, features: Array) -> Array:
        """Encoder and decoder in windows, as many at a time as hold `PAIRS`; shape in is shape out."""
        height, width = features.shape[1:3]
        rows, columns = (-(-n // -(-n // self.window)) for n in (height, width))
        windows = to_windows(padded(features, (rows, columns)), (rows, columns))
        tokens = windows.reshape(-1, *windows.shape[-2:])
        at_once = max(PAIRS // tokens.shape[1] ** 2, 1)
        if len(tokens) <= at_once:
            tokens = self.layers(tokens)
        else:
            tokens = lax.map(self.layers, tokens, batch_size=at_once)
        return from_windows(tokens.reshape(windows.shape), (rows, columns))[:, :height, :width]

    def layers(self, tokens: Array) -> Array:
        """Encoder and decoder: ``(..., token, channel)`` to the same."""
        for layer in (*self.encoder, *self.decoder):
            tokens = layer(tokens)
        return tokens


def _adam(steps: int) -> optax.GradientTransformation:
    return optax.adam(optax.piecewise_constant_schedule(1e-3, {k * steps // 5: 0.1 for k in range(1, 5)}))


def _release(network: Fusformer) -> Table:
    """The names in the release."""
    table = torch_layer("embed", "Embedding.0") | torch_layer("refine", "refine.0") | torch_layer("tail", "refine.2")
    for part, name in (("encoder", "T_E"), ("decoder", "T_D")):
        for k, layer in enumerate(getattr(network, part)):
            ours, theirs, last = f"{part}/{k}", f"{name}.layers.{k}", len(layer.attentions)
            for j in range(last):
                attention, original = f"{ours}/attentions/{j}", f"{theirs}.{j}.fn"
                table |= torch_norm(f"{attention}/norm", f"{original}.norm")
                table |= torch_layer(f"{attention}/query_key_value", f"{original}.fn.to_qkv", use_bias=False)
                table |= torch_layer(f"{attention}/out", f"{original}.fn.to_out.0")
            table |= torch_norm(f"{ours}/norm", f"{theirs}.{last}.fn.norm")
            table |= torch_layer(f"{ours}/perceptron/first", f"{theirs}.{last}.fn.fn.net.0")
            table |= torch_layer(f"{ours}/perceptron/second", f"{theirs}.{last}.fn.fn.net.3")
    return table


FUSFORMER = System(
    name="fusformer",
    title="Fusformer",
    family="transformer",
    tasks=SPATIOSPECTRAL,
    paper=Paper(
        authors="J.-F. Hu, T.-Z. Huang, L.-J. Deng, H.-X. Dou, D. Hong, G. Vivone",
        year=2022,
        title="Fusformer: A Transformer-Based Fusion Network for Hyperspectral Image Super-Resolution",
        venue="IEEE Geoscience and Remote Sensing Letters 19",
        doi="10.1109/LGRS.2022.3194257",
        code="https://github.com/J-FHu/Fusformer",
    ),
    summary="Each pixel of the interpolated image and the guide attends to all others; convolutions turn the result "
    "into the missing details.",
    method=Trained(
        network=Fusformer,
        loss=mean_absolute_error,
        recipe=Recipe(
            optimiser=_adam,
            steps=1_045_000,
            patch=64,
            batch=3,
            note="Mean absolute error, Adam 1e-3, divided by ten after each fifth of the steps; 1000 epochs, which are "
            "1,045 steps each if CAVE gives 3,136 patches (the release does not say).",
        ),
        tiny={"width": 4, "heads": 2, "depth": 1, "window": 16},
        compact={"window": 8},
        originals=(
            Original(
                file="Trained_model/1000.pth of the release, for CAVE",
                table=_release,
                bands=Bands(31, 3, 4),
                scale=1,
                unused=r"T_[ED]\.pos_embedding",
                note="Images go from 0 to 1, to which the release clips the interpolated image and the product.",
            ),
        ),
    ),
    differences="Nothing is clipped to [0, 1]; the unused embeddings of positions are left out; images of more than 64 "
    "pixels are split evenly into windows; cubic interpolation is Keys'.",
    parameters=(111_247, Bands(31, 3, 4)),
)
