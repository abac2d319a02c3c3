"""Blind estimation on simulated pairs whose responses are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from scipy.optimize import nnls

from jfusion.errors import InputError
from jfusion.operators import Grid, ObservationModel, SpatialResponse, SpectralResponse, gaussian_psf, psf_kernel
from jfusion.operators.estimate import _nonnegative, estimate

BANDS = 8
SRF = np.zeros((2, BANDS))
SRF[0, 1:5] = [0.1, 0.4, 0.4, 0.1]
SRF[1, 4:7] = [0.3, 0.4, 0.3]
SIGMA = 0.45


def scene(height, width):
    """Fine textures of eight components with smooth spectra: no band is a mixture of the others."""
    rng = np.random.default_rng(0)
    textures = sum(gaussian_filter(rng.standard_normal((height, width, BANDS)), (s, s, 0)) * s for s in (0.7, 2, 6))
    spectra = gaussian_filter(rng.standard_normal((BANDS, BANDS)), (0, 0.7))
    return jnp.asarray(0.4 + 0.1 * textures @ spectra, jnp.float32)[None]


def simulate(ratio, centre, size=(24, 22), noise=None, move=(0.0, 0.0)):
    """A pair cropped from a larger scene, so that no boundary rule holds, with its true model."""
    grid = Grid(ratio, centre)
    large = scene(*(ratio * (n + 8) for n in size))
    actual = Grid(ratio, (centre[0] + move[0], centre[1] + move[1]))
    blur = SpatialResponse(gaussian_psf(SIGMA * ratio, actual), ratio, actual.phase, "circular")
    guide = SpectralResponse(jnp.asarray(SRF, jnp.float32))
    observation = {
        "lr": blur(large)[:, 4:-4, 4:-4],
        "guide": guide(large)[:, 4 * ratio : -4 * ratio, 4 * ratio : -4 * ratio],
    }
    for key, decibel in zip(observation, noise or (), strict=False):
        clean = observation[key]
        deviation = jnp.sqrt(jnp.mean(clean**2) / 10 ** (decibel / 10))
        observation[key] = clean + deviation * jax.random.normal(jax.random.key(decibel), clean.shape)
    return observation, ObservationModel({"lr": blur, "guide": guide}, grid)


def unknown(model, *keys):
    return model.replace(operators={**model.operators, **dict.fromkeys(keys)})


def embedded(psf, size):
    """The true kernel on the support of the estimated one, both with their origin in the middle."""
    kernel = np.asarray(psf_kernel(psf))
    canvas = np.zeros((kernel.shape[0] + size,) * 2)
    low = (canvas.shape[0] // 2) - kernel.shape[0] // 2
    canvas[low : low + kernel.shape[0], low : low + kernel.shape[1]] = kernel
    low = (canvas.shape[0] // 2) - size // 2
    return canvas[low : low + size, low : low + size]


def centroid(psf):
    """Displacement (row, column) of a kernel: positive towards larger pixel indices."""
    offset = len(psf) // 2 - np.arange(len(psf))
    return np.array([np.asarray(psf).sum(1) @ offset, np.asarray(psf).sum(0) @ offset])


def error(found, true):
    return np.linalg.norm(np.asarray(found) - true) / np.linalg.norm(true)


@pytest.mark.parametrize(
    ("ratio", "centre"), [(2, (0.5, 0.5)), (2, (1.0, 0.0)), (3, (1.0, 1.0)), (4, (1.5, 1.5)), (4, (2.0, 2.25))]
)
def test_recovers_both_responses(ratio, centre):
    for noise, psf_error, srf_error, explained in ((None, 0.1, 0.1, 0.999), ((35, 40), 0.15, 0.3, 0.97)):
        observation, model = simulate(ratio, centre, noise=noise)
        found = estimate(observation, unknown(model, "lr", "guide"))
        psf, srf = found.model["lr"].psf, found.model["guide"].srf
        print(
            ratio,
            noise,
            error(psf, embedded(model["lr"].psf, len(psf))),
            error(srf, SRF),
            found.r_squared,
            found.residual,
        )
        assert psf.shape == (4 * ratio + 1,) * 2
        assert float(psf.sum()) == pytest.approx(1, abs=1e-5)
        assert error(psf, embedded(model["lr"].psf, len(psf))) < psf_error
        assert error(srf, SRF) < srf_error
        np.testing.assert_allclose(centroid(psf), model.grid.shift, atol=0.1)
        assert np.all(found.r_squared > explained)
        assert found.model.grid == model.grid
        assert np.all(srf >= 0)
        assert np.all(psf >= 0)


def test_psf_carries_a_shift_that_the_grid_does_not_know():
    observation, model = simulate(3, (1.0, 1.0), move=(0.6, -0.8))
    found = estimate(observation, unknown(model, "lr", "guide"))
    np.testing.assert_allclose(centroid(found.model["lr"].psf), (0.6, -0.8), atol=0.1)
    assert error(found.model["guide"].srf, SRF) < 0.1
