"""The study of stopping rules runs; what chooses is what `priors.fit.Stopping` does, and looks at no truth."""

import inspect
from pathlib import Path

import jax
import numpy as np
import pytest

from experiments import stopping
from experiments.stopping import LAST, ORACLE, PIXELS, PLATEAU, Settings, Subject, chosen, colour, falls, run, study
from jfusion import catalogue
from jfusion.errors import InputError
from jfusion.operators import Grid, Identity, ObservationModel
from priors.fit import Stopping


@pytest.mark.parametrize(
    ("improved", "look"),
    [([1, 1, 1], 2), ([1, 0, 0, 1], 3), ([1, 0, 0, 0, 1], 0), ([1, 1, 0, 0, 0, 1], 1), ([1], 0)],
)
def test_a_rule_waits_so_long(improved: list[int], look: int) -> None:
    assert chosen([bool(i) for i in improved], patience=3) == look


def test_a_fall_too_small_is_none() -> None:
    assert falls([1.0, 0.9995, 0.9, 0.95, 0.8]) == [True, False, True, False, True]


def test_noise_is_white_and_edges_are_not() -> None:
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((64, 64, 3))
    assert colour(noise) < 0.01
    assert colour(noise + np.roll(noise, 1, 0)) > 0.2
    assert colour(7 * noise + 3) == pytest.approx(colour(noise))


def test_the_choice_is_that_of_the_fit_itself() -> None:
    rng = np.random.default_rng(0)
    guide = rng.random((1, 8, 8, 1), np.float32)
    model = ObservationModel({"lr": Identity(), "guide": Identity()}, Grid.nested(1))
    observation = {"lr": jax.numpy.asarray(guide), "guide": jax.numpy.asarray(guide)}
    fit, options = catalogue.get("miae").method.fit, {"key": jax.random.key(0), "effort": 0.02, "endmembers": 4}  # type: ignore[union-attr]
    subject = Subject.of(fit, observation, model, options, looks=20)
    looks = subject.looks()
    assert [look.step for look in looks] == [10 * k for k in range(1, 21)]
    rule = Stopping(every=subject.every, patience=2, tolerance=stopping.TOLERANCE)
    own = looks[chosen([look.improved for look in looks], patience=2)]
    np.testing.assert_allclose(own.product, fit(observation, model, stopping=rule, **options).product[0], atol=1e-6)
    np.testing.assert_allclose(looks[-1].product, subject.last, atol=1e-6)
    assert stopping.choose(Subject.of(fit, observation, model, options, looks=3))[1][LAST][0] == 200


def test_rules_cannot_see_the_truth() -> None:
    assert "where" not in inspect.signature(stopping.choose).parameters
    assert {"target", "reference", "truth"}.isdisjoint(vars(Subject)["__dataclass_fields__"])


def test_other_cases_are_refused() -> None:
    with pytest.raises(InputError, match="one of jasper_ridge"):
        study("nowhere/miae", Settings())


def test_script_runs(tmp_path: Path) -> None:
    table = run(Settings(cases=("neon_sjer/miae",), looks=4, out=tmp_path / "run", smoke=True)).read_text()
    assert all(f"| {rule} |" in table for rule in (ORACLE, LAST, PLATEAU, PIXELS))
    assert "the truth along the fit" in (tmp_path / "run" / "index.html").read_text()
    with pytest.raises(InputError, match="one of dip"):
        run(Settings(cases=("neon_sjer/gsa",), out=tmp_path))
