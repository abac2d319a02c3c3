"""UDALN: its size, its stages, and what it returns."""

import dataclasses
from inspect import unwrap

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jfusion.catalogue import Bands
from jfusion.operators import Grid, ObservationModel, SpatialResponse, SpectralResponse, gaussian_psf, upsample
from priors.degradation import Degradation, on_logits
from priors.fit import Stage, fit
from priors.pair import Pair, mean_l1
from priors.udaln import STAGES, UDALN, SpectralGenerator, Udaln, fit_udaln, joint_loss

GRID = Grid.nested(2)
BANDS = Bands(12, 3, 2)
SRF = jnp.asarray(np.kron(np.eye(3), np.ones((1, 4))) / 4, jnp.float32)


def simulated(scene: np.ndarray, srf: jax.Array = SRF) -> tuple[dict[str, jax.Array], ObservationModel, jax.Array]:
    target = jnp.asarray(scene[None, :24, :24])
    response = SpatialResponse(gaussian_psf(0.85, GRID), GRID.ratio, GRID.phase, "circular")
    model = ObservationModel({"lr": response, "guide": SpectralResponse(srf)}, GRID)
    return model(target), model, target


def test_generator_has_the_papers_size():
    state = nnx.state(nnx.eval_shape(lambda: SpectralGenerator(Bands(46, 8, 5), rngs=nnx.Rngs(0))), nnx.Param)
    assert sum(int(leaf.size) for leaf in jax.tree.leaves(state)) == 8 * 16 + 16 + 16 * 32 + 32 + 32 * 46 + 46 == 2206


@pytest.mark.parametrize(
    ("bands", "widths"), [(Bands(9, 1, 2), [2, 4, 8, 9]), (Bands(4, 3, 2), [4]), (Bands(2, 3, 2), [2])]
)
def test_generator_doubles_the_bands_while_they_fit(bands, widths):
    generator = nnx.eval_shape(lambda: SpectralGenerator(bands, rngs=nnx.Rngs(0)))
    assert [layer.kernel.shape[-1] for layer in generator.layers] == widths


def test_schedules_are_the_papers():
    assert [stage.steps for stage in STAGES] == [20_000, 30_000, 15_000]
    rates = [[float(stage.rate(jnp.asarray(done))) for done in (0.0, stage.rate.hold, 1.0)] for stage in STAGES]
    np.testing.assert_allclose(rates, [[1e-3, 1e-3, 0], [1e-3, 1e-3, 0], [6e-5, 6e-5, 0]], atol=1e-9)
    np.testing.assert_allclose([stage.steps * stage.rate.hold for stage in STAGES], [10_000, 20_000, 5_000])


def test_joint_loss_is_the_sum_of_its_four_terms(scene):
    observation, model, _ = simulated(scene)
    module = Udaln(BANDS, Degradation(model, BANDS), rngs=nnx.Rngs(0))
    pair = Pair.of(observation, model)
    loss, (product, returned) = nnx.jit(joint_loss)(module, pair, jax.random.key(0))
    y, z, g = observation["lr"], observation["guide"], module.generator
    terms = [
        (model["guide"](y), model["lr"](z)),
        (g(model["lr"](z)), y),
        (model["guide"](g(z)), z),
        (model["lr"](g(z)), y),
    ]
    assert float(loss) == pytest.approx(sum(float(jnp.abs(a - b).mean()) for a, b in terms), rel=1e-5)
    np.testing.assert_allclose(product, g(z), rtol=1e-5)
    np.testing.assert_array_equal(returned["guide"].srf, model["guide"].srf)


def test_known_model_beats_interpolation_in_any_unit(scene):
    observation, model, target = simulated(scene)
    digital = {key: 10_000 * image for key, image in observation.items()}
    product, numbers = (
        fit_udaln(images, model, key=jax.random.key(0), effort=0.03).product for images in (observation, digital)
    )
    cubic = upsample(observation["lr"], GRID, "cubic")
    assert float(jnp.mean((product - target) ** 2)) < 0.5 * float(jnp.mean((cubic - target) ** 2))
    np.testing.assert_allclose(numbers / 10_000, product, atol=2e-3)


def test_unknown_sensors_are_estimated_and_returned(scene):
    observation, model, _ = simulated(scene)
    blind = model.replace(operators={"lr": None, "guide": None})
    support = jnp.asarray(np.asarray(SRF) > 0)
    fitted = fit_udaln(observation, blind, key=jax.random.key(0), effort=0.01, support=support)
    assert fitted.product.shape == (1, 24, 24, 12)
    assert fitted.losses[-1] < fitted.losses[0]
    kernel, srf = fitted.model["lr"].psf, fitted.model["guide"].srf
    for rows in (kernel.reshape(1, -1), srf):
        assert float(rows.min()) >= 0
        np.testing.assert_allclose(rows.sum(-1), 1, rtol=1e-5)
    before = unwrap(fit_udaln)(observation, blind, support=support).build(jax.random.key(0)).degradation(blind)
    started = np.asarray(Degradation(blind, BANDS, support=support, srf="middle")(blind)["guide"].srf)
    np.testing.assert_allclose(before["guide"].srf, started, rtol=1e-6)
    assert np.ptp(started[np.asarray(support)]) > 1e-3
    assert float(jnp.abs(kernel - before["lr"].psf).max()) > 1e-3
    pair = Pair.of(observation, model)
    mismatch = [
        float(mean_l1(m["guide"](observation["lr"]), m["lr"](observation["guide"]), pair.weight["lr"]))
        for m in (before, fitted.model)
    ]
    assert mismatch[1] < mismatch[0]


def test_panchromatic_guide_on_a_grid_that_is_not_nested_in_the_released_form(scene):
    observation, *_ = simulated(scene[..., :4], jnp.full((1, 4), 0.25))
    blind = ObservationModel({"lr": None, "guide": None}, Grid(2, (0.0, 0.0)))
    fitted = fit_udaln(observation, blind, key=jax.random.key(0), effort=0.002, constrained=False)
    assert fitted.product.shape == (1, 24, 24, 4)
    assert np.isfinite(fitted.product).all()
    kernel = fitted.model["lr"].psf
    assert kernel.shape == (5, 5)
    assert abs(float(kernel.sum()) - 1) > 1e-5


def test_row():
    assert UDALN.method.steps == 65_000
    assert UDALN.parameters == (2206, Bands(46, 8, 5))


def test_a_response_on_the_simplex_leaves_its_flat_start(scene):
    """In few steps, which at the release's rate of plain weights it does not."""
    observation, model, _ = simulated(scene)
    model = model.replace(operators={**model.operators, "guide": None})

    def left(stage: Stage) -> float:
        short = dataclasses.replace(stage, steps=150)
        done = fit(
            lambda key: Udaln(BANDS, Degradation(model, BANDS), rngs=nnx.Rngs(key)),
            Pair.of(observation, model),
            (short,),
            key=jax.random.key(0),
        )
        return done.losses[-1] / done.losses[0]

    assert left(on_logits(STAGES[0])) < 0.2
    assert left(STAGES[0]) > 0.7
