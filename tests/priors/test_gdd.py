"""The guided deep decoder: its size, its losses, and a fit of a few steps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jfusion.catalogue import Bands
from jfusion.errors import InputError
from jfusion.operators import Grid, ObservationModel, SpatialResponse, SpectralResponse, gaussian_psf
from priors import gdd
from priors.gdd import GDD, GuidedDeepDecoder, fit_gdd, multispectral_loss, panchromatic_loss
from priors.pair import Pair

GRID = Grid.nested(2)


def simulated(scene: np.ndarray, guide_bands: int) -> tuple[dict[str, jax.Array], ObservationModel]:
    target = jnp.asarray(scene[None, :32, :32, ::3])
    srf = jnp.asarray(np.kron(np.eye(guide_bands), np.ones((1, 4 // guide_bands))) * guide_bands / 4, jnp.float32)
    response = SpatialResponse(gaussian_psf(0.85, GRID), GRID.ratio, GRID.phase, "circular")
    model = ObservationModel({"lr": response, "guide": SpectralResponse(srf)}, GRID)
    return model(target), model


TINY = {"width": 8, "levels": 1}


def parameters(build) -> int:
    return sum(int(leaf.size) for leaf in jax.tree.leaves(nnx.state(nnx.eval_shape(build), nnx.Param)))


def test_size_with_shared_and_with_separate_scales():
    bands = Bands(31, 3, 32)
    assert parameters(lambda: GuidedDeepDecoder(bands, rngs=nnx.Rngs(0))) == 245_151
    assert parameters(lambda: GuidedDeepDecoder(bands, shared=False, rngs=nnx.Rngs(0))) == 983_327


@pytest.mark.parametrize("size", [(32, 64), (26, 34), (33, 47)])
def test_network_takes_any_size(size):
    height, width = size

    def run() -> jax.Array:
        network = GuidedDeepDecoder(Bands(5, 3, 2), width=4, rngs=nnx.Rngs(0))
        return network(jnp.ones((1, height, width, 3)), jnp.ones((1, -(-height // 32), -(-width // 32), 5)))

    assert jax.eval_shape(run).shape == (1, height, width, 5)


class Fixed:
    """Stands for the module: an image and a mixing that are given."""

    def __init__(self, image: np.ndarray) -> None:
        self.image, self.mixing = jnp.asarray(image), jnp.diag(jnp.arange(4.0))

    def __call__(self, guide, key, deviation):
        return self.image


def test_losses_are_the_papers(scene):
    x = np.random.default_rng(0).random((1, 32, 32, 4)).astype(np.float32)
    for guide_bands, loss in ((2, multispectral_loss), (1, panchromatic_loss)):
        observation, model = simulated(scene, guide_bands)
        value, product = loss(Fixed(x), Pair.of(observation, model), jax.random.key(0))
        spatial = float(jnp.mean((model["lr"](x) - observation["lr"]) ** 2))
        if guide_bands == 2:
            expected = 0.1 * spatial + float(jnp.mean((model["guide"](x) - observation["guide"]) ** 2))
        else:
            difference = np.float64(x) * np.arange(4) - np.asarray(observation["guide"], np.float64)
            squares = sum((np.diff(difference, axis=axis) ** 2).sum() for axis in (1, 2))
            expected = 10 * spatial + squares / (32 * 32 * 4)
        assert float(value) == pytest.approx(expected, rel=1e-4)
        np.testing.assert_array_equal(product, x)


def test_a_short_fit_lowers_the_loss_without_a_spectral_response(scene):
    observation, model = simulated(scene, 1)
    model = model.replace(operators={"lr": model["lr"], "guide": None})
    digital = {key: 10_000 * image for key, image in observation.items()}
    fitted = fit_gdd(digital, model, key=jax.random.key(0), effort=40 / gdd.PANCHROMATIC.steps, **TINY)
    assert fitted.product.shape == (1, 32, 32, 4)
    assert np.isfinite(fitted.product).all()
    assert fitted.losses[-1] < 0.5 * fitted.losses[0]
    assert fitted.model is model


def test_operators_must_be_known(scene):
    observation, model = simulated(scene, 2)
    for key in ("lr", "guide"):
        with pytest.raises(InputError, match=f"operator of '{key}' is not known"):
            fit_gdd(observation, model.replace(operators=model.operators | {key: None}), key=jax.random.key(0))


def test_row():
    assert GDD.parameters == (245_151, Bands(31, 3, 32))
    assert GDD.method.steps == 20_001
