import subprocess
import sys

import numpy as np
import pytest

from jfusion import sensors
from jfusion.data import scenes
from jfusion.data.geometry import pair_grid
from jfusion.errors import InputError

SHAPES = {
    "aviris_california": {"hsi": (50, 50, 194)},
    "jasper_ridge": {"hsi": (100, 100, 198)},
    "landsat7_tiny": {"msi": (41, 41, 6), "pan": (82, 82, 1)},
    "landsat8_liverpool": {"msi": (267, 433, 7), "pan": (534, 867, 1)},
    "landsat8_momotombo": {"msi": (334, 468, 6), "pan": (668, 935, 1)},
    "landsat8_tiny": {"msi": (41, 41, 7), "pan": (82, 82, 1)},
    "neon_sjer": {"hsi": (30, 30, 426)},
    "paris_hs_ms": {"hsi": (72, 72, 128), "msi": (72, 72, 9)},
    "paris_hs_pan": {"hsi": (72, 58, 128), "pan": (216, 174, 1)},
    "sentinel2_fields": {"msi": (300, 300, 6), "guide": (600, 600, 4)},
}


def test_all_scenes_are_known_here():
    assert set(scenes.names()) == set(SHAPES)


@pytest.mark.parametrize("name", scenes.names())
def test_scene_is_complete(name):
    images = scenes.load(name)
    assert {role: scene.image.shape for role, scene in images.items()} == SHAPES[name]
    for scene in images.values():
        values = scene.physical()[scene.valid]
        assert scene.licence
        assert scene.citation
        assert scene.wavelengths.min() > 350
        assert scene.wavelengths.max() < 2600
        assert values.min() > -0.1
        assert values.max() < 2.5
        assert 0.02 < values.mean() < 0.6
        assert np.ptp(values) > 0.1


@pytest.mark.parametrize(("name", "centre"), [("landsat7_tiny", (0, 1)), ("landsat8_liverpool", (1, 1))])
def test_landsat_pairs_fit_where_the_metadata_say(name, centre):
    """The panchromatic image, averaged around where an MS centre falls, is a linear function of the MS bands there."""
    msi, pan = scenes.load(name)["msi"], scenes.load(name)["pan"]
    geometry = pair_grid(msi, pan)
    assert geometry.ratio == 2
    assert geometry.centre == centre
    lr, guide = geometry.crop(msi, pan)
    bands = np.concatenate([lr.physical()[2:-2, 2:-2], np.ones((lr.height - 4, lr.width - 4, 1))], axis=-1)

    def residual(row_shift, col_shift):
        top, left = 4 + centre[0] + row_shift, 4 + centre[1] + col_shift
        values = guide.physical()[..., 0]
        weights = np.array([0.25, 0.5, 0.25])
        mean = sum(
            weights[i] * weights[j] * values[top - 1 + i :: 2, left - 1 + j :: 2][: lr.height - 4, : lr.width - 4]
            for i in range(3)
            for j in range(3)
        )
        flat = bands.reshape(-1, bands.shape[-1])
        fitted = flat @ np.linalg.lstsq(flat, mean.ravel(), rcond=None)[0]
        return float(np.mean((fitted - mean.ravel()) ** 2))

    here = residual(0, 0)
    assert all(here < residual(*shift) for shift in ((1, 0), (-1, 0), (0, 1), (0, -1)))


def test_jasper_ridge_unmixing_explains_the_image():
    truth, scene = scenes.unmixing(), scenes.load("jasper_ridge")["hsi"]
    abundances, endmembers = truth["abundances"], truth["endmembers"]
    assert list(truth["materials"]) == ["tree", "water", "dirt", "road"]
    np.testing.assert_allclose(abundances.sum(axis=-1), 1, atol=1e-5)
    error = np.sqrt(np.mean((scene.physical() - abundances @ endmembers.T) ** 2))
    turned = np.sqrt(np.mean((scene.physical() - abundances.transpose(1, 0, 2) @ endmembers.T) ** 2))
    assert error < 0.03
    assert turned > 3 * error


def test_jasper_ridge_wavelengths_put_absorptions_where_they_are():
    scene = scenes.load("jasper_ridge")["hsi"]
    tree, water = scenes.unmixing()["endmembers"][:, :2].T
    wavelengths = scene.wavelengths

    def argmin(spectrum, low, high):
        inside = np.flatnonzero((wavelengths > low) & (wavelengths < high))
        return wavelengths[inside[np.argmin(spectrum[inside])]]

    assert argmin(water, 900, 1000) == pytest.approx(940, abs=8)  # water vapour
    red_edge = (wavelengths > 660) & (wavelengths < 780)
    steepest = np.argmax(np.gradient(tree[red_edge], wavelengths[red_edge]))
    assert 700 < wavelengths[red_edge][steepest] < 730


def test_paris_bands_agree_with_the_bands_simulated_from_hyperion():
    images = scenes.load("paris_hs_ms")
    hsi, msi = images["hsi"], images["msi"]
    response = sensors.get("eo1_ali").select(msi.band_names).response(hsi.wavelengths)
    simulated = (hsi.physical() @ response.T).reshape(-1, 9)
    correlation = np.corrcoef(simulated.T, msi.physical().reshape(-1, 9).T)[:9, 9:]
    assert np.diag(correlation).min() > 0.75
    assert np.all(correlation.max(axis=1) - np.diag(correlation) < 0.02)


def test_sentinel2_pixels_are_nested_and_show_one_place():
    images = scenes.load("sentinel2_fields")
    fine, coarse = images["guide"].physical()[..., 3], images["msi"].physical()[..., 3]  # both near infrared

    def agreement(rows, columns):
        mean = np.roll(fine, (rows, columns), (0, 1)).reshape(300, 2, 300, 2).mean((1, 3))
        return np.corrcoef(mean[2:-2, 2:-2].ravel(), coarse[2:-2, 2:-2].ravel())[0, 1]

    assert agreement(0, 0) > 0.99
    assert all(agreement(*shift) < 0.98 for shift in ((1, 0), (-1, 0), (0, 1), (0, -1)))


def test_paths_are_files_for_other_programs():
    assert scenes.path("landsat8_tiny", "pan").is_file()
    with pytest.raises(InputError, match="msi, pan"):
        scenes.path("landsat8_tiny", "hsi")
    with pytest.raises(InputError, match="jasper_ridge"):
        scenes.load("jasper")
    with pytest.raises(InputError, match="no unmixing"):
        scenes.unmixing("neon_sjer")


def test_data_need_no_jax_and_no_matplotlib():
    load = "import sys; from jfusion.data import scenes; scenes.load('landsat8_tiny')"
    check = f"{load}; print({{'jax', 'matplotlib'}} & {{*sys.modules}})"
    assert subprocess.run([sys.executable, "-c", check], capture_output=True, text=True).stdout.strip() == "set()"
