"""Losses of critics and networks against their formulas, and two critics that train a network."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toys
from flax import nnx

from jfusion.training import adversarial
from jfusion.training.loop import build, train

RNG = np.random.default_rng(0)
REAL, FAKE = RNG.normal(size=(2, 5, 3)).astype(np.float32)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def relativistic(real, fake):
    above, below = sigmoid(real - fake.mean()), sigmoid(fake - real.mean())
    return -0.5 * (np.log(above).mean() + np.log(1 - below).mean())


@pytest.mark.parametrize(
    ("game", "critic", "network"),
    [
        (
            adversarial.NON_SATURATING,
            -np.log(sigmoid(REAL)).mean() - np.log(1 - sigmoid(FAKE)).mean(),
            -np.log(sigmoid(FAKE)).mean(),
        ),
        (
            adversarial.least_squares(0.9, 0.1),
            0.5 * (((REAL - 0.9) ** 2).mean() + ((FAKE - 0.1) ** 2).mean()),
            ((FAKE - 0.9) ** 2).mean(),
        ),
        (adversarial.WASSERSTEIN, FAKE.mean() - REAL.mean(), -FAKE.mean()),
        (adversarial.RELATIVISTIC, relativistic(REAL, FAKE), relativistic(FAKE, REAL)),
    ],
    ids=["non_saturating", "least_squares", "wasserstein", "relativistic"],
)
def test_losses_are_their_formulas(game, critic, network) -> None:
    assert float(game.critic(REAL, FAKE)) == pytest.approx(critic, rel=1e-5)
    assert float(game.network(REAL, FAKE)) == pytest.approx(network, rel=1e-5)


def test_losses_stay_finite_where_a_sigmoid_saturates() -> None:
    for game in (adversarial.NON_SATURATING, adversarial.RELATIVISTIC):
        for loss in game:
            value, slope = jax.value_and_grad(loss, 1)(jnp.full(3, -200.0), jnp.full(3, 200.0))
            assert np.isfinite(value)
            assert np.isfinite(slope).all()


class Linear(nnx.Module):
    def __init__(self, weights) -> None:
        self.weights = nnx.Param(weights)

    def __call__(self, x, *given):
        return jnp.sum(x * self.weights[...], (1, 2, 3)) + sum(given)


def test_gradient_penalty_of_a_linear_critic() -> None:
    """Its gradient is its weights, wherever; their length is the only thing that counts, and zero is no trap."""
    images = jnp.asarray(RNG.normal(size=(2, 4, 4, 4, 2)).astype(np.float32))
    weights = jnp.asarray(RNG.normal(size=(4, 4, 2)).astype(np.float32))
    key = jax.random.key(0)

    def penalty(weights):
        return adversarial.gradient_penalty(Linear(weights), images[0], images[1], key, jnp.ones(4))

    length = float(jnp.sqrt((weights**2).sum()))
    value, slope = jax.value_and_grad(penalty)(weights)
    assert float(value) == pytest.approx((length - 1) ** 2, rel=1e-4)
    np.testing.assert_allclose(slope, 2 * (length - 1) * weights / length, rtol=1e-4, atol=1e-5)
    assert np.isfinite(jax.grad(penalty)(jnp.zeros_like(weights))).all()


def test_places_differ_by_image_and_not_by_device() -> None:
    keys = jax.random.key_data(adversarial.per_image(jax.random.key(1), 4))
    assert len({key.tobytes() for key in np.asarray(keys)}) == 4
    shared = jax.vmap(lambda k: jax.random.key_data(adversarial.per_image(k, 2)), axis_name="data")(
        jnp.broadcast_to(jax.random.key(1), 2)
    )
    np.testing.assert_array_equal(shared.reshape(4, -1), keys)


def test_two_critics_train_a_network() -> None:
    """Spectral and spatial critics with a gradient penalty, and a network that takes gradients through both."""
    data = toys.simulation()
    system = toys.gan(turns=1)
    result = train(system, data, sizes=system.method.tiny, steps=40)
    assert result.losses[-1] < result.losses[0]
    untrained = build(system, result.network.bands, sizes=system.method.tiny)
    untrained.eval()
    before, after = (
        float(jnp.mean((network(data.observation, data.model) - data.target) ** 2))
        for network in (untrained, result.network)
    )
    assert after < before
