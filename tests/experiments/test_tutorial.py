"""The tutorial's network, small and for two steps."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from experiments import compare, own
from experiments.places import place
from experiments.runner import Experiment, run
from experiments.tutorial import MINE, rows
from jfusion import catalogue
from jfusion.data.simulate import Protocol
from jfusion.errors import InputError
from jfusion.training import weights
from jfusion.training.loop import train


def test_network_learns_and_is_read_turn_by_turn() -> None:
    protocol = Protocol(ratio=2, guide_sensor="landsat8_oli", guide_bands=("B2", "B3"), lr_snr_db=35, guide_snr_db=40)
    where = place("neon_sjer", protocol)
    before = np.asarray(where.test.target)
    result = train(MINE, where.learn, steps=2, patch=8, batch=2, sizes={"stages": 2, "width": 4}, turn=False)
    assert np.isfinite(result.losses).all()
    found = rows(result.network, where)
    assert [name for name, _, _ in found] == ["cubic", "fuse", "mine, turn 1", "mine, turn 2"]
    for _, product, told in found[2:]:
        assert product.shape == before.shape
        assert "lr 100" in told
        assert "misses" in told


@pytest.fixture
def forgotten() -> Iterator[None]:
    """The row of the tutorial, which no other test shall meet."""
    yield
    catalogue.systems().pop("mine", None)


@pytest.mark.usefixtures("forgotten")
def test_a_row_of_ones_own_goes_through_the_papers_protocol(tmp_path: Path) -> None:
    assert own.named(["experiments.tutorial:MINE", "--smoke"]) == "mine"
    assert catalogue.get("mine") is catalogue.get("experiments.tutorial:MINE") is MINE
    assert all(planned.system != "mine" for planned in compare.planned(compare.Settings()))
    run(Experiment(smoke=True, out=tmp_path / "run"), "mine")
    assert (tmp_path / "run" / "index.html").exists()
    assert weights.load(tmp_path / "run" / "weights.safetensors").system is MINE


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_module:MINE", "no_module"),
        ("experiments.tutorial:NONE", "NONE"),
        ("experiments.tutorial:TRUST", "must be a System, but is a float"),
    ],
)
def test_what_is_no_row_is_told(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        catalogue.get(name)
    with pytest.raises(InputError, match="say first which system"):
        own.named(["--smoke"])
