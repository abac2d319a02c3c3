"""Curves as inline SVG whose ink follows the page's light or dark theme."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SERIES = 8
"""So many colours tell curves apart; the page defines them as ``--series-0`` and so on."""

FEW = 16
"""Curves of so many points or fewer show each of them."""

_INK, _FAINT = "#010101", "#020202"
_SERIES = tuple(f"#0300{k:02x}" for k in range(SERIES))
_THEME = {_INK: "currentColor", _FAINT: "var(--faint)"} | {c: f"var(--series-{k})" for k, c in enumerate(_SERIES)}
_STYLE: Any = {
    "svg.fonttype": "none",
    "font.size": 8.0,
    "text.color": _INK,
    "axes.edgecolor": _FAINT,
    "axes.labelcolor": _INK,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 8.5,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.formatter.useoffset": False,
    "grid.color": _FAINT,
    "grid.linewidth": 0.3,
    "grid.alpha": 0.5,
    "axes.grid": True,
    "xtick.color": _FAINT,
    "ytick.color": _FAINT,
    "xtick.labelcolor": _INK,
    "ytick.labelcolor": _INK,
    "xtick.major.size": 2.0,
    "ytick.major.size": 2.0,
    "lines.linewidth": 1.0,
    "lines.solid_joinstyle": "round",
}


def _axes(width: float, height: float, right: float) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height))
    figure.patch.set_visible(False)
    axes = figure.add_axes((0.5 / width, 0.42 / height, (width - 0.5 - right) / width, (height - 0.7) / height))
    axes.patch.set_visible(False)
    return figure, axes


def _svg(figure: Figure, name: str, description: str) -> str:
    """The figure as an ``<svg>`` element, the same for the same content; ``name`` keeps its ids apart on a page."""
    import matplotlib
    from markupsafe import escape

    buffer = io.StringIO()
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.S)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    svg = re.sub(r"(\d+(?:\.\d+)?px) '[^;\"]*?sans-serif", r"\1 var(--font)", svg)
    svg = svg.replace("xlink:href", "href")
    svg = re.sub(r"(url\(#|\bhref=\"#|\bid=\")", rf"\g<1>{name}-", svg)
    for ink, variable in _THEME.items():
        svg = svg.replace(ink, variable)
    view = re.search(r'viewBox="[^"]*"', svg)
    opening = f'<svg {view.group() if view else ""} role="img" aria-label="{escape(description)}">'
    return re.sub(r"<svg[^>]*>", lambda _: opening, svg, count=1).strip()


def with_gaps(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The curve in order of ``x``; one of many points is broken where a step is over four times the median.

    Bands were left out there; a sensor of a few bands has none to leave out.
    """
    order = np.argsort(x, kind="stable")
    x, y = np.asarray(x, np.float64)[order], np.asarray(y, np.float64)[order]
    steps = np.diff(x)
    gaps = np.flatnonzero(steps > 4 * np.median(steps)) + 1 if len(x) > FEW else np.array([], int)
    return np.insert(x, gaps, x[gaps]), np.insert(y, gaps, np.nan)


