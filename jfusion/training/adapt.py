"""Adaptation of a trained network to the one scene at hand, by nothing but what its sensors gave."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np

from jfusion.catalogue import Trained
from jfusion.data.simulate import Simulation, cut_off, explains, reduce
from jfusion.errors import InputError
from jfusion.operators import Observation, ObservationModel
from jfusion.training.loop import Network, Training, train
from jfusion.training.many_sensors import DrawnLoss


def adapt(
    network: Network,
    observation: Observation,
    model: ObservationModel,
    *,
    share: float = 0.2,
    every: int = 50,
    **settings: Any,
) -> Training:
    """Trains a network further on the pair itself, one ratio lower, where the low-resolution image is the truth.

    Both images are degraded once more (Wald's protocol, see `jfusion.data.simulate.reduce`), so no other truth is
    looked at. A part of the observed low-resolution pixels is held out and chooses the step, see `parted`; step 0, the
    network as it came, takes part, so ``best`` is never worse on them than the network was. What is better one ratio
    lower need not be better at the pair's own. A loss that draws sensors anew (`jfusion.training.many_sensors`) would
    adapt the network to others than those of the pair: its system's plain one takes its place.

    Args:
        network: trained, of the pair's bands and ratio.
        observation: the pair, ``lr`` and ``guide``, each ``(batch, height, width, band)``.
        model: what is known of it.
        share: of the observed pixels that are held out.
        every: steps between two looks at them.
        settings: of `jfusion.training.loop.train`, such as ``steps``, ``patch``, ``batch`` and ``budget``.

    Returns:
        What training returns; its ``best`` is the network of the chosen step.

    Raises:
        InputError: the network is of other bands, or the pair is too small to be degraded and parted.
    """
    learn, held = parted(reduce(observation, model), share)
    assert isinstance(network.system.method, Trained)
    method, system = network.system.method, network.system
    if isinstance(method.stochastic, DrawnLoss):
        system = dataclasses.replace(system, method=dataclasses.replace(method, stochastic=None))
    done = train(system, learn, validation=held, start=network, every=every, **settings)
    assert done.best is not None
    last, best = (dataclasses.replace(made, system=network.system) for made in (done.network, done.best))
    return dataclasses.replace(done, network=last, best=best)


def parted(data: Simulation, share: float) -> tuple[Simulation, Simulation]:
    """Pairs to train on, cut off along the longer side, and whole pairs that have truth in the strip beyond alone.

    So the strip that is held out may be narrower than a PSF: products are made of whole images, and judged where the
    truth is not NaN.

    Args:
        data: pairs with truth.
        share: of the longer side that is held out.

    Raises:
        InputError: there is nothing to train on, or less than the PSF reaches.
    """
    height, width = sides = data.target.shape[1:3]
    along, ratio = int(width > height), data.model.ratio
    end = sides[along] - max(1, round(share * sides[along] / ratio)) * ratio
    region = (0, height, 0, end) if along else (0, end, 0, width)
    if end < ratio or (explains(data.model, sides) and not explains(data.model, (region[1], region[3]))):
        raise InputError(
            f"of {height} x {width} observed low-resolution pixels, {share:.0%} held out leave {max(end, 0)} along the "
            "longer side, which is nothing or less than the PSF reaches; give a larger pair, hold out less, or take "
            "the network as it is."
        )
    unseen = np.indices(sides)[along][..., None] < end
    return cut_off(data, region), data._replace(target=jnp.where(unseen, jnp.nan, data.target))
