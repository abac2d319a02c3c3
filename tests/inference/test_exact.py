"""Products of unrolled networks that agree with both images."""

import numpy as np
import pytest

from jfusion import catalogue
from jfusion.catalogue import Bands
from jfusion.data import geotiff, readers, scenes
from jfusion.data.simulate import Protocol, simulate
from jfusion.errors import InputError
from jfusion.inference.fuse import fuse
from jfusion.inference.pair import make_pair
from jfusion.inference.run import completed, run
from jfusion.metrics import consistency
from jfusion.operators import relative_residual
from jfusion.operators.estimate import estimate
from jfusion.training import weights
from jfusion.training.loop import Network, build
from unrolled.stages import consistent

SIZES = {"stages": 2, "width": 4}


@pytest.fixture
def network(tmp_path):
    """File of an untrained network that takes three bands and one guide at ratio 2, on its own free physics."""
    system, bands = catalogue.get("gppnn"), Bands(3, 1, 2)
    path = tmp_path / "gppnn.safetensors"
    weights.save(path, Network(system, bands, SIZES, build(system, bands, sizes=SIZES), 0.3))
    return path


def test_the_product_agrees_with_what_was_seen(network) -> None:
    image = scenes.load("landsat8_tiny")["msi"].select([1, 2, 3])
    truth = image.physical()[:24, :24]
    pair = simulate(truth, image.wavelengths, Protocol(ratio=2, guide_bands=("B8",), seed=1))
    plain, exact = (
        run(catalogue.get("gppnn"), pair.observation, pair.model, weights=weights.load(network), exact=exact)
        for exact in (False, True)
    )
    residuals = [
        max(float(v[0]) for v in consistency(pair.observation, pair.model(done.product)).values())
        for done in (plain, exact)
    ]
    assert residuals[0] > 0.01
    assert residuals[1] < 1e-3
    assert "agrees with guide to 0.01 %" in exact.note


def test_files_are_fused_exactly_in_windows_too(network, tmp_path) -> None:
    """The sensors are estimated, although the network itself does not ask for them."""
    lr, guide = tmp_path / "ms.tif", scenes.path("landsat8_tiny", "pan")
    geotiff.write(lr, scenes.load("landsat8_tiny")["msi"].select([1, 2, 3]))

    def misfit(exact: bool, tile: int | None) -> float:
        out = tmp_path / f"{exact}{tile}.tif"
        done = fuse(lr, guide, out, system="gppnn", weights=network, dtype="float32", exact=exact, tile=tile)
        assert (done.windows > 1) == (tile is not None)
        assert ("estimated from the pair" in done.note) == exact
        product, seen = readers.read(out).physical()[None], readers.read(lr).physical()
        return relative_residual(sensor["lr"](product)[0], seen)

    pair = make_pair(readers.read(lr), readers.read(guide))
    sensor = estimate(pair.observation, pair.model).model
    assert misfit(exact=True, tile=72) < 0.2 * misfit(exact=False, tile=None)


def test_sensors_are_estimated_for_a_network_that_takes_them() -> None:
    images = scenes.load("landsat8_tiny")
    pair = make_pair(images["msi"], images["pan"])
    unknown = pair.model.replace(operators={"lr": None, "guide": None})
    for physics, known in (("free", False), ("exact", True)):
        model, _ = completed(catalogue.get("gppnn"), pair.observation, unknown, sizes={"physics": physics})
        assert model.known is known


def test_only_unrolled_networks_are_asked() -> None:
    pair = simulate(np.ones((8, 8, 3), np.float32), (480.0, 560.0, 655.0), Protocol(ratio=2, guide_bands=("B8",)))
    with pytest.raises(InputError, match="fuse is classical"):
        run(catalogue.get("fuse"), pair.observation, pair.model, exact=True)


def test_a_guide_whose_response_was_estimated_is_not_forced_upon_the_product() -> None:
    """Two bands that are the same mixture of lr but for noise: their difference would be inverted."""
    image = scenes.load("landsat8_tiny")["msi"].select([1, 2, 3])
    pair = simulate(image.physical()[:24, :24], image.wavelengths, Protocol(ratio=2, guide_bands=("B8",), seed=1))
    noise = 0.01 * np.random.default_rng(0).standard_normal(pair.observation["guide"].shape, np.float32)
    observation = {
        **pair.observation,
        "guide": np.concatenate([pair.observation["guide"] + n for n in (noise, -noise)], -1),
    }
    model = estimate(observation, pair.model.replace(operators={**pair.model.operators, "guide": None})).model
    assert model.estimated == ("guide",)
    error = {
        tuple(held.estimated): float(np.sqrt(np.mean((consistent(pair.target, observation, held) - pair.target) ** 2)))
        for held in (model, model.replace(estimated=()))
    }
    assert error["guide",] < 1e-4
    assert error[()] > 0.003
