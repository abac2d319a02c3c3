"""A checkpoint is whole or not there, and what is not as it was written is noticed."""

import errno
import pickle
import resource
import shutil
import threading
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import toys
from flax import nnx

from jfusion.catalogue import Bands
from jfusion.errors import InputError, RunError
from jfusion.training import checkpoints as module
from jfusion.training.checkpoints import Checkpoints
from jfusion.training.players import make_players
from jfusion.training.step import begin

STATE = {"p": (jnp.arange(5.0), jnp.asarray(3)), "key": jax.random.key(3), "half": jnp.ones((3, 2), jnp.bfloat16)}
RECORD = {"losses": [1.0, 0.1], "best": None, "text": "é"}


def write(folder: Path, *steps: int, best: int = 0) -> Checkpoints:
    checkpoints = Checkpoints(folder)
    checkpoints.best = best
    for step in steps:
        checkpoints.save(step, STATE, {**RECORD, "step": step})
    checkpoints.wait()
    return checkpoints


def test_what_is_saved_comes_back(tmp_path) -> None:
    checkpoints = write(tmp_path / "c", 7)
    assert checkpoints.newest() == 7
    assert checkpoints.record(7) == {**RECORD, "step": 7}
    back = checkpoints.state(7, STATE)
    assert jax.tree.structure(back) == jax.tree.structure(STATE)
    assert bool((back["key"] == STATE["key"]).all())
    for name in ("p", "half"):
        for a, b in zip(jax.tree.leaves(back[name]), jax.tree.leaves(STATE[name]), strict=True):
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(a, b)
    checkpoints.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("checkpoints")]


def test_a_checkpoint_of_an_earlier_version_is_still_read(tmp_path) -> None:
    """Two steps of the toy network with Adam at 0.01, stored by jfusion 0.1.0 of November 2026."""
    shutil.copytree(Path(__file__).with_name("stored_0_1_0"), tmp_path / "c")
    checkpoints = Checkpoints(tmp_path / "c")
    assert checkpoints.newest() == 2
    assert checkpoints.record(2)["configuration"]["system"] == "toy"
    system, data = toys.row(optimiser=lambda n: optax.adam(0.01)), toys.simulation()
    bands = Bands.of(data.observation, data.model)
    module = system.method.network(bands, rngs=nnx.Rngs(0))
    start = begin(*make_players(system.method, module, bands, 4, 0, {}))
    state = checkpoints.state(2, start)
    assert jax.tree.structure(state) == jax.tree.structure(start)
    assert toys.furthest(start.players, state.players) == pytest.approx(2, abs=1e-5)  # steps that Adam counted
    moved = toys.furthest(start.players["network"].parameters, state.players["network"].parameters)
    assert moved == pytest.approx(0.02, abs=1e-3)
    checkpoints.close()


def test_the_last_two_and_the_best_are_kept(tmp_path) -> None:
    checkpoints = write(tmp_path, 2, 4, 6, 8, 10, best=4)
    assert checkpoints.steps() == [4, 6, 8, 10]  # 6 goes when there is a next one
    assert sorted(path.name for path in tmp_path.iterdir()) == ["10", "4", "6", "8"]
    # a run that goes on from 6 gives up what lay beyond it
    checkpoints.save(7, STATE, RECORD)
    checkpoints.wait()
    assert checkpoints.steps() == [4, 6, 7]
    checkpoints.close()


def test_one_flipped_bit_is_noticed_in_any_file(tmp_path) -> None:
    checkpoints = write(tmp_path, 1, 2)
    files = sorted(path for path in (tmp_path / "2").rglob("*") if path.is_file())
    assert len(files) > 5
    rng = np.random.default_rng(0)
    for path in files:
        content = path.read_bytes()
        flipped = bytearray(content)
        flipped[rng.integers(len(content))] ^= 1 << rng.integers(8)
        for damaged in (bytes(flipped), content[: len(content) // 2], content[:-1], b""):
            path.write_bytes(damaged)
            with pytest.warns(RuntimeWarning, match=r"step 2 .* damaged .* step 1 is used"):
                assert checkpoints.newest() == 1
        path.unlink()
        with pytest.warns(RuntimeWarning, match="damaged"):
            assert checkpoints.newest() == 1
        path.write_bytes(content)
    assert checkpoints.newest() == 2
    (tmp_path / "2" / "more").write_text("x")
    (tmp_path / "1" / "record.json").write_text("{}")
    with pytest.warns(RuntimeWarning, match="damaged"), pytest.raises(RunError, match="all checkpoints"):
        checkpoints.newest()
    checkpoints.close()


def test_nothing_of_a_file_is_executed(tmp_path) -> None:
    """A pickle in the place of any file is damage; the digests that vouch for the rest are JSON."""

    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "executed",))

    checkpoints = write(tmp_path / "c", 1, 2)
    for path in [path for path in (tmp_path / "c" / "2").rglob("*") if path.is_file()]:
        content = path.read_bytes()
        path.write_bytes(pickle.dumps(Evil()))
        with pytest.warns(RuntimeWarning, match="damaged"):
            assert checkpoints.newest() == 1
        path.write_bytes(content)
    assert not (tmp_path / "executed").exists()
    checkpoints.close()


def test_left_overs_are_no_checkpoints_and_go(tmp_path) -> None:
    write(tmp_path, 3).close()
    for name in ("unfinished-4", "deleted-1"):
        (tmp_path / name / "state").mkdir(parents=True)
    checkpoints = Checkpoints(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["3"]
    assert checkpoints.newest() == 3
    checkpoints.close()


def test_the_best_is_kept_until_there_is_a_better_one(tmp_path, monkeypatch) -> None:
    """A write that fails takes no checkpoint away."""
    checkpoints = write(tmp_path, 2, 4, 6, 8, best=2)
    checkpoints.best = 10
    monkeypatch.setattr(Path, "rename", lambda *_: 1 / 0)
    checkpoints.save(10, STATE, RECORD)
    with pytest.raises(RunError, match="step 8 is intact"):
        checkpoints.wait()
    monkeypatch.undo()
    assert checkpoints.steps() == [2, 4, 6, 8]
    checkpoints.save(10, STATE, RECORD)
    checkpoints.wait()
    assert checkpoints.steps() == [6, 8, 10]
    checkpoints.close()


@pytest.mark.parametrize("call", ["mkdir", "rename", "fsync", "arrays"])
def test_a_full_disk_is_one_sentence_and_leaves_the_one_before(tmp_path, monkeypatch, call: str) -> None:
    checkpoints = write(tmp_path, 3)

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    if call == "arrays":  # the limit holds for TensorStore's own files too
        state = {"x": np.random.default_rng(0).random(2**20)}
        resource.setrlimit(resource.RLIMIT_FSIZE, (2**22, limits[1]))
    else:
        state = STATE
        monkeypatch.setattr(module.os if call == "fsync" else Path, call, full)
    try:
        checkpoints.save(6, state, RECORD)
        with pytest.raises(RunError) as caught:
            checkpoints.wait()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        monkeypatch.undo()
    text = str(caught.value)
    assert "step 6" in text
    assert "step 3 is intact" in text
    assert "\n" not in text
    assert [path.name for path in tmp_path.iterdir()] == ["3"]
    assert checkpoints.newest() == 3
    checkpoints.save(6, STATE, RECORD)  # and when there is space again
    checkpoints.wait()
    assert checkpoints.newest() == 6
    checkpoints.close()


def test_a_folder_that_cannot_be_made_is_said_at_once(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be made"):
        Checkpoints(tmp_path / "file" / "run")
