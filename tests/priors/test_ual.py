"""UAL: its sizes, its blurs and patches, its losses, and a fit of a few steps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jfusion.catalogue import Bands
from jfusion.inference.run import count_parameters
from jfusion.operators import Grid, ObservationModel, SpatialResponse, SpectralResponse, gaussian_psf, upsample
from priors.degradation import Degradation
from priors.pair import Pair
from priors.ual import (
    ADAPTATION,
    BLURS,
    CHANGES,
    DECAYED_ADAM,
    FUSION_STEPS,
    AdaptedFusion,
    Adaptor,
    Ual,
    adaptation_loss,
    blurred,
    changed,
    fit_ual,
    fusion_loss,
    fusion_stage,
    patch_side,
    training_blurs,
)

GRID = Grid.nested(2)
BANDS = Bands(12, 3, 2)
TINY = {"width": 4, "depth": 1, "adapted": 4}


def simulated(scene: np.ndarray) -> tuple[dict[str, jax.Array], ObservationModel]:
    target = jnp.asarray(scene[None, :24, :24])
    srf = jnp.asarray(np.kron(np.eye(3), np.ones((1, 4))) / 4, jnp.float32)
    response = SpatialResponse(gaussian_psf(0.85, GRID), GRID.ratio, GRID.phase, "circular")
    model = ObservationModel({"lr": response, "guide": SpectralResponse(srf)}, GRID)
    return model(target), model


def test_sizes_are_the_releases():
    networks = nnx.eval_shape(lambda: AdaptedFusion(Bands(31, 3, 8), rngs=nnx.Rngs(0)))
    assert count_parameters(networks.fusion) == 7_097_695
    assert count_parameters(networks.adaptor) == 43_400


def test_blurs_are_the_releases():
    kernels = np.asarray(training_blurs(Grid.nested(8)))
    np.testing.assert_allclose(kernels.sum((1, 2)), 1, rtol=1e-5)
    offset = np.arange(kernels.shape[1]) - kernels.shape[1] // 2 + 0.5
    for kernel, (width, sigma) in zip(kernels, BLURS, strict=True):
        rows = kernel.sum(1)
        assert set(np.abs(offset[rows > 0])) == {x for x in np.abs(offset) if x <= width / 2}
        middle, further = rows[offset == 0.5][0], rows[offset == 2.5][0]
        assert further / middle == pytest.approx(np.exp(-(2.5**2 - 0.5**2) / (2 * sigma**2)), rel=1e-4)
    assert (np.asarray(training_blurs(GRID)).sum((1, 2)) > 0.99).all()


def test_a_known_blur_is_the_one_that_is_trained_with(scene):
    _, model = simulated(scene)
    assert blurred(model, jax.random.key(0)).psf is model["lr"].psf
    drawn = blurred(model.replace(operators={**model.operators, "lr": None}), jax.random.key(0))
    assert drawn.psf.shape == training_blurs(GRID).shape[1:]


def test_a_patch_fits_the_image_and_the_blur():
    assert patch_side((300, 200), 8, 15) == 128
    assert patch_side((25, 12), 4, 15) == 12
    assert patch_side((16, 16), 32, 85) == 64


def test_half_of_the_patches_are_changed():
    patch = jnp.arange(16.0).reshape(4, 4, 1)
    keys = jax.random.split(jax.random.key(0), 400)
    found = np.asarray(jax.vmap(changed, (None, 0))(patch, keys)).reshape(400, -1)
    kinds, counts = np.unique(found, axis=0, return_counts=True)
    assert len(kinds) == len(CHANGES) + 1
    assert 160 < counts[(kinds == np.arange(16)).all(1)][0] < 240


def test_adaptor_blends_two_maps_of_its_features():
    adaptor = Adaptor(3, rngs=nnx.Rngs(0))
    image = jax.random.uniform(jax.random.key(0), (1, 6, 5, 3))
    assert adaptor.output is None
    adaptor.mask.kernel[...], adaptor.mask.bias[...] = jnp.zeros((3, 3, 3, 3)), jnp.full(3, 50.0)
    np.testing.assert_allclose(adaptor(image), image + adaptor.features(image), atol=1e-5)
    adaptor.mask.bias[...] = jnp.full(3, -50.0)
    np.testing.assert_allclose(adaptor(image), image + adaptor.other(jax.nn.relu(adaptor.features(image))), atol=1e-5)


def test_only_the_adaptor_decays():
    params = {name: {"kernel": jnp.ones(2)} for name in ("adaptor", "degradation")}
    nothing = jax.tree.map(jnp.zeros_like, params)
    direction, _ = DECAYED_ADAM.update(nothing, DECAYED_ADAM.init(params), params)
    assert float(direction["adaptor"]["kernel"].min()) > 0.9
    assert float(jnp.abs(direction["degradation"]["kernel"]).max()) == 0


def test_losses_are_the_papers(scene):
    observation, model = simulated(scene)
    pair = Pair.of(observation, model)
    module = Ual(pair, Degradation(model, BANDS), rngs=nnx.Rngs(0), **TINY)
    # a network without weights says its last bias, so that the loss is that of a flat image
    state = nnx.state(module.fusion, nnx.Param)
    nnx.update(module.fusion, jax.tree.map(jnp.zeros_like, state))
    flat = module.fusion.output.layers[-1].bias[...] = jnp.full(12, -0.5)
    y = jnp.tile(observation["lr"][:, :, :, :1] * 0 + 0.2, (1, 1, 1, 12))
    even = Pair.of({"lr": y, "guide": observation["guide"]}, model)
    assert float(fusion_loss(module, even, jax.random.key(0))[0]) == pytest.approx(0.2 - float(flat[0]), rel=1e-5)

    module.fused.image[...] = upsample(observation["lr"], GRID, "bilinear")
    loss, (product, _) = adaptation_loss(module, pair, jax.random.key(0))
    np.testing.assert_allclose(product, module.adaptor(module.fused()), atol=1e-6)
    terms = [jnp.abs(model[name](product) - image).mean() for name, image in observation.items()]
    assert float(loss) == pytest.approx(float(sum(terms)), rel=1e-5)


def test_schedules_are_those_of_the_row():
    stage = fusion_stage(128)
    rates = [float(stage.rate(jnp.asarray(done))) for done in (0, 0.999)]
    np.testing.assert_allclose(rates, [3e-4, 3e-4 * 0.7**14], rtol=1e-5)
    assert float(fusion_stage(32).rate(jnp.zeros(()))) == pytest.approx(1.2e-3)
    assert (stage.steps, FUSION_STEPS, ADAPTATION.steps) == (3200, 3200, 1500)
    assert dict(ADAPTATION.rates)["degradation"] * float(ADAPTATION.rate(jnp.zeros(()))) == pytest.approx(1e-2)


def test_unknown_sensors_are_returned_on_the_simplex(scene):
    observation, model = simulated(scene)
    blind = model.replace(operators={"lr": None, "guide": None})
    fitted = fit_ual(observation, blind, key=jax.random.key(0), effort=0.003, **TINY)
    assert fitted.product.shape == (1, 24, 24, 12)
    assert fitted.losses[-1] < fitted.losses[0]
    for rows in (fitted.model["lr"].psf.reshape(1, -1), fitted.model["guide"].srf):
        assert float(rows.min()) >= 0
        np.testing.assert_allclose(rows.sum(-1), 1, rtol=1e-5)
