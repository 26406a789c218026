"""The charts, by matplotlib: of a comparison, loss against training time and against the order of n-grams; of a run,
loss against epochs and against the learning rate."""

from __future__ import annotations

import io
import math
import re
from functools import partial
from typing import TYPE_CHECKING, Any

from revgen.plots import COLORS, WIDTH, new_figure, style_axes

if TYPE_CHECKING:
    from collections.abc import Callable

    from revgen.comparison.compare import Comparison

INK = "#010203"
"""Stands for the page's own colour of text, which a chart takes on when it is drawn as SVG."""
FONTS = "system-ui, sans-serif"


def _single(draw: Callable[[Any], None], ink: str = "black") -> Any:
    """One chart as a figure."""
    made = new_figure()
    axes = made.add_subplot()
    draw(axes)
    style_axes(axes, ink)
    return made


def figure(comparison: Comparison, ink: str = "black") -> Any:
    """Both charts in one matplotlib figure, or the one for which there are figures."""
    draws = [draw for draw, there in ((_time, comparison.rows), (_orders, comparison.orders)) if there]
    made = new_figure(WIDTH * len(draws), 4.2)
    for place, draw in enumerate(draws, 1):
        axes = made.add_subplot(1, len(draws), place)
        draw(axes, comparison, ink)
        style_axes(axes, ink)
    return made


def charts(comparison: Comparison) -> dict[str, str]:
    """Each chart as SVG text by its title; text in it has the colour of what stands around it."""
    new_figure()  # raises MissingExtraError without matplotlib
    from matplotlib import rc_context

    found = {}
    for title, draw, there in (
        ("Loss against training time", _time, any(row.history for row in comparison)),
        ("Loss against n-gram order", _orders, bool(comparison.orders)),
    ):
        if not there:
            continue
        with rc_context({"svg.fonttype": "none", "svg.hashsalt": title, "font.family": "sans-serif"}):
            made = _single(partial(draw, comparison=comparison, ink=INK), INK)
            made.patch.set_alpha(0)
            file = io.StringIO()
            made.savefig(file, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
        found[title] = _plain(file.getvalue())
    return found


def _time(axes: Any, comparison: Comparison, ink: str) -> None:
    rows = [(row, [p for p in row.history if math.isfinite(p[1])]) for row in comparison]
    rows = [(row, points) for row, points in rows if points]
    for (row, points), colour in zip(rows, COLORS * len(rows), strict=False):
        seconds, nats = zip(*points, strict=True)
        marker = "o" if len(points) > 1 else "D"
        axes.plot(seconds, nats, marker=marker, markersize=4 if len(points) > 1 else 6, color=colour, label=row.model)
    if rows:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.legend(frameon=False, labelcolor=ink, fontsize=9)
    axes.set_xlabel("seconds of training")
    axes.set_ylabel("nats per character, held-out text")


def _orders(axes: Any, comparison: Comparison, ink: str) -> None:
    orders = [point.order for point in comparison.orders]
    held_out = [point.valid_nats_per_char for point in comparison.orders]
    axes.plot(orders, held_out, marker="o", markersize=4, color=COLORS[1], label="held-out text")
    train = [point.train_nats_per_char for point in comparison.orders]
    axes.plot(orders, train, marker="o", markersize=4, color=COLORS[0], label="training text")
    best = min(range(len(orders)), key=held_out.__getitem__)
    axes.plot([orders[best]], [held_out[best]], marker="o", markersize=11, fillstyle="none", color=COLORS[1])
    axes.annotate(
        f"{held_out[best]:.3f}", (orders[best], held_out[best]), (0, 12), textcoords="offset points", ha="center"
    ).set_color(ink)
    axes.set_xticks(orders)
    axes.set_xlabel("order of Kneser-Ney n-grams, in characters")
    axes.set_ylabel("nats per character")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False, labelcolor=ink, fontsize=9)


def _plain(svg: str) -> str:
    """The ``<svg>`` element alone, in the colours and fonts of the page."""
    svg = svg[svg.index("<svg") :].replace(INK, "currentColor")
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' id="[a-z]\w*_\d+"', "", svg)  # names of groups, the same in every chart
    return svg.replace("<svg ", '<svg class="chart" role="img" ', 1).replace("sans-serif", FONTS)
