"""What is held is what was made, whatever the effort, and no gradient flows into what made it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jfusion.operators import Grid, Identity, ObservationModel
from priors.fit import Schedule, Stage, fit
from priors.held import Held, hold
from priors.pair import Pair


class _Module(nnx.Module):
    def __init__(self) -> None:
        self.factor = nnx.Param(jnp.asarray(3.0))
        self.held = Held((1, 4, 4, 2))


def _triple(module: _Module, pair: Pair) -> jax.Array:
    return module.factor[...] * pair.observation["lr"]


def _output(module: _Module, pair: Pair, key: jax.Array) -> tuple[jax.Array, jax.Array]:
    return module.factor[...] ** 2, module.held()


HOLD = hold(held=_triple)
REST = Stage(_output, 1, Schedule(0.1), trainable=("factor",))


@pytest.mark.parametrize("effort", [1.0, 3.0])
def test_a_held_image_is_what_was_made(effort):
    image = jnp.asarray(np.random.default_rng(0).random((1, 4, 4, 2)), jnp.float32)
    model = ObservationModel({"lr": Identity(), "guide": Identity()}, Grid.nested(1))
    pair = Pair.of({"lr": image, "guide": image}, model)
    fitted = fit(lambda key: _Module(), pair, (HOLD, REST), key=jax.random.key(0), effort=effort)
    np.testing.assert_array_equal(fitted.output, 3 * image)
    assert float(fitted.module.factor[...]) < 3
