"""The parts of the benchmark, each of which returns a section of the report."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from experiments.benchmarks.cases import FIT_STEPS, READ, SCENE, TRAIN_STEPS, Case, FitCase
from experiments.benchmarks.large_scene import Scene, measure
from experiments.benchmarks.processes import alone, race, rival
from experiments.benchmarks.tables import Ratio, Section
from jfusion.errors import RunError

NO_TORCH = "PyTorch is not installed, so there is nothing to compare with: pip install -e '.[benchmark]'."


def torch_is_here() -> bool:
    """Whether the networks have rivals."""
    return find_spec("torch") is not None


def networks(cases: Sequence[Case], rounds: int, compiled: bool = True) -> Section:
    """Train step and inference of each system against PyTorch, eager and, if asked for, compiled."""
    columns = ("system", "setting", "work", "ours / eager", "ours / torch.compile")
    text = (
        "The same networks with the same parameters on the same batch. A step is gradient and update, of critic and "
        f"network for PSGAN, {TRAIN_STEPS} in a row, which ours takes in one call as a training does, then the loss; "
        "ours runs on as many devices as there are cores, PyTorch on as many threads, with channels last and its fused "
        "Adam. On a GPU both run there, products of matrices in TF32. Goal of a step: at most 1.0 x PyTorch."
    )
    if not torch_is_here():
        return Section("Networks", NO_TORCH, columns, [])
    rows = []
    for case in cases:
        start = alone("jax_side.parameters", case)
        image = f"{case.lr} + {case.guide} bands, ratio {case.ratio}, one image of {case.image}"
        for name, work, setting in (("train step", "train", str(case)), ("inference", "infer", image)):
            rows.append((case.system, setting, name, *_against_torch(case, start, work, rounds, compiled)))
    return Section("Networks", text, columns, rows)


def _against_torch(case: Case | FitCase, start: object, work: str, rounds: int, compiled: bool) -> tuple[str, str]:
    """The two ratios, or why there is none."""
    ours, theirs = f"jax_side.{work}", f"torch_side.{work}"
    works: dict[str, tuple[Any, ...]] = {"ours": (ours, case), "eager": (theirs, case, start)}
    if compiled:
        works["compiled"] = (theirs, case, start, True)
    with ExitStack() as stack:
        rivals = {name: stack.enter_context(rival(*one)) for name, one in works.items()}
        failure = "-"
        if compiled:
            try:
                rivals["compiled"].wait()
            except RunError as error:
                failure = str(error)
                del rivals["compiled"]
        seconds = race(rivals, rounds)
    ratios = [str(Ratio.of(seconds["ours"], seconds[name])) for name in ("eager", "compiled") if name in seconds]
    return ratios[0], ratios[1] if len(ratios) > 1 else failure


def loading(cases: Sequence[Case], rounds: int) -> Section:
    """The loader against the step that waits for it."""
    rows = []
    for case in cases:
        with rival("jax_side.load", case) as read, rival("jax_side.train", case) as train:
            seconds = race({"read": read, "train": train}, rounds)
        each = [total / READ for total in seconds["read"]]
        steps = [total / TRAIN_STEPS for total in seconds["train"]]
        rows.append((case.system, str(case), str(Ratio.of(each, steps))))
    text = f"A batch of crops of {SCENE} from `jfusion.data.pipeline.loader` against a train step; each alone."
    return Section("Loader", text, ("system", "setting", "batch / step"), rows)


def fits(cases: Sequence[FitCase], largest: FitCase, rounds: int, compiled: bool = True) -> Section:
    """A step of each system that is fitted to a pair, against PyTorch and against one step at a time; and memory."""
    columns = ("system", "stage", "ours / eager", "ours / torch.compile", "in the loop / alone", "whole fit, MiB")
    rows = []
    for case in cases:
        theirs = ("-", "-")
        if torch_is_here():
            theirs = _against_torch(case, alone("jax_side.beginning", case), "fit", rounds, compiled)
        with rival("jax_side.fit", case) as looped, rival("jax_side.fit", case, False) as single:
            seconds = race({"looped": looped, "single": single}, rounds)
        ratio = str(Ratio.of(seconds["looped"], seconds["single"]))
        rows.append((case.system, case.stage, *theirs, ratio, _whole_fit(case)))
    rows.append((largest.system, *("-",) * 4, _whole_fit(largest)))
    text = (
        f"A step of the stage of a fit in which most of its time goes, on a pair made from {SCENE} (100 x 100 pixels, "
        "198 bands at ratio 4, 6 guide bands; blind, but for GDD and Rec-HSISR), as the fitter runs it, in a compiled "
        "loop of many. "
        "PyTorch takes the same steps from the same beginning, with channels last and its fused Adam. Goal: at most "
        "1.0 x PyTorch, and at most 1.2 x a compiled step that is called alone. Memory is the peak of a whole fit, "
        f"{FIT_STEPS} steps long, all stages and compilation included, above a process that has made its imports; "
        f"{largest.system} takes most of all systems."
    )
    if not torch_is_here():
        text += f" {NO_TORCH}"
    return Section("Fits", text, columns, rows)


def _whole_fit(case: FitCase) -> str:
    """Peak of memory of a whole fit, in MiB."""
    _, peak = alone("processes.peak", "jax_side.whole_fit", case)
    return "-" if peak is None else f"{peak:.0f}"


@cache
def _starts(case: Case) -> list[tuple[float, float | None]]:
    """Seconds and MiB of the first steps of a training: with nothing compiled before, and with all of it."""
    with tempfile.TemporaryDirectory() as folder:
        return [alone("processes.peak", "jax_side.train_cached", case, Path(folder)) for _ in range(2)]


def memory(cases: Sequence[Case]) -> Section:
    """Peak of resident memory of each train step."""
    rows = []
    for case in cases:
        (_, cold), (_, warm) = _starts(case)
        theirs = None
        if torch_is_here():
            start = alone("jax_side.parameters", case)
            _, theirs = alone("processes.peak", "torch_side.train", case, start)
        mib = ["-" if value is None else f"{value:.0f}" for value in (cold, warm, theirs)]
        rows.append((case.system, str(case), *mib, f"{warm / theirs:.2f}" if warm and theirs else "-"))
    text = (
        "Peak of resident memory of building a network and its first steps, in MiB above a process that has made its "
        "imports. Compilation takes memory too; from the persistent cache there is none."
    )
    columns = ("system", "setting", "ours", "ours, compiled before", "eager", "ours, compiled before / eager")
    return Section("Memory", text, columns, rows)


def compiling(cases: Sequence[Case]) -> Section:
    """What compilation takes, and what the persistent cache saves of it."""
    rows = []
    for case in cases:
        (cold, _), (warm, _) = _starts(case)
        rows.append((case.system, str(case), f"{cold:.1f}", f"{warm / cold:.2f}"))
    text = (
        f"Seconds until a network is built and has made its first {TRAIN_STEPS} steps, and the same with the cache "
        "that the first process has left, as a ratio (`jax_compilation_cache_dir`, programs of any compile time)."
    )
    return Section("Compilation", text, ("system", "setting", "cold, s", "with the cache / cold"), rows)


def layouts(cases: Sequence[Case], rounds: int) -> Section:
    """Stages one after the other, under scan, and with what is inside them computed anew."""
    rows = []
    for case in cases:
        laid = {
            unroll: dataclasses.replace(case, sizes={**case.sizes, "unroll": unroll})
            for unroll in ("loop", "scan", "remat")
        }
        with ExitStack() as stack:
            rivals = {name: stack.enter_context(rival("jax_side.train", one)) for name, one in laid.items()}
            seconds = race(rivals, rounds)
        starts = {name: _starts(one) for name, one in laid.items()}
        first, least = starts["loop"][0][0], starts["loop"][1][1]
        for name in ("scan", "remat"):
            (cold, _), (_, peak) = starts[name]
            less = f"{peak / least:.2f}" if peak and least else "-"
            ratio = str(Ratio.of(seconds[name], seconds["loop"]))
            rows.append((case.system, str(case), name, ratio, f"{cold / first:.2f}", less))
    text = (
        "Stages under `jax.lax.scan`, without and with recomputation in the backward pass, against stages one after "
        "the other (`unroll`). Goal of a step: at most 1.3. Memory is the peak of the first steps, compiled before."
    )
    columns = ("system", "setting", "layout", "step / loop", "until the first steps / loop", "memory / loop")
    return Section("Layouts of unrolled networks", text, columns, rows)


def scene(settings: Scene, rounds: int) -> Section:
    """A large scene through `jfusion fuse` and through GDAL."""
    measured = measure(settings, rounds)
    seconds = {name: [one for one, _ in turns] for name, turns in measured.items()}
    theirs = [name for name in seconds if name.startswith("gdal")]
    rows = []
    for name in [name for name in seconds if name not in theirs]:
        ratios = [str(Ratio.of(seconds[name], seconds[other])) for other in theirs]
        rows.append((name, *ratios, f"{max(peak for _, peak in measured[name]):.0f}"))
    text = (
        f"Whole commands, {rounds} times, {settings.bands} bands, {settings.size} x {settings.size} pan pixels, ratio "
        f"{settings.ratio}. Ours writes a cloud-optimised GeoTIFF, with --no-cog a plain one as GDAL does without -of "
        "COG. In the first round nothing is compiled; in the others the programs of the first are in the user's cache. "
        "Goal: at most 1.2 x GDAL with Brovey, which is what GDAL computes, for the same kind of file."
    )
    if not theirs:
        text += " GDAL's programs are not installed, so there is nothing to compare with."
    return Section("Large scene", text, ("command", *(f"ours / {name}" for name in theirs), "MiB above idle"), rows)
