"""The rivals of the benchmark compute what jfusion's networks compute, and its tables say what was measured."""

import json
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.benchmarks import __main__ as command
from experiments.benchmarks import jax_side, large_scene, parts, processes, tables
from experiments.benchmarks.cases import CASES, FITS, LARGEST_FIT, Case, FitCase
from experiments.benchmarks.tables import Ratio, Section
from jfusion.errors import InputError, RunError

ROOT = Path(__file__).parents[2]


TINY = {case.system: case.tiny() for case in CASES}


@pytest.mark.parametrize("case", TINY.values(), ids=TINY)
def test_pytorch_computes_the_same(case: Case) -> None:
    pytest.importorskip("torch")
    from experiments.benchmarks import torch_side

    ours, theirs = jax_side.infer(case)(), torch_side.infer(case, jax_side.parameters(case))()
    np.testing.assert_allclose(theirs, ours, atol=1e-4 * np.abs(ours).max())


@pytest.mark.parametrize("case", [TINY["fusionnet"], TINY["psgan"], TINY["mhf_net"]], ids=lambda case: case.system)
def test_pytorch_learns_the_same(case: Case) -> None:
    """The losses after some steps and after as many more: one loss alone, critic and network, losses of all stages."""
    pytest.importorskip("torch")
    from experiments.benchmarks import torch_side

    ours, theirs = jax_side.train(case), torch_side.train(case, jax_side.parameters(case))
    for _ in range(2):
        assert theirs() == pytest.approx(ours(), rel=1e-4)


FITTED = {case.system: case.tiny() for case in FITS}


@pytest.mark.parametrize("case", FITTED.values(), ids=FITTED)
def test_pytorch_fits_the_same(case: FitCase, monkeypatch: pytest.MonkeyPatch) -> None:
    """The losses of the last of some steps and of some more, and that they fall; without noise on the code of GDD."""
    torch = pytest.importorskip("torch")
    from experiments.benchmarks import torch_side

    ours, theirs = jax_side.fit(case), torch_side.fit(case, jax_side.beginning(case))
    monkeypatch.setattr(jax.random, "normal", lambda key, shape: jnp.zeros(shape))
    monkeypatch.setattr(torch, "randn_like", torch.zeros_like)
    losses = [ours(), ours()]
    assert losses[1] < losses[0]
    assert [theirs(), theirs()] == pytest.approx(losses, rel=1e-4)


def test_networks_need_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "find_spec", lambda name: None)
    assert "'.[benchmark]'" in parts.networks(CASES, 1).markdown()


def test_steps_alone_are_those_of_the_loop() -> None:
    case = FITTED["udaln"]
    assert jax_side.fit(case, looped=False)() == pytest.approx(jax_side.fit(case)(), rel=1e-5)


def test_fits_are_measured_without_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "find_spec", lambda name: None)
    monkeypatch.setattr(parts, "rival", lambda *_: nullcontext())
    monkeypatch.setattr(parts, "race", lambda *_: {"looped": [2.0, 4.0], "single": [1.0, 4.0]})
    monkeypatch.setattr(parts, "alone", lambda *_: (9.0, 30.0))
    section = parts.fits(FITS[:1], LARGEST_FIT, 2)
    assert section.rows == [
        ("udaln", "third of three", "-", "-", "1.50 (1.00 to 2.00)", "30"),
        ("rec_hsisr", "-", "-", "-", "-", "30"),
    ]
    assert "'.[benchmark]'" in section.text


def test_nothing_heavy_is_in_the_process_that_measures() -> None:
    code = (
        "import sys, json, experiments.benchmarks.__main__; "
        "print(json.dumps([m for m in ('jax', 'torch', 'flax') if m in sys.modules]))"
    )
    assert json.loads(subprocess.check_output([sys.executable, "-c", code], text=True, cwd=ROOT)) == []


