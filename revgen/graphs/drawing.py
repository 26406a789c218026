"""Draw a graph as SVG, in rows from top to bottom.

Each node is in a row below the nodes that it depends on. Alternating downward and upward sweeps move each node toward
the mean position of its neighbors (Sugiyama, Tagawa & Toda 1981, *Methods for visual understanding of hierarchical
system structures*). The first sweeps also sort the nodes of each row. After each move, isotonic regression finds the
closest positions at which no boxes overlap.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from itertools import pairwise

from revgen.graphs.graph import Graph, Node

ROW_HEIGHT, BOX_GAP, BOX_HEIGHT, NOTED_BOX_HEIGHT, MARGIN = 58, 22, 28, 40, 12  # pixels
NUM_ORDERING_SWEEPS, NUM_SWEEPS = 16, 29
BEND_WIDTH = 4.0
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

Point = tuple[float, float]


def draw(graph: Graph) -> str:
    """Return the graph as an SVG document that adapts to light and dark pages."""
    paths, centers = layout(graph)
    bends = [x for points in paths for x, _ in points]
    left = min(bends + [x - box_width(node) / 2 for node, (x, _) in zip(graph.nodes, centers, strict=True)]) - MARGIN
    right = max(bends + [x + box_width(node) / 2 for node, (x, _) in zip(graph.nodes, centers, strict=True)])
    width = right + MARGIN - left
    if any(node.kind == "cell" for node in graph.nodes):
        width += 24  # for the loops
    height = max(y for _, y in centers) + NOTED_BOX_HEIGHT / 2 + MARGIN
    parts = [_repetition_frame(graph, centers)] if graph.repeated else []
    parts += [_edge(points) for points in paths]
    parts += [_box(node, x, y) for node, (x, y) in zip(graph.nodes, centers, strict=True)]
    view_box = f"{left:.1f} 0 {width:.1f} {height:.1f}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="graph" viewBox="{view_box}" width="{width:.0f}" '
        f'height="{height:.0f}" role="img"><style>{STYLE}</style>{"".join(parts)}</svg>'
    )


# Layout


def layout(graph: Graph) -> tuple[list[list[Point]], list[Point]]:
    """Return the points of each edge from top to bottom, and the center of each node's box.

    An edge has a bend in each row that it crosses. The layout treats a bend as a narrow box.
    """
    nodes = graph.nodes
    row_of = _assign_rows(nodes)
    rows: list[list[int]] = [[] for _ in range(max(row_of) + 1)]
    widths = [box_width(node) for node in nodes]
    above: list[list[int]] = [[] for _ in nodes]  # neighbors in the row above, nodes and bends
    chains: list[list[int]] = []  # for each edge: the upper node, the bends, the lower node
    for i, node in enumerate(nodes):
        rows[row_of[i]].append(i)
        for source in dict.fromkeys(node.sources):
            chain = [source]
            for row in range(row_of[source] + 1, row_of[i]):
                widths.append(BEND_WIDTH)
                above.append([chain[-1]])
                chain.append(len(widths) - 1)
                rows[row].append(chain[-1])
            above[i].append(chain[-1])
            chains.append([*chain, i])
    x = _assign_columns(rows, above, widths, len(nodes))
    y = [0.0] * len(widths)
    for row, members in enumerate(rows):
        for i in members:
            y[i] = MARGIN + NOTED_BOX_HEIGHT / 2 + ROW_HEIGHT * row
    paths = []
    for chain in chains:
        points = [(x[i], y[i]) for i in chain]
        points[0] = (points[0][0], points[0][1] + box_height(nodes[chain[0]]) / 2)
        points[-1] = (points[-1][0], points[-1][1] - box_height(nodes[chain[-1]]) / 2 - 4)
        paths.append(points)
    return paths, [(x[i], y[i]) for i in range(len(nodes))]


def _assign_rows(nodes: Sequence[Node]) -> list[int]:
    """Return the row of each node: below its sources, or for an input, directly above the first node that uses it."""
    rows = [0] * len(nodes)
    for i, node in enumerate(nodes):
        rows[i] = max((rows[j] + 1 for j in node.sources), default=0)
    for i, node in enumerate(nodes):
        if node.kind == "input":
            rows[i] = max(min((rows[j] for j, user in enumerate(nodes) if i in user.sources), default=1) - 1, 0)
    return rows


def _assign_columns(rows: list[list[int]], above: list[list[int]], widths: list[float], num_nodes: int) -> list[float]:
    """Sort each row from left to right, and return the horizontal position of each node and bend."""
    below: list[list[int]] = [[] for _ in widths]
    for i, neighbors in enumerate(above):
        for j in neighbors:
            below[j].append(i)
    x = [0.0] * len(widths)
    for row in rows:
        for i, position in zip(row, spread([0.0] * len(row), [widths[i] for i in row]), strict=True):
            x[i] = position
    for sweep in range(NUM_SWEEPS):
        goes_down = sweep % 2 == 0
        for row in rows if goes_down else rows[::-1]:
            neighbors_of = above if goes_down else below
            wanted = {i: _mean_position(i, neighbors_of[i], x, num_nodes) for i in row}
            if sweep < NUM_ORDERING_SWEEPS:
                row.sort(key=wanted.__getitem__)
            positions = spread([wanted[i] for i in row], [widths[i] for i in row])
            for i, position in zip(row, positions, strict=True):
                x[i] = position
    return x


def _mean_position(i: int, neighbors: Sequence[int], x: Sequence[float], num_nodes: int) -> float:
    """Return the weighted mean position of the neighbors. Bends weigh more, which straightens long edges."""
    if not neighbors:
        return x[i]
    weights = [
        (8 if i >= num_nodes and j >= num_nodes else 2 if i >= num_nodes or j >= num_nodes else 1) for j in neighbors
    ]
    return sum(weight * x[j] for weight, j in zip(weights, neighbors, strict=True)) / sum(weights)


def spread(wanted: Sequence[float], widths: Sequence[float]) -> list[float]:
    """Return the positions nearest to the wanted ones, by least squares, at which boxes do not overlap."""
    offsets = [0.0]
    for width, next_width in pairwise(widths):
        offsets.append(offsets[-1] + (width + next_width) / 2 + BOX_GAP)
    pools: list[tuple[float, int]] = []  # (sum, count) of each group of boxes that touch
    for position, offset in zip(wanted, offsets, strict=False):
        pools.append((position - offset, 1))
        while len(pools) > 1 and pools[-2][0] / pools[-2][1] >= pools[-1][0] / pools[-1][1]:
            last = pools.pop()
            pools[-1] = (pools[-1][0] + last[0], pools[-1][1] + last[1])
    means = [total / count for total, count in pools for _ in range(count)]
    return [mean + offset for mean, offset in zip(means, offsets, strict=False)]


def box_width(node: Node) -> float:
    """Return the width of a node's box in pixels, estimated from its text."""
    return max(7.9 * len(node.label), 6.4 * len(node.note), 14) + 20


