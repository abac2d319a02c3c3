"""Coupled non-negative matrix factorisation (CNMF): endmembers from ``lr``, abundances from the guide."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

from jfusion.catalogue import Classical, Paper, System
from jfusion.classical.hypersharpening import known_response, srf
from jfusion.classical.pixels import NEGLIGIBLE, matmul, mix, subspace
from jfusion.operators import Grid, Observation, ObservationModel, SpatialResponse, one_psf, upsample
from jfusion.tasks import SPATIOSPECTRAL

ENDMEMBERS = 30
STEPS = 200
"""Multiplicative updates of each kind; three times as many for the first abundances of ``lr``."""
MEAN_GUIDE = 0.7455
"""Mean to which the guide is scaled, so that the weight of the sum of abundances is the toolbox's."""
EPS = 1e-12


def endmembers(spectra: Array, count: int) -> Array:
    """Purest pixels of an image by successive projection, ``(endmember, band)``, non-negative.

    Each is the pixel with the largest norm once the span of those before it is projected out, all within the
    ``count``-dimensional subspace of the spectra: VCA (Nascimento and Dias, TGRS 43(4), 2005) without its random
    directions, as analysed by Gillis and Vavasis, TPAMI 36(4), 2014. The first pixel stands in for each that is
    missing where the spectra have a smaller rank.

    Args:
        spectra: ``(pixel, band)``.
        count: at most the number of bands or pixels.
    """
    basis = subspace(spectra[None, None], count)[0]
    coordinates = matmul(spectra, basis)
    threshold = NEGLIGIBLE**2 * jnp.max(jnp.sum(coordinates**2, axis=1))

    def pick(rest: Array, _: None) -> tuple[Array, Array]:
        energy = jnp.sum(rest**2, axis=1)
        index = jnp.argmax(jnp.where(energy > threshold, energy, 0))
        direction = rest[index] / jnp.sqrt(jnp.maximum(energy[index], EPS))
        return rest - matmul(rest, direction)[:, None] * direction, index

    chosen = jax.lax.scan(pick, coordinates, length=count)[1]
    return jnp.maximum(matmul(coordinates[chosen], basis.T), 0)


def update_abundances(image: Array, spectra: Array, abundances: Array, delta: float) -> Array:
    """``A <- A * (Y W' + delta^2) / (A (W W' + delta^2))``.

    Args:
        image: Y, ``(pixel, band)``.
        spectra: W, ``(endmember, band)``.
        abundances: A, ``(pixel, endmember)``.
        delta: weight of one more band, of ones in Y and W, that pulls the abundances of a pixel to the sum 1.
    """
    wanted = matmul(image, spectra.T) + delta**2
    return abundances * wanted / (matmul(abundances, matmul(spectra, spectra.T) + delta**2) + EPS)


def update_spectra(image: Array, spectra: Array, abundances: Array) -> Array:
    """``W <- W * (A' Y) / (A' A W)``, arguments as in `update_abundances`."""
    return spectra * matmul(abundances.T, image) / (matmul(matmul(abundances.T, abundances), spectra) + EPS)


def _fit_abundances(image: Array, spectra: Array, abundances: Array, delta: float, steps: int) -> Array:
    return jax.lax.fori_loop(0, steps, lambda _, a: update_abundances(image, spectra, a, delta), abundances)


def _factorise(image: Array, spectra: Array, abundances: Array, delta: float, steps: int) -> tuple[Array, Array]:
    def step(_: int, factors: tuple[Array, Array]) -> tuple[Array, Array]:
        spectra = update_spectra(image, *factors)
        return spectra, update_abundances(image, spectra, factors[1], delta)

    return jax.lax.fori_loop(0, steps, step, (spectra, abundances))


