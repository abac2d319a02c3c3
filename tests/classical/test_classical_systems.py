"""Every classical system against every promise of a system."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jfusion.classical
from jfusion.catalogue import Classical, Fusion, System
from jfusion.errors import InputError
from jfusion.operators import (
    Grid,
    Observation,
    ObservationModel,
    SpatialResponse,
    SpectralResponse,
    gaussian_psf,
    mtf_psf,
)
from jfusion.tasks import SPATIOSPECTRAL, TASKS


def rows() -> dict[str, System]:
    names = [info.name for info in pkgutil.iter_modules(jfusion.classical.__path__, "jfusion.classical.")]
    found = [row for name in names for row in vars(importlib.import_module(name)).values() if isinstance(row, System)]
    return {row.name: row for row in found}


ROWS = rows()
NAMES = sorted(ROWS)
TRIVIAL = ("cubic", "interp23")
NEED_RESPONSE = ("cnmf", "fuse", "hysure")
DIRECT = [name for name in NAMES if name not in NEED_RESPONSE]
LOCAL = [name for name in NAMES if ROWS[name].local is not None]
PAN = (4, 1, Grid(4, (1.0, 2.0)))
HS_MS = (24, 4, Grid(3, (1.5, 1.0)))


def function(name: str) -> Fusion:
    method = ROWS[name].method
    assert isinstance(method, Classical)
    return method.function


@cache
def jitted(name: str) -> Fusion:
    return jax.jit(function(name))


def tolerance(name: str) -> float:
    """Absolute, for reflectances: hundreds of float32 iterations or an eigenproblem differ more than one formula."""
    return 2e-3 if name in NEED_RESPONSE else 2e-4


def psnr(product: np.ndarray, scene: np.ndarray) -> float:
    return float(10 * np.log10(scene.max() ** 2 / np.mean((np.asarray(product) - scene) ** 2)))


def test_rows():
    assert set(TRIVIAL) | set(NEED_RESPONSE) < set(NAMES)
    assert all(task.baseline in NAMES for task in TASKS.values())
    for row in ROWS.values():
        assert row.family == "classical"
        assert row.tasks == SPATIOSPECTRAL
        assert row.paper.doi


def check_beats_cubic(name: str, scene: np.ndarray, observation: Observation, model: ObservationModel) -> None:
    product = jitted(name)(observation, model)
    assert product.shape == scene.shape
    assert product.dtype == jnp.float32
    gain = psnr(product, scene) - psnr(jitted("cubic")(observation, model), scene)
    assert gain > (-0.5 if name in TRIVIAL else 1.0), f"{gain:.2f} dB"


@pytest.mark.parametrize("name", NAMES)
def test_fuses_hyperspectral_and_multispectral_images(name, simulate):
    check_beats_cubic(name, *simulate(*HS_MS))


@pytest.mark.parametrize("name", DIRECT)
def test_pansharpens(name, simulate):
    check_beats_cubic(name, *simulate(*PAN))


@pytest.mark.parametrize("name", NEED_RESPONSE)
def test_product_explains_both_images(name, simulate):
    _, observation, model = simulate(*HS_MS)
    product = jitted(name)(observation, model)
    for key, image in model(product).items():
        assert float(jnp.linalg.norm(image - observation[key]) / jnp.linalg.norm(observation[key])) < 0.02
    assert name != "cnmf" or float(product.min()) >= 0


@pytest.mark.parametrize("name", NAMES)
def test_products_are_in_full_precision_on_every_device(name, simulate):
    _, observation, model = simulate(*HS_MS)
    lines = jitted(name).lower(observation, model).as_text().splitlines()
    products = [line for line in lines if "stablehlo.dot_general" in line or "stablehlo.convolution" in line]
    assert [line for line in products if line.count("HIGHEST") != 2] == []
    assert products or name in TRIVIAL


@pytest.mark.parametrize("name", NAMES)
def test_digital_numbers_and_reflectance_agree(name, simulate):
    _, observation, model = simulate(*HS_MS)
    numbers = {key: 4096.0 * image for key, image in observation.items()}
    np.testing.assert_allclose(
        jitted(name)(numbers, model) / 4096, jitted(name)(observation, model), atol=tolerance(name)
    )


@pytest.mark.parametrize("name", NAMES)
def test_degenerate_images_give_finite_products(name, simulate):
    _, observation, model = simulate(*HS_MS)
    lr, guide = observation["lr"], observation["guide"]
    for changed in (
        {"lr": jnp.zeros_like(lr), "guide": jnp.zeros_like(guide)},
        {"lr": jnp.full_like(lr, 0.3), "guide": jnp.full_like(guide, 0.3)},
        {"lr": lr.at[..., 3].set(0).at[:, :5].set(0), "guide": guide.at[..., 1].set(0).at[:, :10].set(0)},
        {"lr": lr, "guide": jnp.full_like(guide, 0.3)},
        {"lr": lr - 0.5, "guide": guide - 0.5},
    ):
        assert np.isfinite(jitted(name)(changed, model)).all()


@pytest.mark.parametrize("name", NAMES)
def test_constant_pair_stays_constant(name, simulate):
    _, observation, model = simulate(*HS_MS)
    flat = {key: jnp.full_like(image, 0.3) for key, image in observation.items()}
    np.testing.assert_allclose(jitted(name)(flat, model), 0.3, atol=5e-3)


@pytest.mark.parametrize("name", ["mtf_glp", *NEED_RESPONSE])
def test_unknown_response(name, simulate):
    bands, guide_bands, grid = PAN
    _, observation, model = simulate(bands, guide_bands, grid, batch=1)
    blind = model.replace(operators={"lr": None, "guide": model["guide"]})
    if name in NEED_RESPONSE:
        with pytest.raises(InputError, match=r"'lr' is not known.*estimate"):
            function(name)(observation, blind)
    else:
        typical = SpatialResponse(mtf_psf(0.3, grid), grid.ratio, grid.phase)
        given = model.replace(operators={"lr": typical, "guide": model["guide"]})
        np.testing.assert_allclose(function(name)(observation, blind), function(name)(observation, given), atol=1e-6)


@pytest.mark.parametrize("name", ["brovey", *NEED_RESPONSE])
def test_unknown_spectral_response(name, simulate):
    _, observation, model = simulate(*PAN, batch=1)
    with pytest.raises(InputError, match=r"'guide' is not known.*estimate"):
        function(name)(observation, model.replace(operators={"lr": model["lr"], "guide": None}))


@pytest.mark.parametrize("name", LOCAL)
def test_local_systems_see_no_further_than_they_say(name):
    ratio, local = 4, ROWS[name].local
    height, width, reach = 2 * ratio, ratio * (local + 4), ratio * local
    srf = jnp.asarray([[0.7, 0.3, 0.0], [0.0, 0.4, 0.6]])
    grid = Grid.nested(ratio)
    response = SpatialResponse(gaussian_psf(1.0, grid), ratio, grid.phase)
    model = ObservationModel({"lr": response, "guide": SpectralResponse(srf)}, grid)
    rng = np.random.default_rng(0)
    lr = jnp.asarray(rng.uniform(0.2, 1, (1, 2, width // ratio, 3)), jnp.float32)
    guide = jnp.asarray(rng.uniform(0.2, 1, (1, height, width, 2)), jnp.float32)
    product = jitted(name)({"lr": lr, "guide": guide}, model)
    changed = jitted(name)({"lr": lr.at[:, :, 0].add(1), "guide": guide.at[:, :, :ratio].add(1)}, model)
    difference = np.abs(np.asarray(product - changed)).max((0, 1, 3))
    assert difference[:ratio].max() > 1e-2
    assert difference[ratio + reach :].max() == 0
