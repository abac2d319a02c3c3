"""Weights come back as they were, and no other file is taken for them."""

import numpy as np
import pytest
import toys

from jfusion import catalogue
from jfusion.catalogue import Bands
from jfusion.errors import InputError
from jfusion.inference.run import trained
from jfusion.training import weights
from jfusion.training.loop import Network, build, train


def test_weights_round_trip(tmp_path) -> None:
    data = toys.simulation()
    system = catalogue.get("fusionnet")
    sizes = system.method.tiny  # type: ignore[union-attr]
    bands = Bands.of(data.observation, data.model)
    network = Network(system, bands, sizes, build(system, bands, seed=5, sizes=sizes), scale=2.5)
    path = tmp_path / "net.safetensors"
    weights.save(path, network)
    loaded = weights.load(path)
    np.testing.assert_array_equal(loaded(data.observation, data.model), network(data.observation, data.model))
    assert trained(system, data.observation, data.model, weights=network) == (network, "")
    with pytest.raises(InputError, match="of fusionnet, but pannet"):
        trained(catalogue.get("pannet"), data.observation, data.model, weights=network)
    with pytest.raises(InputError, match="built for"):
        loaded({**data.observation, "lr": data.observation["lr"][..., :2]}, data.model)
    with pytest.raises(InputError, match="common extent"):
        loaded({**data.observation, "guide": data.observation["guide"][:, 1:]}, data.model)


def test_parameters_that_are_single_numbers_come_back(tmp_path) -> None:
    bands = Bands(3, 1, 2)
    system = catalogue.get("lgteun")
    sizes = system.method.tiny  # type: ignore[union-attr]
    network = Network(system, bands, sizes, build(system, bands, sizes=sizes), scale=1.0)
    network.module.stages[0].eta[...] = 0.25
    weights.save(tmp_path / "net.safetensors", network)
    eta = weights.load(tmp_path / "net.safetensors").module.stages[0].eta[...]
    assert eta.shape == ()
    assert float(eta) == 0.25


def test_a_network_that_is_in_no_catalogue_is_loaded_with_its_row(tmp_path) -> None:
    bands, path = Bands(3, 1, 2), tmp_path / "net.safetensors"
    mine = toys.row("mine")
    weights.save(path, Network(mine, bands, {"width": 2}, build(mine, bands, seed=5, sizes={"width": 2}), scale=2.5))
    loaded = weights.load(path, mine)
    assert loaded.system is mine
    assert toys.digest(loaded) == toys.digest(Network(mine, bands, {}, build(mine, bands, 5, {"width": 2}), 2.5))
    with pytest.raises(InputError, match="no catalogue has"):
        weights.load(path)
    with pytest.raises(InputError, match="weights of mine, but theirs"):
        weights.load(path, toys.row("theirs"))


def test_sizes_that_no_file_keeps_are_refused_before_training() -> None:
    with pytest.raises(InputError, match="which a weights file keeps"):
        train(toys.row("mine"), toys.simulation(), sizes={"width": np.tanh}, steps=1)


@pytest.mark.parametrize("content", [b"", b"not weights", b"\x08\0\0\0\0\0\0\0{}      "])
def test_other_files_are_no_weights(tmp_path, content: bytes) -> None:
    path = tmp_path / "net.safetensors"
    path.write_bytes(content)
    with pytest.raises(InputError, match="not a weights file"):
        weights.load(path)
    with pytest.raises(InputError, match="no weights file"):
        weights.load(tmp_path / "missing")
