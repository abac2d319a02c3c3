"""VP-Net's own equations; what every network promises is in tests/test_catalogue.py."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from learning import every_parameter_learns

from jfusion.catalogue import Bands
from jfusion.errors import InputError
from jfusion.inference.run import count_parameters
from jfusion.layers.resample import sample
from jfusion.operators import Grid, ObservationModel, SpatialResponse, SpectralResponse, gaussian_psf, upsample
from unrolled.vp_net import Stage, VPNet, vp_loss

GRID = Grid(2, (1.0, 0.5))
BANDS = Bands(5, 2, 2)
SRF = jnp.asarray([[0.5, 0.5, 0, 0, 0], [0, 0, 0.2, 0.3, 0.5]])


@pytest.fixture(scope="module")
def pair():
    """Observation, model and target of a scene (12, 10, 5) at ratio 2."""
    target = jax.random.uniform(jax.random.key(0), (12 * 10 * 5,)).reshape(1, 12, 10, 5)
    spatial = SpatialResponse(gaussian_psf(0.9, GRID), 2, GRID.phase)
    model = ObservationModel({"lr": spatial, "guide": SpectralResponse(SRF)}, GRID)
    return model(target), model, target


def test_release_has_one_stage_more_of_features() -> None:
    """425,901 parameters take part there, the last stage's convolutions and threshold for no product."""
    network = nnx.eval_shape(lambda: VPNet(Bands(4, 1, 4), rngs=nnx.Rngs(0)))
    stage = nnx.eval_shape(lambda: Stage(Bands(4, 1, 4), 40, nnx.Rngs(0)))
    assert count_parameters(network) + count_parameters(stage) - count_parameters(stage.data) == 425_901


def test_stages_are_the_papers(pair) -> None:
    observation, model, target = pair
    network = VPNet(BANDS, stages=2, width=4, rngs=nnx.Rngs(0))

    @nnx.jit
    def both(network):
        stage = network.stages[0]

        def data(x, q):
            error = upsample(sample(x, GRID, "bilinear") - observation["lr"], GRID, "bilinear")
            return (x - 0.1 * error + 0.05 * q * y / (m + 0.1)) / 1.05

        def pair(which, u):
            return which.second(nnx.relu(which.first(u)))

        y = upsample(observation["lr"], GRID, "bilinear")
        m = y.mean(-1, keepdims=True)
        x = data(y, m)
        z = x * m / (y + 0.1)
        u = stage.of_scene(z)
        features, aim = pair(stage.analyse, u), pair(stage.analyse, stage.of_guide(observation["guide"]))
        difference = features - aim
        shrunk = jnp.sign(difference) * jnp.maximum(jnp.abs(difference) - 0.1, 0)
        q = z + stage.back(pair(stage.restore, shrunk + aim))
        product = data(x, q)
        asymmetry = jnp.mean((pair(stage.restore, features) - u) ** 2)
        loss = 10 * jnp.mean((product - target) ** 2) + 0.1 * asymmetry
        return (
            jnp.stack([x, product]),
            loss,
            network(observation, model, stages=True),
            vp_loss(network, observation, model, target),
        )

    estimates, loss, report, found = both(network)
    np.testing.assert_allclose(report.estimates, estimates, atol=1e-5)
    np.testing.assert_allclose(found, loss, rtol=1e-4)
    assert report.steps["rho"].shape == report.steps["mu"].shape == (2,)


@pytest.mark.parametrize(("theta", "moves"), [(1e6, "guide"), (0.0, "scene")])
def test_threshold_decides_whose_features_count(theta: float, moves: str) -> None:
    stage = Stage(BANDS, 4, nnx.Rngs(0))
    stage.theta[...] = jnp.asarray(theta)
    keys = jax.random.split(jax.random.key(0), 4)
    scenes = [jax.random.uniform(key, (1, 6, 6, 5)) for key in keys[:2]]
    guides = [jax.random.uniform(key, (1, 6, 6, 2)) for key in keys[2:]]

    def added(scene, guide):
        return stage.match(scene, guide)[0] - scene

    same = added(scenes[0], guides[0])
    other = {"scene": added(scenes[1], guides[0]), "guide": added(scenes[0], guides[1])}
    assert float(jnp.abs(other.pop(moves) - same).max()) > 1e-3
    np.testing.assert_allclose(*other.values(), same, atol=1e-5)


def test_unknown_sign_is_refused() -> None:
    with pytest.raises(InputError, match="sign must be one of difference, features"):
        VPNet(BANDS, stages=1, sign="both", rngs=nnx.Rngs(0))  # type: ignore[arg-type]


@pytest.mark.parametrize("physics", ["exact", "learned", "free"])
def test_every_physics_learns(physics, pair) -> None:
    every_parameter_learns(VPNet(BANDS, stages=2, width=4, physics=physics, rngs=nnx.Rngs(0)), vp_loss, pair)


def test_known_response_makes_the_ratio_image(pair) -> None:
    """With exact physics m is what the guide's sensor sees of the interpolated image, and D' undoes D's dimming."""
    observation, model, _ = pair
    network = VPNet(BANDS, stages=1, physics="exact", rngs=nnx.Rngs(0))
    start = upsample(observation["lr"], GRID, "bilinear")
    sensor, mean = network.seen(start, model)
    np.testing.assert_allclose(mean[..., 0], (start @ SRF.T).mean(-1), atol=1e-5)
    flat = jnp.ones((1, 24, 24, 5))
    np.testing.assert_allclose(sensor.back(sensor.see(flat))[:, 8:16, 8:16], 1, atol=0.1)
