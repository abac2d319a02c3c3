"""A row of the catalogue in words."""

from __future__ import annotations

import dataclasses
import inspect
import textwrap
from typing import Any
from urllib.parse import quote

from jfusion.catalogue import Classical, Fitted, System, Trained

WIDTH = 96


def as_dict(system: System) -> dict[str, Any]:
    """The row as plain values, for JSON."""
    return {
        "name": system.name,
        "title": system.title,
        "family": system.family,
        "tasks": list(system.tasks),
        "paper": dataclasses.asdict(system.paper),
        "summary": system.summary,
        "readiness": readiness(system),
        "sizes": sizes(system),
        "parameters": system.parameters and system.parameters[0],
        "parameters_at": system.parameters and dataclasses.asdict(system.parameters[1]),
        "differences": system.differences,
        "needs_model": system.needs_model,
        "reach_in_lr_pixels": system.local,
        "published_weights": weights(system),
    }


def readiness(system: System) -> str:
    """How the system comes to be ready, in one sentence."""
    match system.method:
        case Classical():
            return "at once"
        case Trained(recipe=recipe):
            return f"trained: {recipe.steps:,} steps of {recipe.batch} patches of {recipe.patch} pixels. {recipe.note}"
        case Fitted(steps=steps, note=note):
            return f"fitted to each pair: {steps:,} steps. {note}"


def weights(system: System) -> list[dict[str, Any]]:
    """What is known of published weights, without the names in their files."""
    if not isinstance(system.method, Trained):
        return []
    return [
        {"file": o.file, "bands": dataclasses.asdict(o.bands), "scale": o.scale, "note": o.note}
        for o in system.method.originals
    ]


def sizes(system: System) -> dict[str, Any]:
    """Constructor arguments of the network with the paper's values."""
    match system.method:
        case Trained(network=build) | Fitted(generator=build):
            parameters = inspect.signature(build).parameters.values()
            return {p.name: p.default for p in parameters if p.default is not p.empty and p.name != "rngs"}
    return {}


def describe(system: System) -> str:
    """The row as text of `WIDTH` columns."""
    paper = system.paper
    parts = paper.authors, paper.title and f'"{paper.title}"', ", ".join(filter(None, (paper.venue, str(paper.year))))
    source = f"{'. '.join(filter(None, parts))}."
    lines = {
        "family": system.family,
        "tasks": ", ".join(system.tasks),
        "source": source + (f" doi:{paper.doi}" if paper.doi else ""),
        "code": paper.code,
        "what": system.summary,
        "ready": readiness(system),
        "sizes": ", ".join(f"{name}={value}" for name, value in sizes(system).items()),
        "parameters": "",
        "needs": "PSF and SRF, known or estimated" if system.needs_model else "",
        "reach": "" if system.local is None else f"{system.local} low-resolution pixels, so tiles are exact",
        "differences": system.differences,
        "weights": " ".join(f"{o['file']}. {o['note']}".strip() for o in weights(system)),
    }
    if system.parameters is not None:
        count, bands = system.parameters
        lines["parameters"] = f"{count:,} at {bands}"
    blocks = [
        textwrap.fill(" ".join(text.split()), WIDTH, initial_indent=f"{name:<12} ", subsequent_indent=" " * 13)
        for name, text in lines.items()
        if text
    ]
    return "\n".join([f"{system.title} ({system.name})", *blocks])


def catalogue_table(rows: list[System]) -> str:
    """The systems as a Markdown table: the README's."""
    lines = ["| system | family | what | source |", "|---|---|---|---|"]
    for row in rows:
        source = f"{row.paper.authors.split(',')[0].split()[-1]} {row.paper.year}"
        link = f"[{source}](https://doi.org/{quote(row.paper.doi)})" if row.paper.doi else source
        lines.append(f"| `{row.name}` | {row.family} | {row.title} | {link} |")
    return "\n".join(lines)


if __name__ == "__main__":
    from jfusion import catalogue

    print(catalogue_table(list(catalogue.systems().values())))
