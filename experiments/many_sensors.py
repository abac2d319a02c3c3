"""One network for many sensors: SUN, trained once on sensors drawn at random, on sensors that it never saw.

    python -m experiments.many_sensors --out runs/many_sensors

All trainings see the left half of Jasper Ridge, all products are judged on the right half. Three networks fuse each
pair: SUN trained once for many sensors, none of them of the families `HELD_OUT`; SUN trained for this very pair of
sensors; and FusionNet, a plain network, trained for another pair with as many bands at this ratio, and for this one.
What is finished stays in the folder, so that the experiment can be stopped and goes on later.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from experiments.gather import markdown_table
from jfusion import catalogue, sensors
from jfusion.catalogue import System, Trained
from jfusion.data import scenes
from jfusion.data.simulate import Simulation, observe
from jfusion.demo import JASPER, LEFT, RIGHT
from jfusion.files import replaced
from jfusion.inference.evaluate import against_reference
from jfusion.inference.run import run
from jfusion.operators import Grid, SpatialResponse, SpectralResponse
from jfusion.operators.psf import FWHM_PER_SIGMA, moving_psf
from jfusion.process import answered, use_all_cores
from jfusion.progress import bar
from jfusion.training.loop import Network, train
from jfusion.training.many_sensors import ManySensors

HELD_OUT = ("worldview", "sentinel2", "planetscope", "quickbird", "ikonos")
"""Families of sensors that the training for many does not see, by the start of their names."""


@dataclasses.dataclass(frozen=True)
class Sensors:
    """A pair of sensors; lengths in low-resolution pixels, angles in degrees.

    Attributes:
        guide: name of the guide's sensor.
        bands: of it.
        ratio: of the pair.
        width: full widths at half maximum of the low-resolution sensor's blur, along two axes.
        angle: of the first axis against the columns.
        motion, way: length of the way that the sensor moves meanwhile, and its angle.
        shift: of the response against the grid.
    """

    guide: str
    bands: tuple[str, ...]
    ratio: int
    width: tuple[float, float] = (1.0, 1.0)
    angle: float = 0.0
    motion: float = 0.0
    way: float = 0.0
    shift: tuple[float, float] = (0.0, 0.0)

    def see(self, image: np.ndarray, wavelengths: np.ndarray, seed: int) -> Simulation:
        """What they see of an image ``(height, width, band)``, 35 dB and 40 dB above their noise."""
        height, width = (n // self.ratio * self.ratio for n in image.shape[:2])
        grid = Grid.nested(self.ratio)
        psf = moving_psf(
            self.ratio * np.array(self.width) / FWHM_PER_SIGMA, np.radians(self.angle), self.ratio * self.motion,
            np.radians(self.way), np.array(grid.shift) + self.ratio * np.array(self.shift), taps=4 * self.ratio + 1,
        )  # fmt: skip
        response = sensors.get(self.guide).select(self.bands).response(wavelengths)
        return observe(
            jnp.asarray(image[:height, :width], jnp.float32)[None],
            SpatialResponse(psf, self.ratio, grid.phase, "circular"), SpectralResponse(jnp.asarray(response)), grid,
            35.0, 40.0, jax.random.key(seed),
        )  # fmt: skip

    def __str__(self) -> str:
        blur = f"{self.width[0]:g}" if self.width[0] == self.width[1] else f"{self.width[0]:g} by {self.width[1]:g}"
        moved = f", moved by {self.motion:g}" * bool(self.motion) + f", shifted by {self.shift}" * any(self.shift)
        return f"{sensors.get(self.guide).title}, {len(self.bands)} bands, ratio {self.ratio}, blur {blur}{moved}"


_FOUR = ("Blue", "Green", "Red", "NIR")
CASES = {
    "worldview3": (
        Sensors("worldview3", ("Coastal", "Blue", "Green", "Yellow", "Red", "RedEdge", "NIR1", "NIR2"), 4),
        Sensors("landsat8_oli", ("B1", "B2", "B3", "B4", "B5", "B6", "B7", "B8"), 4),
    ),
    "sentinel2": (
        Sensors("sentinel2a_msi", ("B2", "B3", "B4", "B8"), 6, motion=0.8, way=30),
        Sensors("landsat8_oli", ("B2", "B3", "B4", "B5"), 6),
    ),
    "quickbird": (
        Sensors("quickbird", _FOUR, 3, shift=(0.4, -0.3)),
        Sensors("gaofen6_pms", _FOUR, 3),
    ),
    "planetscope": (
        Sensors("planetscope_superdove", ("Blue", "Green", "Red", "RedEdge", "NIR"), 5, width=(1.3, 0.8), angle=60),
        Sensors("rapideye", ("Blue", "Green", "Red", "RedEdge", "NIR"), 5),
    ),
    "ikonos": (
        Sensors("ikonos", ("PAN",), 4, width=(0.8, 0.8)),
        Sensors("pleiades1a", ("PAN",), 4),
    ),
}  # fmt: skip
"""Pairs of sensors that are judged, and the others for which the plain network learns. No training for many sensors
sees the ratio 5."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """Of the experiment."""

    out: Path = Path("runs/many_sensors")
    """Folder of the trainings and of the table."""
    steps: int = 3000
    """Of the training for many sensors."""
    alone: int = 400
    """Of a training of SUN for one pair, its recipe's."""
    plain: int = 4000
    """Of a training of FusionNet."""
    seed: int = 0
    """Of all that is random."""
    smoke: bool = False
    """Two steps each and one pair, in a folder of their own: does it run?"""


