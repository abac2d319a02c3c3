"""u2-MDN: Qu, Qi, Kwan, Yokoya and Chanussot, "Unsupervised and Unregistered Hyperspectral Image Super-Resolution
with Mutual Dirichlet-Net", TGRS 60, 2022.

The spectral response R brings the hyperspectral image Y to the guide's bands, where one encoder turns the pixels of
both images into codes, see `priors.dirichlet`; one decoder turns codes into spectra. Both images are rebuilt, and the
mutual information of pixels and their codes is kept large. No PSF enters and no pixel is compared with one of the other
image, so that the two need not be registered.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.nn.initializers import glorot_uniform

from jfusion.catalogue import Bands, Fitted, Paper, System
from jfusion.layers.conv import Conv
from jfusion.operators import Observation, ObservationModel
from jfusion.tasks import SPATIOSPECTRAL
from priors.dirichlet import Decoder, DenseStack, broken_stick, centred, dense, entropy
from priors.fit import Plan, Schedule, Stage, fitter
from priors.pair import Pair, weighted_mean

SPECTRA = 1e-3
INFORMATION = 0.1
SPARSITY = 0.01
SMALLEST = 1e-12
"""Squared norm below which a pixel's error counts as zero."""


class Encoder(nnx.Module):
    """Codes of the pixels of either image; beta forks off after the second layer.

    Args:
        inputs: bands of the guide.
        codes: of a pixel.
        width: of the first layer; each has one feature more than the layer before.
    """

    def __init__(self, inputs: int, codes: int, width: int, *, rngs: nnx.Rngs) -> None:
        self.trunk = DenseStack(inputs, range(width, width + 2), rngs=rngs)
        self.deep = DenseStack(self.trunk.outputs, range(width + 2, width + 5), rngs=rngs)
        self.fork = DenseStack(self.trunk.outputs, range(width + 2, width + 4), rngs=rngs)
        self.pieces = dense(self.deep.outputs, codes, rngs=rngs)
        self.beta = dense(self.fork.outputs, 1, rngs=rngs)

    def __call__(self, image: Array) -> Array:
        """``(..., height, width, guide band)`` to ``(..., height, width, code)``."""
        x = self.trunk(image)
        return broken_stick(self.pieces(self.deep(x)), self.beta(self.fork(x)))


class Critic(nnx.Module):
    """Tells a pixel beside its own code, a score near 1, from one beside the code of another pixel, near 0."""

    def __init__(self, inputs: int, codes: int, *, rngs: nnx.Rngs) -> None:
        self.hidden = dense(inputs + codes, inputs + codes, rngs=rngs)
        self.score = Conv(inputs + codes, 1, 1, use_bias=False, kernel_init=glorot_uniform(), rngs=rngs)

    def __call__(self, image: Array, codes: Array) -> Array:
        """``(..., height, width, 1)``."""
        return jax.nn.sigmoid(self.score(self.hidden(jnp.concatenate([image, codes], -1))))


class MutualDirichletNet(nnx.Module):
    """Encoder, decoder and critic (Qu et al., 2022).

    Args:
        bands: of the pair.
        codes: of a pixel; the release advises 15 for images of few bands.
        width: of the encoder's first layer; the release advises 3 for images of few bands.
    """

    def __init__(self, bands: Bands, *, codes: int = 35, width: int = 8, rngs: nnx.Rngs) -> None:
        self.encoder = Encoder(bands.guide, codes, width, rngs=rngs)
        self.decoder = Decoder(codes, bands.lr, rngs=rngs)
        self.critic = Critic(bands.guide, codes, rngs=rngs)


def norms(difference: Array, weight: Array) -> Array:
    """The l2,1 norm: the sum over weighted pixels of the norm over bands."""
    return jnp.sum(jnp.sqrt(jnp.sum(jnp.square(difference), -1, keepdims=True) + SMALLEST) * weight)


def unrelated(critic: Critic, image: Array, codes: Array, weight: Array, key: Array) -> Array:
    """``E[softplus(-T)] + E[softplus(T')]``: T scores pixels with their codes, T' pixels in random order.

    Its negative is a lower bound of the mutual information of pixels and codes (Jensen-Shannon), but for a constant.
    """
    pixels = image.reshape(image.shape[0], -1, image.shape[-1])
    shuffled = jax.random.permutation(key, pixels, axis=1).reshape(image.shape)
    scores = jax.nn.softplus(-critic(image, codes)) + jax.nn.softplus(critic(shuffled, codes))
    return weighted_mean(scores, weight)


