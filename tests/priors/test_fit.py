"""The fitter on toys whose answer is known."""

import dataclasses
from functools import partial
from inspect import signature
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from jfusion.errors import InputError, RunError
from jfusion.operators import Grid, Identity, ObservationModel
from priors.fit import Falling, FitState, Plan, Schedule, Stage, Stopping, advance, fit, fitter
from priors.pair import Pair, mean_l2
from priors.rollback import Rollback

FEATURES = 40


class Regression(nnx.Module):
    """The image as a linear function of the guide's bands."""

    def __init__(self, key: jax.Array) -> None:
        self.weight = nnx.Param(1e-3 * jax.random.normal(key, (FEATURES, 1)))
        self.offset = nnx.Param(jnp.zeros(1))

    def __call__(self, guide: jax.Array) -> jax.Array:
        return guide @ self.weight[...] + self.offset[...]


def regression_loss(module, pair, key):
    product = module(pair.observation["guide"])
    return mean_l2(product, pair.observation["lr"], pair.weight["lr"]), product


def noisy_loss(module, pair, key):
    product = module(pair.observation["guide"] + 0.1 * jax.random.normal(key, pair.observation["guide"].shape))
    return mean_l2(product, pair.observation["lr"], pair.weight["lr"]), product


def invalid_below_loss(module, pair, key):
    loss, product = regression_loss(module, pair, key)
    return jnp.where(loss < 0.4, jnp.nan, loss), product


@pytest.fixture(scope="module")
def pair() -> Pair:
    """64 pixels, 40 features of which only the strongest is true, and noise: a fit to the end learns the noise."""
    rng = np.random.default_rng(0)
    guide = rng.standard_normal((1, 8, 8, FEATURES)).astype(np.float32)
    guide[..., 0] *= 4
    lr = guide[..., :1] / 4 + 0.5 * rng.standard_normal((1, 8, 8, 1)).astype(np.float32)
    model = ObservationModel({"lr": Identity(), "guide": None}, Grid.nested(1))
    return Pair.of({"lr": jnp.asarray(lr), "guide": jnp.asarray(guide)}, model)


PLAIN = Stage(regression_loss, 120, Schedule(2e-2))
NOISY = Stage(noisy_loss, 60, Schedule(2e-2, hold=0.5))


def test_loss_falls_and_progress_ends_at_the_total(pair):
    calls = []
    fitted = fit(Regression, pair, (PLAIN,), key=jax.random.key(0), progress=lambda *call: calls.append(call))
    assert fitted.losses[-1] < 0.5 * fitted.losses[0]
    assert calls[-1][:2] == (120, 120)
    assert [call[0] for call in calls] == sorted({call[0] for call in calls})
    np.testing.assert_allclose(fitted.output, fitted.module(pair.observation["guide"]), rtol=1e-6)


def test_how_the_steps_are_cut_into_loops_changes_nothing(pair):
    whole = fit(Regression, pair, (NOISY,), key=jax.random.key(1))
    cut = fit(Regression, pair, (NOISY,), key=jax.random.key(1), stopping=Stopping(every=7, patience=10**6))
    again = fit(Regression, pair, (NOISY,), key=jax.random.key(1))
    other = fit(Regression, pair, (NOISY,), key=jax.random.key(2))
    assert whole.losses[-1] == again.losses[-1] == cut.losses[-1]
    np.testing.assert_array_equal(whole.output, again.output)
    assert np.abs(np.asarray(whole.output - other.output)).max() > 1e-4


def test_resumed_equals_uninterrupted(pair):
    stages = (NOISY, PLAIN)
    states: list[FitState] = []
    whole = fit(Regression, pair, stages, key=jax.random.key(3), save=states.append)
    for number in (0, 1):
        middle = next(s for s in states if s.stage == number and 0 < int(s.iterate.step) < s.total)
        leaves, tree = jax.tree.flatten(middle)
        kept = jax.tree.unflatten(tree, leaves)
        resumed = fit(Regression, pair, stages, key=jax.random.key(3), restore=lambda begin, kept=kept: kept)
        np.testing.assert_array_equal(whole.output, resumed.output)
        assert number == 0 or resumed.losses[: len(middle.losses)] == middle.losses


@pytest.mark.parametrize(("members", "devices"), [(3, 1), (4, 2)])
def test_ensemble_equals_its_members(pair, members, devices):
    keys = jax.random.split(jax.random.key(4), members)
    together = fit(Regression, pair, (NOISY,), key=keys)
    alone = fit(Regression, pair, (NOISY,), key=keys[1])
    assert together.output.shape == (members, 1, 8, 8, 1)
    assert len(together.output.sharding.device_set) == devices
    np.testing.assert_allclose(together.output[1], alone.output, atol=1e-5)


