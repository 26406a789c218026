"""Source of the loop over rows between two products: one function for each segment of a schedule."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from revgen.compiler import Operation
from revgen.compiler.schedule import Schedule
from revgen.networks.language import Location
from revgen.networks.numba_code import EXPRESSIONS, TYPES, NumbaWriter
from revgen.networks.strides import split_at

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
    the results. ``buffers`` holds the arrays that the body needs: the expression that creates each, by name.
    """

    expressions = EXPRESSIONS  # those of the base class convert to float32, and layers may be in float64

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
        self.buffers: dict[str, str] = {}
        self.values = sorted(values)
        self.targets = {i: list(found) for i, found in targets.items()}
        self.stored: set[int] = set()
        self.unrounded: list[tuple[Target, int]] = []
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
        self.buffers[name] = f"np.empty({operation.size}, {TYPES[str(operation.dtype)]})"
        if fill is not None:
            self.emit(f"{name}[:] = {fill}")

    def _stores(self, i: int, members: Sequence[int]) -> list[str]:
        self.stored.add(i)
        targets = [target for target in self.targets.get(i, []) if target.statement != ROUND]
        rounded = [(target, i) for target in self.targets.get(i, []) if target.statement == ROUND]
        self.unrounded += rounded
        statements = [target.store("j", f"e{i}") for target in targets]
        if not rounded and all(user in members or self._is_joined(user) for user in self.users.get(i, [])):
            self._set_location(i, Location(f"v{i}", root=i))
            return statements
        for target in targets:
            if target.statement == COPY:  # the value can be read from there
                self._set_location(i, Location(target.row, target.offset, root=i))
                return statements
        return [*statements, f"{self._allocate(i).array}[j] = e{i}"]

    def _finish_loop(self, size: int) -> None:
        super()._finish_loop(size)
        for target, i in self.unrounded:
            self._round(target, i)
        self.unrounded = []

    def _round(self, target: Target, i: int) -> None:
        """Write the rounded elements of a value that is in an array."""
        source, size = self.location(i), self.operations[i].size
        self.emit(f"round_row({source.array}, {source.offset}, {target.row}, {target.offset}, {size})")

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
            if target.statement == ROUND and not location.convert:
                self._round(target, i)
            elif (location.array, location.offset) != (target.row, target.offset):
                with self.loop("j", size):
                    self.emit(target.store("j", location.at("j")))
