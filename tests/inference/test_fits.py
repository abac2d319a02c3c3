"""Fits that are stopped and go on: the same product, bit for bit, whatever ended them."""

import dataclasses
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jfusion import catalogue
from jfusion.errors import InputError
from jfusion.inference import fits
from jfusion.inference.run import run
from jfusion.operators import Grid, Identity, ObservationModel

MIAE = catalogue.get("miae")
STEPS = 60
SETTINGS = {"effort": STEPS / 15_000, "sizes": {"endmembers": 4}}
"""20 steps for the sensors and 40 for the image."""


def blind() -> tuple[dict[str, jax.Array], ObservationModel]:
    rng = np.random.default_rng(0)
    guide = rng.random((1, 8, 8, 2)).astype(np.float32)
    lr = guide.reshape(1, 4, 2, 4, 2, 2).mean((2, 4)) @ rng.random((2, 3)).astype(np.float32)
    images = {"lr": jnp.asarray(lr), "guide": jnp.asarray(guide)}
    return images, ObservationModel({"lr": None, "guide": None}, Grid.nested(2))


def in_child(folder: Path) -> None:
    """What the child does: it saves after every loop, and lets each take a second."""
    fits.SECONDS = 0.0
    fits.fit(MIAE, *blind(), jax.random.key(0), **SETTINGS, folder=folder, progress=lambda *_: time.sleep(1))


def newest_in(folder: Path) -> int:
    """The step of the newest checkpoint, 0 where there is none; which steps are saved depends on their pace."""
    return max((int(path.name) for path in folder.glob("checkpoints/*") if path.name.isdigit()), default=0)


def ended_at(step: int):
    def progress(done: int, total: int, values) -> None:
        if done >= step:
            os.kill(os.getpid(), signal.SIGTERM)

    return progress


@pytest.mark.parametrize("members", [None, 2])
def test_told_to_stop_it_saves_and_goes_on_from_there(tmp_path: Path, members: int | None) -> None:
    key = jax.random.key(0) if members is None else jax.random.split(jax.random.key(0), members)
    whole, course = fits.fit(MIAE, *blind(), key, **SETTINGS)
    assert course.share == 1
    for step in (1, STEPS // 2):
        with pytest.raises(SystemExit) as ended:
            fits.fit(MIAE, *blind(), key, **SETTINGS, folder=tmp_path / "run", progress=ended_at(step))
        assert ended.value.code == 143
    calls: list[int] = []
    done, _ = fits.fit(MIAE, *blind(), key, **SETTINGS, folder=tmp_path / "run", progress=lambda d, *_: calls.append(d))
    assert calls[0] > STEPS // 2
    np.testing.assert_array_equal(done.product, whole.product)
    assert whole.losses[-1] == done.losses[-1]


def test_killed_it_goes_on_from_its_last_checkpoint(tmp_path: Path) -> None:
    command = f"import sys; sys.path[:0] = {sys.path!r}; from pathlib import Path; import test_fits; "
    process = subprocess.Popen(
        [sys.executable, "-c", f"{command}test_fits.in_child(Path({str(tmp_path / 'run')!r}))"],
        cwd=Path(__file__).parent,
    )
    deadline = time.monotonic() + 120
    while newest_in(tmp_path / "run") <= 5 and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.05)
    process.kill()
    process.wait()
    calls: list[int] = []
    done, _ = fits.fit(
        MIAE, *blind(), jax.random.key(0), **SETTINGS, folder=tmp_path / "run",
        progress=lambda d, *_: calls.append(d),
    )  # fmt: skip
    assert calls[0] > 5
    np.testing.assert_array_equal(done.product, fits.fit(MIAE, *blind(), jax.random.key(0), **SETTINGS)[0].product)


def test_another_fit_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with pytest.raises(SystemExit):
        run(MIAE, *blind(), **SETTINGS, folder=folder, progress=ended_at(1))
    with pytest.raises(InputError, match=r"effort was .* and is now 0\.5; seed was"):
        run(MIAE, *blind(), **{**SETTINGS, "effort": 0.5}, seed=1, folder=folder)
    images, model = blind()
    with pytest.raises(InputError, match="pair was"):
        run(MIAE, {**images, "lr": 2 * images["lr"]}, model, **SETTINGS, folder=folder)
    grid = dataclasses.replace(model.grid, centre=tuple(c + 0.25 for c in model.grid.centre))
    with pytest.raises(InputError, match="pair was"):
        run(MIAE, images, model.replace(grid=grid), **SETTINGS, folder=folder)
    with pytest.raises(InputError, match="holds a run already"):
        run(MIAE, *blind(), **SETTINGS, folder=folder, resume=False)


def test_what_a_budget_ended_is_not_fitted_again(tmp_path: Path) -> None:
    settings = {**SETTINGS, "budget": 1e-3, "folder": tmp_path / "run"}
    whole, course = fits.fit(MIAE, *blind(), jax.random.key(0), **settings)
    assert (
        course.share < 0.5
    )  # of the steps that were planned, although the first compilation took longer than the budget
    calls: list[int] = []
    done, again = fits.fit(MIAE, *blind(), jax.random.key(0), **settings, progress=lambda d, *_: calls.append(d))
    assert calls == []
    assert again.share == course.share
    np.testing.assert_array_equal(done.product, whole.product)


def test_what_a_budget_ended_is_told() -> None:
    done = run(MIAE, *blind(), **SETTINGS, budget=1e-3)
    assert f" of {STEPS} steps" in done.note
    assert "misses lr by" in done.note


def test_a_budget_is_that_of_all_sittings() -> None:
    keeper = fits.Keeper(None, 4, {"seconds": 30.0}, fits.Course(print))  # type: ignore[arg-type]
    assert keeper.left(None) is None
    assert keeper.left(40.0) == 10
    assert 0 < keeper.left(20.0) < 1


def test_what_is_not_fitted_is_refused() -> None:
    images, model = blind()
    model = model.replace(operators={"lr": Identity(), "guide": Identity()})
    with pytest.raises(InputError, match="gsa is of the family classical"):
        fits.fit(catalogue.get("gsa"), images, model, jax.random.key(0))


def test_options_that_are_none_of_the_network_go_through(scene) -> None:
    system = catalogue.get("hyconet")
    grid = Grid.nested(2)
    model = ObservationModel({"lr": None, "guide": None}, grid)
    pair = {"lr": scene[None, :8, :8], "guide": scene[None, :16, :16, :3]}
    sizes = {**system.method.tiny, "constrained": False}
    done = run(system, pair, model, sizes=sizes, effort=0.0002)
    assert done.parameters == run(system, pair, model, sizes=system.method.tiny, effort=0.0002).parameters
