"""MHF-Net: the fusion of multispectral and hyperspectral images as an unrolled, low-rank proximal gradient method.

Xie, Zhou, Zhao, Meng, Zuo, Xu, "Multispectral and Hyperspectral Image Fusion by MS/HS Fusion Net", CVPR 2019.
Xie, Zhou, Zhao, Xu, Meng, "MHF-Net: An Interpretable Deep Network for Multispectral and Hyperspectral Image Fusion",
TPAMI 44, 2022.

With pixels as rows, the scene is what the guide Z predicts and a part of low rank, ``X = Z A + V B``. What remains is
``min_V |C(Z A + V B) - Y|^2 + f(V)`` with the spatial response C and the low-resolution image Y. Stage k computes

    X_k = Z A + V_k B,   E_k = C X_k - Y,   V_(k+1) = prox_k(V_k - U_k(E_k) B'),

from ``V_0 = 0``; the last X passes a residual network. CMHF learns A, B, C (shared by all stages) and for each stage
the proximal network and the up-sampler U_k, which stands for C' (or is C' where ``physics`` says so). BMHF is told C by
the observation model and computes A and B for the pair at hand, so that one network serves many sensors; it learns with
those of the truth. That C is the true one is what BMHF is, and so it has no choice of `unrolled.physics`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Unpack

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import Array
from jax.nn.initializers import constant

from jfusion.catalogue import Bands, Original, Paper, Recipe, System, Table, Trained
from jfusion.classical.pixels import NEGLIGIBLE, least_squares, mix, signed_subspace
from jfusion.errors import InputError
from jfusion.layers.conv import Conv, conv, conv_transpose
from jfusion.layers.init import tf_truncated_normal
from jfusion.layers.layouts import (
    as_is,
    tensorflow_depthwise_kernel,
    tensorflow_pointwise_matrix,
    tensorflow_transposed_kernel,
)
from jfusion.operators import Grid, Observation, ObservationModel, SpatialResponse
from jfusion.operators.grid import prime_factors
from jfusion.operators.spatial import one_psf
from jfusion.tasks import SPATIOSPECTRAL
from unrolled.lr_sensor import LrSensor
from unrolled.physics import Physics, check_physics
from unrolled.stages import Options, Stages, Unroll, finish, run_stages

DataStep = tuple[Callable[[Array], Array], Callable[[Any, Array], Array], Sequence[Any]]
"""The residual of an image, what leads it back given what a stage learns for that, and what each stage learns."""

GUIDE_SCALE = 0.1
"""The guide enters the up-samplers divided by ten."""


def factors(ratio: int) -> list[int]:
    """Steps from the high to the low resolution: fours first, then primes; 32 is 4, 4, 2 as published."""
    primes = prime_factors(ratio)
    twos = primes.count(2)
    return [*[4] * (twos // 2), *[2] * (twos % 2), *primes[twos:]]


def identity_taps(window: int, inputs: int, outputs: int) -> Array:
    """A kernel of which every tap is a quarter of the identity of the channels, repeated where the counts differ."""
    period = min(inputs, outputs)
    same = np.arange(inputs)[:, None] % period == np.arange(outputs) % period
    return jnp.asarray(np.broadcast_to(same / 4, (window, window, inputs, outputs)), jnp.float32)


class Normalised(nnx.Module):
    """3 x 3 convolution, then mean and variance of the image at hand, learned scale and offset."""

    def __init__(self, inputs: int, outputs: int, scale: float, rngs: nnx.Rngs) -> None:
        self.conv = Conv(inputs, outputs, 3, kernel_init=tf_truncated_normal, rngs=rngs)
        self.scale = nnx.Param(jnp.full(outputs, scale))
        self.offset = nnx.Param(jnp.zeros(outputs))

    def __call__(self, x: Array) -> Array:
        y = self.conv(x)
        mean, variance = y.mean((1, 2), keepdims=True), y.var((1, 2), keepdims=True)
        return (y - mean) * jax.lax.rsqrt(variance + 1e-5) * self.scale[...] + self.offset[...]


class Residual(nnx.Module):
    """``x`` plus three `Normalised` layers of ``x`` and of features; the published "resLevel".

    Args:
        channels: of ``x``.
        features: channels of the features, 0 for none.
        scale: initial scale of the normalisation.
        positive: a ReLU ends the residual.
    """

    def __init__(self, channels: int, features: int, scale: float, positive: bool, rngs: nnx.Rngs) -> None:
        inner = channels + features + 3
        sizes = ((channels + features, inner), (inner, inner), (inner, channels))
        self.layers = nnx.List([Normalised(i, o, scale, rngs) for i, o in sizes])
        self.positive = positive

    def __call__(self, x: Array, features: Array | None = None) -> Array:
        y = x if features is None else jnp.concatenate([x, features], -1)
        for k, layer in enumerate(self.layers):
            y = layer(y)
            if k < 2 or self.positive:
                y = jax.nn.relu(y)
        return x + y


class Chain(nnx.Module):
    """A sequence of residual blocks."""

    def __init__(self, channels: int, blocks: int, positive: bool, rngs: nnx.Rngs) -> None:
        self.blocks = nnx.List([Residual(channels, 0, 1 / 20, positive, rngs) for _ in range(blocks)])

    def __call__(self, x: Array) -> Array:
        for block in self.blocks:
            x = block(x)
        return x


class SpatialKernels(nnx.Module):
    """The learned C of CMHF: one small kernel a factor of the ratio, common to all bands."""

    def __init__(self, ratio: int) -> None:
        self.steps = factors(ratio)
        sizes = [3 if step == 2 else step + 2 for step in self.steps]
        self.kernels = nnx.List([nnx.Param(jnp.full((k, k, 1, 1), 1 / k**2)) for k in sizes])

    def __call__(self, x: Array, grid: Grid) -> list[Array]:
        """The image ``(batch, height, width, band)`` after each step, the low-resolution one last.

        Windows lie around the low-resolution pixels of the grid, those of the later steps around nested ones; between
        two places the earlier one is taken, as published.
        """
        scales = []
        offsets = [centre - (grid.ratio - 1) / 2 for centre in grid.centre]
        for step, kernel in zip(self.steps, self.kernels, strict=True):
            size = kernel.shape[0]
            before = [math.floor((size - step + 1) / 2 - offset) for offset in offsets]
            w = jnp.tile(kernel[...], (1, 1, 1, x.shape[-1]))
            padding = [(first, size - step - first) for first in before]
            x = conv(x, w, strides=step, padding=padding, groups=x.shape[-1])
            scales.append(x)
            offsets = [0, 0]
        return scales


class Doubling(nnx.Module):
    """Transposed 3 x 3 convolutions that enlarge by one factor, by two at a time where it is four."""

    def __init__(self, step: int, inputs: int, outputs: int) -> None:
        self.strides = [2, 2] if step == 4 else [step]
        channels = [inputs] + [outputs] * len(self.strides)
        self.kernels = nnx.List(
            [
                nnx.Param(identity_taps(stride + 1, i, o))
                for stride, i, o in zip(self.strides, channels[:-1], channels[1:], strict=True)
            ]
        )

    def __call__(self, x: Array) -> Array:
        for stride, kernel in zip(self.strides, self.kernels, strict=True):
            x = conv_transpose(x, kernel[...], strides=stride)
        return x


class UpSampler(nnx.Module):
    """U_k: enlarges a low-resolution residual factor by factor, adjusting it to the guide at each scale.

    Raises:
        InputError: a ratio of 1.
    """

    def __init__(
        self, bands: int, features: list[int], ratio: int, positive: bool, rngs: nnx.Rngs, channels: int | None = None
    ) -> None:
        if ratio == 1:
            raise InputError(
                "the up-samplers need a ratio of 2 or more, but it is 1 and there is nothing to enlarge; take mhf_net "
                "with physics='exact' or 'learned', which has none."
            )
        steps, channels = factors(ratio)[::-1], channels or bands
        outputs = [channels] * (len(steps) - 1) + [bands]
        self.enlarge = nnx.List([Doubling(s, channels, o) for s, o in zip(steps, outputs, strict=True)])
        self.adjust = nnx.List(
            [Residual(o, f, 1 / 100, positive, rngs) for o, f in zip(outputs, features, strict=True)]
        )
        self.blur = Conv(
            bands, bands, 4, groups=bands, use_bias=False, kernel_init=constant(1 / 16), rngs=rngs
        )  # fmt: skip

    def __call__(self, x: Array, guides: list[Array]) -> Array:
        for enlarge, adjust, guide in zip(self.enlarge, self.adjust, guides, strict=True):
            x = adjust(enlarge(x), guide * GUIDE_SCALE)
        return self.blur(x)


class Solution(nnx.Module):
    """What both networks share: the proximal networks, the last adjustment, and the run over the stages."""

    def __init__(
        self, bands: int, rank: int, stages: int, prox_blocks: int, adjust_blocks: int, positive: bool, rngs: nnx.Rngs
    ) -> None:
        self.prox = nnx.List([Chain(rank, prox_blocks, positive, rngs) for _ in range(stages - 1)])
        self.adjust = Chain(bands, adjust_blocks, positive, rngs)

    def __call__(
        self,
        predicted: Array,
        spectra: Array,
        residual: Callable[[Array], Array],
        enlarge: Callable[[Any, Array], Array],
        learned: Sequence[Any],
        unroll: Unroll,
    ) -> tuple[Array, Array, Array]:
        """Product, the estimates X_1 to X_(K-1) ``(stage, batch, height, width, band)``, and the last one's residual.

        Args:
            predicted: ``Z A``, (batch, height, width, band).
            spectra: B, (rank, band), or one for each image with a leading axis.
            residual: ``C x - Y``.
            enlarge: U_k of a residual, given what U_k learns.
            learned: what each U_k learns.
            unroll: layout of the stages.
        """

        def body(stage: Any, state: tuple[Array, Array]) -> tuple[tuple[Array, Array], Array]:
            (prox, part), (x, hidden) = stage, state
            step = jnp.einsum("...rl,...hwl->...hwr", spectra, enlarge(part, residual(x)), precision="highest")
            hidden = prox(hidden - step)
            x = predicted + jnp.einsum("...rl,...hwr->...hwl", spectra, hidden, precision="highest")
            return (x, hidden), x

        stages = [nnx.List(pair) for pair in zip(self.prox, learned, strict=True)]
        start = predicted, jnp.zeros((*predicted.shape[:-1], spectra.shape[-2]), predicted.dtype)
        (x, _), estimates = run_stages(stages, body, start, unroll)
        return self.adjust(x), estimates, residual(x)


def norm_bound(spectra: Array) -> Array:
    """A bound on the squared spectral norm of B: the largest row sum of ``|B B'|``, which needs no factorisation."""
    return jnp.abs(jnp.matmul(spectra, spectra.T, precision="highest")).sum(1).max()


