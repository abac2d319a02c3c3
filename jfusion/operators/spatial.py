"""Spatial response: blur by a point spread function, decimation with an explicit phase, and both in one step.

A PSF is given in one of two forms. As profiles ``(vertical, horizontal)``, each ``(taps,)`` or ``(taps, band)``, it is
separable and applied by two banded matrix products; as one kernel ``(rows, columns)`` or ``(rows, columns, band)`` it
is applied by shifts where it is small and in the Fourier domain where it is large; where its footprints are the blocks
of a nested grid, it is a weighted sum over each block. The origin of ``size`` taps is tap ``size // 2`` (the convention
of MATLAB's psf2otf), and ``y[n] = sum_m psf[m] x[n - (m - origin)]``.
"""

from __future__ import annotations

import dataclasses
from typing import Literal, TypeVar, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jfusion.errors import InputError
from jfusion.operators.grid import Grid
from jfusion.operators.linear import LinearOperator, as_image, pytree, single, static_field
from jfusion.operators.psf import Profiles, mtf_psf

Boundary = Literal["circular", "reflect", "valid"]
Psf = Array | Profiles
Op = TypeVar("Op", bound=LinearOperator | None)

DIRECT_TAPS, DIRECT_TAPS_EACH = 121, 25
"""Most taps that a non-separable kernel applies by shifts, in all and for each phase of the grid; others go through the
FFT."""


def check_boundary(boundary: str) -> None:
    """Raises InputError unless ``boundary`` is one of circular, reflect, valid."""
    if boundary not in get_args(Boundary):
        raise InputError(f"the boundary must be one of {', '.join(get_args(Boundary))}, but is {boundary!r}.")


def check_divisible(shape: tuple[int, ...], ratio: int) -> None:
    """Raises InputError unless height and width are multiples of ``ratio``."""
    if shape[-3] % ratio or shape[-2] % ratio:
        raise InputError(
            f"height and width must be multiples of the ratio {ratio}, but are {shape[-3]} x {shape[-2]}; "
            f"crop to {shape[-3] // ratio * ratio} x {shape[-2] // ratio * ratio}."
        )


def check_phase(phase: tuple[int, int], ratio: int) -> None:
    """Raises InputError unless both numbers lie between 0 and ``ratio - 1``."""
    if not all(0 <= p < ratio for p in phase):
        raise InputError(f"the phase must lie between 0 and ratio - 1 = {ratio - 1}, but is {phase}; see Grid.phase.")


def psf_size(psf: Psf) -> tuple[int, int]:
    """Rows and columns of a PSF in either form."""
    return (psf[0].shape[0], psf[1].shape[0]) if isinstance(psf, tuple) else (psf.shape[0], psf.shape[1])


def psf_kernel(psf: Psf) -> Array:
    """The PSF as one kernel ``(rows, columns)`` or ``(rows, columns, band)``."""
    if not isinstance(psf, tuple):
        return psf
    vertical, horizontal = psf
    if vertical.ndim != horizontal.ndim:
        vertical, horizontal = (part.reshape(len(part), -1) for part in psf)
    return vertical[:, None] * horizontal[None, :]


