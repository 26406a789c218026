"""The graph of an equation: it is run once on PyTorch, and every operation on the way is written down.

What has no part in the idea (views, casts, transposes) is passed over; a weight or a number stands in the node that
uses it, so that ``x @ W + b`` is two nodes, ``@ W`` and ``+ b``. Any cell is drawn this way, a user's too.
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
from revgen.networks.functional import unflatten
from revgen.networks.module_cell import ModuleCell
from revgen.networks.network import Network
from revgen.networks.stack import Stack
from revgen.ops import tree_map

SIGNS = {"add": "+", "sub": "−", "mul": "×", "multiply": "×", "div": "÷", "truediv": "÷", "divide": "÷"}
SIGNS |= {"true_divide": "÷", "matmul": "@", "mm": "@", "bmm": "@", "pow": "^"}
SIGNS |= {f"{side}{name}": sign for side in "ri" for name, sign in SIGNS.items()}  # 1 - x, x += 1
REVERSED = {name for name in SIGNS if name[1:] in SIGNS and name[0] == "r"}
PLAIN = {
    "cat": "join",
    "concatenate": "join",
    "chunk": "split",
    "neg": "−",
    "scaled_dot_product_attention": "attention",
}
SUBSCRIPTS = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")
QUIET = frozenset(
    (
        *("T", "mT", "H", "t", "transpose", "swapaxes", "permute", "movedim", "reshape", "view", "flatten"),
        *("unflatten", "squeeze", "unsqueeze", "expand", "contiguous", "clone", "detach", "data", "iter", "unbind"),
        *("to", "type", "type_as", "float", "half", "bfloat16", "dropout"),
    )
)
"""What changes the form of an array, not what it says."""


class Recorder(TorchFunctionMode):
    """Writes down what PyTorch computes while it is active.

    A value that was seen is the number of the node that made it, or the words for it where it depends on
    weights alone.
    """

    def __init__(self) -> None:
        super().__init__()
        self.graph = Graph()
        self.values: dict[int, int | str] = {}
        self.shapes: dict[str, str] = {}
        self.kept: list[Tensor] = []  # so that no other tensor gets the identity of one that was seen
        self.paused = False

    def bind(self, tensor: Tensor, value: int | str) -> Tensor:
        """Let a tensor be the value of a node, or a weight of this name."""
        self.values[id(tensor)] = value
        self.kept.append(tensor)
        if isinstance(value, str) and value not in self.shapes:
            self.shapes[value] = " × ".join(map(str, tensor.shape))
        return tensor

    def add_input(self, tensor: Tensor, label: str) -> Tensor:
        """Let a tensor be an input of the graph."""
        return self.bind(tensor, self.graph.add(label, kind="input"))

    def add_output(self, tensor: Tensor, label: str) -> None:
        """Let a tensor be an output of the graph."""
        source = self.values.get(id(tensor))
        self.graph.add(label, [source] if isinstance(source, int) else [], kind="output")

    @contextmanager
    def pause(self) -> Iterator[None]:
        """Within, nothing is written down."""
        self.paused = True
        try:
            yield
        finally:
            self.paused = False

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        if self.paused:
            return result
        name = getattr(function, "__name__", str(function))
        name = (function.__self__.__name__ if name == "__get__" else name).strip("_")  # of a property: its own
        if name == "iter":
            result = list(result)
        self.record(name, [*args, *(kwargs or {}).values()], [v for v in flat(result) if isinstance(v, Tensor)])
        return iter(result) if name == "iter" else result

    def record(self, name: str, arguments: list[Any], results: list[Tensor]) -> None:
        """One operation, with what went in and what came out."""
        known = [v for v in flat(arguments) if isinstance(v, Tensor) and id(v) in self.values]
        if not (known and results):
            return
        whole = not any(result.is_floating_point() for result in results)  # places and masks, not what is computed
        alone = name in ("cat", "concatenate") and len(known) == 1
        if whole or alone or name in QUIET or (name == "getitem" and keeps_channels(known, arguments, results[0])):
            operands = [self.values[id(v)] for v in known]
            value: int | str = next((v for v in operands if isinstance(v, int)), operands[0])
        else:
            operands = [self.values[id(v)] for v in known]
            text = self.text(name, arguments)
            sources = [v for v in operands if isinstance(v, int)]
            weights = [v for v in operands if isinstance(v, str)]
            if sources:
                note = ", ".join(dict.fromkeys(self.shapes[w] for w in weights if self.shapes[w]))
                value = self.graph.add(text, sources, "weights" if weights else "operation", note)
            else:
                value = f"({text})" if name in SIGNS else text
                self.shapes[value] = self.shapes[weights[0]]
        for i, result in enumerate(results, 1):
            part = f"{self.values[id(known[0])]}{i}".translate(SUBSCRIPTS)  # of a weight: V₁, V₂
            self.bind(result, part if isinstance(value, str) and len(results) > 1 else value)

    def text(self, name: str, arguments: list[Any]) -> str:
        """The words for an operation; an operand that is drawn as a node of its own has none."""
        if name == "embedding":
            return f"{self.operand(arguments[1])}[token]"
        if name == "getitem":
            array, index = arguments
            if any(isinstance(v, Tensor) for v in flat(index)):
                return f"{self.operand(array)}[token]"
            last = index[-1] if isinstance(index, tuple) else index
            shown = f"{last.start or ''}:{last.stop or ''}" if isinstance(last, slice) else str(last)
            return f"{self.operand(array)}[{shown}]"
        if name in SIGNS and len(arguments) >= 2:
            sides = [self.operand(v) for v in (arguments[1::-1] if name in REVERSED else arguments[:2])]
            return f"{sides[0]} {SIGNS[name]} {sides[1]}".strip()
        weights = [v for v in flat(arguments) if isinstance(v, Tensor) and isinstance(self.values.get(id(v)), str)]
        inside = brief([self.operand(v) for v in weights])
        name = PLAIN.get(name, name.replace("_", " "))
        return f"{name}({inside})" if inside else name

    def operand(self, value: Any) -> str:
        if not isinstance(value, Tensor):
            return f"{value:.4g}" if isinstance(value, int | float) else ""
        known = self.values.get(id(value), "" if value.numel() != 1 else f"{value.item():.4g}")
        return known if isinstance(known, str) else ""


class Box:
    """A cell that is one node of the graph around it."""

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
            y, state = run(self.cell, p, x, state)
        note = f"{x.shape[-1]} → {y.shape[-1]}"
        self.recorder.bind(y, self.recorder.graph.add(self.label, sources, "cell", note))
        return y, state


def run(cell: Cell, p: Any, x: Tensor, state: Any) -> tuple[Tensor, Any]:
    """A cell over a sequence."""
    if isinstance(cell, ModuleCell):
        return cell.run(p, x, state, training=False)
    return cell.sequence(p, cell.project(p, x), state)


@torch.no_grad()
def trace_stack(stack: Stack, title: str, weights: Mapping[str, Any]) -> Graph:
    """What stands around the cells of a recurrent network; each cell is a node."""
    recorder = Recorder()
    boxed: Any = copy(stack)
    boxed.cells = [Box(cell, recorder, f"{title} {i}") for i, cell in enumerate(stack.cells, 1)]
    named = {name: recorder.bind(torch.tensor(np.asarray(value)), name) for name, value in weights.items()}
    tokens = recorder.add_input(torch.zeros(1, 1, dtype=torch.long), "token")
    state = stack.initial_state(1, torch.zeros)
    with recorder:
        logits, _ = boxed.forward(unflatten(named), tokens, state)
    recorder.add_output(logits, "logits")
    return recorder.graph


@torch.no_grad()
def trace_cell(cell: Cell) -> Graph:
    """One time step of a cell: x and the state before -> the output and the state behind."""
    recorder = Recorder()
    random = np.random.default_rng(0)
    p = SimpleNamespace()
    for name, shape in cell.param_shapes().items():
        value = torch.tensor(np.asarray(cell.init_param(name, tuple(shape), random), np.float32))
        setattr(p, name, recorder.bind(value, name))
    x = recorder.add_input(torch.zeros(1, 1, cell.input_size), "x")
    if isinstance(cell, ModuleCell):
        with recorder:
            y, _ = cell.run(p, x, None, training=False)
        recorder.add_output(y, "y")
        return recorder.graph
    state = cell.initial_state(1, torch.zeros)
    before = leaves(state)
    for _, tensor in before:
        recorder.add_input(tensor, "")
    with recorder:
        z = cell.project(p, x)
        y, state = cell.step(p, z[0], state)
    after = leaves(state)
    names = state_names([name for name, _ in after], [tensor is y for _, tensor in after])
    for (_, old), (_, new), name in zip(before, after, names, strict=True):
        entered = recorder.values[id(old)]
        assert isinstance(entered, int)
        recorder.graph.nodes[entered].label = name
        recorder.add_output(new, f"{name}′")
    if not any(new is y for _, new in after):
        recorder.add_output(y, "y")
    return recorder.graph


@torch.no_grad()
def trace_network(network: Network) -> Graph:
    """A whole network on one token."""
    recorder = Recorder()
    for name, value in network.named_weights().items():
        recorder.bind(value, name)
    tokens = recorder.add_input(torch.zeros(1, 1, dtype=torch.long), "token")
    with recorder:
        logits, _ = network.eval()(tokens, None)
    recorder.add_output(logits, "logits")
    return recorder.graph


def leaves(state: Any) -> list[tuple[str, Tensor]]:
    """The arrays of a state, with their names where it has any."""
    found: list[Tensor] = []
    tree_map(found.append, state)
    names = list(state) if isinstance(state, dict) else [""] * len(found)
    return list(zip(names if len(names) == len(found) else [""] * len(found), found, strict=True))


def state_names(names: list[str], outputs: list[bool]) -> list[str]:
    """What the parts of a state are called: by their keys, else h for the output (or the only one), c for another."""
    others = iter(["c"] if len(outputs) == 2 else [f"s{i}" for i in range(1, 9)])
    alone = len(outputs) == 1
    return [
        name or ("h" if alone or output else next(others, "s")) for name, output in zip(names, outputs, strict=True)
    ]


def brief(names: list[str]) -> str:
    """Some weights in few words: what their names share stands once, ``norms.0`` for its scale and shift."""
    groups = {name.rpartition(".")[0] for name in names}
    return groups.pop() if len(names) > 1 and len(groups) == 1 and "" not in groups else ", ".join(names)


def keeps_channels(known: list[Tensor], arguments: list[Any], result: Tensor) -> bool:
    """Whether a look into an array chose time steps or rows only, by their numbers."""
    chosen_by = any(isinstance(v, Tensor) for v in flat(arguments[1:]))
    return not chosen_by and result.dim() > 0 and result.shape[-1] == known[0].shape[-1]


def flat(values: Any) -> Iterator[Any]:
    """The values within lists and tuples."""
    if isinstance(values, list | tuple):
        for value in values:
            yield from flat(value)
    else:
        yield values
