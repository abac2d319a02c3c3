import numpy as np
import pytest
from affine import Affine

from jfusion.data.scene import Scene
from jfusion.errors import InputError


def scene(**changes):
    image = np.arange(4 * 5 * 4, dtype=np.uint16).reshape(4, 5, 4)
    known = {
        "wavelengths": np.array([480.0, 560.0, 660.0, 830.0]),
        "band_names": ("Blue", "Green", "Red", "NIR"),
        "transform": Affine(10, 0, 500, 0, -10, 900),
        "crs": "EPSG:32632",
        "scale": np.array([1.0, 2.0, 3.0, 4.0]),
        "offset": -1.0,
    }
    return Scene(image, **(known | changes))


def test_crop_keeps_every_pixel_where_it_was():
    mask = np.ones((4, 5), bool)
    mask[2, 3] = False
    whole = scene(mask=mask)
    part = whole.crop(slice(1, None), slice(2, -1))
    assert part.image.shape == (3, 2, 4)
    assert part.transform @ (0, 0) == whole.transform @ (2, 1)
    np.testing.assert_array_equal(part.image, whole.image[1:, 2:-1])
    assert not part.mask[1, 1]


def test_physical_applies_scale_and_offset_and_zeroes_the_invalid():
    mask = np.ones((4, 5), bool)
    mask[0, 0] = False
    values = scene(mask=mask).physical()
    assert values.dtype == np.float32
    assert np.all(values[0, 0] == 0)
    np.testing.assert_allclose(values[1, 2], np.array([28, 29, 30, 31]) * [1, 2, 3, 4] - 1)
    np.testing.assert_allclose(scene().digital(scene().physical()), scene().image)


def test_select_by_index_name_and_wavelength():
    chosen = scene().select(["Red", 0, 825.0])
    assert chosen.band_names == ("Red", "Blue", "NIR")
    np.testing.assert_array_equal(chosen.scale, [3, 1, 4])
    np.testing.assert_array_equal(chosen.image, scene().image[..., [2, 0, 3]])
    assert scene(scale=2.0).select([-1]).scale == 2.0


@pytest.mark.parametrize(
    ("changes", "bands"),
    [
        ({}, (2, 1, 0)),
        ({"wavelengths": None}, (2, 1, 0)),
        ({"wavelengths": None, "band_names": None}, (2, 1, 0)),
        ({"wavelengths": None, "band_names": None, "colours": ("red", "green", "blue", "nir")}, (0, 1, 2)),
        ({"wavelengths": np.array([2200.0, 1600.0, 865.0, 1240.0])}, (0, 3, 2)),
        ({"wavelengths": np.array([np.nan, 660.0, 555.0, 480.0])}, (1, 2, 3)),
        ({"wavelengths": np.full(4, np.nan)}, (2, 1, 0)),
    ],
)
def test_bands_to_show(changes, bands):
    assert scene(**changes).rgb_bands() == bands


def test_quicklook_is_a_picture_in_html():
    page = scene()._repr_html_()
    assert "data:image/png;base64," in page
    assert "4 x 5 x 4" in page
    assert scene(name="<b>")._repr_html_().count("<b>") == 0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Scene(np.zeros((3, 3))), "height, width, band"),
        (lambda: Scene(np.zeros((0, 3, 1))), "at least one pixel"),
        (lambda: scene(wavelengths=np.array([1.0])), "wavelengths"),
        (lambda: scene(mask=np.ones((4, 4), bool)), "mask"),
        (lambda: scene(scale=np.ones(3)), "scale"),
        (lambda: scene().select(["Yellow"]), "Yellow"),
        (lambda: scene().select([4]), "count from 0"),
        (lambda: scene().select([1200.0]), "nearest is 830"),
        (lambda: scene().select([]), "at least one"),
        (lambda: scene(wavelengths=None).select([660.0]), "no wavelengths"),
        (lambda: scene().crop(slice(3, 3), slice(None)), "no pixel"),
        (lambda: scene().crop(slice(None, None, 2), slice(None)), "step"),
    ],
)
def test_what_does_not_fit_is_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()
