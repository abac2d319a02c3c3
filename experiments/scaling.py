"""Throughput of training over numbers of devices and batches, measured here and forecast for TPUs and GPUs.

    python -m experiments.scaling --system fusionnet --batches 8 32 --out runs/scaling
    python -m experiments.scaling --smoke

What is measured is the very step that `jfusion.training` makes, warm, on batches that lie on the devices already.
Strong scaling shares one batch among more devices, weak scaling gives every device its own. The forecast is that of
`experiments.forecast`. Both are printed and written to ``scaling.json`` and ``scaling.md``.

On a CPU the devices are forced ones, as many as are asked for. With ``--distributed`` all devices of all processes
take part: start the same command in each process of a TPU pod or a Slurm job; the first process prints and writes.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import jax
import tyro
from rich.console import Console
from rich.markdown import Markdown

from experiments.forecast import CHIPS, Scaling, Work, analysed, forecasts
from experiments.places import place
from experiments.runner import revision
from jfusion import catalogue
from jfusion.catalogue import Bands, DType, Recipe, System, Trained
from jfusion.data.patches import Crops, crops
from jfusion.data.pipeline import stacked
from jfusion.data.simulate import Simulation, explains
from jfusion.demo import JASPER
from jfusion.errors import InputError, RunError
from jfusion.files import check_output, make_folder, replaced
from jfusion.operators import ObservationModel
from jfusion.process import answered, cores, use_all_cores
from jfusion.report.environment import environment
from jfusion.training.loop import build
from jfusion.training.players import make_players
from jfusion.training.step import Batch, Devices, Player, begin, make_steps, may_lock


@dataclasses.dataclass(frozen=True)
class Settings:
    """What is measured and forecast.

    Attributes:
        system: name in the catalogue of a network that is trained.
        data: embedded scene that the patches are cut from; "jasper_ridge" for a system that must know the guide's
            response.
        sizes: the paper's network, or a smaller one.
        patch: side of a patch in high-resolution pixels, the recipe's by default.
        batches: patches on each device where scaling starts, the recipe's batch by default.
        devices: their numbers in all processes; scaling starts at the smallest. By default powers of two.
        dtype: of computation, the recipe's by default.
        steps: of training, timed together.
        repeats: timings of each case; all cases take turns.
        utilisation: share of its peak that the multipliers of a chip are assumed to reach. 32 channels fill a quarter
            of the 128 columns of a TPU's.
        distributed: join the other processes, which jax finds by itself on TPU pods, Slurm, Open MPI and Kubernetes.
        out: folder of the results.
        smoke: everything tiny, within a minute: does it run?
    """

    system: str = "fusionnet"
    data: str = "landsat8_liverpool"
    sizes: Literal["paper", "compact", "tiny"] = "paper"
    patch: int | None = None
    batches: tuple[int, ...] = ()
    devices: tuple[int, ...] = ()
    dtype: DType | None = None
    steps: int = 5
    repeats: int = 5
    utilisation: float = 0.25
    distributed: bool = False
    out: Path = Path("runs/scaling")
    smoke: bool = False

    def tiny(self) -> Settings:
        """The same with everything small."""
        return dataclasses.replace(self, sizes="tiny", patch=16, batches=(2,), steps=2, repeats=3)


# ----------------------------------------------------------------------------------------------------------------------
# What is trained


@dataclasses.dataclass(frozen=True)
class Study:
    """A system that is ready to be trained, and patches to train it on.

    Attributes:
        observing: whether patches are observed anew in the step, see `jfusion.training.step.make_body`.
    """

    players: dict[str, Player]
    modules: dict[str, Any]
    model: ObservationModel
    source: Crops
    recipe: Recipe
    observing: bool

    def batch(self, patches: int, process: int = 0, processes: int = 1) -> Batch:
        """The share of a process of so many patches."""
        record: dict[str, Any] = dict(next(stacked(self.source, patches, process=process, processes=processes)))
        return Batch(target=record.pop("target"), observation=record)


def prepare(system: System, data: Simulation, settings: Settings) -> Study:
    """The players of a system and their patches, by its recipe as far as the settings do not say otherwise.

    Raises:
        InputError: the system is not a network that is trained, or needs to know more of the pair.
    """
    method = system.method
    if not isinstance(method, Trained):
        raise InputError(f"{system.name} is not a network that is trained; it is of the family {system.family}.")
    sizes = {"paper": {}, "compact": method.compact, "tiny": method.tiny}[settings.sizes]
    bands = Bands.of(data.observation, data.model)
    module = build(system, bands, sizes=sizes)
    if method.initialise is not None:
        method.initialise(module, data.observation, data.model, data.target)
    recipe = dataclasses.replace(
        method.recipe,
        patch=settings.patch or method.recipe.patch,
        dtype=settings.dtype or method.recipe.dtype,
    )
    players, modules = make_players(method, module, bands, recipe.steps, 0, sizes)
    observing = system.reads_model(sizes) and explains(data.model, (recipe.patch, recipe.patch))
    return Study(players, modules, data.model, crops(data, recipe.patch), recipe, observing)


# ----------------------------------------------------------------------------------------------------------------------
# What is measured


@dataclasses.dataclass(frozen=True)
class Measured:
    """A row of the measurement; each triple is a median, the lowest and the highest value.

    Attributes:
        scaling: "strong", the batch stays, or "weak", each device's share stays.
        start: patches on each device where both begin.
        devices, batch: devices, and patches of all of them.
        rate: patches a second.
        efficiency: rate of a device, relative to that at the start in the same round.
    """

    scaling: Scaling
    start: int
    devices: int
    batch: int
    rate: tuple[float, float, float]
    efficiency: tuple[float, float, float]


Case = tuple[int, int]
"""Devices, and patches of all of them."""


def cases(counts: Sequence[int], start: int, parts: int) -> list[tuple[Scaling, Case]]:
    """Strong scaling, as far as the batch can be shared, and weak scaling, from ``start`` patches on each device.

    Raises:
        InputError: the recipe's parts do not divide the start.
    """
    if start < 1 or start % parts:
        raise InputError(f"{start} patches cannot be computed in {parts} parts; choose batches that are multiples.")
    batch = start * min(counts)
    strong: list[tuple[Scaling, Case]] = [("strong", (n, batch)) for n in counts if batch % (n * parts) == 0]
    return [*strong, *(("weak", (n, start * n)) for n in counts)]


def device_counts(asked: Sequence[int]) -> list[int]:
    """The numbers of devices to measure, in order; powers of two times the processes where none are asked for.

    Raises:
        InputError: there are not so many devices, or the processes cannot share them.
    """
    there, processes = jax.device_count(), jax.process_count()
    if wrong := [n for n in asked if not 0 < n <= there or n % processes]:
        raise InputError(
            f"{wrong[0]} devices cannot be had: there are {there}, and each of {processes} processes gives as many."
        )
    return sorted(set(asked)) or [processes << k for k in range((there // processes).bit_length())]


def first_devices(count: int) -> Devices:
    """So many devices, of each process as many."""
    processes = range(jax.process_count())
    local = ([d for d in Devices.all().devices if d.process_index == p] for p in processes)
    return Devices(tuple(device for own in local for device in own[: count // len(processes)]))


def timer(study: Study, case: Case) -> Callable[[int], float]:
    """``seconds(steps)``: of so many train steps, in calls as a training makes them; what is compiled is warm.

    Raises:
        RunError: the devices have too little memory, or are of a CPU and may wait for one another for ever.
    """
    count, patches = case
    devices = first_devices(count)
    advance = make_steps(study.players, devices, study.recipe.parts, study.recipe.dtype, study.observing)
    with fitting(case):
        state, model = devices.replicate((begin(study.players, study.modules), study.model))
        batches = [devices.share(study.batch(patches, jax.process_index(), jax.process_count()))] * devices.steps
    if may_lock(advance, devices, state, batches, 1, model):
        raise RunError(
            f"the step calls LAPACK, for which {count} devices of a CPU may wait for one another for ever; measure it "
            "with --devices 1 here, or on accelerators."
        )

    def seconds(steps: int) -> float:
        nonlocal state
        begun = time.perf_counter()
        with fitting(case):
            for done in range(0, steps, devices.steps):
                state, _ = advance(state, batches, min(devices.steps, steps - done), model)
            jax.block_until_ready(state)
        return time.perf_counter() - begun

    seconds(2)
    return seconds


@contextmanager
def fitting(case: Case) -> Iterator[None]:
    """Raises RunError where the devices have too little memory for a case, beside those that are measured in turn."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise RunError(
            f"{case[1]} patches on {case[0]} devices do not fit their memory; choose smaller or fewer batches, or "
            "smaller patches."
        ) from error


