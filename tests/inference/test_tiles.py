import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jfusion.errors import InputError
from jfusion.inference.tiles import mosaic, spans


@given(
    size=st.integers(1, 90), tile=st.integers(9, 40), margin=st.integers(1, 4), ratio=st.integers(1, 4),
    blend=st.booleans(),
)  # fmt: skip
def test_windows_cover_an_axis_once(size: int, tile: int, margin: int, ratio: int, blend: bool) -> None:
    total = np.zeros(size * ratio)
    windows = spans(size, tile, margin, ratio, blend)
    assert len({window.stop - window.start for window in windows}) == 1
    for window in windows:
        assert 0 <= window.start < window.stop <= size
        total[window.start * ratio : window.stop * ratio] += window.weight
        used = np.flatnonzero(window.weight > 0)
        if window.start > 0 and not blend and len(used):
            assert used[0] >= margin * ratio
    np.testing.assert_allclose(total, 1, atol=1e-5)


def test_a_tile_of_margins_only_is_refused() -> None:
    with pytest.raises(InputError, match="--tile"):
        spans(100, 8, 4, 2, False)


@given(height=st.integers(5, 40), width=st.integers(5, 40), blend=st.booleans())
def test_mosaic_of_windows_is_the_whole(height: int, width: int, blend: bool) -> None:
    ratio = 2
    whole = np.random.default_rng(0).random((height * ratio, width * ratio, 3), np.float32)
    seen = np.random.default_rng(1).random(whole.shape[:2]) > 0.1

    def crop(windows: tuple[slice, slice]) -> tuple[np.ndarray, np.ndarray]:
        rows, columns = (slice(w.start * ratio, w.stop * ratio) for w in windows)
        return whole[rows, columns], seen[rows, columns]

    rows, columns = (spans(n, 12, 2, ratio, blend) for n in (height, width))
    product, valid, next_row = [], [], 0
    for row, part, ok in mosaic(rows, columns, ratio, crop):
        assert row == next_row
        next_row += len(part)
        product.append(part)
        valid.append(ok)
    np.testing.assert_allclose(np.concatenate(product), whole, atol=1e-5)
    np.testing.assert_array_equal(np.concatenate(valid), seen)
