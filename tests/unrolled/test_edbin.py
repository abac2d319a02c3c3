"""DBIN+'s and EDBIN's own equations; what every network promises is in tests/test_catalogue.py."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from learning import every_parameter_learns

from jfusion.catalogue import Bands
from jfusion.layers.spectral import spectral_norm
from jfusion.operators import Grid, ObservationModel, SpatialResponse, SpectralResponse, gaussian_psf
from unrolled.edbin import DBIN, Layer, Reassembly, iterating_error, window_of
from unrolled.physics import around

GRID = Grid(2, (1.0, 0.5))
BANDS = Bands(5, 2, 2)
SRF = jnp.asarray([[0.5, 0.5, 0, 0, 0], [0, 0, 0.2, 0.3, 0.5]])


def network(enhanced: bool, iterations: int = 2, **options) -> DBIN:
    """With He's law and no biases; its own numbers would be compiled shape by shape."""
    graph, state = nnx.split(
        nnx.eval_shape(
            lambda: DBIN(
                BANDS, iterations=iterations, width=4, blocks=1, enhanced=enhanced, **options, rngs=nnx.Rngs(0)
            )
        )
    )
    rng = np.random.default_rng(0)

    def number(path, leaf):
        if path[-1] == "bias":
            return leaf.replace(jnp.zeros(leaf.shape))
        fan_in = int(np.prod(leaf.shape[:-1]))
        return leaf.replace(jnp.asarray(np.sqrt(2 / fan_in) * rng.standard_normal(leaf.shape), jnp.float32))

    flat = [(path, number(path, leaf)) for path, leaf in nnx.to_flat_state(state)]
    return nnx.merge(graph, nnx.from_flat_state(flat))


either = pytest.mark.parametrize("enhanced", [False, True], ids=["dbin", "edbin"])


@pytest.fixture(scope="module")
def pair():
    """Observation, model and target of a scene (12, 10, 5) at ratio 2."""
    target = jax.random.uniform(jax.random.key(0), (12 * 10 * 5,)).reshape(1, 12, 10, 5)
    spatial = SpatialResponse(gaussian_psf(0.9, GRID), 2, GRID.phase)
    model = ObservationModel({"lr": spatial, "guide": SpectralResponse(SRF)}, GRID)
    return model(target), model, target


@either
def test_iterations_fuse_what_both_images_lack(enhanced: bool, pair) -> None:
    """X_0, X_1, X_2 and the product from the network's own parts."""
    observation, model, _ = pair
    net = network(enhanced)

    def block(part, x):
        y = part.second(jax.nn.leaky_relu(part.first(x), 0.2))
        if not enhanced:
            return x + jax.nn.leaky_relu(y, 0.2)
        factors = jax.nn.sigmoid(part.gate.excite(jax.nn.relu(part.gate.squeeze(y.mean((1, 2))))))
        return x + y * factors[:, None, None]

    def fuse(part, y, z):
        x = part.first(jnp.concatenate([part.enlarge(y, GRID), z], -1))
        x = part.last(block(part.blocks[0], jax.nn.leaky_relu(x, 0.2)))
        return x if enhanced else jax.nn.leaky_relu(x, 0.2)

    @nnx.jit
    def both(net):
        y, z = observation["lr"], observation["guide"]
        d, r = (net.refinement.responses[key] for key in ("lr", "guide"))
        estimates = [fuse(net.initial, y, z)]
        for _ in range(2):
            x = estimates[-1]
            errors = y - jax.nn.leaky_relu(d(x, GRID), 0.2), z - jax.nn.leaky_relu(r(x), 0.2)
            estimates.append(x + fuse(net.refinement.fuse, *errors))
        product = net.mix(jnp.concatenate(estimates, -1))
        return jnp.stack([*estimates, product]), net(observation, model, stages=True)

    expected, report = both(net)
    np.testing.assert_allclose(report.estimates, expected, atol=1e-5)
    np.testing.assert_array_equal(report.product, report.estimates[-1])


@either
def test_a_scene_that_explains_both_images_stays(enhanced: bool, pair) -> None:
    """Without biases, which start at zero, F makes nothing of nothing."""
    observation, model, target = pair
    net = network(enhanced, physics="exact")

    @nnx.jit
    def refined(net, x):
        return net.refinement(x, observation, GRID, net.sensors(model))

    np.testing.assert_allclose(refined(net, target), target, atol=1e-5)
    assert float(jnp.abs(refined(net, target + 0.1) - target - 0.1).max()) > 1e-3


@either
@pytest.mark.parametrize("physics", ["exact", "learned", "free"])
def test_every_physics_learns(physics, enhanced: bool, pair) -> None:
    every_parameter_learns(network(enhanced, 1, physics=physics), iterating_error, pair)


def test_layouts_agree(pair) -> None:
    nets = [network(True, unroll=unroll) for unroll in ("loop", "remat")]
    products = nnx.jit(lambda nets: [net(*pair[:2]) for net in nets])(nets)
    np.testing.assert_allclose(*products, atol=1e-5)