def loss(module: MutualDirichletNet, pair: Pair, key: Array) -> tuple[Array, Array]:
    """``|D(E(R Y)) - Y| + |R D(E(Z)) - Z| / s + 1e-3 |S|`` and, for both images, 0.1 `unrelated` + 0.01 `entropy`.

    Y and Z are without their means; errors are `norms`, s is the ratio, and |S| is the mean over codes of the summed
    magnitudes of a code's spectrum with the mean of Y. The output is X = D(E(Z)) with the mean of Y.
    """
    weight, response = pair.weight, pair.model["guide"]
    lr, mean = centred(pair.observation["lr"], weight["lr"])
    guide, _ = centred(pair.observation["guide"], weight["guide"])
    seen = {"lr": response(lr), "guide": guide}
    codes = {name: module.encoder(image) for name, image in seen.items()}
    product = module.decoder(codes["guide"])
    errors = norms(module.decoder(codes["lr"]) - lr, weight["lr"])
    errors += norms(response(product) - guide, weight["guide"]) / pair.model.ratio
    spectra = jnp.abs(module.decoder.spectra() + mean[0, 0]).sum(-1).mean()
    keys = dict(zip(seen, jax.random.split(key), strict=True))
    apart = sum(unrelated(module.critic, seen[name], codes[name], weight[name], keys[name]) for name in seen)
    sparse = sum(entropy(codes[name], weight[name]) for name in seen)
    return errors + SPECTRA * spectra + INFORMATION * apart + SPARSITY * sparse, product + mean


STAGE = Stage(loss, 5000, Schedule(1e-3))


@fitter
def fit_u2mdn(
    observation: Observation,
    model: ObservationModel,
    **sizes: Any,
) -> Plan:
    """Fits u2-MDN to a pair; see `jfusion.catalogue.Fitter` and `priors.fit.fit`.

    Args:
        observation: `lr` and `guide`.
        model: the operator of `guide` must be known; that of `lr` does not enter.
        sizes: of `MutualDirichletNet`.

    Raises:
        InputError: the operator of `guide` is not known.
    """
    pair, scale = Pair.of(observation, model).normalised()
    bands = Bands.of(observation, model)
    model["guide"]

    def build(key: Array) -> MutualDirichletNet:
        return MutualDirichletNet(bands, rngs=nnx.Rngs(key), **sizes)

    return Plan(build, pair, (STAGE,), scale, lambda product: (product, model))


U2MDN = System(
    name="u2mdn",
    title="u2-MDN",
    family="prior",
    tasks=SPATIOSPECTRAL,
    paper=Paper(
        authors="Y. Qu, H. Qi, C. Kwan, N. Yokoya, J. Chanussot",
        year=2022,
        title="Unsupervised and Unregistered Hyperspectral Image Super-Resolution with Mutual Dirichlet-Net",
        venue="IEEE Transactions on Geoscience and Remote Sensing 60",
        doi="10.1109/TGRS.2021.3079518",
        code="https://github.com/yingutk/u2MDN",
    ),
    summary="One encoder gives pixels of R Y and Z codes that a broken stick leaves, X is what the decoder makes of "
    "those of Z; fitted by the norms of each pixel's error, |D(E(R Y)) - Y| + |R X - Z| / s, the mutual information "
    "of pixels and codes, and sparsity.",
    method=Fitted(
        generator=MutualDirichletNet,
        fit=fit_u2mdn,
        steps=STAGE.steps,
        note="Adam at 1e-3, 5,000 steps; weights 0.1 of the mutual information (Jensen-Shannon), 0.01 of the entropy "
        "of codes, 1e-3 of the magnitude of spectra.",
    ),
    differences="The errors are norms of each pixel's, as in the paper; the release squares them. The weights are the "
    "release's: there squared errors shrink in the fit, so that the mutual information gains a share, while next to "
    "norms it hardly counts. One Adam lowers the sum of both images' losses, where the release takes a step on each; "
    "so the error of Z is a sum over its pixels, not a mean over columns and bands. Pixels are put into random order "
    "for both images, where the release leaves those of Y in place and exchanges rows of Z, and the critic learns from "
    "both. The rate stays constant, as in the release, where its decay has no effect. The pair is scaled to a largest "
    "magnitude of one.",
    parameters=(10_214, Bands(103, 4, 4)),
    needs_model=True,
)