def spread(positions: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """The nearest positions (least squares) in the same order, at least ``gap`` apart and inside [low, high].

    The gap shrinks where there is no room for all. Isotonic regression by pooling neighbours that are too near.
    """
    gap = min(gap, (high - low) / max(len(positions) - 1, 1))
    order = sorted(range(len(positions)), key=positions.__getitem__)
    pools: list[tuple[float, int]] = []
    for k, i in enumerate(order):
        mean, size = positions[i] - k * gap, 1
        while pools and pools[-1][0] > mean:
            other, count = pools.pop()
            mean, size = (mean * size + other * count) / (size + count), size + count
        pools.append((mean, size))
    room = high - (len(positions) - 1) * gap
    moved = [0.0] * len(positions)
    starts = (min(max(mean, low), room) for mean, size in pools for _ in range(size))
    for k, (i, start) in enumerate(zip(order, starts, strict=True)):
        moved[i] = start + k * gap
    return moved


def _label_ends(axes: Axes, ends: Mapping[str, tuple[float, float]], colours: Mapping[str, str]) -> None:
    """Names each curve at the right of the axes, joined to its end where the name had to move."""
    axes.autoscale_view()
    height = axes.get_window_extent().height / axes.get_figure().dpi * 72  # type: ignore[union-attr]
    to_axes = axes.transData + axes.transAxes.inverted()
    points = {name: to_axes.transform(end) for name, end in ends.items()}
    moved = spread([float(y) for _, y in points.values()], 9.0 / height, 0.02, 0.98)
    for (name, (x, y)), label in zip(points.items(), moved, strict=True):
        axes.plot(
            (x, 1.035), (y, label), color=colours[name], lw=0.5, alpha=0.5, transform=axes.transAxes, clip_on=False
        )
        axes.text(
            1.045, label, name, color=colours[name], size=7.5, va="center", transform=axes.transAxes, parse_math=False
        )


def _ends(curves: Mapping[str, tuple[np.ndarray, np.ndarray]], log: bool) -> dict[str, tuple[float, float]]:
    """Where each curve is drawn last."""
    ends = {}
    for name, (x, y) in curves.items():
        known = np.flatnonzero(np.isfinite(y) & ((y > 0) | (not log)))
        if len(known):
            ends[name] = (float(x[known[-1]]), float(y[known[-1]]))
    return ends


def lines(
    name: str,
    title: str,
    x: np.ndarray | None,
    curves: Mapping[str, np.ndarray],
    *,
    truth: str | None = None,
    xlabel: str,
    ylabel: str,
    log: bool = False,
    colours: Mapping[str, int] | None = None,
    dashed: Sequence[str] = (),
    unnamed: Sequence[str] = (),
) -> str:
    """Curves over one axis with their names at their ends.

    Args:
        name: identifier of the plot on its page, letters, digits and hyphens.
        title: heading; also read out in place of the plot.
        x: ``(n,)``, the numbers from 1 on where None.
        curves: ``(n,)`` by name; nan is a gap.
        truth: name of the curve that is drawn in the text's colour.
        xlabel, ylabel: of the axes.
        log: logarithmic ordinate.
        colours: index of each curve's colour where it is not its position.
        dashed: names of curves that are drawn dashed.
        unnamed: names of curves that share the colour of another and need no name.
    """
    import matplotlib
    from matplotlib.ticker import MaxNLocator

    with matplotlib.rc_context(_STYLE):
        figure, axes = _axes(5.0, 2.5, right=1.05)
        position = {n: k for k, n in enumerate(n for n in curves if n != truth)} if colours is None else colours
        ink = {n: _INK if n == truth else _SERIES[position[n] % SERIES] for n in curves}
        drawn = {
            n: with_gaps(np.arange(1, len(y) + 1) if x is None else np.asarray(x), np.asarray(y))
            for n, y in curves.items()
        }
        for n, (u, v) in drawn.items():
            marker = "." if len(u) <= FEW else ""
            width = 1.5 if n == truth else 0.9
            axes.plot(u, v, color=ink[n], lw=width, ls="--" if n in dashed else "-", marker=marker, ms=4)
        log = log and any((y > 0).any() for y in map(np.asarray, curves.values()))
        if log:
            axes.set_yscale("log")
        axes.margins(x=0.01)
        axes.set_title(title, parse_math=False)
        axes.set_xlabel(xlabel, labelpad=2, parse_math=False)
        axes.set_ylabel(ylabel, labelpad=3, parse_math=False)
        if x is None and len(drawn) and max(len(y) for y in curves.values()) <= FEW:
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        _label_ends(axes, _ends({n: curve for n, curve in drawn.items() if n not in unnamed}, log), ink)
        return _svg(figure, name, f"{title}: {ylabel} over {xlabel} of {', '.join(curves)}")
