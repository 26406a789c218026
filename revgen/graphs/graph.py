"""The computational graph of a model. ``builder`` makes it, and ``drawing`` draws it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

MAX_UNFOLDED_NODES = 24
"""In a graph with more nodes, repeated layers are drawn once."""
LAYER_NUMBER = r"(?<=[. ])\d+"


@dataclass
class Node:
    """A box in the drawing. ``kind`` is input, output, operation, weights (an operation with weights), or cell."""

    label: str
    sources: list[int] = field(default_factory=list)
    """The indices of the nodes that this one depends on."""
    kind: str = "operation"
    note: str = ""


@dataclass
class Graph:
    """A list of nodes. Each node comes after the nodes that it depends on."""

    nodes: list[Node] = field(default_factory=list)
    repeated: tuple[int, int, int] | None = None
    """(first, end, times): the nodes from ``first`` up to, but not including, ``end`` represent ``times`` layers."""

    def add(self, label: str, sources: Iterable[int] = (), kind: str = "operation", note: str = "") -> int:
        """Add a node and return its index."""
        self.nodes.append(Node(label, list(sources), kind, note))
        return len(self.nodes) - 1

    def simplify(self) -> Graph:
        """Return the graph without the nodes that no output depends on.

        Nodes that apply the same weights to the same input become one, for example several lookups of an embedding.
        If the graph is large, repeated layers are folded.
        """
        needed: set[int] = set()
        for i in reversed(range(len(self.nodes))):
            if i in needed or self.nodes[i].kind == "output":
                needed |= {i, *self.nodes[i].sources}
        graph = Graph()
        new_index: dict[int, int] = {}
        merged: dict[tuple[str, tuple[int, ...]], int] = {}
        for i in sorted(needed):
            node = self.nodes[i]
            sources = [new_index[j] for j in node.sources]
            key = node.label, tuple(sources)
            if key not in merged or node.kind != "weights" or any(graph.nodes[j].kind != "input" for j in sources):
                merged[key] = graph.add(node.label, sources, node.kind, node.note)
            new_index[i] = merged[key]
        return graph.fold() if len(graph.nodes) > MAX_UNFOLDED_NODES else graph

    def fold(self) -> Graph:
        """Return the graph with its longest sequence of repeated layers drawn once."""
        repetitions = [
            (period * times, times, first, period)
            for first in range(len(self.nodes))
            for period in range(3, (len(self.nodes) - first) // 2 + 1)
            if (times := self._count_repetitions(first, period)) > 1
        ]
        if not repetitions:
            return self
        _, times, first, period = max(repetitions, key=lambda r: (r[0], r[1], -r[2]))
        end, num_removed = first + period, period * (times - 1)
        graph = Graph(self.nodes[:end], (first, end, times))
        for node in self.nodes[end + num_removed :]:
            sources = [j if j < end else j - num_removed for j in node.sources]
            graph.add(node.label, sources, node.kind, node.note)
        return graph

    def _count_repetitions(self, first: int, period: int) -> int:
        """Return how many times the ``period`` nodes that start at ``first`` occur consecutively."""
        i = first
        while i + period < len(self.nodes) and self._are_alike(i, i + period, first):
            i += 1
        return (i - first) // period + 1

    def _are_alike(self, i: int, j: int, first: int) -> bool:
        """Return whether two nodes are equal except for layer numbers, and their sources are equally far before them.

        A source before ``first`` must be the same node for both.
        """
        a, b = self.nodes[i], self.nodes[j]
        return (
            (re.sub(LAYER_NUMBER, "", a.label), a.kind, a.note) == (re.sub(LAYER_NUMBER, "", b.label), b.kind, b.note)
            and len(a.sources) == len(b.sources)
            and all(
                source_b - source_a == j - i or source_a == source_b < first
                for source_a, source_b in zip(a.sources, b.sources, strict=True)
            )
        )
