"""A run that is stopped and goes on is the run that never was stopped; what cannot go on says why."""

import dataclasses
import io
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import toys
from flax import nnx
from jax.experimental.compilation_cache import compilation_cache

from jfusion import catalogue
from jfusion.catalogue import Bands
from jfusion.data.patches import hold_out
from jfusion.data.simulate import reduce
from jfusion.errors import InputError, RunError
from jfusion.operators import Grid, ObservationModel, SpatialResponse, gaussian_psf
from jfusion.progress import bar
from jfusion.training import checkpoints, loop, scalars
from jfusion.training.checkpoints import Checkpoints
from jfusion.training.folder import alone_in, code_of
from jfusion.training.loop import build, train

DATA, HELD_OUT = hold_out(toys.simulation(size=32))


@pytest.fixture(autouse=True, scope="module")
def compiled_once(tmp_path_factory):
    """Runs that go on compile nothing anew."""
    jax.config.update("jax_compilation_cache_dir", str(tmp_path_factory.mktemp("cache")))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    yield
    jax.config.update("jax_compilation_cache_dir", None)
    compilation_cache.reset_cache()


def stop_at(step: int):
    def tell(done: int, total: int, values: object) -> None:
        if done == step:
            os.kill(os.getpid(), signal.SIGTERM)

    return tell


def rows(folder: Path) -> list[dict[str, float]]:
    return [{name: value for name, value in row.items() if name != "time"} for row in scalars.read(folder)]


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def test_patches_agree_with_the_model_that_a_network_reads() -> None:
    """A patch cut out of an image has seen, at its border, what lies around it."""

    def misfit(net, observation, model, target):
        return jnp.mean(jnp.abs(model["lr"](target) - observation["lr"])) + 0 * net.gain.sum()

    plain = toys.row()
    plain = dataclasses.replace(plain, method=dataclasses.replace(plain.method, loss=misfit))
    reading = dataclasses.replace(plain, needs_model=True)
    cases = ((plain, 8), (reading, 8), (reading, 2))  # the last patch is too small for the PSF
    losses = [train(system, DATA, steps=1, patch=patch).losses[-1] for system, patch in cases]
    assert losses[0] > 1e-2
    assert losses[1] < 1e-6
    assert losses[2] > 1e-2


@pytest.mark.parametrize(("longest", "most"), [(1e9, 5), (1e-9, 1)])
def test_a_call_takes_several_steps_where_they_are_short(monkeypatch, longest: float, most: int) -> None:
    """From the first report on, and never past a report, a look at the held-out images or the end."""
    made, counts = loop.make_steps, []

    def noted(*arguments):
        advance = made(*arguments)

        def call(state, batches, count, model):
            counts.append(count)
            return advance(state, batches, count, model)

        call.lower = advance.lower
        return call

    monkeypatch.setattr(loop, "make_steps", noted)
    monkeypatch.setattr(loop, "LONGEST_CALL", longest)
    assert train(toys.row(), DATA, steps=43, every=32).steps == 43
    assert sum(counts) == 43
    assert counts[:20] == [1] * 20
    assert max(counts) == most
    assert {20, 32, 40} <= set(np.cumsum(counts))