class MHFNet(nnx.Module):
    """CMHF of Xie et al., 2019: for one sensor pair, with A, B and C learned.

    Args:
        bands: of the pair.
        stages: K, two or more, one less than which are proximal.
        rank: of V.
        prox_blocks: residual blocks of a proximal network.
        adjust_blocks: residual blocks of the last adjustment.
        physics: see `unrolled.physics`. "free" is the paper's: C is learned, and the U_k stand for its adjoint.
            Otherwise U_k is ``ratio^2 s_k C' / b`` with `norm_bound` b of B and a learned step s_k, 1 at first, which
            does not overshoot; C is the model's own or a learned kernel.
        unroll: layout of the proximal stages, see `unrolled.stages.Unroll`.

    Raises:
        InputError: no such physics, or one that is free for a ratio of 1.
    """

    def __init__(
        self,
        bands: Bands,
        *,
        stages: int = 20,
        rank: int = 12,
        prox_blocks: int = 1,
        adjust_blocks: int = 4,
        physics: Physics = "free",
        unroll: Unroll = "scan",
        rngs: nnx.Rngs,
    ) -> None:
        check_physics(physics)
        self.unroll = unroll
        self.predict = nnx.Param(jnp.zeros((bands.guide, bands.lr)))
        self.spectra = nnx.Param(tf_truncated_normal(rngs.params(), (rank, bands.lr), jnp.float32))
        self.sensor = None if physics == "free" else LrSensor(physics, bands)
        if self.sensor is None:
            self.response = SpatialKernels(bands.ratio)
            features = [bands.guide] * len(factors(bands.ratio))
            self.enlarge = nnx.List([UpSampler(bands.lr, features, bands.ratio, True, rngs) for _ in range(stages - 1)])
        else:
            self.sizes = nnx.Param(jnp.ones(stages - 1))
        self.solution = Solution(bands.lr, rank, stages, prox_blocks, adjust_blocks, True, rngs)

    def solve(self, observation: Observation, model: ObservationModel) -> tuple[Array, Array, Array, Array]:
        """Product, estimates stacked, the prediction from the guide, and the last residual."""
        lr, guide = observation["lr"], observation["guide"]
        predicted = jnp.matmul(guide, self.predict[...], precision="highest")
        if self.sensor is None:
            parts = self._free(lr, guide, model.grid)
        else:
            parts = self._linear(lr, self.sensor.response(model))
        product, estimates, last = self.solution(predicted, self.spectra[...], *parts, self.unroll)
        return product, estimates, predicted, last

    def _free(self, lr: Array, guide: Array, grid: Grid) -> DataStep:
        """``C x - Y``, the U_k and what they learn."""
        guides = [guide, *self.response(guide, grid)[:-1]][::-1]
        return lambda x: self.response(x, grid)[-1] - lr, lambda sampler, e: sampler(e, guides), self.enlarge

    def _linear(self, lr: Array, response: SpatialResponse) -> DataStep:
        """The same with an operator and its adjoint."""
        sizes = self.sizes[...] * response.ratio**2 / jax.lax.stop_gradient(norm_bound(self.spectra[...]))
        return lambda x: response(x) - lr, lambda size, e: size[...] * response.T(e), [nnx.Param(s) for s in sizes]

    def __call__(self, observation: Observation, model: ObservationModel, **options: Unpack[Options]) -> Array | Stages:
        """The product ``(batch, height, width, band)``, or what ``options`` ask of `unrolled.stages.finish`.

        Raises:
            InputError: the physics is exact, and the spatial response is not known.
        """
        product, estimates, predicted, _ = self.solve(observation, model)
        steps = {} if self.sensor is None else {"size": self.sizes[...]}
        return finish([predicted, *estimates, product], observation, model, steps, **options)


