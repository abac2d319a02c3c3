"""A trained network learns on from the pair at hand, and never gets worse on the pixels that are held out."""

import dataclasses

import jax
import numpy as np
import optax
import pytest
import toys

from jfusion import catalogue
from jfusion.catalogue import Bands
from jfusion.data.simulate import Protocol, reduce, simulate
from jfusion.errors import InputError
from jfusion.training.adapt import adapt, parted
from jfusion.training.loop import Network, build, train
from jfusion.training.many_sensors import ManySensors

DATA = toys.simulation(size=48)
REDUCED = reduce(DATA.observation, DATA.model)
ROWS = np.s_[:, 20:]


def error(network) -> float:
    """Root mean square, on the rows of the observed image that `adapt` holds out."""
    product = jax.jit(lambda o, m: network(o, m))(REDUCED.observation, REDUCED.model)
    return float(np.sqrt(np.mean(np.square(product - REDUCED.target)[ROWS])))


@pytest.fixture(scope="module")
def network():
    return train(toys.row(), DATA, steps=2, patch=8, batch=2).network


def test_adaptation_lowers_the_error_of_held_out_pixels(network) -> None:
    told = {}
    adapted = adapt(
        network, DATA.observation, DATA.model, steps=40, patch=8, batch=2, every=10,
        progress=lambda done, steps, figures: told.update(figures),
    )  # fmt: skip
    assert error(adapted.best) < 0.95 * error(network)
    assert told["validation"] * network.scale == pytest.approx(error(adapted.network), rel=1e-4)
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


def test_held_out_pixels_lie_across_the_longer_side_and_are_not_trained_on() -> None:
    wide = REDUCED._replace(
        observation={key: image[:, : image.shape[1] // 2] for key, image in REDUCED.observation.items()},
        target=REDUCED.target[:, :12],
    )
    for data, along in ((REDUCED, 0), (wide, 1)):
        learn, held = parted(data, 0.2)
        judged = np.isfinite(held.target[0, ..., 0]).any(1 - along)
        np.testing.assert_array_equal(np.flatnonzero(judged), np.arange(20, 24))
        np.testing.assert_array_equal(learn.target, data.target[:, :20] if along == 0 else data.target[:, :, :20])
    with pytest.raises(InputError, match="larger pair"):
        parted(REDUCED, 0.8)


def test_exact_physics_with_a_psf_wider_than_a_part_of_the_image(scene: np.ndarray) -> None:
    """Of a network for many sensors, whose own loss would draw others."""

    sun = catalogue.get("sun")
    none = ManySensors(np.zeros((0, 3, 12)), ratios=())
    sun = dataclasses.replace(sun, method=dataclasses.replace(sun.method, stochastic=none.loss(sun.method.loss)))
    pair = simulate(scene, np.linspace(450, 900, 12), Protocol(ratio=4, taps=15, guide_bands=("B2", "B3", "B4")))
    bands, sizes = Bands.of(pair.observation, pair.model), {**sun.method.tiny, "stages": 1}
    start = Network(sun, bands, sizes, build(sun, bands, sizes=sizes), scale=1.0)
    adapted = adapt(start, pair.observation, pair.model, steps=1, batch=1)
    assert adapted.network.system is adapted.best.system is sun
    assert np.isfinite(adapted.losses).all()


def test_noise_that_a_loss_draws_is_drawn_anew(network) -> None:
    keys = []

    def noisy(module, observation, model, target, key):
        jax.debug.callback(lambda key: keys.append(tuple(np.asarray(key).ravel())), jax.random.key_data(key))
        return network.system.method.loss(module, observation, model, target)

    method = dataclasses.replace(network.system.method, stochastic=noisy)
    start = dataclasses.replace(network, system=dataclasses.replace(network.system, method=method))
    adapt(start, DATA.observation, DATA.model, steps=2, patch=8, batch=2)
    jax.effects_barrier()
    assert len(set(keys)) >= 2


def test_only_a_network_of_the_same_kind_is_gone_on_with(network) -> None:
    with pytest.raises(InputError, match="same system and bands"):
        train(toys.gan(turns=1), DATA, steps=1, patch=8, batch=2, start=network)
