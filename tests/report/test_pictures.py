"""Pictures: what they show can be read back from their pixels."""

import io

import numpy as np
import pytest
from PIL import Image

from jfusion.errors import InputError
from jfusion.report.pictures import (
    NO_DATA,
    Stretch,
    busiest_window,
    common_limit,
    distinct_pixels,
    enlarge,
    gradient,
    heat,
    png,
    reduce,
    regrid,
    rmse_map,
    sam_map,
)

RNG = np.random.default_rng(0)


def decoded(picture: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(picture)))


def test_stretch_is_the_references_own():
    reference = np.linspace(0, 1, 101)[:, None, None] * np.array([1.0, 2.0, 4.0])
    stretch = Stretch.of(reference, 0, 100)
    np.testing.assert_array_equal(stretch(0.5 * reference), np.rint(127.5 * reference / [1, 2, 4]))
    assert stretch(10 * reference).max() == 255
    assert stretch(reference - 10).max() == 0


def test_stretch_leaves_out_the_tails():
    values = np.arange(101.0).reshape(101, 1, 1)
    levels = Stretch.of(values)(values).ravel()
    assert (levels == 0).sum() == 3
    assert (levels == 255).sum() == 3


@pytest.mark.parametrize("value", [0.0, 7.0, np.nan, np.inf])
def test_images_without_contrast_or_data_are_grey(value):
    image = np.full((4, 5, 3), value)
    assert set(np.unique(Stretch.of(image)(image))) == {NO_DATA}


def test_pixels_without_data_are_grey_and_do_not_count():
    image = RNG.uniform(size=(20, 20, 3))
    holed = image.copy()
    holed[3, 4, 1] = np.nan
    assert (Stretch.of(holed)(holed)[3, 4] == NO_DATA).all()
    np.testing.assert_allclose(Stretch.of(holed).high, Stretch.of(image).high, atol=0.01)


@pytest.mark.parametrize("shape", [(3, 4), (3, 4, 1), (3, 4, 3)])
def test_png_keeps_every_pixel(shape):
    image = RNG.integers(0, 256, shape).astype(np.uint8)
    np.testing.assert_array_equal(decoded(png(image)), image[..., 0] if shape[2:] == (1,) else image)


def test_enlargement_repeats_pixels():
    image = RNG.integers(0, 256, (6, 7, 3)).astype(np.uint8)
    large = enlarge(image, (1, 4, 2, 6), 3)
    assert large.shape == (9, 12, 3)
    np.testing.assert_array_equal(large[::3, ::3], image[1:4, 2:6])
    np.testing.assert_array_equal(large[2::3, 2::3], image[1:4, 2:6])


def test_regrid_repeats_coarse_pixels():
    coarse = RNG.uniform(size=(2, 3, 4))
    np.testing.assert_array_equal(regrid(coarse, 6, 9), coarse.repeat(3, 0).repeat(3, 1))


def test_reduction_averages_blocks():
    image = np.arange(48, dtype=np.uint8).reshape(4, 12)
    assert reduce(image, 12) is image
    np.testing.assert_array_equal(reduce(image, 6), np.rint(image.reshape(2, 2, 6, 2).mean((1, 3))))


def test_error_maps_are_those_of_their_formulas():
    reference = np.array([[[3.0, 4.0], [3.0, 4.0]]])
    product = reference.copy()
    product[0, 1] = [-4.0, 3.0]
    np.testing.assert_allclose(rmse_map(product, reference), [[0, 5]])
    np.testing.assert_allclose(sam_map(product, reference), [[0, 90]], atol=1e-5)
    np.testing.assert_allclose(sam_map(7 * reference, reference), [[0, 0]], atol=1e-5)


def test_angle_to_nothing_is_undefined():
    reference = np.ones((1, 3, 4))
    product = np.stack([np.zeros(4), np.full(4, np.nan), np.full(4, np.inf)])[None]
    assert np.isnan(sam_map(product, reference)).all()


