"""The experiment on many sensors, without its trainings."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments import many_sensors
from experiments.many_sensors import CASES, HELD_OUT, Settings, markdown
from jfusion import sensors
from jfusion.operators import relative_residual
from jfusion.training.many_sensors import ManySensors

WAVELENGTHS = np.linspace(420, 950, 12)
IMAGE = np.random.default_rng(0).uniform(0.1, 0.6, (32, 32, 12)).astype(np.float32)


def test_training_for_many_sensors_sees_none_that_is_judged() -> None:
    judged = {ours.guide for ours, _ in CASES.values()}
    assert all(name.startswith(HELD_OUT) for name in judged)
    seen = [name for name in sensors.names() if not name.startswith(HELD_OUT)]
    assert len(seen) > 15
    assert not judged & set(seen)
    assert 5 in {ours.ratio for ours, _ in CASES.values()} - set(ManySensors.ratios)


def test_every_pair_can_be_made_and_its_rival_has_the_same_bands_and_ratio() -> None:
    for ours, other in CASES.values():
        assert (len(ours.bands), ours.ratio) == (len(other.bands), other.ratio)
        made = ours.see(IMAGE, WAVELENGTHS, 0)
        assert made.observation["guide"].shape[-1] == len(ours.bands)
        assert made.observation["lr"].shape[1] == 32 // ours.ratio
        assert float(relative_residual(made.model(made.target)["lr"], made.observation["lr"])[0]) < 0.03


def test_a_training_goes_on_in_its_folder_under_its_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that `jfusion.training.loop.train` refuses to go on with others."""
    asked: list[dict[str, Any]] = []

    class Stopped(Exception):
        pass

    def train(system, data, **options):
        asked.append(options)
        raise Stopped

    monkeypatch.setattr(many_sensors, "train", train)
    with pytest.raises(Stopped):
        many_sensors.main(Settings(out=tmp_path, steps=7, seed=3))
    assert asked[0]["folder"] == tmp_path / "many"
    assert (asked[0]["steps"], asked[0]["seed"]) == (7, 3)
    assert asked[0].get("resume", True)


def test_table_has_a_line_for_each_pair() -> None:
    rows = [{"sensors": "A", "found": {"cubic": {"PSNR": 20.0, "SAM": 3.0}, "SUN": {"PSNR": 30.0, "SAM": 1.0}}}]
    assert markdown(rows) == "| sensors | cubic | SUN |\n| --- | --- | --- |\n| A | 20.00 / 3.00 | 30.00 / 1.00 |\n"
