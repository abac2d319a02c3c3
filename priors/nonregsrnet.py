"""NonRegSRNet: Zheng et al., "NonRegSRNet: A Nonrigid Registration Hyperspectral Super-Resolution Network",
TGRS 60, 2022.

The low-resolution image Y is deformed against the guide Z. Pixelwise encoders turn both into abundances in [0, 1] of
the same endmembers D, and X = D A_z lies on the guide's grid. A U-shaped network compares A_y with B A_z and finds a
displacement u, so that A_y at p + u(p) is what X has at p: D (A_y o u) = B X. The PSF B and the spectral response R are
learned where they are not known.
"""

from __future__ import annotations

from itertools import pairwise

import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.nn.initializers import zeros

from jfusion.catalogue import Bands, Fitted, Paper, System
from jfusion.layers.conv import Conv
from jfusion.layers.untrained import Norm
from jfusion.operators import ObservationModel, one_psf
from jfusion.operators.warp import warp
from jfusion.tasks import SPATIOSPECTRAL
from priors import coupled
from priors.coupled import Encoder, clamp, he_conv, learned, project, sum_to_one
from priors.degradation import Degradation
from priors.pair import Pair, sum_l1, weighted_mean

EPSILON = 1e-5


class _Block(nnx.Module):
    """3x3 convolutions, each normalised over the image and rectified."""

    def __init__(self, *widths: int, rngs: nnx.Rngs) -> None:
        self.convs = nnx.List([he_conv(a, b, 3, rngs=rngs) for a, b in pairwise(widths)])
        self.norms = nnx.List([Norm(width) for width in widths[1:]])

    def __call__(self, x: Array) -> Array:
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = nnx.relu(norm(conv(x)))
        return x


class DisplacementField(nnx.Module):
    """A U-shaped network without pooling: from features of two images to a displacement.

    Args:
        inputs: channels of the features of both.
        widths: channels of the levels.
        signed: whether the last layer is a convolution that starts at zero; False for the release's, which normalises
            and rectifies, so that no displacement is negative.
    """

    def __init__(
        self, inputs: int, widths: tuple[int, ...] = (32, 64, 128), signed: bool = True, *, rngs: nnx.Rngs
    ) -> None:
        deepest, first = widths[-1], widths[0]
        self.encoders = nnx.List([_Block(a, b, b, rngs=rngs) for a, b in pairwise((inputs, *widths))])
        self.bottleneck = _Block(deepest, 2 * deepest, deepest, rngs=rngs)
        self.decoders = nnx.List([_Block(2 * b, b, b, a, rngs=rngs) for a, b in reversed(list(pairwise(widths)))])
        self.head = _Block(2 * first, first, rngs=rngs)
        bare = Conv(first, 2, 3, kernel_init=zeros, rngs=rngs)
        self.field: Conv | _Block = bare if signed else _Block(first, 2, rngs=rngs)

    def __call__(self, moving: Array, fixed: Array) -> Array:
        """Where to look in ``moving`` for each pixel of ``fixed``: (row, column) in pixels, ``(height, width, 2)``.

        Both are ``(1, height, width, channel)``.
        """
        x, levels = jnp.concatenate([moving, fixed], -1), []
        for encoder in self.encoders:
            x = encoder(x)
            levels.append(x)
        x = self.bottleneck(x)
        for decoder in self.decoders:
            x = decoder(jnp.concatenate([x, levels.pop()], -1))
        return self.field(self.head(jnp.concatenate([x, levels.pop()], -1)))[0]


class NonRegSrNet(nnx.Module):
    """Two encoders, the endmembers, the displacement, and what is learned of the sensors.

    Args:
        bands: of the pair.
        degradation: of its observation model; None as published: PSF and spectral response are learned.
        endmembers: number of them.
        widths: channels of the encoders' hidden layers.
        levels, signed: widths and `signed` of `DisplacementField`.
    """

    def __init__(
        self,
        bands: Bands,
        degradation: Degradation | None = None,
        *,
        endmembers: int = 100,
        widths: tuple[int, ...] = coupled.WIDTHS,
        levels: tuple[int, ...] = (32, 64, 128),
        signed: bool = True,
        rngs: nnx.Rngs,
    ) -> None:
        self.lr = Encoder(bands.lr, endmembers, widths, rngs=rngs)
        self.guide = Encoder(bands.guide, endmembers, widths, rngs=rngs)
        self.decoder = he_conv(endmembers, bands.lr, use_bias=False, rngs=rngs)
        self.displacement = DisplacementField(2 * endmembers, levels, signed, rngs=rngs)
        self.degradation = degradation or learned(bands, "lr", "guide")

    def decode(self, abundances: Array) -> Array:
        """``D A``, ``(..., height, width, band)``."""
        return clamp(self.decoder(abundances))


