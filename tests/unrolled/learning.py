"""What the networks' own tests share."""

import jax
import jax.numpy as jnp
from flax import nnx


def every_parameter_learns(network, loss, pair) -> None:
    """The gradient of ``loss(network, observation, model, target)`` is finite and reaches every parameter."""
    graph, parameters, rest = nnx.split(network, nnx.Param, ...)
    gradient = jax.jit(jax.grad(lambda p: loss(nnx.merge(graph, p, rest, copy=True), *pair)))(parameters)
    for path, value in nnx.to_flat_state(gradient):
        assert bool(jnp.isfinite(value[...]).all()), path
        assert float(jnp.abs(value[...]).max()) > 0, path
