"""PanCSC-Net: convolutional sparse codes of what a pan image and a multispectral image share, and of what they do not.

Cao, Fu, Hong, Xu, Meng, "PanCSC-Net: A Model-Driven Deep Unfolding Method for Pansharpening", TGRS 60, 2022,
doi:10.1109/TGRS.2021.3115501; code: github.com/xiangyongcao/PanCSC-Net. The paper is not open; the equations are those
that the release computes. Its graph is that of CU-Net (Deng, Dragotti, TPAMI 43(10), 2021).

With the guide P, the interpolated low-resolution image Y, sparse codes of what is theirs alone (u, v) and of what they
have in common (z), and a convolution by learned filters for every capital letter but S, the model is

    P = C_x z + D_x u,    Y = C_y z + D_y v,    X = R_z z + R_u u + R_v v

Each code is found by a learned iterative shrinkage ``E``, which stops after 4 iterations:

    a = W x,    c <- S(a, l_0),    c <- S(a + c - G_i H_i c, l_i)

    u = E_u(P),   v = E_v(Y),   z = E_z([P - D_x u, Y - D_y v])

S is the soft threshold; l has a value for every filter, and a negative one counts as zero. H_i leads from a code back
to the image and G_i to a code again, no two of them the same; C_x and C_y are what H_i of E_z are to learn. P enters as
often as Y has bands. All convolutions have 64 filters of 8 x 8 taps, three before the pixel and four after it, no bias,
and zeros outside the image. 1,344,448 parameters for 8 bands.

The sensors occur nowhere: P and Y are each made of codes by filters of their own and not of the scene, and Y only once
it is interpolated. Responses in the place of the filters would make P and Y images of X, so that neither had a part of
its own, which is another model. So there is no choice of `unrolled.physics`. A stage is an iteration of z.

Training: mean squared error, Adam at 1e-4, 100 epochs of batches of 64 patches of 64 x 64 pixels of PanCollection's
WorldView-3. All filters and thresholds start by Xavier's uniform law; half of the thresholds are thus negative, where
nothing ever moves them.

Differences from the release:

- 64 filters and 4 iterations, which it gives in comments. It is set to 8 and 1 (69,680 parameters), and its test to 32
  filters (278,720), which cannot load what was trained.
- A rate that falls by a tenth after every 10,000 steps is built there, but its count of steps stands still; the rate
  is constant here too.
- Y is interpolated cubically at the pixels' true places; PanCollection's by 23 taps.
- Images are divided by their 99.9 % quantile (release: 2^11 - 1), and nothing is clipped (release: in the test, to
  [0, 1]).
- More than one guide band (the paper has one): all are repeated until there are as many as Y has, or more.
"""

from __future__ import annotations

import math
from typing import Unpack

import jax.numpy as jnp
import optax
from flax import nnx
from jax import Array
from jax.nn.initializers import glorot_uniform

from jfusion.catalogue import Bands, Original, Paper, Recipe, System, Table, Trained
from jfusion.layers.conv import Conv
from jfusion.layers.layouts import as_is, first_of_one
from jfusion.operators import Observation, ObservationModel, upsample
from jfusion.solvers.prox import soft_threshold
from jfusion.tasks import SPATIOSPECTRAL
from jfusion.training.losses import mean_squared_error
from unrolled.stages import Options, Stages, Unroll, finish, run_stages


def _filters(inputs: int, outputs: int, window: int, rngs: nnx.Rngs) -> Conv:
    return Conv(inputs, outputs, window, use_bias=False, kernel_init=glorot_uniform(), rngs=rngs)


class Shrinkage(nnx.Module):
    """S: the soft threshold with a threshold of its own for every filter."""

    def __init__(self, filters: int, rngs: nnx.Rngs) -> None:
        self.raw = nnx.Param(glorot_uniform()(rngs.params(), (1, filters))[0])

    def threshold(self) -> Array:
        """``(filter,)``, none of them negative."""
        return jnp.maximum(self.raw[...], 0)

    def __call__(self, code: Array) -> Array:
        """``(batch, height, width, filter)`` to the same."""
        return soft_threshold(code, self.threshold())


