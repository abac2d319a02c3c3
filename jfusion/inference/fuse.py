"""Two files in, one sharp GeoTIFF out."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import jax.numpy as jnp
import numpy as np

from jfusion import catalogue, sensors
from jfusion.catalogue import Classical, Fitted, System, Trained
from jfusion.data import geotiff, readers
from jfusion.data.geometry import PairGeometry, pair_grid
from jfusion.data.scene import Scene
from jfusion.errors import InputError
from jfusion.files import check_apart, check_output
from jfusion.inference.meter import measured
from jfusion.inference.pair import (
    Pair,
    as_named,
    check_nodata,
    check_valid,
    observed,
    place_remark,
    product_outline,
    product_scene,
    scale_remark,
    sensor_model,
)
from jfusion.inference.run import check_exact, completed, count_parameters, ready, run, trained
from jfusion.inference.tiles import Span, Tile, ahead, mosaic, spans, windows
from jfusion.inference.uncertainty import as_numbers, check_interval, with_half_width
from jfusion.operators import ObservationModel
from jfusion.operators.registration import Registration, shown
from jfusion.progress import Progress, silent
from jfusion.tasks import Task, spatiospectral_task
from jfusion.training.loop import Network
from jfusion.training.weights import load, system_of

DEFAULT_SYSTEMS = {"pansharpening": "mtf_glp_cbd", "hs_pansharpening": "fuse", "hs_ms": "fuse"}
"""By task, those that need no training and beat interpolation in PSNR, SAM and ERGAS on every embedded scene tried."""

MEMORY_MIB = 1024
"""Working memory that a window may take."""

COPIES = 30
"""Float copies of a window's bands that a system holds at once, by experience."""

BLEND_MARGIN = 16
"""Overlap, in low-resolution pixels, of windows of systems that use statistics of the window."""

WITHOUT_PSF = ("cubic", "interp23")
"""Classical systems that ask for no PSF."""

FEWEST = 4
"""Rows and columns of the low-resolution image at least: PSFs that reach over its border are mirrored there."""

SAMPLE = 512
"""Side, in high-resolution pixels, of the part that a model is estimated or a network is trained on; see `sample`."""


class Source(Protocol):
    """An image that is read by windows: a file, or a scene in memory."""

    @property
    def outline(self) -> Scene: ...

    @property
    def files(self) -> Sequence[Path]: ...

    def read(self, rows: slice, cols: slice) -> Scene: ...


@dataclasses.dataclass(frozen=True)
class InMemory:
    """A scene as a `Source`."""

    outline: Scene
    files: Sequence[Path] = ()

    def read(self, rows: slice, cols: slice) -> Scene:
        return self.outline.crop(rows, cols)


@contextmanager
def opened(path: Path, key: str | None = None, nodata: float | None = None) -> Iterator[Source]:
    """A file as a `Source`: rasters window by window, arrays of other formats whole."""
    if key is None and path.is_file() and readers.geotiff.driver_of(path):
        with readers.geotiff.open_windowed(path, nodata) as reader:
            yield reader
    else:
        yield InMemory(readers.read(path, key=key, nodata=nodata))


@dataclasses.dataclass(frozen=True)
class Fused:
    """What `fuse` did.

    Attributes:
        output: the written file.
        system, family: name and family of the system.
        task: name of the task.
        geometry: of the pair.
        model: the observation model that was used.
        seconds, peak_memory_mib: of the whole work.
        windows: number of windows that the scene went through in.
        clipped: samples that did not fit into the output's data type.
        note: how the system came to be ready, and remarks on the pair and on samples that were clipped.
        network: what was trained or loaded, None for other kinds.
        parameters: of the network or of what was fitted, None for a classical system.
        registration: of the pair, None where it was not registered.
        half_width: of the interval of level ``uncertainty``, ``(height, width)``, the mean over bands in physical
            units, nan where the product is not valid; None where there is none.
        uncertainty: level of the interval.
    """

    output: Path
    system: str
    family: str
    task: str
    geometry: PairGeometry
    model: ObservationModel
    seconds: float
    peak_memory_mib: float | None
    windows: int
    clipped: int
    note: str
    network: Network | None = None
    parameters: int | None = None
    registration: Registration | None = None
    half_width: np.ndarray | None = None
    uncertainty: float | None = None


