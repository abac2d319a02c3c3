"""Kernels of a protocol that are cut off, against sums written out in numpy."""

import numpy as np
import pytest

from jfusion.data.simulate import Protocol, cut, cut_off, simulate, unexplained
from jfusion.errors import InputError
from jfusion.operators.psf import FWHM_PER_SIGMA


def gaussian(sigma: float, taps: int) -> np.ndarray:
    """A symmetric kernel ``(taps, taps)`` that sums to one."""
    profile = np.exp(-0.5 * ((np.arange(taps) - (taps - 1) / 2) / sigma) ** 2)
    kernel = np.outer(profile, profile)
    return kernel / kernel.sum()


@pytest.mark.parametrize(
    ("ratio", "sigma", "taps", "centre", "first"),
    [(8, 2.0, 8, None, 0), (8, 2.0, 8, (4.5, 4.5), 1), (4, 0.5, 3, (1.0, 1.0), 0), (5, 2.1, 5, None, 0),
     (16, 9.0, 24, None, -4)],
)  # fmt: skip
def test_a_kernel_with_taps_is_a_weighted_sum(ratio, sigma, taps, centre, first):
    image = np.random.default_rng(0).random((1, 3 * ratio, 3 * ratio, 2), np.float32)
    protocol = Protocol(ratio=ratio, width=sigma * FWHM_PER_SIGMA / ratio, taps=taps, centre=centre)
    top = ratio + first
    window = image[0, top : top + taps, top : top + taps]
    expected = np.einsum("ij,ijc->c", gaussian(sigma, taps), window)
    np.testing.assert_allclose(protocol.spatial(image)[0, 1, 1], expected, rtol=1e-5)


def test_taps_are_kept_in_the_file():
    protocol = Protocol(ratio=32, kernel="mtf", width=0.3, taps=32)
    assert Protocol.from_dict(protocol.to_dict()) == protocol
    assert [len(profile) for profile in protocol.psf] == [32, 32]


@pytest.mark.parametrize(("kernel", "taps"), [("gaussian", 0), ("box", 4)])
def test_taps_that_mean_nothing_are_refused(kernel, taps):
    with pytest.raises(InputError, match="taps must be a positive number"):
        Protocol(ratio=4, kernel=kernel, taps=taps)


def test_a_region_that_is_cut_off_has_seen_nothing_outside_and_keeps_its_noise() -> None:
    """So the model explains the region alone up to the very noise that the whole has there."""
    image = np.random.default_rng(0).random((24, 24, 3), np.float32)
    protocol = Protocol(ratio=2, guide_bands=("B2",), lr_snr_db=30, seed=4)
    whole = simulate(image, np.array([480.0, 560.0, 655.0]), protocol)
    region = (4, 20, 0, 14)
    noise = unexplained(cut_off(whole, region))
    np.testing.assert_allclose(noise, unexplained(whole)[:, 2:10, 0:7], atol=1e-6)
    outside = unexplained(cut(whole, region)) - noise
    np.testing.assert_allclose(outside[:, 3:5, 3:4], 0, atol=1e-6)
    assert np.abs(outside[:, 0]).mean() > 1e-2
