"""Draw curves as SVG without a plotting library: one panel for each curve, side by side."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape

PANEL_WIDTH, PANEL_HEIGHT = 380, 240
LEFT, RIGHT, TOP, BOTTOM = 52, 16, 34, 40  # margins in pixels
NUM_GRID_LINES, NUM_TICKS = 4, 6
STYLE = """
svg{font:12px system-ui,sans-serif;background:#fff}text{fill:#1d2530}.quiet{fill:#68727f}
.line{fill:none;stroke:#4c82e6;stroke-width:2;stroke-linejoin:round}.grid{stroke:#e3e6ea}circle{fill:#4c82e6}
"""


def draw_curves(curves: Mapping[str, Sequence[float]], x_label: str) -> str:
    """Return one SVG image of all curves, given by title. The points of each curve are numbered from 1."""
    width = PANEL_WIDTH * len(curves)
    panels = "".join(
        f'<g transform="translate({PANEL_WIDTH * i} 0)">{"".join(_panel(title, values, x_label))}</g>'
        for i, (title, values) in enumerate(curves.items())
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {PANEL_HEIGHT}" width="{width}" '
        f'height="{PANEL_HEIGHT}" role="img"><title>{escape(", ".join(curves))}</title><style>{STYLE}</style>'
        f"{panels}</svg>\n"
    )


def _panel(title: str, values: Sequence[float], x_label: str) -> Iterator[str]:
    """Yield the SVG elements of one panel, whose lowest point has a marker."""
    low, high = min(values), max(values)
    margin = (high - low) * 0.06 or abs(high) * 0.01 or 1
    low, high = low - margin, high + margin

    def x(number: float) -> float:
        return LEFT + (PANEL_WIDTH - LEFT - RIGHT) * (number - 1) / max(len(values) - 1, 1)

    def y(value: float) -> float:
        return TOP + (PANEL_HEIGHT - TOP - BOTTOM) * (high - value) / (high - low)

    yield f'<text x="{LEFT}" y="20">{escape(title)}</text>'
    for i in range(NUM_GRID_LINES):
        value = low + (high - low) * (i + 0.5) / NUM_GRID_LINES
        yield f'<path class="grid" d="M{LEFT} {y(value):.1f}H{PANEL_WIDTH - RIGHT}"/>'
        yield f'<text class="quiet" x="{LEFT - 6}" y="{y(value) + 4:.1f}" text-anchor="end">{value:.3g}</text>'
    for number in range(1, len(values) + 1, max(1, round(len(values) / NUM_TICKS))):
        yield f'<text class="quiet" x="{x(number):.1f}" y="{PANEL_HEIGHT - 22}" text-anchor="middle">{number}</text>'
    middle = (LEFT + PANEL_WIDTH - RIGHT) / 2
    yield f'<text class="quiet" x="{middle}" y="{PANEL_HEIGHT - 6}" text-anchor="middle">{x_label}</text>'
    points = " ".join(f"{x(number):.1f},{y(value):.1f}" for number, value in enumerate(values, 1))
    yield f'<polyline class="line" points="{points}"/>'
    best = min(range(len(values)), key=values.__getitem__)
    yield f'<circle cx="{x(best + 1):.1f}" cy="{y(values[best]):.1f}" r="4"/>'