def spread(values: Sequence[float]) -> tuple[float, float, float]:
    """Median, lowest and highest."""
    return statistics.median(values), min(values), max(values)


def measure(study: Study, counts: Sequence[int], starts: Sequence[int], steps: int, repeats: int) -> Iterator[Measured]:
    """Times every case ``repeats`` times, all of them in turn, so that a slow moment is the same for all."""
    plans = {start: cases(counts, start, study.recipe.parts) for start in starts}
    timers = {case: timer(study, case) for case in sorted({case for plan in plans.values() for _, case in plan})}
    rounds = [{case: case[1] * steps / seconds(steps) for case, seconds in timers.items()} for _ in range(repeats)]
    for start, plan in plans.items():
        least = min(counts)
        for scaling, (n, batch) in plan:
            rates = [rates[n, batch] for rates in rounds]
            ratios = [rates[n, batch] / n / (rates[least, start * least] / least) for rates in rounds]
            yield Measured(scaling, start, n, batch, spread(rates), spread(ratios))


# ----------------------------------------------------------------------------------------------------------------------
# What is said


def remarks(counts: Sequence[int]) -> list[str]:
    """What has to be known of a measurement on these devices."""
    if jax.default_backend() != "cpu":
        return []
    return [
        f"Forced host devices: {max(counts)} of them share {cores()} cores. Efficiency falls for want of cores, and is "
        "above 1 where one device left cores idle; it says nothing of other hardware."
    ]


