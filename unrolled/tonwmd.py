"""TONWMD: a matrix decomposition optimised before and after a residual network with region-level non-local attention.

Shen, Liu, Xiao, Yang, Xiao, "A Twice Optimizing Net With Matrix Decomposition for Hyperspectral and Multispectral Image
Fusion", JSTARS 13, 2020.

Bands as rows, pixels as columns: Y is the low-resolution image, Z the guide, H the blur and decimation, R the spectral
response. The optimisation of an image X at a weight w decomposes it, X = P A with the singular vectors P of its
spectra, fits the coefficients to the guide and then the spectra to the low-resolution image,

    A   = argmin_A |Z - R P A|^2 + w |X - P A|^2
    P  <- argmin_P |Y - P H A|^2 + w |X - P A|^2          X <- P A

each a linear least-squares problem. It is done twice, around a network N that sees nothing but its result:

    X_es  = opt(Y up, 1e-6),     X_cnn = X_es + N(X_es),     F = opt(X_cnn, 2e-3)

N begins with a convolution and attention over all pixels of a region; regions lie two by two, and each of the four has
weights of its own. Seven normalised convolutions follow; what all of them made enters two branches, of which a 1 x 1
convolution makes the residual. N alone is trained, by the mean absolute error, 1e-3 times the spectral angle (in
radians, 1e-3 beside its denominator), 1e-3 times the mean of (1 - SSIM)^2 and 1e-4 times half the squares of the
kernels behind the attention: Adam from 2e-3, halved every ten of 150 epochs of 241 steps, gradients clipped to norm 5,
batches of 64 patches 32 x 32. The operators are those of the observation model ("exact"); "learned" fits a PSF and a
spectral response to the training pairs; "free" is not offered, see `unrolled.closed_form`.

Differences from the release:
    - It optimises whole images, cuts X_es into pieces of 32 x 32 for N, also to test, and puts the results together;
      regions are quarters of a piece. Here N takes an image of any size, its regions of 16 x 16 tile it, and only the
      convolutions look across. A patch is optimised by itself, which needs many low-resolution pixels; so the recipe
      has four patches of 128 x 128, as many pixels, in the place of 64.
    - It interpolates as if pixels of Y were blocks, with a sharper cubic kernel (OpenCV's), but its Y is sampled
      elsewhere; here the interpolation knows the grid.
    - It clips X_cnn to [0, 1]. A product is normalised by the running moments also while the network is in training.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise, product
from typing import Unpack

import jax.numpy as jnp
import optax
from flax import nnx
from jax import Array, lax

from jfusion.catalogue import Bands, Original, Paper, Recipe, System, Table, Trained
from jfusion.classical.hypersharpening import srf
from jfusion.classical.pixels import matmul, mix
from jfusion.layers.attention import attend, from_windows, padded, to_windows
from jfusion.layers.batch_norm import ConvNorm
from jfusion.layers.conv import Conv
from jfusion.layers.init import tf_he_normal
from jfusion.layers.layouts import as_is, first_of_one, keras_batch_norm
from jfusion.layers.prelu import PReLU
from jfusion.metrics import ssim
from jfusion.operators import Observation, ObservationModel, upsample
from jfusion.operators.linear import single
from jfusion.tasks import SPATIOSPECTRAL
from unrolled.closed_form import LinearPhysics, LinearSensors
from unrolled.stages import Basis, Options, Stages, finish, spectral_step

BEFORE, AFTER = 1e-6, 2e-3
"""Weight of the image that is optimised, before the network and after it."""

NEGLIGIBLE = 1e-6
"""Eigenvalue of the normal equations, as a share of the largest, that float32 cannot tell from none."""

WIDTHS = (96, 76, 65, 55, 47, 39, 32)
"""Channels of the normalised convolutions."""


# The optimisation -----------------------------------------------------------------------------------------------------


def _gram(a: Array, b: Array) -> Array:
    """Sums over the pixels of the products of two images' channels, ``(batch, channel of a, channel of b)``."""
    return jnp.einsum("nhwi,nhwj->nij", a, b, precision="highest")


