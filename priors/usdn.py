"""uSDN: Qu, Qi and Kwan, "Unsupervised Sparse Dirichlet-Net for Hyperspectral Image Super-Resolution", CVPR 2018.

Two encoders turn the spectra of the hyperspectral image Y and of the multispectral image Z into codes, see
`priors.dirichlet`, and one decoder turns codes of either into spectra. Encoder and decoder of Y are fitted first; then
the encoder of Z learns to give a pixel the code that Y has there; then it is fitted to Z through the fixed decoder and
the spectral response R, while the maps of its codes are held at a small angle to those of Y. No PSF enters.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax import Array

from jfusion.catalogue import Bands, Fitted, Paper, System
from jfusion.operators import Decimate, Observation, ObservationModel
from jfusion.tasks import SPATIOSPECTRAL
from priors.dirichlet import EPSILON, Decoder, DenseStack, broken_stick, centred, dense, entropy
from priors.fit import Plan, Schedule, Stage, fitter
from priors.pair import Pair, mean_l2

VOLUME = 1e-4
LR_SPARSITY = 1e-3
GUIDE_SPARSITY = 1e-4
ANGLE = 1 / 20
"""A step on the angle for so many on the guide."""

COSINE = 1 - 1e-6
"""Largest cosine whose angle has a finite derivative."""

VANISHING = 1e-16
"""Square of a map's length below which it counts as so long, for the derivative of the length."""


class Encoder(nnx.Module):
    """Codes of the pixels of one image.

    Args:
        inputs: bands of the image.
        guide: bands of its multispectral version, which the first layer and beta see.
        codes: of a pixel.
        width: of every layer.
    """

    def __init__(self, inputs: int, guide: int, codes: int, width: int, *, rngs: nnx.Rngs) -> None:
        self.first = dense(guide, width, rngs=rngs)
        self.trunk = DenseStack(inputs + width, (width,) * 3, rngs=rngs)
        self.pieces = dense(self.trunk.outputs, codes, rngs=rngs)
        self.fork = DenseStack(guide, (width,) * 2, rngs=rngs)
        self.beta = dense(self.fork.outputs, 1, rngs=rngs)

    def __call__(self, image: Array, multispectral: Array) -> Array:
        """``(..., height, width, code)``."""
        features = self.trunk(jnp.concatenate([image, self.first(multispectral)], -1))
        return broken_stick(self.pieces(features), self.beta(self.fork(multispectral)))


class SparseDirichletNet(nnx.Module):
    """The two encoders and the decoder (Qu et al., 2018).

    Args:
        bands: of the pair.
        codes: of a pixel.
        width: of every layer of the encoders.
    """

    def __init__(self, bands: Bands, *, codes: int = 12, width: int = 3, rngs: nnx.Rngs) -> None:
        self.lr = Encoder(bands.lr, bands.guide, codes, width, rngs=rngs)
        self.guide = Encoder(bands.guide, bands.guide, codes, width, rngs=rngs)
        self.decoder = Decoder(codes, bands.lr, rngs=rngs)

    def lr_codes(self, pair: Pair) -> Array:
        """Codes of the hyperspectral image, ``(batch, h, w, code)``."""
        image, _ = centred(pair.observation["lr"], pair.weight["lr"])
        return self.lr(image, pair.model["guide"](image))

    def sampled_codes(self, pair: Pair) -> Array:
        """Codes of the guide's pixels that lie nearest to the low-resolution ones, ``(batch, h, w, code)``."""
        sampled = Decimate(pair.model.ratio, pair.model.grid.phase)(pair.observation["guide"])
        image, _ = centred(sampled, pair.weight["lr"])
        return self.guide(image, image)

    def guide_codes(self, pair: Pair) -> Array:
        """Codes of the guide, ``(batch, height, width, code)``."""
        image, _ = centred(pair.observation["guide"], pair.weight["guide"])
        return self.guide(image, image)


def lr_loss(module: SparseDirichletNet, pair: Pair, key: Array) -> tuple[Array, tuple[()]]:
    """Stage 1: ``|D(E(Y)) - Y|^2 + 1e-4 mean(S^T S) + 1e-3 entropy``, S the spectra of the codes.

    The first is the mean over bands of the sum over pixels.
    """
    weight, codes = pair.weight["lr"], module.lr_codes(pair)
    image, mean = centred(pair.observation["lr"], weight)
    spectra = module.decoder.spectra() + mean[0, 0]
    volume = jnp.sum(jnp.square(spectra.mean(-1)))
    error = weight.sum() * mean_l2(module.decoder(codes), image, weight)
    return error + VOLUME * volume + LR_SPARSITY * entropy(codes, weight), ()