def test_reassembly_takes_the_pixels_that_its_weights_name() -> None:
    """Each of the 3 x 3 fine pixels is told to be another one of the 5 x 5 coarse neighbours; outside are zeros."""
    step, rng = 3, np.random.default_rng(0)
    part = Reassembly(2, step, nnx.Rngs(0))
    taps = rng.permutation(25)[: step**2]
    part.second.kernel[...] *= 0
    part.second.bias[...] = jnp.asarray(100 * np.eye(25)[taps].ravel(), jnp.float32)
    image = rng.random((1, 4, 6, 2)).astype(np.float32)
    padded = np.pad(image, ((0, 0), (2, 2), (2, 2), (0, 0)))
    expected = np.zeros((1, 12, 18, 2), np.float32)
    for place, tap in enumerate(taps):
        row, column = tap // 5, tap % 5
        expected[:, place // 3 :: 3, place % 3 :: 3] = padded[:, row : row + 4, column : column + 6]
    np.testing.assert_allclose(nnx.jit(lambda part: part(jnp.asarray(image)))(part), expected, atol=1e-6)


def test_reassembly_weighs_by_content() -> None:
    """Weights are shares: a flat image stays what it is, away from the border, whatever they are."""
    part = Reassembly(3, 2, nnx.Rngs(0))
    made = nnx.jit(lambda part: part(jnp.full((1, 6, 6, 3), 0.4)))(part)
    np.testing.assert_allclose(made[:, 4:-4, 4:-4], 0.4, rtol=1e-5)


def test_power_iterations_move_with_the_loss_alone(pair) -> None:
    """They lead to kernels of norm 0.7."""
    net = network(True)

    @nnx.jit
    def both(net):
        product = net(*pair[:2])
        before = net.mix.u[...] + 0
        loss = iterating_error(net, *pair)
        moved = net.mix.u[...] + 0
        for _ in range(40):
            net.mix.iterate()
        return loss - jnp.mean(jnp.abs(product - pair[2])), before, moved, net.mix.kernel()

    start = np.asarray(net.mix.u[...])
    difference, before, moved, kernel = both(net)
    np.testing.assert_allclose(difference, 0, atol=1e-6)
    np.testing.assert_allclose(before, start)
    np.testing.assert_allclose(moved, spectral_norm(net.mix.conv.kernel[...], jnp.asarray(start))[1], atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(np.asarray(kernel).reshape(-1, 5), 2), 0.7, rtol=1e-3)


def test_all_kernels_but_those_of_the_reassembly_are_bounded() -> None:
    """Both fusions have 1 + 2 + 1 of them, D, R and C are three more."""
    layers = [part for _, part in nnx.iter_modules(network(True)) if isinstance(part, Layer)]
    assert len(layers) == 11
    assert all(layer.u is not None for layer in layers)
    assert not [part for _, part in nnx.iter_modules(network(False)) if isinstance(part, Layer) and part.u is not None]


def test_windows_lie_around_the_low_resolution_pixels() -> None:
    """The middle of a window is at most half a pixel from the centre, and every ratio keeps its number of pixels."""
    assert around(Grid.nested(8), window_of(8)) == ((2, 2), (2, 2))
    for ratio in range(1, 9):
        for centre in np.linspace(0, ratio - 1, 4):
            (before, after), other = around(Grid(ratio, (centre, 0.0)), window_of(ratio))
            middle = (window_of(ratio) - 1) / 2 - before
            assert abs(middle - centre) < 0.5 + 1e-6
            assert before + after == sum(other) == window_of(ratio) - ratio


@pytest.mark.parametrize("centre", [0.0, 7.0])
def test_windows_at_the_edge_of_the_pixel(centre: float) -> None:
    """Where a window begins inside the image, it sees what it would see of the image without what lies before it."""
    grid, rng = Grid(8, (centre, centre)), np.random.default_rng(0)
    layer = Layer(1, 1, window_of(8), 8, bounded=False, rngs=nnx.Rngs(0))
    image = rng.random((24, 24)).astype(np.float32)
    padded, before = np.pad(image, 16), around(grid, 12)[0][0]
    start = 16 - before
    kernel = np.asarray(layer.conv.kernel[..., 0, 0])
    expected = [
        [
            (padded[start + 8 * i : start + 8 * i + 12, start + 8 * j : start + 8 * j + 12] * kernel).sum()
            for j in range(3)
        ]
        for i in range(3)
    ]

    def middle(x):
        seen = layer(x[None, ..., None], grid)[0, ..., 0]
        return seen[1, 1], seen

    gradient, seen = jax.jit(jax.grad(middle, has_aux=True))(jnp.asarray(image))
    np.testing.assert_allclose(seen, expected, atol=1e-5)
    place = slice(8 - before, 20 - before)
    np.testing.assert_allclose(gradient[place, place], kernel, atol=1e-6)
