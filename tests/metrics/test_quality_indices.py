"""SSIM, UIQI and Q2n against scikit-image and sewar, and against their definitions.

UIQI is SSIM with a uniform window and both constants zero, so scikit-image is its oracle. sewar's ``uqi`` is not
compared: it puts window means where the formula has window sums, and gives values near one for unrelated images.
"""

import jax
import numpy as np
import pytest
import sewar.full_ref
from skimage.metrics import structural_similarity

from jfusion.errors import InputError
from jfusion.metrics import q2n, ssim, uiqi
from jfusion.metrics.quality import cayley_dickson_signs

METRICS = {
    "wang": ssim,
    "uniform7": lambda x, y, mask=None: ssim(x, y, convention="uniform7", mask=mask),
    "uiqi": lambda x, y, mask=None: uiqi(x, y, block=7, mask=mask),
    "q2n": lambda x, y, mask=None: q2n(x, y, block=8, mask=mask),
}


def images(shape=(24, 28, 3), seed=0):
    rng = np.random.default_rng(seed)
    reference = 0.5 + 0.2 * np.sin(np.arange(shape[1]) / 3)[:, None] + 0.1 * rng.standard_normal(shape)
    product = reference + 0.05 * rng.standard_normal(shape)
    return product.astype(np.float32), reference.astype(np.float32)


X, Y = images()
X64, Y64 = X.astype(float), Y.astype(float)


@pytest.mark.parametrize(
    ("ours", "settings"),
    [
        (lambda x, y: ssim(x, y), {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}),
        (lambda x, y: ssim(x, y, convention="uniform7"), {}),
        (lambda x, y: uiqi(x, y, block=7), {"win_size": 7, "K1": 0, "K2": 0}),
    ],
)
def test_agrees_with_scikit_image(ours, settings):
    expected = structural_similarity(X64, Y64, data_range=1, channel_axis=-1, **settings)
    assert ours(X, Y) == pytest.approx(expected, rel=1e-4)


def test_ssim_scales_with_its_data_range():
    assert ssim(X * 2047, Y * 2047, data_range=2047) == pytest.approx(float(ssim(X, Y)), rel=1e-4)


@pytest.mark.parametrize("size", [8, 11])
def test_uiqi_slides_over_all_windows(size):
    x, y = X64[:12, :13, :1], Y64[:12, :13, :1]
    values = []
    for i in range(12 - size + 1):
        for j in range(13 - size + 1):
            a, b = (image[i : i + size, j : j + size].ravel() for image in (x, y))
            covariance = np.cov(a, b)
            luminance = 2 * a.mean() * b.mean() / (a.mean() ** 2 + b.mean() ** 2)
            values.append(2 * covariance[0, 1] / np.trace(covariance) * luminance)
    assert uiqi(x.astype(np.float32), y.astype(np.float32), block=size) == pytest.approx(np.mean(values), rel=1e-4)


@pytest.mark.parametrize("bands", [1, 3, 8])
def test_q2n_agrees_with_sewar(bands):
    x, y = images((20, 24, bands), seed=bands)
    x[..., 0] += 0.1
    expected = sewar.full_ref.q2n(y.astype(float), x.astype(float), ws=8)
    assert q2n(x, y, block=8) == pytest.approx(expected, rel=1e-4)


def hamilton(p, q):
    """Product of quaternions ``(..., 4)``."""
    a, b, c, d = np.moveaxis(p, -1, 0)
    e, f, g, h = np.moveaxis(q, -1, 0)
    return np.stack(
        [
            a * e - b * f - c * g - d * h,
            a * f + b * e + c * h - d * g,
            a * g - b * h + c * e + d * f,
            a * h + b * g - c * f + d * e,
        ],
        -1,
    )


def test_q4_is_the_quaternion_index():
    product, reference = images((8, 8, 4), seed=3)
    product[..., 1] += 0.2 * reference[..., 3]  # components that do not commute
    x, y = (image.reshape(-1, 4).astype(float) for image in (product, reference))
    mean, deviation = y.mean(0), y.std(0, ddof=1)
    x, y = (x - mean) / deviation + 1, (y - mean) / deviation + 1
    conjugate = np.array([1, -1, -1, -1])
    covariance = np.linalg.norm((hamilton(y, x * conjugate)).mean(0) - hamilton(y.mean(0), x.mean(0) * conjugate))
    variances = x.var(0).sum() + y.var(0).sum()
    norms = np.linalg.norm(x.mean(0)), np.linalg.norm(y.mean(0))
    expected = 2 * covariance / variances * 2 * norms[0] * norms[1] / (norms[0] ** 2 + norms[1] ** 2)
    assert q2n(product, reference, block=8) == pytest.approx(expected, rel=1e-4)


