"""Adaptation of a trained network to the one scene at hand, by nothing but what its sensors gave."""

from __future__ import annotations

from typing import Any

from jfusion.data.patches import hold_out
from jfusion.data.simulate import reduce
from jfusion.operators import Observation, ObservationModel
from jfusion.training.loop import Network, Training, train


def adapt(
    network: Network, observation: Observation, model: ObservationModel, *, share: float = 0.2, **settings: Any
) -> Training:
    """Trains a network further on the pair itself, one ratio lower, where the low-resolution image is the truth.

    Both images are degraded once more (Wald's protocol, see `jfusion.data.simulate.reduce`), so no other truth is
    looked at. A part of the observed low-resolution pixels is held out and chooses the step; step 0, the network as it
    came, takes part, so ``best`` is never worse on them than the network was.

    Args:
        network: trained, of the pair's bands and ratio.
        observation: the pair, ``lr`` and ``guide``, each ``(batch, height, width, band)``.
        model: what is known of it.
        share: of the rows that are held out.
        settings: of `jfusion.training.loop.train`, such as ``steps``, ``patch``, ``batch`` and ``budget``.

    Raises:
        InputError: the network is of other bands, or the pair is too small to be degraded and parted.
    """
    learn, held = hold_out(reduce(observation, model), share)
    return train(network.system, learn, validation=held, start=network, **settings)
