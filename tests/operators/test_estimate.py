"""Blind estimation on simulated pairs whose responses are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from scipy.optimize import nnls

from jfusion.errors import InputError
from jfusion.operators import Grid, ObservationModel, SpatialResponse, SpectralResponse, gaussian_psf, psf_kernel
from jfusion.operators.estimate import PSF_SMOOTHNESS, _nonnegative, estimate

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


@pytest.mark.parametrize("noise", [None, (25, 40)])
def test_held_out_rows_choose_the_smoothness(noise):
    """Neither the roughest nor the smoothest PSF is far better, and the wrong one of them is far worse."""
    observation, model = simulate(2, (1.0, 0.0), noise=noise)
    blind = unknown(model, "lr")

    def missed(smoothness):
        psf = estimate(observation, blind, smoothness=(1e-9, smoothness)).model["lr"].psf
        return error(psf, embedded(model["lr"].psf, len(psf)))

    chosen, ends = missed(None), sorted((missed(PSF_SMOOTHNESS[0]), missed(PSF_SMOOTHNESS[-1])))
    assert chosen < max(1.2 * ends[0], 0.005)  # without noise, rounding chooses among those that are as good as exact
    assert chosen < 0.7 * ends[1]


@pytest.mark.parametrize(("ratio", "centre"), [(2, (1.0, 0.0)), (3, (1.0, 1.0)), (4, (1.5, 1.75))])
def test_recovers_both_responses(ratio, centre):
    for noise, psf_error, srf_error, explained in ((None, 0.05, 0.01, 0.999), ((35, 40), 0.15, 0.15, 0.98)):
        observation, model = simulate(ratio, centre, noise=noise)
        found = estimate(observation, unknown(model, "lr", "guide"))
        psf, srf = found.model["lr"].psf, found.model["guide"].srf
        assert psf.shape == (4 * ratio + 1,) * 2
        assert float(psf.sum()) == pytest.approx(1, abs=1e-5)
        assert error(psf, embedded(model["lr"].psf, len(psf))) < psf_error
        assert error(srf, SRF) < srf_error
        np.testing.assert_allclose(centroid(psf), model.grid.shift, atol=0.06)
        assert np.all(found.r_squared > explained)
        assert found.model.grid == model.grid
        assert np.all(srf >= 0)
        assert np.all(psf >= 0)


def test_a_psf_of_many_pixels_has_fewer_unknowns():
    observation, model = simulate(8, (3.5, 4.0), size=(16, 14), noise=(35, 40))
    found = estimate(observation, unknown(model, "lr", "guide"))
    psf = found.model["lr"].psf
    assert psf.shape == (33, 33)
    assert error(psf, embedded(model["lr"].psf, len(psf))) < 0.2
    np.testing.assert_allclose(psf[1:-1:2], (psf[:-2:2] + psf[2::2]) / 2, atol=1e-6)
    assert error(found.model["guide"].srf, SRF) < 0.25
    assert np.all(psf >= 0)


def test_psf_carries_a_shift_that_the_grid_does_not_know():
    observation, model = simulate(3, (1.0, 1.0), move=(0.6, -0.8))
    found = estimate(observation, unknown(model, "lr", "guide"))
    np.testing.assert_allclose(centroid(found.model["lr"].psf), (0.6, -0.8), atol=0.06)
    assert error(found.model["guide"].srf, SRF) < 0.05


def test_scales_gains_and_offsets_of_the_instruments():
    observation, model = simulate(2, (1.0, 0.0))
    nothing = unknown(model, "lr", "guide")
    plain = estimate(observation, nothing).model
    counts = estimate({k: 8192 * v for k, v in observation.items()}, nothing).model
    np.testing.assert_allclose(counts["guide"].srf, plain["guide"].srf, atol=1e-4)
    np.testing.assert_allclose(counts["lr"].psf, plain["lr"].psf, atol=1e-4)
    gain = jnp.asarray([3.0, 0.2])
    louder = estimate({**observation, "guide": observation["guide"] * gain}, nothing).model
    np.testing.assert_allclose(louder["guide"].srf, plain["guide"].srf * gain[:, None], atol=3e-3)
    np.testing.assert_allclose(louder["lr"].psf, plain["lr"].psf, atol=3e-3)
    hazy = estimate({**observation, "guide": observation["guide"] + 0.05}, nothing)
    np.testing.assert_allclose(hazy.model["lr"].psf, plain["lr"].psf, atol=2e-2)


def test_images_that_have_nothing_in_common_have_responses():
    rng = np.random.default_rng(0)
    observation = {key: jnp.asarray(rng.random(shape), jnp.float32) for key, shape in
                   (("lr", (1, 72, 72, 3)), ("guide", (1, 144, 144, 1)))}  # fmt: skip
    found = estimate(observation, ObservationModel({"lr": None, "guide": None}, Grid.nested(2)))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((found.model, found.residual)))
    assert found.r_squared[0] < 0.1


def test_what_is_known_is_kept_and_the_rest_is_found():
    observation, model = simulate(2, (1.0, 0.0))
    spatial = estimate(observation, unknown(model, "lr"), boundary="circular").model
    assert spatial["guide"] is model["guide"]
    assert spatial["lr"].boundary == "circular"
    assert error(spatial["lr"].psf, embedded(model["lr"].psf, 9)) < 0.05
    spectral = estimate(observation, unknown(model, "guide")).model
    assert spectral["lr"] is model["lr"]
    assert error(spectral["guide"].srf, SRF) < 0.01
    kernel = psf_kernel(model["lr"].psf)[..., None] * jnp.linspace(0.9, 1.1, BANDS)
    banded = ObservationModel({"lr": SpatialResponse(kernel, 2, (1, 0)), "guide": None}, model.grid)
    np.testing.assert_allclose(estimate(observation, banded).model["guide"].srf, spectral["guide"].srf, atol=2e-3)


def test_quality_of_a_known_model_is_measured_away_from_the_border():
    observation, model = simulate(2, (1.0, 0.0))
    observation["guide"] = observation["guide"].at[..., 1].set(observation["guide"][..., ::-1, 1])
    found = estimate(observation, model)
    inside = (slice(None), slice(2, -2), slice(2, -2))
    seen, predicted = (v[inside] for v in (model["lr"](observation["guide"]), model["guide"](observation["lr"])))
    for band in range(2):
        s, p = np.asarray(seen[..., band], np.float64), np.asarray(predicted[..., band], np.float64)
        misfit = np.linalg.norm(p - s)
        assert float(found.residual[band]) == pytest.approx(misfit / np.linalg.norm(s), rel=1e-3, abs=1e-5)
        unexplained = misfit**2 / np.sum((s - s.mean()) ** 2)
        assert float(found.r_squared[band]) == pytest.approx(1 - unexplained, abs=1e-4)
    assert found.residual[0] < 1e-3
    assert found.r_squared[1] < 0.5


def test_support_keeps_bands_out():
    observation, model = simulate(2, (1.0, 0.0))
    support = np.ones((2, BANDS), bool)
    support[0, 3:] = False
    srf = estimate(observation, unknown(model, "lr", "guide"), support=support).model["guide"].srf
    assert not np.any(srf[0, 3:])
    assert error(srf[1], SRF[1]) < 0.1


def test_nonnegative_least_squares_equals_scipy():
    rng = np.random.default_rng(0)
    a, y = rng.standard_normal((30, 10)), rng.standard_normal((30, 4))
    found = _nonnegative(jnp.asarray(a.T @ a, jnp.float32), jnp.asarray(a.T @ y, jnp.float32), jnp.ones((10, 4), bool))
    expected = np.stack([nnls(a, column)[0] for column in y.T], 1)
    assert 0 < np.count_nonzero(expected) < expected.size
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_mistakes_are_named():
    observation, model = simulate(2, (1.0, 0.0), size=(8, 8))
    nothing = unknown(model, "lr", "guide")
    with pytest.raises(InputError, match="crop both"):
        estimate({**observation, "guide": observation["guide"][:, 1:]}, nothing)
    with pytest.raises(InputError, match="odd"):
        estimate(observation, nothing, size=4)
    with pytest.raises(InputError, match="at least 12 x 12"):
        estimate(observation, nothing, size=17)
    with pytest.raises(InputError, match="support must be"):
        estimate(observation, nothing, support=np.ones((BANDS, 2), bool))
    with pytest.raises(InputError, match="circular or reflect"):
        estimate(observation, nothing, boundary="valid")


def test_pixels_that_are_not_valid_are_not_fitted():
    """A third of lr copies its last valid row, as nodata is filled."""
    observation, model = simulate(2, (1.0, 0.0))
    blind, valid = unknown(model, "lr", "guide"), np.ones(observation["lr"].shape[1:3], bool)
    valid[15:] = False
    filled = {**observation, "lr": observation["lr"].at[:, 15:].set(observation["lr"][:, 14:15])}

    def missed(**options):
        found = estimate(filled, blind, **options)
        return error(found.model["lr"].psf, embedded(model["lr"].psf, 9)), float(found.r_squared.min())

    (wrong, explained), (right, among_valid) = missed(), missed(valid=valid)
    assert wrong > 0.3 > 4 * right
    assert explained < 0.9
    assert among_valid > 0.998
    with pytest.raises(InputError, match="at least 16 pixels"):
        estimate(filled, blind, valid=np.zeros_like(valid))
    with pytest.raises(InputError, match="valid must be"):
        estimate(filled, blind, valid=valid[1:])
