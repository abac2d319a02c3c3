"""Every network has its script, every script runs, and what is judged is never what was learned from."""

import dataclasses
import importlib
import json
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from experiments import runner
from experiments.places import REGIONS, place
from experiments.runner import Experiment, charged, check_scale, joined, run, settings
from jfusion import catalogue
from jfusion.catalogue import Bands, Classical
from jfusion.data import scenes
from jfusion.data.simulate import Protocol, Simulation, cut
from jfusion.errors import InputError
from jfusion.inference.evaluate import against_reference
from jfusion.inference.fuse import DEFAULT_SYSTEMS
from jfusion.inference.run import run as run_system
from jfusion.progress import silent
from jfusion.tasks import spatiospectral_task
from jfusion.training.loop import Network

NETWORKS = [name for name, row in catalogue.systems().items() if not isinstance(row.method, Classical)]
PROTOCOL = Protocol(ratio=2, guide_bands=("B2", "B3", "B4"), lr_snr_db=35, seed=3)


def test_notes_of_several_seeds_are_all_told() -> None:
    notes = ["estimated; misses lr by 4.4 %", "estimated; misses lr by 6.5 %", "estimated"]
    assert joined(notes) == "estimated; misses lr by 6.5 % (the worst of 2 in 3)"
    assert joined(["", ""]) == ""


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_has_a_script(name: str) -> None:
    script = importlib.import_module(f"experiments.{name}")
    assert isinstance(script.EXPERIMENT, Experiment)
    assert script.EXPERIMENT.data in REGIONS
    assert catalogue.get(name).paper.authors.split(",")[0].split()[-1] in script.__doc__
    assert settings(script.EXPERIMENT, name)["seed"] == 0


@pytest.mark.parametrize("name", REGIONS)
def test_regions_are_disjoint_and_lie_in_the_scene(name: str) -> None:
    images = scenes.load(name)
    shape = (images["hsi"] if "hsi" in images else images["msi"]).image.shape
    learn, judge = REGIONS[name]
    for region in (learn, judge):
        assert 0 <= region[0] < region[1] <= shape[0]
        assert 0 <= region[2] < region[3] <= shape[1]
    assert learn[1] <= judge[0] or learn[3] <= judge[2]


@pytest.mark.parametrize("name", REGIONS)
def test_smoke_fits_every_scene(name: str) -> None:
    tiny = Experiment(data=name, protocol=PROTOCOL, smoke=True).tiny()
    for region, whole in zip((tiny.learn, tiny.judge), REGIONS[name], strict=True):
        sides = region[1] - region[0], region[3] - region[2]
        assert tiny.patch is not None
        assert min(sides) >= tiny.patch > 0
        assert tiny.patch % PROTOCOL.ratio == 0
        assert all(whole[k] <= region[k] <= whole[k + 1] for k in (0, 2))


@pytest.mark.parametrize("name", ["aviris_california", "landsat8_momotombo"])
def test_places_hold_the_scene(name: str) -> None:
    where = place(name, PROTOCOL)
    assert where.reference.shape == where.outline.image.shape
    assert json.loads(json.dumps(where.protocol))["ratio"] == 2
    images = scenes.load(name)
    truth = next(iter(images.values())).physical()
    top, bottom, left, right = REGIONS[name][1]
    np.testing.assert_allclose(where.reference, truth[top:bottom, left:right], atol=1e-6)
    lr, guide = (where.test.observation[key].shape for key in ("lr", "guide"))
    assert guide[1:3] == where.reference.shape[:2] == tuple(2 * n for n in lr[1:3])


def test_noise_differs_between_regions() -> None:
    same = ((0, 16, 0, 16), (0, 16, 0, 16))
    where = place("aviris_california", PROTOCOL, *same)
    assert not np.array_equal(where.test.observation["lr"], where.learn.observation["lr"])
    np.testing.assert_array_equal(where.test.target, where.learn.target)


