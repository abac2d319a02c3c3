"""VO+Net: a variational problem between what the sensors say and what a network says.

Wu, Huang, Deng, Hu, Vivone, "VO+Net: An Adaptive Approach Using Variational Optimization and Deep Learning for
Panchromatic Sharpening", TGRS 60, 2022 (online 2021), doi:10.1109/TGRS.2021.3066425; code:
github.com/liangjiandeng/VOFF, which is what the equations were taken from.

With Y the low-resolution image, B its sensor's blur, S the decimation, and N the product of a network, the product is

    argmin_X  |S B X - Y|^2 / 2 + lambda |X - tau (B X)|^2 + alpha |W (X - N)|^2

with products by pixel and

    tau = P / (B P)                         P the guide, with the mean and the deviation of each band of Y
    W^2 = | 1 - |S B N - Y| tau |           the misfit interpolated: where it is small, the network counts less for it

so that the spatial term asks for the details of high-pass modulation. It is solved by alternating directions with
U = B X, V = X and multipliers T and Q, where * is the adjoint and all but the first step are divisions by pixel:

    X = [2 lambda tau U + B*(eta1 U - T) + eta2 V - Q] / [eta1 B*B + 2 lambda + eta2]          by frequency; X >= 0
    U = [S*Y + 2 lambda tau X + eta1 B X + T] / [S*S + eta1 + 2 lambda tau^2]
    V = [eta2 X + Q + 2 alpha W^2 N] / [eta2 + 2 alpha W^2]
    T += eta1 (B X - U),   Q += eta2 (X - V)

from zero, 200 turns, lambda = 0.0013, eta1 = 0.04, eta2 = 0.03. The problem is convex, so that eta1 and eta2 decide
only how soon it is solved, and nothing of it is learned end to end. It has no parameters: those that are counted are
the network's, here `fusionnet`, which is trained as its own authors train it. The stages are N and X after every 25
turns.

alpha says how far the network is to be trusted. It is not chosen by hand but, as for two Gaussian terms, by their
errors: lambda times the mean of ``(X - tau (B X))^2`` over that of ``W^2 (X - N)^2`` on the training's own patches, of
which running sums are kept.

B and S are those of the observation model ("exact"); "learned" fits a PSF to the training pairs, see
`unrolled.lr_sensor`; "free" is not offered. The guide's spectral response is not asked for.

Differences from the release:

- alpha is found as said; the release has no network, only one product of one that it does not name, and leaves it out
  (alpha = 0).
- B P is the guide after the blur of the sensor of ``lr``, which carries the grid's fraction of a pixel too; the release
  takes the guide's own sensor, a Gaussian with MTF 0.15. tau is held within [0, ratio^2], and 1 where B P is not
  positive.
- The blur has the model's boundary: X moves by the periodic solution of what its equation lacks, which for a periodic
  blur is the equation above. The release mixes a periodic blur with one that repeats the edge.
- S B N and Y are compared at low resolution, and the difference is interpolated; the release compares the blurred N
  with the interpolated Y, which needs pixel centres that coincide.
- X is not held below 1, which is the 99.9 % quantile here and the sensor's full scale there; always 200 turns, where
  the release stops once X moves by less than 2e-5. They start from zero, there from the bicubic image with the
  low-resolution pixels put back.
- More than one guide band (the paper has one): P of each band is the combination that `fusionnet` takes too.
"""

from __future__ import annotations

from typing import NamedTuple, Unpack

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax import Array

from jfusion import catalogue
from jfusion.catalogue import Bands, Paper, Recipe, System, Trained
from jfusion.classical.hypersharpening import guide_per_band, known_response
from jfusion.classical.pixels import band_mean, band_std, ratio_or_one
from jfusion.operators import Decimate, Observation, ObservationModel, SpatialResponse, otf, upsample
from jfusion.operators.linear import single
from jfusion.tasks import SPATIOSPECTRAL
from unrolled.closed_form import LinearPhysics
from unrolled.lr_sensor import LrSensor
from unrolled.stages import Options, Stages, finish