def assumptions(dtype: DType, utilisation: float, work: Sequence[Work]) -> list[str]:
    """What the forecast takes for granted."""
    said = [
        "A forecast is not a measurement: seconds = max(flops / (peak x utilisation), traffic / bandwidth) + "
        "2 (n - 1) / n x gradient / link.",
        f"{dtype} computation, float32 parameters, gradients and operators of the observation model; utilisation "
        f"{utilisation:g} of the peak; all of the bandwidth of memory and links, whose sources are in "
        "experiments/forecast.py.",
        "Communication overlaps nothing. Latency of links, dispatch and loading of data are left out, so that small "
        "steps on many chips come out too fast.",
        "Flops, traffic and memory are those of the program that XLA compiles for this machine. Held against what the "
        "TPU's own compiler says of four systems, flops agree within 6 % and seconds within a factor of 3. On a CPU "
        "they count the channels of zeros that convolutions add there.",
    ]
    if loops := max(one.loops for one in work):
        said.append(f"The bodies of {loops} loops are counted once, however often they run, so it comes out too fast.")
    return said


Columns = Mapping[str, Callable[[Mapping[str, Any]], str]]
"""Headings, and what stands below them, made of a row of JSON values."""

MEASURED: Columns = {
    "scaling": lambda row: row["scaling"],
    "start": lambda row: str(row["start"]),
    "devices": lambda row: str(row["devices"]),
    "patches": lambda row: str(row["batch"]),
    "patches/s": lambda row: "{:.1f} ({:.1f} to {:.1f})".format(*row["rate"]),
    "efficiency": lambda row: "{:.2f} ({:.2f} to {:.2f})".format(*row["efficiency"]),
}
FORECAST: Columns = {
    "chip": lambda row: row["chip"],
    "scaling": lambda row: row["scaling"],
    "start": lambda row: str(row["start"]),
    "chips": lambda row: str(row["devices"]),
    "patches": lambda row: str(row["batch"]),
    "compute, ms": lambda row: f"{1000 * row['compute']:.3g}",
    "bound by": lambda row: row["bound"],
    "reduce, ms": lambda row: f"{1000 * row['reduce']:.3g}",
    "patches/s": lambda row: f"{row['rate']:,.0f}",
    "efficiency": lambda row: f"{row['efficiency']:.2f}",
    "GiB a chip": lambda row: f"{row['memory'] / 2**30:.2f}{'' if row['fits'] else ', too much'}",
}