def test_stages_train_only_their_parts(pair):
    only = Stage(regression_loss, 5, Schedule(1e-2), trainable=("offset",))
    fitted = fit(Regression, pair, (only,), key=jax.random.key(0))
    np.testing.assert_allclose(fitted.module.weight[...], Regression(jax.random.key(0)).weight[...], rtol=1e-6)
    assert abs(float(fitted.module.offset[0])) > 0


def test_parts_have_learning_rates_of_their_own(pair):
    """A step of Adam is as long as the learning rate, so the parts that moved less show their multiple."""
    plain, slower = Stage(regression_loss, 1, Schedule(1e-2)), (("offset", 0.25),)
    before = Regression(jax.random.key(0))
    steps = [
        jax.tree.map(jnp.subtract, *(nnx.to_pure_dict(nnx.state(m)) for m in (fitted.module, before)))
        for fitted in (fit(Regression, pair, (s,), key=jax.random.key(0))
                       for s in (plain, dataclasses.replace(plain, rates=slower)))
    ]  # fmt: skip
    np.testing.assert_allclose(np.abs(steps[0]["offset"]), 1e-2, rtol=1e-3)
    np.testing.assert_allclose(steps[1]["offset"], 0.25 * steps[0]["offset"], rtol=1e-5)
    np.testing.assert_allclose(steps[1]["weight"], steps[0]["weight"], rtol=1e-5)


def test_parts_that_the_module_does_not_have(pair):
    for wrong in ({"trainable": ("offset", "wieght")}, {"rates": (("wieght", 2.0),)}):
        with pytest.raises(InputError, match="Regression has no wieght"):
            fit(Regression, pair, (Stage(regression_loss, 1, Schedule(1e-2), **wrong),), key=jax.random.key(0))


def keep_positive(module):
    module.weight[...] = jnp.maximum(module.weight[...], 0)


def test_projection_follows_every_step(pair):
    stage = Stage(regression_loss, 20, Schedule(1e-1), project=keep_positive)
    weight = fit(Regression, pair, (stage,), key=jax.random.key(0)).module.weight[...]
    assert float(weight.min()) == 0
    assert float(weight[0, 0]) > 0.1


def test_average_of_the_outputs(pair):
    """The first output starts the average: after two steps it is a known mixture of the two."""
    outputs = [
        fit(Regression, pair, (Stage(regression_loss, n, Schedule(1e-1), average=1e-9),), key=jax.random.key(0)).output
        for n in (1, 2)
    ]
    mixed = fit(Regression, pair, (Stage(regression_loss, 2, Schedule(1e-1), average=0.75),), key=jax.random.key(0))
    np.testing.assert_allclose(mixed.output, 0.75 * outputs[0] + 0.25 * outputs[1], atol=1e-6)


def test_schedule_falls_to_zero():
    rate = Schedule(2.0, hold=0.5)
    np.testing.assert_allclose([float(rate(jnp.asarray(x))) for x in (0.0, 0.5, 0.75, 1.0)], [2, 2, 1, 0], atol=1e-6)
    assert float(Schedule(2.0)(jnp.asarray(0.999))) == 2


def test_rate_falls_at_the_end_of_each_part():
    rate = Falling(8.0, 0.5, 2.5)
    assert [float(rate(jnp.asarray(done))) for done in (0, 0.39, 0.41, 0.79, 0.81, 0.999)] == [8, 8, 4, 4, 2, 2]


def test_held_out_pixels_stop_before_the_noise_is_learned(pair):
    truth = pair.observation["guide"][..., :1] / 4
    stage = Stage(regression_loss, 600, Schedule(2e-2), optimiser=optax.identity())
    calls = []
    stopping = Stopping(held_out=0.3, every=10, patience=4)
    stopped = fit(
        Regression, pair, (stage,), key=jax.random.key(0), stopping=stopping, progress=lambda *c: calls.append(c)
    )
    to_the_end = fit(Regression, pair, (stage,), key=jax.random.key(0))
    assert calls[-1][0] == calls[-1][1] < 600
    assert float(jnp.mean((stopped.output - truth) ** 2)) < 0.6 * float(jnp.mean((to_the_end.output - truth) ** 2))


def test_plateau_ends_a_stage(pair):
    calls = []
    stage = Stage(regression_loss, 20_000, Schedule(3e-2))
    stopping = Stopping(every=50, patience=2, tolerance=1e-3)
    fit(Regression, pair, (stage,), key=jax.random.key(0), stopping=stopping, progress=lambda *c: calls.append(c))
    assert calls[-1][0] < 5000


