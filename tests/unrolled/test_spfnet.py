"""SpfNet's own equations; what every network promises is in tests/test_catalogue.py."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from learning import every_parameter_learns

from jfusion.catalogue import Bands
from jfusion.inference.run import count_parameters
from jfusion.operators import Grid, ObservationModel, SpatialResponse, SpectralResponse, gaussian_psf
from unrolled.spfnet import (
    Bridge,
    Enlarging,
    Shrinking,
    SpfNet,
    in_pieces,
    leaky,
    patch_basis,
    patch_loss,
    starts,
    tiles,
)

GRID = Grid(2, (1.0, 0.5))
BANDS = Bands(5, 2, 2)
SRF = jnp.asarray([[0.5, 0.5, 0, 0, 0], [0, 0, 0.2, 0.3, 0.5]])
SIZES = {"stages": 2, "inner": 2, "components": 3, "piece": 4}


@pytest.fixture(scope="module")
def pair():
    """Observation, model and target of a scene (12, 10, 5) of three spectra at ratio 2, off the nested grid."""
    rng = np.random.default_rng(0)
    target = jnp.asarray(rng.random((1, 12, 10, 3)) @ rng.random((3, 5)), jnp.float32)
    spatial = SpatialResponse(gaussian_psf(0.9, GRID), 2, GRID.phase)
    model = ObservationModel({"lr": spatial, "guide": SpectralResponse(SRF)}, GRID)
    return model(target), model, target


def network(physics: str = "free", **sizes: int) -> SpfNet:
    """With random parameters; its own would be compiled shape by shape."""
    graph, state = nnx.split(
        nnx.eval_shape(lambda: SpfNet(BANDS, **{**SIZES, **sizes}, physics=physics, rngs=nnx.Rngs(0)))
    )
    rng = np.random.default_rng(0)
    return nnx.merge(graph, jax.tree.map(lambda x: jnp.asarray(0.2 * rng.standard_normal(x.shape), x.dtype), state))


def test_release_has_one_stage_more_of_priors() -> None:
    """1,827,760 parameters are there, the last stage's priors for no product."""
    paper = nnx.eval_shape(lambda: SpfNet(Bands(31, 3, 8), rngs=nnx.Rngs(0)))
    priors = nnx.eval_shape(lambda: nnx.List([Shrinking(31, nnx.Rngs(0)), Enlarging(31, nnx.Rngs(0))]))
    assert count_parameters(paper) + count_parameters(priors) == 1_827_760
    assert paper.bridges[0].shrink.kernel.shape == (12, 12, 31, 31)


