"""MHF-Net's own equations; what every network promises is in tests/test_catalogue.py."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jfusion.catalogue import Bands
from jfusion.errors import InputError
from jfusion.inference.run import count_parameters
from jfusion.operators import Grid, ObservationModel, SpatialResponse, SpectralResponse, gaussian_psf
from unrolled.mhf_net import (
    BMHFNet,
    MHFNet,
    SpatialKernels,
    factors,
    identity_taps,
    initialise,
    mhf_loss,
    norm_bound,
    pair_factors,
)

GRID = Grid.nested(4)


@pytest.fixture(scope="module")
def pair():
    """Observation, model and target of two smooth scenes (16, 16, 6) at ratio 4."""
    key = jax.random.key(0)
    target = jax.random.uniform(key, (2, 16, 16, 2)) @ jax.random.uniform(key, (2, 6))
    srf = jnp.asarray([[0.5, 0.5, 0, 0, 0, 0], [0, 0, 0, 0.3, 0.3, 0.4]])
    operators = {"lr": SpatialResponse(gaussian_psf(1.7, GRID), 4, GRID.phase), "guide": SpectralResponse(srf)}
    model = ObservationModel(dict(operators), GRID)
    return model(target), model, target


@pytest.mark.parametrize(("ratio", "steps"), [(32, [4, 4, 2]), (8, [4, 2]), (12, [4, 3]), (7, [7]), (1, [])])
def test_ratio_is_split_as_published(ratio: int, steps: list[int]) -> None:
    assert factors(ratio) == steps


@pytest.mark.parametrize(("ratio", "count"), [(4, 36), (16, 72), (32, 81)])
def test_learned_response_has_the_published_kernels(ratio: int, count: int) -> None:
    """Window sums of the initial kernels are means, at the right size and place."""
    response = SpatialKernels(ratio)
    assert count_parameters(response) == count
    ramp = jnp.broadcast_to(jnp.arange(ratio * 6.0)[None, :, None, None], (1, ratio * 6, ratio, 2))
    low = nnx.jit(lambda response: response(ramp, Grid.nested(ratio))[-1])(response)
    assert low.shape == (1, 6, 1, 2)
    inner = np.asarray(low[0, 2:-2, 0, 0])
    np.testing.assert_allclose(np.diff(inner), inner[1] - inner[0], rtol=1e-4)


@pytest.mark.parametrize("centre", [(1, 0), (0, 1)])
def test_windows_lie_around_the_pixels_of_any_grid(centre) -> None:
    """Their mean over a ramp is the place of the low-resolution pixel."""
    rows, columns = jnp.meshgrid(jnp.arange(12.0), jnp.arange(12.0), indexing="ij")
    low = SpatialKernels(2)(jnp.stack([rows, columns], -1)[None], Grid(2, centre))[-1]
    places = 2 * np.arange(1, 5)
    np.testing.assert_allclose(low[0, 1:5, 2, 0], places + centre[0], atol=1e-5)
    np.testing.assert_allclose(low[0, 2, 1:5, 1], places + centre[1], atol=1e-5)


def test_parameters_at_the_papers_other_ratios_differ_only_in_the_spatial_part() -> None:
    def count(ratio: int) -> int:
        return count_parameters(nnx.eval_shape(lambda: MHFNet(Bands(31, 3, ratio), stages=2, rngs=nnx.Rngs(0))))

    assert count(32) - count(16) == 9 * 31 * 31 + 34_281 + 9


SMALL_PATCH = (2, 2, 8), (8, 8, 2), (8, 8, 8)
"""Low-resolution image, guide and truth."""


def drawn(build):
    """A network with random parameters; its own would be compiled shape by shape."""
    graph, state = nnx.split(nnx.eval_shape(build))
    rng = np.random.default_rng(0)
    return nnx.merge(graph, jax.tree.map(lambda x: jnp.asarray(0.1 * rng.standard_normal(x.shape), x.dtype), state))


def solved(network: MHFNet | BMHFNet, observation, model):
    """What a network computes, compiled."""
    graph, state = nnx.split(network)
    return jax.jit(lambda state, *pair: nnx.merge(graph, state).solve(*pair))(state, observation, model)


@pytest.fixture(scope="module")
def cmhf(pair):
    """A network of three stages with its prediction set, and what it computes."""
    observation, model, target = pair
    network = drawn(lambda: MHFNet(Bands(6, 2, 4), stages=3, rank=2, adjust_blocks=1, rngs=nnx.Rngs(0)))
    initialise(network, observation, model, target)
    return network, solved(network, observation, model)


@pytest.fixture(scope="module")
def bmhf(pair):
    observation, model, _ = pair
    network = drawn(lambda: BMHFNet(Bands(6, 2, 4), stages=3, rank=2, prox_blocks=1, adjust_blocks=1, rngs=nnx.Rngs(0)))
    return network, solved(network, observation, model)


def test_initial_prediction_is_least_squares(pair, cmhf) -> None:
    observation, _, target = pair
    z, x = np.asarray(observation["guide"]).reshape(-1, 2), np.asarray(target).reshape(-1, 6)
    np.testing.assert_allclose(cmhf[0].predict[...], np.linalg.lstsq(z, x, rcond=None)[0], atol=1e-4)


def test_first_stage_is_the_papers_equation(pair, cmhf) -> None:
    """X_1 = Z A + prox(-U(C Z A - Y) B') B, with the network's own parts."""
    observation, _, _ = pair
    network, (_, estimates, predicted, _) = cmhf

    @nnx.jit
    def first(network):
        z = observation["guide"] @ network.predict[...]
        error = network.response(z, GRID)[-1] - observation["lr"]
        step = network.enlarge[0](error, [observation["guide"]]) @ network.spectra[...].T
        return z, z + network.solution.prox[0](-step) @ network.spectra[...]

    expected = first(network)
    np.testing.assert_allclose(predicted, expected[0], atol=1e-4)
    np.testing.assert_allclose(estimates[0], expected[1], atol=1e-4)


@pytest.mark.parametrize(("physics", "unroll"), [("exact", "loop"), ("learned", "remat")])
def test_with_physics_the_up_samplers_are_adjoints(physics, unroll, pair) -> None:
    """X_1 = Z A + prox(-ratio^2 s C'(C Z A - Y) B' / b) B, and every parameter learns."""
    observation, model, target = pair
    sizes = {"stages": 3, "rank": 2, "adjust_blocks": 1, "unroll": unroll}
    network = drawn(lambda: MHFNet(Bands(6, 2, 4), **sizes, physics=physics, rngs=nnx.Rngs(0)))
    initialise(network, observation, model, target)

    @nnx.jit
    def both(network):
        response = network.sensor.response(model)
        z = observation["guide"] @ network.predict[...]
        back = 16 / norm_bound(network.spectra[...]) * network.sizes[0] * response.T(response(z) - observation["lr"])
        expected = z + network.solution.prox[0](-(back @ network.spectra[...].T)) @ network.spectra[...]
        gradient = nnx.grad(mhf_loss(0.5, 0.2))(network, observation, model, target)
        return expected, network(observation, model, stages=True), gradient

    expected, report, gradient = both(network)
    np.testing.assert_allclose(report.estimates[1], expected, atol=1e-4)
    assert report.steps["size"].shape == (2,)
    assert norm_bound(network.spectra[...]) >= np.linalg.norm(network.spectra[...], 2) ** 2
    for path, leaf in nnx.to_flat_state(nnx.state(gradient)):
        assert float(jnp.abs(leaf[...]).max()) > 0, path


def test_no_other_physics() -> None:
    with pytest.raises(InputError, match="exact, learned, free"):
        MHFNet(Bands(6, 2, 4), physics="true", rngs=nnx.Rngs(0))  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["cmhf", "bmhf"])
def test_scan_equals_loop(kind, pair, request) -> None:
    network, loop = request.getfixturevalue(kind)
    scanned = nnx.clone(network)
    scanned.unroll = "scan"
    for a, b in zip(loop, solved(scanned, *pair[:2]), strict=True):
        np.testing.assert_allclose(b, a, atol=1e-4)


def test_ratio_of_one_has_no_up_samplers() -> None:
    bands = Bands(6, 2, 1)
    for build in (MHFNet, BMHFNet):
        with pytest.raises(InputError, match="ratio of 2 or more"):
            build(bands, stages=2, rngs=nnx.Rngs(0))
    grid = Grid.nested(1)
    model = ObservationModel(
        {"lr": SpatialResponse(gaussian_psf(0.5, grid), 1, grid.phase), "guide": SpectralResponse(jnp.ones((2, 6)))},
        grid,
    )
    images = {"lr": jnp.ones((1, 8, 8, 6)), "guide": jnp.ones((1, 8, 8, 2))}
    for physics in ("exact", "learned"):
        product = jax.eval_shape(
            lambda: MHFNet(bands, stages=2, rank=2, physics=physics, rngs=nnx.Rngs(0))(images, model)  # noqa: B023
        )
        assert product.shape == (1, 8, 8, 6)


def test_last_residual_is_that_of_the_last_estimate(pair, cmhf, bmhf) -> None:
    observation, model, _ = pair
    responses = (lambda x: cmhf[0].response(x, GRID)[-1], lambda x: model["lr"](x))
    for (_, (_, estimates, _, last)), response in zip((cmhf, bmhf), responses, strict=True):
        np.testing.assert_allclose(last, jax.jit(response)(estimates[-1]) - observation["lr"], atol=1e-4)


@pytest.mark.parametrize("kind", ["cmhf", "bmhf"])
def test_loss_adds_all_terms(kind, pair, request) -> None:
    observation, model, target = pair
    network, result = request.getfixturevalue(kind)
    if kind == "bmhf":
        graph, state = nnx.split(network)
        result = jax.jit(lambda state: nnx.merge(graph, state).solve(observation, model, target))(state)
    product, estimates, predicted, last = (jax.tree.map(np.asarray, part) for part in result)
    assert len(estimates) == 2
    expected = np.mean((product - target) ** 2) + 0.2 * np.mean(last**2)
    expected += 0.5 * sum(np.mean((x - target) ** 2) for x in (predicted, *estimates))
    loss = nnx.jit(mhf_loss(0.5, 0.2))(network, observation, model, target)
    np.testing.assert_allclose(loss, expected, rtol=1e-4)


def test_bmhf_learns_more_rows_than_a_patch_has_low_resolution_pixels() -> None:
    """Four pixels leave a fit of two guide bands two directions; the truth of the patch leaves six."""
    lr, guide, target = (jax.random.uniform(jax.random.key(k), (1, *shape)) for k, shape in enumerate(SMALL_PATCH))
    network = drawn(lambda: BMHFNet(Bands(8, 2, 4), stages=2, rank=6, prox_blocks=1, adjust_blocks=1, rngs=nnx.Rngs(0)))
    model = ObservationModel({"lr": SpatialResponse(gaussian_psf(1.6, GRID), 4, GRID.phase)}, GRID)
    images = {"lr": lr, "guide": guide}
    gradient = nnx.jit(nnx.grad(mhf_loss(0.1, 0.1)))(network, images, model, target)
    last = gradient.solution.prox[0].blocks[0].layers[2].scale[...]
    assert last.shape == (6,)
    assert float(jnp.abs(last).min()) > 0


def test_pair_factors_explain_the_low_resolution_pair(pair) -> None:
    """B spans what the prediction leaves, strongest first, and has rows of zeros where nothing is left."""
    observation, model, _ = pair
    lr, guide = observation["lr"], model["lr"](observation["guide"][..., :1])
    predict, spectra = jax.jit(pair_factors, static_argnums=2)(lr, guide, 3)
    assert spectra.shape == (2, 3, 6)
    assert bool((spectra.max(2) >= -spectra.min(2)).all())
    left = lr - guide @ predict[:, None]
    np.testing.assert_allclose(jnp.einsum("nhwg,nhwl->ngl", guide, left), 0, atol=1e-3)
    one = spectra[:, :1]
    np.testing.assert_allclose(jnp.sum(one**2, 2), 1, atol=1e-4)
    np.testing.assert_allclose(jnp.einsum("nhwl,nrl,nrm->nhwm", left, one, one), left, atol=1e-4)
    np.testing.assert_array_equal(spectra[:, 1:], 0)


def test_rows_whose_sums_are_positive() -> None:
    """The same rows, of which some change their sign."""
    lr, guide = (jax.random.uniform(jax.random.key(3), (1, 4, 4, n)) for n in (8, 2))
    factors_of = jax.jit(pair_factors, static_argnums=(2, 3))
    _, largest = factors_of(lr, guide, 6, False)
    _, sums = factors_of(lr, guide, 6, True)
    signs = np.sign(largest.sum(2))
    assert set(signs.ravel()) == {-1, 1}
    np.testing.assert_allclose(sums, largest * signs[..., None], atol=1e-6)


def test_more_components_than_pixels() -> None:
    """The paper's patches have nine low-resolution pixels and its rank is twelve."""
    key = jax.random.key(0)
    lr, guide = (jax.random.uniform(key, (1, 2, 2, n)) for n in (8, 2))
    _, spectra = jax.jit(pair_factors, static_argnums=2)(lr, guide, 6)
    assert spectra.shape == (1, 6, 8)
    np.testing.assert_allclose(spectra[0, :2] @ spectra[0, :2].T, np.eye(2), atol=1e-4)
    np.testing.assert_array_equal(spectra[0, 4:], 0)


def test_guides_are_blurred_by_the_mean_of_psfs_that_differ_by_band() -> None:
    grid = Grid.nested(4)
    psf = gaussian_psf(np.asarray([2.0, 1.5] * 3), grid)
    model = ObservationModel({"lr": SpatialResponse(psf, 4, grid.phase), "guide": None}, grid)
    observation = {"lr": jnp.zeros((1, 4, 4, 6)), "guide": jnp.zeros((1, 16, 16, 2))}
    build = partial(BMHFNet, Bands(6, 2, 4), stages=2, rank=2, prox_blocks=1, adjust_blocks=1)
    product = nnx.eval_shape(lambda: build(rngs=nnx.Rngs(0))(observation, model))
    assert product.shape == (1, 16, 16, 6)


def test_stages_end_in_the_product(pair, bmhf) -> None:
    observation, model, _ = pair
    network, (product, *_) = bmhf
    stages = jax.eval_shape(lambda: network(observation, model, stages=True))
    assert stages.product.shape == product.shape
    assert stages.estimates.shape == (4, 2, 16, 16, 6)
    assert stages.residuals["lr"].shape == (4, 2)


def test_identity_taps_keep_channels_apart() -> None:
    taps = np.asarray(identity_taps(3, 2, 4))
    np.testing.assert_array_equal(taps[1, 2], 0.25 * np.array([[1, 0, 1, 0], [0, 1, 0, 1]]))