def code_loss(module: SparseDirichletNet, pair: Pair, key: Array) -> tuple[Array, tuple[()]]:
    """Stage 2: mean squared difference of the codes of Z, sampled, and of Y."""
    return mean_l2(module.sampled_codes(pair), module.lr_codes(pair), pair.weight["lr"]), ()


def angle(predicted: Array, observed: Array, weight: Array) -> Array:
    """Angle between the maps of a code over weighted pixels, in units of pi, mean over the codes."""

    def product(a: Array, b: Array) -> Array:
        return jnp.sum(a * b * weight, (-3, -2))

    one, other = (jnp.sqrt(jnp.maximum(product(x, x), VANISHING)) for x in (predicted, observed))
    cosine = product(predicted, observed) / (one * other + EPSILON)
    return jnp.mean(jnp.arccos(jnp.minimum(cosine, COSINE))) / jnp.pi


def guide_loss(module: SparseDirichletNet, pair: Pair, key: Array) -> tuple[Array, Array]:
    """Stage 3: ``|R X - Z|^2 + 1e-4 entropy + angle / 20``, X the decoded codes of Z with the mean of Y; gives X.

    The first is the mean over bands of the sum over pixels.
    """
    observed, weight = pair.observation, pair.weight
    codes, (_, mean) = module.guide_codes(pair), centred(observed["lr"], weight["lr"])
    product = module.decoder(codes) + mean
    error = weight["guide"].sum() * mean_l2(pair.model["guide"](product), observed["guide"], weight["guide"])
    turned = angle(module.sampled_codes(pair), module.lr_codes(pair), weight["lr"])
    return error + GUIDE_SPARSITY * entropy(codes, weight["guide"]) + ANGLE * turned, product


STAGES = (
    Stage(lr_loss, 10_000, Schedule(1e-3), trainable=("lr", "decoder")),
    Stage(code_loss, 15_000, Schedule(1e-3), trainable=("guide",)),
    Stage(guide_loss, 10_000, Schedule(1e-3), trainable=("guide",)),
)


@fitter
def fit_usdn(
    observation: Observation,
    model: ObservationModel,
    **sizes: Any,
) -> Plan:
    """Fits uSDN to a pair; see `jfusion.catalogue.Fitter` and `priors.fit.fit`.

    Args:
        observation: `lr` and `guide`.
        model: the operator of `guide` must be known; that of `lr` does not enter.
        sizes: of `SparseDirichletNet`.

    Raises:
        InputError: the operator of `guide` is not known.
    """
    pair, scale = Pair.of(observation, model).normalised()
    bands = Bands.of(observation, model)
    model["guide"]

    def build(key: Array) -> SparseDirichletNet:
        return SparseDirichletNet(bands, rngs=nnx.Rngs(key), **sizes)

    return Plan(build, pair, STAGES, scale, lambda product: (product, model))


USDN = System(
    name="usdn",
    title="uSDN",
    family="prior",
    tasks=SPATIOSPECTRAL,
    paper=Paper(
        authors="Y. Qu, H. Qi, C. Kwan",
        year=2018,
        title="Unsupervised Sparse Dirichlet-Net for Hyperspectral Image Super-Resolution",
        venue="IEEE Conference on Computer Vision and Pattern Recognition",
        doi="10.1109/CVPR.2018.00266",
        code="https://github.com/aicip/uSDN",
    ),
    summary="Two encoders give the pixels of Y and Z codes that a broken stick leaves, X is what one decoder makes of "
    "those of Z; fitted by |D(E(Y)) - Y|^2, then by the difference of both codes, then by |R X - Z|^2 and the angle "
    "between the maps of both codes.",
    method=Fitted(
        generator=SparseDirichletNet,
        fit=fit_usdn,
        steps=sum(stage.steps for stage in STAGES),
        note="Adam at 1e-3; 10,000 steps on the encoder of Y and the decoder, 15,000 on the encoder of Z by codes, "
        "10,000 by Z.",
    ),
    differences="The numbers of steps are fixed: the release ends the first stage at a spectral angle of 1.5 degrees "
    "on Y, the second at an error of 1e-5 and the last by the truth. Its step on the angle after every 20 on Z, which "
    "has an Adam of its own and the length of one whatever the angle's gradient, is a term of weight 1 / 20 beside a "
    "sum over all pixels, which is far steeper: codes hardly follow it here. The entropy of the "
    "codes of Z has the weight 1e-4 that the release sets but does not use. Weights and rate stay constant, as in the "
    "release, where their decay has no effect. Pixels of Z that stand for low-resolution ones are the nearest on the "
    "pair's grid. The pair is scaled to a largest magnitude of one.",
    parameters=(1778, Bands(31, 3, 32)),
    needs_model=True,
)