def choose(name: str | None, task: Task) -> System:
    """The system called ``name``, by default the one of `DEFAULT_SYSTEMS` for the task.

    Raises:
        InputError: no such system, or it does not serve the task.
    """
    system = catalogue.get(name or DEFAULT_SYSTEMS[task.name])
    if task.name not in system.tasks:
        raise InputError(
            f"{system.name} serves {', '.join(system.tasks)}, but the pair is {task.name}; `jfusion list` shows others."
        )
    return system


def check_learning(system: System, weights: Path | None, options: dict[str, Any]) -> None:
    """Raises InputError where weights, or options of learning (by name, None where not given), mean nothing."""
    if weights is not None and not isinstance(system.method, Trained):
        raise InputError(f"{system.name} is {system.family} and takes no weights; leave out --weights.")
    for name in (name for name, value in options.items() if value is not None):
        if isinstance(system.method, Classical):
            raise InputError(f"{system.name} is classical and learns nothing; leave out {name}.")
        if weights is not None:
            raise InputError(f"{system.name} learns nothing where it is given weights; leave out {name} or --weights.")


def fuse(
    lr: Path,
    guide: Path,
    output: Path,
    *,
    system: str | None = None,
    lr_key: str | None = None,
    guide_key: str | None = None,
    lr_sensor: str | None = None,
    guide_sensor: str | None = None,
    nodata: float | None = None,
    weights: Path | None = None,
    budget: float | None = None,
    seed: int = 0,
    tile: int | None = None,
    memory: int = MEMORY_MIB,
    dtype: str | None = None,
    cog: bool = True,
    overwrite: bool = False,
    register: bool = False,
    estimate: bool = False,
    uncertainty: float | None = None,
    exact: bool = False,
    keep: Path | None = None,
    progress: Progress = silent,
) -> Fused:
    """Fuses two files into a GeoTIFF on the guide's grid, with the bands, numbers and data type of the first.

    The scene goes through whole where it fits into ``memory``, else in overlapping windows; a model is estimated and a
    network trained on one part of the scene, the central one where all its pixels are valid.

    Args:
        lr, guide: GeoTIFF, ENVI, MATLAB or HDF5.
        output: GeoTIFF to write.
        system: name in the catalogue; by default that of the weights, or one that needs no training.
        lr_key, guide_key: array inside a MATLAB or HDF5 file.
        lr_sensor, guide_sensor: in place of the files' metadata, see `jfusion.inference.pair.sensor_bands`.
        nodata: value of invalid pixels, besides the files' own.
        weights: file of a trained network.
        budget: seconds for training or fitting.
        seed: of parameters and patches.
        tile: side of a window in high-resolution pixels.
        memory: working memory in MiB that decides the window where ``tile`` is not given; what a fit takes beyond that
            is not counted. The product of a system that is not local (`jfusion.catalogue.System`) depends on the
            windows.
        dtype: of the output, that of ``lr`` by default.
        cog: cloud-optimised layout.
        overwrite: replace an existing output, which stays until the new one is complete.
        register: whether ``lr`` may be displaced against the guide; see `jfusion.operators.registration`. The product
            is invalid where a displaced ``lr`` shows nothing.
        estimate: whether the sensors are estimated from the pair first, in place of their tables and of what the system
            would learn.
        uncertainty: level, between 0 and 1, of an interval about the product of a fitted system; the output then has
            one more band, the mean over bands of half its width, see `jfusion.inference.uncertainty`.
        exact: whether the product of an unrolled network is to agree with both images; see `jfusion.inference.run.run`.
        keep: folder from which a training or fit goes on after a kill.
        progress: called while it trains, fits or goes through the windows.

    Raises:
        InputError: something does not fit; before any long work.
    """
    check_output(output, overwrite)
    check_apart(output, *filter(None, (lr, guide, weights)))
    if (lr.resolve(), lr_key) == (guide.resolve(), guide_key):
        raise InputError(f"the image to sharpen and its guide are one file, {lr}; give two images of one place.")
    with ExitStack() as stack, measured() as meter:
        opened_lr = stack.enter_context(opened(lr, lr_key, nodata))
        opened_guide = stack.enter_context(opened(guide, guide_key, nodata))
        sources = Sources(opened_lr, opened_guide, lr_sensor, guide_sensor)
        check_nodata(nodata, opened_lr.outline, opened_guide.outline)
        lr_outline, guide_outline = sources.outlines
        task = spatiospectral_task(lr_outline.bands, guide_outline.bands)
        row = choose(system or (None if weights is None else system_of(weights)), task)
        check_learning(row, weights, {"--budget": budget, "--keep": keep})
        if exact:
            check_exact(row)
        if min(lr_outline.height, lr_outline.width) < FEWEST:
            raise InputError(
                f"the images share {lr_outline.height} x {lr_outline.width} pixels of {lr.name}, but a product needs "
                f"{FEWEST} x {FEWEST} at least; give a larger pair."
            )
        layout = Layout.of(row, sources, tile, memory)
        if register and layout.windows > 1:
            raise InputError(
                f"a pair is registered as a whole, but the scene needs {layout.windows} windows; crop it, raise "
                "--memory or leave out --register."
            )
        check_apart(output, *opened_lr.files, *opened_guide.files)
        sources.check_sensors()
        network, origin = (None, "") if weights is None else (load(weights, row), f"weights of {weights.name}")
        settings: dict[str, Any] = {"weights": network, "seed": seed, "budget": budget, "progress": progress,
                                    "folder": keep}  # fmt: skip
        kind = lr_outline.image.dtype if dtype is None else geotiff.data_type(dtype)
        outline = product_outline(lr_outline, guide_outline, output.stem, register, kind)
        if uncertainty is not None:
            check_interval(row, (lr_outline.height, lr_outline.width), sources.geometry.ratio, uncertainty)
            settings["uncertainty"], outline = uncertainty, with_half_width(outline, uncertainty)
        with geotiff.open_writer(output, outline, dtype=kind, cog=cog, overwrite=overwrite) as writer:
            work = partial(_whole, registering=register) if layout.windows == 1 else _windowed
            done = work(row, sources, layout, writer, settings, estimating=estimate, exact=exact)
            note = "; ".join(filter(None, (origin, done.note, writer.remark)))
            told = {"LR": lr.name, "GUIDE": guide.name, "SYSTEM": row.name, "PROCESSING": note}
            writer.tag(**{key: text for key, text in told.items() if text})
    return Fused(
        output=output,
        system=row.name,
        family=row.family,
        task=task.name,
        geometry=sources.geometry,
        model=done.model,
        seconds=meter.seconds,
        peak_memory_mib=meter.peak_memory_mib,
        windows=layout.windows,
        clipped=writer.clipped,
        note=note,
        network=done.network,
        parameters=done.parameters,
        registration=done.registration,
        half_width=done.half_width,
        uncertainty=uncertainty,
    )