def test_stopped_and_resumed_is_uninterrupted_bit_for_bit(tmp_path) -> None:
    """Two critics, dropout, statistics, an average, held-out images: everything that a checkpoint must hold."""
    system = toys.gan(turns=1)
    recipe = dataclasses.replace(system.method.recipe, average=0.9)
    system = dataclasses.replace(system, method=dataclasses.replace(system.method, recipe=recipe))
    settings = {
        "sizes": {"dropout": 0.2, "critics": {"width": 3}}, "steps": 48, "every": 16, "validation": HELD_OUT,
        "configuration": {"paper": ("a", 1.5)},
    }  # fmt: skip
    whole = train(system, DATA, **settings, folder=tmp_path / "whole")
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as ended:
        train(system, DATA, **settings, folder=tmp_path / "run", progress=stop_at(20))
    assert ended.value.code == 143
    assert signal.getsignal(signal.SIGTERM) is before
    assert sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir()) == ["16", "20"]
    assert rows(tmp_path / "run")[-1]["step"] == 20
    result = train(system, DATA, **settings, folder=tmp_path / "run")
    assert toys.digest(result.network) == toys.digest(whole.network)
    assert result.losses == whole.losses
    assert len(whole.losses) == 3
    assert whole.best is not None
    assert toys.digest(result.best) == toys.digest(whole.best)
    assert rows(tmp_path / "run") == rows(tmp_path / "whole")
    sizes = {(tmp_path / name / scalars.EVENTS).stat().st_size for name in ("run", "whole")}
    assert len(sizes) == 1
    values = {row["step"]: row["validation"] for row in rows(tmp_path / "whole") if "validation" in row}
    assert list(values) == [16, 32, 48]
    saved = json.loads((tmp_path / "whole" / "checkpoints" / "48" / "record.json").read_text())
    assert saved["history"]["best_step"] == min(values, key=values.__getitem__)
    assert saved["configuration"]["experiment"] == {"paper": ["a", 1.5]}

    # a finished run gives its networks again; one that is damaged goes on from the checkpoint before
    again = train(system, DATA, **settings, folder=tmp_path / "run")
    assert toys.digest(again.network) == toys.digest(whole.network)
    assert toys.digest(again.best) == toys.digest(whole.best)
    flip(next((tmp_path / "run" / "checkpoints" / "48").rglob("_METADATA")))
    with pytest.warns(RuntimeWarning, match="step 48 .* step 32 is used"):
        again = train(system, DATA, **settings, folder=tmp_path / "run")
    assert toys.digest(again.network) == toys.digest(whole.network)

    # other settings are refused by name
    with pytest.raises(InputError, match=r"experiment\.paper was .*; seed was 0 and is now 1; steps was 48"):
        train(
            system, DATA, seed=1, folder=tmp_path / "run", **{**settings, "configuration": {"paper": "b"}, "steps": 50}
        )
    with pytest.raises(InputError, match="data was"):
        train(system, HELD_OUT, **{**settings, "validation": DATA}, folder=tmp_path / "run")
    moved = DATA.model.replace(grid=dataclasses.replace(DATA.model.grid, centre=(0.0, 0.0)))
    with pytest.raises(InputError, match="observation model was"):
        train(system, DATA._replace(model=moved), **settings, folder=tmp_path / "run")
    recipe = dataclasses.replace(recipe, optimiser=lambda steps: optax.sgd(1e-2))
    method = dataclasses.replace(system.method, recipe=recipe)
    with pytest.raises(InputError, match="arrays of the state was"):
        train(dataclasses.replace(system, method=method), DATA, **settings, folder=tmp_path / "run")
    with pytest.raises(InputError, match="holds a run already"):
        train(system, DATA, **settings, folder=tmp_path / "run", resume=False)


def test_told_to_stop_while_the_last_checkpoint_is_written(tmp_path, monkeypatch) -> None:
    """The run is whole, and the program ends all the same."""
    wait = Checkpoints.wait

    def told(self: Checkpoints) -> None:
        wait(self)
        if self.steps() == [2, 4]:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Checkpoints, "wait", told)
    with pytest.raises(SystemExit) as ended:
        train(toys.row(), DATA, steps=4, every=2, folder=tmp_path)
    assert ended.value.code == 143
    monkeypatch.undo()
    calls: list[int] = []
    assert train(toys.row(), DATA, steps=4, every=2, folder=tmp_path, progress=lambda d, *_: calls.append(d)).steps == 4
    assert calls == []


def test_a_folder_changes_nothing_and_memory_loads_nothing(tmp_path) -> None:
    """Grain's threads and the plain batches make the same run."""
    system = toys.row()
    threads = set(threading.enumerate())
    inside = train(system, DATA, steps=6, folder=tmp_path)
    outside = train(system, DATA, steps=6)
    assert toys.digest(inside.network) == toys.digest(outside.network)
    assert inside.best is None
    assert not [t for t in set(threading.enumerate()) - threads if not t.daemon]
    code = (
        "import sys, toys; from jfusion.training.loop import train; train(toys.row(), toys.simulation(), steps=1); "
        "print([m for m in ('orbax.checkpoint', 'grain') if m in sys.modules])"
    )
    output = subprocess.check_output([sys.executable, "-c", code], text=True, cwd=Path(__file__).parent)
    assert output.strip() == "[]"


