"""Drawing: a graph laid out in rows, as SVG.

Every node stands below what it depends on. The order within a row comes from the neighbours' mean places, swept down
and up; the places are then the nearest to those means at which nothing overlaps.
(Sugiyama, Tagawa & Toda 1981; the last step is isotonic regression.)
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from revgen.comparison.graph import Graph, Node

ROW, GAP, HEIGHT, NOTED, MARGIN = 58, 22, 28, 40, 12
SORTING = 16
"""Sweeps that choose the order within a row; the others move without changing it."""

STYLE = """
.graph{--ink:#1d2530;--quiet:#68727f;--line:#9aa4b1;--box:#fff;--weights:#e4ecfd;--weights-line:#7d9ee8;
--cell:#e2f3ea;--cell-line:#5fae86;--end:#f1f2f4;font:13px ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}
@media(prefers-color-scheme:dark){.graph{--ink:#e4e8ee;--quiet:#98a3b1;--line:#68727f;--box:#1d232c;
--weights:#22304f;--weights-line:#5d80cf;--cell:#1d3a2d;--cell-line:#4d9a73;--end:#2a313b}}
.graph rect{fill:var(--box);stroke:var(--line)}.graph .weights rect{fill:var(--weights);stroke:var(--weights-line)}
.graph .cell rect{fill:var(--cell);stroke:var(--cell-line)}
.graph .input rect,.graph .output rect{fill:var(--end);stroke:none}
.graph .repeated rect{fill:none;stroke:var(--line);stroke-dasharray:4 4}
.graph text{fill:var(--ink);text-anchor:middle}.graph .note{fill:var(--quiet);font-size:10.5px}
.graph path{fill:none;stroke:var(--line);stroke-width:1.3}.graph .arrow{fill:var(--line);stroke:none}
"""


def draw(graph: Graph) -> str:
    """The graph as SVG."""
    paths, places = layout(graph)
    boxes = [(x - width_of(node) / 2, x + width_of(node) / 2) for node, (x, _) in zip(graph.nodes, places, strict=True)]
    bends = [x for points in paths for x, _ in points]
    left = min(bends + [left for left, _ in boxes]) - MARGIN
    width = max(bends + [right for _, right in boxes]) + MARGIN - left
    loops = any(node.kind == "cell" for node in graph.nodes)
    width += 24 if loops else 0
    height = max(y for _, y in places) + NOTED / 2 + MARGIN
    parts = [_frame(graph, places)] if graph.repeated else []
    parts += [_edge(points) for points in paths]
    for node, (x, y) in zip(graph.nodes, places, strict=True):
        w, h = width_of(node), height_of(node)
        box = f'<rect x="{x - w / 2:.1f}" y="{y - h / 2:.1f}" width="{w:.1f}" height="{h}" rx="{_radius(node)}"/>'
        label = f'<text x="{x:.1f}" y="{y + (4.5 if not node.note else -2):.1f}">{escape(node.label)}</text>'
        note = f'<text class="note" x="{x:.1f}" y="{y + 13:.1f}">{escape(node.note)}</text>' if node.note else ""
        loop = _loop(x + w / 2, y) if node.kind == "cell" else ""
        parts.append(f'<g class="{node.kind}">{loop}{box}{label}{note}</g>')
    box = f"{left:.1f} 0 {width:.1f} {height:.1f}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="graph" viewBox="{box}" width="{width:.0f}" '
        f'height="{height:.0f}" role="img"><style>{STYLE}</style>{"".join(parts)}</svg>'
    )


Point = tuple[float, float]


def layout(graph: Graph) -> tuple[list[list[Point]], list[Point]]:
    """Each edge's points from top to bottom, and each node's middle."""
    nodes = graph.nodes
    depth = _depths(nodes)
    rows: list[list[int]] = [[] for _ in range(max(depth) + 1)]
    widths = [width_of(node) for node in nodes]
    above: list[list[int]] = [[] for _ in nodes]  # neighbours, those of the bends of long edges among them
    chains: list[list[int]] = []
    for i, node in enumerate(nodes):
        rows[depth[i]].append(i)
        for source in dict.fromkeys(node.sources):
            chain = [source]
            for row in range(depth[source] + 1, depth[i]):
                widths.append(4.0)
                above.append([chain[-1]])
                chain.append(len(widths) - 1)
                rows[row].append(chain[-1])
            above[i].append(chain[-1])
            chains.append([*chain, i])
    below: list[list[int]] = [[] for _ in widths]
    for i, neighbours in enumerate(above):
        for j in neighbours:
            below[j].append(i)
    x = [0.0] * len(widths)
    for row_ in rows:
        for i, place in zip(row_, spread([0.0] * len(row_), [widths[i] for i in row_]), strict=True):
            x[i] = place
    for sweep in range(SORTING + 13):
        for row_ in rows if sweep % 2 == 0 else rows[::-1]:
            near = above if sweep % 2 == 0 else below
            wished = {i: _mean_place(i, near[i], x, len(nodes)) for i in row_}
            if sweep < SORTING:
                row_.sort(key=wished.__getitem__)
            placed = spread([wished[i] for i in row_], [widths[i] for i in row_])
            for i, place in zip(row_, placed, strict=True):
                x[i] = place
    y = [0.0] * len(widths)
    for number, row_ in enumerate(rows):
        for i in row_:
            y[i] = MARGIN + NOTED / 2 + ROW * number
    paths = []
    for chain in chains:
        points = [(x[i], y[i]) for i in chain]
        end = height_of(nodes[chain[-1]]) / 2
        points[0] = (points[0][0], points[0][1] + height_of(nodes[chain[0]]) / 2)
        points[-1] = (points[-1][0], points[-1][1] - end - 4)
        paths.append(points)
    return paths, [(x[i], y[i]) for i in range(len(nodes))]


def spread(wished: Sequence[float], widths: Sequence[float]) -> list[float]:
    """The places nearest to the wished ones, by least squares, at which things of these widths do not overlap."""
    offsets = [0.0]
    for one, other in pairwise(widths):
        offsets.append(offsets[-1] + (one + other) / 2 + GAP)
    pools: list[tuple[float, int]] = []  # (sum, count) of neighbours that touch
    for place, offset in zip(wished, offsets, strict=False):
        pools.append((place - offset, 1))
        while len(pools) > 1 and pools[-2][0] / pools[-2][1] >= pools[-1][0] / pools[-1][1]:
            last = pools.pop()
            pools[-1] = (pools[-1][0] + last[0], pools[-1][1] + last[1])
    means = [total / count for total, count in pools for _ in range(count)]
    return [mean + offset for mean, offset in zip(means, offsets, strict=False)]


def _depths(nodes: Sequence[Node]) -> list[int]:
    """The row of each node: below its sources; an input as low as what uses it allows."""
    depth = [0] * len(nodes)
    for i, node in enumerate(nodes):
        depth[i] = max((depth[j] + 1 for j in node.sources), default=0)
    for i, node in enumerate(nodes):
        if node.kind == "input":
            depth[i] = max(min((depth[j] for j, n in enumerate(nodes) if i in n.sources), default=1) - 1, 0)
    return depth


def _mean_place(i: int, neighbours: Sequence[int], x: Sequence[float], nodes: int) -> float:
    """The mean of the neighbours' places; long edges, bent at what is no node, pull hardest to become straight."""
    if not neighbours:
        return x[i]
    pulls = [(8 if i >= nodes and j >= nodes else 2 if i >= nodes or j >= nodes else 1) for j in neighbours]
    return sum(pull * x[j] for pull, j in zip(pulls, neighbours, strict=True)) / sum(pulls)


def width_of(node: Node) -> float:
    """The width of a node's box in pixels, about what its text needs."""
    return max(7.9 * len(node.label), 6.4 * len(node.note), 14) + 20


def height_of(node: Node) -> int:
    """The height of a node's box in pixels."""
    return NOTED if node.note else HEIGHT


def _radius(node: Node) -> int:
    return height_of(node) // 2 if node.kind in ("input", "output") else 7


def _edge(points: Sequence[Point]) -> str:
    curves = [f"M{points[0][0]:.1f} {points[0][1]:.1f}"]
    for (x0, y0), (x1, y1) in pairwise(points):
        middle = (y0 + y1) / 2
        curves.append(f"C{x0:.1f} {middle:.1f} {x1:.1f} {middle:.1f} {x1:.1f} {y1:.1f}")
    x, y = points[-1]
    arrow = f'<path class="arrow" d="M{x:.1f} {y + 4:.1f}l-3.5 -7h7z"/>'
    return f'<path d="{"".join(curves)}"/>{arrow}'


def _frame(graph: Graph, places: Sequence[Point]) -> str:
    """What surrounds the nodes that are repeated, with how often."""
    assert graph.repeated is not None
    first, end, times = graph.repeated
    some = list(zip(graph.nodes[first:end], places[first:end], strict=True))
    left, right = min(x - width_of(n) / 2 for n, (x, _) in some), max(x + width_of(n) / 2 for n, (x, _) in some)
    top, bottom = (pick(y for _, (_, y) in some) for pick in (min, max))
    return (
        f'<g class="repeated"><rect x="{left - 9:.1f}" y="{top - 27:.1f}" width="{right - left + 18:.1f}" '
        f'height="{bottom - top + 54:.1f}" rx="10"/>'
        f'<text x="{right - 8:.1f}" y="{top - 11:.1f}">× {times}</text></g>'
    )


def _loop(x: float, y: float) -> str:
    """The state that goes back into a cell."""
    return (
        f'<path d="M{x:.1f} {y + 8:.1f}c26 6 26 -22 5 -16"/><path class="arrow" d="M{x:.1f} {y - 7:.1f}l7 -4.5l1 8z"/>'
    )
