"""Releases: names and shapes of their arrays at tiny sizes, and what they make of a pair, in NumPy."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from release_layers import (
    Arrays,
    Shapes,
    attention,
    conv,
    correlate,
    depthwise,
    enlarged,
    interpolated,
    lay,
    layer,
    layer_norm,
    linear,
    relu,
    sampled,
    shrunk,
    slim_layer,
)
from scipy.special import erf, expit, softmax

from jfusion.catalogue import Bands

Layered = Callable[..., np.ndarray]
"""What layers of a name make of images."""


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
        yield from slim_layer(f"net/{name}", 3, 3, inputs, outputs)


def fusionnet_of_slim(a: Arrays, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    def conv(name: str, x: np.ndarray) -> np.ndarray:
        return correlate(x, a[f"net/{name}/weights"]) + a[f"net/{name}/biases"]

    image = interpolated(y, 4, "interp23")
    x = relu(conv("Conv", z - image))
    return image + conv("Conv_3", x + conv("Conv_2", relu(conv("Conv_1", x))))


def psgan_shapes() -> Shapes:
    """With a layer of the critic and an average that the training keeps."""
    sizes = {"4": (3, 32, 32), "5": (3, 32, 32), "6": (3, 32, 64)}
    for number, bands in ((1, 3), (2, 1)):
        sizes |= {f"{k}_{number}": size for k, size in enumerate(((3, bands, 8), (3, 8, 8), (2, 8, 16)), 1)}
    for name, (window, inputs, outputs) in sizes.items():
        yield f"generator/encoder_{name}/conv/filter", (window, window, inputs, outputs)
    for k, window, inputs, outputs in (
        (7, 1, 64, 64), (8, 3, 64, 64), (10, 3, 64, 32), (12, 3, 48, 16), (13, 3, 16, 3),
    ):  # fmt: skip
        yield f"generator/decoder_{k}/conv/filter", (window, window, inputs, outputs)
    for k, inputs in ((9, 64), (11, 32)):
        yield f"generator/decoder_{k}/strided_conv/filter", (2, 2, 32, inputs)
    yield "discriminator/layer_1/conv/filter", (3, 3, 6, 8)
    yield "generator_loss/Mean/ExponentialMovingAverage", ()


def psgan(a: Arrays, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    def layer(name: str, x: np.ndarray, step: int = 1) -> np.ndarray:
        return shrunk(x, a[f"generator/{name}/conv/filter"], step)

    def leaky(name: str, x: np.ndarray, step: int = 1) -> np.ndarray:
        return layer(name, relu(x, 0.2), step)

    def doubled(k: int, x: np.ndarray) -> np.ndarray:
        return enlarged(relu(x, 0.2), a[f"generator/decoder_{k}/strided_conv/filter"], 2)

    fine, half = {}, {}
    for number, image in ((1, interpolated(y, 4, "bilinear")), (2, z)):
        fine[number] = leaky(f"encoder_2_{number}", layer(f"encoder_1_{number}", image))
        half[number] = leaky(f"encoder_3_{number}", fine[number], 2)
    merged = leaky("encoder_5", leaky("encoder_4", np.concatenate([half[2], half[1]], -1)))
    x = leaky("decoder_8", leaky("decoder_7", leaky("encoder_6", merged, 2)))
    x = leaky("decoder_10", np.concatenate([doubled(9, x), merged], -1))
    x = leaky("decoder_12", np.concatenate([doubled(11, x), fine[2], fine[1]], -1))
    return relu(leaky("decoder_13", x))


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


def levelled(
    a: Arrays, name: str, x: np.ndarray, order: tuple[int, int, int], guide: np.ndarray | None = None, last: bool = True
) -> np.ndarray:
    """A level of MHF-Net, with a rectifier at the end of CMHF's and none at that of BMHF's."""
    features = x if guide is None else np.concatenate([x, guide / 10], -1)
    for k, n in enumerate(order):
        features = correlate(features, a[f"{name}/weights{n}"]) + a[f"{name}/biases{n}"]
        mean, variance = features.mean((0, 1)), features.var((0, 1))
        features = (features - mean) / np.sqrt(variance + 1e-5) * a[f"{name}/scale{n}"] + a[f"{name}/beta{n}"]
        features = relu(features) if k < 2 or last else features
    return x + features


def doubled_by(kernel: np.ndarray, x: np.ndarray) -> np.ndarray:
    """TensorFlow's transposed 3 x 3 convolution of step 2, `(height, width, out, in)`."""
    return lay(x, kernel.swapaxes(2, 3), 2)[:-1, :-1]


