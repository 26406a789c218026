"""``Schedule``: the order in which the program of one time step is computed for the rows of a batch.

Matrix products with weights are computed for many rows at once, and everything between two products in one loop over
the rows. So a time step is a sequence of segments: some products, then a loop.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

from revgen.compiler.program import Program
from revgen.errors import NotTraceableError


@dataclass
class Segment:
    """Some products, and the loop over rows after them."""

    products: list[int] = field(default_factory=list)
    members: list[int] = field(default_factory=list)
    """The values that the loop computes."""


class Schedule:
    """The segments of a program.

    ``fixed`` are the values that are the same at all time steps, and ``carried`` maps the inputs that hold the state to
    the results that are the next state. ``stored`` are other values that the caller needs. Raises NotTraceableError if
    a result or a next state is a copy of an input.
    """

    def __init__(
        self, program: Program, fixed: Collection[int], carried: Mapping[int, int], stored: Collection[int]
    ) -> None:
        self.program = program
        self.operations = program.operations
        self.fixed = frozenset(fixed)
        self.products = {i for i in range(len(self.operations)) if self._is_product(i)}
        self.operands = {i: self.without_reshapes(self.operations[i].inputs[0]) for i in self.products}
        self.carried = {i: self.without_reshapes(new) for i, new in carried.items()}
        self.stored = {self.without_reshapes(i) for i in stored}
        results = (*self.operands.values(), *self.carried.values(), *self.stored)
        self._copied = {i for i in results if self.operations[i].name == "slice"}
        self.positions = self._find_positions()
        """The index of the segment that computes each value."""
        if not self.positions.keys() >= {*self.carried.values(), *self.stored}:
            raise NotTraceableError("a result that is a copy of an input has no compiled form")
        self.segments = [Segment() for _ in range(max(self.positions.values()) + 1)]
        for i, position in self.positions.items():
            segment = self.segments[position]
            (segment.products if i in self.products else segment.members).append(i)

    def _is_product(self, i: int) -> bool:
        """Return whether a value is the product of a row with a fixed matrix."""
        operation = self.operations[i]
        if operation.name != "matmul":
            return False
        x, matrix = operation.inputs
        is_matrix = matrix in self.fixed and x not in self.fixed and len(self.operations[matrix].shape) == 2
        return is_matrix and self.operations[x].size == self.operations[matrix].shape[0]

    def without_reshapes(self, i: int) -> int:
        """Return the value that a value is a reshaped form of."""
        while self.operations[i].name == "reshape" and i not in self.fixed:
            (i,) = self.operations[i].inputs
        return i

    def root(self, i: int) -> int:
        """Return the value whose elements a slice or a reshaped value refers to."""
        while self.operations[i].name in ("reshape", "slice") and i not in self.fixed and i not in self._copied:
            (i,) = self.operations[i].inputs
        return i

    def inputs(self, i: int) -> Iterator[int]:
        """Yield the values that a value is computed from, without slices and reshaped values between them."""
        for j in self.operations[i].inputs:
            if j not in self.fixed:
                yield self.root(j)

    def _find_positions(self) -> dict[int, int]:
        """Return the segment of each value that is computed: as early as possible, and a product before the loop."""
        positions: dict[int, int] = {}
        for i, operation in enumerate(self.operations):
            if i not in self.fixed and operation.name != "input" and self.root(i) == i:
                is_product = i in self.products
                positions[i] = max((positions[j] + is_product for j in self.inputs(i) if j in positions), default=0)
        return positions
