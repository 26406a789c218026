"""The program of one token as a sequence of NumPy calls: the fastest form that needs no compiler.

The equation itself allocates each result, and spends as much time on that and on Python's calls as on arithmetic. The
generated source calls the same functions of NumPy in the same order, so it computes the same bits. But it allocates
its arrays in advance, and looks up in tables what depends on the token alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from revgen.compiler import Operation, Program
from revgen.compiler.primitives import ELEMENTWISE, PRIMITIVES
from revgen.errors import NotTraceableError
from revgen.networks.codegen import fixed_values, input_name
from revgen.networks.strides import squeezed
from revgen.ops import tree_map

IN_PLACE = {"add", "subtract", "multiply", "divide", "maximum", "negative"}
"""Operations that may overwrite their input. They are rounded correctly, so the result has the same bits."""
SPECIAL = {
    "sigmoid": "multiply({0}, {half}, {out}); tanh({out}, {out}); add({out}, {one}, {out}); "
    "multiply({out}, {half}, {out})",
    "softplus": "logaddexp({0}, {zero}, {out})",
    "where": "copyto({out}, {2}); copyto({out}, {1}, 'same_kind', {0})",
    "sum": "add.reduce({0}, {axis}, {out}.dtype, {out}, True)",
    "amax": "maximum.reduce({0}, {axis}, None, {out}, True)",
    "cumsum": "{0}.cumsum({axis}, None, {out})",
    "cummax": "maximum.accumulate({0}, {axis}, None, {out})",
    "cast": "copyto({out}, {0}, 'unsafe')",
    "take": "{0}.take({1}, 0, {out}, 'wrap')",
}
"""The statement for each operation that is not one call of a ufunc."""
VIEWS = {"reshape": ".reshape({shape})", "slice": "[{index}]", "transpose": ".transpose({axes})"}


class NumpyProgram:
    """A program whose inputs are ``tokens``, ``state`` and ``p``, ready to read token after token.

    ``weights`` are the arrays of the inputs ``p``. Raises NotTraceableError if the shapes of the state change.
    """

    def __init__(self, program: Program, weights: Mapping[str, NDArray[Any]]) -> None:
        writer = NumpyWriter(program)
        source = writer.source()
        values = program.compute(writer.fixed, weights)
        scope: dict[str, Any] = {f"w{i}": values[i] for i in writer.weights}
        scope |= {
            name: getattr(np, name) for name in ("empty", "copyto", "concatenate", "matmul", "logaddexp", "array")
        }
        scope |= {name: function for name, function in ELEMENTWISE.items() if isinstance(function, np.ufunc)}
        exec(source, scope)
        self.start: Callable[..., Callable[[int], NDArray[Any]]] = scope["start"]
        self.states = [program.operations[i] for i in writer.states]
        self.state_structure = program.outputs[1]

    def reader(self, state: Any) -> NumpyReader | None:
        """Return a reader that continues from a state, or None if the state does not have the expected shapes."""
        arrays = state_arrays(state, self.states)
        return None if arrays is None else NumpyReader(self.start(*arrays), arrays, self.state_structure)


class NumpyReader:
    """A ``sequences.TokenReader`` for one text."""

    def __init__(self, read: Callable[[int], NDArray[Any]], arrays: tuple[NDArray[Any], ...], structure: Any) -> None:
        self.read = read
        self._arrays = arrays
        self._structure = structure

    @property
    def state(self) -> Any:
        """The state after the last token. Reading another token overwrites it."""
        return nest_state(self._arrays, self._structure)


class NumpyWriter:
    """A generator of the source. Three parts of it run once for each model, each reader and each token."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.operations = program.operations
        self.fixed = set(fixed_values(program))
        self.states = [i for i, o in enumerate(self.operations) if input_name(o).partition(".")[0] == "state"]
        self.weights: set[int] = set()
        self.names: dict[int, str] = {}
        self.rows: dict[int, str] = {}  # the tables of values that are one row of a table, the row of the token
        self.examples: dict[int, NDArray[Any]] = {}
        self.roots: dict[int, int] = {}  # for each value, the value in whose array it is
        self.last_use: dict[int, int] = {}
        self.for_model: list[str] = []
        self.for_reader: list[str] = []
        self.for_token: list[str] = []

    def source(self) -> str:
        """Return the source of ``start``, a function of the arrays of the state that returns a function of a token."""
        self._find_arrays()
        for i, operation in enumerate(self.operations):
            if i not in self.fixed and i not in self.names and self.roots[i] == i:
                self._write(i, operation)
        result = self._flat(self.program.output_indices[0])
        self._write_states()
        reader = [*self.for_reader, "def read(token):", *(f"    {line}" for line in self.for_token)]
        lines = [*reader, f"    return {result}", "return read"]
        arguments = ", ".join(f"s{number}" for number in range(len(self.states)))
        return "\n".join([*self.for_model, f"def start({arguments}):", *(f"    {line}" for line in lines)]) + "\n"

    def _find_arrays(self) -> None:
        """Find the values that are views of another value's array, and the last use of each array."""
        for i, operation in enumerate(self.operations):
            if i in self.fixed:
                continue
            self.roots[i], self.examples[i] = i, np.empty(operation.shape, operation.dtype)
            if operation.name in VIEWS:
                view = PRIMITIVES[operation.name](self.examples[operation.inputs[0]], **operation.attributes)
                if np.may_share_memory(view, self.examples[operation.inputs[0]]):
                    self.roots[i], self.examples[i] = self.roots[operation.inputs[0]], view
            for j in operation.inputs:
                if j in self.roots:
                    self.last_use[self.roots[j]] = i
        for i in self.program.output_indices:
            if i in self.roots:
                self.last_use[self.roots[i]] = len(self.operations)
        for number, i in enumerate(self.states):
            self.names[i] = f"s{number}"

    def _write(self, i: int, operation: Operation) -> None:
        attributes = operation.attributes
        if operation.name == "input":
            return
        if operation.name == "take" and self._is_token(operation.inputs[1]) and operation.inputs[0] in self.fixed:
            self.rows[i] = self._row_table(i, f"{self._name(operation.inputs[0])}.reshape({(-1, *operation.shape)})")
            return
        if operation.name == "matmul":
            self._write_product(i, *operation.inputs)
            return
        is_elementwise = operation.name in ELEMENTWISE
        arguments = [self._operand(j, operation) if is_elementwise else self._name(j) for j in operation.inputs]
        if operation.name == "concatenate":
            line = f"concatenate(({', '.join(arguments)},), {attributes['axis']}, {self._allocate(i)})"
            self.for_token.append(line)
        elif operation.name in VIEWS:  # not a view, but a copy
            view = f"{arguments[0]}{view_code(operation)}"
            self.for_token.append(f"copyto({self._allocate(i)}, {view})")
        elif operation.name in SPECIAL:
            constants = {
                name: f"array({value}, '{operation.dtype}')" for name, value in (("half", 0.5), ("one", 1), ("zero", 0))
            }
            template = SPECIAL[operation.name]
            names = {name: self._constant(name, text) for name, text in constants.items() if f"{{{name}}}" in template}
            out = self._allocate(i)
            self.for_token += template.format(*arguments, out=out, **names, **attributes).split("; ")
        else:
            out = "out=" if operation.name == "maximum" else ""  # NumPy deprecates a positional output here
            self.for_token.append(f"{operation.name}({', '.join(arguments)}, {out}{self._result(i, operation)})")

    def _write_product(self, i: int, x: int, y: int) -> None:
        """Write a matrix product. ``dot`` has less overhead than ``matmul``, and calls the same function of BLAS."""
        shape = self.operations[y].shape
        if y in self.fixed and len(shape) == 2 and self.operations[x].size == shape[0]:
            x_name = self._flat(x)
            self._allocate(i)
            self.for_token.append(f"{x_name}.dot({self._name(y)}, {self._flat(i)})")
        else:
            self.for_token.append(f"matmul({self._name(x)}, {self._name(y)}, {self._allocate(i)})")

    def _write_states(self) -> None:
        """Copy the new states that are not in their array yet; first, those that are in the array of another state."""
        pairs = zip(self.states, self.program.output_indices[1:], strict=True)
        moved = [(number, old, new) for number, (old, new) in enumerate(pairs) if self.names.get(new) != f"s{number}"]
        for number, old, new in moved:
            if self.operations[old].shape != self.operations[new].shape:
                raise NotTraceableError("a state that grows has no form in which arrays are allocated in advance")
            if self.roots.get(new) in self.states:
                self.for_token.append(f"n{number} = {self._name(new)}.copy()")
                self.names[new] = f"n{number}"
        self.for_token += [f"copyto(s{number}, {self._name(new)})" for number, _, new in moved]

    # Arrays

    def _name(self, i: int) -> str:
        """Return the name of a value. On its first use, write how to find it."""
        if i in self.names:
            return self.names[i]
        operation = self.operations[i]
        self.names[i] = f"w{i}" if i in self.fixed else f"v{i}"
        if i in self.fixed:
            self.weights.add(i)
        elif operation.name == "input":  # ``tokens``
            self._allocate(i)
            self.for_token.insert(0, f"v{i}.fill(token)")
        elif (table := self._table_of(i)) is not None:
            self.for_token.append(f"v{i} = {table}[token]")
        else:
            self.for_reader.append(f"v{i} = {self._name(operation.inputs[0])}{view_code(operation)}")
        return self.names[i]

    def _table_of(self, i: int) -> str | None:
        """Return the name of the table from which a value is the row of the token, or None if it is no such value."""
        root = self.roots[i]
        if i not in self.rows and root in self.rows:
            source = self._table_of(self.operations[i].inputs[0])
            operation = self.operations[i]
            rows = {
                "shape": (-1, *operation.attributes.get("shape", ())),
                "index": ((None, None, None), *operation.attributes.get("index", ())),
                "axes": (0, *(axis + 1 for axis in operation.attributes.get("axes", ()))),
            }
            self.rows[i] = self._row_table(i, f"{source}{view_code(operation, rows)}")
        return self.rows.get(i)

    def _row_table(self, i: int, table: str) -> str:
        self.for_model.append(f"t{i} = {table}")
        return f"t{i}"

    def _flat(self, i: int) -> str:
        """Return the name of a value as a vector."""
        return self._view(i, (self.operations[i].size,))

    def _operand(self, i: int, operation: Operation) -> str:
        """Return the name of an operand of an elementwise operation.

        NumPy takes three times as long to broadcast an array, except for a scalar without axes.
        """
        value = self.operations[i]
        if value.size == 1 < operation.size:
            return self._view(i, ())
        return self._view(i, operation.shape if squeezed(value.shape) == squeezed(operation.shape) else value.shape)

    def _view(self, i: int, shape: tuple[int, ...]) -> str:
        """Return the name of a value in another shape."""
        if self.operations[i].shape == shape:
            return self._name(i)
        table = None if i in self.fixed else self._table_of(i)
        name = "_".join(map(str, ["t" if table else "u", i, *shape]))
        view = f"{name} = {table or self._name(i)}.reshape({(-1, *shape) if table else shape})"
        is_strided = i in self.examples and not self.examples[i].flags.c_contiguous
        if is_strided and not table and squeezed(shape) != squeezed(self.operations[i].shape):
            return f"{self._name(i)}.reshape({shape})"  # a copy
        lines = self.for_model if table or i in self.fixed else self.for_reader
        if view not in lines:
            lines.append(view)
        return f"{name}[token]" if table else name

    def _constant(self, name: str, text: str) -> str:
        line = f"{name} = {text}"
        if line not in self.for_model:
            self.for_model.append(line)
        return name

    def _is_token(self, i: int) -> bool:
        operation = self.operations[i]
        return input_name(operation) == "tokens" or (
            operation.name in VIEWS and operation.size == 1 and self._is_token(operation.inputs[0])
        )

    def _allocate(self, i: int) -> str:
        """Write the allocation of a result; use the array of a state that is no longer needed if the result is next."""
        operation = self.operations[i]
        is_ufunc = isinstance(ELEMENTWISE.get(operation.name), np.ufunc)
        for number, (old, new) in enumerate(zip(self.states, self.program.output_indices[1:], strict=True)):
            is_free = self.last_use.get(old, -1) < i or (self.last_use[old] == i and is_ufunc)
            if new == i and is_free and self.operations[old].shape == operation.shape and i not in self.names:
                self.names[i] = f"s{number}"
                return self.names[i]
        self.names[i] = f"v{i}"
        self.for_reader.append(f"v{i} = empty({operation.shape}, '{operation.dtype}')")
        return self.names[i]

    def _result(self, i: int, operation: Operation) -> str:
        """Return the name of the array for a result: the array of an input that has no other use, or another array."""
        for j in operation.inputs if operation.name in IN_PLACE and i not in self.program.output_indices else ():
            root = self.roots.get(j, j)
            is_whole = j in self.examples and self.examples[j].size == self.examples[root].size
            is_array = is_whole and root not in self.rows and self.operations[root].name != "input"
            kind = self.operations[j].shape, self.operations[j].dtype
            if is_array and self.last_use[root] == i and kind == (operation.shape, operation.dtype):
                self.names[i] = self._name(j)
                return self.names[i]
        return self._allocate(i)


def view_code(operation: Operation, attributes: Mapping[str, Any] | None = None) -> str:
    """Return the code for a view of an array, after the name of the array."""
    values = dict(operation.attributes if attributes is None else attributes)
    if operation.name == "slice":
        parts = (":".join("" if part is None else str(part) for part in bounds) for bounds in values["index"])
        values["index"] = ", ".join(parts)
    return VIEWS[operation.name].format(**values)


def state_arrays(state: Any, operations: list[Operation]) -> tuple[NDArray[Any], ...] | None:
    """Return copies of a state's arrays; None if they do not have the shapes of these operations."""
    arrays: list[NDArray[Any]] = []
    tree_map(arrays.append, state)
    if [array.shape for array in arrays] != [operation.shape for operation in operations]:
        return None
    return tuple(np.array(a, operation.dtype) for a, operation in zip(arrays, operations, strict=True))


def nest_state(arrays: tuple[NDArray[Any], ...], structure: Any) -> Any:
    """Return the arrays of a state, nested like ``structure``."""
    remaining = iter(arrays)
    return tree_map(lambda _: next(remaining), structure)
