"""A network in JavaScript: the source that ``networks.codegen`` generates, over typed arrays."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from revgen.compiler import Operation, Program
from revgen.networks.codegen import SourceWriter, input_name
from revgen.networks.language import OPERATORS, Location

EXPRESSIONS = OPERATORS | {
    "floor_divide": "Math.floor({0} / {1})",
    "remainder": "modulo({0}, {1})",
    "maximum": "Math.max({0}, {1})",
    "exp": "Math.exp({0})",
    "log": "Math.log({0})",
    "tanh": "Math.tanh({0})",
    "sqrt": "Math.sqrt({0})",
    "cos": "Math.cos({0})",
    "sin": "Math.sin({0})",
    "softplus": "Math.max({0}, 0) + Math.log1p(Math.exp(-Math.abs({0})))",
    "sigmoid": "1 / (1 + Math.exp(-{0}))",
    "logical_and": "{0} && {1}",
    "logical_or": "{0} || {1}",
    "logical_not": "!{0}",
    "where": "{0} ? {1} : {2}",
}
REDUCTIONS = {
    "sum": (0, "{0} += {1}"),
    "amax": (-np.inf, "{0} = Math.max({0}, {1})"),
    "cumsum": (0, "{0} += {1}"),
    "cummax": (-np.inf, "{0} = Math.max({0}, {1})"),
}


class JavaScriptWriter(SourceWriter):
    """A generator of a function of the weights, in the order of ``weight_names``, and of ``products.js``.

    It computes what depends on the weights alone, allocates all arrays, and returns ``step(token, state)``, which
    overwrites the arrays of the state and returns the logits.
    """

    state_array = "state[{0}]"
    expressions = EXPRESSIONS
    reductions = REDUCTIONS
    in_step = False

    def __init__(self, program: Program) -> None:
        super().__init__(program)
        self.all_fixed = self.fixed
        # Only inputs and constants are given; the rest of the fixed values is computed before the first token.
        self.fixed = {i for i in self.all_fixed if self.operations[i].name in ("input", "constant")}
        self.weight_names: list[str] = []
        self.names: dict[int, str] = {}  # of weights and constants
        self.matrices: set[int] = set()
        self.given: list[str] = []
        self.allocations: list[str] = []

    def source(self) -> str:
        """Return the source of the function."""
        self.write_operations(sorted(self._values_to_prepare()))
        prepared, self.lines, self.depth = self.lines, [], 2
        self.in_step = True
        self.write_program()
        lines = [*self.given, *prepared, *self.allocations, "  return (token, state) => {", *self.lines, "  };"]
        return "(weights, products) => {\n" + "\n".join(lines) + "\n}"

    def _values_to_prepare(self) -> set[int]:
        """Return the fixed values that are computed in advance: those that a token needs, and what they depend on."""
        needed = set(self.program.output_indices)
        for i, operation in enumerate(self.operations):
            if i not in self.all_fixed:
                needed.update(self._source_of_matrix(j) if operation.name == "matmul" else j for j in operation.inputs)
        needed &= self.all_fixed
        for i in range(len(self.operations) - 1, -1, -1):
            if i in needed:
                needed.update(self.operations[i].inputs)
        return needed - self.fixed

    def _source_of_matrix(self, i: int) -> int:
        """Return the weight whose transpose a value is, or the value itself."""
        operation = self.operations[i]
        is_transpose = operation.name == "transpose" and operation.attributes["axes"] == (1, 0)
        return operation.inputs[0] if is_transpose and i in self.all_fixed else i

    # Values

    def is_fixed(self, i: int) -> bool:
        return i in self.all_fixed

    def weight_name(self, i: int, as_matrix: bool = False) -> str:
        if i not in self.names:
            operation = self.operations[i]
            self.names[i] = f"w{i}"
            if operation.name == "constant":
                values = (self.literal(value, operation) for value in operation.attributes["value"].ravel().tolist())
                self.given.append(f"  const w{i} = {self._array_type(operation)}.of({', '.join(values)});")
            else:
                self.given.append(f"  const w{i} = weights[{len(self.weight_names)}];")
                self.weight_names.append(input_name(operation).removeprefix("p."))
        return self.names[i]

    def _matrix_name(self, i: int) -> str:
        """Return the name of a weight matrix that is packed for products."""
        if i not in self.matrices:
            self.matrices.add(i)
            source, (inputs, outputs) = self._source_of_matrix(i), self.operations[i].shape
            location = self.location(source)
            array = f"{location.array}.subarray({location.offset})" if location.offset else location.array
            strides = f"{outputs}, 1" if source == i else f"1, {inputs}"
            self._allocate_line(f"m{i} = products.pack({array}, {inputs}, {outputs}, {strides})")
        return f"m{i}"

    def _allocate_line(self, definition: str) -> None:
        """Write a definition before the function of a token, so that a token allocates nothing."""
        (self.allocations if self.in_step else self.lines).append(f"  const {definition};")

    def _array_type(self, operation: Operation) -> str:
        """Return the class of an array. Integers are in float64, which holds those up to 2^53 exactly."""
        return "Float32Array" if operation.dtype == np.float32 else "Float64Array"

    # The language

    def literal(self, value: float | bool, operation: Operation) -> str:
        if operation.dtype.kind == "b":
            return str(int(value))
        text = {"inf": "Infinity", "-inf": "-Infinity", "nan": "NaN"}.get(str(value), repr(value))
        return f"({text})" if text.startswith("-") else text

    def cast(self, expression: str, operation: Operation) -> str:
        if operation.dtype == np.float32:
            return f"Math.fround({expression})"
        return {"i": f"Math.trunc({expression})", "b": f"Number({expression} != 0)"}.get(
            operation.dtype.kind, expression
        )

    def emit(self, statement: str) -> None:
        self.lines.append(f"{'  ' * self.depth}{statement};")

    def define(self, name: str, value: str) -> None:
        self.emit(f"let {name} = {value}")

    @contextmanager
    def loop(self, variable: str, size: int) -> Iterator[None]:
        indentation = "  " * self.depth
        self.lines.append(f"{indentation}for (let {variable} = 0; {variable} < {size}; {variable}++) {{")
        self.depth += 1
        yield
        self.depth -= 1
        self.lines.append(f"{indentation}}}")

    def new_array(self, name: str, operation: Operation, fill: str | None = None) -> None:
        self._allocate_line(f"{name} = new {self._array_type(operation)}({operation.size})")
        if fill is not None:
            self.emit(f"{name}.fill({fill})")

    def copy(self, target: Location, source: Location, size: int) -> None:
        self.emit(f"copy({_arguments(source, target)}, {size})")

    def add_product(self, x: Location, matrix: int, y: Location) -> None:
        self.emit(f"products.add({x.array}, {x.offset}, {self._matrix_name(matrix)}, {y.array}, {y.offset})")

    def copy_strided(self, source: Location, target: Location, shape: tuple[int, ...], strides: Sequence[int]) -> None:
        self.emit(f"copyStrided({_arguments(source, target)}, {list(shape)}, {list(strides)})")

    def add_batched_product(self, x: Location, y: Location, target: Location, sizes: tuple[int, ...]) -> None:
        self.emit(f"addBatchedProduct({_arguments(x, y, target)}, {', '.join(map(str, sizes))})")

    def copy_row(self, table: int, row: str, target: Location) -> None:
        size, source = self.operations[table].shape[1], self.location(table)
        self.emit(f"copy({source.array}, {source.offset} + {row} * {size}, {target.array}, {target.offset}, {size})")

    def return_array(self, location: Location, size: int) -> None:
        self.emit(f"return {location.array}.subarray({location.offset}, {location.offset + size})")


def _arguments(*locations: Location) -> str:
    """Return each array and the offset in it, as arguments of a function."""
    return ", ".join(f"{location.array}, {location.offset}" for location in locations)
