"""The data steps of unrolled networks against one another, and the run over stages in its two forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jfusion.errors import InputError
from jfusion.operators import Grid, Identity, ObservationModel, SpatialResponse, SpectralResponse, gaussian_psf
from unrolled.stages import (
    Basis,
    Positive,
    Split,
    admm_step,
    cg_step,
    closed_form_step,
    finish,
    gradient_step,
    on_coefficients,
    run_stages,
    spectral_step,
)

GRID = Grid.nested(2)
SRF = jnp.asarray([[0.5, 0.5, 0, 0, 0], [0, 0, 0.2, 0.3, 0.5]])


@pytest.fixture(scope="module")
def pair():
    """Prior, observation and circular model of two scenes (8, 12, 5) at ratio 2."""
    keys = jax.random.split(jax.random.key(0))
    target, prior = (jax.random.uniform(key, (2 * 8 * 12 * 5,)).reshape(2, 8, 12, 5) for key in keys)
    spatial = SpatialResponse(gaussian_psf(0.85, GRID), 2, GRID.phase, "circular")
    model = ObservationModel({"lr": spatial, "guide": SpectralResponse(SRF)}, GRID)
    return prior, model(target), model


@pytest.mark.parametrize("guide", [0.5, jnp.asarray([2.0, 0.1])], ids=["scalar", "by band"])
def test_closed_form_is_what_conjugate_gradients_approach(guide, pair) -> None:
    prior, observation, model = pair
    exact = jax.jit(closed_form_step)(prior, observation, model, 0.3, {"lr": 2.0, "guide": guide})
    iterated = cg_step(prior, observation, model, {"lr": 2.0, "guide": guide}, 0.3, steps=60, tolerance=1e-7)
    np.testing.assert_allclose(exact, iterated, atol=1e-4)


def test_closed_form_needs_the_low_resolution_image(pair) -> None:
    prior, observation, model = pair
    with pytest.raises(InputError, match="spectral_step"):
        closed_form_step(prior, observation, model, weight={"guide": 1.0})


def test_all_steps_agree_in_a_subspace(pair) -> None:
    """Each, repeated where one is not enough, finds the coefficients of least ``|A E c - y|^2 + 0.3 |c - prior|^2``."""
    prior, observation, model = pair
    basis = Basis(jnp.linalg.qr(jnp.moveaxis(prior[:, 0, :3], 1, 2))[0])
    prior, weight = basis.T(prior), {"lr": 1.0, "guide": 1.0}
    seen = on_coefficients(model, basis)
    penalised = on_coefficients(model.replace(operators={**model.operators, "prior": Identity()}), basis)
    wanted = {**observation, "prior": basis(prior)}

    @jax.jit
    def steps():
        def descend(_, c):
            return gradient_step(c, wanted, penalised, {"lr": 0.8, "guide": 0.8, "prior": 0.3 * 0.8})

        def split(_, state):
            return admm_step(
                state,
                lambda z: closed_form_step(z, observation, model, 0.5, basis=basis),
                lambda c: (0.5 * c + 0.3 * prior) / 0.8,
            )

        return (
            closed_form_step(prior, observation, model, 0.3, basis=basis),
            cg_step(prior, observation, seen, weight, 0.3, steps=60, tolerance=1e-7),
            jax.lax.fori_loop(0, 100, descend, prior),
            jax.lax.fori_loop(0, 100, split, Split(prior, prior, jnp.zeros_like(prior))).x,
        )

    exact, *others = steps()
    assert exact.shape == (2, 8, 12, 3)
    for other in others:
        np.testing.assert_allclose(other, exact, atol=1e-4)
    report = finish([prior, exact], observation, seen, stages=True)
    for key, residuals in finish([basis(prior), basis(exact)], observation, model, stages=True).residuals.items():
        np.testing.assert_allclose(report.residuals[key], residuals, rtol=1e-3)


@pytest.mark.parametrize("weight", [3.0, jnp.asarray([2.0, 0.1])], ids=["scalar", "by band"])
def test_spectral_step_minimises(weight, pair) -> None:
    """The derivative of ``weight |R x - z|^2 + |x - prior|^2`` is zero there, for one mixing or one an image."""
    prior, observation, _ = pair
    z = observation["guide"]
    shared = spectral_step(prior, z, SRF, weight)
    own = spectral_step(prior, z, jnp.stack([SRF, 2 * SRF]), weight)

    def cost(x, mixing):
        return jnp.sum(weight * (x @ mixing.T - z) ** 2) + jnp.sum((x - prior) ** 2)

    np.testing.assert_allclose(jax.grad(cost)(shared, SRF), 0, atol=1e-4)
    np.testing.assert_allclose(own[0], shared[0], atol=1e-5)
    np.testing.assert_allclose(jax.grad(cost)(own, 2 * SRF)[1], 0, atol=1e-4)


def test_gradient_after_few_steps_is_that_of_the_result(pair) -> None:
    """Also where a stiff problem is far from solved."""
    prior, observation, model = pair
    target, weight = jnp.roll(prior, 1, -1), {"lr": 200.0, "guide": 200.0}

    def loss(move):
        moved = prior + move * jnp.flip(prior)
        return jnp.mean((cg_step(moved, observation, model, weight, steps=3) - target) ** 2)

    numeric = (loss(jnp.asarray(0.02)) - loss(jnp.asarray(-0.02))) / 0.04
    np.testing.assert_allclose(jax.grad(loss)(jnp.asarray(0.0)), numeric, rtol=0.1)


def test_no_other_layout(pair) -> None:
    with pytest.raises(InputError, match="loop, scan, remat"):
        run_stages([Positive(1.0)], lambda stage, x: (x, x), pair[0], "unrolled")  # type: ignore[arg-type]


def test_scan_and_loop_agree(pair) -> None:
    prior, observation, model = pair

    def body(step, x):
        x = gradient_step(x, observation, model, {"lr": step(), "guide": step()})
        return x, x

    stages = [Positive(0.1), Positive(0.5), Positive(0.9)]
    loop, estimates = run_stages(stages, body, prior)
    scanned, stacked = run_stages(stages, body, prior, "remat")
    np.testing.assert_allclose(scanned, loop, atol=1e-6)
    np.testing.assert_allclose(stacked, estimates, atol=1e-6)
    assert estimates.shape == (3, *prior.shape)
    np.testing.assert_array_equal(estimates[-1], loop)


class Times(nnx.Module):
    def __init__(self, k: float) -> None:
        self.k = k


def test_stages_keep_their_own_settings() -> None:
    """Also those that are no parameters, such as a dilation; where one stage stands for all, they must be alike."""
    stages = [Times(k) for k in (1.0, 10.0, 100.0)]

    def body(stage, x):
        return x + stage.k, None

    assert float(run_stages(stages, body, jnp.zeros(()))[0]) == 111
    for unroll in ("scan", "remat"):
        with pytest.raises(InputError, match="stage 1 differs from stage 0"):
            run_stages(stages, body, jnp.zeros(()), unroll)  # type: ignore[arg-type]
        assert float(run_stages(stages[:1] * 3, body, jnp.zeros(()), unroll)[0]) == 3  # type: ignore[arg-type]
    with pytest.raises(InputError, match="list of stages is empty"):
        run_stages([], body, jnp.zeros(()))


def test_state_of_a_stage_is_kept_or_refused() -> None:
    """Moments of batches move and dropout draws anew in a loop; one compiled stage would lose both."""
    x = jnp.arange(12.0).reshape(4, 3)
    norms = [nnx.BatchNorm(3, rngs=nnx.Rngs(0)) for _ in range(2)]
    run_stages(norms, lambda norm, y: (1 + norm(y), None), x)
    assert all(float(jnp.abs(norm.mean[...]).max()) > 0 for norm in norms)
    dropout = nnx.Dropout(0.5, rngs=nnx.Rngs(0))
    _, first = run_stages([dropout], lambda drop, x: (x, drop(x)), x)
    _, second = run_stages([dropout], lambda drop, x: (x, drop(x)), x)
    assert not bool((first == second).all())
    for stage, lost in ((norms[0], "mean"), (dropout, "count")):
        with pytest.raises(InputError, match=lost):
            run_stages([stage] * 2, lambda s, x: (s(x), None), x, "scan")
        stage.eval()
        run_stages([stage] * 2, lambda s, x: (s(x), None), x, "scan")


def test_learned_positive_numbers_begin_as_asked() -> None:
    np.testing.assert_allclose(Positive(np.asarray([1e-3, 1.0, 50.0]))(), [1e-3, 1.0, 50.0], rtol=1e-5)
    with pytest.raises(InputError, match="above zero"):
        Positive(0.0)
