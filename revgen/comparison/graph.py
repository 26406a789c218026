"""The computational graph of a model, taken from the model itself as it computes, for ``drawing`` to draw."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from revgen.language_model import LanguageModel

LIMIT = 60
"""Nodes beyond which a graph is no picture any more."""
FOLDED = 24
"""Nodes beyond which layers that are the same are drawn once."""
NUMBER = r"(?<=[. ])\d+"


@dataclass
class Node:
    """A box of the picture: ``kind`` is input, output, operation, weights (an operation with them), or cell."""

    label: str
    sources: list[int] = field(default_factory=list)
    kind: str = "operation"
    note: str = ""


@dataclass
class Graph:
    """Nodes, each behind those that it depends on."""

    nodes: list[Node] = field(default_factory=list)
    repeated: tuple[int, int, int] | None = None
    """(first, end, times) of nodes that are drawn once for several layers."""

    def add(self, label: str, sources: Iterable[int] = (), kind: str = "operation", note: str = "") -> int:
        """Add a node; its number."""
        self.nodes.append(Node(label, list(sources), kind, note))
        return len(self.nodes) - 1

    def tidied(self) -> Graph:
        """The same without what no output needs; weights that meet one input in the same way, as an embedding meets
        several tokens, are one node, and so are the equal layers of a long graph."""
        needed: set[int] = set()
        for i in reversed(range(len(self.nodes))):
            if i in needed or self.nodes[i].kind == "output":
                needed |= {i, *self.nodes[i].sources}
        graph = Graph()
        place: dict[int, int] = {}
        seen: dict[tuple[str, tuple[int, ...]], int] = {}
        for i in sorted(needed):
            node = self.nodes[i]
            sources = [place[j] for j in node.sources]
            key = node.label, tuple(sources)
            if key not in seen or node.kind != "weights" or any(graph.nodes[j].kind != "input" for j in sources):
                seen[key] = graph.add(node.label, sources, node.kind, node.note)
            place[i] = seen[key]
        return graph.folded() if len(graph.nodes) > FOLDED else graph

    def folded(self) -> Graph:
        """The same with the longest repetition drawn once."""
        found = [
            (period * times, times, first, period)
            for first in range(len(self.nodes))
            for period in range(3, (len(self.nodes) - first) // 2 + 1)
            if (times := self._times(first, period)) > 1
        ]
        if not found:
            return self
        _, times, first, period = max(found, key=lambda f: (f[0], f[1], -f[2]))
        end, more = first + period, period * (times - 1)
        graph = Graph(self.nodes[:end], (first, end, times))
        for node in self.nodes[end + more :]:
            sources = [j if j < end else j - more for j in node.sources]
            graph.add(node.label, sources, node.kind, node.note)
        return graph

    def _times(self, first: int, period: int) -> int:
        """How often the nodes from ``first`` come one behind the other, but for the numbers in their names."""
        i = first
        while i + period < len(self.nodes) and self._same(i, i + period, first):
            i += 1
        return (i - first) // period + 1

    def _same(self, i: int, j: int, first: int) -> bool:
        one, other = self.nodes[i], self.nodes[j]
        return (
            (re.sub(NUMBER, "", one.label), one.kind, one.note)
            == (re.sub(NUMBER, "", other.label), other.kind, other.note)
            and len(one.sources) == len(other.sources)
            and all(b - a == j - i or a == b < first for a, b in zip(one.sources, other.sources, strict=True))
        )

    def to_svg(self) -> str:
        """The picture as an SVG document that adapts to light and dark pages."""
        from revgen.comparison.drawing import draw

        return draw(self)


def graphs(model: LanguageModel) -> dict[str, Graph]:
    """The pictures of a fitted model by title: of the network around its cells and of one cell's time step, or of the
    whole network, or where that is not to be had or too large, of its weights in blocks."""
    stack: Any = getattr(model, "definition", None)
    found: dict[str, Graph] = {}
    from revgen.comparison.trace import trace_cell, trace_network, trace_stack

    try:
        if hasattr(stack, "cells"):
            found["network"] = trace_stack(stack, model.architecture, model.weights)
            found["one time step of a cell"] = trace_cell(stack.cells[0])
        elif hasattr(model, "make_network"):
            found["network"] = trace_network(model.make_network())
    except Exception:  # a network may do what cannot be followed: its weights can be shown all the same
        pass
    tidied = {title: graph.tidied() for title, graph in found.items() if connected(graph)}
    drawn = {title: graph for title, graph in tidied.items() if len(graph.nodes) <= LIMIT}
    return drawn if "network" in drawn else {"weights": blocks(model.weights)} | drawn


def connected(graph: Graph) -> bool:
    """Whether all outputs come from somewhere."""
    return all(node.sources for node in graph.nodes if node.kind == "output")


def blocks(weights: Mapping[str, Any]) -> Graph:
    """One block below the other: the groups of weights, by what stands before the last dot of their names."""
    groups: dict[str, list[str]] = {}
    for name, value in weights.items():
        group, _, leaf = name.rpartition(".")
        groups.setdefault(f"order {group}" if group.isdigit() else group, []).append(
            f"{leaf} {' × '.join(map(str, value.shape))}".strip()
        )
    graph = Graph()
    last = graph.add("token", kind="input")
    notes = [(group, "  ".join(found)) for group, found in groups.items()]
    while notes:
        same = next((i for i, (_, note) in enumerate(notes) if note != notes[0][1]), len(notes))
        label = notes[0][0] if same == 1 else f"{notes[0][0]} … {notes[same - 1][0]}"
        last = graph.add(label or "weights", [last], "weights", notes[0][1])
        notes = notes[same:]
    graph.add("logits", [last], "output")
    return graph