def test_hypercomplex_units():
    np.testing.assert_array_equal(cayley_dickson_signs(2), [[1, 1], [1, -1]])
    unit = np.eye(4)
    for i in range(4):
        for j in range(4):
            expected = cayley_dickson_signs(4)[i, j] * unit[i ^ j]
            np.testing.assert_array_equal(hamilton(unit[i], unit[j]), expected)
    # Octonions are not associative but alternative: (e_i e_i) e_j = e_i (e_i e_j).
    octonion = cayley_dickson_signs(8)
    i, j = np.mgrid[:8, :8]
    np.testing.assert_array_equal(octonion[i, i] * octonion[0, j], octonion[i, j] * octonion[i, i ^ j])


def test_q2n_ignores_units():
    assert q2n(X * 5000, Y * 5000, block=8) == pytest.approx(float(q2n(X, Y, block=8)), rel=1e-5)


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
def test_identity_is_one_and_nan_is_nan(metric):
    assert metric(Y, Y) == pytest.approx(1, abs=1e-5)
    for pair in ([X.copy(), Y], [X, Y.copy()]):
        pair[0 if pair[1] is Y else 1][12, 14, 1] = np.nan
        assert np.isnan(metric(*pair))


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
def test_batch_equals_one_by_one(metric):
    other = images(seed=1)
    batch = metric(np.stack([X, other[0]]), np.stack([Y, other[1]]))
    assert batch.shape == (2,)
    assert batch.dtype == np.float32
    np.testing.assert_allclose(batch, [metric(X, Y), metric(*other)], rtol=1e-5)


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
def test_windows_with_an_invalid_pixel_do_not_count(metric):
    mask = np.zeros((24, 28), bool)
    mask[:, :17] = True  # for Q2n two columns of blocks
    product, reference = (np.where(mask[..., None], image, np.nan) for image in (X, Y))
    columns = 16 if metric is METRICS["q2n"] else 17
    expected = float(metric(X[:, :columns], Y[:, :columns]))
    assert metric(product, reference, mask=mask) == pytest.approx(expected, rel=1e-5)
    mask[::4, ::4] = False
    assert np.isnan(metric(X, Y, mask=mask))


def test_constant_windows():
    flat, flatter = np.full_like(Y, 0.3), np.full_like(Y, 0.1)
    luminance = 2 * 0.3 * 0.1 / (0.3**2 + 0.1**2)
    assert uiqi(flat, flatter, block=7) == pytest.approx(luminance, rel=1e-5)
    assert uiqi(flat, Y, block=7) == pytest.approx(0, abs=1e-6)
    assert uiqi(0 * flat, 0 * flat, block=7) == 1
    assert q2n(0 * flat, 0 * flat, block=8) == 1
    assert q2n(flat, flat, block=8) == 1
    assert 0 < q2n(flat, flatter, block=8) < 1
    assert q2n(flat, Y, block=8) == pytest.approx(0, abs=1e-6)


def test_a_dead_band_does_not_spoil_q2n():
    product, reference = X.copy(), Y.copy()
    product[..., 1] = reference[..., 1] = 0
    without = q2n(X[..., [0, 2]], Y[..., [0, 2]], block=8)
    assert q2n(product, reference, block=8) == pytest.approx(float(without), abs=1e-3)


def test_float32_keeps_small_variances_of_bright_images():
    bright = [10_000 + np.round(20 * image) for image in (X64, Y64)]
    with jax.enable_x64(True):
        exact = uiqi(*bright, block=7)
        assert exact.dtype == np.float64
    assert uiqi(*(image.astype(np.float32) for image in bright), block=7) == pytest.approx(float(exact), rel=1e-3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ssim(X[:10], Y[:10]), "11 x 11 pixels does not fit an image of 10 x 28"),
        (lambda: uiqi(X, Y), "32 x 32 pixels does not fit an image of 24 x 28"),
        (lambda: q2n(X, Y, block=1), "at least 2 pixels"),
        (lambda: ssim(X, Y, convention="matlab"), "one of wang, uniform7"),
        (lambda: uiqi(X, Y[..., :2]), "one shape"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(InputError, match=message):
        call()
