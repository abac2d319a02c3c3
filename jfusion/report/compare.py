"""Several systems on one pair: products, results and one section of the report."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import Array

from jfusion import catalogue
from jfusion.data import geotiff
from jfusion.data.scene import Scene
from jfusion.data.simulate import Simulation
from jfusion.inference.evaluate import against_reference, without_reference
from jfusion.inference.run import Run, completed, ready, run
from jfusion.metrics import psnr
from jfusion.operators import Blur, Displaced, Observation, ObservationModel, SpatialResponse, SpectralResponse
from jfusion.progress import bar
from jfusion.report.content import StageView
from jfusion.report.results import Row, leading_metric, with_unit
from jfusion.tasks import spatiospectral_task
from jfusion.training.loop import Network

SENSOR_ERRORS = ("PSF error", "SRF error", "SRF error on lr")
"""Names of the metrics of `sensor_errors`."""

PSNR_EXACT = "PSNR exact"
"""Name of the PSNR of an unrolled network that was asked for an ``exact`` product."""


@dataclasses.dataclass(frozen=True)
class Trial:
    """One system on one pair.

    Attributes:
        row: for the table.
        product: ``(height, width, band)``.
        run: how it came to be.
    """

    row: Row
    product: np.ndarray
    run: Run


@dataclasses.dataclass(frozen=True)
class Contest:
    """A pair that systems are compared on.

    Attributes:
        scene: name for tables and folders.
        observation, model: what the sensors gave and what is known of them; one image, not a batch.
        outline: metadata of the product; its image is not looked at.
        protocol: how the pair was made and judged, JSON values.
        reference: the truth ``(height, width, band)``, None where there is none.
        data: pairs with truth to train on, None to train on the pair itself one ratio lower.
        data_range: full scale for PSNR and SSIM.
        mask: pixels that count, None for all.
        sensors: the true ones where ``model`` keeps them back; how far those that were found are from them is then
            among the metrics.
    """

    scene: str
    observation: Observation
    model: ObservationModel
    outline: Scene
    protocol: dict[str, Any]
    reference: np.ndarray | None = None
    data: Simulation | None = None
    data_range: float = 1.0
    mask: np.ndarray | None = None
    sensors: ObservationModel | None = None

    def try_system(self, name: str, folder: Path, /, *, quiet: bool = False, **settings: Any) -> Trial:
        """Runs one system, judges its product and writes it as ``folder/scene/name.tif``.

        Args:
            name: in the catalogue.
            folder: where ``results.json`` lies.
            quiet: no progress.
            settings: for `jfusion.inference.run.run`.
        """
        system = catalogue.get(name)
        with bar(f"{self.scene}: {name}", quiet) as progress:
            done = run(system, self.observation, self.model, data=self.data, progress=progress, **settings)
        product = np.asarray(done.product[0])
        if self.reference is None:
            sensors = self.model if done.registration is None else done.model
            values = without_reference(done.product, self.observation, sensors, self.mask)
        else:
            values = against_reference(
                product, self.reference, ratio=self.model.ratio, data_range=self.data_range, mask=self.mask
            )
        if self.sensors is not None and done.model.known:
            values |= sensor_errors(done.model, self.sensors, self.observation["lr"])
        path = self.write(product, folder, name)
        row = Row(
            scene=self.scene,
            task=spatiospectral_task(self.observation["lr"].shape[-1], self.observation["guide"].shape[-1]).name,
            system=name,
            family=system.family,
            protocol=self.protocol,
            metrics=values,
            parameters=done.parameters,
            seconds=done.seconds,
            peak_memory_mib=done.peak_memory_mib,
            product=path,
            reference=None if self.reference is None else self.write(self.reference, folder, "reference"),
            note=done.note,
        )
        if not quiet:
            leading = leading_metric([row])
            figure = "" if leading is None else f"{leading} {with_unit(leading, values[leading])}"
            print(
                f"{self.scene}: {name:<14} {figure}  {done.seconds:.1f} s",
                file=sys.stderr,
            )
        return Trial(row, product, done)

    def exactly(self, trial: Trial) -> Trial:
        """The trial of an unrolled network with `PSNR_EXACT` among its metrics; there must be a truth."""
        system, network = catalogue.get(trial.row.system), trial.run.network
        model, _ = completed(system, self.observation, trial.run.model, exact=True)
        exact = ready(system, network, exact=True)(self.observation, model)
        assert self.reference is not None
        value = float(psnr(exact[0], self.reference, data_range=self.data_range, mask=self.mask))
        return dataclasses.replace(
            trial, row=dataclasses.replace(trial.row, metrics={**trial.row.metrics, PSNR_EXACT: value})
        )

    def write(self, image: np.ndarray, folder: Path, name: str) -> str:
        """Writes an image of the scene and returns its path relative to ``folder``; a reference is written once."""
        path = folder / self.scene / f"{name}.tif"
        if name != "reference" or not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            scene = dataclasses.replace(self.outline, image=np.asarray(image, np.float32), name=name, mask=self.mask)
            geotiff.write(path, scene, dtype=np.float32, overwrite=True)
        return path.relative_to(folder).as_posix()


def stage_views(network: Network, observation: Observation, model: ObservationModel) -> list[StageView]:
    """What an unrolled network estimated after each of its stages."""
    result = jax.jit(lambda observation, model: network(observation, model, stages=True))(observation, model)
    return [
        StageView(
            f"estimate {k + 1}",
            np.asarray(estimate[0]),
            {key: float(r[k][0]) for key, r in result.residuals.items()},
        )
        for k, estimate in enumerate(result.estimates)
    ]


def psf_picture(model: ObservationModel, side: int) -> np.ndarray | None:
    """The spatial response of the first band as a ``side`` x ``side`` image about its origin, None if unknown."""
    spatial = model.operators["lr"]
    if isinstance(spatial, Displaced):
        spatial = spatial.response
    if not isinstance(spatial, SpatialResponse):
        return None
    point = np.zeros((1, 2 * side + 1, 2 * side + 1, 1), np.float32)
    point[0, side, side] = 1
    psf = spatial.psf
    if isinstance(psf, tuple):
        psf = (psf[0].reshape(psf[0].shape[0], -1)[:, 0], psf[1].reshape(psf[1].shape[0], -1)[:, 0])
    elif psf.ndim == 3:
        psf = psf[..., 0]
    image = np.asarray(Blur(psf, "circular")(jax.numpy.asarray(point)))[0, ..., 0]
    half = side // 2
    return image[side - half : side + half + 1, side - half : side + half + 1]


def srf_matrix(model: ObservationModel) -> np.ndarray | None:
    """The spectral response ``(guide band, band)``, None if unknown."""
    spectral = model.operators["guide"]
    return np.asarray(spectral.srf) if isinstance(spectral, SpectralResponse) else None


def responses(models: Mapping[str, ObservationModel], side: int) -> dict[str, dict[str, np.ndarray]]:
    """The known ``psf`` and ``srf`` of several models by their names; see `psf_picture` and `srf_matrix`."""
    psf = {name: psf_picture(model, side) for name, model in models.items()}
    srf = {name: srf_matrix(model) for name, model in models.items()}
    return {
        key: {name: found for name, found in parts.items() if found is not None}
        for key, parts in (("psf", psf), ("srf", srf))
    }


def sensor_errors(found: ObservationModel, true: ObservationModel, lr: Array) -> dict[str, float]:
    """How far estimated sensors are from the true ones: norms of differences over those of the true ones.

    A spectral response is determined by a pair only as far as its bands differ from each other, so that what it makes
    of the bands that are there says more than its weights do.

    Args:
        found, true: with known operators.
        lr: what the spectral responses are compared on, ``(batch, h, w, band)``.

    Returns:
        By the names `SENSOR_ERRORS`: of the first band's PSF, of the spectral weights, and of what they make of ``lr``.
    """
    side = 8 * true.ratio + 1
    parts = (lambda m: psf_picture(m, side), srf_matrix, lambda m: np.asarray(m["guide"](lr)))
    values = {}
    for name, part in zip(SENSOR_ERRORS, parts, strict=True):
        ours, theirs = part(found), part(true)
        if ours is not None and theirs is not None:
            values[name] = float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs))
    return values


def rows_of(trials: Mapping[str, Trial]) -> Sequence[Row]:
    """The table's rows."""
    return [trial.row for trial in trials.values()]