class Iteration(nnx.Module):
    """From one code to the next: ``S(a + c - G H c)``."""

    def __init__(self, channels: int, filters: int, window: int, rngs: nnx.Rngs) -> None:
        self.synthesise = _filters(filters, channels, window, rngs)
        self.analyse = _filters(channels, filters, window, rngs)
        self.shrink = Shrinkage(filters, rngs)

    def __call__(self, seen: Array, code: Array) -> Array:
        """The next code, ``(batch, height, width, filter)``, from ``a`` and the code before."""
        return self.shrink(seen + code - self.analyse(self.synthesise(code)))


class Encoder(nnx.Module):
    """E: a sparse code of an image.

    Args:
        channels: of the image.
        filters: of the code.
        iterations: after the first code.
        window: side of the filters.
        unroll: see `PanCSCNet`.
    """

    def __init__(
        self, channels: int, filters: int, iterations: int, window: int, unroll: Unroll, rngs: nnx.Rngs
    ) -> None:
        self.unroll = unroll
        self.analyse = _filters(channels, filters, window, rngs)
        self.shrink = Shrinkage(filters, rngs)
        self.iterations = nnx.List([Iteration(channels, filters, window, rngs) for _ in range(iterations)])

    def thresholds(self) -> Array:
        """Means over the filters, ``(1 + iteration,)``."""
        return jnp.stack([part.threshold().mean() for part in (self.shrink, *(i.shrink for i in self.iterations))])

    def __call__(self, image: Array) -> Array:
        """``(batch, height, width, channel)`` to all codes, ``(1 + iteration, batch, height, width, filter)``."""
        seen = self.analyse(image)

        def body(iteration: Iteration, code: Array) -> tuple[Array, Array]:
            code = iteration(seen, code)
            return code, code

        first = self.shrink(seen)
        _, later = run_stages(list(self.iterations), body, first, self.unroll)
        return jnp.concatenate([first[None], later])


class PanCSCNet(nnx.Module):
    """The network of Cao et al., 2022.

    Args:
        bands: of the pair.
        filters: of each code.
        iterations: of each encoder, at least one.
        window: side of the filters.
        unroll: layout of the iterations, see `unrolled.stages.Unroll`.
    """

    def __init__(
        self,
        bands: Bands,
        *,
        filters: int = 64,
        iterations: int = 4,
        window: int = 8,
        unroll: Unroll = "loop",
        rngs: nnx.Rngs,
    ) -> None:
        def encoder(channels: int) -> Encoder:
            return Encoder(channels, filters, iterations, window, unroll, rngs)

        self.copies = math.ceil(bands.lr / bands.guide)
        channels = {"guide": self.copies * bands.guide, "lr": bands.lr}
        self.unique = nnx.Dict({k: encoder(n) for k, n in channels.items()})
        self.explain = nnx.Dict({k: _filters(filters, n, window, rngs) for k, n in channels.items()})
        self.common = encoder(sum(channels.values()))
        self.compose = nnx.Dict({k: _filters(filters, bands.lr, window, rngs) for k in (*channels, "common")})

    def codes(self, observation: Observation, model: ObservationModel) -> dict[str, Array]:
        """u ("guide") and v ("lr"), ``(batch, height, width, filter)``, and z of every iteration ("common")."""
        images = {
            "guide": jnp.tile(observation["guide"], self.copies),
            "lr": upsample(observation["lr"], model.grid),
        }
        unique = {key: self.unique[key](image)[-1] for key, image in images.items()}
        rest = jnp.concatenate([image - self.explain[key](unique[key]) for key, image in images.items()], -1)
        return {**unique, "common": self.common(rest)}

    def __call__(self, observation: Observation, model: ObservationModel, **options: Unpack[Options]) -> Array | Stages:
        """The product ``(batch, height, width, band)``, or what ``options`` ask of `unrolled.stages.finish`.

        The thresholds that it tells of are means over the filters, by code.
        """
        codes = self.codes(observation, model)
        alone = self.compose["guide"](codes["guide"]) + self.compose["lr"](codes["lr"])
        estimates = [alone + self.compose["common"](code) for code in codes["common"]]
        encoders = {"u": self.unique["guide"], "v": self.unique["lr"], "z": self.common}
        thresholds = {f"threshold_{name}": encoder.thresholds() for name, encoder in encoders.items()}
        return finish(estimates, observation, model, thresholds, **options)


