import numpy as np
import pytest

from jfusion import sensors
from jfusion.errors import InputError

PUBLISHED_CENTRES = [
    ("landsat8_oli", "B4", 654.6),
    ("landsat8_oli", "B8", 589.5),
    ("landsat7_etm", "B4", 835.0),
    ("sentinel2a_msi", "B8A", 864.7),
    ("worldview3", "SWIR1", 1210.0),
    ("enmap", "b001", 418.2),
    ("eo1_hyperion", "B8", 426.82),
    ("eo1_hyperion", "B224", 2395.50),
]


@pytest.mark.parametrize("name", sensors.names())
def test_every_table_loads_and_is_plausible(name):
    sensor = sensors.get(name)
    assert len(set(sensor.band_names)) == len(sensor.bands)
    assert sensor.source
    assert sensor.licence
    assert 8 <= sensor.bit_depth <= 16
    for band in sensor.bands:
        assert 350 < band.centre < 2600
        assert 5 < band.fwhm < 500
        assert band.values.min() >= 0
        assert band.values.max() == pytest.approx(1, abs=0.02)
        assert 0 < band.mtf_gain < 0.5
    if sensor.pan.bands and sensor.pan.bands[0].gsd is not None:
        assert sensor.pan.bands[0].gsd < min(band.gsd for band in sensor.ms.bands)


@pytest.mark.parametrize("name", sensors.names())
def test_response_on_a_fine_grid_recovers_the_centroid(name):
    sensor = sensors.get(name)
    grid = np.arange(300.0, 2700.0)
    weights = sensor.response(grid)
    centroids = [np.average(band.wavelengths, weights=band.values) for band in sensor.bands]
    assert weights.dtype == np.float32
    assert weights.shape == (len(sensor.bands), grid.size)
    np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(weights.astype(np.float64) @ grid, centroids, atol=0.02)


@pytest.mark.parametrize(("sensor", "band", "centre"), PUBLISHED_CENTRES)
def test_band_centres_are_the_published_ones(sensor, band, centre):
    assert sensors.get(sensor).select([band]).centres[0] == pytest.approx(centre, abs=1.5)


def test_linear_spectra_integrate_exactly_on_any_order_and_spacing():
    rng = np.random.default_rng(0)
    grid = np.sort(rng.uniform(400, 1000, 60))
    grid[[0, -1]] = 400, 1000
    order = rng.permutation(60)
    sensor = sensors.get("geoeye1").ms
    weights = sensor.response(grid[order], fwhm=40)
    exact = [np.average(2 + 0.003 * band.wavelengths, weights=band.values) for band in sensor.bands]
    np.testing.assert_allclose(weights @ (2 + 0.003 * grid[order]), exact, atol=2e-3)
    np.testing.assert_allclose(weights, sensor.response(grid, fwhm=40)[:, order], atol=1e-6)


def test_overlapping_spectrometers_share_the_weight():
    grid = np.arange(400.0, 900.0, 10)
    sensor = sensors.get("landsat8_oli").select(["B4"])
    once, twice = sensor.response(grid), sensor.response(np.concatenate([grid, grid]))
    np.testing.assert_allclose(twice[:, : grid.size] + twice[:, grid.size :], once, atol=1e-6)


def test_a_band_inside_a_removed_water_band_is_refused_by_name():
    grid = np.concatenate([np.arange(400.0, 1340, 10), np.arange(1420.0, 2500, 10)])
    with pytest.raises(InputError, match=r"B9 of landsat8_oli .* select"):
        sensors.get("landsat8_oli").response(grid)


@pytest.mark.parametrize(
    ("wavelengths", "fwhm", "message"),
    [
        ([0.4, 0.5, 0.6], None, "nm"),
        ([400.0, np.nan], None, "finite"),
        ([[400.0, 500.0]], None, "1-D"),
        ([560.0], None, "fwhm"),
        ([560.0, 570.0], [10.0, 10.0, 10.0], "fwhm"),
        ([560.0, 570.0], [10.0, -1.0], "positive"),
    ],
)
def test_bad_wavelengths_are_refused(wavelengths, fwhm, message):
    with pytest.raises(InputError, match=message):
        sensors.get("worldview2").response(wavelengths, fwhm)


def test_unknown_names_are_answered_with_near_ones():
    with pytest.raises(InputError, match="landsat8_oli"):
        sensors.get("landsat8")
    with pytest.raises(InputError, match="known are"):
        sensors.get("zzz")
    with pytest.raises(InputError, match="B2"):
        sensors.get("landsat8_oli").select(["blue"])


def test_mtf_gains_name_their_source():
    worldview = sensors.get("worldview3").select(["NIR2", "PAN", "SWIR1"])
    np.testing.assert_allclose(worldview.mtf_gains, [0.315, 0.14, 0.30])
    assert "fallback" in worldview.bands[2].mtf_source
    assert "fallback" not in worldview.bands[0].mtf_source
    landsat = sensors.get("landsat8_oli")
    assert {band.mtf_gain for band in landsat.ms.bands} == {0.30}
    assert landsat.pan.mtf_gains.tolist() == [0.15]