class BMHFNet(nnx.Module):
    """BMHF of Xie et al., 2022: for any sensor pair; C is the model's, A and B come from the pair.

    Args:
        bands: of the pair.
        stages, rank, prox_blocks, adjust_blocks, unroll: see `MHFNet`.
        every: each of so many bands of the prediction guides the up-samplers.
        sums: the sign of B, see `pair_factors`.

    Raises:
        InputError: a ratio of 1.
    """

    def __init__(
        self,
        bands: Bands,
        *,
        stages: int = 20,
        rank: int = 12,
        prox_blocks: int = 2,
        adjust_blocks: int = 4,
        every: int = 14,
        sums: bool = False,
        unroll: Unroll = "scan",
        rngs: nnx.Rngs,
    ) -> None:
        self.rank, self.every, self.sums, self.unroll = min(rank, bands.lr), every, sums, unroll
        chosen, scales = len(range(0, bands.lr, every)), len(factors(bands.ratio)) - 1
        self.priors = Shrink(chosen, bands.ratio) if scales > 0 else None
        features = [*[2 * chosen] * scales, bands.guide]
        self.shrink = nnx.List([Shrink(bands.lr, bands.ratio) for _ in range(stages - 1)])
        self.enlarge = nnx.List(
            [UpSampler(bands.lr, features, bands.ratio, False, rngs, 2 * bands.lr) for _ in range(stages - 1)]
        )
        self.solution = Solution(bands.lr, self.rank, stages, prox_blocks, adjust_blocks, False, rngs)

    def solve(
        self, observation: Observation, model: ObservationModel, truth: Array | None = None
    ) -> tuple[Array, Array, Array, Array]:
        """Product, estimates stacked, the prediction from the guide, and the last residual.

        A and B are those of the guide with ``truth``, where it is given, otherwise those of the pair.
        """
        lr, guide = observation["lr"], observation["guide"]
        response = model["lr"]
        image, seen = (lr, one_psf(response)(guide)) if truth is None else (truth, guide)
        predict, spectra = pair_factors(image, seen, self.rank, self.sums)
        predicted = mix(guide, predict)
        smaller = [] if self.priors is None else self.priors(predicted[..., :: self.every])[:-1]
        guides = [guide, *smaller][::-1]

        def enlarge(samplers: tuple[Shrink, UpSampler], e: Array) -> Array:
            shrink, enlarge = samplers
            return enlarge(shrink(response.T(e))[-1], guides)

        learned = [nnx.List(pair) for pair in zip(self.shrink, self.enlarge, strict=True)]
        product, estimates, last = self.solution(
            predicted, spectra, lambda x: response(x) - lr, enlarge, learned, self.unroll
        )
        return product, estimates, predicted, last

    def __call__(self, observation: Observation, model: ObservationModel, **options: Unpack[Options]) -> Array | Stages:
        """The product ``(batch, height, width, band)``, or what ``options`` ask of `unrolled.stages.finish`.

        Raises:
            InputError: the spatial response is not known.
        """
        product, estimates, predicted, _ = self.solve(observation, model)
        return finish([predicted, *estimates, product], observation, model, **options)