def _solved(normal: Array, right: Array) -> Array:
    """``normal^-1 right`` for a positive semidefinite matrix, without what float32 cannot tell from none."""
    scale = jnp.sqrt(jnp.diagonal(normal, axis1=-2, axis2=-1))
    inverse = jnp.where(scale > 0, 1 / jnp.where(scale > 0, scale, 1), 0)[..., None]
    values, vectors = jnp.linalg.eigh(normal * inverse * jnp.swapaxes(inverse, -2, -1))
    values, kept = values[..., None], values[..., None] > NEGLIGIBLE * values[..., -1:, None]
    inner = matmul(jnp.swapaxes(vectors, -2, -1), inverse * right)
    return inverse * matmul(vectors, jnp.where(kept, inner / jnp.where(kept, values, 1), 0))


def optimised(
    x: Array, observation: Observation, model: ObservationModel, weight: float, rank: int | None = None
) -> Array:
    """One pass of the decomposition over an image; see the module. No gradient passes through it.

    What the low-resolution image does not determine of the spectra, at a small weight, stays as it was in ``x``.

    Args:
        x: ``(batch, height, width, band)``.
        observation: what the sensors gave.
        model: operators that a closed form covers, with one PSF for all bands.
        weight: w, positive, trust in ``x``.
        rank: columns of P; all bands where it is None.
    """
    x, observation = single((x, dict(observation)))
    basis = jnp.linalg.eigh(_gram(x, x))[1][..., ::-1][..., :rank]
    mixing = matmul(srf(model), basis)
    coefficients = spectral_step(Basis(basis).T(x), observation["guide"], mixing, 1 / weight)
    seen, spectra = model["lr"](coefficients), jnp.swapaxes(basis, 1, 2)
    normal = _gram(seen, seen) + weight * _gram(coefficients, coefficients)
    missing = _gram(seen, observation["lr"] - mix(seen, spectra))
    missing += weight * _gram(coefficients, x - mix(coefficients, spectra))
    return lax.stop_gradient(mix(coefficients, spectra + _solved(normal, missing)))


# The network ----------------------------------------------------------------------------------------------------------


def _conv(inputs: int, outputs: int, size: int, bias: bool, rngs: nnx.Rngs) -> Conv:
    return Conv(inputs, outputs, size, use_bias=bias, kernel_init=tf_he_normal, rngs=rngs)


