"""Trace the computational graph of a model: run it once on PyTorch, and record every operation.

Operations that change only the shape, the layout or the data type of an array are omitted. A weight or a number is
part of the node that uses it, so ``x @ W + b`` becomes two nodes, ``@ W`` and ``+ b``. Any cell can be traced,
including cells that users register.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import copy
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from revgen.cells.cell import Cell
from revgen.comparison.graph import Graph
from revgen.model import Model
from revgen.networks.functional import unflatten
from revgen.networks.module_cell import ModuleCell
from revgen.networks.network import Network
from revgen.networks.stack import Stack
from revgen.ops import tree_map

MAX_DRAWN_NODES = 60
"""A drawing of more nodes is not readable."""

SIGNS = {"add": "+", "sub": "−", "mul": "×", "multiply": "×", "div": "÷", "truediv": "÷", "divide": "÷"}
SIGNS |= {"true_divide": "÷", "matmul": "@", "mm": "@", "bmm": "@", "pow": "^"}
SIGNS |= {f"{side}{name}": sign for side in "ri" for name, sign in SIGNS.items()}  # as in 1 - x and x += 1
REVERSED = {name for name in SIGNS if name[1:] in SIGNS and name[0] == "r"}
READABLE_NAMES = {
    "cat": "join",
    "concatenate": "join",
    "chunk": "split",
    "neg": "−",
    "scaled_dot_product_attention": "attention",
}
SUBSCRIPTS = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")
OMITTED = frozenset(
    (
        *("T", "mT", "H", "t", "transpose", "swapaxes", "permute", "movedim", "reshape", "view", "flatten"),
        *("unflatten", "squeeze", "unsqueeze", "expand", "contiguous", "clone", "detach", "data", "iter", "unbind"),
        *("to", "type", "type_as", "float", "half", "bfloat16", "dropout"),
    )
)
"""Operations that do not change the values of an array during inference."""


# Graphs of a model


def graphs(model: Model) -> dict[str, Graph]:
    """Return the graphs of a fitted model by title.

    A recurrent network has two graphs: the network with its cells as nodes, and one time step of a cell. Other networks
    have one graph. A model that cannot be traced, or whose graph is too large to draw, has a graph of its weights.
    """
    stack: Any = getattr(model, "definition", None)
    traced: dict[str, Graph] = {}
    try:
        if hasattr(stack, "cells"):
            traced["network"] = trace_stack(stack, model.architecture, model.weights)
            traced["one time step of a cell"] = trace_cell(stack.cells[0])
        elif hasattr(model, "make_network"):
            traced["network"] = trace_network(model.make_network())
    except Exception:  # a network that cannot be traced gets a graph of its weights
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


@torch.no_grad()
def trace_stack(stack: Stack, title: str, weights: Mapping[str, Any]) -> Graph:
    """Trace a recurrent network on one token, with each cell as one node."""
    recorder = Recorder()
    outer: Any = copy(stack)
    outer.cells = [CellNode(cell, recorder, f"{title} {i}") for i, cell in enumerate(stack.cells, 1)]
    params = {name: recorder.bind(torch.tensor(np.asarray(value)), name) for name, value in weights.items()}
    tokens = recorder.add_input(torch.zeros(1, 1, dtype=torch.long), "token")
    state = stack.initial_state(1, torch.zeros)
    with recorder:
        logits, _ = outer.forward(unflatten(params), tokens, state)
    recorder.add_output(logits, "logits")
    return recorder.graph


@torch.no_grad()
def trace_cell(cell: Cell) -> Graph:
    """Trace one time step of a cell, from the input and the previous state to the output and the next state."""
    recorder = Recorder()
    rng = np.random.default_rng(0)
    p = SimpleNamespace()
    for name, shape in cell.param_shapes().items():
        value = torch.tensor(np.asarray(cell.init_param(name, tuple(shape), rng), np.float32))
        setattr(p, name, recorder.bind(value, name))
    x = recorder.add_input(torch.zeros(1, 1, cell.input_size), "x")
    if isinstance(cell, ModuleCell):
        with recorder:
            y, _ = cell.run(p, x, None, training=False)
        recorder.add_output(y, "y")
        return recorder.graph
    state = cell.initial_state(1, torch.zeros)
    old_leaves = named_leaves(state)
    for _, tensor in old_leaves:
        recorder.add_input(tensor, "")
    with recorder:
        z = cell.project(p, x)
        y, state = cell.step(p, z[0], state)
    new_leaves = named_leaves(state)
    names = label_state([name for name, _ in new_leaves], [tensor is y for _, tensor in new_leaves])
    for (_, old), (_, new), name in zip(old_leaves, new_leaves, names, strict=True):
        node = recorder.values[id(old)]
        assert isinstance(node, int)
        recorder.graph.nodes[node].label = name
        recorder.add_output(new, f"{name}′")
    if not any(new is y for _, new in new_leaves):
        recorder.add_output(y, "y")
    return recorder.graph


@torch.no_grad()
def trace_network(network: Network) -> Graph:
    """Trace a network on one token."""
    recorder = Recorder()
    for name, value in network.named_weights().items():
        recorder.bind(value, name)
    tokens = recorder.add_input(torch.zeros(1, 1, dtype=torch.long), "token")
    with recorder:
        logits, _ = network.eval()(tokens, None)
    recorder.add_output(logits, "logits")
    return recorder.graph


# Recording


class Recorder(TorchFunctionMode):
    """A context in which the operations of PyTorch are recorded.

    ``values`` maps the id of each tensor to the index of the node that computed it. If the tensor depends only on
    weights, its value is an expression of their names instead.
    """

    def __init__(self) -> None:
        super().__init__()
        self.graph = Graph()
        self.values: dict[int, int | str] = {}
        self.shapes: dict[str, str] = {}
        self.tensors: list[Tensor] = []  # kept alive, so that no other tensor gets the same id
        self.is_paused = False

    def bind(self, tensor: Tensor, value: int | str) -> Tensor:
        """Record a tensor as the result of a node, given by its index, or as a weight, given by its name."""
        self.values[id(tensor)] = value
        self.tensors.append(tensor)
        if isinstance(value, str) and value not in self.shapes:
            self.shapes[value] = " × ".join(map(str, tensor.shape))
        return tensor

    def add_input(self, tensor: Tensor, label: str) -> Tensor:
        """Add a tensor as an input of the graph, and return the tensor."""
        return self.bind(tensor, self.graph.add(label, kind="input"))

    def add_output(self, tensor: Tensor, label: str) -> None:
        """Add a tensor as an output of the graph."""
        source = self.values.get(id(tensor))
        self.graph.add(label, [source] if isinstance(source, int) else [], kind="output")

    @contextmanager
    def pause(self) -> Iterator[None]:
        """Record nothing inside this context."""
        self.is_paused = True
        try:
            yield
        finally:
            self.is_paused = False

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        if self.is_paused:
            return result
        name = getattr(function, "__name__", str(function))
        name = (function.__self__.__name__ if name == "__get__" else name).strip("_")  # a property has its own name
        if name == "iter":
            result = list(result)
        self.record(name, [*args, *(kwargs or {}).values()], [v for v in flatten(result) if isinstance(v, Tensor)])
        return iter(result) if name == "iter" else result

    def record(self, name: str, arguments: list[Any], results: list[Tensor]) -> None:
        """Record one operation with its arguments and results."""
        known = [v for v in flatten(arguments) if isinstance(v, Tensor) and id(v) in self.values]
        if not (known and results):
            return
        operands = [self.values[id(v)] for v in known]
        if self._is_omitted(name, arguments, known, results):
            value: int | str = next((v for v in operands if isinstance(v, int)), operands[0])
        else:
            value = self._add_operation(name, arguments, operands)
        for i, result in enumerate(results, 1):
            part = f"{operands[0]}{i}".translate(SUBSCRIPTS)  # the parts of a weight V: V₁, V₂
            self.bind(result, part if isinstance(value, str) and len(results) > 1 else value)

    def _is_omitted(self, name: str, arguments: list[Any], known: list[Tensor], results: list[Tensor]) -> bool:
        """Return whether an operation has no node of its own. Its results then belong to the node of its operand."""
        is_index_or_mask = not any(result.is_floating_point() for result in results)
        joins_one = name in ("cat", "concatenate") and len(known) == 1
        selects_rows = name == "getitem" and keeps_channels(known, arguments, results[0])
        return is_index_or_mask or joins_one or name in OMITTED or selects_rows

    def _add_operation(self, name: str, arguments: list[Any], operands: list[int | str]) -> int | str:
        """Add a node and return its index. If all operands are weights, return an expression instead."""
        text = self.describe(name, arguments)
        sources = [v for v in operands if isinstance(v, int)]
        weights = [v for v in operands if isinstance(v, str)]
        if sources:
            note = ", ".join(dict.fromkeys(self.shapes[w] for w in weights if self.shapes[w]))
            return self.graph.add(text, sources, "weights" if weights else "operation", note)
        expression = f"({text})" if name in SIGNS else text
        self.shapes[expression] = self.shapes[weights[0]]
        return expression

    def describe(self, name: str, arguments: list[Any]) -> str:
        """Return the text of an operation, without the operands that are nodes of their own."""
        if name == "embedding":
            return f"{self.operand_text(arguments[1])}[token]"
        if name == "getitem":
            array, index = arguments
            if any(isinstance(v, Tensor) for v in flatten(index)):
                return f"{self.operand_text(array)}[token]"
            last = index[-1] if isinstance(index, tuple) else index
            index_text = f"{last.start or ''}:{last.stop or ''}" if isinstance(last, slice) else str(last)
            return f"{self.operand_text(array)}[{index_text}]"
        if name in SIGNS and len(arguments) >= 2:
            sides = arguments[1::-1] if name in REVERSED else arguments[:2]
            left, right = map(self.operand_text, sides)
            return f"{left} {SIGNS[name]} {right}".strip()
        weights = [v for v in flatten(arguments) if isinstance(v, Tensor) and isinstance(self.values.get(id(v)), str)]
        inside = join_weight_names([self.operand_text(v) for v in weights])
        name = READABLE_NAMES.get(name, name.replace("_", " "))
        return f"{name}({inside})" if inside else name

    def operand_text(self, value: Any) -> str:
        """Return the text of a weight or a number, and an empty string for anything else."""
        if not isinstance(value, Tensor):
            return f"{value:.4g}" if isinstance(value, int | float) else ""
        known = self.values.get(id(value), "" if value.numel() != 1 else f"{value.item():.4g}")
        return known if isinstance(known, str) else ""


class CellNode:
    """A cell that is recorded as one node."""

    def __init__(self, cell: Cell, recorder: Recorder, label: str) -> None:
        self.cell, self.recorder, self.label = cell, recorder, label

    def __getattr__(self, name: str) -> Any:
        return getattr(self.cell, name)

    def project(self, p: Any, x: Tensor) -> Tensor:
        return x

    def sequence(self, p: Any, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        source = self.recorder.values.get(id(x))
        sources = [source] if isinstance(source, int) else []
        with self.recorder.pause():
            if isinstance(self.cell, ModuleCell):
                y, state = self.cell.run(p, x, state, training=False)
            else:
                y, state = self.cell.sequence(p, self.cell.project(p, x), state)
        note = f"{x.shape[-1]} → {y.shape[-1]}"
        self.recorder.bind(y, self.recorder.graph.add(self.label, sources, "cell", note))
        return y, state


# Names and values


def named_leaves(state: Any) -> list[tuple[str, Tensor]]:
    """Return the arrays of a state with their keys. The keys are empty if the state is not a flat dictionary."""
    leaves: list[Tensor] = []
    tree_map(leaves.append, state)
    names = list(state) if isinstance(state, dict) else [""] * len(leaves)
    return list(zip(names if len(names) == len(leaves) else [""] * len(leaves), leaves, strict=True))


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


def join_weight_names(names: list[str]) -> str:
    """Join names by commas, or return only their common prefix, such as ``norms.0`` for its scale and shift."""
    groups = {name.rpartition(".")[0] for name in names}
    return groups.pop() if len(names) > 1 and len(groups) == 1 and "" not in groups else ", ".join(names)


def keeps_channels(known: list[Tensor], arguments: list[Any], result: Tensor) -> bool:
    """Return whether an index without tensors selects only time steps or rows."""
    is_indexed_by_tensor = any(isinstance(v, Tensor) for v in flatten(arguments[1:]))
    return not is_indexed_by_tensor and result.dim() > 0 and result.shape[-1] == known[0].shape[-1]


def flatten(values: Any) -> Iterator[Any]:
    """Yield the values inside nested lists and tuples."""
    if isinstance(values, list | tuple):
        for value in values:
            yield from flatten(value)
    else:
        yield values
