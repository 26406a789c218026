"""Curves as SVG, without a plotting library: one panel each, side by side, over whole numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape

WIDTH, HEIGHT = 380, 240
LEFT, RIGHT, TOP, BOTTOM = 52, 16, 34, 40
STYLE = """
svg{font:12px system-ui,sans-serif;background:#fff}text{fill:#1d2530}.quiet{fill:#68727f}
.line{fill:none;stroke:#4c82e6;stroke-width:2;stroke-linejoin:round}.grid{stroke:#e3e6ea}circle{fill:#4c82e6}
"""


def draw(curves: Mapping[str, Sequence[float]], axis: str) -> str:
    """One SVG image of curves by their titles; the points of each are numbered from 1 on the ``axis``."""
    width = WIDTH * len(curves)
    panels = "".join(
        f'<g transform="translate({WIDTH * i} 0)">{"".join(_panel(title, values, axis))}</g>'
        for i, (title, values) in enumerate(curves.items())
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {HEIGHT}" width="{width}" height="{HEIGHT}" '
        f'role="img"><title>{escape(", ".join(curves))}</title><style>{STYLE}</style>{panels}</svg>\n'
    )


def _panel(title: str, values: Sequence[float], axis: str) -> Iterator[str]:
    low, high = min(values), max(values)
    margin = (high - low) * 0.06 or abs(high) * 0.01 or 1
    low, high = low - margin, high + margin

    def x(place: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (place - 1) / max(len(values) - 1, 1)

    def y(value: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (high - value) / (high - low)

    yield f'<text x="{LEFT}" y="20">{escape(title)}</text>'
    for i in range(4):
        value = low + (high - low) * (i + 0.5) / 4
        yield f'<path class="grid" d="M{LEFT} {y(value):.1f}H{WIDTH - RIGHT}"/>'
        yield f'<text class="quiet" x="{LEFT - 6}" y="{y(value) + 4:.1f}" text-anchor="end">{value:.3g}</text>'
    step = max(1, round(len(values) / 6))
    for place in range(1, len(values) + 1, step):
        yield f'<text class="quiet" x="{x(place):.1f}" y="{HEIGHT - 22}" text-anchor="middle">{place}</text>'
    yield f'<text class="quiet" x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 6}" text-anchor="middle">{axis}</text>'
    points = " ".join(f"{x(place):.1f},{y(value):.1f}" for place, value in enumerate(values, 1))
    yield f'<polyline class="line" points="{points}"/>'
    best = min(range(len(values)), key=values.__getitem__)
    yield f'<circle cx="{x(best + 1):.1f}" cy="{y(values[best]):.1f}" r="4"/>'
