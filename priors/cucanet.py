"""CUCaNet: Yao et al., "Cross-Attention in Coupled Unmixing Nets for Unsupervised Hyperspectral Super-Resolution",
ECCV 2020.

Two streams find features F_y of the low-resolution image Y, pixelwise, and F_z of the guide Z, in neighbourhoods. Each
stream is shown what the other attends to: F_y times a map of places that F_z makes, F_z times a gate of channels that
F_y makes. From both come abundances in [0, 1] of the same endmembers D, so that X = D A_z; the guide has endmembers of
its own, D_m. The PSF B and the spectral response R are learned where they are not known.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.nn.initializers import constant

from jfusion.catalogue import Bands, Fitted, Paper, System
from jfusion.layers.conv import Conv
from jfusion.layers.responses import LearnedPsf
from jfusion.operators import Grid, Observation, ObservationModel
from jfusion.tasks import SPATIOSPECTRAL
from priors import coupled
from priors.coupled import Trunk, clamp, clamp_kernels, he_conv, learned, sensor_mismatch, sparsity, sum_to_one
from priors.degradation import Degradation
from priors.pair import Pair, misfits, sum_l1


class CrossAttention(nnx.Module):
    """What each stream's features become under the other's attention.

    Args:
        width: channels of the features.
        size: height and width of the low-resolution image, which the spectral attention weighs pixel by pixel.
        grid: of the pair.
    """

    def __init__(self, width: int, size: tuple[int, int], grid: Grid, *, rngs: nnx.Rngs) -> None:
        self.places = Conv(width, 1, 3, kernel_init=constant(1 / (9 * width)), rngs=rngs)
        self.blur = LearnedPsf(grid, "free")
        self.pixels = nnx.Param(jnp.full((*size, width), 1 / (size[0] * size[1])))
        self.shift = nnx.Param(jnp.zeros(width))

    def spatial(self, fine: Array) -> Array:
        """A map ``(batch, h, w, 1)`` from F_z: softmax over all places, then brought to low resolution by a PSF."""
        logits = self.places(fine)
        places = jax.nn.softmax(logits.reshape(logits.shape[0], -1), axis=-1).reshape(logits.shape)
        return self.blur()(places)

    def spectral(self, coarse: Array) -> Array:
        """A gate ``(batch, 1, 1, width)`` from F_y: softmax over channels of a weighted sum over all pixels."""
        logits = jnp.einsum("...ijc,ijc->...c", coarse, self.pixels[...]) + self.shift[...]
        return jax.nn.softmax(logits, axis=-1)[..., None, None, :]

    def __call__(self, coarse: Array, fine: Array) -> tuple[Array, Array]:
        """``[F_y, F_y map]`` and ``[F_z, F_z gate]``, of twice as many channels."""
        seen = coarse * self.spatial(fine), fine * self.spectral(coarse)
        return jnp.concatenate([coarse, seen[0]], -1), jnp.concatenate([fine, seen[1]], -1)


class CucaNet(nnx.Module):
    """Two streams with cross-attention, two sets of endmembers, and what is learned of the sensors.

    Args:
        bands: of the pair.
        degradation: of its observation model; None as published: PSF and spectral response are learned.
        grid: of the pair, nested by default.
        lr_size: height and width of the low-resolution image, those of CAVE at ratio 32 by default.
        endmembers: number of them.
        widths: channels of the streams' layers.
    """

    def __init__(
        self,
        bands: Bands,
        degradation: Degradation | None = None,
        *,
        grid: Grid | None = None,
        lr_size: tuple[int, int] = (16, 16),
        endmembers: int = 128,
        widths: tuple[int, int, int] = coupled.WIDTHS,
        rngs: nnx.Rngs,
    ) -> None:
        self.lr, self.guide = Trunk(bands.lr, widths, rngs=rngs), Trunk(bands.guide, widths, (5, 3, 1), rngs=rngs)
        self.attention = CrossAttention(widths[-1], lr_size, grid or Grid.nested(bands.ratio), rngs=rngs)
        self.lr_head = he_conv(2 * widths[-1], endmembers, rngs=rngs)
        self.guide_head = he_conv(2 * widths[-1], endmembers, rngs=rngs)
        self.decoder = he_conv(endmembers, bands.lr, use_bias=False, rngs=rngs)
        self.guide_decoder = he_conv(endmembers, bands.guide, use_bias=False, rngs=rngs)
        self.degradation = degradation or learned(bands, "lr", "guide")

    def abundances(self, observation: Observation) -> tuple[Array, Array]:
        """A_y ``(batch, h, w, endmember)`` and A_z ``(batch, h ratio, w ratio, endmember)``, in [0, 1]."""
        coarse, fine = self.attention(self.lr(observation["lr"]), self.guide(observation["guide"]))
        return clamp(self.lr_head(coarse)), clamp(self.guide_head(fine))


def joint_loss(module: CucaNet, pair: Pair, key: Array) -> tuple[Array, tuple[Array, ObservationModel]]:
    """``10 |D A_y - Y| + 10 |D_m A_z - Z| + 10 |B X - Y| + 10 |R X - Z| + 10^4 |R Y - B Z|`` and 0.01 times what keeps
    the abundances sparse and their sums near one.

    Sums over pixels and bands. The output is X = D A_z and the model.
    """
    model, observed, weight = module.degradation(pair.model), pair.observation, pair.weight
    coarse, fine = module.abundances(observed)
    product = clamp(module.decoder(fine))
    lr, guide = misfits(sum_l1, model, product, pair)
    loss = (
        10 * sum_l1(clamp(module.decoder(coarse)), observed["lr"], weight["lr"])
        + 10 * sum_l1(clamp(module.guide_decoder(fine)), observed["guide"], weight["guide"])
        + 10 * lr
        + 10 * guide
        + 1e4 * sensor_mismatch(module.degradation, model, pair)
        + 0.01 * (sum_to_one(coarse, weight["lr"]) + sum_to_one(fine, weight["guide"]))
        + 0.01 * (sparsity(coarse, weight["lr"]) + sparsity(fine, weight["guide"]))
    )
    return loss, (product, model)


def project(module: CucaNet) -> None:
    """Puts endmembers and learned responses back into their sets, in place."""
    clamp_kernels(module.decoder, module.guide_decoder)
    module.degradation.project()


STAGE = coupled.stage(
    joint_loss,
    5e-3,
    project,
    rates=(("guide", 0.5), ("guide_head", 0.5), ("attention", 0.2), ("degradation", 0.2)),
)


def _extent(pair: Pair) -> dict[str, Any]:
    """What the attention needs to know of a pair."""
    return {"grid": pair.model.grid, "lr_size": pair.observation["lr"].shape[1:3]}


fit_cucanet = coupled.coupled_fitter(CucaNet, STAGE, _extent)


CUCANET = System(
    name="cucanet",
    title="CUCaNet",
    family="prior",
    tasks=SPATIOSPECTRAL,
    paper=Paper(
        authors="J. Yao, D. Hong, J. Chanussot, D. Meng, X. Zhu, Z. Xu",
        year=2020,
        title="Cross-Attention in Coupled Unmixing Nets for Unsupervised Hyperspectral Super-Resolution",
        venue="European Conference on Computer Vision",
        doi="10.1007/978-3-030-58526-6_13",
        code="https://github.com/danfenghong/ECCV2020_CUCaNet",
    ),
    summary="Two encoders that attend to each other give abundances, A_y of the coarse image Y and A_z of the guide Z, "
    "of shared endmembers D; X = D A_z. Fitted by |D A_y - Y|, |D_m A_z - Z|, |B X - Y|, |R X - Z| and |R Y - B Z| "
    "(sums of L1), with PSF B and response R learned where they are not known.",
    method=Fitted(
        generator=CucaNet,
        fit=fit_cucanet,
        steps=coupled.STEPS,
        note="Adam, 10,000 steps at 5e-3 (the guide's stream 1/2, attention, PSF and response 1/5 of it), linear to 0 "
        "from 2,000; after each step both sets of endmembers are clamped into [0, 1].",
        tiny={"endmembers": 8, "widths": (8, 8, 8)},
    ),
    differences="Both attentions start as means, so that neither softmax starts saturated; in the release the spatial "
    "one sums over channels and the spectral one over pixels. The sparsity term compares each endmember's mean "
    "abundance with 0.01; softmaxes make the target of the release uniform. Learned PSF and responses are kept on the "
    "simplex by softmax, at a hundred times the rate, which acts on logits (constrained=False: PSF free, responses "
    "clamped, as released, but that the sum that they are divided by has its gradient, too). Known operators are used "
    "as they are. Without a given support every band is eligible for the response. The spectral attention has a weight "
    "for each low-resolution pixel; the stated count is that of 16 x 16. The pair is scaled to a largest magnitude of "
    "one.",
    parameters=(1_010_270, Bands(31, 3, 32)),
)
