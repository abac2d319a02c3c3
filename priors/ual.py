"""UAL: Zhang, Nie, Wei, Zhang, Liao and Shao, "Unsupervised Adaptation Learning for Hyperspectral Imagery
Super-Resolution", CVPR 2020.

A fusion network is trained with truth, and what it makes of a pair is adapted to that pair without: F(Y, Z) of the
interpolated low-resolution image Y and of the guide Z is held fixed, and the product X = F + g(F) is found by fitting a
small network g, and the PSF B where that is unknown, by |B X - Y| + |R X - Z|. The paper trains F on other scenes with
five blurs; here the pair itself is its scene, one ratio lower: F must find Y from R Y and from Y blurred and sampled
once more.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import Array, lax

from jfusion.catalogue import Bands, Fitted, Paper, System
from jfusion.layers.conv import Conv
from jfusion.layers.init import torch_bias
from jfusion.layers.responses import Weights
from jfusion.operators import Grid, Observation, ObservationModel, SpatialResponse, upsample
from jfusion.operators.linear import LinearOperator
from jfusion.operators.psf import gaussian_profile
from jfusion.operators.spatial import psf_size
from jfusion.tasks import SPATIOSPECTRAL
from priors.degradation import WIDE, Degradation, on_logits, unknown_parts
from priors.fit import ADAM, Falling, Plan, Schedule, Stage, fitter
from priors.held import Held, hold
from priors.pair import Pair, mean_l1, misfits
from priors.patches import corners, cut
from priors.sensing import SIMPLEX_SENSORS

PATCH, BATCH = 128, 6

BLURS = ((7, 1.0), (8, 6.0), (9, 4.0), (13, 8.0), (15, 3.0))
"""Widths and standard deviations of the Gaussians that the fusion network is trained with, in eighths of the ratio."""

START = 6.0
"""Standard deviation of the Gaussian from which an unknown PSF starts, in eighths of the ratio."""


# ----------------------------------------------------------------------------------------------------------------------
# The networks


def _conv(inputs: int, outputs: int, *, rngs: nnx.Rngs) -> Conv:
    return Conv(inputs, outputs, 3, bias_init=torch_bias(9 * inputs), rngs=rngs)


class _Chain(nnx.Module):
    """3x3 convolutions with a ReLU between them, and one after the last where ``ends`` says so."""

    def __init__(self, *widths: int, ends: bool = False, rngs: nnx.Rngs) -> None:
        self.layers = nnx.List([_conv(a, b, rngs=rngs) for a, b in pairwise(widths)])
        self.ends = ends

    def __call__(self, x: Array) -> Array:
        for layer in list(self.layers)[:-1]:
            x = jax.nn.relu(layer(x))
        x = self.layers[-1](x)
        return jax.nn.relu(x) if self.ends else x


class _Exchange(nnx.Module):
    """What three branches tell each other: each is scaled and shifted by what all of them say, as far as it lets."""

    def __init__(self, width: int, *, rngs: nnx.Rngs) -> None:
        self.told = _Chain(3 * width + 3, width, width, width, rngs=rngs)
        self.gates = nnx.List([_conv(3 * width + 3, width, rngs=rngs) for _ in range(3)])
        self.scales = nnx.List([_conv(width, width, rngs=rngs) for _ in range(3)])
        self.shifts = nnx.List([_conv(width, width, rngs=rngs) for _ in range(3)])

    def __call__(self, branches: list[Array]) -> list[Array]:
        joined, after = jnp.concatenate(branches, -1), []
        for k, x in enumerate(branches):
            others = jnp.broadcast_to(jnp.arange(3) != k, (*x.shape[:-1], 3)).astype(x.dtype)
            everything = jnp.concatenate([joined, others], -1)
            told, gate = self.told(everything), jax.nn.sigmoid(self.gates[k](everything))
            after.append(gate * x + (1 - gate) * (x * self.scales[k](told) + self.shifts[k](told)))
        return after


class FusionNetwork(nnx.Module):
    """F: three branches, of the guide, of the interpolated image and of both together, that exchange features twice.

    Args:
        bands: of the pair.
        width: channels of each branch.
        depth: convolutions of a branch before each exchange.
    """

    def __init__(self, bands: Bands, *, width: int = 128, depth: int = 3, rngs: nnx.Rngs) -> None:
        inputs = (bands.guide, bands.lr + bands.guide, bands.lr)
        self.inputs = nnx.List([_Chain(n, width // 2, width, rngs=rngs) for n in inputs])
        self.stages = nnx.List(
            [nnx.List([_Chain(*[width] * (depth + 1), ends=True, rngs=rngs) for _ in inputs]) for _ in range(2)]
        )
        self.exchange = _Exchange(width, rngs=rngs)
        self.output = _Chain(3 * width, 2 * width, width, bands.lr, rngs=rngs)

    def __call__(self, interpolated: Array, guide: Array) -> Array:
        """The fused image.

        Args:
            interpolated: the low-resolution image on the guide's grid, ``(batch, height, width, band)``.
            guide: ``(batch, height, width, guide band)``.
        """
        images = (guide, jnp.concatenate([interpolated, guide], -1), interpolated)
        begun = [layer(image) for layer, image in zip(self.inputs, images, strict=True)]
        x = begun
        for stage in self.stages:
            x = self.exchange([branch(features) for branch, features in zip(stage, x, strict=True)])
        return self.output(jnp.concatenate([a + b for a, b in zip(x, begun, strict=True)], -1))


class Adaptor(nnx.Module):
    """``x + g(x)``, where g blends two maps of its features f by a mask of them: ``m f + (1 - m) h(relu(f))``.

    Args:
        bands: of the image.
        width: channels of the layers; another number than the bands takes a 1x1 convolution back to them, from zero.
    """

    def __init__(self, bands: int, width: int | None = None, *, rngs: nnx.Rngs) -> None:
        width = width or bands
        self.features = _Chain(bands, width, width, width, rngs=rngs)
        self.mask, self.other = (_conv(width, width, rngs=rngs) for _ in range(2))
        self.output = (
            None if width == bands else Conv(width, bands, 1, kernel_init=nnx.initializers.zeros_init(), rngs=rngs)
        )

    def __call__(self, image: Array) -> Array:
        """``(batch, height, width, band)`` to the same."""
        f = self.features(image)
        mask = jax.nn.sigmoid(self.mask(jax.nn.relu(f)))
        blend = mask * f + (1 - mask) * self.other(jax.nn.relu(f))
        return image + (blend if self.output is None else self.output(blend))


class AdaptedFusion(nnx.Module):
    """The fusion network and the adaptor.

    Args:
        bands: of the pair.
        width, depth: of `FusionNetwork`.
        adapted: width of `Adaptor`, the bands by default.
    """

    def __init__(
        self, bands: Bands, *, width: int = 128, depth: int = 3, adapted: int | None = None, rngs: nnx.Rngs
    ) -> None:
        self.fusion = FusionNetwork(bands, width=width, depth=depth, rngs=rngs)
        self.adaptor = Adaptor(bands.lr, adapted, rngs=rngs)

    def __call__(self, interpolated: Array, guide: Array) -> Array:
        """X of an interpolated image and a guide, see `FusionNetwork`."""
        return self.adaptor(self.fusion(interpolated, guide))


class Ual(nnx.Module):
    """All that is fitted to a pair, and the image that is adapted."""

    def __init__(self, pair: Pair, degradation: Degradation, *, rngs: nnx.Rngs, **sizes: Any) -> None:
        bands = Bands.of(pair.observation, pair.model)
        networks = AdaptedFusion(bands, rngs=rngs, **sizes)
        self.degradation, self.fusion, self.adaptor = degradation, networks.fusion, networks.adaptor
        self.fused = Held((*pair.observation["guide"].shape[:3], bands.lr))


# ----------------------------------------------------------------------------------------------------------------------
# Step 1: fusion, one ratio lower


def gaussian_kernel(sigma: float, taps: int, shift: tuple[float, float], width: float | None = None) -> Array:
    """A Gaussian kernel ``(taps, taps)`` of sum one, cut off at a square of so many pixels' width.

    Args:
        sigma: standard deviation in pixels.
        taps: a side.
        shift: see `jfusion.operators.Grid`.
        width: None for all taps.
    """
    profiles = []
    for late in shift:
        offset = np.abs(np.arange(taps) - taps // 2 + late)
        profile = gaussian_profile(sigma, taps, late) * (offset <= (taps if width is None else width / 2))
        profiles.append(profile / profile.sum())
    return profiles[0][:, None] * profiles[1]


def training_blurs(grid: Grid) -> Array:
    """The kernels of `BLURS` on a grid, ``(blur, taps, taps)``."""
    eighth = grid.ratio / 8
    taps = 2 * math.ceil(max(width for width, _ in BLURS) * eighth / 2) + 1
    return jnp.stack([gaussian_kernel(sigma * eighth, taps, grid.shift, width * eighth) for width, sigma in BLURS])


def blurred(model: ObservationModel, key: Array) -> LinearOperator:
    """The PSF of a training step: the model's, where it is known, and else one of `BLURS`; borders are reflected."""
    grid, known = model.grid, model.operators["lr"]
    if known is None:
        kernels = training_blurs(grid)
        kernel = kernels[jax.random.randint(key, (), 0, len(kernels))]
        return SpatialResponse(kernel, grid.ratio, grid.phase, "reflect")
    return dataclasses.replace(known, boundary="reflect") if isinstance(known, SpatialResponse) else known


