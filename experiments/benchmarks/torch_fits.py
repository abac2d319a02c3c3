"""Fits of the benchmark in plain PyTorch, with the names of their parameters as in jfusion.

Each is a module that holds a pair of images ``(1, band, height, width)`` and what is fitted to it in its last stage;
it computes the loss that the fit of the same name in jfusion has, see there for the papers.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from experiments.benchmarks.torch_nets import conv, leaky

Arrays = Mapping[str, np.ndarray]


class Fit(nn.Module):
    """A pair and a module that is fitted to it.

    Attributes:
        steps: of the stage.
        rate: of learning, until the share `hold` of the steps is done; it then falls linearly to zero.
        decay: of the weights, in the gradient.
        rates: multiples of the rate for the parameters of single attributes.
    """

    steps: int
    rate: float
    hold = 1.0
    decay = 0.0
    rates: Mapping[str, float] = {}

    lr: Tensor
    guide: Tensor

    def __init__(self, lr: Tensor, guide: Tensor) -> None:
        super().__init__()
        self.register_buffer("lr", lr)
        self.register_buffer("guide", guide)
        self.ratio = guide.shape[2] // lr.shape[2]

    def forward(self) -> Tensor:
        """The loss."""
        raise NotImplementedError

    def share(self, done: int) -> float:
        """Of the learning rate, after so many steps."""
        return min(1.0, (1 - done / self.steps) / max(1 - self.hold, 1e-9))

    def before(self) -> None:
        """Called before each step of the optimiser."""

    def after(self, loss: Tensor) -> None:
        """Called after each step of the optimiser, with the loss before it."""


# Sensors --------------------------------------------------------------------------------------------------------------


def blur(image: Tensor, kernel: Tensor) -> Tensor:
    """Every band under a PSF of ``ratio`` x ``ratio`` taps, in blocks: far sooner than a convolution by groups."""
    ratio, (batch, bands, height, width) = len(kernel), image.shape
    blocks = image.reshape(batch, bands, height // ratio, ratio, width // ratio, ratio)
    return torch.einsum("ncirjs,rs->ncij", blocks, kernel.flip(0, 1))


def mix(image: Tensor, srf: Tensor) -> Tensor:
    """The bands of the guide, of a response ``(guide band, band)``."""
    return F.conv2d(image, srf[:, :, None, None])


class Weights(nn.Module):
    """Rows of weights that a softmax makes a response."""

    def __init__(self, rows: int, columns: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(rows, columns))

    def forward(self) -> Tensor:
        return self.weight.softmax(1)


class Sensors(nn.Module):
    """A PSF on blocks of ``ratio`` x ``ratio`` pixels and a spectral response, both learned."""

    def __init__(self, lr: int, guide: int, ratio: int) -> None:
        super().__init__()
        self.psf = nn.ModuleDict({"weights": Weights(1, ratio**2)})
        self.srf = nn.ModuleDict({"weights": Weights(guide, lr)})

    def forward(self) -> tuple[Tensor, Tensor]:
        """Kernel and response."""
        kernel, srf = self.psf["weights"](), self.srf["weights"]()
        side = math.isqrt(kernel.numel())
        return kernel.reshape(side, side), srf


def sum_l1(predicted: Tensor, observed: Tensor) -> Tensor:
    """Sum of absolute differences."""
    return F.l1_loss(predicted, observed, reduction="sum")


# UDALN ----------------------------------------------------------------------------------------------------------------


class SpectralGenerator(nn.Module):
    """1x1 convolutions from the guide's bands to the image's, each of twice as many channels."""

    def __init__(self, lr: int, guide: int) -> None:
        super().__init__()
        widths = [guide * 2**i for i in range(int(math.log2(lr / guide)) + 1)]
        self.layers = nn.ModuleList(nn.Conv2d(a, b, 1) for a, b in pairwise([*widths, lr]))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = leaky(layer(x))
        return x


class Udaln(Fit):
    """Li et al., 2022, the generator and both sensors together."""

    steps, rate, hold = 15_000, 6e-5, 1 / 3
    rates: Mapping[str, float] = {"degradation": 100}

    def __init__(self, lr: Tensor, guide: Tensor, module: Arrays, operators: Arrays) -> None:
        super().__init__(lr, guide)
        bands = lr.shape[1], guide.shape[1]
        self.generator, self.degradation = SpectralGenerator(*bands), Sensors(*bands, self.ratio)

    def forward(self) -> Tensor:
        kernel, srf = self.degradation()
        blurred, product = blur(self.guide, kernel), self.generator(self.guide)
        return (
            F.l1_loss(mix(self.lr, srf), blurred)
            + F.l1_loss(self.generator(blurred), self.lr)
            + F.l1_loss(mix(product, srf), self.guide)
            + F.l1_loss(blur(product, kernel), self.lr)
        )


# MIAE -----------------------------------------------------------------------------------------------------------------


class Mixing(nn.Module):
    """A 1x1 convolution of all inputs together, and a leaky ReLU."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 1)

    def forward(self, *inputs: Tensor) -> Tensor:
        return leaky(self.conv(torch.cat(inputs, 1)))


