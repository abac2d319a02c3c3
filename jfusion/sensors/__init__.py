"""Real sensors: spectral response, MTF gain, ground sample distance and bit depth of every band.

>>> sensor = get("landsat8_oli")
>>> [band.name for band in sensor.pan.bands]
['B8']
>>> round(sensor.select(["B4"]).bands[0].centre)
655
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.resources import files
from typing import Any, Literal

import numpy as np

from jfusion.errors import InputError, unknown

MTF_FALLBACK = {"ms": 0.30, "pan": 0.15}
MTF_FALLBACK_SOURCE = (
    "fallback of Vivone et al., IEEE GRSM 2021: 0.30 for a multispectral, 0.15 for a panchromatic band"
)
MIN_COVERAGE = 0.5
MOST_BANDS = 16
"""A sensor with more bands is a spectrometer, and no guide, see `responses`."""
_FWHM_PER_SIGMA = 2 * np.sqrt(2 * np.log(2))


@dataclass(frozen=True)
class Band:
    """One band: its response curve, peak one, sampled every few nanometres.

    Attributes:
        name: as the operator calls it.
        kind: "ms" for a band of the spectral image, "pan" for a panchromatic one.
        centre: midpoint of the half-maximum interval, nm.
        fwhm: its length, nm.
        gsd: ground sample distance at nadir in metres, None where the carrier's height decides.
        mtf_gain: modulation transfer function at this band's Nyquist frequency.
        mtf_source: who says so, or that it is the fallback.
        wavelengths, values: the sampled curve, nm and relative response.
    """

    name: str
    kind: Literal["ms", "pan"]
    centre: float
    fwhm: float
    gsd: float | None
    mtf_gain: float
    mtf_source: str
    wavelengths: np.ndarray = field(repr=False, compare=False)
    values: np.ndarray = field(repr=False, compare=False)


@dataclass(frozen=True)
class Sensor:
    """The bands of one instrument, in the operator's order.

    Attributes:
        name: key for `get`.
        title: full name.
        bands: all bands, panchromatic ones among them.
        source: where the curves, sample distances and bit depth come from.
        licence: terms of that source.
        bit_depth: bits of a raw sample.
    """

    name: str
    title: str
    bands: tuple[Band, ...]
    source: str
    licence: str
    bit_depth: int

    @property
    def pan(self) -> "Sensor":
        """The same sensor with its panchromatic bands only (none, for many sensors)."""
        return replace(self, bands=tuple(band for band in self.bands if band.kind == "pan"))

    @property
    def ms(self) -> "Sensor":
        """The same sensor without its panchromatic bands."""
        return replace(self, bands=tuple(band for band in self.bands if band.kind == "ms"))

    @property
    def band_names(self) -> tuple[str, ...]:
        return tuple(band.name for band in self.bands)

    @property
    def centres(self) -> np.ndarray:
        """Band centres in nm, `(band,)`."""
        return np.array([band.centre for band in self.bands])

    @property
    def fwhm(self) -> np.ndarray:
        """Full widths at half maximum in nm, `(band,)`."""
        return np.array([band.fwhm for band in self.bands])

    @property
    def mtf_gains(self) -> np.ndarray:
        """MTF at each band's Nyquist frequency, `(band,)`."""
        return np.array([band.mtf_gain for band in self.bands])

    def select(self, names: Sequence[str]) -> "Sensor":
        """The same sensor with the named bands, in that order.

        Raises:
            InputError: a name is none of the sensor's bands.
        """
        by_name = {band.name: band for band in self.bands}
        unknown = [name for name in names if name not in by_name]
        if unknown:
            raise InputError(f"{self.name} has no band {unknown[0]!r}; its bands are {', '.join(self.band_names)}.")
        return replace(self, bands=tuple(by_name[name] for name in names))

    def covered(self, wavelengths: Any) -> "Sensor":
        """The same sensor with the bands that `response` can make of these wavelengths (nm), none at worst."""
        return replace(self, bands=tuple(b for b in self.bands if _covers(replace(self, bands=(b,)), wavelengths)))

    def response(self, wavelengths: Any, fwhm: Any = None) -> np.ndarray:
        """Weights that make this sensor's bands out of a hyperspectral sensor's bands.

        The spectrum between the given wavelengths is taken as piecewise linear and integrated against each
        response curve, so uneven spacing, any order and overlapping spectrometers are accounted for. The part of a
        curve that lies farther from every given wavelength than that channel's width (a removed water band, say)
        is not seen and does not count.

        Args:
            wavelengths: `(n,)` channel centres in nm, in any order.
            fwhm: `(n,)` or scalar channel widths in nm; the median spacing by default.

        Returns:
            `(band, n)` float32, no negative weight, each row sums to one.

        Raises:
            InputError: wavelengths are not nanometres or not finite, or they miss more than half of a band's response.
        """
        centres = np.asarray(wavelengths, dtype=np.float64)
        if centres.ndim != 1 or centres.size == 0 or not np.all(np.isfinite(centres)):
            raise InputError(f"Expected a 1-D array of finite wavelengths, but got shape {centres.shape}.")
        if centres.max() < 100:
            raise InputError(
                f"Expected wavelengths in nm, but the longest is {centres.max():g}; multiply micrometres by 1000."
            )
        grid, position, count = np.unique(centres, return_inverse=True, return_counts=True)
        reach = _reach(grid, position, fwhm)
        rows = np.stack([self._weights(band, grid, reach) for band in self.bands])
        return (rows[:, position] / count[position]).astype(np.float32)

    def _weights(self, band: Band, grid: np.ndarray, reach: np.ndarray) -> np.ndarray:
        right = np.clip(np.searchsorted(grid, band.wavelengths), 1, max(grid.size - 1, 1))
        left, right = right - 1, np.minimum(right, grid.size - 1)
        distance_left, distance_right = np.abs(band.wavelengths - grid[left]), np.abs(band.wavelengths - grid[right])
        seen = (distance_left <= reach[left]) | (distance_right <= reach[right])
        values = np.where(seen, band.values, 0.0)
        coverage = values.sum() / band.values.sum()
        if coverage < MIN_COVERAGE:
            raise InputError(
                f"Band {band.name} of {self.name} ({band.centre:.0f} nm, width {band.fwhm:.0f} nm) has {coverage:.0%} "
                f"of its response within the given wavelengths ({grid[0]:.0f} to {grid[-1]:.0f} nm, with their gaps); "
                f"leave it out, with --guide-bands or select()."
            )
        span = np.where(right > left, grid[right] - grid[left], 1.0)
        share = np.clip((band.wavelengths - grid[left]) / span, 0.0, 1.0)
        weights = np.bincount(left, values * (1 - share), grid.size) + np.bincount(right, values * share, grid.size)
        return weights / weights.sum()


