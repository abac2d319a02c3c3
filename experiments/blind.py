"""Blind fusion beside fusion with the true sensors, on sensors drawn at random.

    python -m experiments.blind
    python -m experiments.blind --systems miae --seeds 0 1

The low-resolution sensor blurs by a Gaussian of any width and direction and by its motion, and looks beside the centre
of its pixel; the guide's is any of the sensors in `jfusion.sensors` that has three bands or more there; the noise of
either is any of `ManySensors`. Each pair is fused three times: with the true sensors and noise; with sensors that are
estimated from the pair first (`jfusion.operators.estimate`); and with sensors that the system learns itself. Beside the
PSNR stands how far what was found is from the truth, see `jfusion.report.compare.sensor_errors`.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from experiments.gather import markdown_line, markdown_table
from jfusion import catalogue, sensors
from jfusion.data import scenes
from jfusion.data.simulate import Simulation
from jfusion.errors import InputError
from jfusion.files import check_output, make_folder, replaced
from jfusion.inference.fits import check_fitted
from jfusion.inference.run import run
from jfusion.metrics import psnr
from jfusion.process import answered, use_all_cores
from jfusion.progress import bar
from jfusion.report.compare import sensor_errors
from jfusion.training.many_sensors import ManySensors

RATIOS = {"jasper_ridge": 4, "aviris_california": 2, "neon_sjer": 2}
"""Of the pairs that are made of a scene."""

STEPS = {"miae": 1500, "udaln": 3000}
"""Of a fit, in all its stages together, fewer where known sensors spare one: minutes on two cores."""

LEAST_BANDS = 3
"""Of a guide."""

WAYS = ("true sensors", "estimated first", "learned")


@dataclasses.dataclass(frozen=True)
class Settings:
    """What is compared.

    Attributes:
        systems: that are fitted, of `STEPS`.
        scenes: of `RATIOS`.
        seeds: of the sensors, their noise and the fit; those below 20 were looked at while the library was made.
        out: folder of the table.
        smoke: one tiny pair: does it run?
    """

    systems: tuple[str, ...] = ("miae", "udaln")
    scenes: tuple[str, ...] = tuple(RATIOS)
    seeds: tuple[int, ...] = (20, 21, 22, 23)
    out: Path = Path("runs/blind")
    smoke: bool = False


@dataclasses.dataclass(frozen=True)
class Line:
    """One pair and one system.

    Attributes:
        scene, system, seed: which.
        guide_bands: of the pair.
        psnr: in dB, by way, with the truth's largest value as the full scale.
        errors: of the sensors, by way; the table has those that were estimated and those that were learned.
    """

    scene: str
    system: str
    seed: int
    guide_bands: int
    psnr: dict[str, float]
    errors: dict[str, dict[str, float]]


def draw(scene: str, seed: int, smoke: bool = False) -> Simulation:
    """What sensors drawn at random see of a scene."""
    hsi = scenes.load(scene)["hsi"]
    assert hsi.wavelengths is not None
    responses = sensors.responses(sensors.names(), hsi.wavelengths)
    bands = np.any(responses, -1)
    several = np.flatnonzero(bands.sum(-1) >= LEAST_BANDS)
    one = np.random.default_rng(seed).choice(several)
    image = jnp.asarray(hsi.physical(), jnp.float32)[None]
    side = 12 * RATIOS[scene]
    drawn = ManySensors(responses[one, bands[one]][None])
    return drawn.observe(jax.random.key(seed), image[:, :side, :side] if smoke else image, RATIOS[scene])


def measure(scene: str, name: str, seed: int, smoke: bool = False) -> Line:
    """Fuses a pair in all three ways."""
    system, pair = catalogue.get(name), draw(scene, seed, smoke)
    method = check_fitted(system)
    sizes: dict[str, Any] = method.tiny if smoke else method.compact or {}
    effort = (20 if smoke else STEPS[name]) / method.steps
    unknown = pair.model.replace(operators=dict.fromkeys(pair.model.operators), noise={})
    values, errors = {}, {}
    for way, model in zip(WAYS, (pair.model, unknown, unknown), strict=True):
        with bar(f"{scene}, {name}, {way}") as progress:
            done = run(
                system, pair.observation, model, seed=seed, effort=effort, sizes=sizes,
                estimating=way == "estimated first", progress=progress,
            )  # fmt: skip
        values[way] = float(psnr(done.product, pair.target, data_range=float(pair.target.max()))[0])
        errors[way] = sensor_errors(done.model, pair.model, pair.observation["lr"])
    return Line(scene, name, seed, pair.observation["guide"].shape[-1], values, errors)


def cells(line: Line) -> dict[str, str]:
    """Of the table, by heading."""
    names = line.errors[WAYS[1]]
    return {
        "scene": line.scene,
        "system": line.system,
        "draw": str(line.seed),
        "guide bands": str(line.guide_bands),
        **{f"{way}, dB": f"{line.psnr[way]:.2f}" for way in WAYS},
        **{name: " / ".join(f"{line.errors[way][name]:.3f}" for way in WAYS[1:]) for name in names},
    }


def summary(lines: Sequence[Line]) -> Iterator[str]:
    """How far the blind ways are behind the true sensors, by system."""
    for name in dict.fromkeys(line.system for line in lines):
        for way in WAYS[1:]:
            behind = [line.psnr[WAYS[0]] - line.psnr[way] for line in lines if line.system == name]
            yield (
                f"- {name}, {way}: {np.mean(behind):.2f} dB behind the true sensors in the mean, {max(behind):.2f} dB "
                f"at most, within 1 dB in {sum(b <= 1 for b in behind)} of {len(behind)}."
            )


def text(lines: Sequence[Line]) -> str:
    """The table and its summary, in Markdown."""
    rows = [cells(line) for line in lines]
    table = markdown_table([*rows[0]], (row.values() for row in rows))
    return "\n".join(["# Blind fusion", "", table, *summary(lines), ""])


def main(settings: Settings) -> Path:
    """Measures all pairs, writes the table after each, and returns its path.

    Raises:
        InputError: no such scene or system, or the folder cannot be written to.
    """
    for kind, asked, known in (("scenes", settings.scenes, RATIOS), ("systems", settings.systems, STEPS)):
        if wrong := [name for name in asked if name not in known]:
            raise InputError(f"--{kind} must be among {', '.join(known)}, but has {', '.join(wrong)}.")
    make_folder(settings.out)
    table = settings.out / "blind.md"
    check_output(table, overwrite=True)
    every = [(s, n, k) for s in settings.scenes for n in settings.systems for k in settings.seeds]
    lines = []
    for scene, name, seed in every[: 1 if settings.smoke else None]:
        lines.append(measure(scene, name, seed, settings.smoke))
        with replaced(table) as temporary:
            temporary.write_text(text(lines), encoding="utf-8")
        print(markdown_line(cells(lines[-1]).values()), file=sys.stderr)
    return table


if __name__ == "__main__":
    use_all_cores()
    chosen = tyro.cli(Settings, prog="python -m experiments.blind")
    sys.exit(answered(lambda: print(main(chosen))))
