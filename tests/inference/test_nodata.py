"""Pixels that no sensor saw are no observations."""

import dataclasses
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from affine import Affine

from jfusion import catalogue
from jfusion.catalogue import Fit
from jfusion.data import geotiff, readers
from jfusion.data.scene import Scene
from jfusion.data.simulate import Simulation, reduce
from jfusion.errors import InputError
from jfusion.inference.evaluate import against_reference, without_reference
from jfusion.inference.fuse import fuse
from jfusion.inference.pair import filled, make_pair, observed
from jfusion.inference.run import run
from jfusion.operators import (
    Grid,
    Observation,
    ObservationModel,
    SpatialResponse,
    SpectralResponse,
    gaussian_psf,
    upsample,
)
from jfusion.operators.estimate import estimate
from jfusion.operators.registration import Registration
from jfusion.training.loop import Training, train


def pair_with_gaps(image: np.ndarray) -> tuple[Scene, Scene]:
    """A pair of ratio 2 whose lr misses a corner, and whose guide misses a pixel of the opposite one."""
    grid = Grid.nested(2)
    lr = SpatialResponse(gaussian_psf(0.9, grid), 2, grid.phase)(jnp.asarray(image)[None])[0]
    guide = SpectralResponse(jnp.eye(12)[2:4])(jnp.asarray(image)[None])[0]
    of_lr, of_guide = np.ones(lr.shape[:2], bool), np.ones(guide.shape[:2], bool)
    of_lr[12:, 10:], of_guide[5, 6] = False, False
    place = [Affine(step, 0, 500000, 0, -step, 5600000) for step in (30, 15)]
    images = [np.where(mask[..., None], x, -1) for x, mask in ((lr, of_lr), (guide, of_guide))]
    lr_scene, guide_scene = (
        Scene(x, mask=mask, nodata=-1, transform=transform, crs="EPSG:32632")
        for x, mask, transform in zip(images, (of_lr, of_guide), place, strict=True)
    )
    return lr_scene, guide_scene


def test_what_the_psf_sees_must_be_valid(scene: np.ndarray) -> None:
    pair = make_pair(*pair_with_gaps(scene))
    expected = np.ones((24, 24), bool)
    expected[12:, 10:] = expected[:5, 1:6] = False
    np.testing.assert_array_equal(observed(pair.masks, 2), expected)


@pytest.mark.parametrize("tile", [None, 24])
def test_sensors_of_files_are_estimated_from_valid_pixels(scene: np.ndarray, tile: int | None, tmp_path: Path) -> None:
    images = pair_with_gaps(scene)
    for name, one in zip(("lr.tif", "guide.tif"), images, strict=True):
        geotiff.write(tmp_path / name, one)
    files = [tmp_path / name for name in ("lr.tif", "guide.tif", "out.tif")]
    done = fuse(*files, system="cubic", estimate=True, tile=tile)
    assert (done.windows > 1) is (tile is not None)
    pair = make_pair(*images)
    expected = estimate(pair.observation, pair.model, valid=jnp.asarray(observed(pair.masks, 2))).model
    careless = estimate(pair.observation, pair.model).model
    np.testing.assert_allclose(done.model["lr"].psf, expected["lr"].psf, atol=1e-5)
    assert np.abs(expected["lr"].psf - careless["lr"].psf).max() > 0.01


def test_holes_of_either_image_do_not_contradict_the_other() -> None:
    """Both show ground that both have seen, but where a pixel that counts may look; the rest stays."""
    rng = np.random.default_rng(0)
    guide = rng.random((48, 48, 1), np.float32)
    lr = guide.reshape(24, 2, 24, 2, 1).mean((1, 3))
    valid = {"lr": np.ones((24, 24), bool), "guide": np.ones((48, 48), bool)}
    valid["lr"][:10, :10], valid["guide"][30:, 30:], valid["guide"][3, 40] = False, False, False
    found = filled({"lr": np.where(valid["lr"][..., None], lr, 9), "guide": guide}, valid)
    blocks = found["guide"].reshape(24, 2, 24, 2, 1).mean((1, 3))
    np.testing.assert_allclose(blocks[:8, :8], found["lr"][:8, :8], atol=1e-6)
    np.testing.assert_allclose(blocks[17:, 17:], found["lr"][17:, 17:], atol=1e-6)
    assert found["lr"].max() < 1
    np.testing.assert_array_equal(found["guide"][:30, 20:40], guide[:30, 20:40])
    np.testing.assert_array_equal(found["lr"][10:17], lr[10:17])


