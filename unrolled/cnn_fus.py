"""CNN-Fus: the method of multipliers in a subspace, with a denoiser of photographs in the place of a prior.

Dian, Li, Kang, "Regularizing Hyperspectral and Multispectral Image Fusion by CNN Denoiser", TNNLS 32(3), 2021,
doi:10.1109/TNNLS.2020.2980398; code: github.com/renweidian/CNN-FUS.

With Y the low-resolution image, Z the guide, H blur and decimation, R the spectral response, and D the first 10
singular vectors of Y's spectra, the scene is D A and A the solution of

    min_A  |Y - H D A|^2 + gamma |Z - R D A|^2 + lambda phi(A),

whose phi is known only by what the denoiser does. Fifteen turns, from V = G = 0 and mu = 0.001,

    A  = argmin_A |Y - H D A|^2 + gamma |Z - R D A|^2 + mu |A - (V + G / (2 mu))|^2      a closed form
    V  = denoised(A - G / (2 mu)),   G <- G + 2 mu (V - A),   mu <- 1.1 mu.

FFDNet sees each coefficient's image stretched from 0 to 1, and is told noise of lambda / (2 mu) over the width of that
stretch; gamma = 1, lambda = 0.001. The stages are D A; the product is the last one.

The paper trains nothing and freezes the published weights of the denoiser, which `jfusion import` reads from their
file. Without it the denoiser learns, as its own paper says but from the coefficients of the scenes to learn from, to
remove white noise of 0 to 75 / 255: squared error, Adam from 1e-3. Images are divided by their 99.9 % quantile
(release: by their maximum), since mu and lambda count in their units. The operators are those of the observation model
("exact"); "learned" fits a PSF and a spectral response to the training pairs, for which the network then serves their
bands alone; "free" is not offered, see `unrolled.closed_form`.

Differences from the release: images need not be square, pixels may lie at any phase, and borders are not periodic
where the observation model says so.
"""

from __future__ import annotations

from typing import Unpack

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax import Array

from jfusion.catalogue import Bands, Original, Paper, Recipe, System, Table, Trained
from jfusion.classical.pixels import signed
from jfusion.errors import InputError
from jfusion.layers.ffdnet import LARGEST_NOISE, FFDNet, published_names
from jfusion.operators import Observation, ObservationModel
from jfusion.operators.linear import single
from jfusion.tasks import SPATIOSPECTRAL
from jfusion.training.adversarial import per_image
from unrolled.closed_form import LinearPhysics, LinearSensors
from unrolled.stages import Basis, Options, Stages, closed_form_step, finish

GAMMA, NOISE, FIRST, GROWTH = 1.0, 1e-3, 1e-3, 1.1
"""Weight of the guide, lambda, mu at first, and what it grows by."""


def principal_spectra(image: Array, rank: int) -> Basis:
    """The first singular vectors of the spectra of each image ``(batch, height, width, band)``, no mean removed.

    They are ``rank``, or all there are, and the largest entry of each is positive.
    """
    image = single(image)
    gram = jnp.einsum("nhwi,nhwj->nij", image, image, precision="highest")
    return Basis(signed(jnp.linalg.eigh(gram)[1][..., ::-1][..., :rank]))


def stretched(images: Array) -> tuple[Array, Array, Array]:
    """Images ``(..., height, width)`` from 0 to 1, their smallest values, and their widths, ``(..., 1, 1)``."""
    low, high = (f(images, (-2, -1), keepdims=True) for f in (jnp.min, jnp.max))
    width = jnp.where(high > low, high - low, 1)
    return (images - low) / width, low, width