def names() -> tuple[str, ...]:
    """Names of all sensors that `get` knows."""
    tables = files(__package__) / "tables"
    return tuple(sorted(item.name.removesuffix(".json") for item in tables.iterdir() if item.name.endswith(".json")))


@cache
def get(name: str) -> Sensor:
    """The sensor of that name.

    Raises:
        InputError: no such sensor; the message lists names that look alike.
    """
    if name not in names():
        raise unknown("sensor", name, names())
    table = json.loads((files(__package__) / "tables" / f"{name}.json").read_text(encoding="utf-8"))
    bands = tuple(_band(row, table.get("mtf_source", MTF_FALLBACK_SOURCE)) for row in table["bands"])
    return Sensor(name, table["title"], bands, table["source"], table["licence"], table["bit_depth"])


def responses(names: Sequence[str], wavelengths: Any) -> np.ndarray:
    """Spectral responses of sensors, of the multispectral and of the panchromatic bands each as of one sensor.

    Bands that the wavelengths do not cover are left out, and sensors that have none or are spectrometers.

    Args:
        names: of the sensors.
        wavelengths: of the scene's bands, nm.

    Returns:
        ``(sensor, guide band, band)``; where a sensor has fewer bands than another, rows of zeros.

    Raises:
        InputError: no sensor is left, or no such sensor.
    """
    tables = []
    for sensor in map(get, names):
        for part in (sensor.ms, sensor.pan):
            seen = part.covered(wavelengths)
            if 0 < len(seen.bands) <= MOST_BANDS:
                tables.append(seen.response(wavelengths))
    if not tables:
        raise InputError(
            f"none of {', '.join(names)} sees a band between {min(wavelengths)} and {max(wavelengths)} nm."
        )
    most = max(len(table) for table in tables)
    return np.stack([np.pad(table, ((0, most - len(table)), (0, 0))) for table in tables])


def _covers(sensor: Sensor, wavelengths: Any) -> bool:
    try:
        sensor.response(wavelengths)
    except InputError:
        return False
    return True


def _band(row: dict[str, Any], mtf_source: str) -> Band:
    if "response" in row:
        values = np.array(row["response"]) / 10000
        wavelengths = row["start"] + row["step"] * np.arange(values.size, dtype=np.float64)
        low, high = _half_maximum(wavelengths, values)
        centre, fwhm = (low + high) / 2, high - low
    else:
        centre, fwhm = row["centre"], row["fwhm"]
        wavelengths = np.arange(np.floor(centre - 1.5 * fwhm), np.ceil(centre + 1.5 * fwhm) + 1)
        values = np.exp(-0.5 * ((wavelengths - centre) * _FWHM_PER_SIGMA / fwhm) ** 2)
    if "mtf_gain" in row:
        mtf_gain, source = row["mtf_gain"], row.get("mtf_source", mtf_source)
    else:
        mtf_gain, source = MTF_FALLBACK[row["kind"]], MTF_FALLBACK_SOURCE
    return Band(row["name"], row["kind"], centre, fwhm, row.get("gsd"), mtf_gain, source, wavelengths, values)


def _half_maximum(wavelengths: np.ndarray, values: np.ndarray) -> tuple[float, float]:
    """Outermost wavelengths at which the curve crosses half of its maximum, by linear interpolation."""
    half = values.max() / 2
    above = np.flatnonzero(values >= half)
    first, last = above[0], above[-1]
    low, high = wavelengths[first], wavelengths[last]
    if first > 0:
        low = np.interp(half, values[first - 1 : first + 1], wavelengths[first - 1 : first + 1])
    if last < values.size - 1:
        high = np.interp(half, values[last + 1 : last - 1 : -1], wavelengths[last + 1 : last - 1 : -1])
    return float(low), float(high)


def _reach(grid: np.ndarray, position: np.ndarray, fwhm: Any) -> np.ndarray:
    """Width of every distinct channel, the widest where several share one wavelength."""
    if fwhm is None:
        if grid.size < 2:
            raise InputError("One wavelength alone says nothing about its channel's width; give fwhm.")
        return np.full(grid.size, np.median(np.diff(grid)))
    reach = np.zeros(grid.size)
    try:
        widths = np.broadcast_to(np.asarray(fwhm, dtype=np.float64), position.shape)
    except ValueError:
        raise InputError(f"Expected one fwhm or {position.size}, but got shape {np.shape(fwhm)}.") from None
    if not np.all(np.isfinite(widths)) or np.any(widths <= 0):
        raise InputError("Expected positive, finite channel widths (fwhm) in nm.")
    np.maximum.at(reach, position, widths)
    return reach
