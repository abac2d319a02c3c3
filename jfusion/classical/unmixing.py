"""Coupled non-negative matrix factorisation (CNMF): endmembers from ``lr``, abundances from the guide."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

from jfusion.catalogue import Classical, Paper, System
from jfusion.classical.hypersharpening import known_response, shared_response, srf
from jfusion.classical.pixels import mix, subspace
from jfusion.operators import Grid, Observation, ObservationModel, SpatialResponse, upsample
from jfusion.tasks import SPATIOSPECTRAL

ENDMEMBERS = 30
EPS = 1e-12


def matmul(a: Array, b: Array) -> Array:
    """Matrix product in the arrays' own precision."""
    return jnp.matmul(a, b, precision="highest")


def endmembers(spectra: Array, count: int) -> Array:
    """Purest pixels of an image by successive projection, ``(count, band)``, non-negative.

    Each is the pixel that is left with the largest norm once the span of those before it is projected out, all within
    the ``count``-dimensional subspace of the spectra. It is VCA (Nascimento and Dias, TGRS 43(4), 2005) without its
    random directions: Gillis and Vavasis, TPAMI 36(4), 2014.

    Args:
        spectra: ``(pixel, band)``.
        count: not more than there are bands or pixels.
    """
    basis = subspace(spectra[None, None], count)[0]
    coordinates = matmul(spectra, basis)

    def pick(rest: Array, _: None) -> tuple[Array, Array]:
        energy = jnp.sum(rest**2, axis=1)
        index = jnp.argmax(energy)
        direction = rest[index] / jnp.sqrt(jnp.maximum(energy[index], EPS))
        return rest - matmul(rest, direction)[:, None] * direction, index

    chosen = jax.lax.scan(pick, coordinates, length=count)[1]
    return jnp.maximum(matmul(coordinates[chosen], basis.T), 0)


def update_abundances(image: Array, spectra: Array, abundances: Array, delta: Array | float) -> Array:
    """``A <- A * (Y W' + delta^2) / (A (W W' + delta^2))``: Y ``(pixel, band)``, W ``(endmember, band)``.

    ``delta`` weighs the row of ones that pulls the abundances of a pixel towards the sum 1.
    """
    step = matmul(image, spectra.T) + delta**2
    return abundances * step / (matmul(abundances, matmul(spectra, spectra.T) + delta**2) + EPS)


def update_endmembers(image: Array, spectra: Array, abundances: Array) -> Array:
    """``W <- W * (A' Y) / (A' A W)``."""
    step = matmul(abundances.T, image)
    return spectra * step / (matmul(matmul(abundances.T, abundances), spectra) + EPS)


def fit_abundances(image: Array, spectra: Array, abundances: Array, delta: Array | float, steps: int) -> Array:
    """So many `update_abundances` with fixed spectra."""
    return jax.lax.fori_loop(0, steps, lambda _, a: update_abundances(image, spectra, a, delta), abundances)


def factorise(
    image: Array, spectra: Array, abundances: Array, delta: Array | float, steps: int
) -> tuple[Array, Array]:
    """So many alternating updates of spectra and abundances."""

    def step(_: int, factors: tuple[Array, Array]) -> tuple[Array, Array]:
        spectra = update_endmembers(image, *factors)
        return spectra, update_abundances(image, spectra, factors[1], delta)

    return jax.lax.fori_loop(0, steps, step, (spectra, abundances))


def couple(
    lr: Array, guide: Array, response: SpatialResponse, weights: Array, grid: Grid, steps: int, rounds: int
) -> tuple[Array, Array]:
    """Endmembers ``(endmember, band)`` and abundances ``(height, width, endmember)`` of one scene; see `cnmf`."""
    count = min(ENDMEMBERS, lr.shape[-1], lr.shape[0] * lr.shape[1])
    delta = 2 / weights.shape[0] ** 3
    y, z = lr.reshape(-1, lr.shape[-1]), guide.reshape(-1, guide.shape[-1])

    spectra = endmembers(y, count)
    low = fit_abundances(y, spectra, jnp.full((y.shape[0], count), 1 / count, y.dtype), delta, 3 * steps)
    spectra, low = factorise(y, spectra, low, delta, steps)
    high = jnp.maximum(upsample(low.reshape(*lr.shape[:2], count), grid, "bilinear"), 0).reshape(-1, count)
    for _ in range(rounds):
        mixed = matmul(spectra, weights.T)
        high = fit_abundances(z, mixed, high, delta, steps)
        if weights.shape[0] > 3:
            high = factorise(z, mixed, high, delta, steps)[1]
        low = response(high.reshape(*guide.shape[:2], count)).reshape(-1, count)
        spectra = jax.lax.fori_loop(0, steps, lambda _, w, low=low: update_endmembers(y, w, low), spectra)
    return spectra, high.reshape(*guide.shape[:2], count)


def cnmf(observation: Observation, model: ObservationModel, steps=200, rounds=1) -> Array:
    response, weights = shared_response(known_response(model)), srf(model)
    lr, guide = jnp.maximum(observation["lr"], 0), jnp.maximum(observation["guide"], 0)
    scale = 0.7455/guide.mean((1, 2, 3), keepdims=True)
    spectra, abundances = jax.vmap(lambda y, z: couple(y, z, response, weights, model.grid, steps, rounds))(lr*scale, guide*scale)
    return mix(abundances, spectra)/scale
