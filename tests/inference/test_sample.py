"""The part of a scene that stands for all of it."""

from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine

from jfusion.data import geotiff
from jfusion.data.scene import Scene
from jfusion.errors import InputError
from jfusion.inference.fuse import InMemory, Sources, fuse, sample


def sources(mask: np.ndarray) -> Sources:
    """A pair of ratio 2 whose low-resolution image is valid where ``mask`` is True."""
    lr = Scene(np.ones((*mask.shape, 4), np.float32), name="ms", mask=mask)
    guide = Scene(np.ones((2 * mask.shape[0], 2 * mask.shape[1], 1), np.float32), name="pan")
    return Sources(InMemory(lr), InMemory(guide))


def test_the_centre_stands_for_a_scene_without_gaps() -> None:
    assert sample(sources(np.ones((9, 12), bool)), 6) == (slice(3, 6), slice(4, 7))
    assert sample(sources(np.ones((9, 2), bool)), 6) == (slice(3, 6), slice(0, 2))


def test_another_part_does_where_the_centre_is_nodata() -> None:
    mask = np.zeros((9, 12), bool)
    mask[5:, :4] = True
    assert sample(sources(mask), 6) == (slice(6, 9), slice(0, 3))
    hidden = np.zeros((30, 40), bool)
    hidden[10:14, 10:14] = True
    assert sample(sources(hidden), 6) == (slice(9, 12), slice(9, 12))
    with pytest.raises(InputError, match="ms and its guide have no valid pixel in common"):
        sample(sources(np.zeros((9, 12), bool)), 6)


def test_what_cannot_be_fused_is_found_before_a_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also beyond the part that stands for the scene."""
    rng = np.random.default_rng(0)
    for name, bands, side, pixel in (("lr", 4, 64, 30.0), ("guide", 1, 128, 15.0)):
        image = rng.uniform(1, 2, (side, side, bands)).astype(np.float32)
        transform = Affine(pixel, 0, 500000, 0, -pixel, 5600000)
        geotiff.write(tmp_path / f"{name}.tif", Scene(image, transform=transform, crs="EPSG:32632"), cog=False)
    image[-1, -1] = np.nan
    with rasterio.open(tmp_path / "guide.tif", "r+") as file:
        file.write(image[None, ..., 0])
    monkeypatch.setattr("jfusion.inference.fuse.sample", lambda _: (slice(16, 48), slice(16, 48)))
    monkeypatch.setattr("jfusion.inference.fuse.trained", lambda *_, **__: pytest.fail("trained"))
    with pytest.raises(InputError, match="1 NaN samples"):
        fuse(tmp_path / "lr.tif", tmp_path / "guide.tif", tmp_path / "out.tif", system="fusionnet", tile=80)
    assert not (tmp_path / "out.tif").exists()
