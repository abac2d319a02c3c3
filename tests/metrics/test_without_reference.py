"""QNR, HQNR and consistency.

sewar's D_lambda and D_s serve as oracles of how the indices are combined, with Q over distinct blocks in the place of
sewar's own ``uqi`` (see test_quality_indices.py).
"""

import numpy as np
import pytest
import sewar.no_ref
import sewar.utils
from scipy import ndimage

from jfusion.errors import InputError
from jfusion.metrics import consistency, d_lambda, d_lambda_k, d_s, hqnr, q2n, qnr

RATIO, BLOCK = 4, 16


def scene(seed=0, guide_bands=1):
    """Product, lr, guide and guide_lr with blocks of 16 pixels, 48 x 32 pixels."""
    rng = np.random.default_rng(seed)
    lr = (0.5 + 0.1 * np.cumsum(rng.standard_normal((12, 8, 3)), 0)).astype(np.float32)
    guide_lr = (lr @ rng.dirichlet(np.ones(3), guide_bands).T).astype(np.float32)
    product, guide = (np.kron(image, np.ones((RATIO, RATIO, 1), np.float32)) for image in (lr, guide_lr))
    noisy = product + 0.1 * rng.standard_normal(product.shape).astype(np.float32)
    return noisy, lr, guide + 0.05 * rng.standard_normal(guide.shape).astype(np.float32), guide_lr


X, LR, P, P_LR = scene()


def block_quality(a, b):
    """Wang and Bovik's Q, mean over distinct blocks of one band."""
    size = BLOCK if a.shape[0] == X.shape[0] else BLOCK // RATIO
    values = []
    for i in range(0, a.shape[0], size):
        for j in range(0, a.shape[1], size):
            u, v = (image[i : i + size, j : j + size].astype(float).ravel() for image in (a, b))
            c = np.cov(u, v)
            values.append(4 * c[0, 1] * u.mean() * v.mean() / np.trace(c) / (u.mean() ** 2 + v.mean() ** 2))
    return np.mean(values)


@pytest.mark.parametrize("lr", [LR, np.kron(LR, np.ones((RATIO, RATIO, 1)))], ids=["own grid", "interpolated"])
def test_d_lambda_agrees_with_sewar(monkeypatch, lr):
    monkeypatch.setattr(sewar.no_ref, "uqi", block_quality)
    assert d_lambda(X, lr, block=BLOCK) == pytest.approx(sewar.no_ref.d_lambda(lr, X), rel=1e-4)


