"""What the benchmark says: ratios with their spread, sections of a report, and where they were made."""

from __future__ import annotations

import os
import platform
import shutil
import statistics
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from rich.table import Table

from jfusion.process import cores, use_all_cores

RATIOS = """Ratios are those that their columns name; below 1 the first is faster or smaller. Where brackets follow,
it is the median of the rounds and they hold the extremes; in each round every rival has one turn."""
PACKAGES = ("jfusion", "jax", "jaxlib", "flax", "torch")


@dataclass(frozen=True)
class Ratio:
    """Median, smallest and largest ratio of several rounds."""

    median: float
    low: float
    high: float

    @staticmethod
    def of(ours: Sequence[float], theirs: Sequence[float]) -> Ratio:
        """Ratio of each round's two seconds, ours / theirs."""
        ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
        return Ratio(statistics.median(ratios), min(ratios), max(ratios))

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f} to {self.high:.2f})"


@dataclass(frozen=True)
class Section:
    """A part of the report: what was measured, and a table of it."""

    title: str
    text: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]

    def markdown(self) -> str:
        """As Markdown, with a heading."""
        lines = [self.columns, ("---",) * len(self.columns), *self.rows]
        table = "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)
        return f"# {self.title}\n\n{self.text}\n" + (f"\n{table}\n" if self.rows else "")

    def table(self) -> Table:
        """For the terminal."""
        table = Table(*self.columns, title=self.title, caption=self.text)
        for row in self.rows:
            table.add_row(*row)
        return table


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _gdal() -> str:
    if shutil.which("gdalinfo") is None:
        return "not installed"
    said = subprocess.run(["gdalinfo", "--version"], capture_output=True, text=True, check=False).stdout
    return said.removeprefix("GDAL ").partition(",")[0]


def revision() -> str:
    """Git revision of the code; to be asked for in another process, since the scripts' runner imports jax."""
    from experiments import runner

    return runner.revision()


def device() -> str:
    """What our side computes on; to be asked for in another process."""
    use_all_cores()
    from jfusion.report.environment import environment

    return environment()["device"]


def facts(command: str, revision: str, device: str) -> dict[str, str]:
    """Where, when and of what the measurements are."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    return {
        "machine": f"{_processor()}, {cores()} cores, {memory:.0f} GiB, {platform.system()} {platform.machine()}",
        "device": device,
        "load before": f"{os.getloadavg()[0]:.1f} (below 0.5 is idle; on a busy machine read ratios alone)",
        "versions": ", ".join(
            [f"Python {platform.python_version()}", *(f"{p} {_version(p)}" for p in PACKAGES), f"GDAL {_gdal()}"]
        ),
        "date": datetime.now().astimezone().isoformat(timespec="minutes"),
        "revision": revision or "unknown",
        "command": f"`{command}`",
    }


def page(facts: dict[str, str], section: Section) -> str:
    """A section with its facts as Markdown."""
    head = "".join(f"- {name}: {value}\n" for name, value in facts.items())
    return f"{section.markdown()}\n{RATIOS}\n\n{head}"