def tap_source(size: int, taps: int, ratio: int, phase: int, boundary: Boundary) -> np.ndarray:
    """Index ``(outputs, taps)`` of the pixel that tap m adds to output i."""
    length = size - taps + 1 if boundary == "valid" else size
    if length < 1 or (boundary == "reflect" and taps // 2 >= size):
        raise InputError(
            f"a PSF of {taps} taps does not fit an image of {size} pixels with boundary {boundary!r}; "
            "use a larger image or a smaller PSF."
        )
    position = np.arange(phase, length, ratio)[:, None] - np.arange(taps)[None, :]
    if boundary == "valid":
        return position + taps - 1
    position = position + taps // 2
    if boundary == "circular":
        return position % size
    period = max(2 * (size - 1), 1)
    position = np.abs(position) % period
    return np.minimum(position, period - position)


def band_matrix(profile: Array, size: int, ratio: int, phase: int, boundary: Boundary) -> Array:
    """Blur by ``profile`` and decimation along one axis: a matrix ``(outputs, size)`` or ``(outputs, size, band)``."""
    column = tap_source(size, profile.shape[0], ratio, phase, boundary)
    row = np.broadcast_to(np.arange(column.shape[0])[:, None], column.shape)
    matrix = jnp.zeros((column.shape[0], size, *profile.shape[1:]), profile.dtype)
    return matrix.at[row, column].add(profile[None])


def _separable(x: Array, profiles: Profiles, ratio: int, phase: tuple[int, int], boundary: Boundary) -> Array:
    rows = band_matrix(profiles[0].astype(x.dtype), x.shape[-3], ratio, phase[0], boundary)
    columns = band_matrix(profiles[1].astype(x.dtype), x.shape[-2], ratio, phase[1], boundary)
    across, along = ("ijc,...jkc->...ikc", "lkc,...ikc->...ilc")
    if rows.ndim == 2:
        across = "ij,...jkc->...ikc"
    if columns.ndim == 2:
        along = "lk,...ikc->...ilc"
    return jnp.einsum(along, columns, jnp.einsum(across, rows, x, precision="highest"), precision="highest")


def _by_phase(source: np.ndarray, phase: int, ratio: int) -> np.ndarray:
    """The pixels along one axis that taps reach, phase by phase, each with the same number of them."""
    reached = np.concatenate([source[0, :0:-1], source[:, 0]])[phase:]
    return np.pad(reached, (0, -len(reached) % ratio)).reshape(-1, ratio).T.ravel()


def _shifts(x: Array, kernel: Array, ratio: int, phase: tuple[int, int], boundary: Boundary) -> Array:
    """Sums the shifted images of each phase of the grid: so the derivatives too are sums of low resolution."""
    rows = tap_source(x.shape[-3], kernel.shape[0], 1, 0, boundary)
    columns = tap_source(x.shape[-2], kernel.shape[1], 1, 0, boundary)
    height, width = (-(-(len(n) - p) // ratio) for n, p in zip((rows, columns), phase, strict=True))
    padded = jnp.take(x, _by_phase(rows, phase[0], ratio), axis=-3)
    padded = jnp.take(padded, _by_phase(columns, phase[1], ratio), axis=-2)
    sides = [padded.shape[axis] // ratio for axis in (-3, -2)]
    parts = [
        jax.lax.split(part, [sides[1]] * ratio, axis=x.ndim - 2)
        for part in jax.lax.split(padded, [sides[0]] * ratio, axis=x.ndim - 3)
    ]
    flipped = kernel[::-1, ::-1].astype(x.dtype)
    return sum(
        parts[i % ratio][j % ratio][..., i // ratio : i // ratio + height, j // ratio : j // ratio + width, :]
        * flipped[i, j]
        for i in range(kernel.shape[0])
        for j in range(kernel.shape[1])
    )  # type: ignore[return-value]


def _tiles(psf: Psf, ratio: int, phase: tuple[int, int]) -> bool:
    """Whether the footprints of the low-resolution pixels are the blocks of ``ratio`` x ``ratio`` pixels."""
    return psf_size(psf) == (ratio, ratio) and set(phase) == {ratio - 1 - ratio // 2}


def _blocks(x: Array, kernel: Array, ratio: int) -> Array:
    *batch, height, width, bands = x.shape
    weights = kernel.reshape(ratio, ratio, -1)[::-1, None, ::-1].astype(x.dtype)
    return jnp.sum(x.reshape(*batch, height // ratio, ratio, width // ratio, ratio, bands) * weights, (-4, -2))


def otf(psf: Psf, height: int, width: int) -> Array:
    """Optical transfer function of a circular blur: ``(height, width // 2 + 1, 1 or band)``, complex.

    A PSF that is larger than the image goes round it.
    """
    kernel = psf_kernel(psf)
    rows, columns = kernel.shape[:2]
    kernel = jnp.pad(kernel.reshape(rows, columns, -1), ((0, -rows % height), (0, -columns % width), (0, 0)))
    kernel = kernel.reshape(-1, height, -(-columns // width), width, kernel.shape[-1]).sum((0, 2))
    return jnp.fft.rfft2(jnp.roll(kernel, (-(rows // 2), -(columns // 2)), (0, 1)), axes=(0, 1))


def _fourier(x: Array, kernel: Array, boundary: Boundary) -> Array:
    rows, columns = kernel.shape[:2]
    if boundary == "valid":
        for taps, size in zip((rows, columns), x.shape[-3:-1], strict=True):
            tap_source(size, taps, 1, 0, boundary)
    if boundary == "reflect":
        pad = ((rows // 2,) * 2, (columns // 2,) * 2)
        x = jnp.pad(x, (*((0, 0),) * (x.ndim - 3), *pad, (0, 0)), mode="reflect")
    height, width = x.shape[-3:-1]
    spectrum = jnp.fft.rfft2(single(x), axes=(-3, -2)) * otf(single(kernel), height, width)
    y = jnp.fft.irfft2(spectrum, s=(height, width), axes=(-3, -2)).astype(x.dtype)
    if boundary == "circular":
        return y
    bottom, right = rows // 2, columns // 2
    top, left = (bottom, right) if boundary == "reflect" else (rows - 1 - bottom, columns - 1 - right)
    return y[..., top : height - bottom, left : width - right, :]


@pytree
class Blur(LinearOperator):
    """Convolution with a PSF.

    Attributes:
        psf: kernel or profiles (see the module), one for all bands or one per band.
        boundary: "circular", "reflect" (mirror without repeating the edge) or "valid" (only pixels whose whole
            neighbourhood lies inside: the output is smaller by ``taps - 1``).
    """

    psf: Psf
    boundary: Boundary = static_field(default="reflect")

    def __call__(self, x: Array) -> Array:
        return SpatialResponse(self.psf, 1, (0, 0), self.boundary)(x)

    def input_shape(self, output_shape: tuple[int, ...]) -> tuple[int, ...]:
        return SpatialResponse(self.psf, 1, (0, 0), self.boundary).input_shape(output_shape)


@pytree
class Decimate(LinearOperator):
    """Keeps the pixels ``phase, phase + ratio, ...`` of each axis; its adjoint inserts zeros.

    Attributes:
        ratio: step, an integer of at least 1; height and width must be multiples of it.
        phase: first (row, column) that is kept, counted from 0.
    """

    ratio: int = static_field()
    phase: tuple[int, int] = static_field(default=(0, 0))

    def __call__(self, x: Array) -> Array:
        x = as_image(x, "the image to decimate")
        check_divisible(x.shape, self.ratio)
        check_phase(self.phase, self.ratio)
        return x[..., self.phase[0] :: self.ratio, self.phase[1] :: self.ratio, :]

    def input_shape(self, output_shape: tuple[int, ...]) -> tuple[int, ...]:
        *batch, h, w, bands = output_shape
        return (*batch, h * self.ratio, w * self.ratio, bands)


@pytree
class BlockAverage(LinearOperator):
    """Mean over blocks of ``ratio`` x ``ratio`` pixels: a box PSF on a nested grid."""

    ratio: int = static_field()

    def __call__(self, x: Array) -> Array:
        x = as_image(x, "the image to average")
        check_divisible(x.shape, self.ratio)
        *batch, height, width, bands = x.shape
        r = self.ratio
        return x.reshape(*batch, height // r, r, width // r, r, bands).mean((-4, -2))

    def adjoint(self, y: Array) -> Array:
        r = self.ratio
        return jnp.repeat(jnp.repeat(y, r, axis=-3), r, axis=-2) / r**2

    def input_shape(self, output_shape: tuple[int, ...]) -> tuple[int, ...]:
        return Decimate(self.ratio).input_shape(output_shape)


@pytree
class SpatialResponse(LinearOperator):
    """What a sensor of lower resolution sees: ``Decimate(ratio, phase)`` after ``Blur(psf, boundary)``, in one step.

    Attributes:
        psf: kernel or profiles (see the module), one for all bands or one per band.
        ratio: step of the decimation; height and width of the blurred image must be multiples of it.
        phase: first (row, column) of the blurred image that is kept.
        boundary: see `Blur`.
    """

    psf: Psf
    ratio: int = static_field()
    phase: tuple[int, int] = static_field(default=(0, 0))
    boundary: Boundary = static_field(default="reflect")

    def __call__(self, x: Array) -> Array:
        x = as_image(x, "the image to blur")
        check_boundary(self.boundary)
        check_phase(self.phase, self.ratio)
        rows, columns = psf_size(self.psf)
        margin = (rows - 1, columns - 1) if self.boundary == "valid" else (0, 0)
        check_divisible((x.shape[-3] - margin[0], x.shape[-2] - margin[1], 1), self.ratio)
        if self.boundary != "valid" and self.ratio > 1 and _tiles(self.psf, self.ratio, self.phase):
            return _blocks(x, psf_kernel(self.psf), self.ratio)
        if isinstance(self.psf, tuple):
            return _separable(x, self.psf, self.ratio, self.phase, self.boundary)
        if rows * columns <= min(DIRECT_TAPS, DIRECT_TAPS_EACH * self.ratio**2):
            return _shifts(x, self.psf, self.ratio, self.phase, self.boundary)
        return Decimate(self.ratio, self.phase)(_fourier(x, self.psf, self.boundary))

    def input_shape(self, output_shape: tuple[int, ...]) -> tuple[int, ...]:
        *batch, height, width, bands = Decimate(self.ratio).input_shape(output_shape)
        if self.boundary == "valid":
            rows, columns = psf_size(self.psf)
            height, width = height + rows - 1, width + columns - 1
        return (*batch, height, width, bands)

    @property
    def blur(self) -> Blur:
        """The blur alone, at full resolution."""
        return Blur(self.psf, self.boundary)


def mtf_response(gain: ArrayLike, grid: Grid, like: LinearOperator | None = None) -> SpatialResponse:
    """The response on a grid whose Gaussian PSF has the MTF ``gain``, a number or one per band; see `mtf_psf`.

    It looks where a spatial response ``like`` does, whose PSF may carry a shift of the images against the grid.
    """
    beside = (0.0, 0.0)
    if isinstance(like, SpatialResponse):
        row, column = (
            p - c - (np.arange(len(profile)) - len(profile) // 2) @ profile
            for p, c, profile in zip(like.phase, grid.centre, _marginals(like), strict=True)
        )
        beside = float(row), float(column)
    return SpatialResponse(mtf_psf(gain, grid, beside), grid.ratio, grid.phase)


def _marginals(operator: SpatialResponse) -> tuple[np.ndarray, np.ndarray]:
    """Vertical and horizontal profile, each of sum 1, of the mean PSF of all bands."""
    kernel = np.asarray(psf_kernel(operator.psf), np.float64)
    kernel = kernel.reshape(*kernel.shape[:2], -1).mean(-1)
    return kernel.sum(1) / kernel.sum(), kernel.sum(0) / kernel.sum()


def one_psf(operator: Op) -> Op:
    """A spatial response with one PSF for all bands, the mean of the profiles or kernels; others as they are."""
    if not isinstance(operator, SpatialResponse):
        return operator
    axes = 1 if isinstance(operator.psf, tuple) else 2
    psf = jax.tree.map(lambda part: part if part.ndim == axes else part.mean(-1), operator.psf)
    return dataclasses.replace(operator, psf=psf)
