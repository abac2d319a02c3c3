"""Intervals: their quantiles, what they are calibrated on, and their band in the file."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import rasterio
from affine import Affine

from jfusion import catalogue
from jfusion.catalogue import Fit
from jfusion.data import geotiff, readers
from jfusion.data.scene import Scene
from jfusion.errors import InputError
from jfusion.inference.uncertainty import (
    MEMBERS,
    as_numbers,
    calibrated,
    check_interval,
    quantiles,
    rank,
    scale,
    with_half_width,
)
from jfusion.operators import Grid, ObservationModel, SpatialResponse, SpectralResponse, gaussian_psf, upsample


@pytest.mark.parametrize(("pixels", "level", "place"), [(9, 0.9, 9), (99, 0.9, 90), (10, 0.5, 6), (19, 0.95, 19)])
def test_rank_of_the_conformal_quantile(pixels: int, level: float, place: int) -> None:
    assert rank(pixels, level) == place


def test_levels_that_cannot_be_are_refused() -> None:
    for level in (0.0, 1.0, 90.0):
        with pytest.raises(InputError, match="between 0 and 1"):
            rank(100, level)
    with pytest.raises(InputError, match="needs 99 pixels one ratio lower, but there are 64"):
        rank(64, 0.99)


def ensemble(seed: int, difficulty: np.ndarray, bias: float) -> tuple[np.ndarray, np.ndarray]:
    """Members and truth of an image whose error is three times the members' spread, pixel by pixel."""
    rng = np.random.default_rng(seed)
    shape = (1, *difficulty.shape, 2)
    members = difficulty[..., None] * rng.standard_normal((MEMBERS, *shape))
    truth = 3 * difficulty[..., None] * rng.standard_normal(shape) + np.array([0, bias])
    return members.astype(np.float32), truth.astype(np.float32)


@pytest.mark.parametrize("level", [0.5, 0.9, 0.95])
def test_coverage_where_scores_are_exchangeable(level: float) -> None:
    """Another image of the same law, of other difficulty, is covered in each band."""
    rng = np.random.default_rng(0)
    lower, truth = ensemble(1, np.exp(rng.standard_normal((80, 80))), bias=0.0)
    members, unknown = ensemble(2, np.exp(rng.standard_normal((80, 80)) - 1), bias=0.0)
    half = quantiles(jnp.asarray(lower), jnp.asarray(truth), level) * scale(jnp.asarray(members))
    covered = (np.abs(unknown - members.mean(0)) <= half).mean((0, 1, 2))
    np.testing.assert_allclose(covered, level, atol=0.03)


def test_each_band_has_its_own_quantile() -> None:
    lower, truth = ensemble(1, np.ones((40, 40)), bias=50.0)
    found = quantiles(jnp.asarray(lower), jnp.asarray(truth), 0.9)
    assert found[1] > 5 * found[0]


def test_pixels_that_are_not_valid_have_no_score() -> None:
    members, truth = (jnp.asarray(image, jnp.float32) for image in ensemble(1, np.ones((30, 30)), 0.0))
    valid = jnp.arange(30)[:, None] * jnp.ones(30) < 20
    wrong = jnp.where(valid[..., None], truth, 1e6)
    np.testing.assert_array_equal(quantiles(members, wrong, 0.9, valid), quantiles(members, truth, 0.9, valid))
    assert float(quantiles(members, wrong, 0.9)[0]) > 1e3
    with pytest.raises(InputError, match="needs 9 pixels"):
        check_interval(catalogue.get("miae"), (30, 30), 2, 0.9, jnp.zeros((30, 30), bool))


def test_agreeing_members_keep_a_floor() -> None:
    members = np.zeros((MEMBERS, 1, 4, 4, 1), np.float32)
    members[:, 0, 0, 0, 0] = [-1, 1, -1, 1]
    found = np.asarray(scale(jnp.asarray(members)))
    assert found[0, 3, 3, 0] == pytest.approx(0.1 * np.sqrt(4 / 3 / 16), rel=1e-5)
    assert found[0, 0, 0, 0] == pytest.approx(np.sqrt(4 / 3), rel=1e-2)


CALLS: list[tuple[tuple[int, ...], float, float | None]] = []
MASKS: list[dict[str, np.ndarray] | None] = []


def learned(observation, model, *, key, effort=1.0, budget=None, progress, valid=None, **sizes) -> Fit:
    """The interpolated image with noise of each member, who learn a response each; half the steps are done."""
    CALLS.append((observation["lr"].shape, effort, budget))
    MASKS.append(valid)
    progress(1, 100, {})
    progress(50, 50, {})
    image = upsample(observation["lr"], model.grid)
    srf = jnp.arange(MEMBERS, dtype=jnp.float32)[:, None, None] * jnp.ones((MEMBERS, 1, 3))
    model = model.replace(operators=model.operators | {"guide": SpectralResponse(srf)})
    return Fit(jax.vmap(lambda k: image + 0.1 * jax.random.normal(k, image.shape))(key), model, [1.0])