def test_a_loss_that_is_not_finite_names_step_patches_and_checkpoint(tmp_path) -> None:
    system = toys.row(optimiser=lambda n: optax.sgd(lambda k: jnp.where(k == 12, jnp.inf, 1e-3)))
    with pytest.raises(RunError) as caught:
        train(system, DATA, folder=tmp_path, every=5)
    text = str(caught.value)
    assert "step 14, on the patches 52 to 55" in text
    assert "last good checkpoint is that of step 10" in text
    assert "\n" not in text
    assert [path.name for path in sorted((tmp_path / "checkpoints").iterdir())] == ["10", "5"]
    with pytest.raises(RunError, match="step 14, on the patches 52 to 55; lower"):
        train(system, DATA)


def test_parameters_that_are_not_finite_are_never_saved(tmp_path) -> None:
    """The loss of step 10 is finite, what it leaves is not."""
    system = toys.row(optimiser=lambda n: optax.sgd(lambda k: jnp.where(k == 9, jnp.inf, 1e-3)))
    with pytest.raises(RunError, match=r"step 10, .*last good checkpoint is that of step 5"):
        train(system, DATA, folder=tmp_path, every=5)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["5"]


def test_a_folder_has_one_process(tmp_path) -> None:
    with alone_in(tmp_path / "run"), pytest.raises(InputError, match="another process is at work"):
        train(toys.row(), DATA, folder=tmp_path / "run", steps=1)
    assert train(toys.row(), DATA, folder=tmp_path / "run", steps=1).steps == 1


def test_a_failed_save_stops_the_run_at_the_next_step(tmp_path, monkeypatch) -> None:
    def full(_: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints, "_digests", full)
    with pytest.raises(RunError, match=r"could not be written .*No space left.* free some space") as caught:
        train(toys.row(), DATA, folder=tmp_path, every=5, steps=100_000)
    assert "\n" not in str(caught.value)
    monkeypatch.undo()
    assert train(toys.row(), DATA, folder=tmp_path / "other", every=5, steps=6).steps == 6


def test_an_error_in_a_callback_ends_everything(tmp_path) -> None:
    class Mine(Exception):
        pass

    def fail(done: int, total: int, values: object) -> None:
        raise Mine

    before, threads = signal.getsignal(signal.SIGTERM), set(threading.enumerate())
    with pytest.raises(Mine):
        train(toys.row(), DATA, folder=tmp_path, every=7, progress=fail)
    assert signal.getsignal(signal.SIGTERM) is before
    assert not [t for t in set(threading.enumerate()) - threads if not t.daemon]
    assert [path.name for path in (tmp_path / "checkpoints").iterdir() if path.name != "7"] == ["14"]


def test_held_out_images_are_others() -> None:
    with pytest.raises(InputError, match="one step"):
        train(toys.row(), DATA, steps=0)
    with pytest.raises(InputError, match="those of training"):
        train(toys.row(), DATA, validation=DATA)


def test_networks_that_make_something_else_than_products() -> None:
    class OneBand(nnx.Module):
        def __init__(self, bands: Bands, *, rngs: nnx.Rngs) -> None:
            self.scale = nnx.Param(jnp.ones(()))

        def __call__(self, observation, model):
            return self.scale[...] * observation["guide"][..., :1]

    row = toys.row()
    wrong = dataclasses.replace(row, method=dataclasses.replace(row.method, network=OneBand))
    with pytest.raises(InputError, match=r"makes \(1, \d+, \d+, 1\) of a patch, but a product is"):
        train(wrong, DATA)
    unrolled = dataclasses.replace(row, family="unrolled")
    with pytest.raises(InputError, match="asked for their stages, but its network takes observation, model"):
        train(unrolled, DATA)


