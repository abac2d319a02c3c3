"""Pixelwise metrics against scikit-image, sewar and scipy.

sewar's SCC is not compared: it averages local correlations over 8 x 8 windows with zeros around the image, which is
neither the paper's definition nor DLPan-Toolbox's.
"""

import numpy as np
import pytest
import sewar.full_ref
from scipy import ndimage
from skimage.metrics import peak_signal_noise_ratio

from jfusion.errors import InputError
from jfusion.metrics import cc, ergas, psnr, rmse, sam, scc
from jfusion.metrics.reference import ErgasConvention, PsnrConvention, SccConvention

METRICS = {
    "psnr": psnr,
    "band_max": lambda x, y, mask=None: psnr(x, y, convention="band_max", mask=mask),
    "image_max": lambda x, y, mask=None: psnr(x, y, convention="image_max", mask=mask),
    "ergas": lambda x, y, mask=None: ergas(x, y, ratio=4, mask=mask),
    "sam": sam,
    "cc": cc,
    "rmse": rmse,
    "scc": scc,
}


def images(shape=(20, 16, 5), seed=0):
    rng = np.random.default_rng(seed)
    reference = 0.4 + 0.3 * np.sin(np.arange(shape[-2]) / 3)[:, None] * rng.uniform(0.5, 1, shape)
    product = reference + 0.05 * rng.standard_normal(shape)
    return np.clip(product, 0.01, 1).astype(np.float32), reference.astype(np.float32)


X, Y = images()
X64, Y64 = X.astype(float), Y.astype(float)


def pearson(x, y):
    return np.mean([np.corrcoef(x[..., b].ravel(), y[..., b].ravel())[0, 1] for b in range(x.shape[-1])])


def laplacian(image):
    kernel = -np.ones((3, 3, 1))
    kernel[1, 1] = 8
    return ndimage.correlate(image, kernel)[1:-1, 1:-1]


def toolbox_edges(image):
    sobel = np.outer([1, 2, 1], [-1, 0, 1])[..., None]
    across, along = (
        ndimage.correlate(image[1:-1, 1:-1], kernel, mode="constant") for kernel in (sobel, np.swapaxes(sobel, 0, 1))
    )
    return np.hypot(across, along)


def toolbox_scc(x, y):
    x, y = toolbox_edges(x), toolbox_edges(y)
    return (x * y).sum() / np.sqrt((x**2).sum() * (y**2).sum())


GOLDEN = [
    (psnr(X, Y), peak_signal_noise_ratio(Y64, X64, data_range=1)),
    (psnr(X * 2047, Y * 2047, data_range=2047), sewar.full_ref.psnr(Y64, X64, MAX=1)),
    (sam(X, Y), np.rad2deg(sewar.full_ref.sam(Y64, X64))),
    (ergas(X, Y, ratio=4), sewar.full_ref.ergas(Y64, X64, r=1 / 4)),
    (rmse(X, Y), sewar.full_ref.rmse(Y64, X64)),
    (cc(X, Y), pearson(X64, Y64)),
    (scc(X, Y), pearson(laplacian(X64), laplacian(Y64))),
    (scc(X, Y, convention="toolbox"), toolbox_scc(X64, Y64)),
]


@pytest.mark.parametrize(("ours", "theirs"), GOLDEN)
def test_agrees_with_other_libraries(ours, theirs):
    assert ours == pytest.approx(theirs, rel=1e-4)


def test_conventions_of_psnr():
    mse = ((X64 - Y64) ** 2).mean((0, 1))
    eight_bit = [np.round(255 * image) for image in (X64, Y64)]
    expected = {
        "global": 10 * np.log10(1 / mse.mean()),
        "band_mean": np.mean(10 * np.log10(1 / mse)),
        "image_max": 10 * np.log10(Y64.max() ** 2 / mse.mean()),
        "band_max": np.mean(20 * np.log10(Y64.max((0, 1)) / np.sqrt(mse))),
        "dian8bit": np.mean(10 * np.log10(255**2 / ((eight_bit[0] - eight_bit[1]) ** 2).mean((0, 1)))),
    }
    assert expected.keys() == set(PsnrConvention.__args__)
    for convention, value in expected.items():
        assert psnr(X, Y, convention=convention) == pytest.approx(value, rel=1e-4), convention


def test_dian8bit_clips_scales_and_rounds():
    reference = np.full((4, 4, 2), 1000.0, np.float32)
    product = reference + 500  # above the range of 1000
    assert psnr(product, reference, data_range=1000, convention="dian8bit") == np.inf
    step = np.float32(1000 / 255)
    one_level = psnr(reference - step, reference, data_range=1000, convention="dian8bit")
    assert one_level == pytest.approx(20 * np.log10(255), rel=1e-4)


def test_conventions_of_ergas():
    mse, mean = ((X64 - Y64) ** 2).mean((0, 1)), Y64.mean((0, 1))
    wald = 100 / 6 * np.sqrt(np.mean(mse / mean**2))
    expected = {"wald": wald, "squared_ratio": wald / 6, "peng": 100 * np.sqrt(np.mean(mse / mean))}
    assert expected.keys() == set(ErgasConvention.__args__)
    for convention, value in expected.items():
        assert ergas(X, Y, ratio=6, convention=convention) == pytest.approx(value, rel=1e-4), convention


