"""``Program``: a computation as a list of operations in single-assignment form, with static shapes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from revgen.compiler.primitives import ELEMENTWISE, PRIMITIVES, REDUCTIONS
from revgen.ops import tree_map


@dataclass(frozen=True)
class Operation:
    """One operation. Other operations refer to its result by its index in the program.

    ``name`` is the name of a primitive, or "input" (``attributes["name"]`` is the input's name), or "constant"
    (``attributes["value"]`` is its array).
    """

    name: str
    inputs: tuple[int, ...]
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    composite: str = ""
    """The operator of ``revgen.ops`` that this operation is a part of, and the number of the call: "gelu 3"."""

    @property
    def size(self) -> int:
        """The number of elements of the result."""
        return prod(self.shape)


@dataclass(frozen=True)
class Cost:
    """The cost of one run of a program."""

    flop: int
    """Floating-point operations: two for each multiply-add of a matrix product, one for each element elsewhere."""
    matmul_flop: int
    """The part of ``flop`` in matrix products."""
    bytes: int
    """Bytes that the operations read and write, as if there were no caches."""


@dataclass(frozen=True)
class Program:
    """Operations in the order in which they run, and the indices of the results, nested like the function's result."""

    operations: tuple[Operation, ...]
    outputs: Any

    def __call__(self, **inputs: NDArray[Any]) -> Any:
        """Run the program on NumPy. Every backend is compared with this reference.

        ``inputs`` has an array for each of the ``input_names``.
        """
        values = self.compute(range(len(self.operations)), inputs)
        return tree_map(values.__getitem__, self.outputs)

    def compute(
        self,
        indices: Iterable[int],
        inputs: Mapping[str, NDArray[Any]],
        known: Mapping[int, NDArray[Any]] | None = None,
    ) -> dict[int, NDArray[Any]]:
        """Compute the values at these indices from the inputs and the ``known`` values; return all of them."""
        values = dict(known or {})
        for i in sorted(indices):
            operation = self.operations[i]
            if operation.name == "input":
                values[i] = inputs[operation.attributes["name"]]
            elif operation.name == "constant":
                values[i] = operation.attributes["value"]
            else:
                arguments = (values[j] for j in operation.inputs)
                values[i] = PRIMITIVES[operation.name](*arguments, **operation.attributes)
        return values

    @property
    def input_names(self) -> list[str]:
        """The names of the inputs, in the order of the function's arguments."""
        return [operation.attributes["name"] for operation in self.operations if operation.name == "input"]

    @property
    def output_indices(self) -> list[int]:
        """The indices of the results, without their nesting."""
        indices: list[int] = []
        tree_map(indices.append, self.outputs)
        return indices

    def without_unused(self) -> Program:
        """Return the program without the operations that no result depends on. All inputs stay."""
        inputs = {i for i, operation in enumerate(self.operations) if operation.name == "input"}
        used = inputs | set(self.output_indices)
        for i in reversed(range(len(self.operations))):
            if i in used:
                used.update(self.operations[i].inputs)
        position = {old: new for new, old in enumerate(sorted(used))}
        operations = [
            replace(o, inputs=tuple(position[i] for i in o.inputs))
            for o in map(self.operations.__getitem__, sorted(used))
        ]
        return Program(tuple(operations), tree_map(position.__getitem__, self.outputs))

    def cost(self) -> Cost:
        """Count the floating-point operations, and the bytes that are read and written."""
        flop = matmul_flop = num_bytes = 0
        for operation in self.operations:
            arguments = [self.operations[i] for i in operation.inputs]
            if operation.name in ("input", "constant"):
                continue
            if operation.name == "matmul":
                matmul_flop += 2 * operation.size * arguments[0].shape[-1]
            elif operation.name in REDUCTIONS:
                flop += arguments[0].size
            elif operation.name in ELEMENTWISE and operation.dtype.kind == "f":
                flop += operation.size
            # ``take`` reads its table only where it selects rows, so it reads as many elements as it writes.
            read = [operation, *arguments[1:]] if operation.name == "take" else arguments
            num_bytes += sum(o.size * o.dtype.itemsize for o in (*read, operation))
        return Cost(flop + matmul_flop, matmul_flop, num_bytes)

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        """Yield one line for each input, each operation and the result."""
        names = [
            o.attributes["name"] if o.name == "input" else _format_constant(o) if _is_scalar(o) else f"v{i}"
            for i, o in enumerate(self.operations)
        ]
        for name, operation in zip(names, self.operations, strict=True):
            kind = f"{operation.dtype}[{', '.join(map(str, operation.shape))}]"
            if operation.name == "input":
                yield f"{name}: {kind}"
            elif not _is_scalar(operation):
                attributes = [f"{key}={_format_attribute(value)}" for key, value in operation.attributes.items()]
                arguments = ", ".join([*(names[i] for i in operation.inputs), *attributes])
                yield f"{name}: {kind} = {operation.name}({arguments})"
        yield f"return {tree_map(lambda i: _Name(names[i]), self.outputs)}"


class _Name(str):
    """A string that is printed without quotes inside a tuple or a list."""

    __repr__ = str.__str__


def _is_scalar(operation: Operation) -> bool:
    return operation.name == "constant" and operation.size == 1


def _format_constant(operation: Operation) -> str:
    return f"{operation.attributes['value'].item():.6g}"


def _format_attribute(value: Any) -> str:
    return f"<{value.dtype} array>" if isinstance(value, np.ndarray) else str(value)
