from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jfusion.errors import InputError
from jfusion.inference.tiles import Tile, ahead, mosaic, spans, windows


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

    rows, columns = (spans(n, 12, 2, ratio, blend) for n in (height, width))
    reads = (tuple(slice(w.start * ratio, w.stop * ratio) for w in pair) for pair in windows(rows, columns))
    product, valid, covered = np.zeros_like(whole), np.zeros_like(seen), np.zeros(seen.shape, int)
    for row, column, part in mosaic(rows, columns, ratio, (Tile(whole[read], seen[read]) for read in reads)):
        place = np.s_[row : row + part.valid.shape[0], column : column + part.valid.shape[1]]
        product[place], valid[place] = part
        covered[place] += 1
    assert (covered == 1).all()
    np.testing.assert_allclose(product, whole, atol=1e-5)
    np.testing.assert_array_equal(valid, seen)


def test_items_made_ahead_keep_their_order_and_errors() -> None:
    def items() -> Iterator[int | None]:
        yield from (3, None, 1)
        raise InputError("no more")

    with ahead(items()) as made:
        assert [next(made) for _ in range(3)] == [3, None, 1]
        with pytest.raises(InputError, match="no more"):
            next(made)
    with ahead(()) as made:
        assert list(made) == []


@pytest.mark.parametrize("used", [0, 1])
def test_one_item_is_made_ahead(used: int) -> None:
    made = []
    with ahead(made.append(k) or k for k in range(9)) as items:
        assert [next(items) for _ in range(used)] == list(range(used))
    assert len(made) == used + 1