def test_budget_shortens_the_schedule(pair):
    calls = []
    stage = Stage(regression_loss, 10**9, Schedule(1e-2, hold=0.0))
    fit(Regression, pair, (stage,), key=jax.random.key(0), budget=1.0, progress=lambda *c: calls.append(c))
    assert calls[-1][0] == calls[-1][1] < 10**8


def test_what_a_budget_ends_between_two_looks_is_kept(pair, monkeypatch):
    clock = iter(range(100))
    monkeypatch.setattr("priors.fit.time", SimpleNamespace(monotonic=lambda: next(clock)))
    calls = []
    done = fit(Regression, pair, (PLAIN,), key=jax.random.key(0), stopping=Stopping(every=100), budget=2.5,
               progress=lambda *call: calls.append(call))  # fmt: skip
    assert 0 < calls[-1][0] == calls[-1][1] < 100
    assert not np.array_equal(done.module.weight[...], Regression(jax.random.key(0)).weight[...])


def test_a_budget_leaves_half_of_its_time_to_later_stages(pair, monkeypatch):
    """Where compilation takes 20 seconds a stage and a step one."""
    clock, compiled, taken = [0.0], set(), {}

    def slow(program, iterate, pair, steps, total):
        clock[0] += steps + (0 if program.stage in compiled else 20)
        compiled.add(program.stage)
        return advance(program, iterate, pair, steps, total)

    monkeypatch.setattr("priors.fit.time", SimpleNamespace(monotonic=lambda: clock[0]))
    monkeypatch.setattr("priors.fit.advance", slow)
    stages = [Stage(regression_loss, steps, Schedule(1e-2)) for steps in (10_000, 15)]
    fit(Regression, pair, stages, key=jax.random.key(0), budget=100.0,
        save=lambda state: taken.update({state.stage: int(state.iterate.step)}))  # fmt: skip
    assert 35 <= taken[0] <= 45
    assert taken[1] == 15
    assert clock[0] <= 100


def test_a_loss_that_is_not_finite_names_its_step(pair):
    every_step = Stopping(every=1, patience=10**6)
    losses = fit(Regression, pair, (PLAIN,), key=jax.random.key(0), stopping=every_step).losses
    first = next(step for step, loss in enumerate(losses[1:]) if loss < 0.4)
    stage = Stage(invalid_below_loss, PLAIN.steps, PLAIN.rate)
    with pytest.raises(RunError, match=f"stage 1 is not finite at its step {first};"):
        fit(Regression, pair, (stage,), key=jax.random.key(0))


def test_bad_arguments(pair):
    with pytest.raises(InputError, match="effort"):
        fit(Regression, pair, (PLAIN,), key=jax.random.key(0), effort=0)
    with pytest.raises(InputError, match="for an ensemble"):
        fit(Regression, pair, (PLAIN,), key=jnp.zeros(2, jnp.uint32))
    with pytest.raises(InputError, match="common extent"):
        Pair.of(
            {"lr": jnp.zeros((1, 4, 4, 2)), "guide": jnp.zeros((1, 9, 8, 1))}, pair.model.replace(grid=Grid.nested(2))
        )


# ----------------------------------------------------------------------------------------------------------------------
# Roll-back


def follow(rule: Rollback, losses: list[float]) -> list[float]:
    """Parameter before each step and after the last, where a step adds one to it."""
    record, param, seen = rule.begin(jnp.zeros(())), jnp.zeros(()), []
    step = jax.jit(rule)
    for loss in losses:
        seen.append(float(param))
        record, param = step(record, jnp.asarray(loss), param, param + 1)
    return [*seen, float(param)]


RULE = Rollback(tolerance=0.5, start=20, back=3, pause=4, window=8)


def test_rollback_restores_the_parameters_of_some_steps_earlier():
    params = follow(RULE, [1.0] * 25 + [2.0])
    assert params[25] == 25
    assert params[26] == 22


def test_rollback_lets_small_rises_and_early_ones_pass():
    assert follow(RULE, [1.0] * 25 + [1.4])[-1] == 26
    assert follow(RULE, [1.0] * 10 + [9.0])[-1] == 11


def test_rollback_restores_the_same_parameters_while_it_pauses():
    params = follow(RULE, [1.0] * 25 + [2.0, 1.0, 2.0])
    assert params[27:] == [23, 22]


