"""The charts of a comparison, drawn with matplotlib: loss against training time, and loss against n-gram order."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable
from typing import Any

from revgen.comparison.results import Results
from revgen.display.plots import COLORS, HEIGHT, WIDTH, new_figure, pyplot_figure, style_axes

PLACEHOLDER_COLOR = "#010203"
"""The color of text, which no other element has. In SVG, it becomes ``currentColor``, the text color of the page."""
TIMES = [digit * 10.0**exponent for exponent in range(-4, 8) for digit in (1, 2, 5)]
"""The labels of the logarithmic axis of time, in seconds, as far as they are in the chart."""
FONTS = "system-ui, sans-serif"


def plot(results: Results) -> Any:
    """Return one matplotlib figure with every chart that there is data for."""
    draw_functions = []
    if results.rows:
        draw_functions.append(_draw_loss_over_time)
    if results.orders:
        draw_functions.append(_draw_loss_over_order)
    return _draw_charts(pyplot_figure(WIDTH * len(draw_functions), HEIGHT), results, draw_functions, "black")


def svg_charts(results: Results) -> dict[str, str]:
    """Return the SVG of each chart by its title. Raises MissingExtraError without matplotlib."""
    new_figure()  # raises the error even if there is no chart to draw
    charts = {}
    if any(row.history for row in results):
        title = "Loss against training time"
        charts[title] = _to_svg(results, _draw_loss_over_time, title)
    if results.orders:
        title = "Loss against n-gram order"
        charts[title] = _to_svg(results, _draw_loss_over_order, title)
    return charts


def _draw_charts(figure: Any, results: Results, draw_functions: list[Callable[..., None]], text_color: str) -> Any:
    for i, draw in enumerate(draw_functions, 1):
        axes = figure.add_subplot(1, len(draw_functions), i)
        draw(axes, results, text_color)
        style_axes(axes, text_color)
    return figure


def _draw_loss_over_time(axes: Any, results: Results, text_color: str) -> None:
    curves = [(row.model, [(x, y) for x, y in row.history if math.isfinite(y)]) for row in results]
    curves = [(name, points) for name, points in curves if points]
    for i, (name, points) in enumerate(curves):
        seconds, nats = zip(*points, strict=True)
        marker, size = ("o", 4) if len(points) > 1 else ("D", 6)
        axes.plot(
            seconds, nats, marker=marker, markersize=size, color=COLORS[i % len(COLORS)], label=name.replace("$", r"\$")
        )
    if curves:
        axes.set_xscale("log", subs=[])
        low, high = axes.get_xlim()
        axes.set_xticks([x for x in TIMES if low <= x <= high], labels=[f"{x:g}" for x in TIMES if low <= x <= high])
        axes.legend(frameon=False, labelcolor=text_color, fontsize=9)
    axes.set_xlabel("seconds of training")
    axes.set_ylabel("nats per character, held-out text")


def _draw_loss_over_order(axes: Any, results: Results, text_color: str) -> None:
    orders = [point.order for point in results.orders]
    held_out = [point.valid_nats_per_char for point in results.orders]
    axes.plot(orders, held_out, marker="o", markersize=4, color=COLORS[1], label="held-out text")
    train = [point.train_nats_per_char for point in results.orders]
    axes.plot(orders, train, marker="o", markersize=4, color=COLORS[0], label="training text")
    best = min(range(len(orders)), key=held_out.__getitem__)
    axes.plot([orders[best]], [held_out[best]], marker="o", markersize=11, fillstyle="none", color=COLORS[1])
    label = f"{held_out[best]:.3f}"
    label_options = {"textcoords": "offset points", "ha": "center", "color": text_color}
    axes.annotate(label, (orders[best], held_out[best]), (0, 12), **label_options)
    axes.set_xticks(orders)
    axes.set_xlabel("order of Kneser-Ney n-grams, in characters")
    axes.set_ylabel("nats per character")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False, labelcolor=text_color, fontsize=9)


def _to_svg(results: Results, draw: Callable[..., None], title: str) -> str:
    """Return one chart as an ``<svg>`` element that takes its text color and fonts from the page."""
    from matplotlib import rc_context

    with rc_context({"svg.fonttype": "none", "svg.hashsalt": title, "font.family": "sans-serif"}):
        figure = _draw_charts(new_figure(), results, [draw], PLACEHOLDER_COLOR)
        figure.patch.set_alpha(0)
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    svg = file.getvalue()
    svg = svg[svg.index("<svg") :].replace(PLACEHOLDER_COLOR, "currentColor")
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' id="[a-z]\w*_\d+"', "", svg)  # they would be the same in every chart of a page
    return svg.replace("<svg ", '<svg class="chart" role="img" ', 1).replace("sans-serif", FONTS)