LAMBDA, ETA_1, ETA_2 = 0.0013, 0.04, 0.03
MEMORY = 0.99
"""Share of the running sums of errors that a training step keeps."""


State = tuple[Array, Array, Array, Array, Array, Array]
"""X, B X, U, V, T, Q."""


class Terms(NamedTuple):
    """What the problem is made of besides Y, each ``(batch, height, width, band)``.

    Attributes:
        network: N.
        gain: tau.
        trust: W^2.
    """

    network: Array
    gain: Array
    trust: Array


def modulation(observation: Observation, model: ObservationModel) -> Array:
    """tau, ``(batch, height, width, band)``, by the response of ``lr`` that ``model`` has."""
    lr, guide = observation["lr"], guide_per_band(observation, model)
    spread = band_std(guide)
    contrast = jnp.where(spread > 0, band_std(lr) / jnp.where(spread > 0, spread, 1), 0)
    guide = (guide - band_mean(guide)) * contrast + band_mean(lr)
    return jnp.clip(ratio_or_one(guide, known_response(model).blur(guide)), 0, model.ratio**2)


def solve(terms: Terms, lr: Array, response: SpatialResponse, alpha: Array, *, rounds: int, turns: int) -> Array:
    """X after every round of so many turns, ``(round, batch, height, width, band)``.

    Args:
        terms: of the problem.
        lr: Y, ``(batch, h, w, band)``.
        response: S B.
        alpha: weight of the network, a scalar.
        rounds, turns: of the alternating directions.
    """
    (network, gain, trust), lr = single((terms, lr))
    size = network.shape[-3:-1]
    blur, decimate = response.blur, Decimate(response.ratio, response.phase)
    observed, seen = decimate.T(lr), decimate.T(jnp.ones((*lr.shape[-3:-1], 1), lr.dtype))
    curvature = ETA_1 * jnp.abs(otf(response.psf, *size)) ** 2 + 2 * LAMBDA + ETA_2
    weight = 2 * alpha * trust

    def turn(_: int, state: State) -> State:
        x, blurred, u, v, t, q = state
        lacking = 2 * LAMBDA * (gain * u - x) + blur.T(ETA_1 * (u - blurred) - t) + ETA_2 * (v - x) - q
        step = jnp.fft.irfft2(jnp.fft.rfft2(lacking, axes=(-3, -2)) / curvature, s=size, axes=(-3, -2))
        x = jnp.maximum(x + step, 0)
        blurred = blur(x)
        u = (observed + 2 * LAMBDA * gain * x + ETA_1 * blurred + t) / (seen + ETA_1 + 2 * LAMBDA * gain**2)
        v = (ETA_2 * x + q + weight * network) / (ETA_2 + weight)
        return x, blurred, u, v, t + ETA_1 * (blurred - u), q + ETA_2 * (x - v)

    def round_(state: State, _: None) -> tuple[State, Array]:
        state = jax.lax.fori_loop(0, turns, turn, state)
        return state, state[0]

    return jax.lax.scan(round_, (jnp.zeros_like(network),) * 6, length=rounds)[1]