def test_ergas_doubles_when_the_ratio_is_halved():
    assert ergas(X, Y, ratio=2) == pytest.approx(2 * float(ergas(X, Y, ratio=4)))


def test_sam_ignores_the_scale_of_each_pixel():
    scale = np.random.default_rng(1).uniform(0.1, 10, (20, 16, 1)).astype(np.float32)
    assert sam(X * scale, Y) == pytest.approx(float(sam(X, Y)), rel=1e-4)


@pytest.mark.parametrize("degrees", [1e-4, 1e-2, 1.0, 90.0, 180.0])
def test_sam_measures_angles_of_any_size(degrees):
    angle = np.deg2rad(degrees)
    reference = np.broadcast_to(np.float32([3, 0]), (2, 2, 2))
    product = np.broadcast_to(np.float32([np.cos(angle), np.sin(angle)]), (2, 2, 2))
    assert sam(product, reference) == pytest.approx(degrees, rel=1e-4)


def test_identity_is_best():
    assert psnr(Y, Y) == np.inf
    for metric in (METRICS["ergas"], rmse, sam):
        assert metric(Y, Y) == 0
    for metric in (cc, scc, lambda x, y: scc(x, y, convention="toolbox")):
        assert metric(Y, Y) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
def test_batch_equals_one_by_one(metric):
    other = images(seed=1)
    one_by_one = [metric(X, Y), metric(*other)]
    batch = metric(np.stack([X, other[0]]), np.stack([Y, other[1]]))
    assert batch.shape == (2,)
    assert batch.dtype == np.float32
    np.testing.assert_allclose(batch, one_by_one, rtol=1e-5)


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
def test_a_mask_hides_what_lies_outside(metric):
    mask = np.zeros((20, 16), bool)
    mask[3:17, 2:13] = True
    product, reference = (np.where(mask[..., None], image, np.nan) for image in (X, Y))
    expected = metric(X[3:17, 2:13], Y[3:17, 2:13])
    assert metric(product, reference, mask=mask) == pytest.approx(float(expected), rel=1e-5)
    assert np.isnan(metric(X, Y, mask=np.zeros_like(mask)))


def test_toolbox_scc_leaves_out_neighbours_of_invalid_pixels():
    mask = np.ones((20, 16), bool)
    mask[8, 5] = False
    x, y = toolbox_edges(X64), toolbox_edges(Y64)
    for edges in (x, y):
        edges[6:9, 3:6] = 0  # the neighbours, in the frame without its outermost pixels
    expected = (x * y).sum() / np.sqrt((x**2).sum() * (y**2).sum())
    assert scc(X, Y, convention="toolbox", mask=mask) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
@pytest.mark.parametrize("side", [0, 1])
def test_a_nan_is_never_swallowed(metric, side):
    pair = [X.copy(), Y.copy()]
    pair[side][4, 5, 2] = np.nan
    assert np.isnan(metric(*pair))


def test_sam_leaves_out_zero_spectra():
    product, reference = X.copy(), Y.copy()
    product[0], reference[:, 0] = 0, 0
    assert sam(product, reference) == pytest.approx(float(sam(X[1:, 1:], Y[1:, 1:])), rel=1e-5)
    assert np.isnan(sam(np.zeros_like(X), Y))


def test_bands_without_signal():
    reference = Y.copy()
    reference[..., 1] = 0
    assert ergas(X, reference, ratio=4) == pytest.approx(
        float(ergas(X[..., [0, 2, 3, 4]], Y[..., [0, 2, 3, 4]], ratio=4))
    )
    assert np.isnan(ergas(X, 0 * Y, ratio=4))

    reference[..., 1] = np.float32(0.1)
    for metric in (cc, scc):
        assert metric(X, reference) == pytest.approx(float(metric(X[..., [0, 2, 3, 4]], Y[..., [0, 2, 3, 4]])))
        assert metric(0 * X + np.float32(0.1), Y) == 0
        assert np.isnan(metric(X, 0 * Y + np.float32(0.1)))


def test_integers_are_taken_as_numbers():
    x, y = (np.round(1000 * image).astype(np.uint16) for image in (X, Y))
    assert rmse(x, y) == pytest.approx(float(rmse(x.astype(np.float32), y.astype(np.float32))))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: rmse(X, Y[..., :3]), r"one shape, but are \(20, 16, 5\) and \(20, 16, 3\)"),
        (lambda: sam(X[..., 0], Y[..., 0]), "images"),
        (lambda: cc(X, Y, mask=np.ones((20, 16))), "must be boolean"),
        (lambda: cc(X, Y, mask=np.ones((16, 20), bool)), r"shape \(20, 16\)"),
        (lambda: psnr(X, Y, convention="matlab"), "one of global, band_mean"),
        (lambda: ergas(X, Y, ratio=4, convention="matlab"), "one of wald"),
        (lambda: scc(X, Y, convention="matlab"), "one of " + ", ".join(SccConvention.__args__)),
        (lambda: scc(X[:2], Y[:2]), "at least 3 x 3"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(InputError, match=message):
        call()
