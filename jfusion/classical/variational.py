"""HySure: abundances with vector total variation, by the split augmented Lagrangian shrinkage algorithm (SALSA)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

from jfusion.catalogue import Classical, Paper, System
from jfusion.classical.hypersharpening import known_response, srf
from jfusion.classical.pixels import matmul
from jfusion.classical.unmixing import endmembers
from jfusion.operators import Decimate, Observation, ObservationModel, SpatialResponse, one_psf, otf
from jfusion.solvers import group_soft_threshold
from jfusion.tasks import SPATIOSPECTRAL

ENDMEMBERS = 10
GUIDE_WEIGHT = 1.0
TV_WEIGHT = 5e-4
PENALTY = 0.05
STEPS = 200


State = tuple[Array, tuple[Array, ...], tuple[Array, ...]]
"""Of SALSA: the estimate, the splits, the multipliers."""


def differences(x: Array) -> tuple[Array, Array]:
    """First differences of ``(height, width, band)`` down the rows and along the columns, circular."""
    return jnp.roll(x, -1, 0) - x, jnp.roll(x, -1, 1) - x


def differences_adjoint(down: Array, along: Array) -> Array:
    """Adjoint of `differences`."""
    return jnp.roll(down, 1, 0) - down + jnp.roll(along, 1, 1) - along


def abundances(
    lr: Array, guide: Array, spectra: Array, weights: Array, response: SpatialResponse, steps: int = STEPS
) -> Array:
    """The minimiser A of `hysure` for one scene, ``(height, width, endmember)``.

    The splits are V1 = B A, V2 = A and (V3, V4) = the differences of A; each step solves for A in the Fourier domain,
    then for every V by itself, and adds what is left between them to the multipliers D.

    Args:
        lr: ``(h, w, band)``, of maximum 1.
        guide: ``(height, width, guide band)``, in the same units.
        spectra: E, ``(endmember, band)``.
        weights: spectral response R of the guide, ``(guide band, band)``.
        response: of ``lr``, one PSF for all bands; taken with circular boundary.
        steps: of SALSA.
    """
    height, width = guide.shape[:2]
    blur = otf(response.psf, height, width)
    decimate = Decimate(response.ratio, response.phase)
    seen = decimate.T(jnp.ones((*lr.shape[:2], 1), lr.dtype))
    mixed = matmul(spectra, weights.T)
    ridge = PENALTY * jnp.eye(spectra.shape[0], dtype=lr.dtype)
    solve_lr = jnp.linalg.inv(matmul(spectra, spectra.T) + ridge)
    solve_guide = jnp.linalg.inv(GUIDE_WEIGHT * matmul(mixed, mixed.T) + ridge)
    from_lr, from_guide = decimate.T(matmul(lr, spectra.T)), GUIDE_WEIGHT * matmul(guide, mixed.T)

    def fourier(x: Array) -> Array:
        return jnp.fft.rfft2(x, axes=(0, 1))

    def inverse(spectrum: Array) -> Array:
        return jnp.fft.irfft2(spectrum, s=(height, width), axes=(0, 1))

    impulse = jnp.zeros((height, width, 1), lr.dtype).at[0, 0, 0].set(1)
    denominator = jnp.abs(blur) ** 2 + fourier(impulse + differences_adjoint(*differences(impulse))).real

    def split(blurred: Array, plain: Array, down: Array, along: Array) -> tuple[Array, ...]:
        v1 = jnp.where(seen > 0, matmul(from_lr + PENALTY * blurred, solve_lr), blurred)
        v2 = matmul(from_guide + PENALTY * plain, solve_guide)
        return v1, v2, *group_soft_threshold(jnp.stack([down, along]), TV_WEIGHT / PENALTY, axis=(0, -1))

    def step(_: int, state: State) -> State:
        v, d = state[1:]
        t1, t2, t3, t4 = (a + b for a, b in zip(v, d, strict=True))
        spectrum = (jnp.conj(blur) * fourier(t1) + fourier(t2 + differences_adjoint(t3, t4))) / denominator
        x = inverse(spectrum)
        targets = [a - b for a, b in zip((inverse(blur * spectrum), x, *differences(x)), d, strict=True)]
        v = split(*targets)
        return x, v, tuple(a - b for a, b in zip(v, targets, strict=True))

    zero = jnp.zeros((height, width, spectra.shape[0]), lr.dtype)
    return jax.lax.fori_loop(0, steps, step, (zero, (zero,) * 4, (zero,) * 4))[0]


def hysure(observation: Observation, model: ObservationModel) -> Array:
    """Hyperspectral superresolution: ``X = A E`` with A the minimiser of

        |Y - M B A E|^2 / 2 + |Z - A E R'|^2 / 2 + 5e-4 sum_pixels |(D_v A, D_h A)|.

    Y is ``lr`` with blur B and decimation M, Z the guide with spectral response R, both over the maximum of Y; E the
    ten purest spectra of Y, D the differences between neighbours, whose norm is taken over both directions and all
    endmembers. Blur and differences treat the image as periodic.
    Simões et al., TGRS 53(6), 2015.

    Raises:
        InputError: the spatial or spectral response is not known.
    """
    response, weights = one_psf(known_response(model)), srf(model)

    def one(lr: Array, guide: Array) -> Array:
        largest = jnp.max(lr)
        scale = jnp.where(largest > 0, largest, 1)
        lr, guide = lr / scale, guide / scale
        spectra = endmembers(lr.reshape(-1, lr.shape[-1]), min(ENDMEMBERS, lr.shape[-1], lr.shape[0] * lr.shape[1]))
        return matmul(abundances(lr, guide, spectra, weights, response), spectra) * scale

    return jax.vmap(one)(observation["lr"], observation["guide"])


HYSURE = System(
    name="hysure",
    title="HySure: hyperspectral superresolution by vector total variation",
    family="classical",
    tasks=SPATIOSPECTRAL,
    paper=Paper(
        "Simões, Bioucas-Dias, Almeida, Chanussot",
        2015,
        "A convex formulation for hyperspectral image superresolution via subspace-based regularization",
        "IEEE Transactions on Geoscience and Remote Sensing 53(6)",
        "10.1109/TGRS.2014.2375320",
        code="alfaiate/HySure",
    ),
    summary="Least squares in both observations with total variation that is shared by all abundances, by ADMM.",
    method=Classical(hysure),
    needs_model=True,
    differences="The responses are the model's, not estimated inside; successive projection in place of the largest of "
    "20 VCA simplices; always 200 steps, and one weight of the total variation for every kind of guide.",
)
