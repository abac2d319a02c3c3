"""XLA counts what a hand counts, the roofline is arithmetic, and a study of two devices says what it measured."""

import dataclasses
import itertools
import json
import math
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from hypothesis import given
from hypothesis import strategies as st

from experiments import scaling
from experiments.forecast import CHIPS, Work, analysed, between, compute_seconds, forecasts, reduce_seconds
from experiments.scaling import Settings, cases, device_counts, document, first_devices, prepare, run
from jfusion import catalogue
from jfusion.catalogue import Bands, Paper, Recipe, System, Trained
from jfusion.data.simulate import Simulation
from jfusion.errors import InputError
from jfusion.layers.conv import Conv
from jfusion.operators import Grid, ObservationModel, SpatialResponse, SpectralResponse, gaussian_psf
from jfusion.training.losses import mean_squared_error

WIDTH, BANDS, GUIDE, SIDE = 32, 4, 1, 16


class Net(nnx.Module):
    """Two 3x3 convolutions and a 1x1 between them, on the guide alone."""

    def __init__(self, bands: Bands, rngs: nnx.Rngs) -> None:
        self.layers = nnx.List(
            Conv(i, o, k, use_bias=False, rngs=rngs)
            for i, o, k in ((bands.guide, WIDTH, 3), (WIDTH, WIDTH, 1), (WIDTH, bands.lr, 3))
        )

    def __call__(self, observation, model):
        x = observation["guide"]
        for layer in self.layers:
            x = layer(x)
        return x


def pair() -> Simulation:
    target = jnp.asarray(np.random.default_rng(0).random((1, 32, 32, BANDS), np.float32))
    grid = Grid.nested(2)
    spatial = SpatialResponse(gaussian_psf(0.85, grid), 2, grid.phase, "circular")
    model = ObservationModel({"lr": spatial, "guide": SpectralResponse(jnp.full((GUIDE, BANDS), 1 / BANDS))}, grid)
    return Simulation(model(target), model, target)


def row(parts: int = 1) -> System:
    recipe = Recipe(lambda steps: optax.sgd(1e-3), steps=1, patch=SIDE, batch=4, parts=parts)
    method = Trained(Net, mean_squared_error, recipe)
    return System("net", "Net", "cnn", ("pansharpening",), Paper("nobody", 2000, "", ""), "", method)


def work(patches: int, parts: int = 1, dtype: str = "float32") -> Work:
    study = prepare(row(parts), pair(), Settings())
    return analysed(study.players, study.modules, study.batch(patches), study.model, parts, dtype)


def by_hand(patches: int) -> int:
    """Multiplications and additions of the convolutions: forward, of the kernels, and of all inputs but the image."""
    inside, pixels = (3 * SIDE - 2) ** 2, SIDE**2  # products of 3x3 taps that do not fall on the border's zeros
    first, middle, last = GUIDE * WIDTH * inside, WIDTH * WIDTH * pixels, WIDTH * BANDS * inside
    return 2 * patches * (2 * first + 3 * middle + 3 * last)


@pytest.mark.parametrize("parts", [1, 2])
def test_xla_counts_the_convolutions_of_a_step(parts: int) -> None:
    """The custom derivatives hide nothing, and neither does the loop over parts; losses and updates add a little."""
    assert by_hand(4) < work(4, parts).flops < 1.05 * by_hand(4)


def test_work_grows_linearly_with_the_share() -> None:
    small, middle, large = work(1), work(2), work(4)
    found = between(small, large, 2)
    assert found.flops == pytest.approx(middle.flops, rel=0.01)
    assert found.traffic == pytest.approx(middle.traffic, rel=0.1)
    assert found.gradient == middle.gradient == 4 * (GUIDE * WIDTH * 9 + WIDTH**2 + WIDTH * BANDS * 9)
    assert between(small, large, 4) == large
    arrays = 4 * 4 * SIDE**2 * (WIDTH + BANDS)
    assert arrays < large.memory < 20 * arrays
    assert large.loops == 0


def test_bfloat16_moves_less() -> None:
    coarse, fine = work(4, dtype="bfloat16"), work(4)
    assert 0.5 * fine.traffic < coarse.traffic < 0.9 * fine.traffic
    assert coarse.flops == fine.flops


