"""The same code on eight devices and in two processes; twenty kills at random moments spoil nothing."""

import json
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import optax
import pytest
import toys

from jfusion.training.loop import train
from jfusion.training.step import Devices

CHILDREN = [sys.executable, str(Path(__file__).with_name("children.py"))]


def answer(*arguments: str) -> dict:
    done = subprocess.run([*CHILDREN, *arguments], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_eight_devices_are_one() -> None:
    """One step of plain descent, under pmap and under shard_map: gradients, parameters and statistics agree.

    Six patches use six of eight devices; five held-out images are padded to eight, and the padding does not count.
    """
    found = answer("eight")
    assert set(found) == {"plain_pmap", "shard_map", "gan_pmap", "six_on_eight", "five_judged_on_eight"}
    assert max(found.values()) < 1e-5, found


def test_a_run_of_eight_devices_goes_on_on_fewer(tmp_path, monkeypatch) -> None:
    child = subprocess.run([*CHILDREN, "eight_stopped", str(tmp_path / "two")], timeout=300)
    assert child.returncode == 143
    shutil.copytree(tmp_path / "two", tmp_path / "one")
    system, settings = toys.row(optimiser=lambda n: optax.sgd(0.1)), {"steps": 4, "batch": 8}
    whole = train(system, toys.simulation(), **settings)
    assert len(Devices.of(8).devices) == 2
    for count in ("two", "one"):
        if count == "one":
            monkeypatch.setattr(Devices, "of", lambda *_: Devices((jax.devices()[0],)))
        result = train(system, toys.simulation(), **settings, folder=tmp_path / count)
        assert {path.name for path in (tmp_path / count / "checkpoints").iterdir()} == {"2", "4"}
        for a, b in zip(toys.arrays(result.network), toys.arrays(whole.network), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-5)


def test_two_processes_are_one(tmp_path) -> None:
    """They share the batches, the first writes the checkpoints, and when one is told to stop both do, at one step."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    pair = [
        subprocess.Popen([*CHILDREN, "pair", process, port, str(tmp_path)], stderr=subprocess.PIPE) for process in "01"
    ]
    said = [child.communicate(timeout=200)[1].decode()[-3000:] for child in pair]
    assert [child.returncode for child in pair] == [143, 143], said
    alone = train(
        toys.row(optimiser=lambda n: optax.sgd(0.1)), toys.simulation(), steps=3, every=2, folder=tmp_path / "alone",
        validation=toys.simulation(3, 8, seed=5),
    )  # fmt: skip
    together = np.load(tmp_path / "pair.npz")
    np.testing.assert_allclose(together["losses"], alone.losses, atol=1e-5)
    for k, array in enumerate(toys.arrays(alone.network)):
        np.testing.assert_allclose(together[f"arr_{k}"], array, atol=1e-5)
    records = [json.loads((tmp_path / f / "checkpoints/3/record.json").read_text()) for f in ("run", "alone")]
    assert records[0]["history"]["best"] == pytest.approx(records[1]["history"]["best"], abs=1e-5)
    assert len(list((tmp_path / "told" / "checkpoints").iterdir())) == 1
    assert jax.process_count() == 1


def test_no_kill_spoils_a_run(tmp_path) -> None:
    found = answer("kills", str(tmp_path))
    whole, killed, stopped = found["digests"]
    assert killed == whole
    assert stopped == whole
    assert found["stop"]["code"] == 143
    assert found["stop"]["saved"] == found["stop"]["last"] == 7
    story, every = found["story"], 3
    assert len(story) == 20
    for kill in story:
        assert kill["code"] == -9
        if kill["steps"]:  # it went on from the newest checkpoint, and lost at most the save that was being written
            assert kill["steps"][0] == kill["before"] + 1
            assert kill["steps"][-1] - kill["after"] <= 2 * every
        else:
            assert kill["after"] == kill["before"]
    assert any(kill["unfinished"] for kill in story)
    assert any(kill["after"] > kill["before"] for kill in story)
