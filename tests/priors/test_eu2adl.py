"""EU2ADL: its size, its loss, and how the sensors are predicted."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jfusion.catalogue import Bands
from jfusion.errors import InputError
from jfusion.inference.run import count_parameters
from jfusion.operators import BlockAverage, Grid, ObservationModel, SpatialResponse, SpectralResponse, gaussian_psf
from priors.degradation import Degradation
from priors.eu2adl import Attention, CoupledAutoencoders, Eu2adl, cells, fit_eu2adl, fusion_loss
from priors.pair import Pair

GRID = Grid.nested(2)
BANDS = Bands(12, 3, 2)
TINY = {"width": 6, "endmembers": 8, "blocks": 1}


def simulated(scene: np.ndarray) -> tuple[dict[str, jax.Array], ObservationModel]:
    target = jnp.asarray(scene[None, :24, :24])
    srf = jnp.asarray(np.kron(np.eye(3), np.ones((1, 4))) / 4, jnp.float32)
    response = SpatialResponse(gaussian_psf(0.85, GRID), GRID.ratio, GRID.phase, "circular")
    model = ObservationModel({"lr": response, "guide": SpectralResponse(srf)}, GRID)
    return model(target), model


def blind_pair(grid: Grid, *, height: int = 24, seed: int = 0) -> Pair:
    rng = np.random.default_rng(seed)
    images = {"lr": rng.random((1, height // grid.ratio, 6, 12)), "guide": rng.random((1, height, 6 * grid.ratio, 3))}
    images = {key: jnp.asarray(image, jnp.float32) for key, image in images.items()}
    return Pair.of(images, ObservationModel({"lr": None, "guide": None}, grid))


def test_size_is_the_releases():
    network = nnx.eval_shape(lambda: CoupledAutoencoders(Bands(54, 8, 12), rngs=nnx.Rngs(0)))
    assert count_parameters(network) == 201_700 + 97_300 + 461_120 + 1280 + 8640


def test_attention_networks_have_the_releases_size():
    pair = blind_pair(Grid.nested(2))
    attention = Attention(pair, Bands(12, 3, 2), rngs=nnx.Rngs(0))
    assert count_parameters(attention) == 3 * (12 * 6 + 6 + 6 * 12 + 12) + 3 + 1


def test_cells_are_adaptive_means():
    x = np.arange(5.0)
    np.testing.assert_allclose(cells(5, 3) @ x, [0.5, 2, 3.5])
    np.testing.assert_allclose(cells(6, 2) @ np.arange(6.0), [1, 4])


@pytest.mark.parametrize("grid", [Grid.nested(2), Grid.nested(3), Grid(2, (0.0, 0.0))])
def test_predicted_sensors_lie_on_the_simplex(grid):
    pair = blind_pair(grid)
    for seed in range(3):
        model = Attention(pair, BANDS, rngs=nnx.Rngs(seed))(pair.model)
        for rows in (model["lr"].psf.reshape(1, -1), model["guide"].srf):
            assert float(rows.min()) >= 0
            np.testing.assert_allclose(rows.sum(-1), 1, rtol=1e-5)
    assert model["lr"].psf.shape == ((5, 5) if grid.centre == (0.0, 0.0) else (grid.ratio, grid.ratio))


def test_each_row_of_the_response_has_weights_of_its_own():
    pair = blind_pair(GRID)
    attention = Attention(pair, BANDS, rngs=nnx.Rngs(0))
    before = attention(pair.model)["guide"].srf
    attention.srf.predicted.squeeze.kernel[..., 6:12] += 1  # hidden channels of the second of three rows
    changed = np.abs(np.asarray(attention(pair.model)["guide"].srf - before)).max(1)
    assert (changed > 1e-4).tolist() == [False, True, False]


def test_taps_of_the_psf_are_where_their_cells_are():
    """A guide that is bright in one corner is seen with a PSF that weights that corner of each pixel most."""
    pair = blind_pair(GRID)
    pair.observation["guide"] = pair.observation["guide"].at[:, :12, :6].add(3.0)
    spatial = Attention(pair, BANDS, rngs=nnx.Rngs(0))(pair.model)["lr"]
    image = jnp.zeros((1, 4, 4, 4)).at[0, [0, 0, 1, 1], [0, 1, 0, 1], [0, 1, 2, 3]].set(1)
    assert int(spatial(image)[0, 0, 0].argmax()) == 0


def test_dark_guide_gives_the_mean():
    pair = blind_pair(GRID)
    attention = Attention(pair, BANDS, rngs=nnx.Rngs(0))
    attention.psf.attend.bias[...] = -jnp.full(1, 1e3)
    x = jnp.asarray(np.random.default_rng(0).random((1, 4, 4, 2)), jnp.float32)
    np.testing.assert_allclose(attention(pair.model)["lr"](x), BlockAverage(2)(x), rtol=1e-5)


def test_loss_is_the_papers(scene):
    observation, model = simulated(scene)
    pair = Pair.of(observation, model)
    module = Eu2adl(BANDS, Degradation(model, BANDS), rngs=nnx.Rngs(0), **TINY)
    for layer in (module.generator.guide_stream[-1], module.generator.lr_stream[-1]):
        layer.bias[...] = jnp.full(8, 200.0)  # abundances of about a tenth
    loss, (product, _) = nnx.jit(fusion_loss)(module, pair, jax.random.key(0))
    network, (y, z) = module.generator, (observation["lr"], observation["guide"])
    coarse, fine = network.abundances(observation)
    assert float(fine.max()) > 0.05
    np.testing.assert_allclose(product, jnp.clip(fine @ network.lr_endmembers.kernel[0, 0], 0, 1), atol=1e-5)

    def l1(a, b):
        return float(np.abs(np.asarray(a, np.float64) - np.asarray(b, np.float64)).sum())

    def mixed(abundances, endmembers):
        return np.clip(np.asarray(abundances @ endmembers.kernel[0, 0]), 0, 1)

    expected = 100 * (l1(mixed(fine, network.guide_endmembers), z) + l1(mixed(coarse, network.lr_endmembers), y))
    expected += 10 * (l1(model["guide"](product), z) + l1(model["lr"](product), y)) + l1(model["lr"](fine), coarse)
    expected += 0.01 * (l1(fine.sum(-1), 1) + l1(coarse.sum(-1), 1))
    assert float(loss) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("attention", [True, False])
def test_unknown_sensors_are_returned_and_endmembers_stay_in_bounds(scene, attention):
    observation, model = simulated(scene)
    blind = model.replace(operators={"lr": None, "guide": None})
    fitted = fit_eu2adl(observation, blind, key=jax.random.key(0), effort=0.003, attention=attention, **TINY)
    assert fitted.product.shape == (1, 24, 24, 12)
    assert fitted.model.known
    assert fitted.losses[-1] < fitted.losses[0]
    assert float(fitted.product.min()) >= 0


def test_a_width_without_thirds_is_refused():
    with pytest.raises(InputError, match="multiple of 3"):
        CoupledAutoencoders(BANDS, width=20, rngs=nnx.Rngs(0))
