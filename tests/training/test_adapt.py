"""A trained network learns on from the pair at hand, and never gets worse on the pixels that are held out."""

import jax
import numpy as np
import optax
import pytest
import toys

from jfusion.data.patches import hold_out
from jfusion.data.simulate import reduce
from jfusion.errors import InputError
from jfusion.training.adapt import adapt
from jfusion.training.loop import train

DATA = toys.simulation(size=48)


def error(network) -> float:
    """On the pixels that `adapt` holds out."""
    held = hold_out(reduce(DATA.observation, DATA.model))[1]
    product = jax.jit(lambda o, m: network(o, m))(held.observation, held.model)
    return float(np.mean(np.square(product - held.target)))


@pytest.fixture(scope="module")
def network():
    return train(toys.row(), DATA, steps=2, patch=8, batch=2).network


def test_adaptation_lowers_the_error_of_held_out_pixels(network) -> None:
    adapted = adapt(network, DATA.observation, DATA.model, steps=40, patch=8, batch=2, every=10)
    assert error(adapted.best) < 0.9 * error(network)
    assert adapted.best.scale == network.scale


def test_the_network_as_it_came_is_kept_where_nothing_is_better(network, tmp_path) -> None:
    harmful = toys.row(optimiser=lambda n: optax.sgd(-0.5))
    settings = {"steps": 4, "patch": 8, "batch": 2, "every": 2}
    start = train(harmful, DATA, steps=1, patch=8, batch=2).network
    for folder in (None, tmp_path, tmp_path):
        best = adapt(start, DATA.observation, DATA.model, folder=folder, **settings).best
        assert error(best) == pytest.approx(error(start), rel=1e-5)
    with pytest.raises(InputError, match="start"):
        adapt(network, DATA.observation, DATA.model, folder=tmp_path, **settings)


def test_only_a_network_of_the_same_kind_is_gone_on_with(network) -> None:
    with pytest.raises(InputError, match="same system and bands"):
        train(toys.gan(turns=1), DATA, steps=1, patch=8, batch=2, start=network)
