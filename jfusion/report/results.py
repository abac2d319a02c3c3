"""Results as rows: their file, their order of merit and their table for the terminal."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from jfusion.errors import InputError
from jfusion.files import replaced
from jfusion.tasks import TASKS

if TYPE_CHECKING:
    from rich.table import Table


@dataclasses.dataclass(frozen=True)
class Row:
    """What one system did on one scene.

    Attributes:
        scene: name of the scene.
        task: name in `jfusion.tasks`.
        system: name in the catalogue.
        family: classical, cnn, gan, transformer, unrolled or prior.
        protocol: how the observation was made and judged; JSON values.
        metrics: value by name; nan where a metric is undefined.
        parameters: trainable scalars, None where there are none.
        seconds: wall time to the product, nan where it was not measured.
        peak_memory_mib: None where it was not measured.
        product: path of the GeoTIFF, relative to the results; empty where it was not kept.
        reference: path of the truth, None where there is none.
        note: what a reader of the table has to know.
    """

    scene: str
    task: str
    system: str
    family: str
    protocol: dict[str, Any]
    metrics: dict[str, float]
    parameters: int | None
    seconds: float
    peak_memory_mib: float | None
    product: str
    reference: str | None
    note: str = ""

    @property
    def is_baseline(self) -> bool:
        """Whether the system is the trivial one that all others must beat."""
        return self.task in TASKS and self.system == TASKS[self.task].baseline


@dataclasses.dataclass(frozen=True)
class Display:
    """How a metric is shown: heading, decimals (None: as its size asks for), which end is best, unit."""

    label: str
    decimals: int | None = None
    best: Literal["max", "min"] | None = None
    unit: str = ""

    @property
    def arrow(self) -> str:
        return {"max": "↑", "min": "↓", None: ""}[self.best]

    def text(self, value: float) -> str:
        """The value without its unit; a dash where it is undefined."""
        if math.isnan(value):
            return "–"
        if math.isinf(value):
            return "∞" if value > 0 else "−∞"
        return (_as_size_asks(value) if self.decimals is None else f"{value:,.{self.decimals}f}").replace("-", "−")


def _as_size_asks(value: float) -> str:
    if 0 < abs(value) < 1e-4:
        return f"{value:.1e}"
    return f"{value:,.{5 if abs(value) < 1 else 3 if abs(value) < 100 else 1}f}"


_DISPLAYS = {
    "psnr": Display("PSNR", 2, "max", "dB"),
    "sam": Display("SAM", 2, "min", "°"),
    "ergas": Display("ERGAS", 3, "min"),
    "ssim": Display("SSIM", 4, "max"),
    "uiqi": Display("UIQI", 4, "max"),
    "q2n": Display("Q2ⁿ", 4, "max"),
    "cc": Display("CC", 4, "max"),
    "rmse": Display("RMSE", None, "min"),
    "scc": Display("SCC", 4, "max"),
    "hqnr": Display("HQNR", 4, "max"),
    "d_lambda_k": Display("D_λ,K", 4, "min"),
    "qnr": Display("QNR", 4, "max"),
    "d_lambda": Display("D_λ", 4, "min"),
    "d_s": Display("D_S", 4, "min"),
    "psnr exact": Display("PSNR, exact", 2, "max", "dB"),
    "psf error": Display("PSF error", 3, "min"),
    "srf error": Display("SRF error", 3, "min"),
    "srf error on lr": Display("SRF error on lr", 4, "min"),
}
_RESIDUAL = "residual "


def display(metric: str) -> Display:
    """How a metric is shown; ``residual <key>`` is that of an observation, and an unknown name is not ranked."""
    if metric.lower().startswith(_RESIDUAL):
        return Display(f"residual of {metric[len(_RESIDUAL) :]}", None, "min")
    return _DISPLAYS.get(metric.lower(), Display(metric.replace("_", " ")))


def metric_names(rows: Sequence[Row]) -> list[str]:
    """Names of all metrics in the rows: first in the order of the task, then of the table of displays."""
    found = list(dict.fromkeys(name for row in rows for name in row.metrics))
    tasks = (name for row in rows if row.task in TASKS for name in TASKS[row.task].metrics)
    order = list(dict.fromkeys([*tasks, *_DISPLAYS]))
    return sorted(found, key=lambda name: order.index(name.lower()) if name.lower() in order else len(order))


def places(metric: str, values: Sequence[float]) -> list[int | None]:
    """1 for the best values, 2 for the second best, None for the others.

    Values that read the same in the table share a place. There are no places for fewer than two different values.
    """
    shown = display(metric)
    texts = {shown.text(v): v for v in values if not math.isnan(v)}
    if shown.best is None or len(texts) < 2:
        return [None] * len(values)
    order = sorted(texts, key=texts.__getitem__, reverse=shown.best == "max")
    place = {order[0]: 1, order[1]: 2}
    return [place.get(shown.text(v)) for v in values]


def merit(metric: str, row: Row) -> float:
    """The metric with its sign such that larger is better; minus infinity where it is undefined or not ranked."""
    best, value = display(metric).best, row.metrics.get(metric, math.nan)
    if best is None or math.isnan(value):
        return -math.inf
    return value if best == "max" else -value


def leading_metric(rows: Sequence[Row]) -> str | None:
    """The first metric by which the rows are ranked, None where there is none."""
    return next((name for name in metric_names(rows) if any(merit(name, row) > -math.inf for row in rows)), None)


def with_unit(metric: str, value: float) -> str:
    shown = display(metric)
    return shown.text(value) + (shown.unit if shown.unit == "°" else f" {shown.unit}" if shown.unit else "")


def in_words(protocol: Mapping[str, Any]) -> dict[str, str]:
    """The settings of a protocol for readers, without those that are not set."""
    return {
        name.replace("_", " "): " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
        for name, value in protocol.items()
        if value is not None
    }


def finite(value: Any) -> Any:
    """A value for JSON, which knows neither nan nor infinity: both become None, which is its null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return value