class Shrink(nnx.Module):
    """The down-sampling half of BMHF's adjustment: 3 x 3 convolutions to twice the channels, one a factor."""

    def __init__(self, channels: int, ratio: int) -> None:
        self.steps = [[2, 2] if step == 4 and k else [step] for k, step in enumerate(factors(ratio))]
        self.first = nnx.Param(identity_taps(3, channels, 2 * channels))
        self.kernels = nnx.List(
            [nnx.Param(identity_taps(3, 2 * channels, 2 * channels)) for steps in self.steps for _ in steps]
        )

    def __call__(self, x: Array) -> list[Array]:
        """The image after each factor of the ratio, the smallest one last."""
        x, scales, kernels = conv(x, self.first[...]), [], iter(self.kernels)
        for steps in self.steps:
            for step in steps:
                first = 1 if step == 4 else 0
                x = conv(x, next(kernels)[...])[:, first::step, first::step]
            scales.append(x)
        return scales


def pair_factors(image: Array, guide: Array, rank: int, sums: bool = False) -> tuple[Array, Array]:
    """A by least squares of an image on the guide, B from the singular vectors of what that leaves.

    Args:
        image: ``(batch, h, w, band)``, of low resolution or the truth.
        guide: at the same resolution, ``(batch, h, w, guide band)``.
        rank: rows of B.
        sums: whether the sum of each row of B is positive and not its largest entry.

    Returns:
        A ``(batch, guide band, band)`` and B ``(batch, rank, band)``. Rows with no more than rounding are zero.
    """
    predict = least_squares(image, guide)
    left = image - mix(guide, predict)
    vectors = signed_subspace(left, rank)
    energy, whole = jnp.sum(mix(left, vectors) ** 2, (1, 2)), jnp.sum(image**2, (1, 2, 3))
    vectors = jnp.where(energy[:, None] > NEGLIGIBLE**2 * whole[:, None, None], vectors, 0)
    if sums:
        vectors = jnp.where(vectors.sum(1, keepdims=True) < 0, -vectors, vectors)
    return predict, jnp.swapaxes(vectors, 1, 2)