@pytest.mark.parametrize(("top", "limit"), [(0.0101, 0.012), (0.37, 0.4), (1.0, 1.0), (23.5, 24.0), (9.7, 10.0)])
def test_common_scale_ends_at_a_plain_number(top, limit):
    assert common_limit([np.full((3, 3), top), np.full((3, 3), top / 2)], 100) == pytest.approx(limit)


@pytest.mark.parametrize("values", [np.zeros((2, 2)), np.full((2, 2), np.nan)])
def test_common_scale_of_nothing(values):
    assert common_limit([values]) == 1.0


def test_maps_on_one_scale_have_equal_colours_for_equal_values():
    first = Image.open(io.BytesIO(heat(np.array([[0.0, 1.0, 2.0]]), 4.0, "magma"))).convert("RGBA")
    second = Image.open(io.BytesIO(heat(np.array([[2.0, 4.0, 9.0]]), 4.0, "magma"))).convert("RGBA")
    assert first.getpixel((2, 0)) == second.getpixel((0, 0))
    assert second.getpixel((1, 0)) == second.getpixel((2, 0))
    assert first.getpixel((0, 0)) != first.getpixel((1, 0))


def test_undefined_pixels_of_a_map_are_transparent():
    picture = Image.open(io.BytesIO(heat(np.array([[np.nan, 0.5]]), 1.0, "viridis"))).convert("RGBA")
    assert picture.getpixel((0, 0))[3] == 0
    assert picture.getpixel((1, 0))[3] == 255


def test_colour_bar_runs_from_the_maps_lowest_to_its_highest_colour():
    low, high = (
        "#{:02x}{:02x}{:02x}".format(
            *Image.open(io.BytesIO(heat(np.array([[v]]), 1.0, "viridis"))).convert("RGB").getpixel((0, 0))
        )
        for v in (0.0, 1.0)
    )
    stops = gradient("viridis").removeprefix("linear-gradient(to top,").removesuffix(")").split(",")
    assert stops[-1] == high
    assert np.abs(np.array([int(low[i : i + 2], 16) - int(stops[0][i : i + 2], 16) for i in (1, 3, 5)])).max() <= 2


def test_window_goes_where_the_detail_is():
    image = np.zeros((30, 40, 2))
    image[12:18, 25:31] = RNG.uniform(size=(6, 6, 2))
    top, bottom, left, right = busiest_window(image, 8)
    assert (bottom - top, right - left) == (8, 8)
    assert top <= 12
    assert bottom >= 18
    assert left <= 25
    assert right >= 31


def test_window_passes_over_the_edges_of_clouds():
    image = np.full((40, 60, 1), 0.1)
    image[:, 40:] = 0.1 + 0.05 * RNG.uniform(size=(40, 20, 1))
    image[::4, :20:4] = 5
    image[1::4, 1:20:4] = 9
    low, high = busiest_window(image, 12)[2:]
    assert low >= 36
    assert high <= 60


def test_window_must_fit():
    with pytest.raises(InputError, match="fit"):
        busiest_window(np.zeros((4, 9, 1)), 5)


def test_the_window_keeps_away_from_pixels_without_data():
    image = np.random.default_rng(0).random((30, 30, 2))
    image[:, :15] = np.nan
    assert busiest_window(image, 8)[2] >= 15


def test_distinct_pixels_lie_in_different_materials():
    spectra = np.eye(4) + 0.1
    labels = np.arange(12)[:, None] // 6 * 2 + np.arange(12)[None, :] // 6
    image = spectra[labels] * RNG.uniform(0.5, 1, (12, 12, 1))
    assert {labels[pixel] for pixel in distinct_pixels(image)} == {0, 1, 2, 3}


@pytest.mark.parametrize(
    "image", [np.zeros((5, 5, 3)), np.ones((5, 5, 3)), np.full((5, 5, 3), np.nan), np.ones((2, 2, 3))]
)
def test_one_pixel_where_all_are_alike(image):
    pixels = distinct_pixels(image)
    assert len(pixels) == 1
    assert all(0 <= i < n for i, n in zip(pixels[0], image.shape, strict=False))
