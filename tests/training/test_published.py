"""Networks with the weights of a release compute what its own steps do, written out here in NumPy."""

import json
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy.io import savemat
from scipy.special import erf, softmax
from test_originals import Storage, Tensor, write_torch

from jfusion import catalogue
from jfusion.baselines.spatiospectral.fusionnet import FUSIONNET
from jfusion.catalogue import Bands, Trained
from jfusion.cli import main
from jfusion.errors import InputError
from jfusion.operators import Grid, ObservationModel, upsample
from jfusion.training import weights
from jfusion.training.originals.assign import load_original
from jfusion.training.originals.published import arrays_of_network, has_originals, published

Arrays = dict[str, np.ndarray]
Shapes = Iterator[tuple[str, tuple[int, ...]]]

# ----------------------------------------------------------------------------------------------------------------------
# Layers on one image (height, width, channel)


def correlate(x: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """A kernel `(height, width, in, out)` with zeros around the image, the odd one at the end; `size` is kept."""
    rows, columns = kernel.shape[:2]
    pads = [((n - 1) // 2, n // 2) for n in (rows, columns)]
    wide = np.pad(x, [*pads, (0, 0)])
    height, width = x.shape[:2]
    places = [(i, j) for i in range(rows) for j in range(columns)]
    return sum(wide[i : i + height, j : j + width] @ kernel[i, j] for i, j in places)  # type: ignore[return-value]


def lay(x: np.ndarray, kernel: np.ndarray, stride: int) -> np.ndarray:
    """All that kernels `(height, width, in, out)` laid down by each pixel sum up to, nothing cut off."""
    (height, width), (rows, columns) = x.shape[:2], kernel.shape[:2]
    out = np.zeros(((height - 1) * stride + rows, (width - 1) * stride + columns, kernel.shape[-1]))
    for i in range(rows):
        for j in range(columns):
            out[i : i + (height - 1) * stride + 1 : stride, j : j + (width - 1) * stride + 1 : stride] += (
                x @ kernel[i, j]
            )
    return out


def conv(a: Arrays, name: str, x: np.ndarray) -> np.ndarray:
    """PyTorch's convolution or linear layer."""
    kernel = a[f"{name}.weight"]
    kernel = kernel.T[None, None] if kernel.ndim == 2 else kernel.transpose(2, 3, 1, 0)
    return correlate(x, kernel) + a.get(f"{name}.bias", 0)


def linear(a: Arrays, name: str, x: np.ndarray) -> np.ndarray:
    return x @ a[f"{name}.weight"].T + a.get(f"{name}.bias", 0)


def layer_norm(a: Arrays, name: str, x: np.ndarray) -> np.ndarray:
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * a[f"{name}.weight"] + a[f"{name}.bias"]


def relu(x: np.ndarray, slope: np.ndarray | float = 0) -> np.ndarray:
    return np.where(x > 0, x, slope * x)


def attention(q: np.ndarray, k: np.ndarray, v: np.ndarray, heads: int, bias: np.ndarray | float = 0) -> np.ndarray:
    """Of tokens `(token, channel)`."""
    parts = zip(*(np.split(x, heads, -1) for x in (q, k, v)), strict=True)
    return np.concatenate([softmax(q @ k.T / np.sqrt(q.shape[1]) + bias, -1) @ v for q, k, v in parts], -1)


# ----------------------------------------------------------------------------------------------------------------------
# Releases: names and shapes of their arrays, and what they make of a low-resolution image y and a guide z


def layer(name: str, *shape: int, bias: bool = True) -> Shapes:
    yield f"{name}.weight", shape
    if bias:
        yield f"{name}.bias", shape[:1]


def toolbox_blocks() -> Shapes:
    for part in ("conv20", "conv21"):
        yield from layer(f"res1.{part}", 8, 8, 3, 3)
    yield from layer("conv3", 3, 8, 3, 3)


def toolbox_fusionnet() -> Shapes:
    yield from layer("conv1", 8, 3, 3, 3)
    yield from toolbox_blocks()


def toolbox_pannet() -> Shapes:
    yield from layer("deconv", 3, 3, 8, 8)
    yield from layer("conv1", 8, 4, 3, 3)
    yield from toolbox_blocks()


def body(a: Arrays, x: np.ndarray) -> np.ndarray:
    x = relu(conv(a, "conv1", x))
    return conv(a, "conv3", x + conv(a, "res1.conv21", relu(conv(a, "res1.conv20", x))))


def interpolated(y: np.ndarray, ratio: int, method: Any) -> np.ndarray:
    return np.asarray(upsample(jnp.asarray(y, jnp.float32), Grid.nested(ratio), method), np.float64)


def fusionnet(a: Arrays, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    image = interpolated(y, 4, "interp23")
    return image + body(a, z - image)


def pannet(a: Arrays, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    def details(x: np.ndarray) -> np.ndarray:
        wide = np.pad(x, ((2, 2), (2, 2), (0, 0)), "reflect")
        return x - sum(wide[i : i + len(x), j : j + x.shape[1]] for i in range(5) for j in range(5)) / 25

    large = lay(details(y), a["deconv.weight"].transpose(2, 3, 0, 1), 4)[2:-2, 2:-2] + a["deconv.bias"]
    return interpolated(y, 4, "interp23") + body(a, np.concatenate([large, details(z)], -1))


def slim_fusionnet() -> Shapes:
    for name, inputs, outputs in (("Conv", 3, 8), ("Conv_1", 8, 8), ("Conv_2", 8, 8), ("Conv_3", 8, 3)):
        yield f"net/{name}/weights", (3, 3, inputs, outputs)
        yield f"net/{name}/biases", (outputs,)


def fusionnet_of_slim(a: Arrays, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    def conv(name: str, x: np.ndarray) -> np.ndarray:
        return correlate(x, a[f"net/{name}/weights"]) + a[f"net/{name}/biases"]

    image = interpolated(y, 4, "interp23")
    x = relu(conv("Conv", z - image))
    return image + conv("Conv_3", x + conv("Conv_2", relu(conv("Conv_1", x))))


def gppnn_shapes() -> Shapes:
    for k in range(2):
        for block, first, seen, window in (("lr", "get_LR", 3, 3), ("pan", "get_PAN", 1, 1)):
            for unit, inputs, outputs in ((first, 3, seen), ("get_HR_residual", seen, 3), ("prox", 3, 3)):
                name = f"{block}_blocks.{k}.{unit}.basic_unit"
                yield from layer(f"{name}.0", 8, inputs, window, window, bias=False)
                yield from layer(f"{name}.2", outputs, 8, window, window, bias=False)


def gppnn(a: Arrays, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    """At ratio 1, where nothing is resized."""

    def unit(name: str, x: np.ndarray) -> np.ndarray:
        return conv(a, f"{name}.basic_unit.2", relu(conv(a, f"{name}.basic_unit.0", x)))

    x = y
    for k in range(2):
        for block, see, seen in (("lr", "get_LR", y), ("pan", "get_PAN", z)):
            name = f"{block}_blocks.{k}"
            x = unit(f"{name}.prox", x + unit(f"{name}.get_HR_residual", seen - unit(f"{name}.{see}", x)))
    return x


def swin_shapes(name: str, inputs: int, cross: bool) -> Shapes:
    yield from layer(f"{name}.patch_partition.linear", 8, inputs)
    for k in (0, 1):
        block = f"{name}.layers.0.{k}"
        inner = f"{block}.attention_block.fn.fn"
        yield from layer(f"{block}.attention_block.fn.norm", 8)
        yield from layer(f"{block}.mlp_block.fn.norm", 8)
        for part, outputs in (("to_q", 8), ("to_kv", 16)) if cross else (("to_qkv", 24),):
            yield from layer(f"{inner}.{part}", outputs, 8, bias=False)
        yield f"{inner}.pos_embedding", (7, 7)
        yield from layer(f"{inner}.to_out", 8, 8)
        yield from layer(f"{block}.mlp_block.fn.fn.net.0", 32, 8)
        yield from layer(f"{block}.mlp_block.fn.fn.net.2", 8, 32)
        if k:
            yield f"{inner}.upper_lower_mask", (16, 16)
            yield f"{inner}.left_right_mask", (16, 16)


def panformer_shapes() -> Shapes:
    for k, (guide, lr) in enumerate(((4, 3), (32, 8))):
        yield from swin_shapes(f"pan_encoder.{k}", guide, cross=False)
        yield from swin_shapes(f"ms_encoder.{k}", lr, cross=False)
    for stream in ("pan_cross_ms", "ms_cross_pan"):
        yield from swin_shapes(f"{stream}.0", 8, cross=True)
    for place, inputs, outputs in ((0, 16, 32), (3, 8, 32), (6, 8, 8), (8, 8, 3)):
        yield from layer(f"HR_tail.{place}", outputs, inputs, 3, 3)


def panformer(a: Arrays, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    def patches(name: str, x: np.ndarray, step: int) -> np.ndarray:
        height, width, channels = x.shape
        x = x.reshape(height // step, step, width // step, step, channels).transpose(0, 2, 4, 1, 3)
        return linear(a, f"{name}.patch_partition.linear", x.reshape(height // step, width // step, -1))

    def windows(name: str, x: np.ndarray, other: np.ndarray | None, shift: int) -> np.ndarray:
        asks = x if other is None else other
        if other is None:
            q, k, v = np.split(linear(a, f"{name}.to_qkv", x), 3, -1)
        else:
            q, (k, v) = linear(a, f"{name}.to_q", asks), np.split(linear(a, f"{name}.to_kv", x), 2, -1)
        side = np.stack(np.meshgrid(*map(np.arange, x.shape[:2]), indexing="ij"), -1)
        q, k, v, side = (np.roll(t, (-shift, -shift), (0, 1)) for t in (q, k, v, side))
        place = np.stack(np.divmod(np.arange(16), 4), -1)
        steps = place[None] - place[:, None] + 3
        bias, out = a[f"{name}.pos_embedding"][steps[..., 0], steps[..., 1]], np.zeros(q.shape)
        for i in range(0, len(x), 4):
            for j in range(0, x.shape[1], 4):
                at = (slice(i, i + 4), slice(j, j + 4))
                corner = side[at].reshape(16, 2) < shift
                apart = (corner[:, None] != corner[None]).any(-1)
                tokens = (t[at].reshape(16, -1) for t in (q, k, v))
                out[at] = attention(*tokens, 2, np.where(apart, -np.inf, bias)).reshape(4, 4, -1)
        return np.roll(linear(a, f"{name}.to_out", out), (shift, shift), (0, 1))

    def stage(name: str, x: np.ndarray, step: int, other: np.ndarray | None = None) -> np.ndarray:
        x, other = patches(name, x, step), None if other is None else patches(name, other, 1)
        for k in (0, 1):
            block = f"{name}.layers.0.{k}"
            normed = layer_norm(a, f"{block}.attention_block.fn.norm", x)
            x = x + windows(f"{block}.attention_block.fn.fn", normed, other, 2 * k)
            inner = linear(a, f"{block}.mlp_block.fn.fn.net.0", layer_norm(a, f"{block}.mlp_block.fn.norm", x))
            x = x + linear(a, f"{block}.mlp_block.fn.fn.net.2", inner * (1 + erf(inner / np.sqrt(2))) / 2)
        return x

    def shuffled(x: np.ndarray) -> np.ndarray:
        height, width = x.shape[:2]
        x = x.reshape(height, width, -1, 2, 2).transpose(0, 3, 1, 4, 2)
        return x.reshape(2 * height, 2 * width, -1)

    for k in (0, 1):
        z, y = stage(f"pan_encoder.{k}", z, 2), stage(f"ms_encoder.{k}", y, 1)
    z, y = stage("pan_cross_ms.0", z, 1, y), stage("ms_cross_pan.0", y, 1, z)
    x = np.concatenate([z, y], -1)
    for place in (0, 3):
        x = relu(shuffled(conv(a, f"HR_tail.{place}", x)))
    return conv(a, "HR_tail.8", relu(conv(a, "HR_tail.6", x)))


def fusformer_shapes() -> Shapes:
    yield from layer("Embedding.0", 4, 4)
    yield from layer("refine.0", 4, 4, 3, 3)
    yield from layer("refine.2", 3, 4, 3, 3)
    for name, attentions in (("T_E", 1), ("T_D", 2)):
        yield f"{name}.pos_embedding", (1, 64, 4)
        for k in range(attentions):
            block = f"{name}.layers.0.{k}.fn"
            yield from layer(f"{block}.norm", 4)
            yield from layer(f"{block}.fn.to_qkv", 12, 4, bias=False)
            yield from layer(f"{block}.fn.to_out.0", 4, 4)
        block = f"{name}.layers.0.{attentions}.fn"
        yield from layer(f"{block}.norm", 4)
        yield from layer(f"{block}.fn.net.0", 4, 4)
        yield from layer(f"{block}.fn.net.3", 4, 4)


def fusformer(a: Arrays, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    image = interpolated(y, 4, "cubic")
    x = linear(a, "Embedding.0", np.concatenate([image, z], -1)).reshape(-1, 4)
    for name, attentions in (("T_E", 1), ("T_D", 2)):
        for k in range(attentions):
            block = f"{name}.layers.0.{k}.fn"
            q, k_, v = np.split(linear(a, f"{block}.fn.to_qkv", layer_norm(a, f"{block}.norm", x)), 3, -1)
            x = x + linear(a, f"{block}.fn.to_out.0", attention(q, k_, v, 2))
        block = f"{name}.layers.0.{attentions}.fn"
        inner = relu(linear(a, f"{block}.fn.net.0", layer_norm(a, f"{block}.norm", x)), 0.01)
        x = x + linear(a, f"{block}.fn.net.3", inner)
    x = x.reshape(*z.shape[:2], -1)
    return image + conv(a, "refine.2", relu(conv(a, "refine.0", x), 0.01))


def batch_norm_shapes(name: str) -> Shapes:
    yield from layer(name, 4)
    yield f"{name}.running_mean", (4,)
    yield f"{name}.running_var", (4,)
    yield f"{name}.num_batches_tracked", ()


def tsfn_shapes() -> Shapes:
    for number, inputs in ((1, 3), (2, 1)):
        yield from layer(f"input_{number}.0", 4, inputs, 3, 3)
        yield from layer(f"input_{number}.1", 1, bias=False)
        block = f"residual_layers_{number}.0.0"
        yield from layer(f"{block}.prelu", 1, bias=False)
        for name in (f"{block}.conv1", f"{block}.conv2", f"output_{number}.0"):
            yield from layer(name, 4, 4, 3, 3)
        for name in (f"{block}.bn1", f"{block}.bn2", f"output_{number}.1"):
            yield from batch_norm_shapes(name)
    yield from layer("layer_fusion.0", 4, 8, 3, 3)
    yield from batch_norm_shapes("layer_fusion.1")
    yield from layer("layer_fusion.2", 1, bias=False)
    yield from layer("layer_fusion.3", 3, 4, 3, 3)


def tsfn(a: Arrays, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Before the correction by the physics."""

    def normed(conv_name: str, name: str, x: np.ndarray) -> np.ndarray:
        x = (conv(a, conv_name, x) - a[f"{name}.running_mean"]) / np.sqrt(a[f"{name}.running_var"] + 1e-5)
        return x * a[f"{name}.weight"] + a[f"{name}.bias"]

    def stream(number: int, x: np.ndarray) -> np.ndarray:
        block = f"residual_layers_{number}.0.0"
        x = relu(conv(a, f"input_{number}.0", x), a[f"input_{number}.1.weight"])
        inner = relu(normed(f"{block}.conv1", f"{block}.bn1", x), a[f"{block}.prelu.weight"])
        return normed(f"output_{number}.0", f"output_{number}.1", x + normed(f"{block}.conv2", f"{block}.bn2", inner))

    image = interpolated(y, 4, "cubic")
    x = normed("layer_fusion.0", "layer_fusion.1", np.concatenate([stream(1, image), stream(2, z)], -1))
    return image + conv(a, "layer_fusion.3", relu(x, a["layer_fusion.2.weight"]))


def level_shapes(name: str, channels: int, outputs: int, order: tuple[int, int, int]) -> Shapes:
    inner = channels + 3
    for number, (i, o) in zip(order, ((channels, inner), (inner, inner), (inner, outputs)), strict=True):
        yield f"{name}/weights{number}", (3, 3, i, o)
        for vector in ("biases", "scale", "beta"):
            yield f"{name}/{vector}{number}", (o,)


def mhf_shapes() -> Shapes:
    yield "YA1/A", (1, 1, 2, 3)
    yield "B", (1, 1, 2, 3)
    yield "TheCsX/Cfilter", (6, 6, 1, 1)
    yield "TheCsX/Cfilter2", (6, 6, 1, 1)
    for number in (2, 3, 4, 5):
        yield f"E1/Cfilter{number}", (3, 3, 3, 3)
    for number in (2, 3):
        yield from level_shapes(f"E1/Ajust{number}", 5, 3, (1, 2, 3))
    yield "E1/Blur", (4, 4, 3, 1)
    yield from level_shapes("Pri1/resCNN_1_1", 2, 2, (1, 3, 2))
    yield from level_shapes("FinalAjust/resCNN_101_1", 3, 3, (1, 3, 2))


def mhf(a: Arrays, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    def level(name: str, x: np.ndarray, order: tuple[int, int, int], guide: np.ndarray | None = None) -> np.ndarray:
        features = x if guide is None else np.concatenate([x, guide / 10], -1)
        for n in order:
            features = correlate(features, a[f"{name}/weights{n}"]) + a[f"{name}/biases{n}"]
            mean, variance = features.mean((0, 1)), features.var((0, 1))
            features = (features - mean) / np.sqrt(variance + 1e-5) * a[f"{name}/scale{n}"] + a[f"{name}/beta{n}"]
            features = relu(features)
        return x + features

    def seen(x: np.ndarray) -> list[np.ndarray]:
        sizes = []
        for name in ("Cfilter", "Cfilter2"):
            kernel = a[f"TheCsX/{name}"] * np.eye(x.shape[-1])
            x = correlate(x, kernel)[1:-1:4, 1:-1:4]
            sizes.append(x)
        return sizes

    def doubled(x: np.ndarray, number: int) -> np.ndarray:
        return lay(x, a[f"E1/Cfilter{number}"].swapaxes(2, 3), 2)[:-1, :-1]

    predicted = z @ a["YA1/A"][0, 0]
    e = seen(predicted)[1] - y
    e = level("E1/Ajust2", doubled(doubled(e, 2), 3), (1, 2, 3), seen(z)[0])
    e = level("E1/Ajust3", doubled(doubled(e, 4), 5), (1, 2, 3), z)
    e = correlate(e, a["E1/Blur"] * np.eye(3))
    hidden = level("Pri1/resCNN_1_1", -e @ a["B"][0, 0].T, (1, 3, 2))
    return level("FinalAjust/resCNN_101_1", predicted + hidden @ a["B"][0, 0], (1, 3, 2))


def before_physics(network: Any, observation: Any, model: ObservationModel) -> Any:
    return network.learn(observation, model, running=True)[-1]


RELEASES: dict[str, tuple[str, int, Bands, Callable[[], Shapes], Callable[..., np.ndarray]]] = {
    "fusionnet of the toolbox": ("fusionnet", 0, Bands(3, 1, 4), toolbox_fusionnet, fusionnet),
    "fusionnet of its authors": ("fusionnet", 1, Bands(3, 1, 4), slim_fusionnet, fusionnet_of_slim),
    "pannet": ("pannet", 0, Bands(3, 1, 4), toolbox_pannet, pannet),
    "gppnn": ("gppnn", 0, Bands(3, 1, 1), gppnn_shapes, gppnn),
    "panformer": ("panformer", 0, Bands(3, 1, 4), panformer_shapes, panformer),
    "fusformer": ("fusformer", 0, Bands(3, 1, 4), fusformer_shapes, fusformer),
    "tsfn": ("tsfn", 0, Bands(3, 1, 4), tsfn_shapes, tsfn),
    "mhf_net": ("mhf_net", 0, Bands(3, 2, 16), mhf_shapes, mhf),
}
"""System, which of its originals, bands; the arrays of the release at tiny sizes, and its steps."""


def drawn(shapes: Shapes) -> Arrays:
    """Small numbers, positive for scales and variances."""
    rng = np.random.default_rng(5)
    arrays = {name: 0.3 * rng.standard_normal(shape).astype(np.float32) for name, shape in shapes}
    return {name: np.abs(a) + 0.1 if "running_var" in name or "scale" in name else a for name, a in arrays.items()}


@pytest.mark.parametrize("name", RELEASES)
def test_a_network_computes_what_its_release_does(name: str) -> None:
    system, place, bands, shapes, steps = RELEASES[name]
    method = catalogue.get(system).method
    assert isinstance(method, Trained)
    network = method.network(bands, rngs=nnx.Rngs(0), **method.tiny)
    original, arrays = method.originals[place], drawn(shapes())
    table = original.table(network)
    own = arrays_of_network(arrays, {name for name, _ in table.values()}, original.unused)
    load_original(network, own, table)
    network.eval()
    rng = np.random.default_rng(6)
    side = {"fusformer": 4, "mhf_net": 2}.get(system, 8)
    y, z = rng.random((side, side, bands.lr)), rng.random((side * bands.ratio, side * bands.ratio, bands.guide))
    work = nnx.jit(before_physics if system == "tsfn" else lambda network, *pair: network(*pair))
    observation = {"lr": jnp.asarray(y[None], jnp.float32), "guide": jnp.asarray(z[None], jnp.float32)}
    found = work(network, observation, ObservationModel({}, Grid.nested(bands.ratio)))
    expected = steps({name: a.astype(np.float64) for name, a in arrays.items()}, y, z)
    np.testing.assert_allclose(found[0], expected, atol=2e-4 * np.abs(expected).max())


def test_every_original_is_tested() -> None:
    rows = {name: row.method for name, row in catalogue.systems().items() if has_originals(row)}
    known = {(name, k) for name, method in rows.items() for k in range(len(method.originals))}  # type: ignore[union-attr]
    assert known == {(system, place) for system, place, *_ in RELEASES.values()} | {("cnn_fus", 0)}


# ----------------------------------------------------------------------------------------------------------------------
# Files


def matconvnet(a: Arrays, image: np.ndarray, noise: float) -> np.ndarray:
    """The layers of FFDNet's file, of which every second from the third on is a convolution."""
    height, width = image.shape
    x = np.full((height // 2, width // 2, 5), noise)
    for k in range(4):
        x[..., k] = image[k % 2 :: 2, k // 2 :: 2]
    last = len(a) - 2
    for k in range(0, len(a), 2):
        x = correlate(x, a[f"layers/{k + 2}/weights/0"]) + a[f"layers/{k + 2}/weights/1"].ravel()
        x = x if k == last else relu(x)
    out = np.zeros(image.shape)
    for k in range(4):
        out[k % 2 :: 2, k // 2 :: 2] = x[..., k]
    return out


def write_ffdnet(path: Path) -> Arrays:
    """A file in the published form with small random weights, and its arrays by place."""
    rng, sizes = np.random.default_rng(7), [5, *[64] * 14, 4]
    layers: list[dict] = [{"type": "SubP"}, {"type": "concat"}]
    arrays: Arrays = {}
    for k, (inputs, outputs) in enumerate(pairwise(sizes)):
        cell = np.empty((1, 2), object)
        cell[0] = [
            (rng.standard_normal((3, 3, inputs, outputs)) / np.sqrt(4 * inputs)).astype(np.float32),
            (rng.standard_normal((outputs, 1)) / 10).astype(np.float32),
        ]
        layers += [{"type": "conv", "weights": cell}, {"type": "relu"}]
        arrays |= {f"layers/{2 * k + 2}/weights/{j}": cell[0, j].astype(np.float64) for j in (0, 1)}
    net = np.empty((1, len(layers) - 1), object)
    net[0] = layers[:-1]
    savemat(path, {"net": {"layers": net}})
    return arrays


def test_ffdnet_file_gives_cnn_fus_its_denoiser(tmp_path: Path, capsys) -> None:
    arrays = write_ffdnet(tmp_path / "FFDNet.mat")
    command = ["import", "cnn_fus", str(tmp_path / "FFDNet.mat"), str(tmp_path / "net.safetensors")]
    command += ["--bands", "5", "2", "2"]
    assert main(command) == 2
    assert "no one number that images are divided by" in capsys.readouterr().err
    assert main([*command, "--scale", "7"]) == 0
    assert "CNN-Fus for 5 + 2 bands at ratio 2; images are divided by 7. The release" in capsys.readouterr().err
    network = weights.load(tmp_path / "net.safetensors")
    assert (network.bands, network.scale) == (Bands(5, 2, 2), 7)
    image = np.random.default_rng(8).random((6, 8))
    denoise = nnx.jit(lambda net, image: net(image, jnp.asarray(0.2)))
    expected = matconvnet(arrays, image, 0.2)
    found = denoise(network.module.denoiser, jnp.asarray(image, jnp.float32))
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


def published_shapes() -> Shapes:
    """FusionNet's at the published size."""
    yield from layer("conv1", 32, 8, 3, 3)
    for k in range(1, 5):
        yield from layer(f"res{k}.conv20", 32, 32, 3, 3)
        yield from layer(f"res{k}.conv21", 32, 32, 3, 3)
    yield from layer("conv3", 8, 32, 3, 3)


def tensor(array: np.ndarray, key: str) -> Tensor:
    strides = tuple(int(n) // array.itemsize for n in array.strides)
    return Tensor(Storage(key, "FloatStorage", array.ravel()), 0, array.shape, strides)


def write_checkpoint(path: Path) -> Arrays:
    """A file with the blocks' second names, an optimiser and a module around the network."""
    arrays = drawn(published_shapes())
    state = {f"module.{name}": tensor(a, name) for name, a in arrays.items()}
    state |= {f"module.backbone.{n[3]}{n[4:]}": tensor(a, n) for n, a in arrays.items() if n.startswith("res")}
    moments = {k: {"exp_avg": tensor(a, f"{k}")} for k, a in enumerate(arrays.values())}
    write_torch(path, "zip", {"state_dict": state, "optimizer": {"state": moments}, "epoch": 3})
    return arrays


def test_a_checkpoint_with_more_than_the_network(tmp_path: Path) -> None:
    arrays = write_checkpoint(tmp_path / "net.pth")
    network, original = published(FUSIONNET, tmp_path / "net.pth")
    assert (network.bands, network.scale, network.sizes) == (Bands(8, 1, 4), 2047, {})
    assert original.table(network.module)["tail/bias"][0] == "conv3.bias"
    np.testing.assert_array_equal(network.module.blocks[2].second.bias[...], arrays["res3.conv21.bias"])
    with pytest.raises(InputError, match=r"of another shape: head/kernel \(3, 3, 4, 32\) from conv1.weight"):
        published(FUSIONNET, tmp_path / "net.pth", bands=Bands(4, 1, 4))
    with pytest.raises(InputError, match=r"no published weights are known for psgan; they are for .*fusionnet"):
        published(catalogue.get("psgan"), tmp_path / "net.pth")


def test_what_only_training_needs_is_left_out() -> None:
    one = np.ones(1)
    slots = ["net/a/Adam", "net/a/Adam_1", "beta1_power", "train/beta2_power", "global_step", "a.num_batches_tracked"]
    assert arrays_of_network({"net/a": one, **dict.fromkeys(slots, one)}, ["net/a"]) == {"net/a": one}
    assert arrays_of_network({"p.a": one, "p.c": one, "q.b": one}, ["a", "b"]) == {"a": one, "c": one}
    assert arrays_of_network({"a": one, "c.d": one, "x": one}, ["a"], r"c\..*") == {"a": one, "x": one}


def test_show_names_the_file(capsys) -> None:
    assert main(["show", "pannet"]) == 0
    assert "pannet.pth of the DLPan toolbox" in " ".join(capsys.readouterr().out.split())
    assert main(["show", "fusionnet", "--json"]) == 0
    assert [w["scale"] for w in json.loads(capsys.readouterr().out)["published_weights"]] == [2047, 2047]
