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
    monkeypatch.setattr(adaptation, "LEARNING", {"pannet": {"steps": 7, "pace": 4.0}})
    main(Settings(out=tmp_path, further=3, seed=5))
    there = place("landsat8_liverpool", JASPER, judge=adaptation.ALL)
    ((data, learning),), ((observation, adapting),) = learned, adapted
    np.testing.assert_array_equal(data.target, place("landsat8_momotombo", JASPER).learn.target)
    assert set(observation) == {"lr", "guide"}
    np.testing.assert_array_equal(observation["lr"], there.test.observation["lr"][..., 1:7])
    assert [(o["steps"], o["pace"], o["seed"]) for o in (learning, adapting)] == [(7, 4.0, 5), (3, 0.4, 5)]
    assert learning["folder"] != adapting["folder"]
    lines = (tmp_path / "table.md").read_text().splitlines()
    assert [line.split(" | ")[0] for line in lines] == ["| system", "| ---", "| cubic", "| pannet"]


def test_table_has_a_line_for_each_system() -> None:
    found = {"cubic": {"as it came": {"PSNR": 20.0, "SAM": 3.0}}, "sun": {"adapted": {"PSNR": 30.0, "SAM": 1.0}}}
    assert markdown(found).splitlines()[2:] == ["| cubic | 20.00 / 3.00 | – |", "| sun | – | 30.00 / 1.00 |"]
