"""DHSIS: a closed-form solution, what a plain network adds to it, and the closed form once more.

Dian, Li, Guo, Fang, "Deep Hyperspectral Image Sharpening", TNNLS 29(11), 2018.

With H the blur and decimation of the low-resolution image Y, and R the spectral response of the guide Z, a solve is

    S(P) = argmin_X |Y - H X|^2 + |Z - R X|^2 + eta |X - P|^2                        (5), (12)

whose normal equation is of Sylvester's kind and is solved exactly in the Fourier domain. The three steps are

    X_in  = S(Y up)              from the bicubic interpolation of Y                  (5)
    X_cnn = X_in + N(X_in)       N learns the residual X - X_in                       (10), (11)
    X_fin = S(X_cnn)             both images have the last word                       (12)

N has 16 convolutions 3 x 3: one with ReLU, 14 with batch normalisation and ReLU, one plain; Keras' initial values. It
alone is trained, by the mean squared error of X_cnn: Adam 1e-3, batches of 128 patches 32 x 32, 1,000 epochs. The
operators are those of the observation model ("exact"); "learned" fits a PSF and a spectral response to the training
pairs; "free" is not offered, see `unrolled.closed_form`.

Differences from the release:
    - eta is the paper's 5e-4; the release has 5e-5.
    - The release interpolates Y as if its pixels were blocks, but takes every eighth pixel of a blur about the first,
      so that its X_in starts from an image shifted by three pixels; here the interpolation knows the grid.
    - X_in is found on the patch, and not on the whole image of which patches are then cut.
    - A product is normalised by the running moments also while the network is in training.
"""

from __future__ import annotations

from typing import Unpack

import jax.numpy as jnp
import optax
from flax import nnx
from jax import Array
from jax.nn.initializers import glorot_uniform

from jfusion.catalogue import Bands, Original, Paper, Recipe, System, Table, Trained
from jfusion.layers.dncnn import DnCNN
from jfusion.layers.layouts import keras_batch_norm, keras_layer
from jfusion.operators import Observation, ObservationModel, upsample
from jfusion.tasks import SPATIOSPECTRAL
from unrolled.closed_form import LinearPhysics, LinearSensors
from unrolled.stages import Options, Stages, closed_form_step, finish

ETA = 5e-4
"""Trust in the prior of a solve."""


class DHSIS(nnx.Module):
    """The network of Dian et al., 2018.

    Args:
        bands: of the pair.
        width: channels inside N.
        depth: convolutions of N.
        eta: trust in the prior of a solve.
        physics: "exact" or "learned".

    Raises:
        InputError: another physics.
    """

    def __init__(
        self,
        bands: Bands,
        *,
        width: int = 64,
        depth: int = 16,
        eta: float = ETA,
        physics: LinearPhysics = "exact",
        rngs: nnx.Rngs,
    ) -> None:
        self.eta = eta
        self.sensors = LinearSensors(physics, bands)
        self.residual = DnCNN(
            bands.lr, width=width, depth=depth, momentum=0.99, epsilon=1e-3, kernel_init=glorot_uniform(), rngs=rngs
        )

    def learn(self, observation: Observation, model: ObservationModel, running: bool | None = None) -> list[Array]:
        """``[X_in, X_cnn]``, each ``(batch, height, width, band)``; ``running`` as in `ConvNorm`."""
        prior = upsample(observation["lr"], model.grid)
        solved = closed_form_step(prior, observation, self.sensors(model), self.eta)
        return [solved, solved + self.residual(solved, running)]

    def __call__(self, observation: Observation, model: ObservationModel, **options: Unpack[Options]) -> Array | Stages:
        """The product ``(batch, height, width, band)``, or what ``options`` ask of `unrolled.stages.finish`.

        The stages are X_in, X_cnn and X_fin.

        Raises:
            InputError: the physics is exact, and the spatial or the spectral response is not known.
        """
        estimates = self.learn(observation, model, running=True)
        estimates.append(closed_form_step(estimates[-1], observation, self.sensors(model), self.eta))
        return finish(estimates, observation, model, **options)


def residual_loss(network: DHSIS, observation: Observation, model: ObservationModel, target: Array) -> Array:
    """Mean squared error of X_cnn, with the misfit of the responses where they are learned."""
    estimate = network.learn(observation, model)[-1]
    return jnp.mean((estimate - target) ** 2) + network.sensors.misfit(observation, model, target)


def _layer(ours: str, number: int) -> Table:
    return keras_layer(f"residual/{ours}", f"conv{number}/conv{number}")


def _release(network: DHSIS) -> Table:
    """The names in the release, whose network is N alone."""
    table = _layer("first", 11) | _layer("last", 30)
    for k in range(len(network.residual.inner)):
        name, inner = f"conv{k + 12}_bn", f"inner/{k}"
        table |= _layer(f"{inner}/conv", k + 12) | keras_batch_norm(f"residual/{inner}/norm", f"{name}/{name}", ":0")
    return table


DHSIS_SYSTEM = System(
    name="dhsis",
    title="DHSIS",
    family="unrolled",
    tasks=SPATIOSPECTRAL,
    paper=Paper(
        authors="R. Dian, S. Li, A. Guo, L. Fang",
        year=2018,
        title="Deep Hyperspectral Image Sharpening",
        venue="IEEE Transactions on Neural Networks and Learning Systems 29(11)",
        doi="10.1109/TNNLS.2018.2798162",
        code="https://github.com/renweidian/DHSIS",
    ),
    summary="Solves for the scene in closed form with the interpolated low-resolution image as the prior, adds the "
    "residual that a plain network of 16 layers has learned, and solves again with the sum as the prior.",
    method=Trained(
        network=DHSIS,
        loss=residual_loss,
        recipe=Recipe(
            optimiser=lambda steps: optax.adam(1e-3),
            steps=120_000,
            patch=32,
            batch=128,
            note="Adam 1e-3; 1,000 epochs of 120 steps; a fifth of the patches chooses the best epoch.",
        ),
        tiny={"width": 4, "depth": 3},
        compact={"width": 32, "depth": 6},
        originals=(
            Original(
                file="deepcnn_res_noise.h5, which deep_cnn.py of the release saves, for CAVE at ratio 8; it comes "
                "without weights",
                table=_release,
                bands=Bands(31, 3, 8),
                scale=1,
                sizes={"eta": 5e-5},
                note="Images go from 0 to 1. The X_in that it was trained on starts from an interpolated image that is "
                "shifted by three pixels.",
            ),
        ),
    ),
    differences="The weight of the prior is the paper's 5e-4, the release has 5e-5. The interpolation knows where the "
    "low-resolution pixels lie, where the release's is shifted. The first solution is found on the patch, not on the "
    "whole image.",
    parameters=(554_591, Bands(31, 3, 8)),
    needs_model=True,
)
