"""The house keeps its order: who may import whom, one convolution, one place for pmap, lazy heavy imports."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAY_IMPORT = {
    "errors": set(),
    "files": {"errors"},
    "process": {"errors"},
    "progress": set(),
    "tasks": {"errors"},
    "sensors": {"errors"},
    "operators": {"errors", "sensors"},
    "solvers": {"errors", "operators"},
    "metrics": {"errors", "operators"},
    "data": {"errors", "files", "operators", "sensors"},
    "catalogue": {"errors", "operators", "progress"},
    "layers": {"errors", "operators", "solvers", "catalogue"},
    "classical": {"errors", "operators", "solvers", "catalogue", "tasks", "sensors"},
    "baselines": {"errors", "operators", "solvers", "catalogue", "tasks", "layers", "classical",
                  "training.adversarial", "training.losses"},
    "training": {"errors", "files", "operators", "catalogue", "data", "progress", "tasks"},
    "inference": {"errors", "files", "operators", "catalogue", "data", "progress", "tasks", "sensors", "metrics",
                  "training", "solvers", "classical"},
    "report": {"errors", "files", "operators", "catalogue", "data", "progress", "tasks", "metrics", "training",
               "inference"},
    "unrolled": {"errors", "operators", "solvers", "catalogue", "tasks", "layers", "classical", "data",
                 "metrics", "training.adversarial", "training.losses"},
    "priors": {"errors", "operators", "solvers", "catalogue", "tasks", "layers", "progress"},
}  # fmt: skip
"""Parts of the house by what they may import; the command line and the demonstration may import all.

`priors` have no `data`, where truths are made.
"""

FREE = {"cli", "demo", "__init__"}


def part_of(path: Path) -> str:
    relative = path.relative_to(ROOT).with_suffix("")
    return relative.parts[1] if relative.parts[0] == "jfusion" else relative.parts[0]


def sources(*packages: str) -> list[Path]:
    return sorted(path for package in packages for path in (ROOT / package).rglob("*.py"))


def imports(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return names


def attributes(path: Path) -> set[str]:
    return {ast.unparse(node) for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)}


@pytest.mark.parametrize("path", sources("jfusion", "unrolled", "priors"), ids=lambda p: str(p.relative_to(ROOT)))
def test_no_arrow_runs_back_up(path: Path) -> None:
    part = part_of(path)
    if part in FREE:
        return
    for name in imports(path):
        parts = name.split(".")
        if parts[0] == "jfusion" and len(parts) > 1 and parts[1] != "__version__":
            assert {parts[1], ".".join(parts[1:3])} & (MAY_IMPORT[part] | {part}), f"{part} imports {name}"
        elif parts[0] in ("unrolled", "priors", "experiments"):
            assert parts[0] == part, f"{part} imports {name}"


@pytest.mark.parametrize("path", sources("jfusion"), ids=lambda p: str(p.relative_to(ROOT)))
def test_jfusion_never_imports_the_families(path: Path) -> None:
    assert not {name.split(".")[0] for name in imports(path)} & {"unrolled", "priors", "experiments"}


@pytest.mark.parametrize("path", sources("jfusion", "unrolled", "priors"), ids=lambda p: str(p.relative_to(ROOT)))
def test_one_convolution_and_one_pmap(path: Path) -> None:
    used = attributes(path)
    if path.relative_to(ROOT).as_posix() != "jfusion/layers/conv.py":
        assert not {name for name in used if name.startswith(("lax.conv", "jax.lax.conv", "nnx.Conv"))}
    if path.relative_to(ROOT).as_posix() != "jfusion/training/step.py":
        assert "jax.pmap" not in used


def test_help_is_quick_because_nothing_heavy_is_imported() -> None:
    code = (
        "import sys; from jfusion.cli import parser; parser(); "
        "print([m for m in ('jax', 'flax', 'numpy', 'rasterio', 'matplotlib', 'scipy') if m in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


def test_readme_table_is_the_catalogue() -> None:
    from jfusion import catalogue
    from jfusion.report.systems import catalogue_table

    assert catalogue_table(list(catalogue.systems().values())) in (ROOT / "README.md").read_text()