def test_masks_are_checked(scene: np.ndarray) -> None:
    pair = make_pair(*pair_with_gaps(scene))
    for masks in ({"lr": pair.masks["lr"]}, {"lr": pair.masks["lr"], "guide": pair.masks["guide"][1:]}):
        with pytest.raises(InputError, match="2 times as high"):
            run(catalogue.get("fuse"), pair.observation, pair.model, valid=masks)


@pytest.mark.parametrize("registering", [False, True])
def test_lr_counts_where_both_images_show_the_ground(
    scene: np.ndarray, registering: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where its guide is missing it does not, nor what a displaced image does not show."""
    pair = make_pair(*pair_with_gaps(scene))
    seen, counted = observed(pair.masks, 2), []

    def fitted(observation: Observation, model: ObservationModel, **settings: Any) -> Fit:
        counted.append(settings["valid"])
        return Fit(upsample(observation["lr"], model.grid), model, [0.0])

    if registering:
        down = jnp.zeros((24, 24, 2)).at[..., 0].set(3.0)
        found = Registration(down, jnp.asarray([[3.0, 0], [0, 0], [0, 0]]), jnp.ones(2), jnp.ones(2))
        monkeypatch.setattr("jfusion.inference.run.register", lambda *_: found)
        seen = np.pad(seen, ((3, 0), (0, 0)))[:24] & seen
    row = catalogue.get("dip")
    system = dataclasses.replace(row, method=dataclasses.replace(row.method, fit=fitted))
    model = estimate(pair.observation, pair.model).model
    run(system, pair.observation, model, valid=pair.masks, registering=registering, sizes=row.method.tiny)
    np.testing.assert_array_equal(counted[0]["lr"], seen)
    np.testing.assert_array_equal(counted[0]["guide"], pair.masks["guide"])


def test_fits_do_not_see_what_no_sensor_saw(scene: np.ndarray) -> None:
    pair = make_pair(*pair_with_gaps(scene))
    images = pair.observation
    masks = {name: jnp.asarray(mask)[..., None] for name, mask in pair.masks.items()}
    other = {name: jnp.where(masks[name], image, image / 2) for name, image in images.items()}
    system = catalogue.get("deep_decoder")
    model = estimate(images, pair.model).model
    settings = {"sizes": system.method.tiny, "effort": 3 / system.method.steps}
    one, two = (run(system, x, model, valid=pair.masks, **settings).product for x in (images, other))
    np.testing.assert_allclose(one, two, atol=1e-6)
    assert np.abs(one - run(system, other, model, **settings).product).max() > 1e-4


def test_networks_learn_from_pixels_that_do_not_lean_on_holes(
    scene: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the pair one ratio lower, those are drawn of that are the same whatever stands in the holes."""
    pair, taken = make_pair(*pair_with_gaps(scene)), []

    def training(system: Any, data: Simulation, **settings: Any) -> Training:
        taken.append((data, settings["valid"]))
        return train(system, data, **settings)

    monkeypatch.setattr("jfusion.inference.run.train", training)
    masks = {name: jnp.asarray(mask)[..., None] for name, mask in pair.masks.items()}
    for images in (pair.observation, {k: jnp.where(masks[k], x, x / 2) for k, x in pair.observation.items()}):
        system = catalogue.get("pannet")
        run(system, images, pair.model, valid=pair.masks, sizes=system.method.tiny, steps=2, patch=12, batch=2)
    (one, valid), (two, _) = taken
    assert valid.shape == one.observation["lr"].shape[1:3]
    assert 0 < valid.sum() < valid.size
    fine = np.repeat(np.repeat(valid, 2, 0), 2, 1)
    np.testing.assert_array_equal(one.target[0][fine], two.target[0][fine])
    np.testing.assert_allclose(one.observation["lr"][0][valid], two.observation["lr"][0][valid], atol=2e-3)
    np.testing.assert_allclose(one.observation["guide"][0][fine], two.observation["guide"][0][fine], atol=2e-3)


def test_holes_do_not_count_against_a_product(scene: np.ndarray) -> None:
    """The truth agrees with what was seen, whatever stands in its holes and in those of the pair."""
    grid = Grid.nested(2)
    model = ObservationModel(
        {"lr": SpatialResponse(gaussian_psf(0.9, grid), 2, grid.phase), "guide": SpectralResponse(jnp.eye(12)[2:4])},
        grid,
    )
    truth, mask = jnp.asarray(scene)[None], np.ones((48, 48), bool)
    mask[:, :14] = False
    seen = {key: jnp.where(mask[::2, ::2, None] if key == "lr" else mask[..., None], image, 0.7)
            for key, image in model(truth).items()}  # fmt: skip
    values = without_reference(jnp.where(mask[..., None], truth, 0), seen, model, mask)
    assert values["residual lr"] < 1e-6
    assert values["residual guide"] < 1e-6
    plain = upsample(model(truth)["lr"], grid)
    whole, masked = (without_reference(plain, model(truth), model, m)["residual lr"] for m in (None, mask))
    assert masked == pytest.approx(whole, rel=0.3)
    mask[:, :44] = False
    assert set(without_reference(truth, model(truth), model, mask)) == {"residual lr", "residual guide"}


def test_a_shift_in_the_psf_stays_one_ratio_lower(scene: np.ndarray) -> None:
    grid = Grid.nested(2)
    errors = []
    for beside in ((0.0, 0.0), (1.0, -1.0)):
        spatial = SpatialResponse(gaussian_psf(0.9, grid, beside=beside), 2, grid.phase)
        model = ObservationModel({"lr": spatial, "guide": SpectralResponse(jnp.eye(12)[2:4])}, grid)
        lower = reduce(model(jnp.asarray(scene)[None]), model)
        inner = (slice(None), slice(4, -4), slice(4, -4))
        told, made = lower.observation["guide"][inner], model["guide"](lower.target)[inner]
        errors.append(float(jnp.linalg.norm(told - made) / jnp.linalg.norm(told - told.mean((1, 2)))))
    assert errors[1] < 1.5 * errors[0]


def test_products_smaller_than_a_window_are_judged(scene: np.ndarray) -> None:
    values = against_reference(scene[:8, :8], scene[None, :8, :8], ratio=2, data_range=1.0)
    assert "SSIM" not in values
    assert values["SAM"] == pytest.approx(0, abs=0.05)


def test_digital_numbers_need_no_conversion(scene: np.ndarray) -> None:
    grid = Grid.nested(2)
    numbers = {"lr": np.asarray(1e4 * scene[None, :24, :24, :4]), "guide": np.asarray(1e4 * scene[None, :, :, 4:5])}
    products = [
        run(catalogue.get("gsa"), {k: x.astype(np.uint16).astype(kind) for k, x in numbers.items()},
            ObservationModel({"lr": None, "guide": None}, grid)).product
        for kind in (np.uint16, np.float32)
    ]  # fmt: skip
    np.testing.assert_allclose(*products, rtol=1e-5)


def test_a_nodata_value_that_the_output_cannot_hold_gives_way(tmp_path, scene) -> None:
    for name, image in zip(("lr", "guide"), pair_with_gaps(scene), strict=True):
        values = np.where(image.valid[..., None], 1000 * image.image, np.nan).astype(np.float32)
        geotiff.write(tmp_path / f"{name}.tif", dataclasses.replace(image, image=values, nodata=np.nan))
    fuse(tmp_path / "lr.tif", tmp_path / "guide.tif", tmp_path / "out.tif", system="cubic", dtype="uint16")
    product = readers.read(tmp_path / "out.tif")
    assert (product.image.dtype, product.nodata) == (np.uint16, 0)
    assert 0 < np.count_nonzero(product.mask) < product.mask.size


def test_empty_bands_are_named(scene) -> None:
    lr, guide = pair_with_gaps(scene)
    image = lr.image.copy()
    image[..., [2, 5]] = lr.nodata
    with pytest.raises(InputError, match=r"leave out its empty bands \(3, 6\)"):
        make_pair(dataclasses.replace(lr, image=image, mask=np.zeros(image.shape[:2], bool)), guide)