def _release(network: PanCSCNet) -> Table:
    """The names in the release, which calls the guide x, the low-resolution image y and what they share z."""
    table: Table = {}
    for key, name in (("guide", "x"), ("lr", "y")):
        table |= _encoder(f"unique/{key}", name, network.unique[key])
        table[f"explain/{key}/kernel"] = f"Wd{name}", as_is
    for key, name in (("guide", "u"), ("lr", "v"), ("common", "z")):
        table[f"compose/{key}/kernel"] = f"Re{name}", as_is
    return table | _encoder("common", "z", network.common)


def _encoder(ours: str, name: str, encoder: Encoder) -> Table:
    table: Table = {
        f"{ours}/analyse/kernel": (f"W{name}_00", as_is),
        f"{ours}/shrink/raw": (f"lam{name}_00", first_of_one),
    }
    for k in range(len(encoder.iterations)):
        path, number = f"{ours}/iterations/{k}", f"{k + 1:02}"
        table[f"{path}/synthesise/kernel"] = f"W{name}_{number}", as_is
        table[f"{path}/analyse/kernel"] = f"W{name}{name}_{number}", as_is
        table[f"{path}/shrink/raw"] = f"lam{name}_{number}", first_of_one
    return table


PANCSC_NET = System(
    name="pancsc_net",
    title="PanCSC-Net",
    family="unrolled",
    tasks=SPATIOSPECTRAL,
    paper=Paper(
        authors="X. Cao, X. Fu, D. Hong, Z. Xu, D. Meng",
        year=2022,
        title="PanCSC-Net: A Model-Driven Deep Unfolding Method for Pansharpening",
        venue="IEEE Transactions on Geoscience and Remote Sensing 60",
        doi="10.1109/TGRS.2021.3115501",
        code="https://github.com/xiangyongcao/PanCSC-Net",
    ),
    summary="Learned iterative shrinkage finds convolutional sparse codes of what belongs to the guide alone, to the "
    "interpolated image alone and to both; the product is the sum of what learned filters make of the three.",
    method=Trained(
        network=PanCSCNet,
        loss=mean_squared_error,
        recipe=Recipe(
            optimiser=lambda steps: optax.adam(1e-4),
            steps=15_100,
            patch=64,
            batch=64,
            note="Mean squared error, Adam at 1e-4, 100 epochs of 9,714 patches; images divided by the 99.9 % quantile "
            "of the truth (release: 2^11 - 1).",
        ),
        tiny={"filters": 8, "iterations": 1, "window": 4},
        compact={"filters": 16, "iterations": 2},
        originals=(
            Original(
                file="model_training_original/model.ckpt-100, which the release's training saves; it comes without "
                "weights",
                table=_release,
                bands=Bands(8, 1, 4),
                scale=2047,
                sizes={"filters": 8, "iterations": 1},
                unused="Variable",
                note="The low-resolution image of its data is interpolated by 23 taps.",
            ),
        ),
    ),
    differences="64 filters and 4 iterations, which the release gives in comments, where it is set to 8 and 1; the "
    "rate is constant, as it really is there; interpolation is cubic at the true places; all guide bands are repeated.",
    parameters=(1_344_448, Bands(8, 1, 4)),
)
