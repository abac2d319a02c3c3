"""Arrays as PNG pictures: one stretch, one scale and one window for all that are to be compared."""

from __future__ import annotations

import base64
import dataclasses
import io
import math
from collections.abc import Iterable
from functools import lru_cache

import numpy as np

from jfusion.errors import InputError

Window = tuple[int, int, int, int]
"""First row, row after the last, first column, column after the last."""

NO_DATA = 128
"""Grey of pixels without data."""

_PLAIN = (10, 12, 16, 20, 24, 28, 32, 40, 48, 60, 80, 100)


@dataclasses.dataclass(frozen=True)
class Stretch:
    """The linear stretch of one scene: the same map from values to grey levels for all its pictures.

    Attributes:
        low: values ``(channel,)`` that become black.
        high: values ``(channel,)`` that become white.
    """

    low: np.ndarray
    high: np.ndarray

    @staticmethod
    def of(image: np.ndarray, low: float = 2, high: float = 98) -> Stretch:
        """Between two percentiles of each channel of ``(height, width, channel)``; pixels without data do not count."""
        pixels = image.reshape(-1, image.shape[-1]).astype(np.float64)
        pixels = pixels[np.isfinite(pixels).all(1)]
        if not len(pixels):
            return Stretch(np.zeros(image.shape[-1]), np.ones(image.shape[-1]))
        first, last = np.percentile(pixels, (low, high), axis=0)
        return Stretch(first, last)

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """uint8 of the same shape; mid-grey where a channel of the reference was constant, or without data."""
        span = self.high - self.low
        with np.errstate(invalid="ignore"):
            scaled = np.where(span > 0, (image - self.low) / np.where(span > 0, span, 1), 0.5)
            levels = np.rint(255 * np.clip(scaled, 0, 1))
        return np.where(np.isfinite(image).all(-1, keepdims=True), levels, NO_DATA).astype(np.uint8)


def png(image: np.ndarray) -> bytes:
    """PNG of uint8 ``(height, width)``, ``(height, width, 1)`` or ``(height, width, 3)``, one pixel for one."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[2:] == (1,) else image).save(buffer, "png", optimize=True)
    return buffer.getvalue()


def data_uri(picture: bytes) -> str:
    """The PNG as an address that holds it."""
    return "data:image/png;base64," + base64.b64encode(picture).decode("ascii")


def reduce(image: np.ndarray, largest: int) -> np.ndarray:
    """Block means by the smallest integer that brings both sides down to ``largest`` pixels."""
    factor = max(1, math.ceil(max(image.shape[:2]) / largest))
    if factor == 1:
        return image
    height, width = (n // factor for n in image.shape[:2])
    blocks = image[: height * factor, : width * factor].reshape(height, factor, width, factor, -1)
    means = blocks.mean((1, 3)).reshape(height, width, *image.shape[2:])
    return np.rint(means).astype(image.dtype) if image.dtype.kind in "iu" else means


def enlarge(image: np.ndarray, window: Window, factor: int) -> np.ndarray:
    """The window of an image, every pixel a square of ``factor`` x ``factor``."""
    top, bottom, left, right = window
    return image[top:bottom, left:right].repeat(factor, 0).repeat(factor, 1)


def regrid(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """The nearest pixels of a coarser image that covers the same ground."""
    rows = np.arange(height) * image.shape[0] // height
    columns = np.arange(width) * image.shape[1] // width
    return image[rows[:, None], columns]


def rmse_map(product: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Root mean squared error over the bands of each pixel ``(height, width)``, in the unit of the images."""
    return np.sqrt(np.mean((product.astype(np.float64) - reference) ** 2, -1))


