"""HySure: hyperspectral superresolution with vector total variation, by SALSA (ADMM)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

from jfusion.classical.hypersharpening import known_response, shared_response, srf
from jfusion.classical.pixels import mix, subspace
from jfusion.classical.unmixing import endmembers
from jfusion.operators import Decimate, Observation, ObservationModel, SpatialResponse, otf


def differences(x: Array) -> tuple[Array, Array]:
    """Circular first differences down the rows and along the columns of ``(height, width, band)``."""
    return jnp.roll(x, -1, 0) - x, jnp.roll(x, -1, 1) - x


def divergence(down: Array, along: Array) -> Array:
    """Adjoint of `differences`."""
    return jnp.roll(down, 1, 0) - down + jnp.roll(along, 1, 1) - along


def coefficients(lr, guide, basis, weights, response, *, lambda_m=1.0, lambda_phi=5e-4, mu=0.05, steps=200):
    height, width = guide.shape[:2]
    matmul = lambda a, b: jnp.matmul(a, b, precision="highest")
    blur = otf(response.psf, height, width)
    rows, columns = 2 * jnp.pi * jnp.arange(height) / height, 2 * jnp.pi * jnp.arange(width // 2 + 1) / width
    laplacian = (4 - 2 * jnp.cos(rows)[:, None] - 2 * jnp.cos(columns))[..., None]
    denominator = jnp.abs(blur) ** 2 + laplacian + 1
    mixing = matmul(weights, basis)
    eye = jnp.eye(basis.shape[1], dtype=lr.dtype)
    solve_lr = jnp.linalg.inv(matmul(basis.T, basis) + mu * eye)
    solve_guide = jnp.linalg.inv(lambda_m * matmul(mixing.T, mixing) + mu * eye)
    rhs_lr, rhs_guide = matmul(lr, basis), lambda_m * matmul(guide, mixing)
    decimate = Decimate(response.ratio, response.phase)
    seen=decimate.T(jnp.ones((*lr.shape[:2],1),lr.dtype))
    up=decimate.T(rhs_lr)

    def fft(x): return jnp.fft.rfft2(x, axes=(0, 1))
    def ifft(x): return jnp.fft.irfft2(x, s=(height, width), axes=(0, 1))

    def step(state, _):
        v, d = state
        u = [a + b for a, b in zip(v, d)]
        spectrum = (jnp.conj(blur) * fft(u[0]) + fft(u[1] + divergence(u[2], u[3]))) / denominator
        x = ifft(spectrum)
        nu = [t - b for t, b in zip((ifft(blur * spectrum), x, *differences(x)), d)]
        v1 = jnp.where(seen > 0, matmul(up + mu * nu[0], solve_lr), nu[0])
        v2 = matmul(rhs_guide + mu * nu[1], solve_guide)
        length = jnp.sqrt(jnp.sum(nu[2] ** 2 + nu[3] ** 2, axis=-1, keepdims=True))
        shrink = jnp.maximum(1 - lambda_phi / mu / jnp.maximum(length, 1e-12), 0)
        v = [v1, v2, nu[2] * shrink, nu[3] * shrink]
        d = [a - b for a, b in zip(v, nu)]
        return (v, d), x
    zero = [jnp.zeros((height, width, basis.shape[1]), lr.dtype)] * 4
    def body(_,c): return step(c[0],None)
    return jax.lax.fori_loop(0, steps, body, ((zero, zero), zero[0]))[1]


def hysure(observation, model, p=10, kind="vca", **kw):
    response, weights = shared_response(known_response(model)), srf(model)
    scale = 1 / observation["lr"].max((1, 2, 3), keepdims=True)
    def one(lr, guide, scale):
        lr, guide = lr * scale, guide * scale
        n=min(p, lr.shape[-1], lr.shape[0]*lr.shape[1])
        E = endmembers(lr.reshape(-1, lr.shape[-1]), n).T if kind == "vca" else subspace(lr[None], n)[0]
        return jnp.matmul(coefficients(lr, guide, E, weights, response, **kw), E.T, precision="highest") / scale
    return jax.vmap(one)(observation["lr"], observation["guide"], scale)
