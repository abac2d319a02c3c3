"""Rec-HSISR: Wei, Nie, Zhang and Zhang, "Unsupervised Recurrent Hyperspectral Imagery Super-Resolution Using
Pixel-Aware Refinement", 2022.

An untrained skip network f turns an image U and the guide Z into the product, X = f(U, Z), and is fitted to the pair.
U is first the interpolated image Y. Every hundred steps it becomes the product of that moment, and the losses then
weight each pixel and band by ``exp(2.5 |X - U|)``: by how much the last round has changed it.

The text of the paper was not at hand: what is built is what its release computes, and its abstract says no more.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax import Array, lax

from jfusion.catalogue import Bands, Fitted, Paper, System
from jfusion.operators import Observation, ObservationModel, upsample
from jfusion.tasks import SPATIOSPECTRAL
from priors.degradation import Degradation, unknown_parts
from priors.fit import Falling, Plan, Stage, fitter
from priors.observed import Learned, with_learned
from priors.pair import Pair, mean_l1
from priors.skip import Skip

ROUND = 100
"""Steps between two renewals of U."""

SHARPNESS = 2.5
"""What a change is multiplied by in the exponent of its weight."""


class RefiningNetwork(nnx.Module):
    """A skip network that sees an image and the guide and makes numbers between 0 and 1.

    Args:
        bands: of the pair.
        width: channels of each scale.
        scales: halvings.
        skip: channels that go across at each scale.
        window: side of the convolutions.
    """

    def __init__(
        self, bands: Bands, *, width: int = 256, scales: int = 3, skip: int = 1, window: int = 5, rngs: nnx.Rngs
    ) -> None:
        inputs = bands.lr + bands.guide
        self.network = Skip(
            inputs, bands.lr, width=width, scales=scales, skip=skip, window=window, bounded=True, rngs=rngs
        )

    def __call__(self, image: Array, guide: Array) -> Array:
        """``(batch, height, width, band)`` from an image of that shape and ``(batch, height, width, guide band)``."""
        return self.network(jnp.concatenate([image, guide], -1))


class Memory(nnx.Module):
    """What one round hands to the next: parameters that no gradient moves, since `renew` sets them.

    Attributes:
        image: U, ``(1, height, width, band)``.
        weight: of the pixels and bands of the product, of the same shape.
        steps: that were taken.
    """

    def __init__(self, image: Array) -> None:
        self.image, self.weight = nnx.Param(image), nnx.Param(jnp.ones_like(image))
        self.steps = nnx.Param(jnp.zeros(()))


class RecHsisr(nnx.Module):
    """The network, what it remembers, the guide, and the learned parts of the observation model."""

    def __init__(self, pair: Pair, bands: Bands, *, rngs: nnx.Rngs, **sizes: Any) -> None:
        observed, taps = pair.observation, 2 * bands.ratio + bands.ratio % 2
        self.generator = RefiningNetwork(bands, rngs=rngs, **sizes)
        self.memory = Memory(upsample(observed["lr"], pair.model.grid, "bilinear"))
        self.guide = nnx.Variable(observed["guide"])
        self.degradation = Degradation(pair.model, bands, size=taps)

    def __call__(self) -> Array:
        """X = f(U, Z)."""
        return self.generator(lax.stop_gradient(self.memory.image[...]), self.guide[...])


def refinement_loss(module: RecHsisr, pair: Pair, key: Array) -> tuple[Array, tuple[Array, Learned]]:
    """``|B w (B X - Y)| + |R w (R X - Z)|`` with the weights w, means; the output is X and the learned operators."""
    model, product, weights = module.degradation(pair.model), module(), module.memory.weight[...]
    loss = jnp.zeros(())
    for name, observed in pair.observation.items():
        seen = lax.stop_gradient(model[name](weights))
        loss += mean_l1(seen * model[name](product), seen * observed, pair.weight[name])
    return loss, (product, {name: model[name] for name in unknown_parts(pair.model)})


def renew(module: RecHsisr) -> None:
    """Counts a step, and where a round is over takes its product for U and its changes for weights, in place."""
    memory = module.memory
    image, steps = memory.image[...], memory.steps[...] + 1

    def renewed() -> tuple[Array, Array]:
        product = module()
        return product, jnp.exp(SHARPNESS * jnp.abs(product - image))

    over = (steps > 1) & (steps % ROUND == 1)
    memory.image[...], memory.weight[...] = lax.cond(over, renewed, lambda: (image, memory.weight[...]))
    memory.steps[...] = steps


def _labels(params: optax.Params) -> optax.Params:
    return jax.tree_util.tree_map_with_path(lambda path, _: "kept" if path[0].key == "memory" else "fitted", params)


DECAYED_ADAM = optax.partition(
    {
        "fitted": optax.flatten(optax.chain(optax.add_decayed_weights(1e-4), optax.scale_by_adam())),
        "kept": optax.set_to_zero(),
    },
    _labels,
)
"""Adam with the weight decay in the gradient, as PyTorch's, for all but the memory."""

