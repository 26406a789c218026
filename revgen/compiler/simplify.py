"""Rewriting of programs so that more of their operations can run in one loop."""

from __future__ import annotations

import numpy as np

from revgen.compiler.primitives import ELEMENTWISE
from revgen.compiler.program import Operation, Program
from revgen.compiler.tracer import Recorder, TracedArray
from revgen.ops import tree_map

Bounds = tuple[tuple[int, int, int], ...]


def slice_first(program: Program) -> Program:
    """Return an equal program in which the slices of elementwise results are computed from slices of the inputs.

    The gates of a cell, ``split(z + h @ p.U, 4)``, then take one loop over a quarter of the elements instead of a loop
    over the sum and another one over its parts. Results that are also used whole are computed as before.
    """
    return _ReshapePusher(_SlicePusher(program).run()).run()


def divide_once(program: Program) -> Program:
    """Return an equal program in which division by one number is multiplication by its inverse.

    A division takes several times as long as a product. An inverse is computed once, and that of a constant in advance.
    """
    recorder = Recorder()
    values: dict[int, TracedArray] = {}
    for i, operation in enumerate(program.operations):
        is_division = operation.name == "divide" and operation.dtype.kind == "f"
        if is_division and program.operations[operation.inputs[1]].size == 1 and not _is_one(program, i):
            x, divisor = (values[j] for j in operation.inputs)
            values[i] = x * (1 / divisor)
        else:
            values[i] = recorder.replay(operation, values)
    return Program(tuple(recorder.operations), tree_map(lambda i: values[i].index, program.outputs))


def _is_one(program: Program, i: int) -> bool:
    """Return whether a division is an inverse already."""
    dividend = program.operations[program.operations[i].inputs[0]]
    return dividend.name == "constant" and bool((dividend.attributes["value"] == 1).all())


class Copier:
    """A program to which copies of values are added: results that are no values of their own."""

    def __init__(self, program: Program) -> None:
        self.operations = list(program.operations)
        self._copies: dict[int, int] = {}

    def source(self, i: int) -> int:
        """Return the value that a value is a reshaped form of."""
        while self.operations[i].name == "reshape":
            (i,) = self.operations[i].inputs
        return i

    def copy(self, i: int) -> int:
        """Return the index of a copy: the product with 1."""
        if i not in self._copies:
            value = self.operations[i]
            self.operations.append(Operation("constant", (), (), value.dtype, {"value": np.ones((), value.dtype)}))
            self.operations.append(Operation("multiply", (i, len(self.operations) - 1), value.shape, value.dtype))
            self._copies[i] = len(self.operations) - 1
        return self._copies[i]

    def copy_view(self, i: int) -> int:
        """Return a copy of a value that is an input, or a part of another value; otherwise return ``i``."""
        return self.copy(i) if self.operations[self.source(i)].name in ("input", "slice") else i


class _Pusher:
    """A recorder of a program again, in which some operations change places with the elementwise ones before them."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.operations = program.operations
        self.recorder = Recorder()
        self.values: dict[int, TracedArray] = {}
        self.movable = set(range(len(self.operations))) - set(program.output_indices)
        """The values that are used by nothing but the moved operations."""
        for i in reversed(range(len(self.operations))):
            operation = self.operations[i]
            passes_on = operation.name in ELEMENTWISE or self._is_view(i)
            if not self._is_moved(i) and not (passes_on and i in self.movable):
                self.movable.difference_update(operation.inputs)

    def run(self) -> Program:
        """Return the new program."""
        for i, operation in enumerate(self.operations):
            is_moved = self._is_moved(i)
            self.values[i] = self._move(i) if is_moved else self.recorder.replay(operation, self.values)
        outputs = tree_map(lambda i: self.values[i].index, self.program.outputs)
        return Program(tuple(self.recorder.operations), outputs).without_unused()

    def _is_moved(self, i: int) -> bool:
        raise NotImplementedError

    def _move(self, i: int) -> TracedArray:
        raise NotImplementedError

    def _is_view(self, i: int) -> bool:
        """Return whether an operation only adds or removes axes of size 1."""
        operation = self.operations[i]
        if operation.name != "reshape":
            return False
        shapes = operation.shape, self.operations[operation.inputs[0]].shape
        return [n for n in shapes[0] if n > 1] == [n for n in shapes[1] if n > 1]


class _ReshapePusher(_Pusher):
    def _is_moved(self, i: int) -> bool:
        return self._is_view(i)

    def _move(self, i: int) -> TracedArray:
        return self._reshape(self.operations[i].inputs[0], self.operations[i].shape)

    def _reshape(self, i: int, shape: tuple[int, ...]) -> TracedArray:
        """Record value i with its axes of size 1 as in ``shape``, by way of the inputs that it is computed from."""
        operation = self.operations[i]
        if operation.name not in ELEMENTWISE or i not in self.movable:
            return self.values[i].reshape(shape)
        inputs = []
        for j in operation.inputs:
            own = self.operations[j].shape
            padded = (1,) * (len(operation.shape) - len(own)) + own
            sizes = iter([size for size, full in zip(padded, operation.shape, strict=True) if full > 1])
            inputs.append(self._reshape(j, tuple(next(sizes) if full > 1 else 1 for full in shape)))
        return self.recorder.record(operation.name, *inputs, **operation.attributes)


class _SlicePusher(_Pusher):
    def _is_moved(self, i: int) -> bool:
        return self.operations[i].name == "slice"

    def _move(self, i: int) -> TracedArray:
        return self._slice(self.operations[i].inputs[0], self.operations[i].attributes["index"])

    def _slice(self, i: int, index: Bounds) -> TracedArray:
        """Record a slice of value i, by way of the inputs that it is computed from if possible."""
        operation = self.operations[i]
        if operation.name == "slice":
            (source,), outer = operation.inputs, operation.attributes["index"]
            combined = tuple(
                (a + start * step, a + (stop - 1) * step + 1, step * inner)
                for (a, _, step), (start, stop, inner) in zip(outer, index, strict=True)
            )
            return self._slice(source, combined)
        if operation.name in ELEMENTWISE and i in self.movable:
            inputs = [self._slice_broadcast(j, operation.shape, index) for j in operation.inputs]
            return self.recorder.record(operation.name, *inputs, **operation.attributes)
        if operation.name == "concatenate":
            axis, begin = operation.attributes["axis"], 0
            start, stop, step = index[axis]
            for part in operation.inputs:
                end = begin + self.operations[part].shape[axis]
                if begin <= start and stop <= end:
                    bounds = (start - begin, stop - begin, step)
                    return self._slice(part, (*index[:axis], bounds, *index[axis + 1 :]))
                begin = end
        if self._is_view(i):
            source = operation.inputs[0]
            parts = iter([part for part, size in zip(index, operation.shape, strict=True) if size > 1])
            inner = tuple(next(parts) if size > 1 else (0, 1, 1) for size in self.operations[source].shape)
            return self._slice(source, inner).reshape(tuple(len(range(*part)) for part in index))
        value = self.values[i]
        is_whole = all(part == (0, size, 1) for part, size in zip(index, operation.shape, strict=True))
        return value if is_whole else self.recorder.record("slice", value, index=index)

    def _slice_broadcast(self, i: int, shape: tuple[int, ...], index: Bounds) -> TracedArray:
        """Record the slice of value i, broadcast to ``shape``, that ``index`` selects; its repeated axes stay 1."""
        own = self.operations[i].shape
        bounds = index[len(shape) - len(own) :]
        return self._slice(i, tuple((0, 1, 1) if size == 1 else part for size, part in zip(own, bounds, strict=True)))