def test_the_roofline_is_arithmetic() -> None:
    chip = CHIPS[0]
    heavy = Work(8, flops=197e12, traffic=1.0, memory=1.0, gradient=0.0, loops=0)
    assert compute_seconds(heavy, chip, "float32", 0.5) == (2.0, "multipliers")
    assert compute_seconds(dataclasses.replace(heavy, traffic=3 * 819e9), chip, "float32", 0.5) == (3.0, "memory")
    assert reduce_seconds(200e9, 1, chip.link) == 0
    assert reduce_seconds(200e9, 2, chip.link) == 1
    assert reduce_seconds(200e9, 1000, chip.link) == pytest.approx(1.998)


amounts = st.floats(1.0, 1e15)


@given(amounts, amounts, amounts, st.integers(1, 64), st.sampled_from(["float32", "bfloat16"]), st.floats(0.01, 1))
def test_what_every_forecast_obeys(flops, traffic, gradient, start, dtype, utilisation) -> None:
    """More of many chips never slow weak scaling, without communication it is perfect, and nothing is better."""
    large = Work(start, flops, traffic, 20e9, gradient, 0)
    small = Work(1, flops / start, traffic / start, 1e9, gradient, 0)
    free = [dataclasses.replace(chip, link=math.inf) for chip in CHIPS]
    for chips, perfect in ((CHIPS, False), (free, True)):
        rows = list(forecasts(chips, small, large, 1, dtype, utilisation))
        for key, group in itertools.groupby(rows, lambda r: (r.chip, r.scaling)):
            found = list(group)
            rates, efficiencies = [r.rate for r in found], [r.efficiency for r in found]
            if key[1] == "weak":
                assert rates[1:] == sorted(rates[1:])
                assert {r.batch // r.devices for r in found} == {start}
            else:
                assert {r.batch for r in found} == {start}
            assert efficiencies[0] == pytest.approx(1)
            assert max(efficiencies) <= 1 + 1e-9
            if perfect:
                assert efficiencies == pytest.approx([1] * len(found))
    assert {r.fits for r in rows if r.chip == "TPU v5e" and r.batch == r.devices * start} == {False}


def test_cases_start_together() -> None:
    assert cases([1, 2, 4], 2, 1) == [
        ("strong", (1, 2)), ("strong", (2, 2)), ("weak", (1, 2)), ("weak", (2, 4)), ("weak", (4, 8))
    ]  # fmt: skip
    assert cases([2, 4], 4, 2)[:2] == [("strong", (2, 8)), ("strong", (4, 8))]
    assert device_counts([]) == [1, 2]
    assert device_counts([2]) == [2]
    assert first_devices(1).devices == (jax.devices()[0],)


def test_mistakes_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="multiples"):
        cases([1], 3, 2)
    with pytest.raises(InputError, match="there are 2"):
        device_counts([1, 3])
    with pytest.raises(InputError, match="classical"):
        prepare(catalogue.get("gsa"), pair(), Settings())
    with pytest.raises(InputError, match="utilisation"):
        run(Settings(out=tmp_path, utilisation=0))


def test_a_study_says_what_it_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two devices train; what is printed, the table and the JSON are the same report."""
    monkeypatch.setattr(scaling, "place", lambda data, protocol: SimpleNamespace(learn=pair()))
    monkeypatch.setattr(scaling.catalogue, "get", lambda name: row())
    run(Settings(out=tmp_path / "new", smoke=True))
    report = json.loads((tmp_path / "new" / "scaling.json").read_text())
    assert report["settings"]["sizes"] == "tiny"
    assert report["patch"] == [16, 16]
    assert (tmp_path / "new" / "scaling.md").read_text() == document(report)
    said = capsys.readouterr().out
    assert "Forced host devices: 2" in said
    assert "A forecast is not a measurement" in said
    assert [(r["scaling"], r["devices"], r["batch"]) for r in report["measured"]] == [
        ("strong", 1, 2), ("strong", 2, 2), ("weak", 1, 2), ("weak", 2, 4)
    ]  # fmt: skip
    for found in report["measured"]:
        for middle, low, high in (found["rate"], found["efficiency"]):
            assert 0 < low <= middle <= high
        assert found["devices"] > 1 or found["efficiency"] == [1, 1, 1]
    lines = document(report).splitlines()
    shown = [line for line in lines if line.startswith("| TPU v5e | weak | 2 | 256 |")]
    expected = next(r for r in report["forecast"] if r["chip"] == "TPU v5e" and r["devices"] == 256)
    assert len(shown) == 1
    assert f"{expected['rate']:,.0f}" in shown[0]
    assert len([line for line in lines if line.startswith(("| strong", "| weak"))]) == len(report["measured"])