def unmix(
    lr: Array, guide: Array, response: SpatialResponse, weights: Array, grid: Grid, steps: int = STEPS
) -> tuple[Array, Array]:
    """Endmembers ``(endmember, band)`` and abundances ``(height, width, endmember)`` of one scene; see `cnmf`.

    Args:
        lr: ``(height, width, band)``, non-negative.
        guide: ``(height, width, guide band)``, non-negative, of mean `MEAN_GUIDE`.
        response: of ``lr``, one PSF for all bands.
        weights: spectral response of the guide, ``(guide band, band)``.
        grid: of the pair.
        steps: updates of each kind.
    """
    bands, guide_bands = lr.shape[-1], guide.shape[-1]
    count = min(ENDMEMBERS, bands, lr.shape[0] * lr.shape[1])
    delta = 2 / guide_bands**3
    y, z = lr.reshape(-1, bands), guide.reshape(-1, guide_bands)

    spectra = endmembers(y, count)
    low = _fit_abundances(y, spectra, jnp.full((y.shape[0], count), 1 / count, y.dtype), delta, 3 * steps)
    spectra, low = _factorise(y, spectra, low, delta, steps)

    high = upsample(low.reshape(*lr.shape[:2], count), grid, "bilinear").reshape(-1, count)
    seen = matmul(spectra, weights.T)
    high = _fit_abundances(z, seen, high, delta, steps)
    if guide_bands > 3:
        high = _factorise(z, seen, high, delta, steps)[1]
    high = high.reshape(*guide.shape[:2], count)

    low = jnp.maximum(response(high), 0).reshape(-1, count)
    return jax.lax.fori_loop(0, steps, lambda _, w: update_spectra(y, w, low), spectra), high


def cnmf(observation: Observation, model: ObservationModel) -> Array:
    """Coupled NMF unmixing: ``X = A W`` with endmembers W and abundances A, both non-negative.

    1. ``Y = A_h W``: W from the purest pixels of ``lr`` Y (`endmembers`), then multiplicative updates of A_h, then of
       both in turn.
    2. ``Z = A (W R')`` for the guide Z with spectral response R: A from the interpolated A_h, the same updates, W R'
       being free only where the guide has more than three bands.
    3. ``Y = (H A) W`` with the spatial response H of ``lr``: W again.

    Negative values of either image count as 0. Yokoya et al., TGRS 50(2), 2012.

    Raises:
        InputError: the spatial or spectral response is not known.
    """
    response, weights = one_psf(known_response(model)), srf(model)
    lr, guide = jnp.maximum(observation["lr"], 0), jnp.maximum(observation["guide"], 0)
    mean = guide.mean((1, 2, 3), keepdims=True)
    scale = jnp.where(mean > 0, mean, 1) / MEAN_GUIDE
    spectra, abundances = jax.vmap(lambda y, z: unmix(y, z, response, weights, model.grid))(lr / scale, guide / scale)
    return mix(abundances, spectra) * scale


CNMF = System(
    name="cnmf",
    title="Coupled non-negative matrix factorisation (CNMF)",
    family="classical",
    tasks=SPATIOSPECTRAL,
    paper=Paper(
        "Yokoya, Yairi, Iwasaki",
        2012,
        "Coupled nonnegative matrix factorization unmixing for hyperspectral and multispectral data fusion",
        "IEEE Transactions on Geoscience and Remote Sensing 50(2)",
        "10.1109/TGRS.2011.2161320",
        code="codegaj/py_pansharpening, methods/CNMF.py",
    ),
    summary="Unmixes both images in turn, tied by their responses, and multiplies endmembers by abundances.",
    method=Classical(cnmf),
    needs_model=True,
    differences="Successive projection in place of VCA; 30 endmembers (or as many as bands) where the toolbox may take "
    "more; fixed numbers of updates, 200 for a panchromatic guide too; the responses are the model's, not estimated "
    "inside; the weight of the sum of abundances follows the images' scale; endmembers are refitted last to the "
    "degraded abundances without freeing these again; the product is not rounded or clipped.",
)