class CNNFus(nnx.Module):
    """The method of Dian et al., 2021.

    Args:
        bands: of the pair.
        turns: of the method of multipliers.
        rank: singular vectors, or all there are.
        width, depth: of the denoiser.
        physics: "exact" or "learned".

    Raises:
        InputError: another physics.
    """

    def __init__(
        self,
        bands: Bands,
        *,
        turns: int = 15,
        rank: int = 10,
        width: int = 64,
        depth: int = 15,
        physics: LinearPhysics = "exact",
        rngs: nnx.Rngs,
    ) -> None:
        self.sensors, self.fixed = LinearSensors(physics, bands), bands if physics == "learned" else None
        self.denoiser = FFDNet(width=width, depth=depth, rngs=rngs)
        self.turns, self.rank = turns, rank

    def denoised(self, coefficients: Array, noise: Array) -> Array:
        """Coefficients ``(batch, height, width, component)`` without noise of that standard deviation, a scalar."""
        images, low, width = stretched(jnp.moveaxis(coefficients, -1, 1))
        return jnp.moveaxis(self.denoiser(images, noise / width[..., 0, 0]) * width + low, 1, -1)

    def __call__(self, observation: Observation, model: ObservationModel, **options: Unpack[Options]) -> Array | Stages:
        """The product ``(batch, height, width, band)``, or what ``options`` ask of `unrolled.stages.finish`.

        Raises:
            InputError: the physics is exact, and the spatial or the spectral response is not known; or it is learned,
                for other bands.
        """
        if self.fixed is not None and self.fixed != (found := Bands.of(observation, model)):
            raise InputError(
                f"the sensors were learned for {self.fixed}, but the pair has {found}; train for this pair."
            )
        known, basis = self.sensors(model), principal_spectra(observation["lr"], self.rank)

        def turn(state: tuple[Array, Array], mu: Array) -> tuple[tuple[Array, Array], Array]:
            v, g = state
            a = closed_form_step(v + g / (2 * mu), observation, known, mu, {"lr": 1.0, "guide": GAMMA}, basis)
            v = self.denoised(a - g / (2 * mu), NOISE / (2 * mu))
            return (v, g + 2 * mu * (v - a)), a

        mu = FIRST * GROWTH ** jnp.arange(self.turns)
        nothing = jnp.zeros((*observation["guide"].shape[:3], basis.vectors.shape[-1]))
        _, coefficients = jax.lax.scan(turn, (nothing, nothing), mu)
        return finish(basis(coefficients), observation, model, {"mu": mu}, **options)


def denoising_error(
    network: CNNFus, observation: Observation, model: ObservationModel, target: Array, key: Array
) -> Array:
    """Half the squared error, mean over pixels, of the denoiser on the target's coefficients with noise.

    With the misfit of the responses where they are learned.
    """
    images = stretched(jnp.moveaxis(principal_spectra(target, network.rank).T(target), -1, 1))[0]
    strength, noise = (per_image(key, len(images)) for key in jax.random.split(key))
    deviation = LARGEST_NOISE * jax.vmap(lambda key: jax.random.uniform(key, images.shape[1:2]))(strength)
    noisy = images + deviation[..., None, None] * jax.vmap(lambda key: jax.random.normal(key, images.shape[1:]))(noise)
    error = jnp.mean((network.denoiser(noisy, deviation) - images) ** 2) / 2
    return error + network.sensors.misfit(observation, model, target)


def held_out_error(network: CNNFus, observation: Observation, model: ObservationModel, target: Array) -> Array:
    """`denoising_error` with the same noise each time."""
    return denoising_error(network, observation, model, target, jax.random.key(0))


def _denoiser(network: CNNFus) -> Table:
    return {f"denoiser/{path}": entry for path, entry in published_names(network.denoiser).items()}


CNN_FUS = System(
    name="cnn_fus",
    title="CNN-Fus",
    family="unrolled",
    tasks=SPATIOSPECTRAL,
    paper=Paper(
        authors="R. Dian, S. Li, X. Kang",
        year=2021,
        title="Regularizing Hyperspectral and Multispectral Image Fusion by CNN Denoiser",
        venue="IEEE Transactions on Neural Networks and Learning Systems 32(3)",
        doi="10.1109/TNNLS.2020.2980398",
        code="https://github.com/renweidian/CNN-FUS",
    ),
    summary="Solves for the coefficients of ten singular vectors in closed form and denoises their images by FFDNet, "
    "by turns, in the method of multipliers; the network knows nothing of sensors.",
    method=Trained(
        network=CNNFus,
        loss=held_out_error,
        stochastic=denoising_error,
        recipe=Recipe(
            optimiser=lambda steps: optax.adam(optax.cosine_decay_schedule(1e-3, steps)),
            steps=80_000,
            patch=70,
            batch=128,
            note="FFDNet's: squared error, noise of 0 to 75 / 255, 128 patches of 70 x 70 of one band, Adam from 1e-3, "
            "lowered by hand there and by a cosine here; steps are ours.",
        ),
        tiny={"turns": 3, "width": 4, "depth": 3},
        compact={"width": 32, "depth": 8},
        any_bands=True,
        originals=(
            Original(
                file="FFDNet_gray.mat of FFDNet's release, also in that of CNN-Fus; it fits any bands",
                table=_denoiser,
                bands=Bands(103, 4, 5),
                scale=None,
                note="The release divides each scene by its maximum.",
            ),
        ),
    ),
    differences="Images need not be square and are divided by their 99.9 % quantile, where the release divides by the "
    "maximum; FFDNet learns from the coefficients of the scenes to learn from, where the release has its published "
    "weights.",
    parameters=(485_316, Bands(103, 4, 5)),
    needs_model=True,
)