def mhf_loss(alpha: float, beta: float) -> Callable[[MHFNet | BMHFNet, Observation, ObservationModel, Array], Array]:
    """Squared errors of the product, of prediction and estimates (``alpha``) and of the last residual (``beta``).

    BMHF learns with A and B of the truth, as in the release: the low resolution of a patch has too few pixels for them.
    """

    def loss(network: MHFNet | BMHFNet, observation: Observation, model: ObservationModel, target: Array) -> Array:
        if isinstance(network, BMHFNet):
            product, estimates, predicted, last = network.solve(observation, model, target)
        else:
            product, estimates, predicted, last = network.solve(observation, model)
        early = sum(jnp.mean((x - target) ** 2) for x in (predicted, *estimates))
        return jnp.mean((product - target) ** 2) + alpha * early + beta * jnp.mean(last**2)

    return loss


def initialise(network: MHFNet, observation: Observation, model: ObservationModel, target: Array) -> None:
    """Sets A to the least-squares prediction of the truth from the guide over all training pixels.

    Raises:
        InputError: fewer pixels than guide bands.
    """
    x, z = target.reshape(-1, target.shape[-1]), observation["guide"].reshape(-1, observation["guide"].shape[-1])
    if len(z) < z.shape[1]:
        raise InputError(f"{len(z)} pixels cannot determine the response to {z.shape[1]} guide bands; give more.")
    network.predict[...] = jnp.linalg.lstsq(z, x)[0]


