"""The source of compiled functions that train a recurrent layer, made from the equation of its cell.

The program of one time step is differentiated, and both programs are scheduled over the sequence. The backward pass
goes through the time steps in reverse: the gradient of the state is the state that it carries.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from revgen.compiler import Program, trace
from revgen.compiler.gradient import Gradient, compute_gradients, differentiate
from revgen.compiler.program import Operation
from revgen.compiler.schedule import Schedule
from revgen.compiler.simplify import Copier, divide_once, slice_first
from revgen.errors import NotTraceableError
from revgen.networks.block import Block
from revgen.networks.codegen import fixed_values, input_name
from revgen.networks.fused.sequence_code import Key, Kind, SequenceWriter
from revgen.ops import tree_map

MASK = "mask"
"""The input that dropout multiplies the output of the cell by."""
CHEAP = {
    "add", "subtract", "multiply", "negative", "maximum", "amax", "where", "slice", "reshape", "concatenate", "cast",
    "logical_and", "logical_or", "logical_not",
}  # fmt: skip
"""Operations that the backward pass computes again, as that is faster than to write and read their results. Maxima are
among them because they must be equal to an element, and comparisons are not: both passes must take the same branch,
although the backward pass may compute from rounded values."""


class LayerCode:
    """The programs and the code of a layer.

    ``dtype`` is the type of the products: "bfloat16", "float32" or "float64". With ``has_dropout``, the output of the
    cell is multiplied by a mask, which is the same at all time steps. With ``rounds_output``, the output is in bfloat16
    if the products are. Raises NotTraceableError for a cell that has no compiled form.
    """

    def __init__(self, block: Block, dtype: str, has_dropout: bool = False, rounds_output: bool = False) -> None:
        self.dtype = dtype
        self.rounds_output = rounds_output and dtype == "bfloat16"
        self.program = trace_step(block, "float64" if dtype == "float64" else "float32", has_dropout)
        self.operations = self.program.operations
        self.inputs = names = input_indices(self.program)
        self.params = {name.removeprefix("p."): i for name, i in names.items() if name.startswith("p.")}
        self.x = names["x"]
        self.states = [i for name, i in names.items() if name.partition(".")[0] == "state"]
        self.mask = [i for name, i in names.items() if name == MASK]
        self.y, *self.new_states = self.program.output_indices
        self._check_states()
        self.fixed = list(fixed_values(self.program))
        self.leaves = self._find_leaves()
        schedule = self._schedule([])
        matrices = [i for i in self.leaves if self._is_only_multiplied(i, schedule)]
        self.gradient = differentiate(self.program, [self.x, *self.states, *self.leaves], matrices)
        self.saved = self._choose_saved()
        self.forward = self._forward_writer()
        self.backward = self._backward_writer()

    def _check_states(self) -> None:
        for old, new in zip(self.states, self.new_states, strict=True):
            before, after = self.operations[old], self.operations[new]
            if before.dtype.kind != "f" or (before.shape, before.dtype) != (after.shape, after.dtype):
                raise NotTraceableError("only a state of floats that keeps its shape has a compiled form")
        if not self.states:
            raise NotTraceableError("a layer without a state has no compiled form")

    def _find_leaves(self) -> list[int]:
        """Return the values of weights alone from which other values are computed."""
        fixed, weights = set(self.fixed), set(self.params.values())
        for i in self.fixed:
            if weights.intersection(self.operations[i].inputs):
                weights.add(i)
        used = {j for i, o in enumerate(self.operations) if i not in fixed for j in o.inputs}
        return sorted(i for i in weights & used if self.operations[i].dtype.kind == "f")

    def _is_only_multiplied(self, i: int, schedule: Schedule) -> bool:
        users = [k for k, o in enumerate(self.operations) if i in o.inputs and k not in schedule.fixed]
        return all(k in schedule.products and self.operations[k].inputs[1] == i for k in users)

    def _choose_saved(self) -> list[int]:
        """Return the values of the forward pass that are saved for the backward pass."""
        gradient = self.gradient
        needed: set[int] = set()
        stack = [*gradient.outputs.values(), *(g for pairs in gradient.products.values() for _, g in pairs)]
        seen: set[int] = set()
        while stack:
            if (j := stack.pop()) in seen:
                continue
            seen.add(j)
            i = gradient.sources.get(j)
            if i is not None and self.operations[i].name not in ("input", "constant"):
                needed.add(i)
            else:
                stack += gradient.program.operations[j].inputs
        available = {*self.fixed, *self.inputs.values()}
        saved = []
        for i in sorted(needed.difference(available)):
            missing = self._missing(i, available)
            saved += sorted({i} if missing is None else missing)
            available.update(saved)
        return saved

    def _missing(self, i: int, available: set[int]) -> set[int] | None:
        """Return the values with one element without which a value cannot be computed from available values by cheap
        operations, or None if they are not enough."""
        if i in available:
            return set()
        missing: set[int] | None = None
        if self.operations[i].name in CHEAP:
            parts = [self._missing(j, available) for j in self.operations[i].inputs]
            missing = set().union(*(part for part in parts if part is not None)) if None not in parts else None
        return {i} if missing is None and self.operations[i].size == 1 else missing

    def _schedule(self, stored: list[int]) -> Schedule:
        carried = dict(zip(self.states, self.new_states, strict=True))
        return Schedule(self.program, self.fixed, carried, [self.y, *stored])

    def _forward_writer(self) -> SequenceWriter:
        operands = [self.gradient.sources[x] for pairs in self.gradient.products.values() for x, _ in pairs]
        rounded = {i for i in self.saved if self.operations[i].dtype == np.float32 and self.operations[i].size > 1}
        return SequenceWriter(
            self._schedule(self.saved),
            operands,
            rounded=self._rounded_values(rounded) if self.dtype == "bfloat16" else (),
            rows=self.mask,
            keeps_states=True,
            exact=[self.y],
            dtype=self.dtype,
        )

    def _rounded_values(self, rounded: set[int]) -> set[int]:
        return rounded | {self.y} if self.rounds_output else rounded - {self.y}

    def _backward_writer(self) -> SequenceWriter:
        """Return the code of the backward pass.

        Its inputs are x, the states and the saved values of the forward pass, and the gradients ``d.0`` of the output
        and ``d.1``, … of the next state, which are carried.
        """
        gradient, operations = self.gradient, list(self.gradient.program.operations)
        for i in self.saved:
            value = self.operations[i]
            operations[gradient.values[i]] = Operation("input", (), value.shape, value.dtype, {"name": f"saved.{i}"})
        if not gradient.outputs.keys() >= {self.x, *self.states}:
            raise NotTraceableError("the output does not depend on the input, or on a part of the state")
        outputs = {
            "x": gradient.outputs[self.x],
            "states": [gradient.outputs[i] for i in self.states],
            "sums": {i: gradient.outputs[i] for i in self.leaves if i in gradient.outputs},
            "products": {i: [g for _, g in pairs] for i, pairs in gradient.products.items()},
        }
        program = slice_first(divide_once(Program(tuple(operations), outputs).without_unused()))
        copier, zeros = Copier(program), set(fixed_values(program))  # gradients are linear in those of the results
        outputs = program.outputs | {"sums": {i: g for i, g in program.outputs["sums"].items() if g not in zeros}}
        self.results: dict[str, Any] = tree_map(copier.copy_view, outputs)
        states = {copier.source(i) for i in self.results["states"]}  # an array of all time steps does not hold them
        for i, products in self.results["products"].items():
            copied = [copier.copy(g) if copier.source(g) in states else g for g in products]
            self.results["products"][i] = copied
        program = Program(tuple(copier.operations), self.results)
        names, fixed = input_indices(program), list(fixed_values(program))
        self.d_states = [names[f"d.{number}"] for number in range(1, len(self.states) + 1)]
        self.dy = names["d.0"]
        self.sources: dict[Key, tuple[Key, str]] = {}
        """For each input of the backward pass, the array of the forward pass that holds it, and its time."""
        for name, i in names.items():
            if i not in (*fixed, self.dy, *self.d_states):
                saved = int(name.partition(".")[2]) if name.startswith("saved.") else self.inputs[name]
                kind: Kind = "row" if name == MASK else "value"
                self.sources[kind, i] = self.forward.history(saved)
        carried = dict(zip(self.d_states, self.results["states"], strict=True))
        schedule = Schedule(program, fixed, carried, [self.results["x"]])
        operands = [g for pairs in self.results["products"].values() for g in pairs]
        rounded = [i for (_, i), (key, _) in self.sources.items() if self.forward.is_bfloat16(key)]
        rounded += [self.dy] if self.rounds_output else []
        rows = [i for name, i in names.items() if name == MASK]
        sums = self.results["sums"].values()
        return SequenceWriter(schedule, operands, sums, rounded, rows, keeps_states=False, dtype=self.dtype)

    # Weights

    @cached_property
    def _leaf_gradient(self) -> tuple[Program, Gradient]:
        """The program that computes the leaves from the weights, and its gradient."""
        program = Program(self.operations, self.leaves).without_unused()
        weights = [i for name, i in input_indices(program).items() if name.startswith("p.")]
        return program, differentiate(program, weights)

    def weight_gradients(
        self, inputs: Mapping[str, NDArray[Any]], leaf_gradients: Mapping[int, NDArray[Any]]
    ) -> dict[str, NDArray[Any]]:
        """Return the gradient of each weight by its name, from the gradients of the leaves."""
        program, gradient = self._leaf_gradient
        arrays = dict(inputs)
        for number, i in enumerate(self.leaves):
            operation = self.operations[i]
            leaf = leaf_gradients.get(i)
            empty = np.zeros(operation.shape, operation.dtype)
            arrays[f"d.{number}"] = empty if leaf is None else leaf.reshape(operation.shape)
        results = compute_gradients(gradient, arrays)
        return {input_name(program.operations[i]).removeprefix("p."): array for i, array in results.items()}


def input_indices(program: Program) -> dict[str, int]:
    """Return the indices of the inputs by name."""
    return {input_name(o): i for i, o in enumerate(program.operations) if o.name == "input"}


def trace_step(block: Block, dtype: str, has_dropout: bool) -> Program:
    """Trace one time step of a block for a batch of 1: from ``p``, ``x``, ``state`` and ``mask`` to the output and the
    state.

    The program is used for each row of a batch. Raises NotTraceableError if the rows affect each other.
    """
    cell = block.cell

    def step(p: Any, x: Any, state: Any, mask: Any) -> Any:
        z = tree_map(lambda a: a[0], cell.project(p.layer, block.enter(p, x[None])))
        y, state = cell.step(p.layer, z, state)
        return block.leave(p, x, y if mask is None else y * mask), state

    rng = np.random.default_rng(0)

    def example(shape: tuple[int, ...], scale: float = 0.5) -> NDArray[Any]:
        return rng.normal(0, scale, shape).astype(dtype)

    params = {
        name: np.asarray(cell.init_param(name.partition(".")[2], shape, rng), dtype) + example(shape, 0.1)
        for name, shape in block.param_shapes().items()
    }
    p, x, state = nest(params), example((3, cell.input_size)), cell.initial_state(3, example)
    mask = example((3, cell.output_size)) if has_dropout else None
    first = tree_map(lambda a: a[:1], (state, mask))
    program = slice_first(divide_once(trace(step, p=p, x=x[:1], state=first[0], mask=first[1])))
    copier = Copier(program)
    outputs = tree_map(copier.copy_view, program.outputs)
    program = Program(tuple(copier.operations), outputs)
    if any(o.dtype.kind == "f" and o.dtype != dtype for o in program.operations):
        raise NotTraceableError(f"some of its values are not {dtype} numbers")
    try:
        with np.errstate(all="ignore"):
            expected = leaves(step(p, x, state, mask))
    except Exception as error:
        raise NotTraceableError(f"the equation fails on a batch: {type(error).__name__}: {error}") from error
    _check_rows(program, params, leaves((x, state, mask)), expected)
    return program


def _check_rows(
    program: Program, params: Mapping[str, NDArray[Any]], inputs: list[NDArray[Any]], expected: list[NDArray[Any]]
) -> None:
    """Raise NotTraceableError unless the program computes each row of a batch from the same row of the inputs."""
    weights = {f"p.{name}": array for name, array in params.items()}
    names = [name for name in program.input_names if name not in weights]
    for row in range(len(inputs[0])):
        one = slice(row, row + 1)
        with np.errstate(all="ignore"):
            results = leaves(program(**weights, **{name: a[one] for name, a in zip(names, inputs, strict=True)}))
        for actual, array in zip(results, expected, strict=True):
            if actual.shape != array[one].shape or not np.allclose(actual, array[one], 1e-3, 1e-4, equal_nan=True):
                raise NotTraceableError("the rows of a batch affect each other")


def nest(params: Mapping[str, Any]) -> SimpleNamespace:
    """Return parameters by name as nested attributes: ``layer.W`` becomes ``p.layer.W``."""
    groups: dict[str, dict[str, Any]] = {"layer": {}}
    for name, value in params.items():
        group, _, attribute = name.partition(".")
        groups.setdefault(group, {})[attribute] = value
    return SimpleNamespace(**{group: SimpleNamespace(**values) for group, values in groups.items()})


def leaves(tree: Any) -> list[Any]:
    """Return the arrays of a nested tuple, list or dict."""
    arrays: list[Any] = []
    tree_map(arrays.append, tree)
    return arrays
