"""Reverse-mode differentiation: the gradient of a program is another program.

Each operation has a rule that computes the gradients of its inputs from the gradient of its result (Griewank & Walther
2008, *Evaluating derivatives*, chapter 3). The rules are written with traced arrays, so the gradient is recorded like
any other equation.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from revgen.compiler.program import Operation, Program
from revgen.compiler.tracer import Recorder, TracedArray
from revgen.errors import NotTraceableError

Bounds = tuple[tuple[int, int, int], ...]


@dataclass(frozen=True)
class Gradient:
    """The program that computes the gradients of another program, before operations that no result uses are removed.

    Its inputs are those of the other program, and ``d.0``, ``d.1``, …, the gradients of the results. ``outputs`` maps
    the index of each differentiated value to the index of its gradient; values without a gradient are left out.
    ``products`` holds, for each matrix among these values, the pairs (x, g) of the products x @ matrix: the gradient of
    the matrix is the sum of x' g, to which ``outputs`` adds the rest.
    """

    program: Program
    values: Mapping[int, int]
    """The index in the new program of each value of the other program."""
    outputs: Mapping[int, int]
    products: Mapping[int, Sequence[tuple[int, int]]]

    @cached_property
    def sources(self) -> dict[int, int]:
        """The inverse of ``values``."""
        return {new: old for old, new in self.values.items()}

    @cached_property
    def needed_program(self) -> Program:
        """The program without the operations that no gradient uses. It returns the gradients, then the pairs."""
        pairs = (pair for pairs in self.products.values() for pair in pairs)
        return Program(
            self.program.operations, [*self.outputs.values(), *(j for x_g in pairs for j in x_g)]
        ).without_unused()


def differentiate(program: Program, inputs: Collection[int], matrices: Collection[int] = ()) -> Gradient:
    """Return the gradient of a program with respect to the values at the indices ``inputs``.

    Gradients are not passed on to the operations that compute these values. ``matrices`` are those of them whose
    products are returned as pairs. Raises NotTraceableError for an operation without a derivative.
    """
    recorder = Recorder()
    values: dict[int, TracedArray] = {}
    active = set(inputs)
    for i, operation in enumerate(program.operations):
        values[i] = recorder.replay(operation, values)
        if operation.dtype.kind == "f" and i not in active and active.intersection(operation.inputs):
            active.add(i)
    sums = {i: _Sum(values[i]) for i in active}
    for number, i in enumerate(program.output_indices):
        gradient = recorder.input(f"d.{number}", values[i].example)
        if i in active:
            sums[i].add(gradient)
    products: dict[int, list[tuple[int, int]]] = {i: [] for i in matrices}
    for i in reversed(range(len(program.operations))):
        if i not in active or i in inputs or (g := sums[i].total()) is None:
            continue
        operation = program.operations[i]
        x, *others = operation.inputs
        if operation.name == "matmul" and others[0] in products:
            if x in active:
                sums[x].add(g @ values[others[0]].swapaxes(-1, -2))
            products[others[0]].append((values[x].index, g.index))
            continue
        _add_gradients(operation, values, sums, g, values[i])
    totals = {i: total.index for i in inputs if (total := sums[i].total()) is not None}
    gradient_program = Program(tuple(recorder.operations), list(totals.values()))
    return Gradient(gradient_program, {i: value.index for i, value in values.items()}, totals, products)


class _Sum:
    """The gradient of a value: the sum of the contributions of the operations that use it."""

    def __init__(self, value: TracedArray) -> None:
        self.value = value
        self.terms: list[TracedArray] = []
        self.slices: list[tuple[Bounds, TracedArray]] = []

    def add(self, gradient: TracedArray) -> None:
        """Add a contribution. Axes along which the value was repeated are summed."""
        shape = self.value.shape
        for axis, size in enumerate((1,) * (gradient.ndim - len(shape)) + shape):
            if size == 1 < gradient.shape[axis]:
                gradient = gradient.sum(axis)
        self.terms.append(gradient.reshape(shape) if gradient.ndim > len(shape) else gradient)

    def total(self) -> TracedArray | None:
        """Return the sum, which has the shape of the value; None if nothing has been added."""
        while self.slices:
            self.terms.append(self._join_slices())
        if not self.terms:
            return None
        result: Any = self.terms[0]
        for term in self.terms[1:]:
            result = result + term
        if result.shape != self.value.shape:
            result = result + _zeros(self.value, self.value.shape)
        self.terms = [result]
        return result  # type: ignore[no-any-return]

    def _join_slices(self) -> TracedArray:
        """Concatenate slices that do not overlap and differ in one axis only, with zeros in the gaps."""
        shape, (bounds, _) = self.value.shape, self.slices[0]
        if any(step != 1 for _, _, step in bounds):
            raise NotTraceableError("a slice with a step has no derivative here")
        narrow = [axis for axis, part in enumerate(bounds) if part != (0, shape[axis], 1)]
        axis = narrow[-1]
        waiting, chosen, self.slices = self.slices, self.slices[:1], []
        for other, g in waiting[1:]:
            differs = any(a != b for i, (a, b) in enumerate(zip(other, bounds, strict=True)) if i != axis)
            overlaps = any(other[axis][0] < used[axis][1] and used[axis][0] < other[axis][1] for used, _ in chosen)
            (self.slices if differs or overlaps else chosen).append((other, g))
        joined: list[TracedArray] = []
        end = 0
        for other, g in sorted(chosen, key=lambda item: item[0][axis]):
            start, stop, _ = other[axis]
            joined += [_zeros(g, _resized(g.shape, axis, start - end))] * (start > end) + [g]
            end = stop
        last = joined[-1]
        joined += [_zeros(last, _resized(last.shape, axis, shape[axis] - end))] * (end < shape[axis])
        result = joined[0]._record("concatenate", *joined[1:], axis=axis) if len(joined) > 1 else joined[0]
        if narrow[:-1]:
            outer = tuple(part if i != axis else (0, shape[axis], 1) for i, part in enumerate(bounds))
            self.slices.append((outer, result))
            return self._join_slices()
        return result


def _resized(shape: tuple[int, ...], axis: int, size: int) -> tuple[int, ...]:
    return (*shape[:axis], size, *shape[axis + 1 :])


def _zeros(like: TracedArray, shape: tuple[int, ...]) -> TracedArray:
    return like.recorder.constant(np.zeros(shape, like.dtype))


def _add_gradients(
    operation: Operation, values: Mapping[int, TracedArray], sums: Mapping[int, _Sum], g: TracedArray, y: TracedArray
) -> None:
    """Add the contributions of one operation, whose result is y and has the gradient g, to the sums of its inputs."""
    arguments = [values[j] for j in operation.inputs]
    if operation.name == "slice":
        sums[operation.inputs[0]].slices.append((operation.attributes["index"], g))
        return
    if operation.name not in RULES:
        raise NotTraceableError(f"{operation.name} has no derivative here")
    results = RULES[operation.name](g, y, *arguments, **operation.attributes)
    for j, result in zip(operation.inputs, results, strict=True):
        if j in sums:
            if result is None:
                raise NotTraceableError(f"{operation.name} has no derivative with respect to one of its arguments")
            sums[j].add(result)


def _power(g: Any, y: Any, x: Any, exponent: Any) -> tuple[Any, Any]:
    operation = x.recorder.operations[exponent.index]
    if operation.name == "constant" and (operation.attributes["value"] == 0.5).all():
        return g * 0.5 / y, None
    return g * exponent * x ** (exponent - 1), g * y * x.log()


def _where(g: Any, y: Any, condition: Any, a: Any, b: Any) -> tuple[Any, Any, Any]:
    return None, condition._record("where", g, g._traced(0)), condition._record("where", g._traced(0), g)


def _maximum(g: Any, y: Any, a: Any, b: Any) -> tuple[Any, Any]:
    return _where(g, y, a > b, a, b)[1:]


def _amax(g: Any, y: Any, x: Any, axis: int) -> tuple[Any]:
    weights = (x == y)._record("where", x._traced(1), x._traced(0))
    return (g * weights / weights.sum(axis),)  # equal maxima share the gradient


def _cumsum(g: Any, y: Any, x: Any, axis: int) -> tuple[Any]:
    return (g.sum(axis) - g.cumsum(axis) + g,)


def _concatenate(g: Any, y: Any, *parts: Any, axis: int) -> list[Any]:
    gradients, begin = [], 0
    for part in parts:
        index = (slice(None),) * axis + (slice(begin, begin + part.shape[axis]),)
        gradients.append(g[index])
        begin += part.shape[axis]
    return gradients


def _matmul(g: Any, y: Any, a: Any, b: Any) -> tuple[Any, Any]:
    if a.ndim < 2:
        raise NotTraceableError("a product of a vector and a matrix has no derivative here: reshape the vector")
    if b.ndim < 2:
        return g[..., None] * b, g[..., None] * a
    return g @ b.swapaxes(-1, -2), a.swapaxes(-1, -2) @ g


RULES: dict[str, Callable[..., Sequence[Any]]] = {
    "add": lambda g, y, a, b: (g, g),
    "subtract": lambda g, y, a, b: (g, -g),
    "multiply": lambda g, y, a, b: (g * b, g * a),
    "divide": lambda g, y, a, b: (g / b, -(g * y / b)),
    "remainder": lambda g, y, a, b: (g, None),
    "power": _power,
    "maximum": _maximum,
    "negative": lambda g, y, x: (-g,),
    "exp": lambda g, y, x: (g * y,),
    "log": lambda g, y, x: (g / x,),
    "tanh": lambda g, y, x: (g * (1 - y * y),),
    "sqrt": lambda g, y, x: (g * 0.5 / y,),
    "cos": lambda g, y, x: (-(g * x.sin()),),
    "sin": lambda g, y, x: (g * x.cos(),),
    "softplus": lambda g, y, x: (g * x.sigmoid(),),
    "sigmoid": lambda g, y, x: (g * y * (1 - y),),
    "where": _where,
    "sum": lambda g, y, x, axis: (g,),
    "amax": _amax,
    "cumsum": _cumsum,
    "reshape": lambda g, y, x, shape: (g.reshape(x.shape),),
    "transpose": lambda g, y, x, axes: (g._record("transpose", axes=tuple(np.argsort(axes).tolist())),),
    "concatenate": _concatenate,
    "cast": lambda g, y, x, dtype: (g._record("cast", dtype=x.dtype),),
    "matmul": _matmul,
}
"""For each operation, the gradients of its inputs: from the gradient g of the result, the result y, the inputs and the
attributes. A gradient may lack axes along which it is constant. None means that a derivative does not exist."""


def compute_gradients(gradient: Gradient, inputs: Mapping[str, Any]) -> dict[int, Any]:
    """Compute the gradients on NumPy: return the array of each differentiated value by its index.

    ``inputs`` has the arrays that the gradients depend on.
    """
    program = gradient.needed_program
    given = [i for i, o in enumerate(program.operations) if o.name != "input" or o.attributes["name"] in inputs]
    values = program.compute(given, inputs)
    arrays = map(values.__getitem__, program.outputs)
    gradients = {i: next(arrays) for i in gradient.outputs}
    for i, pairs in gradient.products.items():
        for _ in pairs:
            x, g = next(arrays), next(arrays)
            gradients[i] = gradients.get(i, 0) + x.reshape(-1, x.shape[-1]).T @ g.reshape(-1, g.shape[-1])
    return gradients
