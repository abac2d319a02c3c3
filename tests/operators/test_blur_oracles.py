"""Blur, sampling and warp against scipy, and the forms of a PSF against each other."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage, signal

from jfusion.operators import Blur, Grid, SpatialResponse, Warp, otf, psf_kernel

SIDES = st.integers(1, 5)


def scipy_blur(x, kernel, boundary):
    """The same blur by scipy: `mode="mirror"` reflects without repeating the edge, the origin is tap size // 2."""
    if boundary == "valid":
        return signal.convolve2d(x, kernel, mode="valid")
    return ndimage.convolve(x, kernel, mode={"circular": "wrap", "reflect": "mirror"}[boundary], origin=(0, 0))


@given(rows=SIDES, columns=SIDES, boundary=st.sampled_from(["circular", "reflect", "valid"]), seed=st.integers(0, 99))
def test_blur_equals_scipy(rows, columns, boundary, seed):
    rng = np.random.default_rng(seed)
    x, kernel = rng.random((7, 9)), rng.random((rows, columns))
    y = Blur(jnp.asarray(kernel, jnp.float32), boundary)(jnp.asarray(x, jnp.float32)[..., None])
    np.testing.assert_allclose(y[..., 0], scipy_blur(x, kernel, boundary), atol=1e-5)


@given(
    ratio=st.integers(1, 3),
    phase=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    boundary=st.sampled_from(["circular", "reflect"]),
    separable=st.booleans(),
)
def test_response_is_blur_then_sampling_at_the_phase(ratio, phase, boundary, separable):
    phase = (phase[0] % ratio, phase[1] % ratio)
    rng = np.random.default_rng(ratio)
    x = rng.random((6, 12))
    profiles = tuple(jnp.asarray(rng.random(n), jnp.float32) for n in (4, 3))
    response = SpatialResponse(profiles if separable else psf_kernel(profiles), ratio, phase, boundary)
    y = response(jnp.asarray(x, jnp.float32)[..., None])[..., 0]
    expected = scipy_blur(x, np.asarray(psf_kernel(profiles)), boundary)
    np.testing.assert_allclose(y, expected[phase[0] :: ratio, phase[1] :: ratio], atol=1e-5)


@pytest.mark.parametrize("ratio", [2, 3, 4])
def test_footprints_that_are_blocks(ratio):
    rng = np.random.default_rng(ratio)
    x, kernel = rng.random((12, 24)), rng.random((ratio, ratio))
    phase = Grid.nested(ratio).phase
    y = SpatialResponse(jnp.asarray(kernel, jnp.float32), ratio, phase)(jnp.asarray(x, jnp.float32)[..., None])
    expected = scipy_blur(x, kernel, "reflect")[phase[0] :: ratio, phase[1] :: ratio]
    np.testing.assert_allclose(y[..., 0], expected, atol=1e-5)


@pytest.mark.parametrize("boundary", ["circular", "reflect", "valid"])
@pytest.mark.parametrize(("rows", "columns"), [(11, 12), (13, 13)])
def test_fourier_form_equals_scipy(boundary, rows, columns):
    rng = np.random.default_rng(0)
    x, kernel = rng.random((14, 17)), rng.random((rows, columns)) / rows / columns
    y = Blur(jnp.asarray(kernel, jnp.float32), boundary)(jnp.asarray(x, jnp.float32)[..., None])
    np.testing.assert_allclose(y[..., 0], scipy_blur(x, kernel, boundary), atol=1e-6)


@pytest.mark.parametrize("boundary", ["circular", "reflect", "valid"])
def test_psf_a_band_equals_the_bands_one_by_one(boundary):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.random((14, 17, 2)), jnp.float32)
    for rows, columns in ((3, 4), (12, 13)):  # by shifts, in the Fourier domain
        profiles = tuple(jnp.asarray(rng.random((n, 2)), jnp.float32) / n for n in (rows, columns))
        separable, joint = Blur(profiles, boundary)(x), Blur(psf_kernel(profiles), boundary)(x)
        np.testing.assert_allclose(separable, joint, atol=1e-5)
        for band in range(2):
            single = Blur(tuple(p[:, band] for p in profiles), boundary)(x[..., band : band + 1])
            np.testing.assert_allclose(separable[..., band : band + 1], single, atol=1e-6)


@pytest.mark.parametrize("rows", [1, 2, 5])
def test_circular_blur_is_a_product_with_the_otf(rows):
    rng = np.random.default_rng(0)
    x, kernel = jnp.asarray(rng.random((6, 9, 2)), jnp.float32), jnp.asarray(rng.random((rows, 4)), jnp.float32)
    spectrum = jnp.fft.rfft2(x, axes=(0, 1)) * otf(kernel, 6, 9)
    np.testing.assert_allclose(Blur(kernel, "circular")(x), jnp.fft.irfft2(spectrum, s=(6, 9), axes=(0, 1)), atol=1e-5)


def test_a_single_tap_moves_the_image_by_its_distance_from_the_origin():
    kernel = jnp.zeros((3, 4)).at[2, 0].set(1)  # origin (1, 2): one down, two left
    x = jax.random.uniform(jax.random.key(0), (5, 6, 1))
    np.testing.assert_array_equal(Blur(kernel, "circular")(x), jnp.roll(x, (1, -2), (0, 1)))


@given(shift=st.tuples(st.floats(-9, 9), st.floats(-9, 9)), seed=st.integers(0, 9))
def test_warp_equals_map_coordinates(shift, seed):
    rng = np.random.default_rng(seed)
    x = rng.random((5, 7))
    field = np.asarray(shift, np.float32) + rng.standard_normal((5, 7, 2)).astype(np.float32)
    for displacement in (np.asarray(shift, np.float32), field):
        y = Warp(jnp.asarray(displacement))(jnp.asarray(x, jnp.float32)[..., None])
        position = np.moveaxis(np.stack(np.mgrid[:5, :7], -1) + displacement, -1, 0)
        np.testing.assert_allclose(y[..., 0], ndimage.map_coordinates(x, position, order=1, mode="nearest"), atol=1e-5)


def test_warp_of_one_row_repeats_it():
    x = jnp.arange(4.0).reshape(1, 4, 1)
    np.testing.assert_allclose(Warp(jnp.asarray([3.0, 0.5]))(x).ravel(), [0.5, 1.5, 2.5, 3.0])
