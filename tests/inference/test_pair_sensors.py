"""What is made of sensors that metadata or the user name."""

import dataclasses

import numpy as np
import pytest

from jfusion import sensors
from jfusion.data.scene import Scene
from jfusion.errors import InputError
from jfusion.inference.pair import make_pair, scale_remark, sensor_bands

VNIR = np.linspace(430, 900, 24)


def scenes(bands: int, **lr) -> tuple[Scene, Scene]:
    """A pair of ratio 2 whose guide has the bands B2 and B3 of Landsat 8, or what these are called."""
    guide = Scene(np.ones((8, 8, 2), np.float32), name="guide", band_names=("B2", "B3"))
    return Scene(np.ones((4, 4, bands), np.float32), name="image", **lr), guide


@pytest.mark.parametrize(
    ("sensor", "bands", "reason"),
    [("MSI", 4, "of which there is no table"), ("worldview3", 7, "whose bands are not the 7 of the image"),
     ("sentinel2a_msi", 4, "whose bands are not the 4 of the image")],
)  # fmt: skip
def test_metadata_that_do_not_help_do_not_hinder(sensor: str, bands: int, reason: str) -> None:
    lr, guide = scenes(bands, sensor=sensor)
    pair = make_pair(lr, guide)
    assert pair.model.operators == {"lr": None, "guide": None}
    assert pair.remark == f"the sensor of image counts as not known: its metadata say {sensor}, {reason}"
    with pytest.raises(InputError, match=r"bands|There is no sensor"):
        make_pair(lr, guide, lr_sensor=sensor)


def test_bands_of_a_sensor_are_told_where_they_have_no_names() -> None:
    image = Scene(np.ones((4, 4, 3), np.float32), name="stack")
    assert sensor_bands(image, "landsat8_oli:B4, B3,B2").band_names == ("B4", "B3", "B2")
    for name, said in (
        ("landsat8_oli", "such as landsat8_oli:B1,B2"),
        ("landsat8_oli:B4,B3", "has 3 bands, but landsat8_oli:B4,B3 names 2"),
        ("landsat8_oli:B4,B3,B44", "no band 'B44'"),
        ("enmap", r"\([^,]+(, [^,]+){2}, \.\.\.\)"),
    ):
        with pytest.raises(InputError, match=said):
            sensor_bands(image, name)


def test_a_sensor_that_helps_needs_no_remark() -> None:
    lr, guide = scenes(24, wavelengths=VNIR)
    pair = make_pair(lr, guide, guide_sensor="landsat8_oli")
    assert pair.model.operators["guide"] is not None
    assert pair.remark == ""


def test_a_sensor_that_was_named_gives_the_names_and_wavelengths_that_a_file_lacks() -> None:
    enmap = sensors.get("enmap")
    lr, guide = scenes(len(enmap.bands))
    pair = make_pair(lr, guide, lr_sensor="enmap", guide_sensor="landsat8_oli")
    known = dataclasses.replace(lr, wavelengths=enmap.centres, fwhm=enmap.fwhm)
    told = make_pair(known, guide, "enmap", "landsat8_oli")
    np.testing.assert_array_equal(pair.lr.wavelengths, enmap.centres)
    assert (pair.lr.band_names, pair.guide.band_names) == (enmap.band_names, ("B2", "B3"))
    np.testing.assert_array_equal(pair.model["guide"].srf, told.model["guide"].srf)
    assert pair.remark == ""
    assert make_pair(lr, guide, guide_sensor="landsat8_oli").model.operators["guide"] is None


@pytest.mark.parametrize(
    ("bands", "wavelengths", "reason"),
    [(24, None, "no wavelengths"), (4, VNIR[:4], "fewer than 20 bands")],
)
def test_a_named_guide_sensor_of_no_use_is_remarked(bands: int, wavelengths: np.ndarray | None, reason: str) -> None:
    pair = make_pair(*scenes(bands, wavelengths=wavelengths), guide_sensor="landsat8_oli")
    assert pair.remark == f"the guide's sensor landsat8_oli is not used, since image has {reason}"


def test_a_guide_sensor_beyond_the_wavelengths_counts_only_where_it_is_named() -> None:
    lr, guide = scenes(24, wavelengths=VNIR + 1000)
    of_metadata = Scene(guide.image, name="guide", band_names=guide.band_names, sensor="landsat8_oli")
    assert "landsat8_oli is not used: Band B2" in make_pair(lr, of_metadata).remark
    with pytest.raises(InputError, match="Band B2"):
        make_pair(lr, guide, guide_sensor="landsat8_oli")


@pytest.mark.parametrize(("factor", "said"), [(1.0, ""), (1.4, ""), (2.0, "band 2 of the guide is 2 times"),
                                              (0.5, "band 2 of the guide is 0.5 times")])  # fmt: skip
def test_images_on_other_scales_are_remarked(factor: float, said: str) -> None:
    """Invalid pixels, of another scale, do not count."""
    lr, guide = scenes(24, wavelengths=VNIR)
    guide.image[..., 1] *= factor
    guide.image[:, 6:] = 9
    guide = dataclasses.replace(guide, mask=np.arange(8) * np.ones((8, 1)) < 6)
    remark = scale_remark(make_pair(lr, guide, guide_sensor="landsat8_oli"))
    assert remark.startswith(said)
    assert ("--estimate" in remark) is bool(said)
    assert scale_remark(make_pair(lr, guide)) == ""