class ModelInspiredAutoencoder(nn.Module):
    """The unrolled encoder and the endmembers."""

    def __init__(self, lr: int, guide: int, endmembers: int = 80, stages: int = 3) -> None:
        super().__init__()
        k = endmembers
        self.spectral = nn.ModuleList([Mixing(lr, k), Mixing(k, k)])
        self.spatial, self.first = Mixing(guide, k), Mixing(2 * k, k)
        self.gradients = nn.ModuleList(Mixing(k, k) for _ in range(stages - 1))
        self.merges = nn.ModuleList(Mixing(3 * k, k) for _ in range(stages - 1))
        self.endmembers = conv(k, lr, 1)

    def forward(self, interpolated: Tensor, guide: Tensor) -> Tensor:
        y, z = interpolated, self.spatial(guide)
        for layer in self.spectral:
            y = layer(y)
        s = self.first(y, z)
        for gradient, merge in zip(self.gradients, self.merges, strict=True):
            s = merge(gradient(s), y, z)
        return self.endmembers(s.clamp(0, 1)).clamp(0, 1)


class Miae(Fit):
    """Liu et al., 2022, the autoencoder under sensors that its first stage has found."""

    steps, rate, hold, decay = 10_000, 5e-3, 0.1, 1e-3

    interpolated: Tensor
    kernel: Tensor
    srf: Tensor

    def __init__(self, lr: Tensor, guide: Tensor, module: Arrays, operators: Arrays, **sizes: int) -> None:
        super().__init__(lr, guide)
        self.generator = ModelInspiredAutoencoder(lr.shape[1], guide.shape[1], **sizes)
        psf, srf = (torch.from_numpy(module[f"degradation.{name}.weights.weight"]) for name in ("psf", "srf"))
        side = math.isqrt(psf.numel())
        self.register_buffer("interpolated", F.interpolate(lr, scale_factor=self.ratio, mode="bilinear"))
        self.register_buffer("kernel", (psf / psf.sum()).reshape(side, side))
        self.register_buffer("srf", srf / srf.sum(1, keepdim=True))

    def forward(self) -> Tensor:
        product = self.generator(self.interpolated, self.guide)
        before, margin = self.ratio // 2, len(self.kernel) - self.ratio  # taps beyond the block, one more before it
        padded = F.pad(product, (before, margin - before) * 2, "reflect")
        kernels = self.kernel.flip(0, 1).expand(product.shape[1], 1, -1, -1)
        blurred = F.conv2d(padded, kernels, stride=self.ratio, groups=len(kernels))
        return sum_l1(blurred, self.lr) + sum_l1(mix(product, self.srf), self.guide)

    @torch.no_grad()
    def after(self, loss: Tensor) -> None:
        self.generator.endmembers.weight.clamp_(0, 1)


# Guided deep decoder --------------------------------------------------------------------------------------------------


class Norm(nn.Module):
    """Normalisation by the moments of the image, with a learned scale and shift."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale, self.shift = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        return F.batch_norm(x, None, None, self.scale, self.shift, training=True)


class MirroredConv(nn.Module):
    """A convolution with mirrored borders."""

    def __init__(self, inputs: int, outputs: int, window: int, stride: int = 1) -> None:
        super().__init__()
        padding = window // 2
        mode = "reflect" if padding else "zeros"
        self.conv = nn.Conv2d(inputs, outputs, window, stride, padding, padding_mode=mode)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class NormedConv(nn.Module):
    """A mirrored convolution and its norm."""

    def __init__(self, inputs: int, outputs: int, window: int, stride: int = 1) -> None:
        super().__init__()
        self.conv, self.norm = MirroredConv(inputs, outputs, window, stride), Norm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x))


class Gate(nn.Module):
    """What the guide lets through."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = MirroredConv(width, width, 1)

    def forward(self, guide: Tensor) -> Tensor:
        return leaky(self.conv(guide)).sigmoid()


