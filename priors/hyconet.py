"""HyCoNet: Zheng et al., "Coupled Convolutional Neural Network With Adaptive Response Function Learning for
Unsupervised Hyperspectral Super Resolution", TGRS 59, 2021.

Pixelwise encoders turn the low-resolution image Y and the guide Z into abundances on the simplex, A_y and A_z, of the
same endmembers D, so that X = D A_z. The PSF B and the spectral response R, where they are not known, are learned with
them, from R Y = B Z as well.
"""

from __future__ import annotations

import jax
from flax import nnx
from jax import Array

from jfusion.catalogue import Bands, Fitted, Paper, System
from jfusion.operators import Observation, ObservationModel
from jfusion.tasks import SPATIOSPECTRAL
from priors import coupled
from priors.coupled import Encoder, he_conv, learned, project, sensor_mismatch, sparsity
from priors.degradation import Degradation
from priors.pair import Pair, misfits, sum_l1


class HyCoNet(nnx.Module):
    """Two encoders, the endmembers, and what is learned of the sensors.

    Args:
        bands: of the pair.
        degradation: of its observation model; None as published: the PSF is learned, the spectral response is known.
        endmembers: number of them.
        widths: channels of the encoders' hidden layers.
    """

    def __init__(
        self,
        bands: Bands,
        degradation: Degradation | None = None,
        *,
        endmembers: int = 100,
        widths: tuple[int, ...] = coupled.WIDTHS,
        rngs: nnx.Rngs,
    ) -> None:
        self.lr = Encoder(bands.lr, endmembers, widths, rngs=rngs)
        self.guide = Encoder(bands.guide, endmembers, widths, rngs=rngs)
        self.decoder = he_conv(endmembers, bands.lr, use_bias=False, rngs=rngs)
        self.degradation = degradation or learned(bands, "lr")

    def abundances(self, observation: Observation) -> tuple[Array, Array]:
        """A_y ``(batch, h, w, endmember)`` and A_z ``(batch, h ratio, w ratio, endmember)``; they sum to one."""
        encoded = self.lr(observation["lr"]), self.guide(observation["guide"])
        return jax.nn.softmax(encoded[0], axis=-1), jax.nn.softmax(encoded[1], axis=-1)

    def decode(self, abundances: Array) -> Array:
        """``relu(D A)``, ``(..., height, width, band)``."""
        return nnx.relu(self.decoder(abundances))


def joint_loss(module: HyCoNet, pair: Pair, key: Array) -> tuple[Array, tuple[Array, ObservationModel]]:
    """``10 |D A_y - Y| + 10 |R X - Z| + 10 |B X - Y| + 100 |R Y - B Z|`` and 0.01 times the sparsity of A_y and A_z.

    Sums over pixels and bands. The paper's D (B A_z) is B X, since D is linear on the simplex. The output is X = D A_z
    and the model.
    """
    model, y, weight = module.degradation(pair.model), pair.observation["lr"], pair.weight
    coarse, fine = module.abundances(pair.observation)
    product = module.decode(fine)
    lr, guide = misfits(sum_l1, model, product, pair)
    loss = (
        10 * sum_l1(module.decode(coarse), y, weight["lr"])
        + 10 * guide
        + 10 * lr
        + 100 * sensor_mismatch(module.degradation, model, pair)
        + 0.01 * (sparsity(coarse, weight["lr"]) + sparsity(fine, weight["guide"]))
    )
    return loss, (product, model)


STAGE = coupled.stage(joint_loss, 3e-3, project, rates=(("guide", 0.5), ("degradation", 0.2)))


fit_hyconet = coupled.coupled_fitter(HyCoNet, STAGE)


HYCONET = System(
    name="hyconet",
    title="HyCoNet",
    family="prior",
    tasks=SPATIOSPECTRAL,
    paper=Paper(
        authors="K. Zheng, L. Gao, W. Liao, D. Hong, B. Zhang, X. Cui, J. Chanussot",
        year=2021,
        title="Coupled Convolutional Neural Network With Adaptive Response Function Learning for Unsupervised "
        "Hyperspectral Super Resolution",
        venue="IEEE Transactions on Geoscience and Remote Sensing 59(3)",
        doi="10.1109/TGRS.2020.3006534",
        code="https://github.com/saber-zero/HyperFusion",
    ),
    summary="Pixelwise encoders give abundances on the simplex, A_y of the coarse image Y and A_z of the guide Z, of "
    "shared endmembers D; X = D A_z. Fitted by |D A_y - Y|, |R X - Z|, |B X - Y| and |R Y - B Z| (sums of L1), with "
    "PSF B and response R learned where they are not known.",
    method=Fitted(
        generator=HyCoNet,
        fit=fit_hyconet,
        steps=coupled.STEPS,
        note="Adam, 10,000 steps at 3e-3 (the guide's encoder 1/2, PSF and response 1/5 of it), linear to 0 from "
        "2,000; after each step the endmembers are clamped into [0, 1].",
        tiny={"endmembers": 8, "widths": (16,)},
        compact={"endmembers": 50, "widths": (32, 64, 128)},
    ),
    differences="A spectral response that is not known is learned: the release builds it and never steps it. The "
    "softmax stands alone, without the ReLU before it, which keeps every abundance away from 0; under it the "
    "sum-to-one term of the release is 0 and is left out. The sparsity term compares each endmember's mean abundance "
    "with 0.01; softmaxes make the target of the release uniform. Learned PSF and responses are kept on the simplex by "
    "softmax, at a hundred times the rate, which acts on logits (constrained=False: clamped as released, but that the "
    "sum that responses are divided by has its gradient, too). Known operators are used as they are. Without a given "
    "support every band is eligible for the response. The pair is scaled to a largest magnitude of one.",
    parameters=(456_084, Bands(103, 4, 4)),
)
