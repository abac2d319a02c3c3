"""The script that fuses blind runs, and what it keeps back is found from the pair."""

from pathlib import Path

import numpy as np
import pytest

from experiments.blind import LEAST_BANDS, WAYS, Line, Settings, draw, main, summary
from jfusion import catalogue
from jfusion.errors import InputError
from jfusion.inference.run import completed
from jfusion.operators import SpectralResponse
from jfusion.report.compare import sensor_errors


def test_draws_differ_and_errors_are_relative() -> None:
    one, other = (draw("aviris_california", seed, smoke=True) for seed in (0, 1))
    assert min(pair.observation["guide"].shape[-1] for pair in (one, other)) >= LEAST_BANDS
    assert not np.allclose(one.observation["lr"], other.observation["lr"])
    lr, true = one.observation["lr"], one.model
    assert max(sensor_errors(true, true, lr).values()) == 0
    response = true.operators["guide"]
    assert isinstance(response, SpectralResponse)
    twice = true.replace(operators=true.operators | {"guide": SpectralResponse(2 * response.srf)})
    assert sensor_errors(twice, true, lr) == pytest.approx({"PSF error": 0, "SRF error": 1, "SRF error on lr": 1})


def test_estimating_leaves_what_the_tables_say() -> None:
    pair = draw("aviris_california", 0, smoke=True)
    system = catalogue.get("fuse")
    assert completed(system, pair.observation, pair.model) == (pair.model, "")
    model, note = completed(system, pair.observation, pair.model, estimating=True)
    assert note
    assert 0 < sensor_errors(model, pair.model, pair.observation["lr"])["PSF error"] < 0.5


def test_script_runs(tmp_path: Path) -> None:
    table = main(Settings(seeds=(0,), out=tmp_path, smoke=True)).read_text()
    (row,) = [line.split(" | ") for line in table.splitlines() if line.startswith("| jasper_ridge")]
    estimated, learned = (float(value) for value in row[7].split(" / "))
    assert estimated < 0.3 < learned


def test_summary_counts_what_is_within_one_decibel() -> None:
    values = [dict(zip(WAYS, psnr, strict=True)) for psnr in ((30.0, 29.5, 27.0), (30.0, 30.5, 29.5))]
    lines = list(summary([Line("scene", "miae", seed, 3, psnr, {}) for seed, psnr in enumerate(values)]))
    assert "0.00 dB behind the true sensors in the mean, 0.50 dB at most, within 1 dB in 2 of 2" in lines[0]
    assert "1.75 dB behind the true sensors in the mean, 3.00 dB at most, within 1 dB in 1 of 2" in lines[1]


def test_what_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--scenes must be among jasper_ridge"):
        main(Settings(scenes=("mars",), out=tmp_path))