def psf_remark(system: System, model: ObservationModel) -> str:
    """A remark where a rule has taken a typical PSF for one that is not known."""
    if model.operators["lr"] is not None or not isinstance(system.method, Classical) or system.name in WITHOUT_PSF:
        return ""
    gain = sensors.MTF_FALLBACK["ms"]
    return (
        f"the PSF of LR, which is not known, is taken for one of MTF {gain:g} at the Nyquist frequency (or --estimate)"
    )


class Done(NamedTuple):
    """How the system came to be ready."""

    model: ObservationModel
    note: str
    network: Network | None
    parameters: int | None
    registration: Registration | None = None
    half_width: np.ndarray | None = None


def _whole(
    system: System,
    sources: Sources,
    layout: Layout,
    writer: geotiff.WindowedWriter,
    settings: dict[str, Any],
    estimating: bool,
    exact: bool,
    registering: bool,
) -> Done:
    pair = sources.pair(slice(0, layout.height), slice(0, layout.width))
    check_valid(pair)
    writer.check(pair.lr.image, pair.lr.valid)
    done = run(
        system, pair.observation, pair.model, registering=registering, valid=pair.masks,
        estimating=estimating, exact=exact, **settings,
    )  # fmt: skip
    told = pair.remark, "" if estimating else scale_remark(pair), "" if registering else place_remark(pair), done.note
    note = "; ".join(filter(None, (*told, psf_remark(system, done.model))))
    if done.registration is not None:
        mask = np.asarray(shown(done.registration.displacement, jnp.asarray(pair.lr.valid)))
        pair = dataclasses.replace(pair, lr=dataclasses.replace(pair.lr, mask=mask))
    product = product_scene(pair, np.asarray(done.product[0]))
    image, half_width = product.image, None
    if done.half_width is not None:
        half_width = np.where(product.valid, np.asarray(done.half_width[0]).mean(-1), np.nan)
        numbers = as_numbers(half_width, float(np.min(pair.lr.scale)), writer.dtype)
        image = np.concatenate([image, np.where(product.valid, numbers, 0)[..., None]], -1)
    writer.write(0, 0, image, product.mask)
    return Done(done.model, note, done.network, done.parameters, done.registration, half_width)


