"""Compiled code for any network: the source that ``networks.codegen`` generates, in Python for Numba."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from revgen.compiler import Operation
from revgen.networks.codegen import SourceWriter
from revgen.networks.language import OPERATORS, Location

EXPRESSIONS = OPERATORS | {
    "floor_divide": "{0} // {1}",
    "remainder": "{0} % {1}",
    "maximum": "max({0}, {1})",
    "exp": "exp({0})",
    "log": "log({0})",
    "tanh": "tanh({0})",
    "sqrt": "np.sqrt({0})",
    "cos": "np.cos({0})",
    "sin": "np.sin({0})",
    "softplus": "softplus({0})",
    "sigmoid": "sigmoid({0})",
    "logical_and": "{0} and {1}",
    "logical_or": "{0} or {1}",
    "logical_not": "not {0}",
    "where": "{1} if {0} else {2}",
}

REDUCTIONS = {
    "sum": (0, "{0} += {1}"),
    "amax": (-np.inf, "{0} = max({0}, {1})"),
    "cumsum": (0, "{0} += {1}"),
    "cummax": (-np.inf, "{0} = max({0}, {1})"),
}

LOWEST_INTEGER = -(1 << 62)
"""The integer in place of -∞."""

TYPES = {"float32": "np.float32", "float64": "np.float64", "int64": "np.int64", "bool": "np.bool_"}

HEADER = '''\
"""Generated from the program of one token."""

import numpy as np
from numba import njit

from revgen.networks.jit import INTERNAL, cached, to_float32
from revgen.networks.fused.element_kernels import exp, log, sigmoid, softplus, tanh
from revgen.networks.kernels import add_product, sample


@njit(**INTERNAL)
def forward_token(weights, token, state):
'''
FOOTER = """

@cached
def token_logits(weights, token, state):
    return forward_token(weights, token, state)


@cached
def sample_tokens(weights, token, state, uniforms, tokens, temperature, log_min_p, end, biases, offset):
    for i in range(len(uniforms)):
        token = sample(forward_token(weights, token + offset, state), biases, temperature, log_min_p, end, uniforms[i])
        tokens[i] = token
        if token == end:
            return i + 1
    return len(uniforms)
"""


class NumbaWriter(SourceWriter):
    """A generator of a module with the functions ``token_logits`` and ``sample_tokens``."""

    state_array = "state[{0}]"
    expressions = EXPRESSIONS | {name: f"{name}(np.float32({{0}}))" for name in ("exp", "log", "softplus")}
    reductions = REDUCTIONS

    def source(self) -> str:
        """Return the source of the module."""
        self.write_program()
        weights = [f"    w{number} = weights[{number}]" for number in range(len(self.weights))]
        return HEADER + "".join(f"{line}\n" for line in weights + self.lines) + FOOTER

    def literal(self, value: float | bool, operation: Operation) -> str:
        if operation.dtype.kind in "bi":
            return str(LOWEST_INTEGER if value == -np.inf else value)
        special = {np.inf: "np.inf", -np.inf: "-np.inf"}
        return f"{TYPES[str(operation.dtype)]}({special.get(value, repr(float(value)))})"

    def cast(self, expression: str, operation: Operation) -> str:
        return f"{TYPES[str(operation.dtype)]}({expression})"

    def emit(self, statement: str) -> None:
        self.lines.append("    " * self.depth + statement)

    def define(self, name: str, value: str) -> None:
        self.emit(f"{name} = {value}")

    @contextmanager
    def loop(self, variable: str, size: int) -> Iterator[None]:
        self.emit(f"for {variable} in range({size}):")
        self.depth += 1
        yield
        self.depth -= 1

    def new_array(self, name: str, operation: Operation, fill: str | None = None) -> None:
        kind = TYPES[str(operation.dtype)]
        content = (
            f"np.empty({operation.size}, {kind})" if fill is None else f"np.full({operation.size}, {fill}, {kind})"
        )
        self.define(name, content)

    def copy(self, target: Location, source: Location, size: int) -> None:
        with self.loop("j", size):  # Numba takes a second longer to compile the assignment of a slice
            self.emit(f"{target.at('j')} = {source.at('j')}")

    def add_product(self, x: Location, matrix: int, y: Location) -> None:
        name = self.weight_name(matrix, as_matrix=True)
        x_begin, y_begin = f"np.int64({x.offset})", f"np.int64({y.offset})"  # each literal would be a type of its own
        self.emit(f"add_product({x.array}, {x_begin}, {name}, {y.array}, {y_begin})")

    def copy_row(self, table: int, row: str, target: Location) -> None:
        self.define("r", row)
        with self.loop("j", self.operations[table].shape[1]):
            self.emit(f"{target.at('j')} = to_float32({self.weight_name(table, as_matrix=True)}[r, j])")

    def return_array(self, location: Location, size: int) -> None:
        self.emit(f"return {self._range(location, size)}")

    def _range(self, location: Location, size: int) -> str:
        """Return the expression for the first ``size`` elements at a location."""
        return f"{location.array}[{location.offset}:{location.offset + size}]"