def test_training_knows_the_model_that_a_system_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The spectral response of Momotombo's panchromatic band is not known: it is estimated, once, before training."""
    learned: dict[str, Simulation] = {}

    class Stopped(Exception):
        pass

    def train(system, learn, *, validation, **options):
        learned.update(learn=learn, validation=validation)
        raise Stopped

    monkeypatch.setattr(runner, "train", train)
    experiment = Experiment(data="landsat8_momotombo", learn=(0, 64, 0, 64), judge=(0, 32, 80, 112), out=tmp_path)
    where = runner.ground(experiment, learns=True)
    assert where.learn is not None
    assert not where.learn.model.known
    with pytest.raises(Stopped):
        runner.make_network(experiment, "dhsis", where)
    assert learned["learn"].model.known
    assert learned["validation"].model is learned["learn"].model


def test_mistakes_are_named() -> None:
    with pytest.raises(InputError, match="multiples of 2"):
        cut(place("landsat8_momotombo", PROTOCOL).test, (0, 3, 0, 4))
    with pytest.raises(InputError, match="landsat8_liverpool"):
        place("landsat8_tiny", PROTOCOL)
    with pytest.raises(InputError, match="classical"):
        settings(Experiment(), "gsa")
    for wrong in ({"steps": 0}, {"batch": -2}, {"budget": -5.0}, {"validate": 1.0}, {"seed": -1}):
        with pytest.raises(InputError, match=f"--{next(iter(wrong))}"):
            runner.run(Experiment(**wrong), "pannet")
    shared = Experiment(data="landsat8_momotombo", learn=(0, 64, 0, 64), judge=(32, 96, 62, 126))
    with pytest.raises(InputError, match="share pixels"):
        runner.ground(shared, learns=True)
    assert runner.ground(shared, learns=False).judged
    with pytest.raises(InputError, match="--steps is for trainings, but --weights"):
        runner.run(Experiment(weights=Path("net.safetensors"), steps=4), "pannet")
    with pytest.raises(InputError, match="--distributed is for trainings, but dip is fitted"):
        runner.run(Experiment(distributed=True), "dip")
    with pytest.raises(InputError, match="sun has no choice of --physics"):
        runner.run(Experiment(physics="exact"), "sun")
    assert settings(Experiment(sizes="tiny", physics="exact"), "gppnn")["sizes"]["physics"] == "exact"
    with pytest.raises(InputError, match="--turn is for trainings"):
        runner.run(Experiment(turn=True), "gdd")
    for other, data, message in (
        (Protocol(ratio=4), "landsat8_momotombo", "--protocol.ratio"),
        (Protocol(ratio=2, crop=(0, 8, 0, 8)), "cave/mhf", "--judge and --learn"),
    ):
        with pytest.raises(InputError, match=message):
            runner.check_protocol(other, Protocol(ratio=2), data)
    runner.check_protocol(Protocol(ratio=4), Protocol(ratio=2), "jasper_ridge")


@pytest.mark.parametrize(
    ("data", "guide"), [("landsat8_liverpool", ()), ("landsat8_momotombo", ()), ("sentinel2_fields", ()),
                        ("jasper_ridge", ("B8",)), ("jasper_ridge", ("B2", "B3", "B4", "B5")),
                        ("aviris_california", ("B2", "B3", "B4"))]
)  # fmt: skip
def test_default_systems_beat_interpolation(data: str, guide: tuple[str, ...]) -> None:
    where = place(data, dataclasses.replace(PROTOCOL, guide_bands=guide or PROTOCOL.guide_bands))
    observation, model = where.test.observation, where.test.model
    task = spatiospectral_task(observation["lr"].shape[-1], observation["guide"].shape[-1])
    ours, trivial = (
        against_reference(
            run_system(catalogue.get(name), observation, model).product,
            where.reference,
            ratio=model.ratio,
            data_range=1.0,
        )
        for name in (DEFAULT_SYSTEMS[task.name], task.baseline)
    )
    assert ours["PSNR"] > trivial["PSNR"]
    assert ours["SAM"] < trivial["SAM"]
    assert ours["ERGAS"] < trivial["ERGAS"]


