"""SUN's own promises; what every network promises is in tests/test_catalogue.py."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given
from hypothesis import strategies as st

from jfusion.catalogue import Bands
from jfusion.operators import Grid, ObservationModel, SpatialResponse, SpectralResponse, gaussian_psf
from jfusion.operators.psf import FWHM_PER_SIGMA, moving_psf
from unrolled.sun import SUN, Likeness, deeply_supervised, principal_components

SNR = 100.0


def noisy_pair(scene: np.ndarray, grid: Grid, boundary: str, srf: np.ndarray):
    """Observation with noise a hundredth of the images' size, and the model that knows it."""
    spatial = SpatialResponse(gaussian_psf(grid.ratio / 2.35, grid), grid.ratio, grid.phase, boundary)
    model = ObservationModel({"lr": spatial, "guide": SpectralResponse(jnp.asarray(srf, jnp.float32))}, grid)
    images = model(jnp.asarray(scene)[None])
    noise = {k: jnp.full(v.shape[-1], jnp.sqrt(jnp.mean(v**2)) / SNR) for k, v in images.items()}
    rng = np.random.default_rng(0)
    observation = {k: v + noise[k] * jnp.asarray(rng.standard_normal(v.shape, np.float32)) for k, v in images.items()}
    return observation, model.replace(noise=noise)


@pytest.fixture(scope="module")
def network() -> SUN:
    """Three random stages that do much harm before they return to the images."""
    network = SUN(Bands(12, 3, 4), stages=3, rank=4, window=3, width=4, rngs=nnx.Rngs(0))
    for stage in network.stages:
        stage.shares.outer.kernel[...] = 10 * stage.shares.outer.kernel[...]
    return network


def estimates(network: SUN, observation, model):
    graph, state = nnx.split(network)
    return jax.jit(lambda s, o, m: nnx.merge(graph, s)(o, m, stages=True))(state, observation, model)


@pytest.mark.parametrize(
    ("grid", "boundary", "bands"),
    [(Grid.nested(4), "circular", 12), (Grid(2, (0.0, 0.0)), "reflect", 6)],
    ids=["nested, periodic", "other ratio, phase, boundary and bands"],
)
def test_every_stage_agrees_with_both_sensors(network, grid, boundary, bands, scene) -> None:
    """Whatever the stages learn, and whatever pair the weights meet, the residuals are those of the noise."""
    srf = np.kron(np.eye(3), np.full((1, bands // 3), 3 / bands))
    observation, model = noisy_pair(scene[:32, :40, :bands], grid, boundary, srf)
    stages = estimates(network, observation, model)
    assert stages.product.shape == (1, 32, 40, bands)
    assert float(stages.residuals["guide"].max()) < 1.5 / SNR
    inside = float(stages.residuals["lr"].max())
    assert inside < (1.5 / SNR if boundary == "circular" else 10 / SNR)


@pytest.fixture(scope="module")
def exactly(network):
    graph, state = nnx.split(network)
    return jax.jit(lambda o, m: nnx.merge(graph, state)(o, m, stages=True, exact=True).residuals)


@pytest.mark.parametrize(("ratio", "boundary"), [(3, "circular"), (4, "reflect"), (6, "reflect")])
@given(
    width=st.floats(0.6, 1.3),
    motion=st.floats(0, 0.5),
    way=st.floats(0, np.pi),
    shift=st.tuples(*[st.floats(-0.5, 0.5)] * 2),
)
def test_exact_product_is_what_both_sensors_saw(exactly, scene, ratio, boundary, width, motion, way, shift) -> None:
    """Of a pair without noise, which the model is not told; width, motion and shift of the PSF are in pixels of lr."""
    grid = Grid.nested(ratio)
    sigma = np.array([1.0, 0.8]) * width * ratio / FWHM_PER_SIGMA
    psf = moving_psf(
        sigma, 0.3, motion * ratio, way, np.array(grid.shift) + ratio * np.array(shift), taps=4 * ratio + 1
    )
    srf = jnp.asarray(np.kron(np.eye(3), np.full((1, 4), 0.25)), jnp.float32)
    operators = {"lr": SpatialResponse(psf, ratio, grid.phase, boundary), "guide": SpectralResponse(srf)}
    model = ObservationModel(dict(operators), grid)
    residuals = exactly(model(jnp.asarray(scene)[None, :36, :36]), model)
    for key, values in residuals.items():
        assert float(values[-1].max()) < 1e-3, key


def test_scan_equals_loop(network, scene) -> None:
    observation, model = noisy_pair(
        scene[:16, :16], Grid.nested(4), "circular", np.kron(np.eye(3), np.full((1, 4), 0.25))
    )
    loop = estimates(network, observation, model).estimates
    scanned = nnx.clone(network)
    scanned.unroll = "scan"
    scanned = estimates(scanned, observation, model).estimates
    np.testing.assert_allclose(scanned, loop, atol=1e-4)


def test_principal_components_restore_the_image(scene) -> None:
    image = jnp.asarray(scene[None, :8, :8])
    mean, vectors, deviation = principal_components(image, 12)
    coefficients = jnp.einsum("nhwl,nlr->nhwr", image - mean, vectors)
    np.testing.assert_allclose(jnp.einsum("nhwr,nlr->nhwl", coefficients, vectors) + mean, image, atol=1e-5)
    np.testing.assert_allclose(coefficients[..., :3].std((1, 2)), deviation[:, :3], rtol=1e-3)
    assert (vectors.max(1) >= -vectors.min(1)).all()


def test_mean_over_alike_pixels_stops_at_an_edge_of_the_guide() -> None:
    likeness = Likeness(3, 1, nnx.Rngs(0))
    step = jnp.where(jnp.arange(8)[:, None] < 4, 0.0, 1.0)[None, None] * jnp.ones((1, 6, 1, 1))
    traits = jnp.ones((1, 1, 1, 1, 1))
    np.testing.assert_allclose(likeness(step, 100 * step, traits, 1), step, atol=1e-5)
    blurred = likeness(step, 0 * step, traits, 1)
    assert 0.05 < float(blurred[0, 0, 3, 0]) < 0.95


def test_an_image_of_nothing_has_a_loss():
    network = SUN(Bands(12, 3, 2), stages=1, rank=3, window=3, width=4, rngs=nnx.Rngs(0))
    grid = Grid.nested(2)
    response = SpatialResponse(gaussian_psf(0.8, grid), 2, grid.phase, "circular")
    model = ObservationModel({"lr": response, "guide": SpectralResponse(jnp.eye(12)[:3])}, grid)
    target = jnp.stack([jnp.zeros((12, 12, 12)), jax.random.uniform(jax.random.key(0), (12, 12, 12))])
    value, slopes = nnx.value_and_grad(lambda net: deeply_supervised(net, model(target), model, target))(network)
    assert jnp.isfinite(value)
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(slopes))