def test_d_s_agrees_with_sewar(monkeypatch):
    monkeypatch.setattr(sewar.no_ref, "uqi", block_quality)
    guide = P[..., 0].astype(float)
    blurred = ndimage.uniform_filter(guide, 7)
    guide_lr = sewar.utils.imresize(blurred, (guide.shape[1] // RATIO, guide.shape[0] // RATIO))[..., None]
    expected = sewar.no_ref.d_s(guide, LR, X, r=RATIO)
    assert d_s(X, LR, P, guide_lr.astype(np.float32), block=BLOCK) == pytest.approx(expected, rel=1e-4)


def test_replicated_pixels_have_no_distortion():
    product, guide = (np.kron(image, np.ones((RATIO, RATIO, 1), np.float32)) for image in (LR, P_LR))
    assert d_lambda(product, LR, block=BLOCK) == pytest.approx(0, abs=1e-5)
    assert d_s(product, LR, guide, P_LR, block=BLOCK) == pytest.approx(0, abs=1e-5)
    assert d_lambda_k(LR, LR, block=4) == pytest.approx(0, abs=1e-5)
    assert hqnr(product, LR, guide, P_LR, LR, block=BLOCK) == pytest.approx(1, abs=1e-5)


def test_products_of_distortions():
    degraded = LR + 0.05 * P_LR
    spatial = 1 - d_s(X, LR, P, P_LR, block=BLOCK)
    assert qnr(X, LR, P, P_LR, block=BLOCK) == pytest.approx(float((1 - d_lambda(X, LR, block=BLOCK)) * spatial))
    assert hqnr(X, LR, P, P_LR, degraded, block=BLOCK) == pytest.approx(float(q2n(degraded, LR, block=BLOCK) * spatial))


def test_a_guide_of_several_bands_is_averaged():
    x, lr, guide, guide_lr = scene(guide_bands=2)
    single = [d_s(x, lr, guide[..., b : b + 1], guide_lr[..., b : b + 1], block=BLOCK) for b in range(2)]
    assert d_s(x, lr, guide, guide_lr, block=BLOCK) == pytest.approx(float(np.mean(single)), rel=1e-5)


def test_pixels_that_fill_no_block_are_left_out():
    cut = X[:44], LR[:11], P[:44], P_LR[:11]
    assert qnr(*cut, block=BLOCK) == pytest.approx(float(qnr(X[:32], LR[:8], P[:32], P_LR[:8], block=BLOCK)))


def test_batch_equals_one_by_one():
    other = scene(seed=1)
    batch = qnr(*(np.stack(pair) for pair in zip((X, LR, P, P_LR), other, strict=True)), block=BLOCK)
    one_by_one = [qnr(X, LR, P, P_LR, block=BLOCK), qnr(*other, block=BLOCK)]
    np.testing.assert_allclose(batch, one_by_one, rtol=1e-5)


def test_blocks_with_an_invalid_pixel_do_not_count():
    mask = np.ones((48, 32), bool)
    mask[40, :] = False
    x, p = X.copy(), P.copy()
    lr, p_lr = LR.copy(), P_LR.copy()
    x[40], p[40], lr[10], p_lr[10] = np.nan, np.nan, np.nan, np.nan
    top = X[:32], LR[:8], P[:32], P_LR[:8]
    assert qnr(x, lr, p, p_lr, block=BLOCK, mask=mask) == pytest.approx(float(qnr(*top, block=BLOCK)), rel=1e-5)
    expected = d_lambda_k(X[:32:RATIO, ::RATIO], LR[:8], block=4)
    mask_lr = mask.reshape(12, RATIO, 8, RATIO).all((1, 3))
    for grid in (mask, mask_lr):
        assert d_lambda_k(x[::RATIO, ::RATIO], lr, block=4, mask=grid) == pytest.approx(float(expected), rel=1e-5)
    assert np.isnan(qnr(X, LR, P, P_LR, block=BLOCK, mask=np.zeros_like(mask)))


def test_a_nan_is_never_swallowed():
    x = X.copy()
    x[3, 3, 1] = np.nan
    assert np.isnan(d_lambda(x, LR, block=BLOCK))
    assert np.isnan(d_s(x, LR, P, P_LR, block=BLOCK))


def test_consistency_is_the_relative_residual():
    residuals = consistency({"lr": LR, "guide": P}, {"lr": 1.1 * LR})
    assert residuals.keys() == {"lr"}
    assert residuals["lr"] == pytest.approx(0.1, rel=1e-4)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: d_lambda(X, LR[:11], block=BLOCK), "one multiple of those of lr"),
        (lambda: d_lambda(X, LR[..., :2], block=BLOCK), "same two or more bands, but have 3 and 2"),
        (lambda: d_lambda(X[..., :1], LR[..., :1], block=BLOCK), "two or more bands"),
        (lambda: d_lambda(X, LR, block=64), "does not fit an image of 48 x 32"),
        (lambda: d_lambda(X, LR, block=18), "multiple of the ratio 4 and larger than it, but is 18; use 16"),
        (lambda: d_lambda(X, LR, block=BLOCK, mask=np.ones((12, 8), bool)), r"boolean of shape \(48, 32\)"),
        (lambda: d_s(X, LR, P, P, block=BLOCK), "guide and guide_lr"),
        (lambda: d_s(X, LR, P_LR, P_LR, block=BLOCK), "product and guide must have"),
        (lambda: d_lambda_k(LR, LR, block=4, mask=np.ones((13, 8), bool)), "does not divide"),
        (lambda: consistency({"lr": LR}, {"guide": P}), "'guide' is predicted but was not observed"),
        (lambda: consistency({"lr": LR}, {"lr": X}), "observed shape"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(InputError, match=message):
        call()