def test_stages_are_the_papers(pair) -> None:
    """Two stages of two steps by hand, from the network's own parts."""
    observation, model, target = pair
    net = network(piece=6)

    @nnx.jit
    def both(net):
        y, z = observation["lr"], observation["guide"]
        a = patch_basis(y, 3).vectors[0]
        s = v = w = d = e = jnp.zeros((1, 12, 10, 3))

        def leaky(x):
            return jnp.where(x > 0, x, 0.2 * x)

        images = []
        for stage in net.stages:
            r = stage.response[...]
            for bridge, weigh in zip(net.bridges, stage.weigh, strict=True):
                spatial = bridge.back(leaky(bridge.shrink(s)) - y @ a)
                spectral = (s @ a.T @ r.T - z) @ r @ a
                s = s - leaky(weigh(jnp.concatenate([spatial, spectral, s - v - d, s - w - e], -1)))
            images.append(stage.outer(s @ a.T))
            if stage is net.stages[0]:
                shrinking, enlarging = stage.priors
                v, w = shrinking(s - d), enlarging(s - e)
                d, e = d - (s - v), e - (s - w)
        product = (images[0] + images[1]) / 2
        found = net.solve(observation, model), patch_loss(net, observation, model, target)
        return (jnp.stack(images), jnp.mean(jnp.abs(product - target))), found

    for expected, found in zip(*both(net), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("physics", ["exact", "learned", "free"])
def test_every_physics_learns(physics, pair) -> None:
    """Gradients reach the sensors of each kind, on a size and a grid that halving does not fit."""
    every_parameter_learns(network(physics), patch_loss, pair)


def test_true_coefficients_fit_both_images(pair) -> None:
    """Told the sensors, nothing pulls at the coefficients of a scene that lies in the subspace."""
    observation, model, target = pair
    net = network("exact")
    basis = patch_basis(observation["lr"], 3)
    (spatial, _), spectral = net.pulls(observation, model, basis)
    true = basis.T(target)
    for pull in (spatial, spectral(net.stages[0])):
        np.testing.assert_allclose(pull(true), 0, atol=1e-5)
        assert float(jnp.abs(pull(true + 0.1)).max()) > 1e-2


def test_basis_is_orthonormal_signed_and_full(pair) -> None:
    observation, _, _ = pair
    a = patch_basis(observation["lr"], 3).vectors[0]
    np.testing.assert_allclose(a.T @ a, np.eye(3), atol=1e-5)
    assert all(a[k, j] > 0 for j, k in enumerate(jnp.abs(a).argmax(0)))
    few = patch_basis(observation["lr"][:, :1, :2], 3).vectors[0]
    np.testing.assert_allclose(few.T @ few, np.diag([1, 1, 0]), atol=1e-5)


def test_priors_take_any_size() -> None:
    """What they return has the size of what came, and is that where they add nothing."""
    x = jax.random.normal(jax.random.key(0), (1, 7, 10, 2))
    for prior in (Shrinking(2, nnx.Rngs(0)), Enlarging(2, nnx.Rngs(0))):
        assert float(jnp.abs(prior(x) - x).max()) > 1e-2
        last = prior.up[-1] if isinstance(prior, Shrinking) else prior.down
        last.kernel[...] = jnp.zeros_like(last.kernel[...])
        np.testing.assert_array_equal(prior(x), x)


@pytest.mark.parametrize(("size", "piece", "expected"), [(8, 8, [0]), (12, 8, [0, 2, 4]), (13, 8, [0, 2, 4, 5])])
def test_pieces_cover_an_axis(size: int, piece: int, expected: list[int]) -> None:
    assert starts(size, piece) == expected


def test_product_is_the_mean_of_overlapping_pieces() -> None:
    rng = np.random.default_rng(0)
    lr, guide = rng.random((1, 5, 4, 2), np.float32), rng.random((1, 10, 8, 1), np.float32)
    total, count = np.zeros((1, 10, 8, 2)), np.zeros((10, 8, 1))
    for row in (0, 1):
        piece = lr[:, row : row + 4].mean((1, 2), keepdims=True) + guide[:, 2 * row : 2 * row + 8]
        total[:, 2 * row : 2 * row + 8] += piece
        count[2 * row : 2 * row + 8] += 1

    def fuse(seen):
        assert seen["lr"].shape == (1, 4, 4, 2)
        return (seen["lr"].mean((1, 2), keepdims=True) + seen["guide"])[None]

    found = in_pieces(fuse, {"lr": jnp.asarray(lr), "guide": jnp.asarray(guide)}, 2, 4)
    np.testing.assert_allclose(found[0], total / count, rtol=1e-5)


def test_tiles_lie_side_by_side() -> None:
    x = jnp.arange(2 * 5 * 3).reshape(2, 5, 3, 1)
    np.testing.assert_array_equal(
        tiles(x, 2), jnp.concatenate([x[i : i + 1, r : r + 2, :2] for i in (0, 1) for r in (0, 2)])
    )
    np.testing.assert_array_equal(tiles(x, 9), x)


def test_training_sees_pieces_of_the_size_of_use(pair) -> None:
    """Of 6 x 5 low-resolution pixels, those 4 x 4 that make a whole piece."""
    observation, model, target = pair
    net = network()
    corner = {"lr": observation["lr"][:, :4, :4], "guide": observation["guide"][:, :8, :8]}

    @nnx.jit
    def both(net):
        one = jnp.mean(jnp.abs(net.solve(corner, model).mean(0) - target[:, :8, :8]))
        return one, patch_loss(net, observation, model, target)

    np.testing.assert_allclose(*both(net), rtol=1e-5)


def test_stages_are_told_of_images_in_pieces(pair) -> None:
    observation, model, _ = pair
    net = network()
    told = nnx.jit(lambda net: net(observation, model, stages=True))(net)
    assert told.estimates.shape == (3, 1, 12, 10, 5)
    np.testing.assert_allclose(told.product, told.estimates[:2].mean(0), atol=1e-4)
    np.testing.assert_allclose(told.product, nnx.jit(lambda net: net(observation, model))(net), atol=1e-4)
    whole = net.solve(observation, model).mean(0)
    assert float(jnp.abs(told.product - whole).max()) > 1e-3


def test_bridges_lie_around_the_pixels_of_the_grid() -> None:
    """On a nested grid as in the release; on another one a shifted image gives the same."""
    bridge, x = Bridge(3, 2, nnx.Rngs(0)), jax.random.normal(jax.random.key(1), (1, 12, 12, 3))

    @nnx.jit
    def both(bridge):
        nested, moved = (bridge.on(Grid(2, centre)) for centre in ((0.5, 0.5), (1, 1)))
        seen = leaky(bridge.shrink(x))
        early = bridge.on(Grid(2, (0, 0))).see(x)
        late = moved.see(jnp.roll(x, 1, (1, 2)))
        return (
            (nested.see(x), seen),
            (nested.back(seen), bridge.back(seen)),
            (early[:, 1:-1, 1:-1], late[:, 1:-1, 1:-1]),
        )

    for ours, expected in both(bridge):
        np.testing.assert_allclose(ours, expected, atol=1e-5)
