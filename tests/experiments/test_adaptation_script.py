"""The experiment on adaptation, without its trainings."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from experiments import adaptation
from experiments.adaptation import Settings, main, markdown
from experiments.places import place
from jfusion.demo import JASPER
from jfusion.errors import InputError
from jfusion.operators import upsample


def test_networks_learn_elsewhere_and_adapt_without_truth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What they adapt to is what the sensors gave of the place where they are judged."""
    learned: list[Any] = []
    adapted: list[Any] = []

    def network(observation: Any, model: Any) -> Any:
        return upsample(observation["lr"], model.grid)

    def train(system: Any, data: Any, **options: Any) -> Any:
        learned.append((data, options))
        return SimpleNamespace(network=network)

    def adapt(network: Any, observation: Any, model: Any, **options: Any) -> Any:
        adapted.append((observation, options))
        return SimpleNamespace(best=network)

    monkeypatch.setattr(adaptation, "train", train)
    monkeypatch.setattr(adaptation, "adapt", adapt)
    monkeypatch.setattr(adaptation, "CLASSICAL", ("cubic",))
    main(Settings(out=tmp_path, systems=("fusionnet",), steps=7, further=3, seed=5))
    there = place("landsat8_liverpool", JASPER)
    np.testing.assert_array_equal(learned[0][0].target, place("landsat8_momotombo", JASPER).learn.target)
    np.testing.assert_array_equal(learned[1][0].target, there.learn.target[..., 1:7])
    ((observation, options),) = adapted
    assert set(observation) == {"lr", "guide"}
    np.testing.assert_array_equal(observation["lr"], there.test.observation["lr"][..., 1:7])
    assert [o["steps"] for o in (learned[0][1], options)] == [7, 3]
    assert len({o["folder"] for o in (learned[0][1], learned[1][1], options)}) == 3
    lines = (tmp_path / "table.md").read_text().splitlines()
    assert [line.split(" | ")[0] for line in lines] == ["| system", "| ---", "| cubic", "| fusionnet"]


def test_what_learns_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="gsa is not a network"):
        main(Settings(out=tmp_path, systems=("gsa",)))


def test_table_has_a_line_for_each_system() -> None:
    found = {"cubic": {"as it came": {"PSNR": 20.0, "SAM": 3.0}}, "sun": {"adapted": {"PSNR": 30.0, "SAM": 1.0}}}
    assert markdown(found).splitlines()[2:] == ["| cubic | 20.00 / 3.00 | – | – |", "| sun | – | 30.00 / 1.00 | – |"]
