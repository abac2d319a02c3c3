"""A small scene of smooth spectra and textured abundances, and what sensors see of it."""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
import pytest

from jfusion.operators import (
    Grid,
    Observation,
    ObservationModel,
    SpatialResponse,
    SpectralResponse,
    gaussian_psf,
)

Pair = tuple[np.ndarray, Observation, ObservationModel]


def texture(rng: np.random.Generator, size: int, count: int) -> np.ndarray:
    """Random fields with a spectrum that falls as 1 / f, ``(size, size, count)``, of mean 0 and deviation 1."""
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(size), np.fft.fftfreq(size), indexing="ij"))
    spectrum = np.fft.fft2(rng.standard_normal((size, size, count)), axes=(0, 1))
    field = np.fft.ifft2(spectrum / np.maximum(frequency, 1 / size)[..., None], axes=(0, 1)).real
    field -= field.mean((0, 1))
    return field / field.std((0, 1))


def simulate_scene(bands: int, size: int = 48, seed: int = 0) -> np.ndarray:
    """Reflectances ``(size, size, bands)``: three materials, each pixel brighter or darker by its own texture."""
    rng = np.random.default_rng(seed)
    wavelength = np.linspace(0, 1, bands)
    spectra = np.stack([0.2 + 0.5 * wavelength, 0.6 - 0.35 * wavelength, 0.3 + 0.3 * np.sin(3 * wavelength)])
    share = np.exp(1.5 * texture(rng, size, 3))
    share /= share.sum(-1, keepdims=True)
    brightness = np.exp(0.35 * texture(rng, size, 1))
    return (brightness * share @ spectra).astype(np.float32)


def simulate_srf(guide_bands: int, bands: int) -> np.ndarray:
    """Bell-shaped responses side by side, ``(guide_bands, bands)``; rows sum to one."""
    centre = (np.arange(guide_bands) + 0.5) / guide_bands
    width = 0.6 / guide_bands
    srf = np.exp(-0.5 * ((np.linspace(0, 1, bands) - centre[:, None]) / width) ** 2)
    return (srf / srf.sum(1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="session")
def simulate() -> Callable[..., Pair]:
    """``simulate(bands, guide_bands, grid, batch=2, size=48)``: scene, noise-free observation, circular model."""

    def pair(bands: int, guide_bands: int, grid: Grid, batch: int = 2, size: int = 48) -> Pair:
        scene = np.stack([simulate_scene(bands, size, seed) for seed in range(batch)])
        response = SpatialResponse(gaussian_psf(grid.ratio / 2.355, grid), grid.ratio, grid.phase, "circular")
        spectral = SpectralResponse(jnp.asarray(simulate_srf(guide_bands, bands)))
        model = ObservationModel({"lr": response, "guide": spectral}, grid)
        return scene, model(jnp.asarray(scene)), model

    return pair
