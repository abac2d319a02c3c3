"""The smallest systems that use every part of the trainer, for the tests and for the processes that they start."""

import hashlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from jfusion.catalogue import Adversary, Bands, Paper, Recipe, System, Trained
from jfusion.data.simulate import Simulation
from jfusion.layers.conv import Conv
from jfusion.layers.spectral import SpectralNorm
from jfusion.operators import Grid, ObservationModel, SpatialResponse, SpectralResponse, gaussian_psf
from jfusion.training.adversarial import RELATIVISTIC, WASSERSTEIN, gradient_penalty

RATIO = 2


class Net(nnx.Module):
    """A convolution with the statistics of the batch, then with those of each pixel, dropout, and one gain a band."""

    def __init__(self, bands: Bands, *, width: int = 4, dropout: float = 0.0, rngs: nnx.Rngs) -> None:
        self.head = Conv(bands.lr + bands.guide, width, 3, rngs=rngs)
        self.norm = nnx.BatchNorm(width, rngs=rngs)
        self.dropout = nnx.Dropout(dropout, rngs=rngs)
        self.layer = nnx.LayerNorm(width, rngs=rngs)
        self.tail = Conv(width, bands.lr, 1, rngs=rngs)
        self.gain = nnx.Param(jnp.full(bands.lr, 1 / bands.lr))

    def __call__(self, observation, model):
        low = jnp.repeat(jnp.repeat(observation["lr"], RATIO, 1), RATIO, 2)
        features = self.dropout(nnx.relu(self.norm(self.head(jnp.concatenate([low, observation["guide"]], -1)))))
        return low + self.gain[...] * self.tail(self.layer(features))


class Critics(nnx.Module):
    """Two critics: of the product's bands, and of its mean, which the guide is to be like."""

    def __init__(self, bands: Bands, *, width: int = 4, rngs: nnx.Rngs) -> None:
        self.spectral = Critic(bands.lr, width, rngs)
        self.spatial = Critic(1, width, rngs)


class Critic(nnx.Module):
    def __init__(self, bands: int, width: int, rngs: nnx.Rngs) -> None:
        self.head = SpectralNorm(Conv(bands, width, 3, rngs=rngs), rngs=rngs)
        self.tail = Conv(width, 1, 1, rngs=rngs)

    def __call__(self, x):
        return self.tail(nnx.leaky_relu(self.head(x), 0.2))


def mean_square(net, observation, model, target):
    return jnp.mean((net(observation, model) - target) ** 2)


def pairs(observation, product, target):
    """(real, fake) of each critic."""
    return {"spectral": (target, product), "spatial": (observation["guide"], product.mean(-1, keepdims=True))}


def network_loss(net, critics, observation, model, target, key):
    product = net(observation, model)
    seen = pairs(observation, product, target)
    spectral, spatial = (getattr(critics, name) for name in ("spectral", "spatial"))
    return (
        jnp.mean((product - target) ** 2)
        + 1e-2 * RELATIVISTIC.network(*(spectral(x) for x in seen["spectral"]))
        + 1e-2 * WASSERSTEIN.network(*(spatial(x) for x in seen["spatial"]))
    )


def critics_loss(critics, net, observation, model, target, key):
    seen = pairs(observation, net(observation, model), target)
    return (
        RELATIVISTIC.critic(*(critics.spectral(x) for x in seen["spectral"]))
        + WASSERSTEIN.critic(*(critics.spatial(x) for x in seen["spatial"]))
        + gradient_penalty(critics.spatial, *seen["spatial"], key)
    )


def row(name: str = "toy", optimiser=lambda steps: optax.adam(1e-2), adversary=None, project=None, **recipe) -> System:
    recipe = Recipe(optimiser, **{"steps": 40, "patch": 8, "batch": 4, **recipe})
    method = Trained(Net, mean_square, recipe, adversary=adversary, project=project, tiny={"critics": {"width": 3}})
    return System(name, name, "cnn", ("pansharpening",), Paper("nobody", 2000, "", ""), "", method)


def gan(turns: int = 2) -> System:
    return row("toy_gan", adversary=Adversary(Critics, network_loss, critics_loss, lambda n: optax.adam(1e-2), turns))


def simulation(images: int = 1, size: int = 24, seed: int = 0) -> Simulation:
    target = jnp.asarray(np.random.default_rng(seed).random((images, size, size, 3), np.float32))
    grid = Grid.nested(RATIO)
    spatial = SpatialResponse(gaussian_psf(0.85, grid), RATIO, grid.phase, "circular")
    model = ObservationModel({"lr": spatial, "guide": SpectralResponse(jnp.full((1, 3), 1 / 3))}, grid)
    return Simulation(model(target), model, target)


def arrays(network) -> list[np.ndarray]:
    """All parameters and statistics."""
    return [np.asarray(x) for x in jax.tree.leaves(nnx.state(network.module, (nnx.Param, nnx.BatchStat)))]


def digest(network) -> str:
    """Of all parameters and statistics, bit by bit."""
    return hashlib.sha256(b"".join(array.tobytes() for array in arrays(network))).hexdigest()


def furthest(one, other) -> float:
    """Largest difference between two trees of arrays, all of them finite."""
    leaves = [
        [np.asarray(x, np.float64) for x in jax.tree.leaves(tree) if not jnp.issubdtype(x.dtype, jax.dtypes.prng_key)]
        for tree in (one, other)
    ]
    assert all(np.isfinite(x).all() for tree in leaves for x in tree)
    return max(float(np.abs(a - b).max()) for a, b in zip(*leaves, strict=True))