def test_code_that_has_changed_is_told(tmp_path, monkeypatch) -> None:
    with pytest.raises(SystemExit):
        train(toys.row(), DATA, folder=tmp_path, progress=stop_at(20))
    assert code_of(len) == code_of() != code_of(toys.row)  # of what has no file, as in a notebook, nothing is known
    monkeypatch.setattr("jfusion.training.folder.code_of", lambda *_: "other")
    with pytest.warns(RuntimeWarning, match="the code has changed since .* whose step 20 is gone on from"):
        train(toys.row(), DATA, folder=tmp_path)


def test_pairs_whose_images_differ_in_extent() -> None:
    lr, guide = DATA.observation["lr"], DATA.observation["guide"]
    for wrong in (
        DATA._replace(target=DATA.target[:, :-2]),
        DATA._replace(observation={"lr": lr, "guide": guide[:, :, :-2]}),
        DATA._replace(observation={"lr": lr[0], "guide": guide[0]}, target=DATA.target[0]),
    ):
        with pytest.raises(InputError, match="common extent"):
            train(toys.row(), wrong)
    with pytest.raises(InputError, match="0 or more"):
        train(toys.row(), DATA, seed=-1)
    with pytest.raises(InputError, match="a Simulation, but a dict came"):
        train(toys.row(), DATA.observation)


def test_a_budget_ends_training_early() -> None:
    result = train(toys.row(), DATA, steps=10_000, budget=0.0)
    assert result.steps == 1
    assert len(result.losses) == 1


def test_a_budget_is_that_of_all_sittings(tmp_path) -> None:
    """One that earlier sittings have used up leaves the network as it is; a larger one goes on."""
    with pytest.raises(SystemExit):
        train(toys.row(), DATA, steps=60, folder=tmp_path, progress=stop_at(20))
    used_up = train(toys.row(), DATA, steps=60, folder=tmp_path, budget=1e-3)
    assert used_up.steps == 20
    assert train(toys.row(), DATA, steps=60, folder=tmp_path, budget=1e6).steps == 60


def test_what_a_budget_ended_is_not_trained_again(tmp_path) -> None:
    first, again = (train(toys.row(), DATA, steps=10_000, folder=tmp_path, budget=1e-3) for _ in range(2))
    assert first.steps == again.steps == 1
    assert toys.digest(again.network) == toys.digest(first.network)
    saved = json.loads((tmp_path / "checkpoints" / "1" / "record.json").read_text())
    assert again.seconds > saved["seconds"] > 0


def test_classical_systems_are_not_trained() -> None:
    with pytest.raises(InputError, match="not a network"):
        build(catalogue.get("gsa"), Bands(4, 1, 2))


def test_the_bar_keeps_every_figure(monkeypatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("COLUMNS", "200")
    with bar("training") as progress:
        progress(1, 4, {"loss": 0.5, "validation": 0.25})
        progress(2, 4, {"loss": 0.125})
        progress(4, 4, {"loss": 0.0625})
    shown = screen.getvalue()
    assert "loss 0.0625  validation 0.25" in shown
    assert "4/4" in shown


def test_wald_reduction_keeps_the_grid() -> None:
    """A ramp seen once more by the same sensor stays where it was."""
    ramp = jnp.broadcast_to(jnp.arange(48.0)[None, :, None, None], (1, 48, 48, 1))
    grid = Grid(2, (1, 0))
    model = ObservationModel({"lr": SpatialResponse(gaussian_psf(0.85, grid), 2, grid.phase), "guide": None}, grid)
    low = reduce({"lr": SpatialResponse(gaussian_psf(0.85, grid), 2, grid.phase)(ramp), "guide": ramp}, model)
    inner = np.s_[0, 6:-6, 6:-6, 0]
    np.testing.assert_allclose(low.observation["guide"][inner], low.target[inner], atol=1e-3)
    noise = jax.random.normal(jax.random.key(0), (1, 48, 48, 2))
    panchromatic, multispectral = (reduce({"lr": ramp, "guide": guide}, model).observation["guide"]
                                   for guide in (noise[..., :1], noise))  # fmt: skip
    assert jnp.std(multispectral[..., 0]) > 1.1 * jnp.std(panchromatic)  # a guide of several bands is sharper
    with pytest.raises(InputError, match="larger pair"):
        reduce({"lr": ramp[:, :3, :3], "guide": ramp[:, :6, :6]}, model)
