"""Kernels of a protocol that are cut off, against sums written out in numpy."""

import numpy as np
import pytest

from jfusion.data.simulate import Protocol
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