def _windowed(
    system: System,
    sources: Sources,
    layout: Layout,
    writer: geotiff.WindowedWriter,
    settings: dict[str, Any],
    estimating: bool,
    exact: bool,
) -> Done:
    ratio, lr = sources.geometry.ratio, sources.outlines[0]
    seen = sources.pair(*sample(sources))
    writer.check(seen.lr.image, seen.lr.valid)
    pairs = (sources.pair(*window) for window in windows(layout.rows, layout.columns))
    with ahead((pair.observation, pair.valid) for pair in pairs) as inputs:
        counts = jnp.asarray(observed(seen.masks, ratio))
        given = settings["weights"]
        model, how = completed(system, seen.observation, seen.model, estimating, exact, counts, given and given.sizes)
        notes, network = [seen.remark, "" if estimating else scale_remark(seen), place_remark(seen), how], None
        if system.local is None:
            notes.append(f"in {layout.windows} windows, each by its own statistics")
        if isinstance(system.method, Trained):
            if given is None:
                check_samples(sources, layout)
            network, how = trained(system, seen.observation, model, valid=counts, **settings)
            notes.append(how)
        notes.append(psf_remark(system, model))
        apply, progress = ready(system, network, exact), settings["progress"]

        def tiles() -> Iterator[Tile]:
            for number, (observation, valid) in enumerate(inputs, 1):
                yield Tile(np.asarray(apply(observation, model)[0]), valid)
                progress(number, layout.windows, {})

        with ahead(tiles()) as made:
            for row, column, tile in mosaic(layout.rows, layout.columns, ratio, made):
                writer.write(row, column, lr.digital(tile.image), tile.valid)
    parameters = None if network is None else count_parameters(network.module)
    return Done(model, "; ".join(filter(None, notes)), network, parameters)


@dataclasses.dataclass(frozen=True)
class Sources:
    """The two open images, how they lie on each other and what is known of their sensors."""

    lr: Source
    guide: Source
    lr_sensor: str | None = None
    guide_sensor: str | None = None

    @cached_property
    def geometry(self) -> PairGeometry:
        return pair_grid(self.lr.outline, self.guide.outline)

    @cached_property
    def outlines(self) -> tuple[Scene, Scene]:
        """Metadata of both images, cropped to what they share."""
        return self._named(*self.geometry.crop(self.lr.outline, self.guide.outline))

    def _named(self, lr: Scene, guide: Scene) -> tuple[Scene, Scene]:
        return as_named(lr, self.lr_sensor), as_named(guide, self.guide_sensor)

    @cached_property
    def known(self) -> tuple[ObservationModel, str]:
        """See `jfusion.inference.pair.sensor_model`."""
        return sensor_model(*self.outlines, self.geometry, self.lr_sensor, self.guide_sensor)

    def check_sensors(self) -> None:
        """Raises InputError where a sensor that was named is not known or does not have the bands of its image."""
        _ = self.known

    def pair(self, rows: slice, cols: slice) -> Pair:
        """The pair in a window of low-resolution pixels, counted from the corner of what both images share."""

        def shifted(part: slice, origin: slice, scale: int) -> slice:
            return slice(origin.start + part.start * scale, origin.start + part.stop * scale)

        (lr_rows, lr_cols), (guide_rows, guide_cols) = self.geometry.lr_window, self.geometry.guide_window
        ratio = self.geometry.ratio
        lr = self.lr.read(shifted(rows, lr_rows, 1), shifted(cols, lr_cols, 1))
        guide = self.guide.read(shifted(rows, guide_rows, ratio), shifted(cols, guide_cols, ratio))
        return Pair(*self._named(lr, guide), self.geometry, *self.known)


