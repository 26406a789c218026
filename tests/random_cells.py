"""Cells with random equations, for tests of the code that is generated from equations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

from revgen import Cell, ops
from revgen.ops import Array

SIZE = 6
UNARY: tuple[Callable[[Any], Any], ...] = (
    ops.tanh,
    ops.sigmoid,
    ops.relu,
    ops.softplus,
    ops.gelu,
    ops.softmax,
    ops.log_softmax,
    lambda x: -x,
    lambda x: x * x * 0.5 + 1,
    lambda x: (x * x + 0.1) ** 0.5,
    lambda x: (x * x + 0.5) ** 1.5,
    lambda x: ops.log(x * x + 0.5),
    lambda x: 1 / (x * x + 1),
    lambda x: ops.exp(-x * x),
)
BINARY: tuple[Callable[[Any, Any], Any], ...] = (
    lambda x, y: x + y,
    lambda x, y: x - y,
    lambda x, y: x * y,
    lambda x, y: x / (1 + y * y),
    ops.maximum,
    lambda x, y: ops.where(x > y, x * 0.5, y),
    lambda x, y: x * ops.amax(y),
    lambda x, y: x + ops.logsumexp(y)[:, None],
    lambda x, y: ops.concatenate([y[:, 2:], x[:, :2]]),
    lambda x, y: ops.concatenate([*ops.split(x, 2), y])[:, 3 : 3 + SIZE],
    lambda x, y: x[:, :1] * y,
    lambda x, y: x[:, 1:2] + x[:, 2:3] * y,
    lambda x, y: ops.concatenate([x, y]).reshape(len(x), 2, SIZE)[:, 0] * y,
    lambda x, y: (x.reshape(len(x), 3, 2) * y.reshape(len(x), 3, 2)[:, 1:2]).reshape(len(x), SIZE),
    lambda x, y: (x.reshape(len(x), 2, 3).swapaxes(1, 2) @ y.reshape(len(x), 2, 3)).reshape(len(x), 9)[:, 1:7],
)
WEIGHTED: tuple[Callable[[Any, Any, Any], Any], ...] = (
    lambda p, x, y: x @ p.U,
    lambda p, x, y: x @ p.U + y,
    lambda p, x, y: x @ p.U.T + p.b,
    lambda p, x, y: (x @ p.V)[:, :SIZE] * y,
    lambda p, x, y: x * p.g + y @ p.U,
    lambda p, x, y: (x * p.b) @ ops.tanh(p.U),
    lambda p, x, y: (x @ p.g)[:, None] * y,
    lambda p, x, y: ops.layer_norm(x, p.g, p.b),
)
KINDS = [("unary", f) for f in UNARY] + [("binary", f) for f in BINARY] + [("weighted", f) for f in WEIGHTED]


class RandomCell(Cell):
    """A cell whose step computes one value after another.

    Each of ``steps`` is the index of an operation in ``KINDS``, and the indices of the values that it uses. ``results``
    are the indices of the output and of the next states.
    """

    def __init__(self, steps: list[tuple[int, int, int]], results: tuple[int, ...], has_bias: bool) -> None:
        super().__init__(7, SIZE)
        self.steps, self.results, self.has_bias = steps, results, has_bias

    def __repr__(self) -> str:
        return f"RandomCell({self.steps}, {self.results}, {self.has_bias})"

    def param_shapes(self) -> dict[str, tuple[int, ...]]:
        return {"W": (7, SIZE), "U": (SIZE, SIZE), "V": (SIZE, SIZE + 3), "b": (SIZE,), "g": (SIZE,)}

    def project(self, p: Any, x: Array) -> Array:
        return x @ p.W + p.b if self.has_bias else x @ p.W

    def initial_state(self, batch: int, zeros: Callable[..., Array]) -> Any:
        return zeros((batch, SIZE)), zeros((batch, SIZE)), zeros((batch,))

    def step(self, p: Any, z: Array, state: Any) -> tuple[Array, Any]:
        values = [z, state[0], state[1] * state[2][:, None]]
        for index, i, j in self.steps:
            kind, operation = KINDS[index]
            x, y = values[i % len(values)], values[j % len(values)]
            arguments = {"unary": (x,), "binary": (x, y), "weighted": (p, x, y)}[kind]
            values.append(operation(*arguments))
        output, *states = (values[i % len(values)] for i in self.results)
        # Each state has an effect: otherwise the cell would have no compiled form.
        next_states = states[0] + 0.1 * state[0], ops.tanh(states[1]) + 0.1 * state[1], state[2] * 0.5 + states[2][:, 0]
        return output + 0.1 * z, next_states


def random_cells() -> st.SearchStrategy[RandomCell]:
    """Return a strategy for cells with random equations."""
    index = st.integers(0, 99)
    steps = st.lists(st.tuples(st.integers(0, len(KINDS) - 1), index, index), min_size=1, max_size=10)
    return st.builds(RandomCell, steps, st.tuples(index, index, index, index), st.booleans())
