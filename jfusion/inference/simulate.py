"""A simulated pair as files."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
from affine import Affine
from jax import Array

from jfusion import sensors
from jfusion.data import geotiff
from jfusion.data.scene import Scene
from jfusion.data.simulate import Protocol, cropped, simulate
from jfusion.errors import InputError
from jfusion.files import check_folder, check_output, replaced


def guide_bands(scene: Scene, sensor: str) -> tuple[str, ...]:
    """Names of the multispectral bands of ``sensor`` that the scene's wavelengths cover; none where it has none.

    Raises:
        InputError: no such sensor.
    """
    table = sensors.get(sensor)
    return () if scene.wavelengths is None else table.ms.covered(scene.wavelengths).band_names


def write_simulation(scene: Scene, protocol: Protocol, folder: Path, overwrite: bool = False) -> list[Path]:
    """Writes ``lr.tif``, ``guide.tif``, ``reference.tif`` (float32, physical units) and ``protocol.json``.

    ``lr`` and reference keep the wavelengths, but not the sensor: the PSF that made ``lr`` is the protocol's.

    Raises:
        InputError: the scene has no wavelengths, misses pixels, does not fit the protocol, or a file exists already.
    """
    check_folder(folder)
    if scene.wavelengths is None:
        raise InputError(f"{scene.name} has no wavelengths, so no guide can be made; give them in its metadata.")
    if missing := np.count_nonzero(~cropped(scene.valid, protocol)):
        raise InputError(
            f"{scene.name} has {missing} invalid pixels, which the blur would spread over their neighbours; crop it to "
            "where all are valid, also by the crop of a --protocol."
        )
    paths = [folder / name for name in ("lr.tif", "guide.tif", "reference.tif", "protocol.json")]
    if folder.is_dir():
        for path in paths:
            check_output(path, overwrite)
    pair = simulate(scene.physical(), scene.wavelengths, protocol)
    sensor = sensors.get(protocol.guide_sensor)
    if protocol.guide_bands:
        sensor = sensor.select(list(protocol.guide_bands))
    folder.mkdir(parents=True, exist_ok=True)
    top, left = (protocol.crop[0], protocol.crop[2]) if protocol.crop else (0, 0)
    fine = None if scene.transform is None else scene.transform @ Affine.translation(left, top)
    physical = dataclasses.replace(scene, sensor=None, scale=1.0, offset=0.0, nodata=None, mask=None)

    def as_scene(image: Array, name: str, base: Scene, transform: Affine | None) -> Scene:
        return dataclasses.replace(base, image=np.asarray(image[0]), name=name, transform=transform)

    row, column = protocol.grid.centre
    shift = [c - (protocol.ratio - 1) / 2 for c in (column, row)]
    coarse = None if fine is None else fine @ Affine.translation(*shift) @ Affine.scale(protocol.ratio)
    blank = np.zeros((1, 1, len(sensor.bands)), np.float32)
    guide = Scene(
        blank, sensor=sensor.name, wavelengths=sensor.centres, fwhm=sensor.fwhm, band_names=sensor.band_names,
        crs=scene.crs, licence=scene.licence, citation=scene.citation,
    )  # fmt: skip
    images = (
        as_scene(pair.observation["lr"], "lr", physical, coarse),
        as_scene(pair.observation["guide"], "guide", guide, fine),
        as_scene(pair.target, "reference", physical, fine),
    )
    for path, image in zip(paths, images, strict=False):
        geotiff.write(path, image, overwrite=overwrite)
    with replaced(paths[-1], overwrite) as temporary:
        temporary.write_text(protocol.to_json() + "\n")
    return paths