class Refinement(nn.Module):
    """Features under the guide's gate."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gate, self.conv = Gate(width), NormedConv(width, width, 1)

    def forward(self, guide: Tensor, x: Tensor) -> Tensor:
        return leaky(self.conv(x) * self.gate(guide))


class Encoder(nn.Module):
    """Halves the image."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.down, self.conv = NormedConv(width, width, 3, 2), NormedConv(width, width, 3)

    def forward(self, x: Tensor) -> Tensor:
        return leaky(self.conv(leaky(self.down(x))))


def enlarge(x: Tensor, like: Tensor) -> Tensor:
    """Bilinear interpolation by 2, cut to the size of another image."""
    return F.interpolate(x, scale_factor=2, mode="bilinear")[:, :, : like.shape[2], : like.shape[3]]


class GuidedDeepDecoder(nn.Module):
    """The network of the guide and the decoder of the code, one set of weights for all scales."""

    def __init__(self, lr: int, guide: int, width: int = 64, levels: int = 5) -> None:
        super().__init__()

        def at_scales(module: nn.Module, count: int) -> nn.ModuleList:
            return nn.ModuleList([module] * count)

        self.guide = NormedConv(guide, width, 3)
        self.encoders = at_scales(Encoder(width), levels)
        self.deepest = NormedConv(width, width, 3)
        self.laterals = at_scales(NormedConv(width, width, 1), levels - 1)
        self.merges = at_scales(NormedConv(2 * width, width, 3), levels - 1)
        self.code = NormedConv(lr, width, 1)
        self.gates = at_scales(Gate(width), levels)
        self.decoders = at_scales(NormedConv(width, width, 3), levels)
        self.refinements = at_scales(Refinement(width), levels + 1)
        self.output = MirroredConv(width, lr, 1)

    def forward(self, guide: Tensor, code: Tensor) -> Tensor:
        encoded = [leaky(self.guide(guide))]
        for encoder in self.encoders:
            encoded.append(encoder(encoded[-1]))
        coarsest, *finer = encoded[::-1]
        decoded = [leaky(self.deepest(enlarge(coarsest, finer[0])))]
        for lateral, merge, (edge, finer_edge) in zip(self.laterals, self.merges, pairwise(finer), strict=True):
            joined = torch.cat([leaky(lateral(edge)), decoded[-1]], 1)
            decoded.append(leaky(merge(enlarge(joined, finer_edge))))
        first, *others = self.refinements
        x = first(coarsest, leaky(self.code(code)))
        for gate, decoder, refinement, edge, features in zip(
            self.gates, self.decoders, others, finer, decoded, strict=True
        ):
            x = F.batch_norm(enlarge(x, edge), None, None, training=True) * gate(edge)
            x = refinement(features, leaky(decoder(x)))
        return self.output(x)


class Gdd(Fit):
    """Uezato et al., 2020, for a guide of several bands."""

    steps, rate = 20_001, 1e-2

    code: Tensor
    rows: Tensor
    columns: Tensor
    srf: Tensor

    def __init__(self, lr: Tensor, guide: Tensor, module: Arrays, operators: Arrays, **sizes: int) -> None:
        super().__init__(lr, guide)
        self.generator = GuidedDeepDecoder(lr.shape[1], guide.shape[1], **sizes)
        self.register_buffer("code", torch.from_numpy(module["code"]).permute(0, 3, 1, 2))
        for name, operator in operators.items():
            self.register_buffer(name, torch.from_numpy(operator))
        self.snapshots: deque[list[Tensor]] = deque(maxlen=10)
        self.losses: deque[float] = deque(maxlen=40)
        self.recorded, self.pause = 0, 0

    def forward(self) -> Tensor:
        product = self.generator(self.guide, self.code + 0.03 * torch.randn_like(self.code))
        blurred = self.rows @ product @ self.columns.T
        return 0.1 * F.mse_loss(blurred, self.lr) + F.mse_loss(mix(product, self.srf), self.guide)

    @torch.no_grad()
    def before(self) -> None:
        self.old = [parameter.clone() for parameter in self.parameters()]

    @torch.no_grad()
    def after(self, loss: Tensor) -> None:
        """Goes back ten recorded steps when the loss has risen above that of 21 to 40 steps ago."""
        value = loss.item()
        if self.recorded > 1000 and value - np.mean(list(self.losses)[:20]) > 1e-5:
            for parameter, old in zip(self.parameters(), self.snapshots[0], strict=True):
                parameter.copy_(old)
            self.pause = 150
        elif self.pause:
            self.pause -= 1
        else:
            self.snapshots.append(self.old)
            self.losses.append(value)
            self.recorded += 1


