"""How the pixel grids of two images of one place lie on each other."""

from dataclasses import dataclass

import numpy as np

from jfusion.data.scene import Scene
from jfusion.errors import InputError

MAX_DRIFT = 0.25  # guide pixels, summed up across the image
MAX_RATIO_ERROR = 0.002
Window = tuple[slice, slice]


@dataclass(frozen=True)
class PairGeometry:
    """Where the low-resolution pixels fall on the guide's grid.

    Attributes:
        ratio: guide pixels along the side of one low-resolution pixel.
        lr_window, guide_window: (rows, columns) that both images share. Every low-resolution pixel in the window has
            its own ratio x ratio block of guide pixels, the block nearest to its footprint.
        centre: (row, column) of the guide, counted from 0 in the cropped window, on which the centre of low-resolution
            pixel (0, 0) falls: (ratio - 1) / 2 where the grids are nested, an integer where pixel centres coincide.
        georeferenced: False if the images say nothing of their place and nested grids were assumed.
    """

    ratio: int
    lr_window: Window
    guide_window: Window
    centre: tuple[float, float]
    georeferenced: bool

    @property
    def offset(self) -> tuple[float, float]:
        """(row, column) shift against nested grids, in low-resolution pixels; at most half a guide pixel."""
        nested = (self.ratio - 1) / 2
        return (self.centre[0] - nested) / self.ratio, (self.centre[1] - nested) / self.ratio

    def crop(self, lr: Scene, guide: Scene) -> tuple[Scene, Scene]:
        """Both images, cut to what they share."""
        return lr.crop(*self.lr_window), guide.crop(*self.guide_window)

    def __str__(self) -> str:
        rows, cols = (part.stop - part.start for part in self.lr_window)
        how = (
            f"offset {self.offset[0]:+.3f} rows, {self.offset[1]:+.3f} columns"
            if self.georeferenced
            else "nested grids"
        )
        return f"ratio {self.ratio}, {rows} x {cols} LR pixels in common, {how} (in LR pixels)"


def pair_grid(lr: Scene, guide: Scene) -> PairGeometry:
    """Geometry of a low-resolution image and its guide from their transforms.

    Images without a transform are taken to cover the same extent, so that their shapes give the ratio.

    Raises:
        InputError: one of the two has no georeference, other coordinate systems, rotated or mirrored grids, no overlap,
            a ratio that is not an integer, differs between the axes or is below one.
    """
    if lr.transform is None and guide.transform is None:
        return _from_shapes(lr, guide)
    if lr.transform is None or guide.transform is None:
        bare, other = (lr, guide) if lr.transform is None else (guide, lr)
        raise InputError(
            f"{other.name} is georeferenced and {bare.name} is not; give {bare.name} its transform, or remove the "
            f"other's if both cover the same extent."
        )
    for scene, other in ((lr, guide), (guide, lr)):
        if scene.crs is None and other.crs is not None:
            raise InputError(
                f"{scene.name} does not say its coordinate reference system, {other.name} is in {_short(other.crs)}; "
                f"assign it, such as with gdal_edit.py -a_srs {_short(other.crs)} if it is the same."
            )
    if not same_crs(lr.crs, guide.crs):
        raise InputError(
            f"{lr.name} is in {_short(lr.crs)} and {guide.name} in {_short(guide.crs)}; warp one of them to the "
            f"other's, such as with gdalwarp -t_srs."
        )
    return _from_transforms(lr, guide)


def _from_shapes(lr: Scene, guide: Scene) -> PairGeometry:
    ratio = guide.height // lr.height
    if ratio < 1 or (guide.height, guide.width) != (ratio * lr.height, ratio * lr.width):
        raise InputError(
            f"Without georeference {guide.name} must be an integer multiple of {lr.name} in both directions, but they "
            f"are {guide.height} x {guide.width} and {lr.height} x {lr.width}; crop them or give their transforms."
        )
    centre = (ratio - 1) / 2
    return PairGeometry(ratio, _whole(lr), _whole(guide), (centre, centre), georeferenced=False)