def test_rollback_records_again_after_its_pause():
    calm = follow(RULE, [1.0] * 25 + [2.0] + [1.0] * 4)
    assert calm[-1] == 26
    recorded = follow(RULE, [1.0] * 25 + [2.0] + [1.0] * 4 + [1.0] * 3 + [2.0])
    assert recorded[-1] == 26


def test_rollback_compares_with_the_older_half_of_the_window():
    slow_rise = [1.0] * 21 + [1.0, 1.0, 1.0, 1.0, 1.4, 1.4, 1.4, 1.4]
    assert follow(RULE, [*slow_rise, 1.45])[-1] == len(slow_rise) + 1
    assert follow(RULE, [*slow_rise, 1.55])[-1] == len(slow_rise) - 3


def test_rollback_within_a_fit(pair):
    quick = Stage(regression_loss, 120, Schedule(2e-2), rollback=Rollback(1e-3, start=10, back=3, pause=5, window=8))
    fitted = fit(Regression, pair, (quick,), key=jax.random.key(0))
    assert np.isfinite(fitted.losses).all()
    assert fitted.losses[-1] < 0.5 * fitted.losses[0]


# ----------------------------------------------------------------------------------------------------------------------
# Pairs


def test_held_out_pixels_are_the_complement_among_the_valid(pair):
    valid = np.arange(64).reshape(8, 8) % 8 > 1
    part, rest = pair.only({"lr": valid}).hold_out(0.25, jax.random.key(0))
    np.testing.assert_array_equal((part.weight["lr"] + rest.weight["lr"])[0, ..., 0], valid)
    np.testing.assert_array_equal(part.weight["guide"] + rest.weight["guide"], pair.weight["guide"])
    assert 0.1 < float(rest.weight["lr"].sum() / valid.sum()) < 0.4
    with pytest.raises(InputError, match="height and width"):
        pair.only({"lr": valid[1:]})


def test_normalised_pair_has_its_peak_at_one(pair):
    scaled, scale = pair.normalised()
    peak = max(float(jnp.abs(image).max()) for image in scaled.observation.values())
    assert peak == pytest.approx(1)
    np.testing.assert_allclose(scaled.observation["lr"] * scale, pair.observation["lr"], rtol=1e-6)


def planned(observation, model, *, sign=1):
    return Plan(Regression, Pair.of(observation, model), (NOISY,), sign * jnp.ones(()), lambda made: (made, model))


@pytest.mark.parametrize("stopping", [None, Stopping(held_out=0.3, every=4, patience=2)])
@pytest.mark.parametrize("members", [None, 2])
def test_scenes_of_a_batch_are_fitted_at_once_each_as_alone(pair, members, stopping):
    key = jax.random.key(0) if members is None else jax.random.split(jax.random.key(0), members)
    axes = () if members is None else (members,)
    single, calls = pair.observation, []
    other = {"lr": single["lr"][:, ::-1], "guide": single["guide"]}  # which tells nothing of lr, and stops sooner
    batch = {name: jnp.concatenate([image, other[name]]) for name, image in single.items()}
    run = partial(fitter(planned), model=pair.model, key=key, stopping=stopping)
    both, first, second = run(batch, progress=lambda *call: calls.append(call)), run(single), run(other)
    assert both.product.shape == (*axes, 2, 8, 8, 1)
    assert both.model is pair.model
    assert calls[-1][0] == calls[-1][1]
    np.testing.assert_allclose(both.product, jnp.concatenate([first.product, second.product], -4), atol=1e-6)
    if stopping is None:
        np.testing.assert_allclose(both.losses[-1], (first.losses[-1] + second.losses[-1]) / 2, rtol=1e-5)


def test_a_batch_may_lie_on_one_device(pair):
    here = jax.device_put({name: jnp.concatenate([x, x]) for name, x in pair.observation.items()}, jax.devices()[1])
    product = fitter(planned)(here, pair.model, key=jax.random.key(0), effort=0.1).product
    assert product.shape == here["lr"].shape
    assert product.devices() == here["lr"].devices()


def test_scenes_must_have_modules_alike(pair):
    class Other(Regression):
        pass

    with pytest.raises(InputError, match="one structure"):
        fit([Regression, Other], [pair, pair], (PLAIN,), key=jax.random.key(0))


def test_a_fitter_takes_the_options_of_its_plan_and_of_every_fit(pair):
    run = partial(fitter(planned), pair.observation, pair.model, key=jax.random.key(0), effort=0.1)
    np.testing.assert_array_equal(run(sign=-1).product, -run().product)
    assert list(signature(fitter(planned)).parameters)[:5] == ["observation", "model", "sign", "key", "effort"]