# CUCaNet --------------------------------------------------------------------------------------------------------------


class Trunk(nn.Module):
    """Convolutions, each with a leaky ReLU."""

    def __init__(self, inputs: int, widths: tuple[int, ...], windows: tuple[int, ...]) -> None:
        super().__init__()
        sizes = zip(pairwise((inputs, *widths)), windows, strict=True)
        self.layers = nn.ModuleList(nn.Conv2d(a, b, k, padding=k // 2) for (a, b), k in sizes)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = leaky(layer(x))
        return x


class CrossAttention(nn.Module):
    """What each stream's features become under the other's attention."""

    def __init__(self, width: int, size: tuple[int, int], ratio: int) -> None:
        super().__init__()
        self.ratio = ratio
        self.places = nn.Conv2d(width, 1, 3, padding=1)
        self.blur = nn.ModuleDict({"weights": Weights(1, ratio**2)})
        self.pixels, self.shift = nn.Parameter(torch.zeros(*size, width)), nn.Parameter(torch.zeros(width))

    def forward(self, coarse: Tensor, fine: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.places(fine)
        places = logits.flatten(1).softmax(1).reshape(logits.shape)
        seen = blur(places, self.blur["weights"].weight.reshape(self.ratio, self.ratio))
        gate = (torch.einsum("nchw,hwc->nc", coarse, self.pixels) + self.shift).softmax(1)[:, :, None, None]
        return torch.cat([coarse, coarse * seen], 1), torch.cat([fine, fine * gate], 1)


def sparsity(abundances: Tensor) -> Tensor:
    """Divergence of each endmember's mean abundance from 0.01, summed."""
    mean = abundances.mean((0, 2, 3)).clamp(1e-6, 1 - 1e-6)
    return (0.01 * (0.01 / mean).log() + 0.99 * (0.99 / (1 - mean)).log()).sum()


def sum_to_one(abundances: Tensor) -> Tensor:
    """How far their sums are from one."""
    return (abundances.sum(1) - 1).abs().sum()


class Cucanet(Fit):
    """Yao et al., 2020, blind."""

    steps, rate, hold = 10_000, 5e-3, 0.2
    rates: Mapping[str, float] = {"guide_": 0.5, "guide_head": 0.5, "attention": 0.2, "degradation": 20}

    def __init__(
        self,
        lr: Tensor,
        guide: Tensor,
        module: Arrays,
        operators: Arrays,
        endmembers: int = 128,
        widths: tuple[int, int, int] = (128, 256, 512),
    ) -> None:
        super().__init__(lr, guide)
        bands, guide_bands = lr.shape[1], guide.shape[1]
        self.lr_, self.guide_ = Trunk(bands, widths, (1, 1, 1)), Trunk(guide_bands, widths, (5, 3, 1))
        self.attention = CrossAttention(widths[-1], (lr.shape[2], lr.shape[3]), self.ratio)
        self.lr_head, self.guide_head = (nn.Conv2d(2 * widths[-1], endmembers, 1) for _ in range(2))
        self.decoder, self.guide_decoder = (conv(endmembers, n, 1) for n in (bands, guide_bands))
        self.degradation = Sensors(bands, guide_bands, self.ratio)

    def forward(self) -> Tensor:
        kernel, srf = self.degradation()
        coarse, fine = self.attention(self.lr_(self.lr), self.guide_(self.guide))
        coarse, fine = self.lr_head(coarse).clamp(0, 1), self.guide_head(fine).clamp(0, 1)
        product = self.decoder(fine).clamp(0, 1)
        return (
            10 * sum_l1(self.decoder(coarse).clamp(0, 1), self.lr)
            + 10 * sum_l1(self.guide_decoder(fine).clamp(0, 1), self.guide)
            + 10 * sum_l1(blur(product, kernel), self.lr)
            + 10 * sum_l1(mix(product, srf), self.guide)
            + 1e4 * sum_l1(mix(self.lr, srf), blur(self.guide, kernel))
            + 0.01 * (sum_to_one(coarse) + sum_to_one(fine) + sparsity(coarse) + sparsity(fine))
        )

    @torch.no_grad()
    def after(self, loss: Tensor) -> None:
        for decoder in (self.decoder, self.guide_decoder):
            decoder.weight.clamp_(0, 1)


FITS: dict[str, Callable[..., Fit]] = {"udaln": Udaln, "miae": Miae, "gdd": Gdd, "cucanet": Cucanet}