def _from_transforms(lr: Scene, guide: Scene) -> PairGeometry:
    if lr.transform is None or guide.transform is None or guide.transform.determinant == 0:
        raise InputError(f"{guide.name} has a degenerate transform: its pixels have no area; mend its georeference.")
    to_guide = ~guide.transform @ lr.transform
    if abs(to_guide.b) * lr.height > MAX_DRIFT or abs(to_guide.d) * lr.width > MAX_DRIFT:
        angle = np.degrees(np.arctan2(to_guide.d, to_guide.a))
        raise InputError(
            f"{lr.name} is rotated or sheared against {guide.name} (by {angle:.2f} degrees); warp one of them to the "
            f"other's axes first."
        )
    if to_guide.a <= 0 or to_guide.e <= 0:
        axis = "column" if to_guide.a <= 0 else "row"
        raise InputError(
            f"The {axis} axis of {lr.name} runs against that of {guide.name}; flip one image and its transform."
        )
    ratio = _integer_ratio(lr, guide, rows=to_guide.e, cols=to_guide.a)
    rows = _shared(lr.height, guide.height, ratio, to_guide.f)
    cols = _shared(lr.width, guide.width, ratio, to_guide.c)
    if rows is None or cols is None:
        raise InputError(
            f"{lr.name} and {guide.name} have no low-resolution pixel in common: {_bounds(lr)} against "
            f"{_bounds(guide)}; check that they show the same place."
        )
    return PairGeometry(ratio, (rows[0], cols[0]), (rows[1], cols[1]), (rows[2], cols[2]), georeferenced=True)


def _integer_ratio(lr: Scene, guide: Scene, rows: float, cols: float) -> int:
    ratio = round(cols)
    drift = max(abs(rows - ratio) * lr.height, abs(cols - ratio) * lr.width)
    error = max(abs(rows - ratio), abs(cols - ratio))
    if ratio >= 1 and error <= MAX_RATIO_ERROR * ratio and drift <= MAX_DRIFT:
        return ratio
    came = f"{cols:.4g}" if np.isclose(rows, cols, rtol=1e-3) else f"{rows:.4g} for rows and {cols:.4g} for columns"
    if max(rows, cols) < 1:
        raise InputError(
            f"The guide must be the finer image, but a pixel of {lr.name} is {came} pixels of {guide.name}; swap them."
        )
    raise InputError(
        f"A pixel of {lr.name} must be an integer number of pixels of {guide.name}, but is {came} (off by {drift:.2g} "
        f"guide pixels across the image); resample one of them, such as with gdalwarp -tr -tap."
    )


def _shared(lr_size: int, guide_size: int, ratio: int, start: float) -> tuple[slice, slice, float] | None:
    """Common window on one axis, where low-resolution pixel i begins at guide coordinate ratio * i + start.

    A start halfway between two guide pixels can go to either: to the one that keeps more pixels, then the first ones.
    """
    best = None
    for whole in sorted({int(np.ceil(start - 0.5 - 1e-6)), int(np.floor(start + 0.5 + 1e-6))}):
        first, stop = max(0, -(whole // ratio)), min(lr_size, (guide_size - whole) // ratio)
        if stop > first and (best is None or (stop - first, -first) > (best[0].stop - best[0].start, -best[0].start)):
            guide_window = slice(ratio * first + whole, ratio * stop + whole)
            best = slice(first, stop), guide_window, round((ratio - 1) / 2 + start - whole, 6)
    return best


def same_crs(left: str | None, right: str | None) -> bool:
    """Whether two descriptions, "EPSG:n" or WKT, are of one coordinate reference system."""
    if left is None or right is None or left == right:
        return left == right
    from rasterio.crs import CRS
    from rasterio.errors import CRSError

    try:
        return CRS.from_user_input(left) == CRS.from_user_input(right)
    except CRSError:
        return False


def _short(crs: str | None) -> str:
    if crs is None:
        return "no known coordinate system"
    return crs if len(crs) <= 60 else f"{crs[:57]}..."


def _bounds(scene: Scene) -> str:
    assert scene.transform is not None
    (left, top), (right, bottom) = scene.transform @ (0, 0), scene.transform @ (scene.width, scene.height)
    return f"x {min(left, right):.6g} to {max(left, right):.6g}, y {min(top, bottom):.6g} to {max(top, bottom):.6g}"


def _whole(scene: Scene) -> Window:
    return slice(0, scene.height), slice(0, scene.width)