def sam_map(product: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Spectral angle of each pixel ``(height, width)`` in degrees; nan where a spectrum is zero or not finite.

    Source: Yuhas et al., Discrimination among semi-arid landscape endmembers, 1992.
    """
    x, y = product.astype(np.float64), reference.astype(np.float64)
    norms = np.linalg.norm(x, axis=-1) * np.linalg.norm(y, axis=-1)
    known = np.isfinite(norms) & (norms > 0)
    cosine = np.divide((x * y).sum(-1), norms, out=np.full(norms.shape, np.nan), where=known)
    return np.degrees(np.arccos(np.clip(cosine, -1, 1)))


def common_limit(maps: Iterable[np.ndarray], percentile: float = 99) -> float:
    """End of a scale from zero that serves all maps: a percentile of all their pixels, rounded up to a plain number."""
    values = np.concatenate([m[np.isfinite(m)] for m in maps])
    top = float(np.percentile(values, percentile)) if len(values) else 0.0
    if not top > 0:
        return 1.0
    exponent = math.floor(math.log10(top))
    plain = next(n for n in _PLAIN if n * 10.0 ** (exponent - 1) >= top * (1 - 1e-9))
    return float(f"{plain}e{exponent - 1}")


@lru_cache
def _colours(name: str) -> np.ndarray:
    """The 256 colours of a matplotlib map, uint8 ``(256, 3)``."""
    from matplotlib import colormaps

    return np.rint(255 * colormaps[name](np.linspace(0, 1, 256))[:, :3]).astype(np.uint8)


def heat(values: np.ndarray, limit: float, colours: str) -> bytes:
    """PNG of a map ``(height, width)`` on the scale from 0 to ``limit``; transparent where it is nan."""
    from PIL import Image

    known = np.isfinite(values)
    level = 1 + np.rint(254 * np.clip(np.where(known, values, 0) / limit, 0, 1))
    picture = Image.fromarray(np.where(known, level, 0).astype(np.uint8))
    picture.putpalette(_colours(colours).tobytes())
    buffer = io.BytesIO()
    picture.save(buffer, "png", optimize=True, transparency=0)
    return buffer.getvalue()


def gradient(colours: str, stops: int = 17) -> str:
    """The colour map as a CSS gradient from bottom to top."""
    chosen = _colours(colours)[np.linspace(0, 255, stops).round().astype(int)]
    return f"linear-gradient(to top,{','.join('#{:02x}{:02x}{:02x}'.format(*map(int, c)) for c in chosen)})"


def _box_sum(image: np.ndarray, side: int) -> np.ndarray:
    """Sums over all windows of ``side`` x ``side`` that lie inside the image."""
    total = np.pad(image, ((1, 0), (1, 0))).cumsum(0).cumsum(1)
    return total[side:, side:] - total[:-side, side:] - total[side:, :-side] + total[:-side, :-side]


def busiest_window(image: np.ndarray, side: int) -> Window:
    """The square of ``side`` pixels with the most texture of ``(height, width, channel)``; bright clouds have none.

    Pixels that are not finite have none either.

    Raises:
        InputError: the square does not fit.
    """
    if not 1 <= side <= min(image.shape[:2]):
        raise InputError(
            f"the window must fit into {image.shape[:2]} pixels, but its side is {side}; choose a smaller."
        )
    grey = image.astype(np.float64).mean(-1)
    grey[~np.isfinite(grey)] = np.nan
    low, high = (0.0, 0.0) if np.isnan(grey).all() else np.nanpercentile(grey, (2, 90))
    grey = np.log(0.1 + np.clip((grey - low) / (high - low if high > low else 1), 0, 1))
    energy = np.hypot(*(np.abs(np.diff(grey, axis=a, append=grey.take([-1], a))) for a in (0, 1)))
    energy = np.nan_to_num(energy)
    sums = _box_sum(np.minimum(energy, np.percentile(energy, 99)), side)
    top, left = (int(i) for i in np.unravel_index(np.argmax(sums), sums.shape))
    return top, top + side, left, left + side


def distinct_pixels(image: np.ndarray, count: int = 4) -> list[tuple[int, int]]:
    """Pixels (row, column) whose spectra differ most in angle, inside patches of one material.

    Farthest-point selection among the more uniform half of all 3 x 3 neighbourhoods, from the brightest one on.
    """
    height, width, bands = image.shape
    if min(height, width) < 3:
        return [(height // 2, width // 2)]
    image = image.astype(np.float64)
    shifts = [image[i : height - 2 + i, j : width - 2 + j] for i in range(3) for j in range(3)]
    mean = np.zeros((height - 2, width - 2, bands))
    for shift in shifts:
        mean += shift / 9
    variance = np.zeros((height - 2) * (width - 2))
    for shift in shifts:
        variance += np.square(shift - mean).sum(-1).ravel() / 9
    mean = mean.reshape(-1, bands)
    norm = np.linalg.norm(mean, axis=1)
    usable = np.isfinite(variance) & (norm > 0)
    if not usable.any():
        return [(height // 2, width // 2)]
    uniform = np.full(len(norm), np.inf)
    uniform[usable] = variance[usable] / norm[usable] ** 2
    candidates = np.flatnonzero(uniform <= np.median(uniform[usable]))
    directions = mean[candidates] / norm[candidates, None]
    chosen = [int(np.argmax(norm[candidates]))]
    nearest = directions @ directions[chosen[0]]
    while len(chosen) < min(count, len(candidates)) and nearest.min() < 1 - 1e-9:
        chosen.append(int(np.argmin(nearest)))
        nearest = np.maximum(nearest, directions @ directions[chosen[-1]])
    positions = (divmod(int(candidates[i]), width - 2) for i in chosen)
    return [(row + 1, column + 1) for row, column in positions]