def _adam(steps: int) -> optax.GradientTransformation:
    return optax.adam(optax.piecewise_constant_schedule(1e-4, {4 * steps // 5: 0.1}))


_CMHF = Paper(
    authors="Q. Xie, M. Zhou, Q. Zhao, D. Meng, W. Zuo, Z. Xu",
    year=2019,
    title="Multispectral and Hyperspectral Image Fusion by MS/HS Fusion Net",
    venue="IEEE/CVF Conference on Computer Vision and Pattern Recognition",
    doi="10.1109/CVPR.2019.00168",
    code="https://github.com/XieQi2015/MHF-net",
)
_BMHF = Paper(
    authors="Q. Xie, M. Zhou, Q. Zhao, Z. Xu, D. Meng",
    year=2022,
    title="MHF-Net: An Interpretable Deep Network for Multispectral and Hyperspectral Image Fusion",
    venue="IEEE Transactions on Pattern Analysis and Machine Intelligence 44(3)",
    doi="10.1109/TPAMI.2020.3015691",
    code="https://github.com/XieQi2015/MHF-net",
)
_DIFFERENCES = (
    "Normalisation takes the moments of each image and not of the batch, which is the release's own result for one "
    "image at a time. Ratios other than 4, 16 and 32 are split into fours and primes."
)


def _residual(ours: str, theirs: str, order: tuple[int, int, int]) -> Table:
    """The three layers of a `Residual`, which the release numbers in that order."""
    names = {"conv/kernel": "weights", "conv/bias": "biases", "scale": "scale", "offset": "beta"}
    return {
        f"{ours}/layers/{k}/{path}": (f"{theirs}/{name}{number}", as_is)
        for k, number in enumerate(order)
        for path, name in names.items()
    }


def _chain(ours: str, theirs: str, blocks: int) -> Table:
    table: Table = {}
    for k in range(blocks):
        table |= _residual(f"{ours}/blocks/{k}", f"{theirs}_{k + 1}", (1, 3, 2))
    return table


def _up_sampler(ours: str, theirs: str, network: UpSampler) -> Table:
    """The release numbers doublings and adjustments so that the last ones are 5 and 3 at any ratio."""
    doublings = [f"enlarge/{k}/kernels/{j}" for k, part in enumerate(network.enlarge) for j in range(len(part.kernels))]
    table: Table = {f"{ours}/blur/kernel": (f"{theirs}/Blur", tensorflow_depthwise_kernel)}
    for number, path in enumerate(doublings, 6 - len(doublings)):
        table[f"{ours}/{path}"] = f"{theirs}/Cfilter{number}", tensorflow_transposed_kernel
    for k in range(len(network.adjust)):
        table |= _residual(f"{ours}/adjust/{k}", f"{theirs}/Ajust{4 - len(network.adjust) + k}", (1, 2, 3))
    return table


def _solution(solution: Solution) -> Table:
    table = _chain("solution/adjust", "FinalAjust/resCNN_101", len(solution.adjust.blocks))
    for k, prox in enumerate(solution.prox, 1):
        table |= _chain(f"solution/prox/{k - 1}", f"Pri{k}/resCNN_{k}", len(prox.blocks))
    return table


def _release(network: MHFNet) -> Table:
    """The names in the release of CMHF."""
    table: Table = {"predict": ("YA1/A", tensorflow_pointwise_matrix), "spectra": ("B", tensorflow_pointwise_matrix)}
    for k in range(len(network.response.kernels)):
        table[f"response/kernels/{k}"] = f"TheCsX/Cfilter{k + 1 if k else ''}", as_is
    for k, enlarge in enumerate(network.enlarge):
        table |= _up_sampler(f"enlarge/{k}", f"E{k + 1}", enlarge)
    return table | _solution(network.solution)


def _shrink(ours: str, theirs: str, network: Shrink) -> Table:
    table: Table = {f"{ours}/first": (theirs, as_is)}
    for k in range(len(network.kernels)):
        table[f"{ours}/kernels/{k}"] = f"{theirs}{k}", as_is
    return table


def _blind_release(network: BMHFNet) -> Table:
    """The names in the release of BMHF."""
    table = {} if network.priors is None else _shrink("priors", "GetPrior", network.priors)
    for k, (shrink, enlarge) in enumerate(zip(network.shrink, network.enlarge, strict=True)):
        table |= _shrink(f"shrink/{k}", f"E{k + 1}/downAdj", shrink)
        table |= _up_sampler(f"enlarge/{k}", f"E{k + 1}", enlarge)
    return table | _solution(network.solution)


MHF_NET = System(
    name="mhf_net",
    title="MHF-Net (CMHF)",
    family="unrolled",
    tasks=SPATIOSPECTRAL,
    paper=_CMHF,
    summary="The scene is a linear prediction from the guide plus a part of low rank, found by proximal gradient steps "
    "whose operators, up-samplers and proximal networks are learned for one sensor pair.",
    method=Trained(
        network=MHFNet,
        loss=mhf_loss(0.1, 0.01),
        recipe=Recipe(
            optimiser=_adam,
            steps=62_000,
            patch=96,
            batch=10,
            note="Adam 1e-4, divided by ten after four fifths; 31 epochs of 2,000 steps; patches turned and flipped.",
            turn=True,
        ),
        initialise=initialise,
        tiny={"stages": 2, "rank": 2, "adjust_blocks": 1},
        compact={"stages": 4, "rank": 8},
        originals=(
            Original(
                file="CMHF-net/temp/TrainedNet/model-epoch-30 of the release, for CAVE and its responses",
                table=_release,
                bands=Bands(31, 3, 32),
                scale=1,
                note="Images go from 0 to 1.",
            ),
        ),
    ),
    differences=_DIFFERENCES,
    parameters=(3_006_763, Bands(31, 3, 32)),
)

BMHF_NET = System(
    name="bmhf_net",
    title="BMHF-Net",
    family="unrolled",
    tasks=SPATIOSPECTRAL,
    paper=_BMHF,
    summary="MHF-Net for any sensor pair: the spatial response comes from the observation model, the prediction from "
    "the guide and the spectra of the rest from the pair itself; up-samplers and proximal networks are learned.",
    method=Trained(
        network=BMHFNet,
        loss=mhf_loss(0.1, 0.1),
        recipe=Recipe(
            optimiser=_adam,
            steps=80_000,
            patch=96,
            batch=10,
            note="Adam 1e-4, divided by ten after four fifths; 40 epochs of 2,000 steps; patches turned and flipped, "
            "the responses of both sensors drawn anew from mixtures of cameras and of kernels.",
            turn=True,
        ),
        tiny={"stages": 2, "rank": 2, "prox_blocks": 1, "adjust_blocks": 1},
        compact={"stages": 4, "rank": 8},
        originals=(
            Original(
                file="BMHF-net/temp/CAVE_Exam/model-epoch-40, which the readme of the release links, for CAVE at ratio "
                "32; that for Pavia takes other bands as guides",
                table=_blind_release,
                bands=Bands(31, 3, 32),
                scale=1,
                sizes={"sums": True},
                note="Images go from 0 to 1. The way back from the low resolution is the adjoint of C, where the "
                "release turns the kernel around and drops what falls beyond the border.",
            ),
        ),
    ),
    differences=_DIFFERENCES + " C is always the observation model's, so there is no choice of physics. A and B are "
    "computed for each image where the release computes them for a batch (of the truth in training, of the pair "
    "otherwise), rows of B without energy are zero, and the "
    "largest entry of a row is made positive where the release takes the sum, which is zero when the guide covers all "
    "bands. What leads back from the low resolution is the adjoint of C, where the release turns its kernel around and "
    "drops what falls beyond the border. The kernels that lead from twice the bands back to the bands start as the "
    "identity of both halves, which the release stacks along the wrong axis. The responses are those of the training "
    "data, where the release draws them at random. As in the release, the last kernel of the network that shrinks the "
    "prediction reaches nothing.",
    parameters=(11_312_632, Bands(31, 3, 32)),
    needs_model=True,
)
