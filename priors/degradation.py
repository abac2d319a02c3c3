"""Learned degradations: operators for the parts that an observation model lacks."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal, TypeVar, cast, get_args

import jax.numpy as jnp
from flax import nnx
from jax import Array

from jfusion.catalogue import Bands
from jfusion.errors import InputError
from jfusion.layers.responses import Constraint, LearnedPsf, LearnedSrf, Weights
from jfusion.operators import Grid, ObservationModel, SpectralResponse, psf_kernel
from jfusion.operators.linear import LinearOperator
from priors.fit import Stage

PsfForm = Literal["pixel", "overlapping", "wide", "mean"]
SrfForm = Literal["dense", "support", "middle", "started", "fixed"]
R = TypeVar("R", LearnedPsf, LearnedSrf)

WIDE = 32
"""Taps a side of a PSF of the form "wide"."""

LOGITS = 100.0
"""Rate of a logit for that of a weight: a step of a logit changes a weight by that times the weight, about 1/100."""


def on_logits(stage: Stage) -> Stage:
    """A stage of a release, which learns operators as plain weights, for operators kept on the simplex by softmax.

    At the release's own rate they would hardly leave their start.
    """
    rates = dict(stage.rates)
    rates["degradation"] = LOGITS * rates.get("degradation", 1)
    return dataclasses.replace(stage, rates=tuple(rates.items()))


def unknown_parts(model: ObservationModel) -> tuple[str, ...]:
    """Which of `lr` and `guide` have no operator in the model."""
    return tuple(key for key in ("lr", "guide") if model.operators.get(key) is None)


def _check_form(form: str, forms: Any) -> None:
    """Raises InputError unless ``form`` is one of ``forms``, a `Literal`."""
    if form not in get_args(forms):
        raise InputError(f"the form must be one of {', '.join(get_args(forms))}, but is {form!r}.")


def unknown_psf(form: PsfForm, grid: Grid, constraint: Constraint = "softmax", size: int | None = None) -> LearnedPsf:
    """The PSF of `lr` in one of several forms, one kernel for all bands; in brackets, systems that take them.

    Args:
        form:
            "pixel": starts as the mean over the low-resolution pixel and, on nested grids, covers that alone (HyCoNet,
            CUCaNet, NonRegSRNet, UDALN, M2U-Net).
            "overlapping": ``2 ratio - 1`` taps a side, which start flat (MIAE).
            "wide": `WIDE` taps a side, which start as the mean over the low-resolution pixel (DBSR and UAL; as released
            they start otherwise, are free and have a learned offset that an observation model has no place for).
            "mean": the mean over the low-resolution pixel, not learned; for a sensor whose PSF is assumed.
        grid: of the pair.
        constraint: see `Weights`.
        size: taps a side in place of the form's.

    Raises:
        InputError: no such form.
    """
    _check_form(form, PsfForm)
    psf = LearnedPsf(grid, constraint, size or {"overlapping": 2 * grid.ratio - 1, "wide": WIDE}.get(form))
    if form == "overlapping":
        psf.weights = Weights(jnp.full((1, psf.size**2), 1 / psf.size**2), constraint)
    return _held(psf) if form == "mean" else psf


def unknown_srf(
    form: SrfForm,
    bands: Bands,
    constraint: Constraint = "softmax",
    support: Array | None = None,
    start: Array | None = None,
) -> LearnedSrf:
    """The spectral response of the guide in one of several forms; in brackets, systems that take them.

    Args:
        form:
            "dense": every band of `lr`; starts flat (MIAE, M2U-Net, DBSR, UAL).
            "support": the bands of ``support``, such as those within a sensor's ranges; starts flat (HyCoNet, CUCaNet,
            NonRegSRNet).
            "middle": the same, but starts as a Gaussian in its middle (UDALN).
            "started": starts as ``start``, such as the response of another sensor.
            "fixed": ``start``, not learned.
        bands: of the pair.
        constraint: see `Weights`.
        support: which bands of `lr` each band of the guide may see, ``(guide band, lr band)``; only for the forms
            "support" and "middle".
        start: response ``(guide band, lr band)``; only for "started" and "fixed".

    Raises:
        InputError: no such form, or what it needs lacks or has another shape.
    """
    _check_form(form, SrfForm)
    given = {"support": support, "start": start}
    wanted = {"dense": None, "support": "support", "middle": "support"}.get(form, "start")
    if any((array is not None) != (name == wanted) for name, array in given.items()):
        came = " and ".join(name for name, array in given.items() if array is not None) or "nothing"
        raise InputError(f"the form {form!r} of a spectral response takes {wanted or 'nothing'}, but {came} came.")
    srf = LearnedSrf(bands, constraint, support, form == "middle")
    if start is not None:
        if start.shape != (bands.guide, bands.lr):
            raise InputError(
                f"the start must be (guide band, lr band) = {(bands.guide, bands.lr)}, but is {start.shape}."
            )
        srf.weights = Weights(jnp.asarray(start, jnp.float32), "free" if form == "fixed" else constraint)
    return _held(srf) if form == "fixed" else srf


def _held(response: R) -> R:
    """The response with its weights taken from the parameters that are fitted."""
    weights = cast(Any, response.weights)
    weights.weight = nnx.Variable(weights.weight[...])
    return response


class Degradation(nnx.Module):
    """Learned operators for the unknown parts of an observation model; known parts stay as they are.

    Clipped weights are also divided by their sum when they are used, so that no gradient is common to them: clipping
    would turn it into a drift towards a single weight.

    Args:
        model: the observation model; where the operator of `lr` or `guide` is None, it is learned.
        bands: of the pair.
        constraints: on the PSF and on the spectral response, see `Weights`.
        support: see `LearnedSrf`.
        size: see `LearnedPsf`.
        psf, srf: see `unknown_psf` and `unknown_srf`; None for "support" where that is given, and else for "dense".
        start: see `unknown_srf`.
    """

    def __init__(
        self,
        model: ObservationModel,
        bands: Bands,
        constraints: tuple[Constraint, Constraint] = ("softmax", "softmax"),
        support: Array | None = None,
        size: int | None = None,
        *,
        psf: PsfForm = "pixel",
        srf: SrfForm | None = None,
        start: Array | None = None,
    ) -> None:
        unknown, form = unknown_parts(model), srf or ("dense" if support is None else "support")
        self.psf = unknown_psf(psf, model.grid, constraints[0], size) if "lr" in unknown else None
        self.srf = unknown_srf(form, bands, constraints[1], support, start) if "guide" in unknown else None

    def __call__(self, model: ObservationModel) -> ObservationModel:
        """``model`` with its unknown parts filled in."""
        learned = {"lr": self.psf, "guide": self.srf}
        filled = {key: _operator(module) for key, module in learned.items() if module is not None}
        return model.replace(operators=model.operators | filled)

    def project(self) -> None:
        """Projects the learned weights; see `Weights.project`."""
        for module in (self.psf, self.srf):
            if module is not None:
                module.weights.project()


def _operator(response: LearnedPsf | LearnedSrf) -> LinearOperator:
    operator = response()
    if response.weights.constraint != "clipped":
        return operator
    if isinstance(operator, SpectralResponse):
        return SpectralResponse(operator.srf / operator.srf.sum(-1, keepdims=True))
    kernel = psf_kernel(operator.psf)
    return dataclasses.replace(operator, psf=kernel / kernel.sum())


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
