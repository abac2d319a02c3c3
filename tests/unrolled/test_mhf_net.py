"""MHF-Net's own equations; what every network promises is in tests/test_catalogue.py."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jfusion.catalogue import Bands
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
    low = response(ramp)[-1]
    assert low.shape == (1, 6, 1, 2)
    inner = np.asarray(low[0, 2:-2, 0, 0])
    np.testing.assert_allclose(np.diff(inner), inner[1] - inner[0], rtol=1e-4)


def test_parameters_at_the_papers_other_ratios_differ_only_in_the_spatial_part() -> None:
    def count(ratio: int) -> int:
        return count_parameters(nnx.eval_shape(lambda: MHFNet(Bands(31, 3, ratio), rngs=nnx.Rngs(0))))

    assert count(32) - count(16) == 19 * (9 * 31 * 31 + 34_281) + 9


def test_initial_prediction_is_least_squares(pair) -> None:
    observation, model, target = pair
    network = MHFNet(Bands(6, 2, 4), stages=2, rank=2, rngs=nnx.Rngs(0))
    initialise(network, observation, model, target)
    z, x = np.asarray(observation["guide"]).reshape(-1, 2), np.asarray(target).reshape(-1, 6)
    np.testing.assert_allclose(network.predict[...], np.linalg.lstsq(z, x, rcond=None)[0], atol=1e-4)


def test_first_stage_is_the_papers_equation(pair) -> None:
    """X_1 = Z A + prox(-U(C Z A - Y) B') B, with the network's own parts."""
    observation, model, target = pair
    network = MHFNet(Bands(6, 2, 4), stages=2, rank=3, rngs=nnx.Rngs(1))
    initialise(network, observation, model, target)
    predicted = observation["guide"] @ network.predict[...]
    error = network.response(predicted)[-1] - observation["lr"]
    step = network.enlarge[0](error, [observation["guide"]]) @ network.spectra[...].T
    first = predicted + network.solution.prox[0](-step) @ network.spectra[...]
    _, estimates, _, last = network.solve(observation)
    np.testing.assert_allclose(estimates[0], first, atol=1e-4)
    np.testing.assert_allclose(last, network.response(first)[-1] - observation["lr"], atol=1e-4)


@pytest.mark.parametrize("build", [MHFNet, BMHFNet])
def test_loss_adds_all_terms(build, pair) -> None:
    observation, model, target = pair
    network = build(Bands(6, 2, 4), stages=3, rank=2, rngs=nnx.Rngs(0))
    solved = network.solve(observation) if build is MHFNet else network.solve(observation, model)
    product, estimates, predicted, last = (jax.tree.map(np.asarray, part) for part in solved)
    assert len(estimates) == 2
    expected = np.mean((product - target) ** 2) + 0.2 * np.mean(last**2)
    expected += 0.5 * sum(np.mean((x - target) ** 2) for x in (predicted, *estimates))
    np.testing.assert_allclose(mhf_loss(0.5, 0.2)(network, observation, model, target), expected, rtol=1e-4)


def test_pair_factors_explain_the_low_resolution_pair(pair) -> None:
    observation, model, _ = pair
    lr, guide = observation["lr"][0], model["lr"](observation["guide"])[0]
    predict, spectra = pair_factors(lr, guide, 6)
    np.testing.assert_allclose(spectra @ spectra.T, np.eye(6), atol=1e-4)
    assert bool((spectra.sum(1) > -1e-5).all())
    left = lr - guide @ predict
    np.testing.assert_allclose(jnp.einsum("hwg,hwl->gl", guide, left), 0, atol=1e-3)


def test_stages_end_in_the_product(pair) -> None:
    observation, model, _ = pair
    network = BMHFNet(Bands(6, 2, 4), stages=3, rank=2, rngs=nnx.Rngs(0))
    stages = network(observation, model, stages=True)
    assert stages.estimates.shape == (4, 2, 16, 16, 6)
    assert stages.residuals["lr"].shape == (4, 2)
    np.testing.assert_array_equal(stages.estimates[-1], stages.product)


def test_identity_taps_keep_channels_apart() -> None:
    taps = np.asarray(identity_taps(3, 2, 4))
    np.testing.assert_array_equal(taps[1, 2], 0.25 * np.array([[1, 0, 1, 0], [0, 1, 0, 1]]))