def test_smoke_run_writes_what_it_did(tmp_path: Path) -> None:
    script = importlib.import_module("experiments.udaln")
    page = run(Experiment(out=tmp_path / "run", smoke=True), "udaln", script.PUBLISHED)
    rows = json.loads((tmp_path / "run" / "results.json").read_text())
    assert [row["system"] for row in rows] == ["cubic", "udaln"]
    assert "Chikusei" in page.read_text()
    record = json.loads((tmp_path / "run" / "experiment.json").read_text())
    assert record["experiment"]["steps"] == 20
    assert all((tmp_path / "run" / row["product"]).is_file() for row in rows)


def test_published_figures_stand_beside_ours_of_their_kind() -> None:
    image = place("aviris_california", PROTOCOL)
    product = image.reference + np.float32(0.01)
    peaks = runner.psnr_of_kinds(product, image)
    assert peaks["band_mean"] == pytest.approx(40 + 20 * np.log10(image.data_range), abs=0.01)
    assert peaks["image_max"] == pytest.approx(40 + 20 * np.log10(image.reference.max()), abs=0.01)
    figure, ours = runner.beside({"CAVE": "PSNR 40 dB"}, [peaks, {kind: peak + 2 for kind, peak in peaks.items()}])
    assert figure == "Published, CAVE: PSNR 40 dB."
    assert f"maximum {peaks['image_max'] + 1:.2f} dB" in ours


def test_a_training_costs_what_all_its_sittings_cost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "NOTED", 0.0)
    path = tmp_path / "training" / "cost.json"

    def killed() -> None:
        with charged(path, silent) as (_, progress):
            progress(20, 40, {})
            noted.append(json.loads(path.read_text())["seconds"])
            raise SystemExit(143)

    noted: list[float] = []
    with pytest.raises(SystemExit):
        killed()
    first = json.loads(path.read_text())["seconds"]
    assert first >= noted[0] > 0
    with charged(path, silent) as (cost, _):
        cost.steps = 40
    assert cost.seconds > first
    assert json.loads(path.read_text()) == dataclasses.asdict(cost)


def test_smoke_takes_a_pixel_at_large_ratios() -> None:
    paper = importlib.import_module("experiments.mhf_net").PAPER
    assert paper.protocol.ratio == paper.tiny().patch == 32


def test_weights_for_other_units_are_refused() -> None:
    image = place("landsat8_momotombo", PROTOCOL)
    network = Network(catalogue.get("fusionnet"), Bands(4, 1, 2), {}, None, 2047.0)
    with pytest.raises(InputError, match=r"divides images by 2047, but .* reach 1 .*--scale 1"):
        check_scale(network, image)
    check_scale(dataclasses.replace(network, scale=0.3), image)


TOGETHER = """
import sys
from pathlib import Path
import jax
from experiments.runner import Experiment, run
jax.distributed.initialize(f"127.0.0.1:{sys.argv[2]}", 2, int(sys.argv[1]))
assert jax.process_count() == 2
run(Experiment(out=Path(sys.argv[3]), smoke=True, distributed=True), "fusionnet")
"""


def test_two_processes_share_an_experiment(tmp_path: Path) -> None:
    """Both train, the first judges and writes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    pair = [
        subprocess.Popen(
            [sys.executable, "-c", TOGETHER, process, port, str(tmp_path)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for process in "01"
    ]  # fmt: skip
    said = [process.communicate(timeout=300) for process in pair]
    assert [process.returncode for process in pair] == [0, 0], said
    assert ["PSNR" in out for out, _ in said] == [True, False]
    rows = json.loads((tmp_path / "results.json").read_text())
    assert [row["system"] for row in rows] == ["cubic", "fusionnet"]
    assert (tmp_path / "weights.safetensors").is_file()
    assert json.loads((tmp_path / "training" / "cost.json").read_text())["steps"] == 20