def test_only_the_benchmark_imports_pytorch() -> None:
    for package in ("jfusion", "unrolled", "priors", "experiments"):
        for path in (ROOT / package).rglob("*.py"):
            if "torch" in {line.split()[1].split(".")[0] for line in _imports(path)}:
                assert path.name in ("torch_fits.py", "torch_nets.py", "torch_side.py")


def _imports(path: Path) -> list[str]:
    lines = (line.strip() for line in path.read_text().splitlines())
    return [line for line in lines if line.startswith(("import ", "from "))]


class Scripted:
    """A rival whose times are known."""

    def __init__(self, *times: float) -> None:
        self.times = iter(times)

    def wait(self) -> None: ...

    def seconds(self) -> float:
        return next(self.times)


def test_rivals_have_turns() -> None:
    seconds = processes.race({"ours": Scripted(1.0, 3.0, 2.0), "theirs": Scripted(2.0, 2.0, 2.0)}, 3)
    assert seconds == {"ours": [1.0, 3.0, 2.0], "theirs": [2.0, 2.0, 2.0]}
    assert str(Ratio.of(seconds["ours"], seconds["theirs"])) == "1.00 (0.50 to 1.50)"


def test_work_is_done_elsewhere_and_its_errors_are_sentences() -> None:
    assert processes.alone("tables.revision") == tables.revision()
    with pytest.raises(RunError, match=r"tables\.nothing failed: AttributeError"):
        processes.alone("tables.nothing")


def test_page_holds_facts_and_table() -> None:
    section = Section("Speed", "Seconds of nothing.", ("what", "ratio"), [("a|b", str(Ratio(1, 0.5, 2)))])
    text = tables.page(tables.facts("python -m x", "abc", "1 x cpu"), section)
    assert "- revision: abc\n" in text
    assert "- command: `python -m x`\n" in text
    assert "jaxlib" in text
    assert "\n| what | ratio |\n| --- | --- |\n| a/b | 1.00 (0.50 to 2.00) |\n" in text


def test_parts_are_written_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "alone", lambda name: "abc")
    monkeypatch.setattr(parts, "networks", lambda *_, **__: Section("Networks", "None.", (), []))

    def fails(*_: object) -> Section:
        raise RunError("no memory")

    monkeypatch.setattr(parts, "loading", fails)
    (tmp_path / "loader.md").write_text("as it was")
    with pytest.raises(RunError):
        command.run(command.Settings(parts=("nets", "loader"), out=tmp_path))
    assert "abc" in (tmp_path / "nets.md").read_text()
    assert (tmp_path / "nets.md").read_text().startswith("# Networks\n")
    assert (tmp_path / "loader.md").read_text() == "as it was"


def test_bad_settings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="round"):
        command.run(command.Settings(rounds=0))
    with pytest.raises(InputError, match="does not exist"):
        command.run(command.Settings(out=tmp_path / "nowhere"))


def test_gdal_takes_part_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    scene, files = large_scene.Scene(systems=("gsa",)), (Path("pan.tif"), Path("ms.tif"), Path("out.tif"))
    monkeypatch.setattr(large_scene.shutil, "which", lambda program: None)
    ours = [f"jfusion fuse --system gsa{more}" for more in ("", " --no-cog", ", never compiled before")]
    assert list(large_scene.commands(scene, *files)) == ours
    monkeypatch.setattr(large_scene.shutil, "which", lambda program: program)
    assert len(large_scene.commands(scene, *files)) == 5


def test_a_large_scene_against_gdal(monkeypatch: pytest.MonkeyPatch) -> None:
    measured = {"ours": [(2.0, 30.0), (4.0, 50.0)], "gdal_pansharpen": [(1.0, 0.0), (4.0, 0.0)]}
    monkeypatch.setattr(parts, "measure", lambda scene, rounds: measured)
    section = parts.scene(large_scene.Scene(), 2)
    assert section.columns == ("command", "ours / gdal_pansharpen", "MiB above idle")
    assert section.rows == [("ours", "1.50 (1.00 to 2.00)", "50")]