class VONet(nnx.Module):
    """The method of Wu et al., 2022, around FusionNet.

    Args:
        bands: of the pair.
        width, blocks: of FusionNet.
        rounds, turns: estimates that are kept, and turns of the alternating directions before each.
        physics: "exact" or "learned".

    Raises:
        InputError: another physics.
    """

    def __init__(
        self,
        bands: Bands,
        *,
        width: int = 32,
        blocks: int = 4,
        rounds: int = 8,
        turns: int = 25,
        physics: LinearPhysics = "exact",
        rngs: nnx.Rngs,
    ) -> None:
        method = catalogue.get("fusionnet").method
        assert isinstance(method, Trained)
        self.network = method.network(bands, width=width, blocks=blocks, rngs=rngs)
        self.sensor = LrSensor(physics, bands)
        self.errors = nnx.BatchStat(jnp.zeros(2))
        self.rounds, self.turns = rounds, turns
        self.use_running_average = False  # by this name `nnx.Module.eval` sets it

    def alpha(self) -> Array:
        """Weight of the network; lambda before any training."""
        spatial, network = self.errors[...]
        return LAMBDA * jnp.where(network > 0, spatial / jnp.where(network > 0, network, 1), 1)

    def terms(self, observation: Observation, model: ObservationModel) -> Terms:
        """N, tau and W^2, by the response of ``lr`` that ``model`` has."""
        product: Array = self.network(observation, model)
        gain = modulation(observation, model)
        misfit = upsample(known_response(model)(product) - observation["lr"], model.grid, "interp23")
        return Terms(product, gain, jnp.abs(1 - jnp.abs(misfit) * gain))

    def record(self, terms: Terms, model: ObservationModel, target: Array) -> None:
        """Adds the mean squared errors of the spatial term and of the network to the running sums, in place."""
        spatial = target - terms.gain * known_response(model).blur(target)
        errors = jnp.stack([jnp.mean(spatial**2), jnp.mean(terms.trust * (target - terms.network) ** 2)])
        self.errors[...] = MEMORY * self.errors[...] + (1 - MEMORY) * jax.lax.stop_gradient(errors)

    def __call__(self, observation: Observation, model: ObservationModel, **options: Unpack[Options]) -> Array | Stages:
        """The product ``(batch, height, width, band)``, or what ``options`` ask of `unrolled.stages.finish`.

        Raises:
            InputError: the physics is exact and the response of ``lr`` is not known.
        """
        known, alpha = self.sensor(model), self.alpha()
        terms = self.terms(observation, known)
        estimates = solve(terms, observation["lr"], known_response(known), alpha, rounds=self.rounds, turns=self.turns)
        steps = {"alpha": jnp.full(self.rounds, alpha)}
        return finish([terms.network, *estimates], observation, model, steps, **options)


def network_loss(network: VONet, observation: Observation, model: ObservationModel, target: Array) -> Array:
    """Mean squared error of the network's own product, and the misfit of a response that is learned.

    In training the errors that alpha is found by are recorded.
    """
    known = network.sensor(model)
    terms = network.terms(observation, known)
    if not network.use_running_average:
        network.record(terms, known, target)
    return jnp.mean((terms.network - target) ** 2) + network.sensor.misfit(observation, model, target)


VO_NET = System(
    name="vo_net",
    title="VO+Net",
    family="unrolled",
    tasks=SPATIOSPECTRAL,
    paper=Paper(
        authors="Z.-C. Wu, T.-Z. Huang, L.-J. Deng, J.-F. Hu, G. Vivone",
        year=2022,
        title="VO+Net: An Adaptive Approach Using Variational Optimization and Deep Learning for Panchromatic "
        "Sharpening",
        venue="IEEE Transactions on Geoscience and Remote Sensing 60",
        doi="10.1109/TGRS.2021.3066425",
        code="https://github.com/liangjiandeng/VOFF",
    ),
    summary="Solves for the scene that fits the low-resolution image, has the details of the guide by high-pass "
    "modulation, and is near the product of FusionNet, the more so the less its errors were in training.",
    method=Trained(
        network=VONet,
        loss=network_loss,
        recipe=Recipe(
            optimiser=lambda steps: optax.adam(3e-4),
            steps=200_100,
            patch=64,
            batch=32,
            note="FusionNet's: mean squared error of its own product, Adam at a constant 3e-4; images divided by their "
            "99.9 % quantile.",
        ),
        tiny={"width": 8, "blocks": 1, "rounds": 2, "turns": 4},
    ),
    differences="The weight of the network follows from the errors of the terms in training; the release has no "
    "network and leaves it out. The guide is blurred by the sensor of lr, not by its own. The boundary is the model's. "
    "Always 200 turns, from zero, where the release starts from the bicubic image with the low-resolution pixels put "
    "back.",
    parameters=(78_632, Bands(8, 1, 4)),
    needs_model=True,
)
