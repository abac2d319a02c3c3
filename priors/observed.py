"""A generator of an image from random numbers, fitted through the observation model of a pair.

Priors for the restoration of one image find the parameters of a generator whose image X, seen by the sensor, is what
was observed. Two sensors see the image of a pair: ``|B X - Y|^2 + |R X - Z|^2`` is what either loss says, added up.
Operators that are not known are learned with the generator.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
from flax import nnx
from jax import Array

from jfusion.catalogue import Bands
from jfusion.operators import Observation, ObservationModel
from jfusion.operators.linear import LinearOperator
from priors.degradation import Degradation, unknown_parts
from priors.fit import Plan, Stage
from priors.pair import Pair, mean_l2, misfits
from priors.sensing import SIMPLEX_SENSORS

AMPLITUDE = 0.1
"""The largest number of a code."""


class Code(nnx.Module):
    """Random numbers, uniform between 0 and `AMPLITUDE`, that are not fitted.

    Args:
        shape: height, width and channels.
    """

    def __init__(self, shape: tuple[int, int, int], *, rngs: nnx.Rngs) -> None:
        draw = jax.random.uniform(rngs.params(), (math.prod(shape),))
        self.numbers = nnx.Variable(AMPLITUDE * draw.reshape(1, *shape))

    def __call__(self, key: Array, deviation: float) -> Array:
        """``(1, height, width, channel)``, with Gaussian noise of so large a standard deviation."""
        code = self.numbers[...]
        if not deviation:
            return code
        noise = jax.random.normal(key, (code.size,)).reshape(code.shape)  # a flat draw compiles ten times faster
        return code + deviation * noise


class Observed(nnx.Module):
    """A generator, its code, and the learned parts of the observation model."""

    def __init__(self, generator: nnx.Module, code: Code, degradation: Degradation) -> None:
        self.generator, self.code, self.degradation = generator, code, degradation

    def __call__(self, key: Array, deviation: float) -> Array:
        """The image ``(1, height, width, band)`` of the code with noise, see `Code`."""
        return self.generator(self.code(key, deviation))


Learned = dict[str, LinearOperator]
"""Operators by key of the observation, those that were unknown."""


def observation_loss(
    module: Observed, pair: Pair, key: Array, *, deviation: float = 0.0
) -> tuple[Array, tuple[Array, Learned]]:
    """``|B X - Y|^2 + |R X - Z|^2``, means over pixels and bands; the output is X and the learned operators.

    Args:
        module: what is fitted.
        pair: what was observed.
        key: of the noise on the code.
        deviation: standard deviation of that noise.
    """
    model, product = module.degradation(pair.model), module(key, deviation)
    lr, guide = misfits(mean_l2, model, product, pair)
    return lr + guide, (product, {name: model[name] for name in unknown_parts(pair.model)})


def with_learned(model: ObservationModel) -> Callable[[tuple[Array, Learned]], tuple[Array, ObservationModel]]:
    """What finishes a `Plan` whose output is the product and the `Learned` operators."""
    return lambda output: (output[0], model.replace(operators=model.operators | output[1]))


def plan_observed(
    build: Callable[[Bands, tuple[int, int], nnx.Rngs], tuple[nnx.Module, Code]],
    stage: Stage,
    observation: Observation,
    model: ObservationModel,
) -> Plan:
    """The fit of a generator to a pair, whose largest magnitude is scaled to one.

    Args:
        build: makes the generator and its code from the bands of the pair and the height and width of the guide.
        stage: with an `observation_loss`.
        observation: `lr` and `guide`.
        model: parts that are None are learned and returned, the others are used as they are. A learned PSF reaches half
            a low-resolution pixel beyond its own on every side; PSF and spectral response are kept on the simplex by
            softmax. A spectral response is found first, from ``R Y = B Z``, and then with the image.
    """
    pair, scale = Pair.of(observation, model).normalised()
    bands, (height, width) = Bands.of(observation, model), observation["guide"].shape[1:3]
    taps = 2 * model.ratio + model.ratio % 2

    def whole(key: Array) -> Observed:
        generator, code = build(bands, (height, width), nnx.Rngs(key))
        return Observed(generator, code, Degradation(model, bands, size=taps))

    unknown_response = "guide" in unknown_parts(model)
    stages = (SIMPLEX_SENSORS, stage) if unknown_response else (stage,)
    return Plan(whole, pair, stages, scale, with_learned(model))
