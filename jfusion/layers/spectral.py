"""Kernels of bounded spectral norm.

Miyato, Kataoka, Koyama, Yoshida, "Spectral Normalization for Generative Adversarial Networks", ICLR 2018.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array, lax


def spectral_norm(kernel: Array, u: Array, iterations: int = 1) -> tuple[Array, Array]:
    """A kernel ``(..., out)`` divided by its largest singular value as a matrix ``(inputs, out)``, and the next ``u``.

    Algorithm 1 of the paper. ``u`` ``(out,)`` is the singular vector that power iteration has reached; the gradient
    goes through the singular value alone.
    """
    matrix = kernel.reshape(-1, kernel.shape[-1])
    fixed = lax.stop_gradient(matrix)
    for _ in range(iterations):
        v = _unit(fixed @ u)
        u = _unit(v @ fixed)
    return kernel / (v @ matrix @ u).astype(kernel.dtype), u


def _unit(x: Array) -> Array:
    return x / (jnp.linalg.norm(x) + 1e-12)


class SpectralNorm(nnx.Module):
    """A layer whose ``kernel`` passes `spectral_norm` at every call; iterates in training, stands still in ``eval``."""

    def __init__(self, layer: Any, *, rngs: nnx.Rngs) -> None:
        self.layer = layer
        self.u = nnx.BatchStat(_unit(jax.random.normal(rngs.params(), layer.kernel.shape[-1:])))
        self.deterministic = False

    def __call__(self, x: Array) -> Array:
        """What the layer gives with the normalised kernel."""
        kernel, u = spectral_norm(self.layer.kernel[...], self.u[...])
        if not self.deterministic:
            self.u[...] = u
        layer = nnx.clone(self.layer)
        layer.kernel[...] = kernel
        return layer(x)
