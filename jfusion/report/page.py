"""One self-contained HTML page: no script, no font, no picture from elsewhere."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from jfusion.errors import InputError
from jfusion.files import check_output, replaced
from jfusion.metrics import WITHOUT_REFERENCE
from jfusion.report import figures
from jfusion.report.content import SceneSection
from jfusion.report.results import (
    Row,
    display,
    in_words,
    leading_metric,
    memory_text,
    merit,
    metric_names,
    parameters_text,
    places,
    seconds_text,
    with_unit,
)

MADE_BY = '<meta name="generator" content="jfusion">'
"""Stands in the head of every page."""


def _size(image: np.ndarray) -> str:
    return " × ".join(str(n) for n in np.shape(image))


def _table(section: SceneSection) -> dict[str, Any]:
    names = metric_names(section.rows)
    ranks = {n: places(n, [row.metrics.get(n, math.nan) for row in section.rows]) for n in names}
    undefined = [n for n in names if any(math.isnan(row.metrics.get(n, 0.0)) for row in section.rows)]
    return {
        "columns": [display(n) for n in names],
        "baseline": len(section.rows) > 1 and any(row.is_baseline for row in section.rows),
        "undefined": _listed([display(n).label for n in undefined if n in WITHOUT_REFERENCE]),
        "rows": [
            {
                "row": row,
                "cells": [{"text": display(n).text(row.metrics.get(n, math.nan)), "place": ranks[n][i]} for n in names],
                "parameters": parameters_text(row.parameters),
                "seconds": seconds_text(row.seconds),
                "memory": memory_text(row.peak_memory_mib),
            }
            for i, row in enumerate(section.rows)
        ],
    }


def _protocols(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Each distinct protocol with the systems that were run under it."""
    found: list[dict[str, Any]] = []
    for row in rows:
        for entry in found:
            if entry["protocol"] == row.protocol:
                entry["systems"].append(row.system)
                break
        else:
            found.append({"protocol": row.protocol, "systems": [row.system]})
    return [{**entry, "protocol": in_words(entry["protocol"])} for entry in found if entry["protocol"]]


def _headline(section: SceneSection, cards: dict[str, Any]) -> dict[str, Any] | None:
    """The best system by the leading metric but for the trivial baseline, which is told beside it."""
    leading = leading_metric(section.rows)
    if leading is None:
        return None
    rivals = [row for row in section.rows if not row.is_baseline]
    best = max(rivals or section.rows, key=lambda row: merit(leading, row))
    baseline = next((row for row in section.rows if row.is_baseline and row is not best), None)
    product = next((card for card in cards["products"] if card["name"] == best.system), None)
    return {
        "system": best.system,
        "metric": display(leading),
        "value": display(leading).text(best.metrics.get(leading, math.nan)),
        "baseline": baseline and (baseline.system, with_unit(leading, baseline.metrics.get(leading, math.nan))),
        "picture": product and product["whole"],
    }


def _section(section: SceneSection, key: str) -> dict[str, Any]:
    painter = figures.Painter(section)
    cards = figures.cards(section, painter)
    return {
        "key": key,
        "section": section,
        "card": painter.card,
        "frame": painter.frame,
        "zoom": painter.enlargement,
        "inputs": [
            {"name": name, "size": _size(image), "picture": painter.input(image, name, name == "lr")}
            for name, image in section.inputs.items()
        ],
        "lr": painter.input(section.lr, "coarse input", True),
        "cards": cards,
        "table": _table(section),
        "spectra": figures.spectra(section, painter, key),
        "stages": figures.stages(section, painter, key),
        "degradation": figures.degradation(section.degradation, key),
        "protocols": _protocols(section.rows),
        "downloads": [(label, quote(path)) for label, path in section.downloads],
        "headline": _headline(section, cards),
    }


def _listed(names: Sequence[str]) -> str:
    return "".join(names) if len(names) < 2 else f"{', '.join(names[:-1])} and {names[-1]}"


def _summary(sections: Sequence[SceneSection]) -> list[str]:
    """What was done, how it was judged and how it came out."""
    rows = [row for section in sections for row in section.rows]
    systems = len({name for section in sections for name in section.products} | {row.system for row in rows})
    families = len({row.family for row in rows})
    of_families = f" of {families} {'family' if families == 1 else 'families'}" if families else ""
    judged = [s.title for s in sections if s.reference is not None]
    blind = [s.title for s in sections if s.reference is None]
    places = _listed([s.title for s in sections])
    if systems == 1:
        said = [f"{next(iter(sections[0].products))} on {places}."]
    else:
        said = [f"{systems} systems{of_families} on {places}."]
    how = []
    if judged:
        how.append(f"The truth of {_listed(judged)} is known, and products are compared with it pixel by pixel.")
    if blind:
        how.append(
            f"Nobody knows the truth of {_listed(blind)}: what is judged is how products explain what the sensors "
            "gave, of which plain interpolation, too soft as it is, explains much."
        )
    said.append(" ".join(how))
    leaders, better, others = [], 0, 0
    for section in sections:
        leading = leading_metric(section.rows)
        if leading is None or len(section.contestants) < 2:
            continue
        leaders.append(f"{max(section.contestants, key=lambda row: merit(leading, row)).system} on {section.title}")
        for baseline in [row for row in section.rows if row.is_baseline and section.reference is not None]:
            rivals = [row for row in section.rows if not row.is_baseline]
            better += sum(merit(leading, row) > merit(leading, baseline) for row in rivals)
            others += len(rivals)
    if leaders:
        beaten = f"; {better} of {others} results beat the trivial baseline" if others else ""
        said.append(f"Ahead: {_listed(leaders)}{beaten}.")
    return said


def check_page(path: Path) -> None:
    """Raises InputError where a page would take the place of a file that is no page of jfusion's."""
    if path.exists() and MADE_BY not in path.read_text(encoding="utf-8", errors="replace")[:1000]:
        raise InputError(f"{path} is no page of jfusion's and is not replaced; name another folder for the report.")


def write_page(
    path: str | Path,
    title: str,
    lead_text: str,
    sections: Sequence[SceneSection],
    conventions: Mapping[str, tuple[str, str]],
    environment: Mapping[str, Any],
) -> None:
    """Writes the report as one HTML file that needs nothing else; it appears whole or not at all.

    Args:
        path: of the page; an existing one is replaced.
        title: heading, plain text.
        lead_text: introduction, plain text; an empty line starts a paragraph.
        sections: one a scene.
        conventions: what each metric computes and its source, by name.
        environment: versions, device, revision and the like.

    Raises:
        InputError: there is no section, or the folder does not exist.
    """
    if not sections:
        raise InputError("a page must have at least one section, but got none; give it a scene.")
    check_output(Path(path), overwrite=True)
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    templates = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    used = metric_names([row for section in sections for row in section.rows])
    text = templates.get_template("page.html").render(
        title=title,
        lead=[part for part in lead_text.split("\n\n") if part.strip()],
        summary=_summary(sections),
        sections=[_section(section, f"scene-{i}") for i, section in enumerate(sections, 1)],
        conventions=[(display(name), *conventions[name]) for name in used if name in conventions],
        environment=environment,
    )
    with replaced(Path(path)) as temporary:
        temporary.write_text(text, encoding="utf-8")