class NonLocal(nnx.Module):
    """Every pixel plus what it draws from all pixels of its region, by embedded likeness (not scaled)."""

    def __init__(self, channels: int, rngs: nnx.Rngs) -> None:
        half = channels // 2
        self.query, self.key, self.value = (
            Conv(channels, half, (1,), use_bias=False, kernel_init=tf_he_normal, rngs=rngs) for _ in range(3)
        )
        self.outer = Conv(half, channels, (1,), use_bias=False, kernel_init=tf_he_normal, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        """``(..., pixel, channel)`` to the same."""
        query = self.query(x)
        query = query * math.sqrt(query.shape[-1])
        return x + self.outer(attend(query, self.key(x), self.value(x), 1))


class Regions(nnx.Module):
    """Non-local attention within square regions that tile the image; each of two by two neighbours has own weights."""

    def __init__(self, channels: int, side: int, rngs: nnx.Rngs) -> None:
        self.side = side
        self.parts = nnx.List([NonLocal(channels, rngs) for _ in range(4)])

    def __call__(self, x: Array) -> Array:
        """``(batch, height, width, channel)`` to the same; mirrored below and to the right to make regions whole."""
        side = self.side
        windows = to_windows(padded(x, (2 * side, 2 * side)), (side, side))
        for (i, j), part in zip(product((0, 1), (0, 1)), self.parts, strict=True):
            windows = windows.at[:, i::2, j::2].set(part(windows[:, i::2, j::2]))
        return from_windows(windows, (side, side))[:, : x.shape[1], : x.shape[2]]


class Residual(nnx.Module):
    """N; the layers and arguments are those of `TONWMD`."""

    def __init__(self, bands: int, width: int, widths: Sequence[int], region: int, rngs: nnx.Rngs) -> None:
        total, half = width + sum(widths), width // 2
        self.first, self.regions = _conv(bands, width, 3, False, rngs), Regions(width, region, rngs)
        self.inner = nnx.List(
            [
                ConvNorm(i, o, momentum=0.99, epsilon=1e-3, kernel_init=tf_he_normal, rngs=rngs)
                for i, o in pairwise([width, *widths])
            ]
        )
        self.slopes = nnx.List([PReLU(channels, 0.1) for channels in widths])
        self.wide, self.wide_slope = _conv(total, width, 1, True, rngs), PReLU(width, 0.1)
        self.narrow, self.narrow_slope = _conv(total, half, 1, True, rngs), PReLU(half, 0.1)
        self.around, self.around_slope = _conv(half, half, 3, True, rngs), PReLU(half, 0.1)
        self.last = _conv(width + half, bands, 1, False, rngs)

    def __call__(self, x: Array, running: bool | None = None) -> Array:
        """``(batch, height, width, band)`` to the same; ``running`` as in `ConvNorm`."""
        made = [self.regions(self.first(x))]
        for layer, slope in zip(self.inner, self.slopes, strict=True):
            made.append(slope(layer(made[-1], running)))
        everything = jnp.concatenate(made, -1)
        narrow = self.around_slope(self.around(self.narrow_slope(self.narrow(everything))))
        return self.last(jnp.concatenate([narrow, self.wide_slope(self.wide(everything))], -1))

    def decay(self) -> Array:
        """Half the sum of the squared kernels of all convolutions behind the attention."""
        layers = [*(layer.conv for layer in self.inner), self.wide, self.narrow, self.around, self.last]
        return sum((jnp.sum(layer.kernel[...] ** 2) for layer in layers), jnp.zeros(())) / 2


class TONWMD(nnx.Module):
    """The network of Shen et al., 2020, with the optimisation before and after it.

    Args:
        bands: of the pair.
        width: channels of the attention and of the wide branch; the narrow one has half as many.
        widths: channels of the normalised convolutions.
        region: pixels along a side of the attention's regions.
        rank: columns of P; all bands where it is None.
        physics: "exact" or "learned".

    Raises:
        InputError: another physics.
    """

    def __init__(
        self,
        bands: Bands,
        *,
        width: int = 64,
        widths: Sequence[int] = WIDTHS,
        region: int = 16,
        rank: int | None = None,
        physics: LinearPhysics = "exact",
        rngs: nnx.Rngs,
    ) -> None:
        self.rank = rank
        self.sensors = LinearSensors(physics, bands)
        self.residual = Residual(bands.lr, width, widths, region, rngs)

    def learn(self, observation: Observation, model: ObservationModel, running: bool | None = None) -> list[Array]:
        """``[X_es, X_cnn]``, each ``(batch, height, width, band)``; ``running`` as in `ConvNorm`."""
        interpolated = upsample(observation["lr"], model.grid)
        solved = optimised(interpolated, observation, self.sensors(model), BEFORE, self.rank)
        return [solved, solved + self.residual(solved, running)]

    def __call__(self, observation: Observation, model: ObservationModel, **options: Unpack[Options]) -> Array | Stages:
        """The product ``(batch, height, width, band)``, or what ``options`` ask of `unrolled.stages.finish`.

        The stages are X_es, X_cnn and F. No gradient passes through the last optimisation.

        Raises:
            InputError: the physics is exact, and the spatial or the spectral response is not known.
        """
        estimates = self.learn(observation, model, running=True)
        estimates.append(optimised(estimates[-1], observation, self.sensors(model), AFTER, self.rank))
        return finish(estimates, observation, model, **options)


# The loss -------------------------------------------------------------------------------------------------------------


def spectral_angle(x: Array, y: Array) -> Array:
    """Mean angle between the spectra of two images, in radians; 1e-3 beside the denominator keeps it off zero."""
    norms = jnp.sqrt(jnp.maximum(jnp.sum(x**2, -1), 1e-12)) * jnp.sqrt(jnp.maximum(jnp.sum(y**2, -1), 1e-12))
    return jnp.mean(jnp.arccos(jnp.clip(jnp.sum(x * y, -1) / (norms + 1e-3), -1 + 1e-6, 1 - 1e-6)))


def three_fold_loss(network: TONWMD, observation: Observation, model: ObservationModel, target: Array) -> Array:
    """Spatial, spectral and structural errors of X_cnn, the decay of the kernels, and the misfit of learned responses.

    Raises:
        InputError: the images have fewer than 11 x 11 pixels.
    """
    estimate = network.learn(observation, model)[-1]
    errors = (
        jnp.mean(jnp.abs(estimate - target))
        + 1e-3 * spectral_angle(estimate, target)
        + 1e-3 * jnp.mean((1 - ssim(estimate, target)) ** 2)
    )
    return errors + 1e-4 * network.residual.decay() + network.sensors.misfit(observation, model, target)


def _adam(steps: int) -> optax.GradientTransformation:
    rate = optax.exponential_decay(2e-3, max(1, steps // 15), 0.5, staircase=True)
    return optax.chain(optax.clip_by_global_norm(5.0), optax.adam(rate))


def _non_local(ours: str, theirs: str) -> Table:
    names = {"query": "theta_x", "key": "phi_x", "value": "g_x", "outer": "y_just"}
    return {f"{ours}/{part}/kernel": (f"{theirs}/{name}/W", first_of_one) for part, name in names.items()}


def _convolution(ours: str, slope: str, theirs: str) -> Table:
    return {
        f"{ours}/kernel": (f"{theirs}/W", as_is),
        f"{ours}/bias": (f"{theirs}/b", as_is),
        f"{slope}/slope": (f"{theirs}/prelu_alphas", as_is),
    }


def _release(network: TONWMD) -> Table:
    """The names in the release."""
    table: Table = {
        "residual/first/kernel": ("first_Conv/W", as_is),
        "residual/last/kernel": ("final_just/W", as_is),
    }
    for k, place in enumerate(("left_top", "right_top", "left_bottom", "right_bottom")):
        table |= _non_local(f"residual/regions/parts/{k}", place)
    for k in range(len(network.residual.inner)):
        inner = f"residual/inner/{k}"
        table |= _convolution(f"{inner}/conv", f"residual/slopes/{k}", f"conv{k}")
        table |= keras_batch_norm(f"{inner}/norm", f"conv{k}/BN")
    for ours, theirs in (("wide", "conv_in1"), ("narrow", "conv_in21"), ("around", "conv_in22")):
        table |= _convolution(f"residual/{ours}", f"residual/{ours}_slope", theirs)
    return table


TONWMD_SYSTEM = System(
    name="tonwmd",
    title="TONWMD",
    family="unrolled",
    tasks=SPATIOSPECTRAL,
    paper=Paper(
        authors="D. Shen, J. Liu, Z. Xiao, J. Yang, L. Xiao",
        year=2020,
        title="A Twice Optimizing Net With Matrix Decomposition for Hyperspectral and Multispectral Image Fusion",
        venue="IEEE Journal of Selected Topics in Applied Earth Observations and Remote Sensing 13",
        doi="10.1109/JSTARS.2020.3009250",
        code="https://github.com/liuofficial/TONWMD",
    ),
    summary="Decomposes the interpolated image into spectra and coefficients and fits these to both observations by "
    "least squares, adds the residual of a network with attention within regions, and does the fit once more.",
    method=Trained(
        network=TONWMD,
        loss=three_fold_loss,
        recipe=Recipe(
            optimiser=_adam,
            steps=36_150,
            patch=128,
            batch=4,
            note="Adam from 2e-3, halved every ten of 150 epochs of 241 steps, gradients clipped to norm 5; absolute "
            "error, spectral angle, SSIM, decay of the kernels. The paper has 64 patches of 32 x 32 pixels, as many "
            "pixels.",
        ),
        tiny={"width": 4, "widths": (4, 3), "region": 4},
        compact={"width": 32, "widths": (48, 32, 24, 16)},
        originals=(
            Original(
                file="temp/CAVEMAT/models/tonwmd/-N, which the release saves, for CAVE at ratio 8; it comes without "
                "weights",
                table=_release,
                bands=Bands(31, 3, 8),
                scale=1,
                note="Images go from 0 to 1. The release cuts X_es into pieces of 32 x 32 pixels, around which the "
                "convolutions of its network see zeros, and clips X_cnn to [0, 1].",
            ),
        ),
    ),
    differences="The network takes images of any size, where the release cuts them into pieces of 32 x 32; regions of "
    "the attention have 16 x 16 pixels as there. Patches are optimised one by one, not the whole image before it is "
    "cut, so they are larger and fewer. The interpolation knows where the low-resolution pixels lie. Nothing is "
    "clipped.",
    parameters=(358_805, Bands(31, 3, 8)),
    needs_model=True,
)
