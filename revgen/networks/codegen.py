"""Compiled code for any network: the program of one token becomes the source of one function, which Numba compiles.

Operations on weights alone are computed once, in advance. Consecutive elementwise operations on vectors of one size
become one loop. Matrix products read the weights row by row, as they lie in memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod

from revgen.compiler import Operation, Program
from revgen.compiler.primitives import ELEMENTWISE
from revgen.errors import NotTraceableError
from revgen.networks.code_text import (
    EXPRESSIONS,
    FOOTER,
    HEADER,
    REDUCTIONS,
    TYPES,
    broadcast_strides,
    element_index,
    literal,
    row_major_strides,
    split_at,
    squeezed,
)


@dataclass(frozen=True)
class Location:
    """Where a value is: from ``offset`` on in a flat array, which is a weight, a state or the result ``root``."""

    array: str
    offset: int = 0
    root: int = -1

    def at(self, index: str) -> str:
        """Return the expression of an element."""
        return f"{self.array}[{index} + {self.offset}]" if self.offset else f"{self.array}[{index}]"

    def range(self, begin: int, size: int) -> str:
        """Return the expression of consecutive elements."""
        begin += self.offset
        return f"{self.array}[{begin}:{begin + size}]"


class SourceWriter:
    """Writes the source of a program whose inputs are ``tokens``, ``state`` and ``p``, the weights.

    ``weights`` lists the program's values that the function takes as weights, and whether each is used as a matrix.
    Raises NotTraceableError for a program that has no compiled form.
    """

    def __init__(self, program: Program) -> None:
        self.program = program
        self.operations = program.operations
        self.fixed = set(fixed_values(program))
        self.weights: dict[tuple[int, bool], None] = {}
        self.users: dict[int, list[int]] = {}
        for i, operation in enumerate(self.operations):
            for j in operation.inputs:
                self.users.setdefault(j, []).append(i)
        self.states = [i for i, o in enumerate(self.operations) if input_name(o).partition(".")[0] == "state"]
        self.locations: dict[int, Location] = {}
        self.numbers: dict[int, str] = {}
        self.loops: dict[int, list[int]] = {}  # open loops by size: the operations in each
        self.stored: set[int] = set()
        self.done: set[int] = set()
        self.lines: list[str] = []

    def source(self) -> str:
        """Return the source of a module with ``token_logits`` and ``sample_tokens``."""
        for number, i in enumerate(self.states):
            self.lines.append(f"s{number} = state[{number}].reshape(-1)")
            self._place(i, Location(f"s{number}", root=i))
        for i, operation in enumerate(self.operations):
            if i not in self.fixed and i not in self.done:
                self._write(i, operation)
        self._write_results()
        weights = [f"w{number} = weights[{number}]" for number in range(len(self.weights))]
        body = "".join(f"    {line}\n" for line in weights + self.lines)
        return HEADER + body + FOOTER

    def _write(self, i: int, operation: Operation) -> None:
        if operation.name == "input":
            if input_name(operation) == "tokens":
                self.numbers[i] = "token"
        elif operation.name in ELEMENTWISE:
            self._write_number(i, operation) if operation.size == 1 else self._add_to_loop(i, operation)
        else:
            write = self._reduce if operation.name in REDUCTIONS else getattr(self, f"_write_{operation.name}", None)
            if write is None:
                raise NotTraceableError(f"{operation.name} has no compiled form")
            for j in operation.inputs:
                self._finish_loop_of(j)
            write(i, operation, *operation.inputs)

    # Where values are

    def _place(self, i: int, location: Location) -> None:
        self.locations[i] = location
        if self.operations[i].size == 1:
            self.numbers[i] = location.at("0")

    def _new(self, i: int, content: str | None = None) -> Location:
        """Allocate the array of a result, or give it the content of an expression."""
        operation = self.operations[i]
        self.lines.append(f"v{i} = {content or f'np.empty({operation.size}, {TYPES[str(operation.dtype)]})'}")
        self._place(i, Location(f"v{i}", root=i))
        return self.locations[i]

    def _weight(self, i: int, as_matrix: bool = False) -> str:
        self.weights.setdefault((i, as_matrix))
        return f"w{list(self.weights).index((i, as_matrix))}"

    def _location(self, i: int) -> Location:
        if i in self.fixed:
            return Location(self._weight(i))
        if i not in self.locations:
            self._new(i, f"np.full(1, {self._number(i)})")
        return self.locations[i]

    def _number(self, i: int) -> str:
        """Return the expression of a value with one element."""
        operation = self.operations[i]
        if operation.name == "constant":
            return literal(operation.attributes["value"].item(), operation)
        return f"{self._weight(i)}[0]" if i in self.fixed else self.numbers[i]

    # Elementwise operations

    def _expression(self, operation: Operation, arguments: Sequence[str]) -> str:
        if operation.name == "power" and self._is_number(operation.inputs[1], 0.5):
            return f"np.sqrt({arguments[0]})"
        return EXPRESSIONS[operation.name].format(*arguments)

    def _is_number(self, i: int, value: float) -> bool:
        operation = self.operations[i]
        return operation.name == "constant" and operation.size == 1 and operation.attributes["value"].item() == value

    def _write_number(self, i: int, operation: Operation) -> None:
        for j in operation.inputs:
            self._finish_loop_of(j)
        self.lines.append(f"v{i} = {self._expression(operation, [self._number(j) for j in operation.inputs])}")
        self.numbers[i] = f"v{i}"

    def _add_to_loop(self, i: int, operation: Operation) -> None:
        for j in operation.inputs:
            if self._open_loop(j) is not None and not self._is_direct(j, operation):
                self._finish_loop_of(j)
        self.loops.setdefault(operation.size, []).append(i)

    def _open_loop(self, i: int) -> int | None:
        """Return the size of the open loop that computes a value, None if it has been computed."""
        root = self.locations[i].root if i in self.locations else i
        return next((size for size, members in self.loops.items() if root in members), None)

    def _is_direct(self, i: int, operation: Operation) -> bool:
        """Return whether element j of the result needs only element j of a value of the same loop."""
        location = self.locations.get(i)
        return (
            self._open_loop(i) == operation.size
            and self.operations[i].size == operation.size
            and (location is None or location.offset == 0)
            and squeezed(self.operations[i].shape) == squeezed(operation.shape)
        )

    def _finish_loop_of(self, i: int) -> None:
        size = self._open_loop(i)
        if size is not None:
            self._finish_loop(size)

    def _finish_loop(self, size: int) -> None:
        members = self.loops.pop(size)
        for i in members:
            if any(user not in members for user in self.users.get(i, [])) or i in self.program.output_indices:
                self.stored.add(i)
                self.lines.append(f"v{i} = np.empty({size}, {TYPES[str(self.operations[i].dtype)]})")
        self.lines.append(f"for j in range({size}):")
        for i in members:
            operation = self.operations[i]
            arguments = [self._element(k, operation, members) for k in operation.inputs]
            self.lines.append(f"    e{i} = {self._expression(operation, arguments)}")
            if i in self.stored:
                self.lines.append(f"    v{i}[j] = e{i}")
            self._place(i, Location(f"v{i}", root=i))

    def _element(self, i: int, operation: Operation, members: Sequence[int]) -> str:
        """Return the expression of the element of a value that element j of an operation's result needs."""
        value = self.operations[i]
        if value.size == 1:
            return self._number(i)
        root = self.locations[i].root if i in self.locations else i
        if root in members:
            return f"e{root}"
        same = squeezed(value.shape) == squeezed(operation.shape)
        index = "j" if same else element_index(operation.shape, broadcast_strides(value.shape, operation.shape))
        return self._location(i).at(index)

    # Structure

    def _write_reshape(self, i: int, operation: Operation, x: int) -> None:
        if self.operations[x].size == 1:
            self.numbers[i] = self._number(x)
        else:
            location = self._location(x)
            self._place(i, Location(location.array, location.offset, location.root))

    def _write_slice(self, i: int, operation: Operation, x: int) -> None:
        shape = self.operations[x].shape
        strides = row_major_strides(shape)
        index = operation.attributes["index"]
        offset = sum(start * stride for (start, _, _), stride in zip(index, strides, strict=True))
        steps = [step * stride for (_, _, step), stride in zip(index, strides, strict=True)]
        location = self._location(x)
        wanted = row_major_strides(operation.shape)
        if all(size == 1 or step == stride for size, step, stride in zip(operation.shape, steps, wanted, strict=True)):
            self._place(i, Location(location.array, location.offset + offset, location.root))
        else:
            self._copy(i, operation.shape, steps, Location(location.array, location.offset + offset))

    def _write_transpose(self, i: int, operation: Operation, x: int) -> None:
        strides = row_major_strides(self.operations[x].shape)
        self._copy(i, operation.shape, [strides[axis] for axis in operation.attributes["axes"]], self._location(x))

    def _copy(self, i: int, shape: tuple[int, ...], strides: Sequence[int], source: Location) -> None:
        """Copy elements in another order; ``strides`` are those of the source for each axis of the result."""
        target = self._new(i)
        self.lines.append(f"for j in range({prod(shape)}):")
        self.lines.append(f"    {target.array}[j] = {source.at(element_index(shape, strides))}")

    def _write_concatenate(self, i: int, operation: Operation, *parts: int) -> None:
        outer, size, inner = split_at(operation.shape, operation.attributes["axis"])
        target = self._new(i)
        begin = 0
        for part in parts:
            width = self.operations[part].shape[operation.attributes["axis"]] * inner
            for row in range(outer):
                first = row * size * inner + begin
                if width == 1 and self.operations[part].size == 1:
                    self.lines.append(f"{target.array}[{first}] = {self._number(part)}")
                else:
                    source = self._location(part).range(row * width, width)
                    self.lines.append(f"{target.range(first, width)} = {source}")
            begin += width

    def _write_cast(self, i: int, operation: Operation, x: int) -> None:
        kind = TYPES[str(operation.dtype)]
        if operation.size == 1:
            self.lines.append(f"v{i} = {kind}({self._number(x)})")
            self.numbers[i] = f"v{i}"
        else:
            self._new(i)
            self.lines.append(f"for j in range({operation.size}):")
            self.lines.append(f"    v{i}[j] = {kind}({self._location(x).at('j')})")

    def _write_take(self, i: int, operation: Operation, table: int, index: int) -> None:
        if table not in self.fixed or len(self.operations[table].shape) != 2:
            raise NotTraceableError("take has a compiled form for matrices of weights only")
        matrix, size = self._weight(table, as_matrix=True), self.operations[table].shape[1]
        rows = self.operations[index].size
        target = self._new(i)
        for row in range(rows):
            position = self._number(index) if rows == 1 else self._location(index).at(str(row))
            self.lines.append(f"r = {matrix}[{position}]")
            self.lines.append(f"for j in range({size}):")
            self.lines.append(f"    {target.array}[{row * size} + j] = to_float32(r[j])")

    # Along an axis

    def _reduce(self, i: int, operation: Operation, x: int) -> None:
        value = self.operations[x]
        start, update = REDUCTIONS[operation.name]
        running = operation.shape == value.shape
        outer, size, inner = split_at(value.shape, operation.attributes["axis"])
        kind = TYPES[str(operation.dtype)]
        if value.size == 1:
            self.numbers[i] = self._number(x)
            return
        source = self._location(x)
        if outer * inner == 1 and not running:
            self.lines += [f"a = {kind}({start})", f"for j in range({size}):", f"    {update.format(source.at('j'))}"]
            self.lines.append(f"v{i} = a")
            self.numbers[i] = f"v{i}"
            return
        target = self._new(i)
        element = f"(o * {size} + j) * {inner} + k"
        self.lines += [
            f"for o in range({outer}):",
            f"    for k in range({inner}):",
            f"        a = {kind}({start})",
            f"        for j in range({size}):",
            f"            {update.format(source.at(element))}",
        ]
        if running:
            self.lines.append(f"            {target.array}[{element}] = a")
        else:
            self.lines.append(f"        {target.array}[o * {inner} + k] = a")

    # Products

    def _write_matmul(self, i: int, operation: Operation, x: int, y: int) -> None:
        if y in self.fixed and len(self.operations[y].shape) == 2:
            self._write_matrix_product(i, x, y)
        elif operation.size == 1:
            self.lines += [
                f"a = {TYPES[str(operation.dtype)]}(0)",
                f"for j in range({self.operations[x].shape[-1]}):",
                f"    a += {self._location(x).at('j')} * {self._location(y).at('j')}",
                f"v{i} = a",
            ]
            self.numbers[i] = f"v{i}"
        else:
            self._write_batched_product(i, operation, x, y)

    def _write_matrix_product(self, i: int, x: int, y: int) -> None:
        """Add the product to a copy of the array that is added to it next, if there is one."""
        inputs, outputs = self.operations[y].shape
        rows = self.operations[x].size // inputs
        result, start = i, f"np.zeros({self.operations[i].size}, np.float32)"
        users = self.users.get(i, [])
        if len(users) == 1 and self.operations[users[0]].name == "add":
            addend = next((j for j in self.operations[users[0]].inputs if j != i), i)
            if self._can_start_from(addend, i):
                self._finish_loop_of(addend)
                result, start = users[0], f"{self._location(addend).range(0, self.operations[i].size)}.copy()"
                self.done.add(result)
        target = self._new(result, start)
        matrix, source = self._weight(y, as_matrix=True), self._location(x)
        for row in range(rows):
            product = f"{source.range(row * inputs, inputs)}, {matrix}, {target.range(row * outputs, outputs)}"
            self.lines.append(f"add_product({product})")

    def _can_start_from(self, addend: int, i: int) -> bool:
        is_computed = addend in self.fixed or addend in self.locations or self._open_loop(addend) is not None
        shapes = squeezed(self.operations[addend].shape), squeezed(self.operations[i].shape)
        return is_computed and self.operations[i].size > 1 and shapes[0] == shapes[1]

    def _write_batched_product(self, i: int, operation: Operation, x: int, y: int) -> None:
        *batch, rows, inner = self.operations[x].shape
        if list(self.operations[y].shape[:-2]) != batch or len(self.operations[y].shape) < 2:
            raise NotTraceableError("this matrix product has no compiled form")
        columns = operation.shape[-1]
        self._new(i, f"np.zeros({operation.size}, {TYPES[str(operation.dtype)]})")
        self.lines += [
            f"for b in range({prod(batch)}):",
            f"    for r in range({rows}):",
            f"        for k in range({inner}):",
            f"            a = {self._location(x).at(f'(b * {rows} + r) * {inner} + k')}",
            f"            for j in range({columns}):",
            f"                v{i}[(b * {rows} + r) * {columns} + j] += "
            f"a * {self._location(y).at(f'(b * {inner} + k) * {columns} + j')}",
        ]

    # Results

    def _write_results(self) -> None:
        for size in list(self.loops):
            self._finish_loop(size)
        logits, *states = self.program.output_indices
        for number, (old, new) in enumerate(zip(self.states, states, strict=True)):
            if new in self.states and new != old:
                self.lines.append(f"t{number} = {self._location(new).range(0, self.operations[new].size)}.copy()")
        for number, (old, new) in enumerate(zip(self.states, states, strict=True)):
            if self.operations[old].shape != self.operations[new].shape:
                raise NotTraceableError("a state that grows has no compiled form")
            if new in self.states:
                if new != old:
                    self.lines.append(f"s{number}[:] = t{number}")
            elif self.operations[new].size == 1:
                self.lines.append(f"s{number}[0] = {self._number(new)}")
            else:
                self.lines.append(f"s{number}[:] = {self._location(new).range(0, self.operations[new].size)}")
        self.lines.append(f"return {self._location(logits).range(0, self.operations[logits].size)}")


def input_name(operation: Operation) -> str:
    """Return the name of an input, an empty string for another operation."""
    return str(operation.attributes["name"]) if operation.name == "input" else ""


def fixed_values(program: Program) -> Iterator[int]:
    """Yield the values that depend on weights and constants alone."""
    fixed: set[int] = set()
    for i, operation in enumerate(program.operations):
        is_weight = input_name(operation).partition(".")[0] == "p" or operation.name == "constant"
        if is_weight or (operation.inputs and fixed.issuperset(operation.inputs)):
            fixed.add(i)
            yield i
