"""Random programs of one token, for tests of the code that is generated from programs."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from revgen import ops
from revgen.compiler import Program, trace

SIZE, VOCAB = 6, 5
UNARY = (ops.tanh, ops.sigmoid, ops.relu, ops.softplus, ops.gelu, ops.softmax, ops.log_softmax, lambda x: -x)
BINARY = (
    lambda x, y: x + y,
    lambda x, y: x - y,
    lambda x, y: x * y,
    lambda x, y: x / (1 + y * y),
    ops.maximum,
    lambda x, y: ops.where(x > y, x, 0.5),
    lambda x, y: x * ops.amax(y),
    lambda x, y: x + ops.logsumexp(y)[:, None],
    lambda x, y: ops.concatenate([y[:, 2:], x[:, :2]]),
    lambda x, y: ops.concatenate([*ops.split(x, 2), y])[:, 3 : 3 + SIZE],
    lambda x, y: ops.layer_norm(x, y[0], x[0]),
    lambda x, y: (x.reshape(2, 3).swapaxes(0, 1) @ y.reshape(2, 3)).reshape(1, 9)[:, 1 : 1 + SIZE],
    lambda x, y: x * ops.type_as(ops.amax(ops.arange(SIZE, x) * (x > y) - (y > x)), x),  # of integers
    lambda x, y: ops.cummax(x) - y.reshape(3, 2)[1:2, 1] * y,
)


STEPS = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 99), st.integers(0, 99)), min_size=1, max_size=14)
"""For each operation, its kind and the values that it is computed from."""


@dataclass
class RandomProgram:
    """A program of one token, with its weights and its arguments."""

    program: Program
    weights: dict[str, NDArray[Any]]
    token: int
    state: tuple[NDArray[Any], ...]

    def run(self) -> Any:
        """Return the logits and the state that the interpreter computes."""
        states = {f"state.{i}": array for i, array in enumerate(self.state)}
        return self.program(**self.weights, **states, tokens=np.array([[self.token]]))


def random_program(steps: list[tuple[int, int, int]], seed: int) -> RandomProgram:
    """Return the program of these operations, with random weights."""
    rng = np.random.default_rng(seed)

    def normal(*shape: int) -> Any:
        return rng.normal(size=shape).astype(np.float32)

    p = SimpleNamespace(embedding=normal(VOCAB, SIZE), W=normal(SIZE, SIZE), b=normal(SIZE), head=normal(SIZE, VOCAB))

    def step(p: Any, tokens: Any, state: Any) -> Any:
        values = [ops.embedding(p.embedding, tokens)[0], state[0], state[1] * state[2][:, None]]
        for kind, i, j in steps:
            x, y = values[i % len(values)], values[j % len(values)]
            if kind < len(UNARY):
                values.append(UNARY[kind](x))
            elif kind < len(UNARY) + len(BINARY):
                values.append(BINARY[kind - len(UNARY)](x, y))
            else:
                values.append(x @ p.W + (p.b if kind % 2 else y))
        x = values[-1]
        return (x @ p.head)[None], (values[-2 if len(values) > 4 else -1], x[:, :SIZE], state[2] * 0.5 + x[:, 0])

    state = (normal(1, SIZE), normal(1, SIZE), normal(1))
    tokens = np.array([[seed % VOCAB]])
    program = trace(step, p=p, tokens=tokens, state=state)
    return RandomProgram(program, {f"p.{name}": a for name, a in vars(p).items()}, seed % VOCAB, state)


def swapping_program() -> tuple[Program, NDArray[Any], tuple[NDArray[Any], NDArray[Any]]]:
    """Return a program that swaps two arrays of its state, its weight ``p.head``, and the state."""
    state = np.ones((1, 3), np.float32), np.zeros((1, 3), np.float32)
    head = np.eye(3, dtype=np.float32)
    program = trace(
        lambda p, tokens, state: ((state[0] @ p.head)[None], (state[1], state[0])),
        p=SimpleNamespace(head=head),
        tokens=np.array([[0]]),
        state=state,
    )
    return program, head, state
