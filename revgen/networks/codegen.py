"""Generated code for any network: the program of one token becomes the source of one function.

Operations on weights alone are computed once, in advance. Consecutive elementwise operations on vectors of one size
become one loop. A subclass of ``SourceWriter`` writes the statements in its language: ``networks.numba_code`` in
Python, for Numba to compile, and ``browser.javascript`` in JavaScript.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from math import prod

from revgen.compiler import Operation, Program
from revgen.compiler.primitives import ELEMENTWISE
from revgen.errors import NotTraceableError
from revgen.networks.language import Language, Location
from revgen.networks.strides import broadcast_strides, row_major_strides, split_at, squeezed


class SourceWriter(Language):
    """A generator of source for a program whose inputs are ``tokens``, ``state`` and ``p``, the weights.

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
        self.depth = 1  # the indentation of the next line

    # The program

    def write_program(self) -> None:
        """Write the body of a function of the weights, ``token`` and ``state``, whose arrays it overwrites."""
        for number, i in enumerate(self.states):
            self.define(f"s{number}", self.state_array.format(number))
            self._set_location(i, Location(f"s{number}", root=i))
        self.write_operations(i for i in range(len(self.operations)) if not self.is_fixed(i))
        self._write_results()

    def write_operations(self, indices: Iterable[int]) -> None:
        """Write these operations, in the order of the program."""
        for i in indices:
            if i not in self.fused:
                self._write(i, self.operations[i])
        for size in list(self.loops):
            self._finish_loop(size)

    def _write(self, i: int, operation: Operation) -> None:
        if operation.name == "input":
            if input_name(operation) == "tokens":
                self.scalars[i] = "token"
        elif operation.name in ELEMENTWISE:
            self._write_scalar(i, operation) if operation.size == 1 else self._add_to_loop(i, operation)
        else:
            is_reduction = operation.name in self.reductions
            write = self._reduce if is_reduction else getattr(self, f"_write_{operation.name}", None)
            if write is None:
                raise NotTraceableError(f"{operation.name} has no compiled form")
            if is_reduction and operation.size == 1 < self.operations[operation.inputs[0]].size:
                self._add_to_loop(i, operation)
                return
            for j in operation.inputs:
                self._finish_loop_of(j)
            write(i, operation, *operation.inputs)

    # Locations of values

    def _set_location(self, i: int, location: Location) -> None:
        self.locations[i] = location
        if self.operations[i].size == 1:
            self.scalars[i] = location.at("0")

    def _allocate(self, i: int, fill: str | None = None) -> Location:
        """Create the array of a result, with the value ``fill`` in all elements."""
        self.new_array(f"v{i}", self.operations[i], fill)
        self._set_location(i, Location(f"v{i}", root=i))
        return self.locations[i]

    def _define_scalar(self, i: int, value: str) -> None:
        self.define(f"v{i}", value)
        self.scalars[i] = f"v{i}"

    def is_fixed(self, i: int) -> bool:
        """Return whether a value depends only on weights and constants."""
        return i in self.fixed

    def weight_name(self, i: int, as_matrix: bool = False) -> str:
        """Return the name of a weight in the source. On its first use, add it to ``weights``."""
        self.weights.setdefault((i, as_matrix))
        return f"w{list(self.weights).index((i, as_matrix))}"

    def location(self, i: int) -> Location:
        if i in self.fixed:
            return Location(self.weight_name(i))
        if i not in self.locations:
            value = self._scalar(i)
            self.new_array(f"a{i}", self.operations[i], value)
            self.locations[i] = Location(f"a{i}", root=i)
        return self.locations[i]

    def _scalar(self, i: int) -> str:
        """Return the expression for a value with one element."""
        operation = self.operations[i]
        if operation.name == "constant":
            return self.literal(operation.attributes["value"].item(), operation)
        return f"{self.weight_name(i)}[0]" if i in self.fixed else self.scalars[i]

    # Elementwise operations

    def _expression(self, operation: Operation, arguments: Sequence[str]) -> str:
        return self.expressions[operation.name].format(*arguments)

    def _write_scalar(self, i: int, operation: Operation) -> None:
        for j in operation.inputs:
            self._finish_loop_of(j)
        self._define_scalar(i, self._expression(operation, [self._scalar(j) for j in operation.inputs]))

    def _add_to_loop(self, i: int, operation: Operation) -> None:
        """Add an operation to the open loop over as many elements as it has, or a reduction, as many as it adds up."""
        elements = self._elements(i)
        for j in operation.inputs:
            if self._open_loop(j) is not None and not self._is_direct(j, elements):
                self._finish_loop_of(j)
        self.loops.setdefault(elements.size, []).append(i)

    def _elements(self, i: int) -> Operation:
        """Return the operation whose elements the loop of a value goes through: the operand of a reduction."""
        operation = self.operations[i]
        return self.operations[operation.inputs[0]] if operation.name in self.reductions else operation

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
        stores: dict[int, list[str]] = {}
        for i in members:
            if (operation := self.operations[i]).name in self.reductions:
                self._define_scalar(i, self.literal(self.reductions[operation.name][0], operation))
            else:
                stores[i] = self._stores(i, members)
        with self.loop("j", size):
            for i in members:
                operation = self.operations[i]
                arguments = [self._element(k, self._elements(i), members) for k in operation.inputs]
                if i not in stores:
                    self.emit(self.reductions[operation.name][1].format(f"v{i}", *arguments))
                    continue
                self.define(f"e{i}", self._expression(operation, arguments))
                for statement in stores[i]:
                    self.emit(statement)

    def _stores(self, i: int, members: Sequence[int]) -> list[str]:
        """Return the statements that store element j of a member of a loop, if it is used outside the loop."""
        if any(user not in members for user in self.users.get(i, [])) or i in self.program.output_indices:
            return [f"{self._allocate(i).array}[j] = e{i}"]
        self._set_location(i, Location(f"v{i}", root=i))
        return []

    def _element(self, i: int, operation: Operation, members: Sequence[int]) -> str:
        """Return the expression for the element of value ``i`` that element j of an operation is computed from."""
        value = self.operations[i]
        if value.size == 1:
            return self._scalar(i)
        root = self.locations[i].root if i in self.locations else i
        if root in members:
            return f"e{root}"
        same = squeezed(value.shape) == squeezed(operation.shape)
        index = "j" if same else self._element_index(operation.shape, broadcast_strides(value.shape, operation.shape))
        return self.location(i).at(index)

    # Structure

    def _write_reshape(self, i: int, operation: Operation, x: int) -> None:
        if operation.size == 1 and x not in self.locations:
            self.scalars[i] = self._scalar(x)
        else:
            self._set_location(i, self.location(x))

    def _write_slice(self, i: int, operation: Operation, x: int) -> None:
        shape = self.operations[x].shape
        strides = row_major_strides(shape)
        index = operation.attributes["index"]
        offset = sum(start * stride for (start, _, _), stride in zip(index, strides, strict=True))
        steps = [step * stride for (_, _, step), stride in zip(index, strides, strict=True)]
        location = self.location(x)
        dense = row_major_strides(operation.shape)
        if all(size == 1 or step == stride for size, step, stride in zip(operation.shape, steps, dense, strict=True)):
            self._set_location(i, location.shifted(offset))
        else:
            self._copy_strided(i, operation.shape, steps, location.shifted(offset))

    def _write_transpose(self, i: int, operation: Operation, x: int) -> None:
        strides = row_major_strides(self.operations[x].shape)
        steps = [strides[axis] for axis in operation.attributes["axes"]]
        self._copy_strided(i, operation.shape, steps, self.location(x))

    def _copy_strided(self, i: int, shape: tuple[int, ...], strides: Sequence[int], source: Location) -> None:
        """Copy elements in another order; ``strides`` are the steps in the source along each axis of the result."""
        self.copy_strided(source, self._allocate(i), shape, strides)

    def copy_strided(self, source: Location, target: Location, shape: tuple[int, ...], strides: Sequence[int]) -> None:
        """Write the loops of ``_copy_strided``."""
        axes = [axis for axis, size in enumerate(shape) if size > 1]
        read, written = (
            " + ".join(f"j{axis} * {steps[axis]}" for axis in axes) or "0"
            for steps in (strides, row_major_strides(shape))
        )
        with ExitStack() as stack:
            for axis in axes:
                stack.enter_context(self.loop(f"j{axis}", shape[axis]))
            self.emit(f"{target.at(written)} = {source.at(read)}")

    def _element_index(self, shape: tuple[int, ...], strides: Sequence[int]) -> str:
        """Return the expression for the index in the source, which has these strides, of element j of a result."""
        terms = []
        for size, stride, step in zip(shape, strides, row_major_strides(shape), strict=True):
            if size > 1 and stride:
                quotient = self.expressions["floor_divide"].format("j", step) if step > 1 else "j"
                terms.append(f"({quotient}) % {size} * {stride}")
        return " + ".join(terms) or "0"

    def _write_concatenate(self, i: int, operation: Operation, *parts: int) -> None:
        outer, size, inner = split_at(operation.shape, operation.attributes["axis"])
        target = self._allocate(i)
        begin = 0
        for part in parts:
            width = self.operations[part].shape[operation.attributes["axis"]] * inner
            for row in range(outer):
                to = target.shifted(row * size * inner + begin)
                if width == 1 and self.operations[part].size == 1:
                    self.emit(f"{to.at('0')} = {self._scalar(part)}")
                else:
                    self.copy(to, self.location(part).shifted(row * width), width)
            begin += width

    def _write_cast(self, i: int, operation: Operation, x: int) -> None:
        if operation.size == 1:
            self._define_scalar(i, self.cast(self._scalar(x), operation))
        else:
            source, target = self.location(x), self._allocate(i)
            with self.loop("j", operation.size):
                self.emit(f"{target.at('j')} = {self.cast(source.at('j'), operation)}")

    def _write_take(self, i: int, operation: Operation, table: int, index: int) -> None:
        if not self.is_fixed(table) or len(self.operations[table].shape) != 2:
            raise NotTraceableError("take has a compiled form only for a table that is a weight matrix")
        rows, size = self.operations[index].size, self.operations[table].shape[1]
        target = self._allocate(i)
        for row in range(rows):
            position = self._scalar(index) if rows == 1 else self.location(index).at(str(row))
            self.copy_row(table, position, target.shifted(row * size))

    # Along an axis

    def _reduce(self, i: int, operation: Operation, x: int) -> None:
        value = self.operations[x]
        start, update = self.reductions[operation.name]
        running = operation.shape == value.shape
        outer, size, inner = split_at(value.shape, operation.attributes["axis"])
        if value.size == 1:
            self.scalars[i] = self._scalar(x)
            return
        source = self.location(x)
        target = self._allocate(i)
        element = f"(o * {size} + j) * {inner} + k"
        with self.loop("o", outer), self.loop("k", inner):
            self.define("a", self.literal(start, operation))
            with self.loop("j", size):
                self.emit(update.format("a", source.at(element)))
                if running:
                    self.emit(f"{target.at(element)} = a")
            if not running:
                self.emit(f"{target.at(f'o * {inner} + k')} = a")

    # Products

    def _write_matmul(self, i: int, operation: Operation, x: int, y: int) -> None:
        if self.is_fixed(y) and len(self.operations[y].shape) == 2:
            self._write_matrix_product(i, x, y)
        elif operation.size == 1:
            self._define_scalar(i, self.cast("0", operation))
            x_at, y_at = self.location(x).at("j"), self.location(y).at("j")
            with self.loop("j", self.operations[x].shape[-1]):
                self.emit(f"v{i} += {x_at} * {y_at}")
        else:
            self._write_batched_product(i, operation, x, y)

    def _write_matrix_product(self, i: int, x: int, y: int) -> None:
        """Write a product with a weight matrix. If it is only added to an array, start from a copy of that array."""
        inputs, outputs = self.operations[y].shape
        rows = self.operations[x].size // inputs
        result, addend = i, None
        users = self.users.get(i, [])
        if len(users) == 1 and self.operations[users[0]].name == "add":
            other = next((j for j in self.operations[users[0]].inputs if j != i), i)
            if self._can_start_from(other, i):
                self._finish_loop_of(other)
                result, addend = users[0], other
                self.fused.add(result)
        target, source = self._allocate(result, "0" if addend is None else None), self.location(x)
        if addend is not None:
            self.copy(target, self.location(addend), self.operations[i].size)
        for row in range(rows):
            self.add_product(source.shifted(row * inputs), y, target.shifted(row * outputs))

    def _can_start_from(self, addend: int, i: int) -> bool:
        """Return whether product ``i`` can be summed up in a copy of ``addend``."""
        is_computed = addend in self.fixed or addend in self.locations or self._open_loop(addend) is not None
        shapes = squeezed(self.operations[addend].shape), squeezed(self.operations[i].shape)
        return is_computed and self.operations[i].size > 1 and shapes[0] == shapes[1]

    def _write_batched_product(self, i: int, operation: Operation, x: int, y: int) -> None:
        *batch, rows, inner = self.operations[x].shape
        is_broadcast = squeezed(self.operations[y].shape[:-2]) != squeezed(tuple(batch))
        if is_broadcast or len(self.operations[y].shape) < 2:
            raise NotTraceableError("this matrix product has no compiled form")
        columns = operation.shape[-1]
        x_location, y_location = self.location(x), self.location(y)
        self.add_batched_product(x_location, y_location, self._allocate(i, "0"), (prod(batch), rows, inner, columns))

    def add_batched_product(self, x: Location, y: Location, target: Location, sizes: tuple[int, ...]) -> None:
        """Write the addition of products (batch, rows, inner) @ (batch, inner, columns) to ``target``."""
        batch, rows, inner, columns = sizes
        with self.loop("b", batch), self.loop("r", rows), self.loop("k", inner):
            self.define("a", x.at(f"(b * {rows} + r) * {inner} + k"))
            y_at = y.at(f"(b * {inner} + k) * {columns} + j")
            with self.loop("j", columns):
                self.emit(f"{target.at(f'(b * {rows} + r) * {columns} + j')} += a * {y_at}")

    # Results

    def _write_results(self) -> None:
        logits, *states = self.program.output_indices
        moved = [
            (number, old, new) for number, (old, new) in enumerate(zip(self.states, states, strict=True)) if old != new
        ]
        for number, old, new in moved:
            if self.operations[old].shape != self.operations[new].shape:
                raise NotTraceableError("a state that grows has no compiled form")
            if new in self.locations and self.locations[new].root in self.states:  # it may be overwritten first
                self.new_array(f"t{number}", self.operations[new])
                self.copy(Location(f"t{number}"), self.location(new), self.operations[new].size)
                self.locations[new] = Location(f"t{number}")
                self.scalars.pop(new, None)
        for number, _, new in moved:
            if self.operations[new].size == 1 and new in self.scalars:
                self.emit(f"s{number}[0] = {self._scalar(new)}")
            else:
                self.copy(Location(f"s{number}"), self.location(new), self.operations[new].size)
        self.return_array(self.location(logits), self.operations[logits].size)


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