def check_samples(sources: Sources, layout: Layout) -> None:
    """Raises InputError where a window holds what cannot be fused, such as NaN: before a training, not after it."""
    for window in windows(layout.rows, layout.columns):
        sources.pair(*window)


@dataclasses.dataclass(frozen=True)
class Layout:
    """The windows that a scene goes through in."""

    height: int
    width: int
    rows: list[Span]
    columns: list[Span]

    @property
    def windows(self) -> int:
        return len(self.rows) * len(self.columns)

    @staticmethod
    def of(system: System, sources: Sources, tile: int | None, memory: int) -> Layout:
        """Windows of ``tile`` high-resolution pixels, or of what fits into ``memory`` MiB and is four margins at least.

        Raises:
            InputError: the tile is too small, or the system cannot go through in windows and the scene does not fit.
        """
        ratio, (lr, guide) = sources.geometry.ratio, sources.outlines
        margin = BLEND_MARGIN if system.local is None else system.local + 1
        if tile is None:
            fits = int(math.sqrt(memory * 2**20 / (4 * COPIES * (lr.bands + guide.bands))))
            tile = max(fits, 4 * margin * ratio)
        if tile < ratio:
            raise InputError(f"a tile must be at least one low-resolution pixel ({ratio} pixels) wide, but is {tile}.")
        rows, columns = (spans(n, tile // ratio, margin, ratio, system.local is None) for n in (lr.height, lr.width))
        layout = Layout(lr.height, lr.width, rows, columns)
        if layout.windows > 1 and isinstance(system.method, Fitted):
            raise InputError(
                f"{system.name} is fitted to each pair anew and cannot go through in windows, but the scene needs "
                f"{layout.windows}; crop it, raise --memory or choose another system."
            )
        return layout


def sample(sources: Sources, side: int = SAMPLE) -> tuple[slice, slice]:
    """Rows and columns of `lr` that stand for the scene: of its centre, edges and corners, or of all its parts where no
    pixel of those is valid, that with most valid pixels.

    Args:
        sources: the two images.
        side: of the window in high-resolution pixels, less where the scene is smaller.

    Raises:
        InputError: the scene has no valid pixel.
    """
    lr, _ = sources.outlines
    length = max(side // sources.geometry.ratio, 1)
    best, most = (slice(0), slice(0)), 0
    for places in (_few, _all):
        for window in itertools.product(places(lr.height, length), places(lr.width, length)):
            valid = sources.pair(*window).valid
            if (count := int(np.count_nonzero(valid))) > most:
                best, most = window, count
            if count == valid.size:
                break
        if most:
            return best
    raise InputError(f"{lr.name} and its guide have no valid pixel in common; check their nodata.")


def _few(size: int, length: int) -> list[slice]:
    """Windows of at most ``length`` pixels in the middle and at both ends of an axis of ``size``."""
    length = min(size, length)
    return [slice(start, start + length) for start in dict.fromkeys(((size - length) // 2, 0, size - length))]


def _all(size: int, length: int) -> list[slice]:
    """Windows of at most ``length`` pixels that cover an axis of ``size``."""
    return [slice(start, min(start + length, size)) for start in range(0, size, length)]