def write_results(path: str | Path, rows: Sequence[Row]) -> None:
    """Writes the rows as a JSON list, whole or not at all; nan and infinity become null.

    Raises:
        InputError: a protocol holds something that JSON cannot, or the folder does not exist.
    """
    try:
        text = json.dumps([finite(dataclasses.asdict(row)) for row in rows], indent=2, ensure_ascii=False)
    except TypeError as error:
        raise InputError(
            f"a protocol must hold JSON values only, but: {error}; convert it to numbers or text."
        ) from error
    with replaced(Path(path)) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def read_results(path: str | Path) -> list[Row]:
    """Reads what `write_results` wrote; a metric or seconds that are null become nan.

    Raises:
        InputError: not such a file.
    """
    try:
        items = json.loads(Path(path).read_text(encoding="utf-8"))
        rows = [Row(**{**item, "seconds": math.nan if item["seconds"] is None else item["seconds"]}) for item in items]
        metrics = [{name: math.nan if v is None else float(v) for name, v in row.metrics.items()} for row in rows]
    except (OSError, ValueError, TypeError, AttributeError, KeyError) as error:
        raise InputError(f"{path} must be a results file (a JSON list of rows), but: {error}; run it anew.") from error
    return [dataclasses.replace(row, metrics=values) for row, values in zip(rows, metrics, strict=True)]


def parameters_text(parameters: int | None) -> str:
    return "–" if parameters is None else f"{parameters:,}"


def seconds_text(seconds: float) -> str:
    if math.isnan(seconds):
        return "–"
    return f"{seconds:.2g}" if seconds < 1 else f"{seconds:,.{1 if seconds < 100 else 0}f}"


def memory_text(mib: float | None) -> str:
    return "–" if mib is None else f"{mib:,.0f}"


def table(rows: Sequence[Row], metrics: Sequence[str] | None = None) -> Table:
    """A rich table for the terminal: best value bold, second underlined, the trivial baseline dimmed.

    Args:
        rows: of one scene.
        metrics: names of the columns, all by default.
    """
    from rich.table import Table
    from rich.text import Text

    names = metric_names(rows) if metrics is None else list(metrics)
    result = Table()
    result.add_column("system")
    for name in names:
        shown = display(name)
        result.add_column(f"{shown.label} {shown.arrow}".strip(), justify="right")
    for heading in ("parameters", "seconds", "peak MiB"):
        result.add_column(heading, justify="right")

    style = {1: "bold", 2: "underline", None: ""}
    values = {name: [row.metrics.get(name, math.nan) for row in rows] for name in names}
    ranks = {name: places(name, values[name]) for name in names}
    for i, row in enumerate(rows):
        result.add_row(
            Text(row.system),
            *(Text(display(name).text(values[name][i]), style=style[ranks[name][i]]) for name in names),
            parameters_text(row.parameters),
            seconds_text(row.seconds),
            memory_text(row.peak_memory_mib),
            style="dim" if row.is_baseline else "",
        )
    return result
