"""What a sensor adds to whatever it sees, such as path radiance, leaves products as they are."""

import jax.numpy as jnp
import numpy as np
import pytest

from jfusion import catalogue
from jfusion.catalogue import Bands
from jfusion.data import scenes
from jfusion.data.simulate import Protocol, reduce, simulate
from jfusion.inference.pair import make_pair
from jfusion.inference.run import run
from jfusion.metrics import rmse
from jfusion.training.loop import Network, build, train

ADDED = jnp.asarray([0.07, -0.02])
SIZES = {"stages": 1, "width": 4, "physics": "exact"}


@pytest.fixture
def pair(scene):
    """As it is, and with an offset that its model knows."""
    plain = simulate(scene[:24, :24, ::2], np.linspace(480, 660, 6), Protocol(ratio=2, guide_bands=("B2", "B4")))
    guide = plain.observation["guide"] + ADDED
    model = plain.model.replace(offset={"guide": ADDED})
    return plain, plain._replace(observation={**plain.observation, "guide": guide}, model=model)


def test_the_model_tells_it(pair) -> None:
    plain, hazy = pair
    np.testing.assert_allclose(hazy.model(plain.target)["guide"], plain.model(plain.target)["guide"] + ADDED, rtol=1e-6)
    images, model = hazy.model.linear(hazy.observation)
    np.testing.assert_allclose(images["guide"], plain.observation["guide"], atol=1e-6)
    assert not model.offset
    np.testing.assert_allclose(reduce(hazy.observation, hazy.model).model.offset["guide"], ADDED)


@pytest.mark.parametrize("name", ["fuse", "gppnn", "gdd"])
def test_products_are_those_without_it(pair, name) -> None:
    system, settings = catalogue.get(name), {}
    if name == "gppnn":
        module = build(system, Bands(6, 2, 2), sizes=SIZES)
        settings = {"weights": Network(system, Bands(6, 2, 2), SIZES, module, 0.5)}
    if name == "gdd":
        settings = {"effort": 2 / system.method.steps, "sizes": system.method.tiny}
    products = [run(system, data.observation, data.model, **settings) for data in pair]
    np.testing.assert_allclose(products[1].product, products[0].product, atol=1e-4)
    assert [done.model.offset for done in products] == [{}, pair[1].model.offset]
    assert products[1].note == products[0].note


def test_networks_learn_without_it(pair) -> None:
    losses = [train(catalogue.get("gppnn"), data, steps=1, patch=8, batch=2, sizes=SIZES).losses for data in pair]
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-4)


def test_networks_that_do_not_read_the_model_see_the_guide_as_it_came(pair) -> None:
    """Also where its sensors are estimated, for a product that agrees with `lr`."""
    _, hazy = pair
    sizes = {**SIZES, "physics": "free"}
    network = Network(
        catalogue.get("gppnn"), Bands(6, 2, 2), sizes, build(catalogue.get("gppnn"), Bands(6, 2, 2), sizes=sizes), 0.5
    )
    told = hazy.model.replace(estimated=("guide",))
    plain = network(hazy.observation, hazy.model.replace(offset={}))
    np.testing.assert_array_equal(network(hazy.observation, told), plain)
    exact = network(hazy.observation, told, exact=True, stages=True)
    np.testing.assert_array_equal(exact.estimates[-2], plain)
    assert exact.residuals["lr"][-1] < 1e-3


def test_it_is_found_where_the_response_is_not_known(pair) -> None:
    plain, hazy = pair
    unknown = plain.model.replace(operators={**plain.model.operators, "guide": None})
    known = run(catalogue.get("fuse"), hazy.observation, hazy.model)
    found = run(catalogue.get("fuse"), hazy.observation, unknown)
    assert found.note == "observation model estimated from the pair, with an offset of the guide"
    np.testing.assert_allclose(found.product, known.product, atol=0.02)


def test_a_guide_that_lr_does_not_explain_is_told(pair) -> None:
    plain, _ = pair
    noise = jnp.asarray(np.random.default_rng(0).random((1, 24, 24, 1)), jnp.float32)
    guide = jnp.concatenate([plain.observation["guide"][..., :1], noise], -1)
    unknown = plain.model.replace(operators={**plain.model.operators, "guide": None})
    note = run(catalogue.get("fuse"), {**plain.observation, "guide": guide}, unknown).note
    assert "; lr explains " in note
    assert note.endswith(" of the guide's band 2")


def test_fuse_does_not_follow_a_guide_that_lr_does_not_explain() -> None:
    """One band of the shortwave infrared, by visible and near infrared ones."""
    images = scenes.load("sentinel2_fields")
    lr, guide = (
        images["msi"].crop(slice(0, 48), slice(0, 48)).select([5]),
        images["guide"].crop(slice(0, 96), slice(0, 96)),
    )
    pair = make_pair(lr, guide)
    data = reduce(pair.observation, pair.model)
    errors = [
        float(rmse(run(catalogue.get(name), data.observation, data.model).product[0], data.target[0]))
        for name in ("fuse", "cubic")
    ]
    assert errors[0] < 0.8 * errors[1]
