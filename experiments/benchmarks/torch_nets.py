"""The networks of the benchmark in plain PyTorch, with the names of their parameters as in jfusion.

Each is called as ``network(lr, guide)`` with images ``(batch, band, height, width)`` and computes what the system of
the same name in jfusion computes on a nested grid, see there for the papers. Sizes are the papers', ratios powers of
two, and images squares of ``side`` guide pixels, whole windows, so that nothing has to be mirrored or cropped.
"""

from collections.abc import Mapping
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from jfusion.operators.resample import phase_weights


def copy_parameters(parameters: Mapping[str, np.ndarray], network: nn.Module) -> None:
    """Sets the parameters of a network to those of its jfusion twin.

    Args:
        parameters: by their path in the twin's state, joined by dots: "blocks.0.first.kernel". A kernel or scale is a
            ``weight`` here; kernels are ``(*window, in, out)`` there. A name that `torch.nn.Module` has taken ends in
            an underscore here.
        network: of this module.
    """
    for name, tensor in network.named_parameters():
        path = name.replace("_.", ".")
        stem = path.removesuffix(".weight")
        key = next(key for key in (path, f"{stem}.kernel", f"{stem}.scale", stem) if key in parameters)
        value = parameters[key]
        if value.ndim == 4:
            transposed = isinstance(network.get_submodule(name.rpartition(".")[0]), nn.ConvTranspose2d)
            value = value.transpose((2, 3, 0, 1) if transposed else (3, 2, 0, 1))
        elif value.ndim == 2 and key.endswith(".kernel"):
            value = value.T
        with torch.no_grad():
            tensor.copy_(torch.from_numpy(value.copy()))


