"""DL-VM: a network says what the gradients of the scene are, and a variational problem finds the scene.

Shen, Jiang, Li, Yuan, Wei, Zhang, "Spatial-Spectral Fusion by Combining Deep Learning and Variational Model", TGRS
57(8), 2019, doi:10.1109/TGRS.2019.2904659; code: github.com/WHU-SGG-RS-Pro-Group/DL_VM, with the trained network but
without the script that builds it.

With Y the low-resolution image, y its bicubic interpolation, P the guide, and D the differences of neighbours along the
rows and down the columns, a plain network F learns what the gradients G of [y, P] lack of those of [X, P], which is
nothing for P. Those of X then enter a problem whose other operators are S, the response of the low-resolution sensor,
and L = D'D, minus the Laplacian:

    G = D [y, P],   V = G + F(G)
    X = argmin_X  |S X - Y|^2 + lambda1 |D X - V|^2 + lambda2 |L X|^2,
    (S'S + lambda1 L + lambda2 L L) X = S'Y + lambda1 D'V

by 50 steps of conjugate gradients from zero; lambda1 = 0.1, lambda2 = 0.0001. The stages are y and X.

F is the DnCNN whose training script the release has kept: 17 convolutions 3 x 3 of 64 channels, the inner 15 with batch
normalisation; kernels and scales from the normal law of variance 2 / (9 . 64). Training: half the sum of the squared
errors of a patch, batches of 128 patches of 40 x 40 pixels, Adam at 1e-3, 30 epochs of at most 800 batches.

S is that of the observation model ("exact"); "learned" fits a PSF to the training pairs, see `unrolled.lr_sensor`;
"free" is not offered. The guide's spectral response is not asked for.

Differences from the release:

- What builds its network is not in it. Depth, initial values and learning rate are those of DnCNN's script of the same
  name.
- D does not lead around the border of the image, as L does not in the release either.
- In training as in use G has the gradients of the interpolated image. The release trains on gradients of the truth that
  it has reduced and enlarged.
- S is the sensor's response; the release takes means of 4 x 4 pixels, though its data are reduced bicubically.
- Running moments keep nine tenths at each step; the release keeps those of the last batch.
- Images are divided by their 99.9 % quantile (release: stretched from 0 to 1, all bands together).
- More than one guide band (the paper has one): P is all of them.
"""

from __future__ import annotations

import math
from typing import Unpack

import jax.numpy as jnp
import optax
from flax import nnx
from jax import Array

from jfusion.catalogue import Bands, Layout, Original, Paper, Recipe, System, Table, Trained
from jfusion.layers.dncnn import DnCNN
from jfusion.layers.init import normal
from jfusion.layers.layouts import matconvnet_mean, matconvnet_variance, matlab_kernel, matlab_vector
from jfusion.operators import LinearOperator, Observation, ObservationModel, upsample
from jfusion.operators.linear import pytree
from jfusion.solvers.cg import conjugate_gradient
from jfusion.tasks import SPATIOSPECTRAL
from unrolled.closed_form import LinearPhysics
from unrolled.lr_sensor import LrSensor
from unrolled.stages import Options, Stages, finish

LAMBDA_1, LAMBDA_2 = 0.1, 1e-4
"""Weights of the gradients and of the Laplacian."""
STEPS = 50
"""Of conjugate gradients."""


