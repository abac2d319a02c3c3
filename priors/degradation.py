"""Learned degradations: operators for the parts that an observation model lacks."""

from __future__ import annotations

import jax.numpy as jnp
from flax import nnx
from jax import Array

from jfusion.catalogue import Bands
from jfusion.layers.responses import Constraint, LearnedPsf, LearnedSrf
from jfusion.operators import ObservationModel


def unknown_parts(model: ObservationModel) -> tuple[str, ...]:
    """Which of `lr` and `guide` have no operator in the model."""
    return tuple(key for key in ("lr", "guide") if model.operators.get(key) is None)


class Degradation(nnx.Module):
    """Learned operators for the unknown parts of an observation model; known parts stay as they are.

    Args:
        model: the observation model; where the operator of `lr` or `guide` is None, it is learned.
        bands: of the pair.
        constraints: on the PSF and on the spectral response, see `Weights`.
        support: see `LearnedSrf`.
        size: see `LearnedPsf`.
    """

    def __init__(
        self,
        model: ObservationModel,
        bands: Bands,
        constraints: tuple[Constraint, Constraint] = ("softmax", "softmax"),
        support: Array | None = None,
        size: int | None = None,
    ) -> None:
        psf, srf = constraints
        unknown = unknown_parts(model)
        self.psf = LearnedPsf(model.grid, psf, size) if "lr" in unknown else None
        self.srf = LearnedSrf(bands, srf, support) if "guide" in unknown else None

    def __call__(self, model: ObservationModel) -> ObservationModel:
        """``model`` with its unknown parts filled in."""
        learned = {"lr": self.psf, "guide": self.srf}
        filled = {key: module() for key, module in learned.items() if module is not None}
        return model.replace(operators=model.operators | filled)

    def project(self) -> None:
        """Projects the learned weights; see `Weights.project`."""
        for module in (self.psf, self.srf):
            if module is not None:
                module.weights.project()


def spectral_support(wavelengths: Array, ranges: Array) -> Array:
    """Which bands of `lr` lie within the ranges of the guide's bands.

    Args:
        wavelengths: centres of the bands of `lr`, ``(lr band,)``.
        ranges: shortest and longest wavelength of each guide band, ``(guide band, 2)``, in the same unit.

    Returns:
        ``(guide band, lr band)``, boolean, for `LearnedSrf`.
    """
    low, high = jnp.asarray(ranges).T[:, :, None]
    return (jnp.asarray(wavelengths) >= low) & (jnp.asarray(wavelengths) <= high)