def patch_side(extent: tuple[int, ...], ratio: int, taps: int) -> int:
    """Side of a training patch: `PATCH` or what the image holds, a multiple of the ratio, and enough for a PSF."""
    least = -(-(taps // 2 + 1) // ratio) * ratio
    return max(min(PATCH, *extent) // ratio * ratio, least)


def _half(axes: tuple[int, ...]) -> Callable[[Array], Array]:
    return lambda x: jnp.roll(x, [x.shape[axis] // 2 for axis in axes], axes)


CHANGES: tuple[Callable[[Array], Array], ...] = (
    lambda x: x[::-1],
    lambda x: x[:, ::-1],
    jnp.rot90,
    lambda x: jnp.rot90(x, -1),
    _half((0,)),
    _half((0, 1)),
)
"""What half of the patches undergo: mirrored, turned, or moved round by half of their sides."""


def changed(patch: Array, key: Array) -> Array:
    """A square patch ``(side, side, channel)`` after one of `CHANGES`, or as it is."""
    drawn = jax.random.randint(key, (), 0, 2 * len(CHANGES))
    return lax.switch(jnp.minimum(drawn, len(CHANGES)), (*CHANGES, lambda x: x), patch)


def fusion_loss(module: Ual, pair: Pair, key: Array) -> tuple[Array, tuple[()]]:
    """``|F(B' Y, R Y) - Y|``, mean over pixels and bands of random patches; B' Y is interpolated again."""
    model, grid = module.degradation(pair.model), pair.model.grid
    places, changes, blur = jax.random.split(key, 3)
    spatial = blurred(pair.model, blur)
    taps = max(psf_size(spatial.psf)) if isinstance(spatial, SpatialResponse) else 1
    image = jnp.concatenate([pair.observation["lr"], pair.weight["lr"]], -1)
    side = patch_side(image.shape[1:3], grid.ratio, taps)
    image = jnp.pad(image, ((0, 0), *((0, max(side - n, 0)) for n in image.shape[1:3]), (0, 0)), mode="symmetric")
    patches = cut(image, corners(places, image.shape[1:3], (side, side), BATCH), (side, side))
    patches = jax.vmap(changed)(patches, jax.random.split(changes, BATCH))
    target, weight = patches[..., :-1], patches[..., -1:]
    made = module.fusion(upsample(spatial(target), grid, "bilinear"), model["guide"](target))
    return mean_l1(made, target, weight), ()


def _fused(module: Ual, pair: Pair) -> Array:
    observed = pair.observation
    return module.fusion(upsample(observed["lr"], pair.model.grid, "bilinear"), observed["guide"])


# ----------------------------------------------------------------------------------------------------------------------
# Step 2: adaptation


def adaptation_loss(module: Ual, pair: Pair, key: Array) -> tuple[Array, tuple[Array, ObservationModel]]:
    """``|B X - Y| + |R X - Z|``, means over pixels and bands; the output is X and the model."""
    model, product = module.degradation(pair.model), module.adaptor(module.fused())
    lr, guide = misfits(mean_l1, model, product, pair)
    return lr + guide, (product, model)


def _of_adaptor(params: Any) -> Any:
    return jax.tree_util.tree_map_with_path(lambda path, _: path[0].key == "adaptor", params)


DECAYED_ADAM = optax.chain(optax.add_decayed_weights(1e-3, _of_adaptor), ADAM)
"""Adam with the weight decay of the adaptor in the gradient, as PyTorch's, and not beside it."""

FUSION_STEPS = 3200
"""A twelfth of the release's, which are for twelve scenes."""


def fusion_stage(width: int) -> Stage:
    """The training of a fusion network of so many channels.

    For so few steps its rate is three times the release's at 128 channels, and it goes with one over their number.
    """
    return Stage(fusion_loss, FUSION_STEPS, Falling(3e-4 * 128 / width, 0.7, 15), trainable=("fusion",))


FUSED = hold(fused=_fused)
ADAPTATION = on_logits(
    Stage(
        adaptation_loss,
        1500,
        Schedule(9e-5),
        optimiser=DECAYED_ADAM,
        trainable=("adaptor", "degradation"),
        rates=(("degradation", 1e-4 / 9e-5),),
    )
)


@fitter
def fit_ual(
    observation: Observation,
    model: ObservationModel,
    *,
    width: int = 128,
    **sizes: Any,
) -> Plan:
    """Fits UAL to a pair; see `jfusion.catalogue.Fitter` and `priors.fit.fit`.

    Args:
        observation: `lr` and `guide`.
        model: parts that are None are learned and returned, the others are used as they are.
        width: of `AdaptedFusion`.
        sizes: its others.
    """
    pair, scale = Pair.of(observation, model).normalised()
    bands, unknown, ratio = Bands.of(observation, model), unknown_parts(model), model.ratio
    taps = max(min(WIDE, 4 * ratio), ratio)

    def build(key: Array) -> Ual:
        degradation = Degradation(model, bands, size=taps, psf="wide")
        if degradation.psf is not None:
            kernel = gaussian_kernel(START * ratio / 8, degradation.psf.size, model.grid.shift)
            degradation.psf.weights = Weights(kernel.reshape(1, -1), "softmax")
        return Ual(pair, degradation, rngs=nnx.Rngs(key), width=width, **sizes)

    stages = (fusion_stage(width), FUSED, ADAPTATION)
    return Plan(build, pair, (SIMPLEX_SENSORS, *stages) if "guide" in unknown else stages, scale)


UAL = System(
    name="ual",
    title="UAL",
    family="prior",
    tasks=SPATIOSPECTRAL,
    paper=Paper(
        authors="L. Zhang, J. Nie, W. Wei, Y. Zhang, S. Liao, L. Shao",
        year=2020,
        title="Unsupervised Adaptation Learning for Hyperspectral Imagery Super-Resolution",
        venue="IEEE/CVF Conference on Computer Vision and Pattern Recognition",
        doi="10.1109/CVPR42600.2020.00314",
        code="https://github.com/JiangtaoNie/UAL",
    ),
    summary="A network of three branches that exchange features fuses the interpolated image and the guide, trained "
    "on the pair one ratio lower; a small network g adapts its image F to the pair, X = F + g(F), and is fitted, with "
    "an unknown B, by |B X - Y| + |R X - Z| (means).",
    method=Fitted(
        generator=AdaptedFusion,
        fit=fit_ual,
        steps=FUSION_STEPS + FUSED.steps + ADAPTATION.steps,
        note="Adam; 3200 steps on the fusion network at 3e-4 (times 0.7 after each fifteenth), 6 patches of up to 128 "
        "x 128 pixels, then 1500 on the adaptor at 9e-5 with weight decay 1e-3, and on B at 1e-4.",
        tiny={"width": 8, "depth": 1, "adapted": 8},
        compact={"width": 32, "adapted": 32},
    ),
    differences="The fusion network is trained on the pair alone, one ratio lower, where the paper takes twelve other "
    "scenes and 38,400 steps at 1e-4; the rate goes with one over the width. Patches of a small pair are smaller than "
    "the 39 x 39 pixels that a pixel of the product looks at, so that training sees borders of zeros everywhere. It "
    "is shown the pair's own blur where that is known, and else the paper's five Gaussians, in proportion to the "
    "ratio. An adaptor narrower than the bands has one more convolution, which starts from zero. A learned PSF is "
    "kept on the simplex by softmax, without the release's offset and weight decay, at a hundred times its rate, "
    "which acts on logits; it has at most 4 ratio taps a side (32 at ratio 8, as released). The paper knows R; here "
    "an unknown one is found, with an unknown B, from |R Y - B Z| first, and refined like B. The pair is scaled to a "
    "largest magnitude of one. The count is of the fusion network, 7,097,695, and of the adaptor, 43,400.",
    parameters=(7_141_095, Bands(31, 3, 8)),
)
