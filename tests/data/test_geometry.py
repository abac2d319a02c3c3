import numpy as np
import pytest
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st

from jfusion.data.geometry import pair_grid
from jfusion.data.scene import Scene
from jfusion.errors import InputError
from jfusion.operators import Grid

NORTH_UP = Affine(1, 0, 0, 0, -1, 0)


def image(height, width, transform=None, name="guide", crs="EPSG:32632"):
    return Scene(np.zeros((height, width, 1), np.uint8), name=name, transform=transform, crs=transform and crs)


def pair(shift=(0.0, 0.0), ratio=4.0, lr_size=(6, 5), guide_size=(24, 20), lr_crs="EPSG:32632", turn=NORTH_UP):
    """A guide of 1 m pixels and an LR image whose corner lies `shift` (rows, columns) guide pixels from the guide's."""
    lr_transform = NORTH_UP @ Affine.translation(shift[1], shift[0]) @ Affine.scale(ratio) @ ~NORTH_UP @ turn
    return image(*lr_size, lr_transform, "lr", lr_crs), image(*guide_size, NORTH_UP)


@pytest.mark.parametrize(
    ("shift", "lr_window", "guide_window", "centre"),
    [
        ((0, 0), (0, 6, 0, 5), (0, 24, 0, 20), (1.5, 1.5)),
        ((0.25, -0.25), (0, 6, 0, 5), (0, 24, 0, 20), (1.75, 1.25)),
        ((0.5, -0.5), (0, 6, 0, 5), (0, 24, 0, 20), (2.0, 1.0)),
        ((8, 4), (0, 4, 0, 4), (8, 24, 4, 20), (1.5, 1.5)),
        ((-4, -2), (1, 6, 1, 5), (0, 20, 2, 18), (1.5, 1.5)),
        ((-9.75, 0), (3, 6, 0, 5), (2, 14, 0, 20), (1.75, 1.5)),
    ],
)
def test_windows_and_centre(shift, lr_window, guide_window, centre):
    found = pair_grid(*pair(shift))
    assert found.ratio == 4
    assert found.lr_window == (slice(*lr_window[:2]), slice(*lr_window[2:]))
    assert found.guide_window == (slice(*guide_window[:2]), slice(*guide_window[2:]))
    assert found.centre == pytest.approx(centre)
    assert found.georeferenced


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 6), st.floats(-20, 20), st.floats(-20, 20), st.integers(1, 12), st.integers(1, 40), st.booleans())
def test_cropped_pair_is_consistent_with_its_transforms(ratio, row, col, lr_size, guide_size, rotated):
    lr, guide = pair((row, col), ratio, (lr_size, lr_size), (guide_size, guide_size))
    if rotated:
        turn = Affine.rotation(30)
        lr = image(lr_size, lr_size, turn @ lr.transform, "lr")
        guide = image(guide_size, guide_size, turn @ guide.transform)
    try:
        found = pair_grid(lr, guide)
    except InputError as error:
        assert "no low-resolution pixel in common" in str(error)  # noqa: PT017
        return
    part, block = found.crop(lr, guide)
    assert (block.height, block.width) == (ratio * part.height, ratio * part.width)
    x, y = ~block.transform @ (part.transform @ (0.5, 0.5))
    assert found.centre == pytest.approx((y - 0.5, x - 0.5), abs=1e-4)
    assert max(abs(offset) for offset in found.offset) * ratio <= 0.5 + 1e-4
    assert Grid(found.ratio, found.centre).centre == found.centre


def test_landsat_centres_coincide():
    pan = image(82, 82, Affine(15, 0, 483277.5, 0, -15, 5628517.5))
    ms = image(41, 41, Affine(30, 0, 483285.0, 0, -30, 5628525.0))
    found = pair_grid(ms, pan)
    assert found.centre == (0.0, 1.0)
    assert "ratio 2, 41 x 41" in str(found)
    assert "-0.250 rows, +0.250 columns" in str(found)


def test_without_georeference_shapes_decide():
    found = pair_grid(image(3, 4), image(9, 12))
    assert (found.ratio, found.centre, found.georeferenced) == (3, (1.0, 1.0), False)


def test_equal_systems_written_differently_are_one():
    from rasterio.crs import CRS

    lr, guide = pair(lr_crs=CRS.from_epsg(32632).to_wkt())
    assert pair_grid(lr, guide).ratio == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"lr_crs": "EPSG:32633"}, r"EPSG:32633 .* EPSG:32632; warp"),
        ({"lr_crs": None}, "does not say its coordinate reference system.*-a_srs"),
        ({"ratio": 3.97}, "integer number of pixels .* 3.97"),
        ({"ratio": 0.5}, "finer image.* swap"),
        ({"ratio": 4.2}, "4.2"),
        ({"shift": (1000, 0)}, "no low-resolution pixel in common"),
        ({"shift": (0, -30)}, "no low-resolution pixel in common"),
        ({"turn": NORTH_UP @ Affine.scale(1, -1)}, "row axis"),
        ({"turn": NORTH_UP @ Affine.scale(-1, 1)}, "column axis"),
        ({"turn": NORTH_UP @ Affine.scale(1, 1.5)}, "6 for rows and 4 for columns"),
        ({"turn": Affine.rotation(5) @ NORTH_UP}, "rotated"),
        ({"turn": Affine.rotation(90) @ NORTH_UP}, "rotated"),
        ({"turn": NORTH_UP @ Affine.shear(10, 0)}, "sheared"),
    ],
)
def test_each_misfit_has_its_own_message(arguments, message):
    with pytest.raises(InputError, match=message):
        pair_grid(*pair(**arguments))


@pytest.mark.parametrize(
    ("lr", "guide", "message"),
    [
        (image(3, 4), image(9, 13), "integer multiple"),
        (image(9, 12), image(3, 4), "integer multiple"),
        (image(3, 4), image(9, 12, NORTH_UP), "georeferenced and .* is not"),
        (image(3, 4, NORTH_UP), image(9, 12), "georeferenced and .* is not"),
        (image(3, 4, NORTH_UP), image(9, 12, Affine.scale(0)), "degenerate"),
    ],
)
def test_incomplete_georeference(lr, guide, message):
    with pytest.raises(InputError, match=message):
        pair_grid(lr, guide)
