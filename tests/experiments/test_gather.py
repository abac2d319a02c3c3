"""Finished runs become one table, with the commands that repeat them."""

import dataclasses
import json
from pathlib import Path

import pytest
import tyro

from experiments import fusionnet, mhf_net
from experiments.gather import markdown, read, unlike
from experiments.runner import Experiment
from jfusion.errors import InputError
from jfusion.report.results import Row, write_results


def finished(folder: Path, system: str, experiment: Experiment, values: dict[str, float], protocol: dict) -> Path:
    folder.mkdir()
    rows = [
        Row(
            "place",
            "pansharpening",
            name,
            "classical",
            protocol,
            {"PSNR": value, "SAM": 1.0},
            None,
            1.0,
            None,
            "x",
            "y",
        )
        for name, value in values.items()
    ]
    write_results(folder / "results.json", rows)
    record = {"system": system, "experiment": dataclasses.asdict(experiment), "environment": {"jax": "1"}}
    (folder / "experiment.json").write_text(json.dumps(record, default=str))
    return folder


def test_runs_of_one_place_are_joined(tmp_path) -> None:
    first = dataclasses.replace(fusionnet.EXPERIMENT, steps=7, turn=True, out=Path("elsewhere"))
    protocol = dataclasses.replace(mhf_net.PAPER.protocol, ratio=8, guide_bands=("red", "blue"))
    second = dataclasses.replace(mhf_net.PAPER, seed=2, protocol=protocol)
    runs = [
        finished(tmp_path / "a", "fusionnet", first, {"cubic": 9.0, "fusionnet": 11.0}, {"ratio": 2}),
        finished(tmp_path / "b", "mhf_net", second, {"cubic": 9.0, "mhf_net": 12.0}, {"ratio": 2}),
    ]
    lines = markdown([read(folder) for folder in runs]).splitlines()
    assert [line.split(" | ")[0].removeprefix("| ") for line in lines[4:7]] == ["cubic", "mhf_net", "fusionnet"]
    assert "**12.00**" in lines[5]
    assert "python -m experiments.fusionnet --data landsat8_momotombo --steps 7 --turn" in lines
    words = next(line for line in lines if "experiments.mhf_net" in line).split()[3:]
    assert tyro.cli(Experiment, default=mhf_net.PAPER, args=words) == second
    other = finished(tmp_path / "c", "mhf_net", second, {"cubic": 9.0}, {"ratio": 4})
    with pytest.raises(InputError, match="another protocol"):
        markdown([read(runs[0]), read(other)])
    with pytest.raises(InputError, match="finished run"):
        read(tmp_path)


def test_seeds_of_one_system_make_one_line(tmp_path) -> None:
    runs = [
        finished(tmp_path / str(seed), "mhf_net", dataclasses.replace(mhf_net.EXPERIMENT, seed=seed, steps=9),
                 {"cubic": 9.0, "mhf_net": value}, {"ratio": 2})
        for seed, value in ((0, 11.0), (1, 13.0))
    ]  # fmt: skip
    lines = markdown([read(folder) for folder in runs]).splitlines()
    assert "12.00** ± 1.41" in lines[5]
    assert lines[5].endswith("| 2 seeds |")
    assert "python -m experiments.mhf_net --data jasper_ridge --steps 9  # and --seed 1" in lines
    other = finished(tmp_path / "c", "mhf_net", mhf_net.EXPERIMENT, {"cubic": 9.0, "mhf_net": 1.0}, {"ratio": 2})
    with pytest.raises(InputError, match="steps was 9 and is now None"):
        markdown([read(runs[0]), read(other)])


def test_a_budget_tells_runs_apart_unless_a_training_ended_within_it(tmp_path) -> None:
    experiment = dataclasses.replace(mhf_net.EXPERIMENT, budget=60.0)
    fitted = read(finished(tmp_path / "a", "mhf_net", experiment, {"mhf_net": 11.0}, {"ratio": 2}))
    trained = dataclasses.replace(fitted, record={**fitted.record, "training": {"steps": 7, "seconds": 50.0}})
    assert unlike(trained, {**trained.used, "budget": 600.0, "seed": 1}) == []
    assert unlike(trained, {**trained.used, "budget": None}) == []
    assert unlike(trained, {**trained.used, "budget": 40.0}) == ["budget was 60.0 and is now 40.0"]
    assert unlike(fitted, {**fitted.used, "budget": 600.0}) == ["budget was 60.0 and is now 600.0"]
    other = dataclasses.replace(experiment, budget=600.0, seed=1)
    longer = read(finished(tmp_path / "b", "mhf_net", other, {"mhf_net": 12.0}, {"ratio": 2}))
    with pytest.raises(InputError, match="budget was"):
        markdown([fitted, longer])