def box_height(node: Node) -> int:
    """Return the height of a node's box in pixels."""
    return NOTED_BOX_HEIGHT if node.note else BOX_HEIGHT


# SVG elements


def _box(node: Node, x: float, y: float) -> str:
    width, height = box_width(node), box_height(node)
    radius = height // 2 if node.kind in ("input", "output") else 7
    loop = _loop(x + width / 2, y) if node.kind == "cell" else ""
    rect = (
        f'<rect x="{x - width / 2:.1f}" y="{y - height / 2:.1f}" width="{width:.1f}" height="{height}" rx="{radius}"/>'
    )
    label = f'<text x="{x:.1f}" y="{y + (4.5 if not node.note else -2):.1f}">{escape(node.label)}</text>'
    note = f'<text class="note" x="{x:.1f}" y="{y + 13:.1f}">{escape(node.note)}</text>' if node.note else ""
    return f'<g class="{node.kind}">{loop}{rect}{label}{note}</g>'


def _edge(points: Sequence[Point]) -> str:
    curves = [f"M{points[0][0]:.1f} {points[0][1]:.1f}"]
    for (x0, y0), (x1, y1) in pairwise(points):
        middle = (y0 + y1) / 2
        curves.append(f"C{x0:.1f} {middle:.1f} {x1:.1f} {middle:.1f} {x1:.1f} {y1:.1f}")
    x, y = points[-1]
    arrow = f'<path class="arrow" d="M{x:.1f} {y + 4:.1f}l-3.5 -7h7z"/>'
    return f'<path d="{"".join(curves)}"/>{arrow}'


def _repetition_frame(graph: Graph, centers: Sequence[Point]) -> str:
    """Draw a dashed frame around the repeated nodes, with the number of repetitions."""
    assert graph.repeated is not None
    first, end, times = graph.repeated
    repeated = list(zip(graph.nodes[first:end], centers[first:end], strict=True))
    left = min(x - box_width(node) / 2 for node, (x, _) in repeated)
    right = max(x + box_width(node) / 2 for node, (x, _) in repeated)
    top, bottom = min(y for _, (_, y) in repeated), max(y for _, (_, y) in repeated)
    return (
        f'<g class="repeated"><rect x="{left - 9:.1f}" y="{top - 27:.1f}" width="{right - left + 18:.1f}" '
        f'height="{bottom - top + 54:.1f}" rx="10"/>'
        f'<text x="{right - 8:.1f}" y="{top - 11:.1f}">× {times}</text></g>'
    )


def _loop(x: float, y: float) -> str:
    """Draw an arrow from a cell back to itself, for its state."""
    return (
        f'<path d="M{x:.1f} {y + 8:.1f}c26 6 26 -22 5 -16"/><path class="arrow" d="M{x:.1f} {y - 7:.1f}l7 -4.5l1 8z"/>'
    )