COMMON: dict[str, Any] = {"optimiser": DECAYED_ADAM, "rates": (("degradation", 10.0),), "project": renew}
FINE = Stage(refinement_loss, 2000, Falling(6e-4, 0.5, 4), **COMMON)
"""Of ratios up to 8."""

COARSE = Stage(refinement_loss, 2000, Falling(1.5e-3, 0.5, 4), **COMMON)
"""Of larger ratios."""


@fitter
def fit_rec_hsisr(
    observation: Observation,
    model: ObservationModel,
    **sizes: Any,
) -> Plan:
    """Fits Rec-HSISR to a pair; see `jfusion.catalogue.Fitter` and `priors.fit.fit`.

    Args:
        observation: `lr` and `guide`.
        model: parts that are None are learned and returned, the others are used as they are. A learned PSF reaches half
            a low-resolution pixel beyond its own on every side; PSF and spectral response are kept on the simplex by
            softmax.
        sizes: of `RefiningNetwork`.
    """
    pair, scale = Pair.of(observation, model).normalised()
    bands = Bands.of(observation, model)

    def build(key: Array) -> RecHsisr:
        return RecHsisr(pair, bands, rngs=nnx.Rngs(key), **sizes)

    return Plan(build, pair, (FINE if model.ratio <= 8 else COARSE,), scale, with_learned(model))


REC_HSISR = System(
    name="rec_hsisr",
    title="Rec-HSISR with pixel-aware refinement",
    family="prior",
    tasks=SPATIOSPECTRAL,
    paper=Paper(
        authors="W. Wei, J. Nie, L. Zhang, Y. Zhang",
        year=2022,
        title="Unsupervised Recurrent Hyperspectral Imagery Super-Resolution Using Pixel-Aware Refinement",
        venue="IEEE Transactions on Geoscience and Remote Sensing 60",
        doi="10.1109/TGRS.2020.3039534",
        code="https://github.com/JiangtaoNie/Rec_HSISR_PixAwaRefin",
    ),
    summary="An untrained skip network makes X = f(U, Z) of the guide Z and an image U, first the interpolated Y, and "
    "is fitted by |B X - Y| + |R X - Z| (means); every 100 steps U becomes X, and the losses are weighted by "
    "exp(2.5 |X - U|), the changes of the round.",
    method=Fitted(
        generator=RefiningNetwork,
        fit=fit_rec_hsisr,
        steps=FINE.steps,
        note="Adam, 2000 steps at 6e-4 (1.5e-3 at ratios above 8), a half of it after each 500; weight decay 1e-4.",
        tiny={"width": 8, "scales": 2, "window": 3},
        compact={"width": 64},
    ),
    differences="The text of the paper was not at hand; network, losses, rounds and rates are the release's. It renews "
    "U and the weights already after its first step, by what the random network made, and its weights of the guide's "
    "loss stay at one by a misspelt name; here U is the interpolated Y for a whole round, and both losses are "
    "weighted. The rates are those that its steps take: it halves what it states (1.2e-3, 3e-3) at the first step. PSF "
    "and response are known there; a fit that is not told them learns them (softmax, at ten times the rate). Images of "
    "any size are taken as they are. The pair is scaled to a largest magnitude of one, which the product, between 0 "
    "and 1, does not exceed.",
    parameters=(13_559_888, Bands(31, 3, 8)),
    needs_model=True,
)