def test_the_pair_one_ratio_lower_gets_as_many_steps() -> None:
    row = catalogue.get("miae")
    system = dataclasses.replace(row, method=dataclasses.replace(row.method, fit=learned))
    rng = np.random.default_rng(0)
    images = {"lr": rng.random((1, 8, 8, 3)), "guide": rng.random((1, 16, 16, 1))}
    observation = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), images)
    grid = Grid.nested(2)
    psf = SpatialResponse(gaussian_psf(0.85, grid), 2, grid.phase)
    model = ObservationModel({"lr": psf, "guide": None}, grid)
    CALLS.clear()
    found = calibrated(system, observation, model, effort=0.4, budget=10.0)
    assert CALLS == [((1, 8, 8, 3), 0.4, 5.0), ((1, 4, 4, 3), 0.2, 5.0)]
    np.testing.assert_allclose(found.fit.product, found.members.mean(0), rtol=1e-6)
    np.testing.assert_array_equal(found.truth, observation["lr"])
    np.testing.assert_allclose(found.fit.model["guide"].srf, np.full((1, 3), (MEMBERS - 1) / 2))
    assert found.fit.model["lr"] is psf
    half = found.half_width(0.9)
    assert half.shape == found.fit.product.shape == (1, 16, 16, 3)
    assert float(half.min()) > 0
    assert float(found.half_width(0.5).mean()) < float(half.mean())


def test_what_the_product_has_to_learn_is_not_told_one_ratio_lower() -> None:
    row = catalogue.get("miae")
    models: list[ObservationModel] = []

    def noted(observation, model, **options):
        models.append(model)
        return learned(observation, model, **options)

    system = dataclasses.replace(row, method=dataclasses.replace(row.method, fit=noted))
    grid = Grid.nested(2)
    psf = SpatialResponse(gaussian_psf(0.85, grid), 2, grid.phase)
    images = {"lr": jnp.ones((1, 8, 8, 3)), "guide": jnp.ones((1, 16, 16, 1))}
    for known in (psf, None):
        models.clear()
        calibrated(system, images, ObservationModel({"lr": known, "guide": None}, grid))
        assert [model.operators["lr"] is None for model in models] == [known is None] * 2


def test_one_ratio_lower_a_pixel_is_valid_where_all_below_it_were() -> None:
    row = catalogue.get("miae")
    system = dataclasses.replace(row, method=dataclasses.replace(row.method, fit=learned))
    grid = Grid.nested(2)
    psf = SpatialResponse(gaussian_psf(0.85, grid), 2, grid.phase)
    images = {"lr": jnp.ones((1, 9, 8, 3)), "guide": jnp.ones((1, 18, 16, 1))}
    valid = {"lr": np.ones((9, 8), bool), "guide": np.ones((18, 16), bool)}
    valid["lr"][3, 2] = valid["guide"][9, 5] = False
    MASKS.clear()
    calibrated(system, images, ObservationModel({"lr": psf, "guide": None}, grid), valid=valid)
    whole, below = MASKS
    assert whole is valid
    assert below["lr"].shape == (4, 4)
    assert below["guide"].shape == (8, 8)
    assert np.argwhere(~below["lr"]).tolist() == [[1, 1]]
    assert np.argwhere(~below["guide"]).tolist() == [[4, 2]]


def test_no_interval_is_stored_narrower() -> None:
    half = np.array([0.4, 2.0, 2.1], np.float32)
    np.testing.assert_array_equal(as_numbers(half, 0.5, np.dtype(np.uint16)), [1, 4, 5])
    np.testing.assert_array_equal(as_numbers(half, 0.5, np.dtype(np.float32)), half / np.float32(0.5))


@pytest.mark.parametrize("names", [None, ("red", "nir")])
def test_the_band_says_what_it_is_and_is_none_of_the_image(tmp_path: Path, names: tuple[str, ...] | None) -> None:
    outline = Scene(
        image=np.zeros((4, 6, 2), np.uint16), band_names=names, scale=np.array([1e-4, 2e-4]), offset=-0.1,
        wavelengths=np.array([650.0, 850.0]), transform=Affine(15, 0, 0, 0, -15, 0), crs="EPSG:32632",
    )  # fmt: skip
    wider = with_half_width(outline, 0.9)
    numbers = np.arange(4 * 6 * 3, dtype=np.uint16).reshape(4, 6, 3)
    path = tmp_path / "sharp.tif"
    geotiff.write(path, dataclasses.replace(wider, image=numbers))
    read = readers.read(path)
    np.testing.assert_array_equal(read.image, numbers[..., :2])
    np.testing.assert_allclose(read.wavelengths, [650, 850])
    assert read.band_names == (names or ("band 1", "band 2"))
    with rasterio.open(path) as file:
        assert file.descriptions[-1] == "half width of the 90 % interval, mean over bands"
        assert (file.scales[-1], file.offsets[-1]) == (1e-4, 0)