def for_many(wavelengths: np.ndarray, smoke: bool = False) -> System:
    """SUN with a loss that draws the sensors."""
    sun = catalogue.get("sun")
    assert isinstance(sun.method, Trained)
    seen = [name for name in sensors.names() if not name.startswith(HELD_OUT)]
    drawn = ManySensors(sensors.responses(seen, wavelengths), ratios=(2,) if smoke else ManySensors.ratios)
    return dataclasses.replace(sun, method=dataclasses.replace(sun.method, stochastic=drawn.loss(sun.method.loss)))


def main(settings: Settings) -> None:
    """Trains what is not there yet, and writes the table.

    Raises:
        InputError: the folder holds trainings of other settings.
    """
    hsi = scenes.load("jasper_ridge")["hsi"]
    assert hsi.wavelengths is not None
    image, wavelengths = hsi.physical(), hsi.wavelengths
    left, right = (image[top:bottom, begin:end] for top, bottom, begin, end in (LEFT, RIGHT))
    out = settings.out / "smoke" if settings.smoke else settings.out
    many, alone, plain = (2, 2, 2) if settings.smoke else (settings.steps, settings.alone, settings.plain)
    sun, fusionnet = catalogue.get("sun"), catalogue.get("fusionnet")

    def trained(name: str, system: System, data: Simulation, **options: Any) -> Network:
        with bar(name) as progress:
            return train(
                system, data, seed=settings.seed, folder=out / name, progress=progress, turn=False, **options
            ).network

    start = Sensors("landsat8_oli", ("B2", "B3", "B4", "B5"), 4).see(left, wavelengths, 1)
    for_all = trained("many", for_many(wavelengths, settings.smoke), start, steps=many, patch=48, batch=2)
    rows = []
    for name, (ours, other) in list(CASES.items())[: 1 if settings.smoke else None]:
        test, learn = ours.see(right, wavelengths, 2), ours.see(left, wavelengths, 3)
        patch = 40 // ours.ratio * ours.ratio
        own = trained(f"{name}_sun", sun, learn, steps=alone, patch=patch)
        small = {"steps": plain, "patch": 5 * ours.ratio, "batch": 8, "pace": 4.0}
        plain_other = trained(f"{name}_plain_other", fusionnet, other.see(left, wavelengths, 3), **small)
        plain_own = trained(f"{name}_plain_own", fusionnet, learn, **small)
        products = {
            "cubic": run(catalogue.get("cubic"), test.observation, test.model).product,
            "FUSE": run(catalogue.get("fuse"), test.observation, test.model).product,
            "SUN, many sensors": for_all(test.observation, test.model),
            "SUN, this pair": own(test.observation, test.model),
            "FusionNet, another pair": plain_other(test.observation, test.model),
            "FusionNet, this pair": plain_own(test.observation, test.model),
        }
        found = {
            key: against_reference(product, test.target, ratio=ours.ratio, data_range=JASPER.data_range)
            for key, product in products.items()
        }
        rows.append({"name": name, "sensors": str(ours), "found": found})
    with replaced(out / "table.md") as temporary:
        temporary.write_text(markdown(rows))
    show(rows)


def cells(row: dict[str, Any]) -> list[str]:
    """PSNR and SAM by system."""
    return [f"{found['PSNR']:.2f} / {found['SAM']:.2f}" for found in row["found"].values()]


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """The table as Markdown."""
    return markdown_table(["sensors", *rows[0]["found"]], ([row["sensors"], *cells(row)] for row in rows))


def show(rows: Sequence[dict[str, Any]]) -> None:
    """Prints the table."""
    table = Table("sensors", *rows[0]["found"], title="PSNR in dB / SAM in degrees on the right half of Jasper Ridge")
    for row in rows:
        table.add_row(row["sensors"], *cells(row))
    Console().print(table)


if __name__ == "__main__":
    use_all_cores()
    sys.exit(answered(lambda: main(tyro.cli(Settings, prog="python -m experiments.many_sensors"))))
