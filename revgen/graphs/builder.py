"""The graphs of a model, made from its program.

Operations that change only the shape, the layout or the type of an array are omitted. A weight or a number is part of
the node that uses it, so ``x @ W + b`` becomes two nodes, ``@ W`` and ``+ b``. The operations of a composite operator,
such as ``layer_norm``, are one node.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np

from revgen.cells.cell import Cell
from revgen.compiler import Operation, Program, trace
from revgen.errors import NotTraceableError
from revgen.graphs.graph import Graph
from revgen.model import Model
from revgen.networks.functional import unflatten
from revgen.networks.stack import Stack

MAX_DRAWN_NODES = 60
"""A drawing of more nodes is not readable."""

SIGNS = {"add": "+", "subtract": "−", "multiply": "×", "divide": "÷", "matmul": "@", "power": "^"}
READABLE_NAMES = {"concatenate": "join", "negative": "−", "amax": "maximum"}
SUBSCRIPTS = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")
OMITTED = ("reshape", "transpose", "cast")
"""Operations that do not change the values of an array."""


# Graphs of a model


def build_graphs(model: Model) -> dict[str, Graph]:
    """Return the graphs of a fitted model by title.

    A recurrent network has two graphs: the network with its cells as nodes, and one time step of a cell. Other networks
    have one graph. A model that cannot be traced, or whose graph is too large to draw, has a graph of its weights.
    """
    definition: Any = getattr(model, "definition", None)
    traced: dict[str, Graph] = {}
    try:
        if definition is not None:
            traced["network"] = network_graph(definition, model.architecture, model.weights)
        if hasattr(definition, "cells"):
            traced["one time step of a cell"] = cell_graph(definition.cells[0])
    except NotTraceableError:  # a cell or network that cannot be traced has no graph of its equation
        pass
    simplified = {title: graph.simplify() for title, graph in traced.items() if is_connected(graph)}
    readable = {title: graph for title, graph in simplified.items() if len(graph.nodes) <= MAX_DRAWN_NODES}
    return readable if "network" in readable else {"weights": weight_graph(model.weights)} | readable


def is_connected(graph: Graph) -> bool:
    """Return whether every output depends on another node."""
    return all(node.sources for node in graph.nodes if node.kind == "output")


def weight_graph(weights: Mapping[str, Any]) -> Graph:
    """Return a chain of nodes, one for each group of weights.

    The names of the weights in a group differ only after the last dot. Consecutive groups with the same shapes become
    one node.
    """
    groups: dict[str, list[str]] = {}
    for name, value in weights.items():
        group, _, leaf = name.rpartition(".")
        shape = " × ".join(map(str, value.shape))
        groups.setdefault(f"order {group}" if group.isdigit() else group, []).append(f"{leaf} {shape}".strip())
    graph = Graph()
    last = graph.add("token", kind="input")
    remaining = [(group, "  ".join(shapes)) for group, shapes in groups.items()]
    while remaining:
        group, note = remaining[0]
        count = next((i for i, (_, other) in enumerate(remaining) if other != note), len(remaining))
        label = group if count == 1 else f"{group} … {remaining[count - 1][0]}"
        last = graph.add(label or "weights", [last], "weights", note)
        remaining = remaining[count:]
    graph.add("logits", [last], "output")
    return graph


def network_graph(definition: Any, title: str, weights: Mapping[str, Any]) -> Graph:
    """Return the graph of a network for the first token of a document, with each cell of a stack as one node."""
    if isinstance(definition, Stack):
        definition = copy(definition)
        nodes: Any = [CellNode(block.cell, f"{title} {i}") for i, block in enumerate(definition.blocks, 1)]
        definition.blocks = [replace(block, cell=node) for block, node in zip(definition.blocks, nodes, strict=True)]
    state = definition.initial_state(1, partial(np.zeros, dtype=np.float32))
    arrays = {"p": unflatten(weights), "tokens": np.zeros((1, 1), np.int64), "state": state}
    program = trace(lambda p, tokens, state: definition.forward(p, tokens, state)[0], **arrays)
    return program_graph(program, {"tokens": "token"}, {"logits": program.output_indices[0]})


def cell_graph(cell: Cell) -> Graph:
    """Return the graph of one time step, from the input and the previous state to the output and the next state."""
    if not cell.supports_numpy:
        raise NotTraceableError("a cell that is written for PyTorch only cannot be traced")
    p = SimpleNamespace(**{name: np.zeros(shape, np.float32) for name, shape in cell.param_shapes().items()})
    state = cell.initial_state(1, lambda shape: np.zeros(shape, np.float32))

    def step(p: Any, x: Any, state: Any) -> tuple[Any, Any]:
        return cell.step(p, cell.project(p, x)[0], state)

    program = trace(step, p=p, x=np.zeros((1, 1, cell.input_size), np.float32), state=state)
    y, *next_state = program.output_indices
    keys = list(state) if isinstance(state, dict) and len(state) == len(next_state) else [""] * len(next_state)
    names = label_state(keys, [index == y for index in next_state])
    inputs = [name for name in program.input_names if name.partition(".")[0] == "state"]
    outputs = {f"{name}′": index for name, index in zip(names, next_state, strict=True)}
    if y not in next_state:
        outputs["y"] = y
    return program_graph(program, {"x": "x"} | dict(zip(inputs, names, strict=True)), outputs)


class CellNode:
    """A cell that is recorded as one operation."""

    def __init__(self, cell: Cell, label: str) -> None:
        self.cell, self.label = cell, label

    def __getattr__(self, name: str) -> Any:
        return getattr(self.cell, name)

    def project(self, p: Any, x: Any) -> Any:
        return x

    def sequence(self, p: Any, x: Any, state: Any) -> tuple[Any, Any]:
        example = np.zeros((*x.shape[:-1], self.cell.output_size), np.float32)
        return x.recorder.add("cell", (x.index,), example, {"label": self.label}), state


def label_state(names: list[str], is_output: list[bool]) -> list[str]:
    """Return a label for each array of a state, by default its key.

    An array without a key is h if it is the output or the only array. Otherwise, it is c in a state of two arrays, and
    s1, s2, … in a larger state.
    """
    others = iter(["c"] if len(is_output) == 2 else [f"s{i}" for i in range(1, 9)])
    is_single = len(is_output) == 1
    return [
        name or ("h" if is_single or output else next(others, "s"))
        for name, output in zip(names, is_output, strict=True)
    ]


# The graph of a program


def program_graph(program: Program, inputs: Mapping[str, str], outputs: Mapping[str, int]) -> Graph:
    """Return the graph of a program. ``inputs`` are the labels of its inputs other than the weights ``p``, by name, and
    ``outputs`` the indices of its results by label."""
    builder = GraphBuilder(program, inputs)
    for label, index in outputs.items():
        source = builder.values[index]
        builder.graph.add(label, [source] if isinstance(source, int) else [], kind="output")
    return builder.graph


class GraphBuilder:
    """The conversion of a program into a graph.

    ``values`` has the index of the node of each operation. If an operation depends only on weights and numbers, its
    value is an expression of their names instead.
    """

    def __init__(self, program: Program, inputs: Mapping[str, str]) -> None:
        self.operations = program.operations
        self.inputs = inputs
        self.graph = Graph()
        self.shapes: dict[str, str] = {}
        self.composites: dict[str, list[int]] = {}
        self.nodes: dict[Any, int] = {}  # the nodes of several operations: composites, and the parts of an array
        for i, operation in enumerate(self.operations):
            if operation.composite:
                self.composites.setdefault(operation.composite, []).append(i)
        self.values: list[int | str] = []
        for operation in self.operations:
            self.values.append(self._value(operation))

    def _value(self, operation: Operation) -> int | str:
        operands = [self.values[j] for j in operation.inputs]
        if operation.name == "input":
            return self._input(operation)
        if operation.name == "constant":
            value = operation.attributes["value"]
            return f"{value.item():.4g}" if operation.size == 1 else ""
        if self._is_omitted(operation, operands):
            return next((v for v in operands if isinstance(v, int)), operands[0])
        if operation.composite in self.nodes:
            return self.nodes[operation.composite]
        if operation.composite and (value := self._composite(operation.composite)) is not None:
            return value
        if operation.name == "slice" and (parts := self._equal_parts(operation)):
            return self._part(operation, operands[0], parts)
        return self._add(operation.name, self._text(operation, operands), operands, operation)

    def _input(self, operation: Operation) -> int | str:
        full_name = str(operation.attributes["name"])
        kind, _, name = full_name.partition(".")
        if kind == "p":
            self.shapes[name] = " × ".join(map(str, operation.shape))
            return name
        label = self.inputs.get(full_name)
        return "" if label is None else self.graph.add(label, kind="input")

    def _is_omitted(self, operation: Operation, operands: Sequence[int | str]) -> bool:
        """Return whether an operation has no node of its own. Its result then belongs to the node of its operand."""
        selects_rows = operation.name == "slice" and operation.shape[-1] == self._source(operation).shape[-1]
        joins_one = operation.name == "concatenate" and sum(operand != "" for operand in operands) == 1
        is_index_or_mask = operation.dtype.kind != "f"
        return is_index_or_mask or joins_one or selects_rows or operation.name in OMITTED

    def _source(self, operation: Operation) -> Operation:
        return self.operations[operation.inputs[0]]

    def _composite(self, name: str) -> int | str | None:
        """Add one node for all operations of a composite operator."""
        members = self.composites[name]
        outside = [j for i in members for j in self.operations[i].inputs if j not in members and j < len(self.values)]
        operands = list(dict.fromkeys(self.values[j] for j in outside if self.operations[j].name != "constant"))
        label = name.rpartition(" ")[0]
        last = self.operations[members[-1]]
        value = self._add(label, self._call(label, operands), operands, last)
        if isinstance(value, int):
            self.nodes[name] = value
        return value

    def _add(self, name: str, text: str, operands: Sequence[int | str], operation: Operation) -> int | str:
        """Add a node and return its index. If all operands are weights, return an expression instead."""
        if operation.name == "cell":
            sizes = self._source(operation).shape[-1], operation.shape[-1]
            return self.graph.add(
                operation.attributes["label"], self._nodes(operands), "cell", "{} → {}".format(*sizes)
            )
        weights = [v for v in operands if v in self.shapes]
        if sources := self._nodes(operands):
            note = ", ".join(dict.fromkeys(self.shapes[w] for w in weights if isinstance(w, str) and self.shapes[w]))
            return self.graph.add(text, sources, "weights" if weights else "operation", note)
        expression = f"({text})" if name in SIGNS else text
        self.shapes[expression] = self.shapes.get(str(weights[0]), "") if weights else ""
        return expression

    def _nodes(self, operands: Sequence[int | str]) -> list[int]:
        return [v for v in operands if isinstance(v, int)]

    def _text(self, operation: Operation, operands: Sequence[int | str]) -> str:
        """Return the text of an operation, without the operands that are nodes of their own."""
        left, *right = ("" if isinstance(v, int) else v for v in operands)
        if operation.name == "take":
            return f"{left}[token]"
        if operation.name == "slice":
            start, stop, _ = operation.attributes["index"][-1]
            end = "" if stop == self._source(operation).shape[-1] else stop
            return f"{left}[{start or ''}:{end}]"
        if operation.name in SIGNS:
            return f"{left} {SIGNS[operation.name]} {right[0]}".strip()
        if operation.name == "maximum" and right == ["0"]:
            return self._call("relu", operands[:1])
        return self._call(operation.name, operands)

    def _call(self, name: str, operands: Sequence[int | str]) -> str:
        inside = join_weight_names([v for v in operands if isinstance(v, str) and v in self.shapes])
        name = READABLE_NAMES.get(name, name.replace("_", " "))
        return f"{name}({inside})" if inside else name

    def _equal_parts(self, operation: Operation) -> list[int]:
        """Return the starts of all slices of an array along its last axis if they are equal parts of it."""
        source, size = operation.inputs[0], operation.shape[-1]
        slices = [o for o in self.operations if o.name == "slice" and o.inputs[0] == source]
        starts = sorted({o.attributes["index"][-1][0] for o in slices})
        are_equal = starts == [*range(0, self._source(operation).shape[-1], size)]
        return starts if are_equal and all(o.shape[-1] == size for o in slices) else []

    def _part(self, operation: Operation, source: int | str, starts: list[int]) -> int | str:
        """Return the node of all parts of an array, or the expression of one part V₁, V₂, … of a weight V."""
        if isinstance(source, str):
            number = starts.index(operation.attributes["index"][-1][0]) + 1
            part = f"{source}{number}".translate(SUBSCRIPTS)
            self.shapes[part] = " × ".join(map(str, operation.shape))
            return part
        key = "split", operation.inputs[0]
        if key not in self.nodes:
            self.nodes[key] = self.graph.add("split", [source])
        return self.nodes[key]


def join_weight_names(names: list[str]) -> str:
    """Join names by commas, or return only their common prefix, such as ``norms.0`` for its scale and shift."""
    groups = {name.rpartition(".")[0] for name in names}
    return groups.pop() if len(names) > 1 and len(groups) == 1 and "" not in groups else ", ".join(names)
