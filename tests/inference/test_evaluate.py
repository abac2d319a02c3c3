"""What is compared with what: pixels of one place."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from affine import Affine
from scipy.ndimage import gaussian_filter

from jfusion.data import geotiff
from jfusion.data.scene import Scene
from jfusion.errors import InputError
from jfusion.inference.evaluate import evaluate_files, without_reference
from jfusion.operators import Displaced, Grid, ObservationModel, SpatialResponse, SpectralResponse, gaussian_psf
from jfusion.operators.registration import shown

RATIO, SIDE, RIM = 2, 30, 6
GRID = Grid.nested(RATIO)
RESPONSE = SpatialResponse(gaussian_psf(0.9, GRID), RATIO, GRID.phase)
SRF = SpectralResponse(jnp.asarray(np.kron(np.eye(2), np.ones((1, 3))) / 3, jnp.float32))
MODEL = ObservationModel({"lr": RESPONSE, "guide": SRF}, GRID)


@pytest.mark.parametrize("shift", [(3.0, -2.0), (0.5, 1.25)])
def test_the_truth_of_a_displaced_pair_is_judged_as_that_of_one_in_place(shift: tuple[float, float]) -> None:
    """A larger scene tells what the displaced image shows; what lies beyond the pair does not count."""
    rng, size = np.random.default_rng(3), RATIO * (SIDE + 2 * RIM)
    textures = sum(gaussian_filter(rng.standard_normal((size, size, 6)), (s, s, 0)) * s for s in (1, 2, 6))
    whole = jnp.asarray(0.4 + 0.1 * textures @ gaussian_filter(rng.standard_normal((6, 6)), (0, 1.0)), jnp.float32)[
        None
    ]
    inner, fine = (np.s_[:, n * RIM : -n * RIM, n * RIM : -n * RIM] for n in (1, RATIO))
    truth = whole[fine]
    straight = {"lr": RESPONSE(whole)[inner], "guide": SRF(truth)}
    moved = {**straight, "lr": Displaced(RESPONSE, jnp.asarray(shift))(whole)[inner]}
    field = jnp.broadcast_to(jnp.asarray(shift), (SIDE, SIDE, 2))
    model = MODEL.replace(operators={"lr": Displaced(RESPONSE, field), "guide": SRF})
    mask = np.repeat(np.repeat(np.asarray(shown(field)), RATIO, 0), RATIO, 1)
    expected, found = (without_reference(truth, x, m, mask) for x, m in ((straight, MODEL), (moved, model)))
    for name, close in {"D_lambda": 4e-3, "D_s": 4e-3, "residual lr": 8e-3}.items():
        assert found[name] == pytest.approx(expected[name], abs=close), name


def placed(folder: Path, name: str, image: np.ndarray, pixel: float, x: float = 0.0, y: float = 0.0) -> Path:
    """A file whose corner lies so many metres to the right of and below the others'."""
    scene = Scene(image, name, transform=Affine(pixel, 0, 500000 + x, 0, -pixel, 5600000 - y), crs="EPSG:32632")
    geotiff.write(folder / f"{name}.tif", scene)
    return folder / f"{name}.tif"


def test_products_are_compared_in_their_place(tmp_path: Path) -> None:
    image = np.random.default_rng(0).uniform(1, 2, (24, 24, 3)).astype(np.float32)
    truth = placed(tmp_path, "truth", image, 15.0)
    assert evaluate_files(placed(tmp_path, "same", image, 15.0), truth, ratio=2)["PSNR"][0] == np.inf
    whole = evaluate_files(placed(tmp_path, "next", np.roll(image, (-1, -2), (0, 1)), 15.0, 30.0, 15.0), truth, ratio=2)
    assert whole["SAM"][0] == pytest.approx(0, abs=1e-2)
    between = placed(tmp_path, "between", image, 15.0, 7.5)
    with pytest.raises(InputError, match=r"between lies 0\.5 pixels beside truth"):
        evaluate_files(between, truth, ratio=2)
    lr, guide = placed(tmp_path, "lr", image[::2, ::2], 30.0), placed(tmp_path, "guide", image[..., :1], 15.0)
    elsewhere = placed(tmp_path, "elsewhere", image, 15.0, 600.0)
    assert "QNR" in evaluate_files(tmp_path / "same.tif", lr=lr, guide=guide)
    with pytest.raises(InputError, match="elsewhere lies 40 pixels beside guide"):
        evaluate_files(elsewhere, lr=lr, guide=guide)


def test_what_is_missing_is_said_before_anything_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = np.ones((8, 8, 3), np.uint16)
    product = placed(tmp_path, "product", image, 15.0)
    with pytest.raises(InputError, match="no image has a pixel of value -9999, since they are uint16"):
        evaluate_files(product, product, ratio=2, nodata=-9999.0)
    monkeypatch.setattr("jfusion.data.readers.read", lambda *_, **__: pytest.fail("read"))
    for arguments, said in (
        ({"reference": tmp_path / "truht.tif", "ratio": 2}, "there is no file .*truht.tif"),
        ({"reference": product}, "say --ratio"),
        ({"lr": product}, "or --lr FILE and --guide FILE"),
        ({"reference": product, "ratio": 2, "registering": True}, "leave out --register"),
    ):
        with pytest.raises(InputError, match=said):
            evaluate_files(product, **arguments)


def test_nodata_that_one_of_both_can_hold(tmp_path: Path) -> None:
    image = np.random.default_rng(0).uniform(1, 2, (24, 24, 3)).astype(np.float32)
    image[:4] = -9999
    product = placed(tmp_path, "product", image, 15.0)
    truth = placed(tmp_path, "truth", np.full(image.shape, 2, np.uint16), 15.0)
    values = evaluate_files(product, truth, ratio=2, nodata=-9999.0)
    assert values["PSNR"][0] > 5
