"""Source of the compiled function that runs a ``Schedule`` over a whole sequence.

The function takes a table with the addresses of its arrays, which are (time, batch, size). Several threads compute
different rows of the batch for all time steps, and never wait for each other.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from revgen.compiler import Operation
from revgen.compiler.schedule import Schedule, Segment
from revgen.networks.fused.matmul_kernels import packed_shape
from revgen.networks.language import Location
from revgen.networks.numba_code import EXPRESSIONS, TYPES, NumbaWriter
from revgen.networks.strides import split_at

Kind: TypeAlias = Literal["value", "operand", "state", "state operand", "sum"]
Key: TypeAlias = tuple[Kind, int]
"""An array: what it holds, and the index of the value, or of the input that holds the state."""

HEADER_SIZE = 6
"""The number of integers in a table before the addresses (``networks.fused.parallel``)."""
HEADER = '''\
"""Generated from the program of one time step."""

import numpy as np
from numba import carray

from revgen.networks.fused.element_kernels import {functions}
from revgen.networks.jit import as_pointer, from_bfloat16, to_bfloat16
from revgen.networks.fused.matmul_kernels import multiply_{dtype} as multiply
from revgen.networks.fused.parallel import compiled, rows, thread_rows
'''
COPY, ROUND, ADD = (
    "{array}[{index}] = {element}",
    "{array}[{index}] = to_bfloat16({element})",
    "{array}[{index}] += {element}",
)


@dataclass(frozen=True)
class Target:
    """An array that gets a value: its row, the position of the value in it, and the statement that writes it."""

    row: str
    offset: int = 0
    statement: str = COPY

    def store(self, index: str, element: str) -> str:
        """Return the statement for one element."""
        index = f"{index} + {self.offset}" if self.offset else index
        return self.statement.format(array=self.row, index=index, element=element)


class Bindings:
    """The arrays whose rows a segment reads or writes. Its function takes each array once."""

    def __init__(self) -> None:
        self._indices: dict[str, str] = {}

    def add(self, expression: str, index: str = "[b]") -> str:
        """Return the name of the row that ``index`` selects from the array ``expression``."""
        self._indices.setdefault(expression, index)
        return f"r{self.expressions.index(expression)}"

    @property
    def expressions(self) -> list[str]:
        """The arguments of the function."""
        return list(self._indices)

    @property
    def parameters(self) -> list[str]:
        """The names of its parameters."""
        return [f"q{n}" if index else f"r{n}" for n, index in enumerate(self._indices.values())]

    def rows(self) -> list[str]:
        """Return the statements that select the rows."""
        return [f"r{n} = q{n}{index}" for n, index in enumerate(self._indices.values()) if index]


class SegmentWriter(NumbaWriter):
    """A generator of the body of a loop over rows.

    ``values`` are to be computed. ``rows`` holds the values of earlier segments, and ``targets`` the arrays that get
    the results. ``buffers`` are statements that create arrays before the loop.
    """

    expressions = EXPRESSIONS

    def __init__(
        self,
        schedule: Schedule,
        values: Iterable[int],
        rows: Mapping[int, Location],
        targets: Mapping[int, list[Target]],
        weights: dict[tuple[int, bool], None],
    ) -> None:
        super().__init__(schedule.program)
        self.fixed = set(schedule.fixed)
        self.weights = weights
        self.rows = rows
        self.buffers: list[str] = []
        self.values = sorted(values)
        self.targets = {i: list(found) for i, found in targets.items()}
        self.stored: set[int] = set()
        self.depth = 0
        self.users = {}
        for i in self.values:
            for j in self.operations[i].inputs:
                self.users.setdefault(j, []).append(i)
        for i in reversed(self.values):
            if self._is_joined(i):
                self._pass_targets_on(i)

    def body(self) -> list[str]:
        """Return the lines of the body."""
        for i, location in self.rows.items():
            self._set_location(i, location)
        self.write_operations(self.values)
        for i, targets in self.targets.items():
            if i not in self.stored:
                self._copy_to(targets, i)
        return self.lines

    def new_array(self, name: str, operation: Operation, fill: str | None = None) -> None:
        self.buffers.append(f"{name} = np.empty({operation.size}, {TYPES[str(operation.dtype)]})")
        if fill is not None:
            self.emit(f"{name}[:] = {fill}")

    def _stores(self, i: int, members: Sequence[int]) -> list[str]:
        self.stored.add(i)
        targets = self.targets.get(i, [])
        statements = [target.store("j", f"e{i}") for target in targets]
        if all(user in members or self._is_joined(user) for user in self.users.get(i, [])):
            self._set_location(i, Location(f"v{i}", root=i))
            return statements
        for target in targets:
            if target.statement == COPY:  # the value can be read from there
                self._set_location(i, Location(target.row, target.offset, root=i))
                return statements
        return [*statements, f"{self._allocate(i).array}[j] = e{i}"]

    def add_product(self, x: Location, matrix: int, y: Location) -> None:
        self.add_batched_product(x, self.location(matrix), y, (1, 1, *self.operations[matrix].shape))

    # Concatenated values whose parts are written to the targets directly

    def _is_joined(self, i: int) -> bool:
        """Return whether a value is only used outside the segment, and its parts can be written there one by one."""
        operation, users = self.operations[i], self.users.get(i)
        if operation.name == "reshape" and users:
            return all(self._is_joined(user) for user in users)
        is_concatenated = operation.name == "concatenate" and not users
        return is_concatenated and split_at(operation.shape, operation.attributes["axis"])[0] == 1

    def _pass_targets_on(self, i: int) -> None:
        operation = self.operations[i]
        if operation.name == "reshape":
            return
        axis, begin = operation.attributes["axis"], 0
        inner = split_at(operation.shape, axis)[2]
        for part in operation.inputs:
            source = part
            while self.operations[source].name == "reshape" and self.operations[source].inputs[0] in self.values:
                (source,) = self.operations[source].inputs
            for target in self.targets.get(i, []):
                moved = Target(target.row, target.offset + begin * inner, target.statement)
                self.targets.setdefault(source, []).append(moved)
            begin += self.operations[part].shape[axis]

    def _write_concatenate(self, i: int, operation: Operation, *parts: int) -> None:
        if self._is_joined(i):
            self.stored.add(i)
        else:
            super()._write_concatenate(i, operation, *parts)

    def _copy_to(self, targets: Sequence[Target], i: int) -> None:
        """Copy a value that has been computed to other arrays."""
        size = self.operations[i].size
        if size == 1:
            for target in targets:
                self.emit(target.store("0", self._scalar(i)))
            return
        location = self.location(i)
        for target in targets:
            if (location.array, location.offset) != (target.row, target.offset):
                with self.loop("j", size):
                    self.emit(target.store("j", location.at("j")))


class SequenceWriter:
    """A generator of the source of a function that runs a schedule over a sequence.

    ``operands`` are values that the caller needs as operands of products, and ``sums`` values that it needs summed over
    all rows and time steps. With ``keeps_states``, the states after all time steps are kept, and not only the last.
    ``dtype`` is the type of the products: "bfloat16", "float32" or "float64". ``rounded`` are values that are stored in
    bfloat16.
    """

    def __init__(
        self,
        schedule: Schedule,
        operands: Iterable[int],
        sums: Iterable[int] = (),
        rounded: Iterable[int] = (),
        *,
        keeps_states: bool,
        dtype: str,
    ) -> None:
        self.schedule = schedule
        self.operations = schedule.operations
        self.states = {new: old for old, new in schedule.carried.items()}
        self.keeps_states = keeps_states
        self.dtype = dtype
        self.number = TYPES["float64" if dtype == "float64" else "float32"]
        self.product = "np.uint16" if dtype == "bfloat16" else self.number
        self.sums = {schedule.without_reshapes(i) for i in sums}
        self.operands = {schedule.without_reshapes(i) for i in operands} | set(schedule.operands.values())
        self.rounded = set(rounded)
        self.kept = self._find_kept()
        self.arrays: list[Key] = []
        self.weights: dict[tuple[int, bool], None] = {}
        self.matrices: list[int] = []
        self._functions: list[str] = []
        self._buffers: list[str] = []
        self._lines = [line for segment in schedule.segments for line in self._segment(segment)]

    # Arrays

    def _find_kept(self) -> set[int]:
        """Return the values that have an array of their own."""
        kept = set(self.schedule.stored)
        if self.dtype != "bfloat16":
            kept |= self.operands & self.schedule.positions.keys()
        return {i for i in kept if not (i in self.states and (self.keeps_states or i not in self.schedule.stored))}

    def source_of(self, i: int) -> tuple[Key, str]:
        """Return the array from which the elements of a value are read, and its time: "t", "old" or "new"."""
        i = self.schedule.without_reshapes(i)
        if i in self.schedule.carried:
            return ("state", i), "old"
        if i in self.states and i not in self.kept:
            return ("state", self.states[i]), "new"
        return ("value", i), "t"

    def operand(self, i: int) -> tuple[Key, str]:
        """Return the array that holds a value as the operand of a product, and its time."""
        (kind, j), time = self.source_of(i)
        if self.dtype != "bfloat16":
            return (kind, j), time
        return ("state operand" if kind == "state" else "operand", j), time

    def _type(self, i: int) -> str:
        return TYPES[str(self.operations[i].dtype)]

    def is_bfloat16(self, key: Key) -> bool:
        """Return whether an array holds bfloat16 numbers."""
        kind, i = key
        return (kind.endswith("operand") and self.dtype == "bfloat16") or (kind == "value" and i in self.rounded)

    def width(self, key: Key) -> int:
        """Return the length of a row of an array. A row of bfloat16 operands consists of pairs."""
        size = self.operations[key[1]].size
        return size + size % 2 if key[0].endswith("operand") else size

    def _shape(self, key: Key) -> str:
        if key[0] == "sum":
            return f"(table[1], {self.width(key)})"
        depth = "time" if "state" not in key[0] else "time + 1" if self.keeps_states else "2"
        return f"({depth}, batch, {self.width(key)})"

    def _array(self, key: Key) -> str:
        """Return the name of an array, an argument of the function."""
        if key not in self.arrays:
            self.arrays.append(key)
        return f"a{self.arrays.index(key)}"

    # Code

    def source(self, is_reversed: bool) -> str:
        """Return the source of a module with the function ``run``."""
        suffix = "_float64" if self.dtype == "float64" else ""
        functions = ", ".join(f"{name}{suffix} as {name}" for name in ("exp", "log", "sigmoid", "softplus", "tanh"))
        arguments = [(f"a{n}", self._shape(key), self._kind(key)) for n, key in enumerate(self.arrays)]
        arguments += [
            (f"w{n}", f"({self.operations[i].size},)", self._type(i)) for n, (i, _) in enumerate(self.weights)
        ]
        arguments += [(f"m{n}", str(self._packed_shape(i)), self.product) for n, i in enumerate(self.matrices)]
        lines = [
            "begin, end, thread = thread_rows(table)",
            "batch, time = table[2], table[3]",
            *(
                f"{name} = carray(as_pointer(table[{position}]), {shape}, {kind})"
                for position, (name, shape, kind) in enumerate(arguments, HEADER_SIZE)
            ),
            *self._buffers,
            "for step in range(time):",
            f"    t = {'time - 1 - step' if is_reversed else 'step'}",
            f"    old, new = {'step, step + 1' if self.keeps_states else 'step % 2, (step + 1) % 2'}",
            *(f"    {line}" for line in self._lines),
        ]
        body = "".join(f"    {line}\n" for line in lines)
        header = HEADER.format(dtype=self.dtype, functions=functions)
        return f"{header}{''.join(self._functions)}\n\n@compiled\ndef run(table):\n{body}"

    def _kind(self, key: Key) -> str:
        if key[0] == "value":
            return "np.uint16" if self.is_bfloat16(key) else self._type(key[1])
        return "np.uint16" if self.is_bfloat16(key) else self.number

    def _packed_shape(self, i: int) -> tuple[int, ...]:
        inputs, outputs = self.operations[i].shape
        return packed_shape(inputs, outputs, self.dtype)

    def _segment(self, segment: Segment) -> Iterator[str]:
        """Yield the lines of a segment: its products, and the call of the function with its loop over rows."""
        bindings = Bindings()
        for product in segment.products:
            yield self._product(product)
        values = self._with_views(segment.members)
        rows: dict[int, Location] = {}
        for i in values:
            for root in self.schedule.inputs(i):
                if root not in segment.members and root not in rows:
                    rows[root] = self._row(root, bindings)
        targets: dict[int, list[Target]] = {}
        for i in (*segment.members, *segment.products):
            if found := self._targets(i, bindings):
                targets[i] = found
                if i in segment.products:
                    rows.setdefault(i, self._row(i, bindings))
        writer = SegmentWriter(self.schedule, values, rows, targets, self.weights)
        if not (body := writer.body()):
            return
        name, weights = f"rows_{len(self._functions)}", [f"w{n}" for n in range(len(self.weights))]
        lines = [*writer.buffers, "for b in range(begin, end):"]
        lines += [f"    {line}" for line in (*bindings.rows(), *body)]
        parameters = ", ".join(["begin", "end", *bindings.parameters, *weights])
        function = "".join(f"    {line}\n" for line in lines)
        self._functions.append(f"\n\n@rows\ndef {name}({parameters}):\n{function}")
        yield f"{name}({', '.join(['begin', 'end', *bindings.expressions, *weights])})"

    def _with_views(self, members: Iterable[int]) -> list[int]:
        """Return the members of a segment, and the slices and reshaped values that they use."""
        needed = set(members)
        for i in range(len(self.operations) - 1, -1, -1):
            if i in needed:
                inputs = self.operations[i].inputs
                needed.update(j for j in inputs if j not in self.schedule.fixed and self.schedule.root(j) != j)
        return sorted(needed)

    def _product(self, i: int) -> str:
        """Return the line that computes a product for the rows of this thread."""
        self.matrices.append(self.operations[i].inputs[1])
        panels, _, width, _ = self._packed_shape(self.matrices[-1])
        if not self._is_direct(i):
            self._buffers.append(f"c{i} = np.empty((end - begin, {panels * width}), {self.number})")
        out = f"{self._at(*self.source_of(i))}[begin:end]" if self._is_direct(i) else f"c{i}"
        operand = self._at(*self.operand(self.schedule.operands[i]))
        return f"multiply({operand}[begin:end], m{len(self.matrices) - 1}, {out})"

    def _is_direct(self, i: int) -> bool:
        """Return whether a product is written to the array that it is stored in, without a buffer."""
        panels, _, width, _ = self._packed_shape(self.operations[i].inputs[1])
        return i in self.kept and i not in self.rounded and panels * width == self.operations[i].size

    def _at(self, key: Key, time: str) -> str:
        """Return the expression for the rows of an array at the current time step."""
        return f"{self._array(key)}[{'thread' if key[0] == 'sum' else time}]"

    def _row(self, i: int, bindings: Bindings) -> Location:
        """Return the location of a value that is not computed in this segment."""
        if i in self.schedule.products and not self._is_direct(i):
            return Location(bindings.add(f"c{i}", "[b - begin]"), root=i)
        if self._has_buffer(i):
            return Location(bindings.add(f"s{i}", "[b - begin]"), root=i)
        key, time = self.source_of(i)
        convert = "from_bfloat16" if self.is_bfloat16(key) else ""
        return Location(bindings.add(self._at(key, time)), root=i, convert=convert)

    def _targets(self, i: int, bindings: Bindings) -> list[Target]:
        """Return the arrays that get a value when it has been computed."""
        targets = []
        if i in self.kept and not (i in self.schedule.products and self._is_direct(i)):
            statement = ROUND if i in self.rounded else COPY
            targets.append(Target(bindings.add(self._at(("value", i), "t")), statement=statement))
        olds = [old for old, new in self.schedule.carried.items() if new == i]
        targets += [Target(bindings.add(self._at(("state", old), "new"))) for old in olds]
        if self._has_buffer(i):
            self._buffers.append(f"s{i} = np.empty((end - begin, {self.operations[i].size}), {self._type(i)})")
            targets.append(Target(bindings.add(f"s{i}", "[b - begin]")))
        if self.dtype == "bfloat16":
            keys: list[Key] = [("state operand", old) for old in olds if {old, i} & self.operands]
            if i in self.operands and not self.operand(i)[0][0].startswith("state"):
                keys.append(("operand", i))
            times = {"operand": "t", "state operand": "new"}
            targets += [Target(bindings.add(self._at(key, times[key[0]])), statement=ROUND) for key in keys]
        if i in self.sums:
            targets.append(Target(bindings.add(self._at(("sum", i), ""), ""), statement=ADD))
        return targets

    def _has_buffer(self, i: int) -> bool:
        """Return whether a member is kept in a buffer for the loops of later segments of the same time step."""
        positions, products = self.schedule.positions, self.schedule.products
        if i not in positions or i in products or i in self.states or i in self.kept - self.rounded:
            return False
        users = (user for user in positions if user not in products)
        return any(i in self.schedule.inputs(user) and positions[user] > positions[i] for user in users)
