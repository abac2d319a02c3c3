"""One image of one place, with what is known about it."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from affine import Affine

from jfusion.errors import InputError

TRUE_COLOUR = (("red", 660.0), ("green", 555.0), ("blue", 480.0))
VISIBLE = (400.0, 710.0)
_ALIASES = {"red": ("red", "r"), "green": ("green", "g"), "blue": ("blue", "b")}


def rgb_at(wavelengths: np.ndarray) -> tuple[int, int, int]:
    """Indices of three bands to show as red, green and blue.

    True colour where three bands are visible; otherwise three spread over the range, long wavelengths red. One band, or
    two, repeat.

    Args:
        wavelengths: band centres in nm, `(band,)`; not finite where a band has none, which is then not shown.
    """
    known = np.flatnonzero(np.isfinite(wavelengths))
    centres = wavelengths[known]
    nearest = [int(np.argmin(np.abs(centres - centre))) for _, centre in TRUE_COLOUR]
    if ((centres >= VISIBLE[0]) & (centres <= VISIBLE[1])).sum() < 3 or len(set(nearest)) < 3:
        order = np.argsort(centres, kind="stable")
        nearest = [int(order[-1]), int(order[(len(order) - 1) // 2]), int(order[0])]
    return tuple(int(known[k]) for k in nearest)  # type: ignore[return-value]


def marked(image: np.ndarray, nodata: float) -> np.ndarray:
    """Which samples hold the value that marks invalid ones."""
    return np.isnan(image) if np.isnan(nodata) else image == nodata


@dataclass(frozen=True, eq=False)
class Scene:
    """One image with its metadata.

    Attributes:
        image: `(height, width, band)`, the file's own numbers.
        name: a short name for messages and pictures.
        sensor: key for `jfusion.sensors.get`, None if unknown.
        wavelengths: band centres in nm, `(band,)`.
        fwhm: full widths at half maximum in nm, `(band,)`.
        band_names: one a band.
        colours: what each band shows, in GDAL's words such as "red" or "nir"; "undefined" where a file does not say.
        transform: pixel corner (column, row) to map (x, y).
        crs: coordinate reference system as "EPSG:n" or WKT.
        mask: `(height, width)`, True where every band is valid; None if all pixels are.
        nodata: the number that marks an invalid sample in `image`.
        scale, offset: physical value = scale * image + offset.
        time: of the image, as TIFF has it: "2024:05:31 10:15:00".
        licence, citation, note: terms of use, whom to cite, what to know.
    """

    image: np.ndarray
    name: str = "scene"
    sensor: str | None = None
    wavelengths: np.ndarray | None = None
    fwhm: np.ndarray | None = None
    band_names: tuple[str, ...] | None = None
    colours: tuple[str, ...] | None = None
    transform: Affine | None = None
    crs: str | None = None
    mask: np.ndarray | None = None
    nodata: float | None = None
    scale: float | np.ndarray = 1.0
    offset: float | np.ndarray = 0.0
    time: str | None = None
    licence: str | None = None
    citation: str | None = None
    note: str | None = None

    def __post_init__(self) -> None:
        if self.image.ndim != 3 or self.image.size == 0:
            raise InputError(
                f"{self.name}: expected an image (height, width, band) with at least one pixel, "
                f"but its shape is {self.image.shape}."
            )
        for field in ("wavelengths", "fwhm", "band_names", "colours"):
            value = getattr(self, field)
            if value is not None and len(value) != self.bands:
                raise InputError(f"{self.name}: expected {self.bands} {field}, one a band, but got {len(value)}.")
        for field in ("scale", "offset"):
            if np.shape(getattr(self, field)) not in ((), (self.bands,)):
                raise InputError(
                    f"{self.name}: expected one {field} or {self.bands}, one a band, "
                    f"but got shape {np.shape(getattr(self, field))}."
                )
        if self.mask is not None and self.mask.shape != self.image.shape[:2]:
            raise InputError(
                f"{self.name}: expected a mask of shape {self.image.shape[:2]}, but got {self.mask.shape}."
            )

    @property
    def height(self) -> int:
        return self.image.shape[0]

    @property
    def width(self) -> int:
        return self.image.shape[1]

    @property
    def bands(self) -> int:
        return self.image.shape[2]

    @property
    def valid(self) -> np.ndarray:
        """`(height, width)` bool, the mask, or all True without one."""
        return np.ones(self.image.shape[:2], dtype=bool) if self.mask is None else self.mask

    def physical(self) -> np.ndarray:
        """scale * image + offset in float32 `(height, width, band)`; invalid pixels are zero."""
        scale, offset = np.asarray(self.scale, np.float64), np.asarray(self.offset, np.float64)
        values = np.empty(self.image.shape, np.float32)
        for row, numbers in zip(values, self.image, strict=True):  # a row stays in the processor's cache
            row[:] = numbers * scale + offset
        if self.mask is not None:
            values[~self.mask] = 0
        return values

    def digital(self, physical: np.ndarray) -> np.ndarray:
        """The image numbers in float32 that stand for physical values: inverse of `physical` where the mask is True."""
        scale, offset = np.asarray(self.scale, np.float64), np.asarray(self.offset, np.float64)
        numbers = np.empty(np.shape(physical), np.float32)
        for row, values in zip(numbers, physical, strict=True):  # a row stays in the processor's cache
            row[:] = (values - offset) / scale
        return numbers

    def crop(self, rows: slice, cols: slice) -> "Scene":
        """The window of whole pixels `rows` x `cols`; transform and mask follow.

        Raises:
            InputError: a step other than one, or an empty window.
        """
        if {rows.step, cols.step} - {None, 1}:
            raise InputError(f"{self.name}: a crop takes every pixel; leave out the step of {rows} or {cols}.")
        (top, bottom, _), (left, right, _) = rows.indices(self.height), cols.indices(self.width)
        if top >= bottom or left >= right:
            raise InputError(f"{self.name}: {rows} x {cols} holds no pixel of {self.height} x {self.width}.")
        window = np.s_[top:bottom, left:right]
        return replace(
            self,
            image=self.image[window],
            mask=None if self.mask is None else self.mask[window],
            transform=None if self.transform is None else self.transform @ Affine.translation(left, top),
        )

    def select(self, bands: Sequence[int | str | float]) -> "Scene":
        """The given bands in that order: int for an index, str for a name, float for the nearest wavelength in nm.

        Raises:
            InputError: no such band, or a wavelength farther than 20 nm and than its width from every band.
        """
        if len(bands) == 0:
            raise InputError(f"{self.name}: expected at least one band to select, but got none.")
        chosen = [self._band_index(band) for band in bands]

        def pick(value: float | np.ndarray) -> float | np.ndarray:
            return value[chosen] if np.ndim(value) else value  # type: ignore[index]

        return replace(
            self,
            image=self.image[..., chosen],
            wavelengths=None if self.wavelengths is None else self.wavelengths[chosen],
            fwhm=None if self.fwhm is None else self.fwhm[chosen],
            band_names=None if self.band_names is None else tuple(self.band_names[k] for k in chosen),
            colours=None if self.colours is None else tuple(self.colours[k] for k in chosen),
            scale=pick(self.scale),
            offset=pick(self.offset),
        )

    def _band_index(self, band: int | str | float) -> int:
        if isinstance(band, str):
            if self.band_names is None or band not in self.band_names:
                known = ", ".join(self.band_names or ()) or "not known; use an index"
                raise InputError(f"{self.name} has no band {band!r}; its names are {known}.")
            return self.band_names.index(band)
        if isinstance(band, (int, np.integer)):
            if not -self.bands <= band < self.bands:
                raise InputError(f"{self.name} has no band {band}; its {self.bands} bands count from 0.")
            return int(band) % self.bands
        if self.wavelengths is None:
            raise InputError(f"{self.name} has no wavelengths; select bands by index or name, not by {band} nm.")
        nearest = int(np.argmin(np.abs(self.wavelengths - band)))
        reach = 20.0 if self.fwhm is None else max(20.0, float(self.fwhm[nearest]))
        if not abs(self.wavelengths[nearest] - band) <= reach:
            raise InputError(
                f"{self.name} has no band near {band} nm; the nearest is {self.wavelengths[nearest]:g} nm."
            )
        return nearest

    def rgb_bands(self) -> tuple[int, int, int]:
        """Indices of three bands to show as red, green and blue.

        By wavelength (`rgb_at`), then by band name or colour; otherwise four are taken for blue, green, red and near
        infrared, and of any other number three spread over all are shown, the last red.
        """
        if self.wavelengths is not None and np.isfinite(self.wavelengths).any():
            return rgb_at(self.wavelengths)
        for names in (self.band_names, self.colours):
            lower = [name.lower() for name in names or ()]
            named = [
                next((lower.index(alias) for alias in _ALIASES[colour] if alias in lower), None)
                for colour, _ in TRUE_COLOUR
            ]
            if None not in named:
                return tuple(named)  # type: ignore[return-value]
        last = 2 if self.bands == 4 else self.bands - 1
        return last, last // 2, 0

    def quicklook(self) -> np.ndarray:
        """`(height, width, 3)` uint8: `rgb_bands`, stretched jointly between their 2nd and 98th percentile."""
        shown = self.physical()[..., list(self.rgb_bands())]
        valid = self.valid & np.all(np.isfinite(shown), axis=-1)
        if not valid.any():
            return np.zeros((self.height, self.width, 3), np.uint8)
        low, high = np.percentile(shown[valid], (2, 98))
        stretched = np.clip((shown - low) / max(high - low, np.finfo(np.float32).tiny), 0, 1)
        return np.where(valid[..., None], 255 * stretched, 0).astype(np.uint8)

    def __repr__(self) -> str:
        sensor = f", {self.sensor}" if self.sensor else ""
        where = f", {self.crs}" if self.crs and len(self.crs) < 20 else ""
        return f"Scene({self.name}: {self.height} x {self.width} x {self.bands} {self.image.dtype}{sensor}{where})"

    def _repr_html_(self) -> str:
        """Quick-look for notebooks: the picture as an inlined PNG above `repr`."""
        from html import escape

        from matplotlib.image import imsave

        buffer = io.BytesIO()
        step = max(1, max(self.height, self.width) // 600)
        imsave(buffer, self.quicklook()[::step, ::step], format="png")
        picture = base64.b64encode(buffer.getvalue()).decode()
        alt = escape(self.name, quote=True)
        return (
            f'<figure><img alt="{alt}" src="data:image/png;base64,{picture}" style="min-width:20em">'
            f"<figcaption>{escape(repr(self))}</figcaption></figure>"
        )
