"""PanCSC-Net's own equations; what every network promises is in tests/test_catalogue.py."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jfusion.catalogue import Bands
from jfusion.inference.run import count_parameters
from jfusion.layers.conv import conv
from jfusion.operators import Grid, ObservationModel, SpatialResponse, SpectralResponse, gaussian_psf, upsample
from unrolled.pancsc_net import Encoder, PanCSCNet

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


@pytest.mark.parametrize(("filters", "count"), [(8, 69_680), (32, 278_720)])
def test_release_is_smaller(filters: int, count: int) -> None:
    """Its training and its test, both with one iteration."""
    network = nnx.eval_shape(lambda: PanCSCNet(Bands(8, 1, 4), filters=filters, iterations=1, rngs=nnx.Rngs(0)))
    assert count_parameters(network) == count


def test_network_is_the_releases(pair) -> None:
    """All of it written out, with TensorFlow's borders and three copies of two guide bands; scanned it is the same."""
    observation, model, _ = pair
    network, scanned = (
        PanCSCNet(BANDS, filters=6, iterations=2, window=4, unroll=unroll, rngs=nnx.Rngs(0))
        for unroll in ("loop", "scan")
    )

    def filtered(layer, x):
        return conv(x, layer.kernel[...], padding=((1, 2), (1, 2)))

    def shrunk(part, code):
        return jnp.sign(code) * jax.nn.relu(jnp.abs(code) - jax.nn.relu(part.raw[...]))

    def coded(encoder, x):
        seen = filtered(encoder.analyse, x)
        code = shrunk(encoder.shrink, seen)
        codes = [code]
        for step in encoder.iterations:
            code = shrunk(step.shrink, seen + (code - filtered(step.analyse, filtered(step.synthesise, code))))
            codes.append(code)
        return codes

    @nnx.jit
    def run(network, scanned):
        p, y = jnp.concatenate([observation["guide"]] * 3, -1), upsample(observation["lr"], GRID)
        u, v = coded(network.unique["guide"], p)[-1], coded(network.unique["lr"], y)[-1]
        rest = [p - filtered(network.explain["guide"], u), y - filtered(network.explain["lr"], v)]
        alone = filtered(network.compose["guide"], u) + filtered(network.compose["lr"], v)
        common = coded(network.common, jnp.concatenate(rest, -1))
        expected = jnp.stack([alone + filtered(network.compose["common"], z) for z in common])
        return expected, network(observation, model, stages=True), scanned(observation, model)

    expected, report, same = run(network, scanned)
    np.testing.assert_allclose(report.estimates, expected, atol=1e-5)
    np.testing.assert_allclose(same, report.product, atol=1e-5)
    assert {name: values.shape for name, values in report.steps.items()} == {
        "threshold_u": (3,), "threshold_v": (3,), "threshold_z": (3,)
    }  # fmt: skip


def test_tied_filters_are_iterative_shrinkage() -> None:
    """With the adjoint of a dictionary for W and G each iteration lowers ``|x - D c|^2 / 2 + |c|_1 / 5``."""
    encoder = Encoder(2, 6, 5, 3, "loop", nnx.Rngs(0))
    dictionary = encoder.iterations[0].synthesise.kernel[...]
    step = 1 / float(jnp.sum(dictionary**2) * 9)  # at most one over the squared norm
    adjoint = step * jnp.flip(jnp.swapaxes(dictionary, -1, -2), (0, 1))
    encoder.analyse.kernel[...] = adjoint
    for part in (encoder, *encoder.iterations):
        part.shrink.raw[...] = jnp.full(6, step / 5)
        part.analyse.kernel[...] = adjoint
    for part in encoder.iterations:
        part.synthesise.kernel[...] = dictionary
    image = jax.random.normal(jax.random.key(0), (1, 8, 9, 2))

    @jax.jit
    def costs():
        codes = encoder(image)
        missing = jax.vmap(lambda code: image - conv(code, dictionary))(codes)
        return 0.5 * jnp.sum(missing**2, (1, 2, 3, 4)) + 0.2 * jnp.abs(codes).sum((1, 2, 3, 4))

    assert np.diff(costs()).max() < 0


def test_negative_thresholds_are_none() -> None:
    """The codes are then linear in the image."""
    encoder = Encoder(2, 4, 1, 3, "loop", nnx.Rngs(0))
    image = jax.random.normal(jax.random.key(0), (1, 6, 6, 2))
    run = nnx.jit(lambda encoder, image: encoder(image))
    for sign in (-1, 1):
        for part in (encoder, *encoder.iterations):
            part.shrink.raw[...] = jnp.full(4, 0.3 * sign)
        codes = run(encoder, image)
        assert np.allclose(run(encoder, 2 * image), 2 * codes, atol=1e-5) == (sign < 0)
    assert bool((codes == 0).any())