def mhf(a: Arrays, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    level = partial(levelled, a)

    def seen(x: np.ndarray) -> list[np.ndarray]:
        sizes = []
        for name in ("Cfilter", "Cfilter2"):
            kernel = a[f"TheCsX/{name}"] * np.eye(x.shape[-1])
            x = correlate(x, kernel)[1:-1:4, 1:-1:4]
            sizes.append(x)
        return sizes

    def doubled(x: np.ndarray, number: int) -> np.ndarray:
        return doubled_by(a[f"E1/Cfilter{number}"], x)

    predicted = z @ a["YA1/A"][0, 0]
    e = seen(predicted)[1] - y
    e = level("E1/Ajust2", doubled(doubled(e, 2), 3), (1, 2, 3), seen(z)[0])
    e = level("E1/Ajust3", doubled(doubled(e, 4), 5), (1, 2, 3), z)
    e = correlate(e, a["E1/Blur"] * np.eye(3))
    hidden = level("Pri1/resCNN_1_1", -e @ a["B"][0, 0].T, (1, 3, 2))
    return level("FinalAjust/resCNN_101_1", predicted + hidden @ a["B"][0, 0], (1, 3, 2))


def bmhf_shapes() -> Shapes:
    """With the last kernel of the network that shrinks the prediction, which reaches nothing."""

    def shrinking(name: str, channels: int) -> Shapes:
        yield name, (3, 3, channels, 2 * channels)
        for k in range(4):
            yield f"{name}{k}", (3, 3, 2 * channels, 2 * channels)

    yield from shrinking("GetPrior", 2)
    for k in (1, 2):
        yield from shrinking(f"E{k}/downAdj", 4)
        for number, inputs, outputs in ((1, 8, 8), (2, 8, 8), (3, 8, 8), (4, 8, 4), (5, 4, 4)):
            yield f"E{k}/Cfilter{number}", (3, 3, outputs, inputs)
        for number, channels, outputs in ((1, 12, 8), (2, 12, 8), (3, 6, 4)):
            yield from level_shapes(f"E{k}/Ajust{number}", channels, outputs, (1, 2, 3))
        yield f"E{k}/Blur", (4, 4, 4, 1)
        yield from level_shapes(f"Pri{k}/resCNN_{k}_1", 2, 2, (1, 3, 2))
    yield from level_shapes("FinalAjust/resCNN_101_1", 4, 4, (1, 3, 2))


def bmhf(a: Arrays, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    """At ratio 32 with means over its pixels, which have neither a border nor another way round."""

    def level(name: str, x: np.ndarray, order: tuple[int, int, int], guide: np.ndarray | None = None) -> np.ndarray:
        return levelled(a, name, x, order, guide, last=False)

    def means(x: np.ndarray) -> np.ndarray:
        return x.reshape(len(x) // 32, 32, x.shape[1] // 32, 32, -1).mean((1, 3))

    def sizes(name: str, x: np.ndarray) -> list[np.ndarray]:
        fourth = correlate(correlate(x, a[name]), a[f"{name}0"])[1::4, 1::4]
        sixteenth = correlate(correlate(fourth, a[f"{name}1"])[::2, ::2], a[f"{name}2"])[::2, ::2]
        return [fourth, sixteenth, correlate(sixteenth, a[f"{name}3"])[::2, ::2]]

    def back(scope: str, e: np.ndarray) -> np.ndarray:
        x = sizes(f"{scope}/downAdj", e.repeat(32, 0).repeat(32, 1) / 32**2)[-1]
        for number, doublings, guide in ((1, (1,), sixteenth), (2, (2, 3), fourth), (3, (4, 5), z)):
            for doubling in doublings:
                x = doubled_by(a[f"{scope}/Cfilter{doubling}"], x)
            x = level(f"{scope}/Ajust{number}", x, (1, 2, 3), guide)
        return correlate(x, a[f"{scope}/Blur"] * np.eye(4))

    seen, spectra = means(z).reshape(-1, 2), y.reshape(-1, 4)
    predict = np.linalg.lstsq(seen, spectra, rcond=None)[0]
    basis = np.linalg.svd(spectra - seen @ predict, full_matrices=False)[2][:2]
    basis = basis * np.sign(basis.sum(1, keepdims=True))
    predicted = z @ predict
    fourth, sixteenth, _ = sizes("GetPrior", predicted[..., ::2])
    x, hidden = predicted, np.zeros((*z.shape[:2], 2))
    for k in (1, 2):
        hidden = hidden - back(f"E{k}", means(x) - y) @ basis.T
        hidden = level(f"Pri{k}/resCNN_{k}_1", hidden, (1, 3, 2))
        x = predicted + hidden @ basis
    return level("FinalAjust/resCNN_101_1", x, (1, 3, 2))


def dhif_shapes(windows: tuple[int, ...]) -> Shapes:
    yield from layer("conv", 2, 4, 3, 3)
    yield from layer("R.0", 1, 3, 3, 3)
    yield from layer("RT.0", 3, 1, 3, 3)
    for k, window in enumerate(windows):
        for name in ("B", "BT"):
            yield from layer(f"{name}.{2 * k}", 3, 3, window, window)
    for t in range(2):
        yield from layer(f"Den_con{t + 1}", 2, 2 * t + 2, 3, 3)
        yield f"eta_{t}", (1,)
        yield f"lamda_{t}", (1,)
    for name, inputs, outputs in (("Encoder.E1", 2, 2), ("Encoder.E2", 2, 4), ("Decoder.D1", 6, 4)):
        yield from layer(f"{name}.0", outputs, inputs, 3, 3)
        yield from layer(f"{name}.2", outputs, outputs, 3, 3)
    for name in ("K_1", "K_2", "K_3"):
        yield from layer(f"Decoder.{name}.0", 4, 4, 3, 3)
        yield from layer(f"Decoder.{name}.2", 4, 4, 3, 3)
        yield from layer(f"Decoder.{name}.4", 9, 4, 1, 1)


def dhif(a: Arrays, y: np.ndarray, z: np.ndarray, step: int, layers: int) -> np.ndarray:
    """With steps of 8 or 4 pixels, so many of them."""

    def down(name: str, x: np.ndarray) -> np.ndarray:
        return shrunk(x, a[f"{name}.weight"].transpose(2, 3, 1, 0), step) + a[f"{name}.bias"]

    def up(name: str, x: np.ndarray) -> np.ndarray:
        return enlarged(x, a[f"{name}.weight"].transpose(2, 3, 1, 0), step) + a[f"{name}.bias"]

    def sensor(name: str, through: Callable[[str, np.ndarray], np.ndarray], x: np.ndarray, count: int) -> np.ndarray:
        for k in range(count):
            x = relu(through(f"{name}.{2 * k}", x), 0.01)
        return x

    def pixels(name: str, x: np.ndarray) -> np.ndarray:
        return conv(a, name, x)

    def two(name: str, x: np.ndarray) -> np.ndarray:
        return relu(conv(a, f"{name}.2", relu(conv(a, f"{name}.0", x))))

    def along(axis: int, taps: np.ndarray, x: np.ndarray) -> np.ndarray:
        taps = taps.reshape(*x.shape[:2], 3, -1)
        taps = taps / np.linalg.norm(taps, axis=2, keepdims=True)
        wide = np.pad(x, [(int(k == axis),) * 2 for k in range(3)], "constant" if axis == 2 else "edge")
        return sum(taps[:, :, k] * wide.take(range(k, k + x.shape[axis]), axis) for k in range(3))

    x, features = interpolated(y, step**layers, "cubic"), []
    for t in range(2):
        features.append(conv(a, "conv", np.concatenate([x, z], -1)))
        large = two("Encoder.E1", conv(a, f"Den_con{t + 1}", np.concatenate(features, -1)))
        height, width, channels = large.shape
        small = two("Encoder.E2", large.reshape(height // 2, 2, width // 2, 2, channels).mean((1, 3)))
        found, u = two("Decoder.D1", np.concatenate([large, interpolated(small, 2, "cubic")], -1)), x
        for name, axis in (("K_1", 1), ("K_2", 0), ("K_3", 2)):
            u = along(axis, conv(a, f"Decoder.{name}.4", two(f"Decoder.{name}", found)), u)
        guide = sensor("RT", pixels, sensor("R", pixels, x, 1) - z, 1)
        lr = sensor("BT", up, sensor("B", down, x, layers) - y, layers)
        x = x - 2 * a[f"eta_{t}"] * (guide + lr + a[f"lamda_{t}"] * (x - u))
    return x


def admm_shapes() -> Shapes:
    """With what reaches nothing of the guide's way down."""

    def back_projection(name: str) -> Shapes:
        yield from slim_layer(f"{name}/output1", 6, 6, 4, 4)
        yield from slim_layer(f"{name}/output3", 8, 8, 4, 4)
        for place, guide in ((1, 4), (3, 2)):
            for k, (inputs, outputs) in enumerate(((4 + guide, 6), (6, 6), (6, 4))):
                yield from slim_layer(f"{name}/prior{place}/output{k + 1}", 3, 3, inputs, outputs)

    for stage, bands in ((0, 2), (1, 4), (2, 4)):
        yield from slim_layer(f"fusion_net/BD_stage{stage}/output1", 8, 8, bands, 4)
        yield from slim_layer(f"fusion_net/BD_stage{stage}/output3", 6, 6, 4, 4)
        yield from slim_layer(f"fusion_net/spectral_up_stage{stage}/EZ", 3, 3, 2, 4)
        yield from back_projection(f"fusion_net/BDT_stage{stage}")
    for stage in (1, 2):
        yield from slim_layer(f"fusion_net/spectral_down_stage{stage}/z_es", 3, 3, 4, 2)
        for letter, numbers in (("t", range(6)), ("h", range(4)), ("g", range(2)), ("d", range(1, 5))):
            for k in numbers:
                yield f"fusion_net/stage{stage}_{letter}{k}", ()
        for k in (1, 2, 3):
            yield f"fusion_net/stage{stage}_eta{k}", ()
            yield f"fusion_net/stage{stage}_mu{k}", ()
    yield from slim_layer("fusion_net/final", 3, 3, 8, 4)


def admm(a: Arrays, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    """With two stages and two singular vectors, at ratio 8."""

    def layer(name: str, x: np.ndarray, step: int = 1) -> np.ndarray:
        return shrunk(x, a[f"fusion_net/{name}/weights"], step) + a[f"fusion_net/{name}/biases"]

    def up(name: str, x: np.ndarray, step: int) -> np.ndarray:
        return enlarged(x, a[f"fusion_net/{name}/weights"], step) + a[f"fusion_net/{name}/biases"]

    def down(k: int, x: np.ndarray) -> np.ndarray:
        half = relu(layer(f"BD_stage{k}/output1", x, 4), 0.2)
        return relu(layer(f"BD_stage{k}/output3", half, 2), 0.2)

    def adjusted(name: str, x: np.ndarray, guide: np.ndarray) -> np.ndarray:
        inner = np.concatenate([x, guide], -1)
        for k in (1, 2, 3):
            inner = relu(layer(f"{name}/output{k}", inner), 0.2)
        return x + inner

    def back(k: int, x: np.ndarray) -> np.ndarray:
        x = adjusted(f"BDT_stage{k}/prior1", up(f"BDT_stage{k}/output1", x, 2), small)
        return adjusted(f"BDT_stage{k}/prior3", up(f"BDT_stage{k}/output3", x, 4), z)

    def from_lr(k: int, x: np.ndarray) -> np.ndarray:
        return back(k, down(k, x) - y)

    def from_guide(k: int, x: np.ndarray) -> np.ndarray:
        seen = relu(layer(f"spectral_down_stage{k}/z_es", x), 0.2)
        return layer(f"spectral_up_stage{k}/EZ", seen - z)

    small = relu(layer("BD_stage0/output1", z, 4), 0.2)
    basis = np.linalg.svd(y.reshape(-1, 4), full_matrices=False)[2][:2].T
    t, pv = layer("spectral_up_stage0/EZ", z), back(0, y)
    v = np.zeros((*z.shape[:2], 2))
    sparse, g, h, estimates = v, v, np.zeros(t.shape), []
    for k in (1, 2):
        start = f"fusion_net/stage{k}_"
        n = {name.removeprefix(start): number for name, number in a.items() if name.startswith(start)}
        v = n["t0"] * v - n["t1"] * from_guide(k, pv) @ basis + n["t2"] * sparse + n["t3"] * g
        v = v + n["t4"] * (t - n["t5"] * h) @ basis
        pv = v @ basis.T
        t = n["h0"] * t - n["h1"] * from_lr(k, t) + n["h2"] * pv + n["h3"] * h
        sparse = v - n["g0"] * g
        sparse = np.sign(sparse) * relu(np.abs(sparse) - n["g1"])
        g = n["eta1"] * g + n["eta2"] * sparse - n["eta3"] * v
        h = n["mu1"] * h + n["mu2"] * pv - n["mu3"] * t
        x = t - n["d1"] * from_guide(k, t) - n["d2"] * from_lr(k, t)
        estimates.append(x - n["d3"] * (t - sparse @ basis.T) - n["d4"] * (t - pv))
    return layer("final", np.concatenate(estimates, -1))


def mog_shapes() -> Shapes:
    """With the numbers and slopes that reach nothing."""
    yield "P", (3, 1)
    for name in ("acti", "spatial.acti"):
        yield from layer(name, 1, bias=False)
    for k in range(7):
        yield f"delta_{k}", ()
        yield f"eta_{k}", ()
    for k, inputs in enumerate((3, 6, 6, 6)):
        yield from layer(f"fe_conv{k + 1}", 2, inputs, 3, 3)
    for name in ("conv_downsample", "conv_upsample"):
        yield from layer(name, 3, 3, 9, 9)
    yield from layer("conv_torgb", 1, 3, 3, 3)
    yield from layer("conv_tohsi", 3, 1, 3, 3)
    for block in ("block1", "block2", "block_end"):
        name = f"spatial.Encoding_{block}"
        yield from layer(f"{name}.act", 1, bias=False)
        for k, outputs in enumerate((2, 2, 2, 4)):
            yield from layer(f"{name}.conv{k + 1}", outputs, 2, 3, 3)
        if block != "block_end":
            yield from layer(f"{name}.conv5", 2, 4, 3, 3)
    for block, inputs, outputs, window in (("block1", 4, 16, 1), ("block_End", 16, 3, 3)):
        name = f"spatial.Decoding_{block}"
        yield from layer(f"{name}.act", 1, bias=False)
        yield f"{name}.up.weight", (inputs, 4, 3, 3)
        yield f"{name}.up.bias", (4,)
        for k, seen in enumerate((8, 4, 4)):
            yield from layer(f"{name}.conv{k}", 4, seen, 3, 3)
        yield from layer(f"{name}.conv3", outputs, 4, window, window)


def mog(a: Arrays, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    """With two stages and three scales, at ratio 4; two of its signs are not those of the problem."""

    def side_by_side(*images: np.ndarray) -> np.ndarray:
        return np.concatenate(images, -1)

    def down(name: str, x: np.ndarray, step: int) -> np.ndarray:
        return conv(a, name, x)[::step, ::step]

    def up(name: str, x: np.ndarray, step: int) -> np.ndarray:
        kernel = a[f"{name}.weight"].transpose(2, 3, 0, 1)
        first, (height, width) = len(kernel) // 2, x.shape[:2]
        wide = np.pad(lay(x, kernel, step), ((0, step), (0, step), (0, 0)))
        return wide[first : first + step * height, first : first + step * width] + a[f"{name}.bias"]

    def rectified(name: str, x: np.ndarray) -> np.ndarray:
        return relu(x, a[f"{name}.act.weight"])

    def encode(name: str, x: np.ndarray) -> np.ndarray:
        for k in (1, 2, 3):
            x = rectified(name, conv(a, f"{name}.conv{k}", x))
        return conv(a, f"{name}.conv4", x)

    def decode(name: str, x: np.ndarray, features: np.ndarray) -> np.ndarray:
        x = side_by_side(up(f"{name}.up", x, 2), features)
        for k in (0, 1, 2):
            x = rectified(name, conv(a, f"{name}.conv{k}", x))
        return conv(a, f"{name}.conv3", x)

    def denoise(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        features = []
        for k in (1, 2):
            name = f"spatial.Encoding_block{k}"
            features.append(encode(name, x))
            x = rectified(name, down(f"{name}.conv5", features[-1], 2))
        x = decode("spatial.Decoding_block1", encode("spatial.Encoding_block_end", x), features[1])
        return decode("spatial.Decoding_block_End", x, features[0]), features[0]

    def towards_guide(x: np.ndarray) -> np.ndarray:
        return conv(a, "conv_tohsi", z - conv(a, "conv_torgb", x))

    x, before = interpolated(y, 4, "cubic"), []
    for t in (0, 1):
        features = side_by_side(conv(a, "fe_conv1", x), *before)
        residual, found = denoise(conv(a, "fe_conv3", features) if t else features)
        before.append(found)
        delta, eta = a["delta_0"], a["eta_0"]
        w = (1 - delta - delta * eta) * x + delta * towards_guide(x) + delta * (x - eta * (x + residual))
        residual, _ = denoise(conv(a, f"fe_conv{2 * t + 2}", side_by_side(conv(a, "fe_conv1", w), found)))
        cleaned = w + residual
        delta, eta = a["delta_3"], a["eta_3"]
        lr = up("conv_upsample", down("conv_downsample", x, 4) - y, 4)
        x = (1 - delta * eta) * x + delta * (towards_guide(x) + lr + eta * cleaned)
    return cleaned


def dbin_shapes() -> Shapes:
    for scope in ("fusion_net", "fusion_net/recursive"):
        yield from slim_layer(f"{scope}/py/lms", 6, 6, 3, 3)
        yield from slim_layer(f"{scope}/py/in", 3, 3, 5, 6)
        for name in ("res01", "res02"):
            yield from slim_layer(f"{scope}/py/{name}", 3, 3, 6, 6)
        yield from slim_layer(f"{scope}/py/out", 3, 3, 6, 3)
    yield from slim_layer("fusion_net/recursive/dy", 6, 6, 3, 3)
    yield from slim_layer("fusion_net/recursive/dz", 3, 3, 3, 2)
    yield from slim_layer("fusion_net/Conv", 3, 3, 9, 3)


def boosted(fuse: Layered, layer: Layered, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    """All estimates of DBIN+ and EDBIN at ratio 4, side by side: a first one and two that follow."""
    estimates = [fuse("fusion_net/py", y, z)]
    for _ in range(2):
        x = estimates[-1]
        left = y - relu(layer("fusion_net/recursive/dy", x, 4), 0.2), z - relu(layer("fusion_net/recursive/dz", x), 0.2)
        estimates.append(x + fuse("fusion_net/recursive/py", *left))
    return np.concatenate(estimates, -1)


def dbin(a: Arrays, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    def layer(name: str, x: np.ndarray, step: int = 1) -> np.ndarray:
        return shrunk(x, a[f"{name}/weights"], step) + a[f"{name}/biases"]

    def fuse(scope: str, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        large = enlarged(y, a[f"{scope}/lms/weights"], 4) + a[f"{scope}/lms/biases"]
        x = relu(layer(f"{scope}/in", np.concatenate([large, z], -1)), 0.2)
        x = x + relu(layer(f"{scope}/res02", relu(layer(f"{scope}/res01", x), 0.2)), 0.2)
        return relu(layer(f"{scope}/out", x), 0.2)

    return layer("fusion_net/Conv", boosted(fuse, layer, y, z))


def bounded_shapes(name: str, *shape: int) -> Shapes:
    yield f"{name}/kernel", shape
    yield f"{name}/bias", shape[-1:]
    yield f"{name}/u", (1, shape[-1])


def edbin_shapes() -> Shapes:
    for scope in ("fusion_net", "fusion_net/recursive"):
        for k in (0, 1):
            yield from slim_layer(f"{scope}/py/w{k}", 3, 3, 3, 3)
            yield from slim_layer(f"{scope}/py/w1{k}", 3, 3, 3, 100)
        yield from bounded_shapes(f"{scope}/py/in", 3, 3, 5, 6)
        for place, inputs, outputs in ((1, 6, 4), (2, 4, 6)):
            yield from bounded_shapes(f"{scope}/py/res0{place}", 3, 3, 6, 6)
            yield f"{scope}/py/se0{place}/kernel", (inputs, outputs)
            yield f"{scope}/py/se0{place}/bias", (outputs,)
        yield from bounded_shapes(f"{scope}/py/out", 3, 3, 6, 3)
    yield from bounded_shapes("fusion_net/recursive/dy", 6, 6, 3, 3)
    yield from bounded_shapes("fusion_net/recursive/dz", 3, 3, 3, 2)
    yield from bounded_shapes("fusion_net/out_conv", 3, 3, 9, 3)


def edbin(a: Arrays, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    def bounded(name: str) -> np.ndarray:
        matrix = a[f"{name}/kernel"].reshape(-1, a[f"{name}/kernel"].shape[-1])
        left = matrix @ a[f"{name}/u"][0]
        left = left / np.linalg.norm(left)
        return 0.7 * a[f"{name}/kernel"] / np.linalg.norm(left @ matrix)

    def layer(name: str, x: np.ndarray, step: int = 1) -> np.ndarray:
        return shrunk(x, bounded(name), step) + a[f"{name}/bias"]

    def slim(name: str, x: np.ndarray) -> np.ndarray:
        return correlate(x, a[f"{name}/weights"]) + a[f"{name}/biases"]

    def doubled(scope: str, k: int, x: np.ndarray) -> np.ndarray:
        """From the nearest pixels of the doubled image, every other one of 9 x 9."""
        rows, columns = 2 * x.shape[0], 2 * x.shape[1]
        scores = slim(f"{scope}/w1{k}", relu(slim(f"{scope}/w{k}", x))).reshape(*x.shape[:2], 2, 2, 25)
        weights = softmax(scores.transpose(0, 2, 1, 3, 4).reshape(rows, columns, 25), -1)
        wide = np.pad(x.repeat(2, 0).repeat(2, 1), ((4, 4), (4, 4), (0, 0)))
        near = [wide[i : i + rows, j : j + columns] for i in range(0, 10, 2) for j in range(0, 10, 2)]
        return np.einsum("ijk,kijc->ijc", weights, np.stack(near))

    def fuse(scope: str, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        large = doubled(scope, 1, doubled(scope, 0, y))
        x = relu(layer(f"{scope}/in", np.concatenate([large, z], -1)), 0.2)
        inner = layer(f"{scope}/res02", relu(layer(f"{scope}/res01", x), 0.2))
        gate = relu(inner.mean((0, 1)) @ a[f"{scope}/se01/kernel"] + a[f"{scope}/se01/bias"])
        gate = expit(gate @ a[f"{scope}/se02/kernel"] + a[f"{scope}/se02/bias"])
        return layer(f"{scope}/out", x + inner * gate)

    return correlate(boosted(fuse, layer, y, z), bounded("fusion_net/out_conv"))


def spfnet_shapes() -> Shapes:
    """With the priors of the last of the published stages, which reach nothing."""
    for name in ("B", "Bt"):
        yield from slim_layer(f"spat_fusion/fus_subnet_0/{name}", 6, 6, 3, 3)
    for k in (0, 1):
        yield f"spat_fusion/R{k}", (2, 4)
        yield from slim_layer(f"spat_fusion/fus_subnet_{k}_0/fus", 3, 3, 12, 3)
        yield from slim_layer(f"spat_fusion/out{k}", 3, 3, 4, 4)
    for k in (0, 4):
        for name in ("d1", "d2", "d3", "cnn", "u1", "u2", "u3"):
            yield from slim_layer(f"spat_fusion/down{k}/{name}", 3, 3, 3, 3)
        for name in ("u1", "cnn", "d1"):
            yield from slim_layer(f"spat_fusion/up{k}/{name}", 3, 3, 3, 3)


def spfnet(a: Arrays, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    """With the largest entry of each singular vector negative."""

    def layer(name: str, x: np.ndarray, step: int = 1) -> np.ndarray:
        return relu(shrunk(x, a[f"spat_fusion/{name}/weights"], step) + a[f"spat_fusion/{name}/biases"], 0.2)

    def back(name: str, x: np.ndarray, step: int = 2) -> np.ndarray:
        return enlarged(x, a[f"spat_fusion/{name}/weights"], step) + a[f"spat_fusion/{name}/biases"]

    def shrinking(x: np.ndarray) -> np.ndarray:
        half = layer("down0/d1", x, 2)
        quarter = layer("down0/d2", half, 2)
        eighth = layer("down0/d3", quarter, 2)
        quarter = quarter + relu(back("down0/u3", eighth + layer("down0/cnn", eighth)), 0.2)
        half = half + relu(back("down0/u2", quarter), 0.2)
        return x + relu(back("down0/u1", half), 0.2)

    def enlarging(x: np.ndarray) -> np.ndarray:
        large = relu(back("up0/u1", x), 0.2)
        return x + layer("up0/d1", large + layer("up0/cnn", large), 2)

    basis = np.linalg.svd(y.reshape(-1, 4).T, full_matrices=False)[0][:, :3]
    basis = -basis * np.sign(basis[np.abs(basis).argmax(0), range(3)])
    s = v = d = w = e = np.zeros((*z.shape[:2], 3))
    products = []
    for k in (0, 1):
        spatial = back("fus_subnet_0/Bt", layer("fus_subnet_0/B", s, 4) - y @ basis, 4)
        mixed = a[f"spat_fusion/R{k}"] @ basis
        spectral = s @ (mixed.T @ mixed) - z @ mixed
        s = s - layer(f"fus_subnet_{k}_0/fus", np.concatenate([spatial, spectral, s - v - d, s - w - e], -1))
        if k == 0:
            v, w = shrinking(s - d), enlarging(s - e)
            d, e = d - (s - v), e - (s - w)
        products.append(correlate(s @ basis.T, a[f"spat_fusion/out{k}/weights"]) + a[f"spat_fusion/out{k}/biases"])
    return sum(products) / 2


def vp_shapes() -> Shapes:
    for k in range(7):
        for variable in ("Variable", "Variable_1", "Variable_2"):
            yield f"conv_{k}/{variable}", ()
        sizes = {4: (3, 8), 0: (1, 8), 1: (8, 8), 11: (8, 8), 2: (8, 8), 22: (8, 8), 3: (8, 3)}
        for place, (number, (inputs, outputs)) in enumerate(sizes.items()):
            yield f"conv_{k}/weight_bias_scope/Weights_{number}", (3, 3, inputs, outputs)
            yield f"conv_{k}/weight_bias_scope{f'_{place}' if place else ''}/biases_{number}", (outputs,)


def vp(a: Arrays, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    def enlarged(x: np.ndarray) -> np.ndarray:
        """TensorFlow 1's bilinear one, whose small pixels lie on the first of each four."""
        for axis in (0, 1):
            n = x.shape[axis]
            matrix = np.stack([np.interp(np.arange(4 * n) / 4, np.arange(n), e) for e in np.eye(n)])
            x = np.moveaxis(np.tensordot(x, matrix, (axis, 0)), -1, axis)
        return x

    image = enlarged(y)
    mean = image.mean(-1, keepdims=True)
    x, q = image, mean
    for k in range(7):

        def conv(x: np.ndarray, *numbers: int, k: int = k) -> np.ndarray:
            for place, number in enumerate(numbers):
                x = correlate(relu(x) if place else x, a[f"conv_{k}/weight_bias_scope/Weights_{number}"])
            return x

        rho, mu, theta = (a[f"conv_{k}/{variable}"] for variable in ("Variable", "Variable_1", "Variable_2"))
        x = (x - rho * enlarged(x[::4, ::4] - y) + mu * q * image / (mean + 0.1)) / (1 + mu)
        turned = x * mean / (image + 0.1)
        scene, guide = conv(conv(turned, 4), 1, 11), conv(conv(z, 0), 1, 11)
        matched = np.sign(scene) * relu(np.abs(scene - guide) - theta) + guide
        q = turned + conv(conv(matched, 2, 22), 3)
    return x


def dl_vm_shapes() -> Shapes:
    for place, inputs, outputs in ((0, 8, 4), (2, 4, 4), (5, 4, 8)):
        yield f"layers/{place}/weights/0", (3, 3, inputs, outputs)
        yield f"layers/{place}/weights/1", (outputs, 1)
    yield "layers/3/weights/0", (4, 1)
    yield "layers/3/weights/1", (4, 1)
    yield "layers/3/weights/2", (4, 2)


def dl_vm(a: Arrays, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    """The gradients that the variational problem asks for, and those of the guide; they end at the border."""

    def conv(place: int, x: np.ndarray) -> np.ndarray:
        return correlate(x, a[f"layers/{place}/weights/0"]) + a[f"layers/{place}/weights/1"][:, 0]

    images = np.concatenate([interpolated(y, 4, "cubic"), z], -1)
    rows = np.diff(images, axis=1, append=images[:, -1:])
    columns = np.diff(images, axis=0, append=images[-1:])
    gradients = np.concatenate([rows, columns], -1)
    mean, deviation = a["layers/3/weights/2"].T
    x = (conv(2, relu(conv(0, gradients))) - mean) / deviation
    x = relu(x * a["layers/3/weights/0"][:, 0] + a["layers/3/weights/1"][:, 0])
    return gradients + conv(5, x)


def lgt_block_shapes(name: str, width: int) -> Shapes:
    mixer, channels, half = f"{name}.0.fn", f"{name}.1.fn", width // 2
    yield from layer(f"{mixer}.norm", width)
    yield from layer(f"{mixer}.fn.local_mixer.to_qkv", 3 * half, half, 1, 1)
    yield f"{mixer}.fn.local_mixer.pos_emb", (1, 2, 16, 16)
    yield from layer(f"{mixer}.fn.global_mixer.conv_amp.0", half, 1, 1, 1)
    yield from layer(f"{mixer}.fn.global_mixer.conv_pha.0", half, 1, 1, 1)
    yield from layer(f"{mixer}.fn.proj", width, width, 1, 1)
    yield from layer(f"{channels}.norm", width)
    yield from layer(f"{channels}.fn.net.0", 4 * width, width, 1, 1)
    yield from layer(f"{channels}.fn.net.2.point_conv", 4 * width, 4 * width, 1, 1)
    yield from layer(f"{channels}.fn.net.2.depth_conv", 4 * width, 1, 3, 3)
    yield from layer(f"{channels}.fn.net.4", width, 4 * width, 1, 1)


def lgteun_shapes() -> Shapes:
    for name in ("D.1", "D.3", "DT.1", "DT.3"):
        yield from layer(name, 3, 1, 3, 3)
    yield from layer("R", 1, 3, 1, 1)
    yield from layer("RT", 3, 1, 1, 1)
    for k in (0, 1):
        yield f"eta.{k}", ()
        prior = f"prior_module.{k}"
        yield from layer(f"{prior}.patch_embed.proj.0", 3, 1, 1, 1)
        yield from layer(f"{prior}.patch_embed.proj.1", 8, 3, 1, 1)
        yield from layer(f"{prior}.patch_embed.norm", 8)
        yield from lgt_block_shapes(f"{prior}.encoder_layers.0.0.blocks.0", 8)
        yield from layer(f"{prior}.encoder_layers.0.1.1", 16, 8, 1, 1)
        yield from lgt_block_shapes(f"{prior}.bottleneck.blocks.0", 16)
        yield from layer(f"{prior}.decoder_layers.0.0.1", 8, 16, 1, 1)
        yield from layer(f"{prior}.decoder_layers.0.1", 8, 16, 1, 1)
        yield from lgt_block_shapes(f"{prior}.decoder_layers.0.2.blocks.0", 8)
        yield from layer(f"{prior}.tail.1", 3, 8, 1, 1)


def lgteun(a: Arrays, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Of both priors only the last reaches the product."""

    def near(name: str, x: np.ndarray) -> np.ndarray:
        parts, out = np.split(conv(a, f"{name}.to_qkv", x), 3, -1), np.zeros(x.shape)
        for i in range(0, len(x), 4):
            for j in range(0, x.shape[1], 4):
                at = (slice(i, i + 4), slice(j, j + 4))
                tokens = (part[at].reshape(16, -1) for part in parts)
                out[at] = attention(*tokens, 2, a[f"{name}.pos_emb"][0]).reshape(4, 4, -1)
        return out

    def far(name: str, x: np.ndarray) -> np.ndarray:
        spectrum = np.fft.rfft2(x, axes=(0, 1))
        amplitude = depthwise(a, f"{name}.conv_amp.0", np.abs(spectrum))
        phase = depthwise(a, f"{name}.conv_pha.0", np.arctan2(spectrum.imag + 0.0, spectrum.real))
        return np.abs(np.fft.irfft2(amplitude * np.exp(1j * phase), x.shape[:2], (0, 1)))

    def gelu(x: np.ndarray) -> np.ndarray:
        return x * (1 + erf(x / np.sqrt(2))) / 2

    def block(name: str, x: np.ndarray) -> np.ndarray:
        mixer, channels = f"{name}.0.fn", f"{name}.1.fn"
        first, second = np.split(layer_norm(a, f"{mixer}.norm", x), 2, -1)
        halves = near(f"{mixer}.fn.local_mixer", first), far(f"{mixer}.fn.global_mixer", second)
        x = x + conv(a, f"{mixer}.fn.proj", np.concatenate(halves, -1))
        inner = gelu(conv(a, f"{channels}.fn.net.0", layer_norm(a, f"{channels}.norm", x)))
        inner = conv(a, f"{channels}.fn.net.2.point_conv", inner)
        return x + conv(a, f"{channels}.fn.net.4", gelu(depthwise(a, f"{channels}.fn.net.2.depth_conv", inner)))

    x = interpolated(y, 4, "cubic")
    for k in (0, 1):
        low = depthwise(a, "D.3", sampled(depthwise(a, "D.1", sampled(x, 2)), 2)) - y
        back = depthwise(a, "DT.1", interpolated(low, 2, "cubic"))
        back = depthwise(a, "DT.3", interpolated(back, 2, "cubic"))
        x = x - a[f"eta.{k}"] * (back + conv(a, "RT", conv(a, "R", x) - z))
    prior = "prior_module.1"
    embedded = conv(a, f"{prior}.patch_embed.proj.1", depthwise(a, f"{prior}.patch_embed.proj.0", x))
    wide = block(f"{prior}.encoder_layers.0.0.blocks.0", layer_norm(a, f"{prior}.patch_embed.norm", embedded))
    deep = block(f"{prior}.bottleneck.blocks.0", conv(a, f"{prior}.encoder_layers.0.1.1", sampled(wide, 2)))
    up = conv(a, f"{prior}.decoder_layers.0.0.1", interpolated(deep, 2, "cubic"))
    joined = conv(a, f"{prior}.decoder_layers.0.1", np.concatenate([up, wide], -1))
    return x + conv(a, f"{prior}.tail.1", block(f"{prior}.decoder_layers.0.2.blocks.0", joined))


def pancsc_shapes() -> Shapes:
    yield "Variable", ()
    for name, channels in (("x", 3), ("y", 3), ("z", 6)):
        for kernel, inputs, outputs in (("_00", channels, 8), ("_01", 8, channels), (f"{name}_01", channels, 8)):
            yield f"W{name}{kernel}", (4, 4, inputs, outputs)
        yield f"lam{name}_00", (1, 8)
        yield f"lam{name}_01", (1, 8)
    for name in ("Wdx", "Wdy", "Rez", "Reu", "Rev"):
        yield name, (4, 4, 8, 3)


def pancsc(a: Arrays, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    def shrink(x: np.ndarray, name: str) -> np.ndarray:
        return np.sign(x) * relu(np.abs(x) - relu(a[name]))

    def code(name: str, x: np.ndarray) -> np.ndarray:
        seen = correlate(x, a[f"W{name}_00"])
        first = shrink(seen, f"lam{name}_00")
        again = correlate(correlate(first, a[f"W{name}_01"]), a[f"W{name}{name}_01"])
        return shrink(seen + first - again, f"lam{name}_01")

    image, pan = interpolated(y, 4, "cubic"), np.tile(z, 3)
    u, v = code("x", pan), code("y", image)
    rest = code("z", np.concatenate([z - correlate(u, a["Wdx"]), image - correlate(v, a["Wdy"])], -1))
    return correlate(rest, a["Rez"]) + correlate(u, a["Reu"]) + correlate(v, a["Rev"])


def batch_norm_moments(name: str, width: int, end: str = "") -> Shapes:
    for part in ("gamma", "beta", "moving_mean", "moving_variance"):
        yield f"{name}/{part}{end}", (width,)


def centred(a: Arrays, name: str, x: np.ndarray, end: str = "") -> np.ndarray:
    """The batch norm of Keras and of TensorFlow's layers."""
    gamma, beta, mean, variance = (a[key] for key, _ in batch_norm_moments(name, 0, end))
    return (x - mean) / np.sqrt(variance + 1e-3) * gamma + beta


def tonwmd_shapes() -> Shapes:
    yield "first_Conv/W", (3, 3, 3, 4)
    for place in ("left_top", "right_top", "left_bottom", "right_bottom"):
        for name in ("g_x", "theta_x", "phi_x"):
            yield f"{place}/{name}/W", (1, 1, 4, 2)
        yield f"{place}/y_just/W", (1, 1, 2, 4)
    layers = {"0": (3, 4, 4), "1": (3, 4, 3), "_in1": (1, 11, 4), "_in21": (1, 11, 2), "_in22": (3, 2, 2)}
    for number, (window, inputs, outputs) in layers.items():
        yield f"conv{number}/W", (window, window, inputs, outputs)
        yield f"conv{number}/b", (outputs,)
        yield f"conv{number}/prelu_alphas", (outputs,)
        if not number.startswith("_"):
            yield from batch_norm_moments(f"conv{number}/BN", outputs)
    yield "final_just/W", (1, 1, 6, 3)


def tonwmd(a: Arrays, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    """What its network makes of a piece, whose four quarters are 4 x 4."""

    def region(place: str, x: np.ndarray) -> np.ndarray:
        g, theta, phi = (x.reshape(16, -1) @ a[f"{place}/{name}/W"][0, 0] for name in ("g_x", "theta_x", "phi_x"))
        drawn = softmax(theta @ phi.T, -1) @ g @ a[f"{place}/y_just/W"][0, 0]
        return x + drawn.reshape(x.shape)

    def activated(name: str, x: np.ndarray) -> np.ndarray:
        x = correlate(x, a[f"{name}/W"]) + a[f"{name}/b"]
        x = centred(a, f"{name}/BN", x) if f"{name}/BN/beta" in a else x
        return relu(x, a[f"{name}/prelu_alphas"])

    x = correlate(y, a["first_Conv/W"])
    for place, rows, columns in (
        ("left_top", slice(4), slice(4)), ("right_top", slice(4), slice(4, 8)),
        ("left_bottom", slice(4, 8), slice(4)), ("right_bottom", slice(4, 8), slice(4, 8)),
    ):  # fmt: skip
        x[rows, columns] = region(place, x[rows, columns])
    made = [x]
    for k in (0, 1):
        made.append(activated(f"conv{k}", made[-1]))
    everything = np.concatenate(made, -1)
    narrow = activated("conv_in22", activated("conv_in21", everything))
    wide = activated("conv_in1", everything)
    return y + correlate(np.concatenate([narrow, wide], -1), a["final_just/W"])


def dhsis_shapes() -> Shapes:
    """As Keras names them in a file, with an array of its optimiser."""
    for number, inputs, outputs in ((11, 3, 4), (12, 4, 4), (13, 4, 4), (30, 4, 3)):
        name = f"model_weights/conv{number}/conv{number}"
        yield f"{name}/kernel:0", (3, 3, inputs, outputs)
        yield f"{name}/bias:0", (outputs,)
    for number in (12, 13):
        yield from batch_norm_moments(f"model_weights/conv{number}_bn/conv{number}_bn", 4, ":0")
    yield "optimizer_weights/training/Adam/Variable:0", (3, 3, 3, 4)


def dhsis(a: Arrays, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    """What its network makes of an image."""

    def layer(number: int, x: np.ndarray) -> np.ndarray:
        name = f"model_weights/conv{number}/conv{number}"
        return correlate(x, a[f"{name}/kernel:0"]) + a[f"{name}/bias:0"]

    x = relu(layer(11, y))
    for number in (12, 13):
        name = f"conv{number}_bn"
        x = relu(centred(a, f"model_weights/{name}/{name}", layer(number, x), ":0"))
    return y + layer(30, x)


# ----------------------------------------------------------------------------------------------------------------------


def product(network: Any, observation: Any, model: Any) -> Any:
    return network(observation, model)


def before_physics(network: Any, observation: Any, model: Any) -> Any:
    return network.learn(observation, model, running=True)[-1]


def between_solutions(network: Any, observation: Any, model: Any) -> Any:
    """What stands between two solutions in closed form, on any image."""
    image = observation["lr"]
    return image + network.residual(image, running=True)


def gradients(network: Any, observation: Any, model: Any) -> Any:
    _, seen = network.seen(observation, model)
    return seen + network.network(seen, running=True)


class Release(NamedTuple):
    """A release.

    Attributes:
        system: in the catalogue, whose network is built at its tiny sizes.
        place: among its originals.
        bands: of the pair.
        shapes: of the release's arrays, by name.
        steps: what the release makes of its arrays, a low-resolution image and a guide `(height, width, band)`.
        side: of the low-resolution image.
        ours: what is to be the same of our network.
        sizes: of our network, in the place of tiny ones.
        centre: of the first low-resolution pixel on both axes, that of nested grids by default.
    """

    system: str
    place: int
    bands: Bands
    shapes: Callable[[], Shapes]
    steps: Callable[[Arrays, np.ndarray, np.ndarray], np.ndarray]
    side: int = 8
    ours: Callable[..., Any] = product
    sizes: dict[str, Any] = {}  # noqa: RUF012
    centre: float | None = None


RELEASES = {
    "fusionnet of the toolbox": Release("fusionnet", 0, Bands(3, 1, 4), toolbox_fusionnet, fusionnet),
    "fusionnet of its authors": Release("fusionnet", 1, Bands(3, 1, 4), slim_fusionnet, fusionnet_of_slim),
    "pannet": Release("pannet", 0, Bands(3, 1, 4), toolbox_pannet, pannet),
    "gppnn": Release("gppnn", 0, Bands(3, 1, 1), gppnn_shapes, gppnn),
    "panformer": Release("panformer", 0, Bands(3, 1, 4), panformer_shapes, panformer),
    "fusformer": Release("fusformer", 0, Bands(3, 1, 4), fusformer_shapes, fusformer, side=4),
    "tsfn": Release("tsfn", 0, Bands(3, 1, 4), tsfn_shapes, tsfn, ours=before_physics),
    "mhf_net": Release("mhf_net", 0, Bands(3, 2, 16), mhf_shapes, mhf, side=2),
    "bmhf_net": Release("bmhf_net", 0, Bands(4, 2, 32), bmhf_shapes, bmhf, side=2, sizes={"stages": 3, "every": 2}),
    "dhif_net at 8": Release(
        "dhif_net", 0, Bands(3, 1, 8), partial(dhif_shapes, (12,)), partial(dhif, step=8, layers=1), side=3
    ),
    "dhif_net at 16": Release(
        "dhif_net", 1, Bands(3, 1, 16), partial(dhif_shapes, (6, 6)), partial(dhif, step=4, layers=2), side=2
    ),
    "admm_hfnet": Release("admm_hfnet", 0, Bands(4, 2, 8), admm_shapes, admm, side=4, sizes={"rank": 2}),
    "mog_dcn": Release("mog_dcn", 0, Bands(3, 1, 4), mog_shapes, mog, sizes={"scales": 3}),
    "psgan": Release("psgan", 0, Bands(3, 1, 4), psgan_shapes, psgan),
    "tonwmd": Release("tonwmd", 0, Bands(3, 1, 4), tonwmd_shapes, tonwmd, ours=between_solutions),
    "dhsis": Release("dhsis", 0, Bands(3, 1, 4), dhsis_shapes, dhsis, ours=between_solutions, sizes={"depth": 4}),
    "dbin": Release("dbin", 0, Bands(3, 2, 4), dbin_shapes, dbin),
    "edbin": Release("edbin", 0, Bands(3, 2, 4), edbin_shapes, edbin),
    "spfnet": Release("spfnet", 0, Bands(4, 2, 4), spfnet_shapes, spfnet),
    "vp_net": Release("vp_net", 0, Bands(3, 1, 4), vp_shapes, vp, side=4, sizes={"stages": 7}, centre=0),
    "dl_vm": Release("dl_vm", 0, Bands(3, 1, 4), dl_vm_shapes, dl_vm, side=4, ours=gradients),
    "lgteun": Release("lgteun", 0, Bands(3, 1, 4), lgteun_shapes, lgteun, side=4, sizes={"stages": 2, "field": 16}),
    "pancsc_net": Release("pancsc_net", 0, Bands(3, 1, 4), pancsc_shapes, pancsc, side=4),
}
