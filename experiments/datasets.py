"""A data set as a place with many images: a split to learn from, and images that are judged one after the other."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain, product
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.places import Judged
from jfusion import sensors
from jfusion.data import builders
from jfusion.data.builders.dataset import Dataset
from jfusion.data.builders.layouts import Cube, PairFiles
from jfusion.data.patches import Record, hold_out
from jfusion.data.pipeline import Source
from jfusion.data.scene import Scene
from jfusion.data.simulate import Protocol, Region, Simulation, cut, simulate
from jfusion.errors import InputError
from jfusion.operators import Grid, ObservationModel, mtf_response
from jfusion.sensors import MTF_FALLBACK, Band

FEW = 2
"""Images of each split that a smoke run takes."""

Pairing = Callable[[Record, Protocol], Simulation]
"""Makes a pair with truth of an example."""


@dataclasses.dataclass(frozen=True)
class Images:
    """The first ``count`` images of a split as pairs with truth, each made when its turn comes."""

    source: Source
    count: int
    make: Callable[[int, Record], Judged]

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Judged]:
        return (self.make(k, self.source[k]) for k in range(self.count))


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """Where a system learns and where it is judged.

    Attributes:
        judged: pairs that it never learns from.
        learn: pairs with truth to learn from, in memory; None where nothing is learned.
        validation: pairs that choose the best step, where the data set has a split of them.
    """

    judged: Images | list[Judged]
    learn: Simulation | None = None
    validation: Simulation | None = None


def benchmark(
    data: str,
    protocol: Protocol,
    learn: Region | None = None,
    judge: Region | None = None,
    *,
    learns: bool = True,
    few: bool = False,
) -> Benchmark:
    """A data set of `jfusion.data.builders`; at its first use it is prepared.

    An image with a spectrum is the truth of a pair that ``protocol`` simulates, with other noise for each; published
    pairs are taken as they are. All are divided by the data set's full scale or, where none is published, by the
    maximum of the image, of a scene that is split by regions the largest of all of them.

    Args:
        data: `NAME` or `NAME/PROTOCOL`.
        protocol: of the simulation; its crop is replaced by the regions.
        learn, judge: region of each image that is learned from, and of each that is judged; all of it by default.
        learns: whether there is anything to learn; otherwise only what is judged is read.
        few: no more than `FEW` images of a split, and no validation.

    Raises:
        InputError: no such data set, protocol or split; missing files; no truth, or no wavelengths to make guides
            with; a region that leaves an image.
    """
    key, _, version = data.partition("/")
    dataset = builders.describe(key)
    check_serves(dataset)
    test = builders.load(data, "test")
    splits = dataset.protocols[version or next(iter(dataset.protocols))]
    if isinstance(dataset.layout, Cube) and dataset.data_range is None:
        largest = max(image["hsi"].max() for split in splits for image in builders.load(data, split))
        dataset = dataclasses.replace(dataset, data_range=float(largest))
    pairing = pairing_of(dataset)

    def number(source: Source) -> int:
        return min(len(source), FEW) if few else len(source)

    def judged(k: int, example: Record) -> Judged:
        mine = dataclasses.replace(protocol, crop=judge, seed=protocol.seed + k)
        pair = pairing(example, mine)
        name = bytes(example["name"]).decode()
        return Judged(
            name=re.sub(r"[^\w.-]+", "_", name).strip("_"),
            test=Simulation(jax.tree.map(jnp.asarray, pair.observation), pair.model, jnp.asarray(pair.target)),
            outline=outline_of(dataset, name, pair.target.shape[1:]),
            protocol={"data": data, "split": "test", "image": name, **said(dataset, mine)},
            data_range=protocol.data_range,
            unit="share of full scale",
        )

    def learned(split: str) -> Simulation:
        source = builders.load(data, split)
        return gathered(
            source, number(source), pairing, dataclasses.replace(protocol, crop=learn, seed=protocol.seed + len(test))
        )

    return Benchmark(
        Images(test, number(test), judged),
        learned("train") if learns else None,
        learned("valid") if learns and "valid" in splits and not few else None,
    )


def check_serves(dataset: Dataset) -> None:
    """Raises InputError where the data set has no truth, or no wavelengths to make guides with."""
    if isinstance(dataset.layout, PairFiles):
        if not dataset.layout.truth:
            raise InputError(f"{dataset.title} has no truth to judge by; take {dataset.name.removesuffix('_full')}.")
    elif dataset.wavelengths is None:
        raise InputError(f"{dataset.title} has no wavelengths, so that no guide can be simulated; take another.")


def pairing_of(dataset: Dataset) -> Pairing:
    """How an example of a data set becomes a pair with truth; of one that serves, see `check_serves`."""
    if isinstance(dataset.layout, PairFiles):
        return partial(_published, dataset, published_model(dataset, dataset.layout))
    return partial(_simulated, dataset, np.asarray(dataset.wavelengths))


def _simulated(dataset: Dataset, wavelengths: np.ndarray, example: Record, protocol: Protocol) -> Simulation:
    image = np.asarray(example["hsi"], np.float32)
    return simulate(image / _full_scale(dataset, image), wavelengths, protocol)


def _published(dataset: Dataset, model: ObservationModel, example: Record, protocol: Protocol) -> Simulation:
    full = _full_scale(dataset, example["target"])
    lr, guide, target = (np.asarray(example[key], np.float32)[None] / full for key in ("lr", "guide", "target"))
    pair = Simulation({"lr": lr, "guide": guide}, model, target)  # type: ignore[arg-type, dict-item]
    return pair if protocol.crop is None else cut(pair, protocol.crop)


def _full_scale(dataset: Dataset, image: np.ndarray) -> np.float32:
    return np.float32(dataset.data_range or image.max() or 1)


def published_model(dataset: Dataset, layout: PairFiles) -> ObservationModel:
    """What is known of published pairs: the MTF of `lr` (a fallback without a sensor) and its place on the guide."""
    grid = Grid.nested(layout.ratio) if dataset.centre is None else Grid(layout.ratio, dataset.centre)
    gains = [band.mtf_gain for band in _bands(dataset)] or MTF_FALLBACK["ms"]
    spatial = mtf_response(jnp.asarray(gains), grid)
    return ObservationModel({"lr": spatial, "guide": None}, grid)


def _bands(dataset: Dataset) -> tuple[Band, ...]:
    if dataset.sensor is None:
        return ()
    return sensors.get(dataset.sensor).ms.bands[: dataset.layout.images["lr"].bands]


def gathered(source: Source, count: int, pairing: Pairing, protocol: Protocol) -> Simulation:
    """The first ``count`` examples as one batch of numpy arrays, each written once.

    Images that differ in size are cut into as many parts of the smallest one's height and width as they hold. The
    noise of the k-th has the protocol's seed plus k; its level in the model is the mean of all.
    """

    def pair(k: int) -> Simulation:
        made = pairing(source[k], dataclasses.replace(protocol, seed=protocol.seed + k))
        observation, target = jax.tree.map(np.asarray, (made.observation, made.target))
        return made._replace(observation=observation, target=target)

    def images(made: Simulation) -> dict[str, Any]:
        return {**made.observation, "target": made.target}

    first = pair(0)
    sizes = [_size(source[k], protocol.crop, first.model.ratio) for k in range(count)]
    height, width = min(h for h, _ in sizes), min(w for _, w in sizes)
    parts = sum((h // height) * (w // width) for h, w in sizes)
    batch = {
        name: np.empty((parts, *image.shape[1:]), np.float32)
        for name, image in images(cut(first, (0, height, 0, width))).items()
    }
    levels, at = [], 0
    for made, (h, w) in zip(chain([first], map(pair, range(1, count))), sizes, strict=True):
        levels.append(made.model.noise)
        for top, left in product(range(0, h - height + 1, height), range(0, w - width + 1, width)):
            for name, image in images(cut(made, (top, top + height, left, left + width))).items():
                batch[name][at] = image[0]
            at += 1
    noise = jax.tree.map(lambda *level: sum(level) / count, *levels)
    target = batch.pop("target")
    return Simulation(batch, first.model.replace(noise=noise), target)  # type: ignore[arg-type]


def _size(example: Record, crop: Region | None, ratio: int) -> tuple[int, int]:
    """Height and width of the truth that is made of an example."""
    height, width = example["hsi" if "hsi" in example else "target"].shape[:2]
    if crop is not None:
        height, width = crop[1] - crop[0], crop[3] - crop[2]
    return height // ratio * ratio, width // ratio * ratio


def parted(learn: Simulation, share: float) -> tuple[Simulation, Simulation]:
    """Pairs to train on and pairs that choose the best step: the last images, or part of a single one (`hold_out`).

    Where images differ in size they are parts of scenes, so that the last ones may lie beside others. One at least is
    left to train on.
    """
    count = len(learn.target)
    if count == 1:
        return hold_out(learn, share)
    kept = max(1, count - max(1, round(count * share)))
    return _some(learn, slice(kept)), _some(learn, slice(kept, None))


def _some(data: Simulation, which: slice) -> Simulation:
    return data._replace(
        observation={key: image[which] for key, image in data.observation.items()}, target=data.target[which]
    )


def outline_of(dataset: Dataset, name: str, shape: tuple[int, ...]) -> Scene:
    """Metadata of a truth ``(height, width, band)``, in shares of full scale; its image is zero."""
    bands = _bands(dataset)
    wavelengths = dataset.wavelengths or [band.centre for band in bands] or None
    return Scene(
        image=np.broadcast_to(np.zeros((), np.float32), shape),
        name=name,
        sensor=dataset.sensor,
        wavelengths=None if wavelengths is None else np.asarray(wavelengths, np.float64),
        band_names=tuple(band.name for band in bands) or None,
        licence=dataset.licence,
        citation=dataset.citation,
        note=dataset.note,
    )


def said(dataset: Dataset, protocol: Protocol) -> dict[str, Any]:
    """How an example became a pair, JSON values."""
    full = {"full_scale": dataset.data_range or "maximum of the image"}
    layout = dataset.layout
    if not isinstance(layout, PairFiles):
        return {**protocol.to_dict(), **full}
    return {
        "pair": "as published",
        "ratio": layout.ratio,
        "centre": dataset.centre,
        "crop": protocol.crop,
        "data_range": protocol.data_range,
        **full,
    }
