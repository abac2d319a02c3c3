"""Rows of results: their file, their ranks, their table."""

import dataclasses
import io
import json
import math
import re

import pytest
from rich.console import Console

from jfusion.errors import InputError
from jfusion.metrics import WITH_REFERENCE, WITHOUT_REFERENCE
from jfusion.report import Row, read_results, table, write_results
from jfusion.report.results import display, leading_metric, metric_names, places, seconds_text
from jfusion.tasks import TASKS


def row(system="gsa", family="classical", parameters=None, memory=None, **metrics):
    return Row(
        "lake", "hs_ms", system, family, {"ratio": 4, "noise": None}, metrics, parameters, 1.25, memory,
        f"{system}.tif", "reference.tif", "",
    )  # fmt: skip


def test_rows_survive_their_file(tmp_path):
    rows = [row(PSNR=31.25, SAM=2.5), row("mhf_net", "unrolled", 1234, 512.5, PSNR=40.0, SAM=1.0)]
    write_results(tmp_path / "results.json", rows)
    assert read_results(tmp_path / "results.json") == rows
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]


def test_what_json_cannot_say_becomes_null(tmp_path):
    odd = row(PSNR=math.nan, SSIM=math.inf)
    odd = dataclasses.replace(odd, protocol={"limits": [1.0, math.inf]}, seconds=math.nan)
    write_results(tmp_path / "results.json", [odd])

    def refuse(constant):
        raise AssertionError(constant)

    stored = json.loads((tmp_path / "results.json").read_text(), parse_constant=refuse)
    assert stored[0]["metrics"] == {"PSNR": None, "SSIM": None}
    assert stored[0]["protocol"] == {"limits": [1.0, None]}
    again = read_results(tmp_path / "results.json")[0]
    assert math.isnan(again.metrics["PSNR"])
    assert math.isnan(again.seconds)


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "results.json"
    write_results(path, [row(PSNR=30.0)])
    before = path.read_text()
    with pytest.raises(InputError, match="JSON"):
        write_results(path, [dataclasses.replace(row(PSNR=1.0), protocol={"kernel": object()})])
    assert path.read_text() == before
    assert [p.name for p in tmp_path.iterdir()] == ["results.json"]


@pytest.mark.parametrize("text", ["", "{", "{}x", '[{"scene": "lake"}]', "[1]", '{"scene": "lake"}'])
def test_a_file_that_holds_no_rows_is_refused(tmp_path, text):
    (tmp_path / "results.json").write_text(text)
    with pytest.raises(InputError, match="results file"):
        read_results(tmp_path / "results.json")


def test_columns_follow_the_task_and_not_the_alphabet():
    assert metric_names([row(CC=0.9, custom=1.0, ERGAS=2.0, SAM=1.0), row(PSNR=30.0)]) == [
        "PSNR", "SAM", "ERGAS", "CC", "custom",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("metric", "values", "expected"),
    [
        ("PSNR", [30.0, 40.0, 35.0], [None, 1, 2]),
        ("SAM", [3.0, 1.0, 2.0], [None, 1, 2]),
        ("residual lr", [0.3, 0.1, 0.2], [None, 1, 2]),
        ("PSNR", [40.001, 40.002, 30.0], [1, 1, 2]),
        ("PSNR", [math.nan, 30.0, 31.0], [None, 2, 1]),
        ("PSNR", [math.nan, 30.0], [None, None]),
        ("custom", [1.0, 2.0], [None, None]),
    ],
)
def test_places(metric, values, expected):
    assert places(metric, values) == expected


def test_the_leading_metric_is_one_that_ranks():
    assert leading_metric([row(custom=1.0, PSNR=math.nan, SAM=2.0)]) == "SAM"
    assert leading_metric([row(custom=1.0)]) is None


@pytest.mark.parametrize(
    ("metric", "value", "text"),
    [
        ("PSNR", 31.256, "31.26"),
        ("SAM", 2.0, "2.00"),
        ("SSIM", 0.98765, "0.9877"),
        ("RMSE", 0.0123456, "0.01235"),
        ("RMSE", 1234.56, "1,234.6"),
        ("RMSE", 1.5e-6, "1.5e−06"),
        ("SCC", -0.5, "−0.5000"),
        ("PSNR", math.nan, "–"),
        ("PSNR", math.inf, "∞"),
    ],
)
def test_numbers_read_as_the_field_writes_them(metric, value, text):
    assert display(metric).text(value) == text


def test_short_times_keep_their_digits():
    assert [seconds_text(s) for s in (0.0042, 2.34, 61.25, 1234.5, math.nan)] == ["0.0042", "2.3", "61.2", "1,234", "–"]


@pytest.mark.parametrize("metric", [*WITH_REFERENCE.values(), *WITHOUT_REFERENCE.values()], ids=lambda m: m.name)
def test_every_metric_is_shown_with_its_own_direction(metric):
    assert display(metric.name).best == metric.best


def test_the_trivial_system_is_known():
    assert all(dataclasses.replace(row(task.baseline), task=task.name).is_baseline for task in TASKS.values())
    assert not row("gsa").is_baseline


def test_terminal_table_marks_best_and_second():
    rows = [row("cubic", PSNR=30.0), row("gsa", PSNR=35.0), row("mhf_net", "unrolled", 1234567, 99.6, PSNR=40.0)]
    stream = io.StringIO()
    Console(file=stream, force_terminal=True, width=100, color_system="standard").print(table(rows))
    shown = stream.getvalue()
    assert "PSNR ↑" in shown
    assert "1,234,567" in shown
    assert re.search(r"\x1b\[1m *40\.00", shown)
    assert re.search(r"\x1b\[4m *35\.00", shown)
    assert all(name in shown for name in ("cubic", "gsa", "mhf_net"))
