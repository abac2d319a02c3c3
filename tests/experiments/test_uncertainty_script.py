"""The script that measures intervals runs, and counts what it says it counts."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from experiments.cases import PLACES, ground
from experiments.uncertainty import CASES, STEPS, Settings, coverage, run
from jfusion.catalogue import Fit
from jfusion.errors import InputError
from jfusion.inference.fits import Course
from jfusion.inference.uncertainty import Calibrated, scale
from jfusion.operators import Grid, Identity, ObservationModel
from jfusion.progress import silent


def test_coverage_is_the_share_within() -> None:
    rng = np.random.default_rng(0)
    members = jnp.asarray(rng.standard_normal((4, 1, 20, 20, 3)), jnp.float32)
    model = ObservationModel({"lr": Identity(), "guide": Identity()}, Grid.nested(1))
    far = members.mean(0) + 2 * scale(members)
    found = Calibrated(Fit(members.mean(0), model, []), Course(silent), members, members, far)
    truth = np.array(found.fit.product[0])
    truth[:5] += 100
    truth[:, :, 0] += 100
    measured = coverage(found, truth, 0.9)
    assert measured.covered == pytest.approx(0.5)
    assert measured.bands == pytest.approx((0.15, 0.75), abs=1e-6)
    assert measured.half_width == pytest.approx(2 * float(scale(members).mean()), rel=1e-5)
    assert measured.spread == pytest.approx(0.5)


def test_script_runs(tmp_path: Path) -> None:
    table = run(Settings(out=tmp_path / "run", smoke=True, levels=(0.5, 0.8)))
    rows = [line for line in table.read_text().splitlines() if line.startswith("| jasper_ridge")]
    assert len(rows) == 2
    assert "± of the 90 % interval" in (tmp_path / "run" / "index.html").read_text()


def test_cases_are_there_and_others_are_refused(tmp_path: Path) -> None:
    assert {case.partition("/")[0] for case in CASES} <= set(PLACES)
    assert {case.partition("/")[2] for case in CASES} <= set(STEPS)
    with pytest.raises(InputError, match="one of jasper_ridge"):
        run(Settings(cases=("jasper_ridge/gsa",), out=tmp_path))
    with pytest.raises(InputError, match="images that are simulated"):
        ground("landsat8_momotombo", smoke=True, noise=30.0)