def correlation(a: Array, b: Array, weight: Array) -> Array:
    """Squared correlation of two vectors of abundances, over endmembers, mean over weighted pixels.

    The local cross-correlation of VoxelMorph in a window of one pixel and all endmembers.
    """
    a, b = (x - x.mean(-1, keepdims=True) for x in (a, b))
    cross, energy_a, energy_b = (jnp.sum(x, -1, keepdims=True) for x in (a * b, a * a, b * b))
    return weighted_mean(cross**2 / (energy_a * energy_b + EPSILON), weight)


def roughness(field: Array) -> Array:
    """Half the sum of both axes' mean squared differences of neighbours, of a field ``(height, width, 2)``."""
    return sum(jnp.mean(jnp.square(jnp.diff(field, axis=axis))) for axis in (0, 1)) / 2  # type: ignore[return-value]


def joint_loss(module: NonRegSrNet, pair: Pair, key: Array) -> tuple[Array, tuple[Array, ObservationModel, Array]]:
    """``|D A_y - Y| + |R X - Z| + |D (A_y o u) - B X|``, and 0.01 times what keeps the sums of abundances near one, the
    correlation of A_y o u with B A_z high and u smooth.

    Sums over pixels and bands, but means in the last two. The output is X = D A_z, the model and u.
    """
    model, observed, weight = module.degradation(pair.model), pair.observation, pair.weight
    coarse, fine = clamp(module.lr(observed["lr"])), clamp(module.guide(observed["guide"]))
    product, degraded = module.decode(fine), one_psf(model["lr"])(fine)
    field = module.displacement(coarse, degraded)
    registered = warp(coarse, field, "zero")
    loss = (
        sum_l1(module.decode(coarse), observed["lr"], weight["lr"])
        + sum_l1(model["guide"](product), observed["guide"], weight["guide"])
        + sum_l1(module.decode(registered), model["lr"](product), weight["lr"])
        + 0.01 * (sum_to_one(coarse, weight["lr"]) + sum_to_one(fine, weight["guide"]))
        + 0.01 * (1 - correlation(registered, degraded, weight["lr"]) + roughness(field))
    )
    return loss, (product, model, field)


STAGE = coupled.stage(joint_loss, 3e-4, project, rates=(("displacement", 0.5),))


fit_nonregsrnet = coupled.coupled_fitter(NonRegSrNet, STAGE)


NONREGSRNET = System(
    name="nonregsrnet",
    title="NonRegSRNet",
    family="prior",
    tasks=SPATIOSPECTRAL,
    paper=Paper(
        authors="K. Zheng, L. Gao, D. Hong, B. Zhang, J. Chanussot",
        year=2022,
        title="NonRegSRNet: A Nonrigid Registration Hyperspectral Super-Resolution Network",
        venue="IEEE Transactions on Geoscience and Remote Sensing 60",
        doi="10.1109/TGRS.2021.3135501",
        code="https://github.com/saber-zero/NonRegSRNet",
    ),
    summary="For a coarse image Y that is deformed against the guide Z: pixelwise encoders give abundances A_y and A_z "
    "of shared endmembers D, a U-shaped network the displacement u; X = D A_z is fitted by |D A_y - Y|, |R X - Z| and "
    "|D (A_y o u) - B X| (sums of L1), with PSF B and response R learned where they are not known.",
    method=Fitted(
        generator=NonRegSrNet,
        fit=fit_nonregsrnet,
        steps=coupled.STEPS,
        note="Adam, 10,000 steps at 3e-4 (the displacement 1/2 of it), linear to 0 from 2,000; after each step the "
        "endmembers are clamped into [0, 1].",
        tiny={"endmembers": 8, "widths": (16,), "levels": (4, 8)},
        compact={"endmembers": 50, "widths": (32, 64, 128), "levels": (16, 32)},
    ),
    differences="The displacement is signed and starts at zero: its last layer is a bare convolution, where the "
    "release normalises and rectifies it, so that only positive displacements exist and the field always varies "
    "(signed=False; four parameters more). The correlation is divided by the number of values that it sums, as the "
    "release's is not. Learned PSF and responses are kept on the simplex by softmax, at a hundred times the rate, "
    "which acts on logits (constrained=False: clamped as released, but that the sum that responses are divided by has "
    "its gradient, too). Known operators are used as they are; where the PSF differs between bands, abundances see its "
    "mean. Without a given support every band is eligible for the response. The pair is scaled to a largest magnitude "
    "of one.",
    parameters=(2_078_832, Bands(191, 6, 4)),
)