class Interpolate(nn.Module):
    """The 23-tap interpolation of images of ``side`` pixels, edge pixels repeated outside, as two matrix products."""

    def __init__(self, side: int, ratio: int) -> None:
        super().__init__()
        first, weights = phase_weights(ratio, (ratio - 1) / 2, "interp23")
        fine, tap = np.mgrid[: ratio * side, : weights.shape[1]]
        matrix = np.zeros((ratio * side, side), np.float32)
        np.add.at(matrix, (fine, np.clip(fine // ratio + first + tap, 0, side - 1)), weights[fine % ratio, tap])
        self.register_buffer("matrix", torch.from_numpy(matrix), persistent=False)

    def forward(self, lr: Tensor) -> Tensor:
        return (self.matrix @ lr @ self.matrix.T).contiguous(memory_format=torch.channels_last)


class ResidualBlock(nn.Module):
    """Two convolutions around a ReLU, plus the identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(width, width, 3, padding=1), nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(F.relu(self.first(x)))


class FusionNet(nn.Module):
    """Deng et al., 2021, for one guide band."""

    def __init__(self, lr: int, guide: int, ratio: int, side: int, width: int = 32, blocks: int = 4) -> None:
        super().__init__()
        self.interpolate = Interpolate(side // ratio, ratio)
        self.head = nn.Conv2d(lr, width, 3, padding=1)
        self.blocks = nn.ModuleList(ResidualBlock(width) for _ in range(blocks))
        self.tail = nn.Conv2d(width, lr, 3, padding=1)

    def forward(self, lr: Tensor, guide: Tensor) -> Tensor:
        interpolated = self.interpolate(lr)
        x = F.relu(self.head(guide - interpolated))
        for block in self.blocks:
            x = block(x)
        return interpolated + self.tail(x)


def high_pass(image: Tensor) -> Tensor:
    """The image minus its mean over 5x5 pixels."""
    return image - F.avg_pool2d(F.pad(image, (2, 2, 2, 2), "reflect"), 5, 1)


class PanNet(nn.Module):
    """Yang et al., 2017."""

    def __init__(self, lr: int, guide: int, ratio: int, side: int, width: int = 32, blocks: int = 4) -> None:
        super().__init__()
        self.interpolate = Interpolate(side // ratio, ratio)
        self.enlarge = nn.ConvTranspose2d(lr, lr, 2 * ratio, ratio, padding=ratio // 2)
        self.head = nn.Conv2d(lr + guide, width, 3, padding=1)
        self.blocks = nn.ModuleList(ResidualBlock(width) for _ in range(blocks))
        self.tail = nn.Conv2d(width, lr, 3, padding=1)

    def forward(self, lr: Tensor, guide: Tensor) -> Tensor:
        x = torch.cat([self.enlarge(high_pass(lr)), high_pass(guide)], 1)
        x = F.relu(self.head(x))
        for block in self.blocks:
            x = block(x)
        return self.interpolate(lr) + self.tail(x)


# PSGAN ---------------------------------------------------------------------------------------------------------------


def leaky(x: Tensor) -> Tensor:
    """LeakyReLU of slope 0.2."""
    return F.leaky_relu(x, 0.2)


class HalvingConv(nn.Conv2d):
    """A 3x3 convolution of stride 2 that begins at the first pixel, without bias."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 3, 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.pad(x, (0, 1, 0, 1)))


def conv(inputs: int, outputs: int, size: int = 3) -> nn.Conv2d:
    """A convolution that keeps the image's size, without bias."""
    return nn.Conv2d(inputs, outputs, size, padding=size // 2, bias=False)


class Stream(nn.Module):
    """What is extracted from one of the two images."""

    def __init__(self, bands: int, width: int) -> None:
        super().__init__()
        self.first, self.second = conv(bands, width), conv(width, width)
        self.halve = nn.Conv2d(width, 2 * width, 2, 2, bias=False)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        fine = self.second(leaky(self.first(image)))
        return fine, self.halve(leaky(fine))


class PSGAN(nn.Module):
    """Liu et al., 2021."""

    def __init__(self, lr: int, guide: int, ratio: int, side: int, width: int = 32) -> None:
        super().__init__()
        self.ratio = ratio
        self.lr_stream, self.guide_stream = Stream(lr, width), Stream(guide, width)
        self.merge, self.half_ = conv(4 * width, 4 * width), conv(4 * width, 4 * width)
        self.quarter = nn.ModuleList(
            [HalvingConv(4 * width, 8 * width), conv(8 * width, 8 * width, 1), conv(8 * width, 8 * width)]
        )
        self.to_half = nn.ConvTranspose2d(8 * width, 4 * width, 2, 2, bias=False)
        self.half_again = conv(8 * width, 4 * width)
        self.to_full = nn.ConvTranspose2d(4 * width, 4 * width, 2, 2, bias=False)
        self.full, self.tail = conv(6 * width, 2 * width), conv(2 * width, lr)

    def forward(self, lr: Tensor, guide: Tensor) -> Tensor:
        fine_lr, half_lr = self.lr_stream(bilinear(lr, self.ratio))
        fine_guide, half_guide = self.guide_stream(guide)
        half = self.half_(leaky(self.merge(leaky(torch.cat([half_guide, half_lr], 1)))))
        x = half
        for layer in self.quarter:
            x = layer(leaky(x))
        x = self.half_again(leaky(torch.cat([self.to_half(leaky(x)), half], 1)))
        x = torch.cat([self.to_full(leaky(x)), fine_guide, fine_lr], 1)
        return F.relu(self.tail(leaky(self.full(leaky(x)))))


class Critic(nn.Module):
    """PSGAN's critic of an image beside the interpolated one."""

    def __init__(self, lr: int, width: int = 32) -> None:
        super().__init__()
        sizes = (2 * lr, width, 2 * width, 4 * width)
        halving = [HalvingConv(i, o) for i, o in pairwise(sizes)]
        self.layers = nn.ModuleList([*halving, conv(4 * width, 8 * width), conv(8 * width, 1)])

    def forward(self, interpolated: Tensor, image: Tensor) -> Tensor:
        x = self.layers[0](torch.cat([interpolated, image], 1))
        for layer in self.layers[1:]:
            x = layer(leaky(x))
        return x


def bilinear(lr: Tensor, ratio: int) -> Tensor:
    """The low-resolution image on the guide's grid by bilinear interpolation."""
    return F.interpolate(lr, scale_factor=ratio, mode="bilinear", align_corners=False)


# PanFormer -----------------------------------------------------------------------------------------------------------


def apart(side: int, window: int, shift: int) -> Tensor:
    """Which tokens of a window lie on different sides of the image's edge after a cyclic shift, ``(windows, 1, t, t)``,
    for ``side`` x ``side`` tokens."""
    beyond = torch.arange(side) >= side - shift
    corner = 2 * beyond[:, None] + beyond
    corner = corner.reshape(side // window, window, side // window, window).transpose(1, 2).reshape(-1, 1, window**2)
    return corner[..., :, None] != corner[..., None, :]


class WindowAttention(nn.Module):
    """Attention within windows that are shifted by some tokens; queries are asked by ``other`` where it is given."""

    def __init__(self, side: int, width: int, heads: int, window: int, shift: int) -> None:
        super().__init__()
        self.heads, self.window, self.shift = heads, window, shift
        self.register_buffer("apart", apart(side, window, shift), persistent=False)
        self.query = nn.Linear(width, width, bias=False)
        self.key_value = nn.Linear(width, 2 * width, bias=False)
        self.positions = nn.Parameter(torch.randn(2 * window - 1, 2 * window - 1))
        self.out = nn.Linear(width, width)
        place = torch.stack(torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij"), -1)
        distance = place.reshape(1, -1, 2) - place.reshape(-1, 1, 2) + window - 1
        self.register_buffer("distance", distance, persistent=False)

    def windows(self, x: Tensor) -> Tensor:
        """``(batch, height, width, channel)`` to ``(batch, windows, heads, tokens, channels of a head)``."""
        batch, height, width, _ = x.shape
        rows, columns = height // self.window, width // self.window
        x = x.view(batch, rows, self.window, columns, self.window, self.heads, -1).permute(0, 1, 3, 5, 2, 4, 6)
        return x.reshape(batch, rows * columns, self.heads, self.window**2, -1)

    def image(self, x: Tensor, height: int, width: int) -> Tensor:
        """The reverse of `windows`."""
        rows, columns = height // self.window, width // self.window
        x = x.view(len(x), rows, columns, self.heads, self.window, self.window, -1).permute(0, 1, 4, 2, 5, 3, 6)
        return x.reshape(len(x), height, width, -1)

    def forward(self, x: Tensor, other: Tensor | None) -> Tensor:
        asks, shift = x if other is None else other, self.shift
        if shift:
            asks, x = (torch.roll(stream, (-shift, -shift), (1, 2)) for stream in (asks, x))
        bias = self.positions[self.distance[..., 0], self.distance[..., 1]]
        if shift:
            bias = bias.masked_fill(self.apart, -torch.inf)
        key, value = self.key_value(x).chunk(2, -1)
        query, key, value = map(self.windows, (self.query(asks), key, value))
        y = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        y = self.out(self.image(y, x.shape[1], x.shape[2]))
        return torch.roll(y, (shift, shift), (1, 2)) if shift else y


class Perceptron(nn.Module):
    """Two linear layers around a GELU."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(F.gelu(self.first(x)))


class Block(nn.Module):
    """Attention and perceptron, each of the normalised tokens and added to them."""

    def __init__(self, side: int, width: int, heads: int, window: int, shift: int) -> None:
        super().__init__()
        self.attention_norm, self.perceptron_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = WindowAttention(side, width, heads, window, shift)
        self.perceptron = Perceptron(width, 4 * width)

    def forward(self, x: Tensor, other: Tensor | None) -> Tensor:
        x = x + self.attention(self.attention_norm(x), other)
        return x + self.perceptron(self.perceptron_norm(x))


class Stage(nn.Module):
    """A token of each patch by one linear map, then a plain and a shifted block; images in, images out."""

    def __init__(self, inputs: int, step: int, side: int, width: int, heads: int, window: int) -> None:
        super().__init__()
        self.embed = nn.Conv2d(inputs, width, step, step)
        self.blocks = nn.ModuleList(Block(side, width, heads, window, shift) for shift in (0, window // 2))

    def forward(self, x: Tensor, other: Tensor | None = None) -> Tensor:
        x = self.embed(x).permute(0, 2, 3, 1)
        other = None if other is None else self.embed(other).permute(0, 2, 3, 1)
        for block in self.blocks:
            x = block(x, other)
        return x.permute(0, 3, 1, 2)


def shuffled(x: Tensor) -> Tensor:
    """``(batch, 4 channel, height, width)`` to ``(batch, channel, 2 height, 2 width)``, each pixel's first."""
    batch, channels, height, width = x.shape
    x = x.permute(0, 2, 3, 1).reshape(batch, height, width, 2, 2, channels // 4).transpose(2, 3)
    return x.reshape(batch, 2 * height, 2 * width, channels // 4).permute(0, 3, 1, 2)


class PanFormer(nn.Module):
    """Zhou et al., 2022."""

    def __init__(
        self, lr: int, guide: int, ratio: int, side: int, width: int = 64, heads: int = 8, stages: int = 3,
        window: int = 4,
    ) -> None:  # fmt: skip
        super().__init__()
        shape, coarse = (width, heads, window), side // ratio
        sides = [side // 2**k for k in range(1, ratio.bit_length())]
        later = [width] * (len(sides) - 1)
        self.guide_encoder = nn.ModuleList(
            Stage(inputs, 2, n, *shape) for inputs, n in zip([guide, *later], sides, strict=True)
        )
        self.lr_encoder = nn.ModuleList(Stage(inputs, 1, coarse, *shape) for inputs in [lr, *later])
        self.guide_cross = nn.ModuleList(Stage(width, 1, coarse, *shape) for _ in range(stages))
        self.lr_cross = nn.ModuleList(Stage(width, 1, coarse, *shape) for _ in range(stages))
        self.enlarge = nn.ModuleList(nn.Conv2d(inputs, 4 * width, 3, padding=1) for inputs in [2 * width, *later])
        self.refine, self.tail = nn.Conv2d(width, width, 3, padding=1), nn.Conv2d(width, lr, 3, padding=1)

    def forward(self, lr: Tensor, guide: Tensor) -> Tensor:
        for stage in self.lr_encoder:
            lr = stage(lr)
        for stage in self.guide_encoder:
            guide = stage(guide)
        for of_guide, of_lr in zip(self.guide_cross, self.lr_cross, strict=True):
            guide, lr = of_guide(guide, lr), of_lr(lr, guide)
        x = torch.cat([guide, lr], 1)
        for enlarge in self.enlarge:
            x = F.relu(shuffled(enlarge(x)))
        return self.tail(F.relu(self.refine(x)))


# MHF-Net -------------------------------------------------------------------------------------------------------------


def factors(ratio: int) -> list[int]:
    """Steps from the high to the low resolution: fours first, then a two."""
    return [4] * ((ratio.bit_length() - 1) // 2) + [2] * ((ratio.bit_length() - 1) % 2)


class Normalised(nn.Module):
    """3x3 convolution, then mean and variance of the image at hand, learned scale and offset.

    Groups of one channel are what PyTorch's instance normalisation computes, faster with channels last.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.scale, self.offset = nn.Parameter(torch.ones(outputs)), nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return F.group_norm(self.conv(x), len(self.scale), self.scale, self.offset)


class Residual(nn.Module):
    """``x`` plus three `Normalised` layers of ``x`` and of features, each with a ReLU."""

    def __init__(self, channels: int, features: int = 0) -> None:
        super().__init__()
        inner = channels + features + 3
        sizes = ((channels + features, inner), (inner, inner), (inner, channels))
        self.layers = nn.ModuleList(Normalised(i, o) for i, o in sizes)

    def forward(self, x: Tensor, features: Tensor | None = None) -> Tensor:
        y = x if features is None else torch.cat([x, features], 1)
        for layer in self.layers:
            y = F.relu(layer(y))
        return x + y


class Chain(nn.Module):
    """A sequence of residual blocks."""

    def __init__(self, channels: int, blocks: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Residual(channels) for _ in range(blocks))

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return x


class SpatialKernels(nn.Module):
    """The learned spatial response: one small kernel a factor of the ratio, common to all bands."""

    def __init__(self, ratio: int) -> None:
        super().__init__()
        self.steps = factors(ratio)
        sizes = [3 if step == 2 else 6 for step in self.steps]
        self.kernels = nn.ParameterList(nn.Parameter(torch.full((1, 1, k, k), 1 / k**2)) for k in sizes)

    def forward(self, x: Tensor) -> list[Tensor]:
        scales = []
        for step, kernel in zip(self.steps, self.kernels, strict=True):
            x = F.conv2d(x, kernel.expand(x.shape[1], -1, -1, -1), stride=step, padding=1, groups=x.shape[1])
            scales.append(x)
        return scales


class Doubling(nn.Module):
    """Transposed 3x3 convolutions that enlarge by 2 or, one after the other, by 4."""

    def __init__(self, step: int, bands: int) -> None:
        super().__init__()
        self.kernels = nn.ModuleList(nn.ConvTranspose2d(bands, bands, 3, 2, bias=False) for _ in range(step // 2))

    def forward(self, x: Tensor) -> Tensor:
        for kernel in self.kernels:
            x = kernel(x)[..., :-1, :-1]
        return x


class UpSampler(nn.Module):
    """Enlarges a low-resolution residual factor by factor, adjusting it to the guide at each scale."""

    def __init__(self, bands: int, guide: int, ratio: int) -> None:
        super().__init__()
        steps = factors(ratio)[::-1]
        self.enlarge = nn.ModuleList(Doubling(step, bands) for step in steps)
        self.adjust = nn.ModuleList(Residual(bands, guide) for _ in steps)
        self.blur = nn.Conv2d(bands, bands, 4, groups=bands, bias=False)

    def forward(self, x: Tensor, guides: list[Tensor]) -> Tensor:
        for enlarge, adjust, guide in zip(self.enlarge, self.adjust, guides, strict=True):
            x = adjust(enlarge(x), guide * 0.1)
        return self.blur(F.pad(x, (1, 2, 1, 2)))


class Solution(nn.Module):
    """The proximal networks and the last adjustment."""

    def __init__(self, bands: int, rank: int, stages: int, prox_blocks: int, adjust_blocks: int) -> None:
        super().__init__()
        self.prox = nn.ModuleList(Chain(rank, prox_blocks) for _ in range(stages - 1))
        self.adjust = Chain(bands, adjust_blocks)


class MHFNet(nn.Module):
    """Xie et al., 2019 (CMHF)."""

    def __init__(
        self, lr: int, guide: int, ratio: int, side: int, stages: int = 20, rank: int = 12, prox_blocks: int = 1,
        adjust_blocks: int = 4,
    ) -> None:  # fmt: skip
        super().__init__()
        self.predict = nn.Parameter(torch.zeros(guide, lr))
        self.spectra = nn.Parameter(0.1 * torch.randn(rank, lr))
        self.response = SpatialKernels(ratio)
        self.enlarge = nn.ModuleList(UpSampler(lr, guide, ratio) for _ in range(stages - 1))
        self.solution = Solution(lr, rank, stages, prox_blocks, adjust_blocks)

    def solve(self, lr: Tensor, guide: Tensor) -> tuple[Tensor, list[Tensor], Tensor]:
        """Product, the prediction from the guide with the estimates of all stages, and the last residual."""
        predicted = mixed(guide, self.predict)
        guides = [guide, *self.response(guide)[:-1]][::-1]
        x, hidden, estimates = predicted, torch.zeros(()), [predicted]
        for enlarge, prox in zip(self.enlarge, self.solution.prox, strict=True):
            step = mixed(enlarge(self.response(x)[-1] - lr, guides), self.spectra.T)
            hidden = prox(hidden - step)
            x = predicted + mixed(hidden, self.spectra)
            estimates.append(x)
        return self.solution.adjust(x), estimates, self.response(x)[-1] - lr

    def forward(self, lr: Tensor, guide: Tensor) -> Tensor:
        return self.solve(lr, guide)[0]


def mixed(image: Tensor, matrix: Tensor) -> Tensor:
    """Each pixel ``(in,)`` times a matrix ``(in, out)``, as a 1x1 convolution."""
    return F.conv2d(image, matrix.T[..., None, None])