def table(columns: Columns, rows: Sequence[Mapping[str, Any]]) -> str:
    """A table in Markdown."""
    lines = [list(columns), ["---"] * len(columns), *([text(row) for text in columns.values()] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def share(work: Mapping[str, Any]) -> str:
    """An item of a list: what one device does, from `Work` as JSON values."""
    return (
        f"- A step of {work['patches']} patches on one device: {work['flops'] / 1e9:.3g} GFLOP, traffic "
        f"{work['traffic'] / 1e9:.3g} GB, memory {work['memory'] / 2**30:.3g} GiB, gradient "
        f"{work['gradient'] / 1e6:.3g} MB."
    )


def document(report: Mapping[str, Any]) -> str:
    """A report in Markdown."""
    notes = {name: "\n".join(f"- {note}" for note in report[name]) for name in ("remarks", "assumptions")}
    height, width = report["patch"]
    return "\n\n".join(
        [
            f"# Scaling of {report['settings']['system']}, {report['environment']['device']}",
            f"Patches of {height} x {width} high-resolution pixels, {report['dtype']}.",
            "## Measured: median (lowest to highest)",
            table(MEASURED, report["measured"]),
            notes["remarks"],
            "## Forecast, not measured",
            "\n".join(share(work) for work in report["work"]),
            table(FORECAST, report["forecast"]),
            notes["assumptions"] + "\n",
        ]
    )


# ----------------------------------------------------------------------------------------------------------------------


def study_report(system: System, data: Simulation, settings: Settings) -> dict[str, Any]:
    """Measures and forecasts a system on patches of ``data``; JSON values.

    Raises:
        InputError: the system, the devices or the batches do not fit.
        RunError: a batch does not fit the memory.
    """
    counts = device_counts(settings.devices)
    study = prepare(system, data, settings)
    starts = sorted(set(settings.batches)) or [study.recipe.batch]
    measured = list(measure(study, counts, starts, settings.steps, settings.repeats))
    parts, dtype = study.recipe.parts, study.recipe.dtype
    work = {
        patches: analysed(
            study.players, study.modules, study.batch(patches), study.model, parts, dtype, study.observing
        )
        for patches in sorted({parts, *starts})
    }
    rows = [
        row
        for start in starts
        for row in forecasts(CHIPS, work[parts], work[start], parts, dtype, settings.utilisation)
    ]
    report = {
        "settings": dataclasses.asdict(settings),
        "patch": study.source[0]["target"].shape[:2],
        "dtype": dtype,
        "environment": environment(),
        "revision": revision(),
        "remarks": remarks(counts),
        "measured": [dataclasses.asdict(row) for row in measured],
        "assumptions": assumptions(dtype, settings.utilisation, list(work.values())),
        "chips": [dataclasses.asdict(chip) for chip in CHIPS],
        "work": [dataclasses.asdict(one) for one in work.values()],
        "forecast": [dataclasses.asdict(row) for row in rows],
    }
    return json.loads(json.dumps(report, default=str))


def run(settings: Settings) -> None:
    """Measures, forecasts, prints, and writes ``scaling.json`` and ``scaling.md``.

    Raises:
        InputError: no such system or scene, one of the settings does not fit, or the output cannot be written.
        RunError: a batch does not fit the memory.
    """
    if settings.smoke:
        settings = settings.tiny()
    if min(settings.steps, settings.repeats) < 1 or not 0 < settings.utilisation <= 1:
        raise InputError("steps and repeats must be at least 1, and the utilisation above 0 and at most 1.")
    system = catalogue.get(settings.system)
    make_folder(settings.out)
    files = [settings.out / name for name in ("scaling.json", "scaling.md")]
    for path in files:
        check_output(path, overwrite=True)
    report = study_report(system, place(settings.data, JASPER).learn, settings)
    if jax.process_index() == 0:
        text = document(report)
        Console(width=120).print(Markdown(text))
        for path, content in zip(files, (json.dumps(report, indent=2) + "\n", text), strict=True):
            with replaced(path) as temporary:
                temporary.write_text(content)
            print(path)


def start_jax(settings: Settings) -> None:
    """Joins the other processes, or makes as many devices of a CPU as are asked for, one a core by default."""
    if settings.distributed:
        jax.distributed.initialize()
    else:
        use_all_cores(max(settings.devices, default=None))


def main() -> None:
    """The command line."""
    settings = tyro.cli(Settings, prog="python -m experiments.scaling")

    def work() -> None:
        start_jax(settings)
        run(settings)

    sys.exit(answered(work))


if __name__ == "__main__":
    main()