@pytree
class Gradient(LinearOperator):
    """D: the next pixel of the row less this one, then the next of the column, zero at the end of each."""

    def __call__(self, x: Array) -> Array:
        """``(..., height, width, band)`` to ``(..., height, width, 2 band)``, the rows' differences first."""
        parts = []
        for axis in (-2, -3):
            pads = [(0, 0)] * x.ndim
            pads[axis] = (0, 1)
            parts.append(jnp.pad(jnp.diff(x, axis=axis), pads))
        return jnp.concatenate(parts, -1)

    def input_shape(self, output_shape: tuple[int, ...]) -> tuple[int, ...]:
        return (*output_shape[:-1], output_shape[-1] // 2)


D = Gradient()


class DLVM(nnx.Module):
    """The method of Shen et al., 2019.

    Args:
        bands: of the pair.
        width, depth: of the network F.
        physics: "exact" or "learned".

    Raises:
        InputError: another physics.
    """

    def __init__(
        self, bands: Bands, *, width: int = 64, depth: int = 17, physics: LinearPhysics = "exact", rngs: nnx.Rngs
    ) -> None:
        self.sensor = LrSensor(physics, bands)
        law = normal(math.sqrt(2 / (9 * width)))
        self.network = DnCNN(
            2 * (bands.lr + bands.guide), width=width, depth=depth, momentum=0.9, epsilon=1e-4, kernel_init=law,
            scale_init=law, rngs=rngs,
        )  # fmt: skip

    def seen(self, observation: Observation, model: ObservationModel) -> tuple[Array, Array]:
        """y ``(batch, height, width, band)``, and G with two channels for each band of both images."""
        start = upsample(observation["lr"], model.grid)
        return start, D(jnp.concatenate([start, observation["guide"]], -1))

    def __call__(self, observation: Observation, model: ObservationModel, **options: Unpack[Options]) -> Array | Stages:
        """The product ``(batch, height, width, band)``, or what ``options`` ask of `unrolled.stages.finish`.

        Raises:
            InputError: the physics is exact, and the response of ``lr`` is not known.
        """
        start, gradients = self.seen(observation, model)
        gradients = gradients + self.network(gradients, running=True)
        bands, half = start.shape[-1], gradients.shape[-1] // 2
        wanted = jnp.concatenate([gradients[..., :bands], gradients[..., half : half + bands]], -1)
        product = variational(observation["lr"], wanted, self.sensor(model)["lr"])
        return finish([start, product], observation, model, **options)


def variational(lr: Array, gradients: Array, response: LinearOperator) -> Array:
    """X ``(batch, height, width, band)`` from Y, V and S.

    Args:
        lr: Y, ``(batch, h, w, band)``.
        gradients: V, ``(batch, height, width, 2 band)``, as `Gradient` has them.
        response: S.
    """

    def normal_operator(x: Array) -> Array:
        rough = D.T(D(x))
        return response.T(response(x)) + LAMBDA_1 * rough + LAMBDA_2 * D.T(D(rough))

    return conjugate_gradient(normal_operator, response.T(lr) + LAMBDA_1 * D.T(gradients), steps=STEPS)[0]


def gradient_loss(network: DLVM, observation: Observation, model: ObservationModel, target: Array) -> Array:
    """Half the squared error of F, summed over pixels and channels, mean over images; the misfit of a learned PSF."""
    _, gradients = network.seen(observation, model)
    lacking = D(jnp.concatenate([target, observation["guide"]], -1)) - gradients
    error = jnp.sum((network.network(gradients) - lacking) ** 2) / (2 * len(target))
    return error + network.sensor.misfit(observation, model, target)


def _release(network: DLVM) -> Table:
    """The places in the release's network, where a ReLU or a norm and a ReLU follow on each convolution."""

    def weights(ours: str, place: int, *parts: tuple[str, Layout]) -> Table:
        theirs = f"layers/{place}/weights"
        return {f"network/{ours}/{path}": (f"{theirs}/{k}", layout) for k, (path, layout) in enumerate(parts)}

    conv = ("kernel", matlab_kernel), ("bias", matlab_vector)
    norm = ("scale", matlab_vector), ("bias", matlab_vector), ("mean", matconvnet_mean)
    table, inner = weights("first", 0, *conv), network.network.inner
    for k, layer in enumerate(inner):
        place = 2 + 3 * k
        table |= weights(f"inner/{k}/conv", place, *conv) | weights(f"inner/{k}/norm", place + 1, *norm)
        moments = f"layers/{place + 1}/weights/2"
        table[f"network/inner/{k}/norm/var"] = moments, matconvnet_variance(layer.norm.epsilon)
    return table | weights("last", 2 + 3 * len(inner), *conv)


DL_VM = System(
    name="dl_vm",
    title="DL-VM",
    family="unrolled",
    tasks=SPATIOSPECTRAL,
    paper=Paper(
        authors="H. Shen, M. Jiang, J. Li, Q. Yuan, Y. Wei, L. Zhang",
        year=2019,
        title="Spatial-Spectral Fusion by Combining Deep Learning and Variational Model",
        venue="IEEE Transactions on Geoscience and Remote Sensing 57(8)",
        doi="10.1109/TGRS.2019.2904659",
        code="https://github.com/WHU-SGG-RS-Pro-Group/DL_VM",
    ),
    summary="A plain network turns the gradients of the interpolated image and of the guide into those of the scene, "
    "which is then solved for by conjugate gradients from them and from the low-resolution image.",
    method=Trained(
        network=DLVM,
        loss=gradient_loss,
        recipe=Recipe(
            optimiser=lambda steps: optax.adam(1e-3),
            steps=24_000,
            patch=40,
            batch=128,
            note="Half the squared error of the gradients, summed over a patch; Adam 1e-3, 30 epochs of at most 800 "
            "batches.",
        ),
        tiny={"width": 4, "depth": 3},
        compact={"width": 32, "depth": 6},
        originals=(
            Original(
                file="data/model_64_25_Res_Bnorm_Adam/model_64_25_Res_Bnorm_Adam-epoch-30.mat of the release, which "
                "uses it on QuickBird",
                table=_release,
                bands=Bands(4, 1, 4),
                scale=None,
                note="The release stretches images from 0 to 1, all bands together; its differences lead around the "
                "border, and its low-resolution sensor takes means of 4 x 4 pixels. That the file has 17 convolutions "
                "is known from DnCNN's script of that name alone.",
            ),
        ),
    ),
    differences="Depth, initial values and learning rate are those of DnCNN's script that the release names, for what "
    "builds its network is not published. Differences do not lead around the border; the network learns from gradients "
    "of the interpolated image; the low-resolution sensor is the model's.",
    parameters=(567_434, Bands(4, 1, 4)),
    needs_model=True,
)
