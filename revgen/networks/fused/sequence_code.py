"""Source of the compiled function that runs a ``Schedule`` over a whole sequence.

The function takes a table with the addresses of its arrays, which are (time, batch, size). Several threads compute
different rows of the batch for all time steps, and never wait for each other.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator
from typing import Literal, TypeAlias

from revgen.compiler.schedule import Schedule, Segment
from revgen.networks.fused.matmul_kernels import packed_shape
from revgen.networks.fused.parallel import HEADER_SIZE
from revgen.networks.fused.segment_code import ADD, COPY, ROUND, Bindings, SegmentWriter, Target
from revgen.networks.language import Location
from revgen.networks.numba_code import TYPES

Kind: TypeAlias = Literal["value", "operand", "state", "state operand", "row", "sum"]
Key: TypeAlias = tuple[Kind, int]
"""An array: what it holds, and the index of the value, or of the input that holds the state or a constant row."""

HEADER = '''\
"""Generated from the program of one time step."""

import numpy as np
from numba import carray

from revgen.networks.fused.element_kernels import {functions}
from revgen.networks.jit import as_pointer, from_bfloat16, round_row, to_bfloat16
from revgen.networks.fused.matmul_kernels import multiply_{dtype} as multiply
from revgen.networks.fused.parallel import compiled, rows, thread_rows
'''


class SequenceWriter:
    """A generator of the source of a function that runs a schedule over a sequence.

    ``operands`` are values that the caller needs as operands of products, and ``sums`` values that it needs summed over
    all rows and time steps. ``rounded`` are values that are stored in bfloat16, and ``rows`` inputs that are the same
    at all time steps. With ``keeps_states``, the states after all time steps are kept, and not only the last; those
    that are operands are kept in bfloat16, except the values ``exact``. ``dtype`` is the type of the products:
    "bfloat16", "float32" or "float64".
    """

    def __init__(
        self,
        schedule: Schedule,
        operands: Iterable[int],
        sums: Iterable[int] = (),
        rounded: Iterable[int] = (),
        rows: Iterable[int] = (),
        *,
        keeps_states: bool,
        exact: Container[int] = (),
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
        self.rows = set(rows)
        self.full_states = {i for i in schedule.carried if keeps_states and not self._is_rounded_state(i, exact)}
        """The states that are kept after all time steps."""
        self.kept = self._find_kept()
        self.arrays: list[Key] = []
        self.weights: dict[tuple[int, bool], None] = {}
        self.matrices: list[int] = []
        self._functions: list[str] = []
        self._buffers: list[str] = []
        self._lines = [line for segment in schedule.segments for line in self._segment(segment)]

    # Arrays

    def _is_rounded_state(self, i: int, exact: Container[int]) -> bool:
        """Return whether a state is kept in bfloat16 only, as the operand of a product."""
        new, size = self.schedule.carried[i], self.operations[i].size
        return self.dtype == "bfloat16" and bool({i, new} & self.operands) and size % 2 == 0 and new not in exact

    def _find_kept(self) -> set[int]:
        """Return the values that have an array of their own."""
        kept = set(self.schedule.stored)
        if self.dtype != "bfloat16":
            kept |= self.operands & self.schedule.positions.keys()
        return {i for i in kept if not (i in self.states and (self.keeps_states or i not in self.schedule.stored))}

    def source_of(self, i: int) -> tuple[Key, str]:
        """Return the array from which the elements of a value are read, and its time: "t", "old", "new" or ""."""
        i = self.schedule.without_reshapes(i)
        if i in self.rows:
            return ("row", i), ""
        if i in self.schedule.carried:
            return ("state", i), "old"
        if i in self.states and i not in self.kept:
            return ("state", self.states[i]), "new"
        return ("value", i), "t"

    def history(self, i: int) -> tuple[Key, str]:
        """Return the array that holds a value at all time steps, and its time."""
        key, time = self.source_of(i)
        return (key, time) if self.is_kept(key) else self.operand(i)

    def is_kept(self, key: Key) -> bool:
        """Return whether an array holds the values at all time steps, and not only at the last two."""
        kind, i = key
        if kind == "state":
            return i in self.full_states
        return kind != "state operand" or self.keeps_states

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

    def shape(self, key: Key) -> tuple[str | int, ...]:
        """Return the shape of an array: numbers, and the variables of the generated function that it depends on."""
        if key[0] == "sum":
            return "threads", self.width(key)
        if key[0] == "row":
            return "batch", self.width(key)
        depth = "time" if "state" not in key[0] else "time + 1" if self.is_kept(key) else 2
        return depth, "batch", self.width(key)

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
        arguments = [
            (f"a{n}", f"({', '.join(map(str, self.shape(key)))})", self._kind(key)) for n, key in enumerate(self.arrays)
        ]
        arguments += [
            (f"w{n}", f"({self.operations[i].size},)", self._type(i)) for n, (i, _) in enumerate(self.weights)
        ]
        arguments += [(f"m{n}", str(self._packed_shape(i)), self.product) for n, i in enumerate(self.matrices)]
        lines = [
            "begin, end, thread = thread_rows(table)",
            "threads, batch, time = table[1], table[2], table[3]",
            *(
                f"{name} = carray(as_pointer(table[{position}]), {shape}, {kind})"
                for position, (name, shape, kind) in enumerate(arguments, HEADER_SIZE)
            ),
            *self._buffers,
            "for step in range(time):",
            f"    t = {'time - 1 - step' if is_reversed else 'step'}",
            "    old, new = step, step + 1",
            "    last, next = step % 2, (step + 1) % 2",
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
        lines = ["for b in range(begin, end):", *(f"    {line}" for line in (*bindings.rows(), *body))]
        parameters = ", ".join(["begin", "end", *bindings.parameters, *weights, *writer.buffers])
        function = "".join(f"    {line}\n" for line in lines)
        self._functions.append(f"\n\n@rows\ndef {name}({parameters}):\n{function}")
        buffers = {f"{name}_{buffer}": array for buffer, array in writer.buffers.items()}
        self._buffers += [f"{buffer} = {array}" for buffer, array in buffers.items()]
        yield f"{name}({', '.join(['begin', 'end', *bindings.expressions, *weights, *buffers])})"

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
        index = "thread" if key[0] == "sum" else time
        if time in ("old", "new") and not self.is_kept(key):
            index = "last" if time == "old" else "next"
        return f"{self._array(key)}[{index}]" if index else self._array(key)

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
