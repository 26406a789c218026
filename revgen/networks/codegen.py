"""Compiled code for any network: the program of one token becomes the source of one function, which Numba compiles.

Operations on weights alone are computed once, in advance. Consecutive elementwise operations on vectors of one size
become one loop. Matrix products read the weights row by row, in the order of memory.
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
    """The location of a value: it starts at ``offset`` in a flat array.

    ``root`` is the index of the operation that fills the array, or -1 if the array is a weight.
    """

    array: str
    offset: int = 0
    root: int = -1

    def at(self, index: str) -> str:
        """Return the expression for the element at ``index``."""
        return f"{self.array}[{index} + {self.offset}]" if self.offset else f"{self.array}[{index}]"

    def range(self, begin: int, size: int) -> str:
        """Return the expression for ``size`` consecutive elements."""
        begin += self.offset
        return f"{self.array}[{begin}:{begin + size}]"


class SourceWriter:
    """A generator of Python source for a program whose inputs are ``tokens``, ``state`` and ``p``, the weights.

    The keys of ``weights`` are the values that the generated function takes as its weights, in order: the index of the
    value, and whether it is used as a matrix. Raises NotTraceableError for a program that has no compiled form.
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
        self.scalars: dict[int, str] = {}  # the expressions for values with one element
        self.loops: dict[int, list[int]] = {}  # open loops by size: the operations in each
        self.fused: set[int] = set()  # additions that were written as part of a matrix product
        self.lines: list[str] = []

    def source(self) -> str:
        """Return the source of a module with ``token_logits`` and ``sample_tokens``."""
        for number, i in enumerate(self.states):
            self.lines.append(f"s{number} = state[{number}].reshape(-1)")
            self._set_location(i, Location(f"s{number}", root=i))
        for i, operation in enumerate(self.operations):
            if i not in self.fixed and i not in self.fused:
                self._write(i, operation)
        self._write_results()
        weights = [f"w{number} = weights[{number}]" for number in range(len(self.weights))]
        body = "".join(f"    {line}\n" for line in weights + self.lines)
        return HEADER + body + FOOTER

    def _write(self, i: int, operation: Operation) -> None:
        if operation.name == "input":
            if input_name(operation) == "tokens":
                self.scalars[i] = "token"
        elif operation.name in ELEMENTWISE:
            self._write_scalar(i, operation) if operation.size == 1 else self._add_to_loop(i, operation)
        else:
            write = self._reduce if operation.name in REDUCTIONS else getattr(self, f"_write_{operation.name}", None)
            if write is None:
                raise NotTraceableError(f"{operation.name} has no compiled form")
            for j in operation.inputs:
                self._finish_loop_of(j)
            write(i, operation, *operation.inputs)

    # Locations of values

    def _set_location(self, i: int, location: Location) -> None:
        self.locations[i] = location
        if self.operations[i].size == 1:
            self.scalars[i] = location.at("0")

    def _allocate(self, i: int, content: str | None = None) -> Location:
        """Create the array of a result, empty or from the expression ``content``."""
        operation = self.operations[i]
        self.lines.append(f"v{i} = {content or f'np.empty({operation.size}, {TYPES[str(operation.dtype)]})'}")
        self._set_location(i, Location(f"v{i}", root=i))
        return self.locations[i]

    def _weight_name(self, i: int, as_matrix: bool = False) -> str:
        """Return the name of a weight in the source. On its first use, add it to ``weights``."""
        self.weights.setdefault((i, as_matrix))
        return f"w{list(self.weights).index((i, as_matrix))}"

    def _location(self, i: int) -> Location:
        if i in self.fixed:
            return Location(self._weight_name(i))
        if i not in self.locations:
            self._allocate(i, f"np.full(1, {self._scalar(i)})")
        return self.locations[i]

    def _scalar(self, i: int) -> str:
        """Return the expression for a value with one element."""
        operation = self.operations[i]
        if operation.name == "constant":
            return literal(operation.attributes["value"].item(), operation)
        return f"{self._weight_name(i)}[0]" if i in self.fixed else self.scalars[i]

    # Elementwise operations

    def _expression(self, operation: Operation, arguments: Sequence[str]) -> str:
        return EXPRESSIONS[operation.name].format(*arguments)

    def _write_scalar(self, i: int, operation: Operation) -> None:
        for j in operation.inputs:
            self._finish_loop_of(j)
        self.lines.append(f"v{i} = {self._expression(operation, [self._scalar(j) for j in operation.inputs])}")
        self.scalars[i] = f"v{i}"

    def _add_to_loop(self, i: int, operation: Operation) -> None:
        for j in operation.inputs:
            if self._open_loop(j) is not None and not self._is_direct(j, operation):
                self._finish_loop_of(j)
        self.loops.setdefault(operation.size, []).append(i)

    def _open_loop(self, i: int) -> int | None:
        """Return the size of the open loop that will compute a value, or None if there is none."""
        root = self.locations[i].root if i in self.locations else i
        return next((size for size, members in self.loops.items() if root in members), None)

    def _is_direct(self, i: int, operation: Operation) -> bool:
        """Return whether element j of an operation needs only element j of value ``i``, from the same loop."""
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
        stored: set[int] = set()  # values that are used outside the loop
        for i in members:
            if any(user not in members for user in self.users.get(i, [])) or i in self.program.output_indices:
                stored.add(i)
                self.lines.append(f"v{i} = np.empty({size}, {TYPES[str(self.operations[i].dtype)]})")
        self.lines.append(f"for j in range({size}):")
        for i in members:
            operation = self.operations[i]
            arguments = [self._element(k, operation, members) for k in operation.inputs]
            self.lines.append(f"    e{i} = {self._expression(operation, arguments)}")
            if i in stored:
                self.lines.append(f"    v{i}[j] = e{i}")
            self._set_location(i, Location(f"v{i}", root=i))

    def _element(self, i: int, operation: Operation, members: Sequence[int]) -> str:
        """Return the expression for the element of value ``i`` that element j of an operation is computed from."""
        value = self.operations[i]
        if value.size == 1:
            return self._scalar(i)
        root = self.locations[i].root if i in self.locations else i
        if root in members:
            return f"e{root}"
        same = squeezed(value.shape) == squeezed(operation.shape)
        index = "j" if same else element_index(operation.shape, broadcast_strides(value.shape, operation.shape))
        return self._location(i).at(index)

    # Structure

    def _write_reshape(self, i: int, operation: Operation, x: int) -> None:
        if self.operations[x].size == 1:
            self.scalars[i] = self._scalar(x)
        else:
            self._set_location(i, self._location(x))

    def _write_slice(self, i: int, operation: Operation, x: int) -> None:
        shape = self.operations[x].shape
        strides = row_major_strides(shape)
        index = operation.attributes["index"]
        offset = sum(start * stride for (start, _, _), stride in zip(index, strides, strict=True))
        steps = [step * stride for (_, _, step), stride in zip(index, strides, strict=True)]
        location = self._location(x)
        dense = row_major_strides(operation.shape)
        if all(size == 1 or step == stride for size, step, stride in zip(operation.shape, steps, dense, strict=True)):
            self._set_location(i, Location(location.array, location.offset + offset, location.root))
        else:
            self._copy(i, operation.shape, steps, Location(location.array, location.offset + offset))

    def _write_transpose(self, i: int, operation: Operation, x: int) -> None:
        strides = row_major_strides(self.operations[x].shape)
        self._copy(i, operation.shape, [strides[axis] for axis in operation.attributes["axes"]], self._location(x))

    def _copy(self, i: int, shape: tuple[int, ...], strides: Sequence[int], source: Location) -> None:
        """Copy elements in another order; ``strides`` are the steps in the source along each axis of the result."""
        target = self._allocate(i)
        self.lines.append(f"for j in range({prod(shape)}):")
        self.lines.append(f"    {target.array}[j] = {source.at(element_index(shape, strides))}")

    def _write_concatenate(self, i: int, operation: Operation, *parts: int) -> None:
        outer, size, inner = split_at(operation.shape, operation.attributes["axis"])
        target = self._allocate(i)
        begin = 0
        for part in parts:
            width = self.operations[part].shape[operation.attributes["axis"]] * inner
            for row in range(outer):
                first = row * size * inner + begin
                if width == 1 and self.operations[part].size == 1:
                    self.lines.append(f"{target.array}[{first}] = {self._scalar(part)}")
                else:
                    source = self._location(part).range(row * width, width)
                    self.lines.append(f"{target.range(first, width)} = {source}")
            begin += width

    def _write_cast(self, i: int, operation: Operation, x: int) -> None:
        kind = TYPES[str(operation.dtype)]
        if operation.size == 1:
            self.lines.append(f"v{i} = {kind}({self._scalar(x)})")
            self.scalars[i] = f"v{i}"
        else:
            self._allocate(i)
            self.lines.append(f"for j in range({operation.size}):")
            self.lines.append(f"    v{i}[j] = {kind}({self._location(x).at('j')})")

    def _write_take(self, i: int, operation: Operation, table: int, index: int) -> None:
        if table not in self.fixed or len(self.operations[table].shape) != 2:
            raise NotTraceableError("take has a compiled form only for a table that is a weight matrix")
        matrix, size = self._weight_name(table, as_matrix=True), self.operations[table].shape[1]
        rows = self.operations[index].size
        target = self._allocate(i)
        for row in range(rows):
            position = self._scalar(index) if rows == 1 else self._location(index).at(str(row))
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
            self.scalars[i] = self._scalar(x)
            return
        source = self._location(x)
        if outer * inner == 1 and not running:
            self.lines += [f"a = {kind}({start})", f"for j in range({size}):", f"    {update.format(source.at('j'))}"]
            self.lines.append(f"v{i} = a")
            self.scalars[i] = f"v{i}"
            return
        target = self._allocate(i)
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
            self.scalars[i] = f"v{i}"
        else:
            self._write_batched_product(i, operation, x, y)

    def _write_matrix_product(self, i: int, x: int, y: int) -> None:
        """Write a product with a weight matrix. If it is only added to an array, start from a copy of that array."""
        inputs, outputs = self.operations[y].shape
        rows = self.operations[x].size // inputs
        result, start = i, f"np.zeros({self.operations[i].size}, np.float32)"
        users = self.users.get(i, [])
        if len(users) == 1 and self.operations[users[0]].name == "add":
            addend = next((j for j in self.operations[users[0]].inputs if j != i), i)
            if self._can_start_from(addend, i):
                self._finish_loop_of(addend)
                result, start = users[0], f"{self._location(addend).range(0, self.operations[i].size)}.copy()"
                self.fused.add(result)
        target = self._allocate(result, start)
        matrix, source = self._weight_name(y, as_matrix=True), self._location(x)
        for row in range(rows):
            product = f"{source.range(row * inputs, inputs)}, {matrix}, {target.range(row * outputs, outputs)}"
            self.lines.append(f"add_product({product})")

    def _can_start_from(self, addend: int, i: int) -> bool:
        """Return whether product ``i`` can be summed up in a copy of ``addend``."""
        is_computed = addend in self.fixed or addend in self.locations or self._open_loop(addend) is not None
        shapes = squeezed(self.operations[addend].shape), squeezed(self.operations[i].shape)
        return is_computed and self.operations[i].size > 1 and shapes[0] == shapes[1]

    def _write_batched_product(self, i: int, operation: Operation, x: int, y: int) -> None:
        *batch, rows, inner = self.operations[x].shape
        if list(self.operations[y].shape[:-2]) != batch or len(self.operations[y].shape) < 2:
            raise NotTraceableError("this matrix product has no compiled form")
        columns = operation.shape[-1]
        self._allocate(i, f"np.zeros({operation.size}, {TYPES[str(operation.dtype)]})")
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
                self.lines.append(f"s{number}[0] = {self._scalar(new)}")
            else:
                self.lines.append(f"s{number}[:] = {self._location(new).range(0, self.operations[new].size)}")
        self.lines.append(f"return {self._location(logits).range(0, self.operations[logits].size)}")


def input_name(operation: Operation) -> str:
    """Return the name of an input, or an empty string for another operation."""
    return str(operation.attributes["name"]) if operation.name == "input" else ""


def fixed_values(program: Program) -> Iterator[int]:
    """Yield the indices of the values that depend only on weights and constants."""
    fixed: set[int] = set()
    for i, operation in enumerate(program.operations):
        is_weight = input_name(operation).partition(".")[0] == "p" or operation.name == "constant"
        if is_weight or (operation.inputs and fixed.issuperset(operation.inputs)):
            fixed.add(i)
            yield i
