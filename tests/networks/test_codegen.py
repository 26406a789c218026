"""Generated code gives the same results as the interpreter of programs. Python runs it here, without Numba."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from revgen import ops
from revgen.compiler import Program, trace
from revgen.errors import NotTraceableError
from revgen.networks.code_text import HEADER
from revgen.networks.codegen import SourceWriter, fixed_values
from revgen.networks.token_tables import with_token_tables

SIZE, VOCAB = 6, 5


def add_product(x: Any, matrix: Any, out: Any) -> None:
    """Do the same as the compiled function of this name."""
    out += x @ matrix


def run_in_python(program: Program, weights: dict[str, Any], token: int, state: list[Any]) -> Any:
    """Return the logits that the generated code computes in Python. It overwrites the arrays of the state."""
    writer = SourceWriter(program)
    source = writer.source().removeprefix(HEADER.partition("@njit")[0])
    scope: dict[str, Any] = {
        "np": np,
        "njit": lambda **options: lambda function: function,
        "FAST": {},
        "cached": lambda function: function,
        "to_float32": np.float32,
        "add_product": add_product,
        "sigmoid": lambda x: np.float32(1) / (np.float32(1) + np.exp(-x)),
        "softplus": lambda x: np.logaddexp(x, np.float32(0)),
        "tanh": np.tanh,
    }
    exec(source, scope)
    values = program.compute(writer.fixed, {f"p.{name}": array for name, array in weights.items()})
    packed = [values[i] if as_matrix else values[i].reshape(-1) for i, as_matrix in writer.weights]
    return scope["forward_token"](packed, token, state)


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
    lambda x, y: ops.cummax(x) - y.reshape(3, 2)[1:2, 1] * y,
)


@given(
    steps=st.lists(st.tuples(st.integers(0, 40), st.integers(0, 99), st.integers(0, 99)), min_size=1, max_size=14),
    seed=st.integers(0, 1000),
)
@settings(max_examples=150, deadline=None)
def test_generated_code_of_random_programs_agrees_with_the_interpreter(
    steps: list[tuple[int, int, int]], seed: int
) -> None:
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
    weights = {f"p.{name}": array for name, array in vars(p).items()}
    states = {f"state.{i}": array for i, array in enumerate(state)}
    with np.errstate(all="ignore"):
        expected, expected_state = program(**weights, **states, tokens=tokens)
        arrays = [array.copy() for array in state]
        logits = run_in_python(program, vars(p), int(tokens[0, 0]), arrays)

    np.testing.assert_allclose(logits, expected.reshape(-1), rtol=1e-3, atol=1e-3)
    for array, expected_array in zip(arrays, expected_state, strict=True):
        np.testing.assert_allclose(array, expected_array, rtol=1e-3, atol=1e-3)


def test_arrays_of_the_state_may_swap() -> None:
    state = np.ones((1, 3), np.float32), np.zeros((1, 3), np.float32)
    head = np.eye(3, dtype=np.float32)
    program = trace(
        lambda p, tokens, state: ((state[0] @ p.head)[None], (state[1], state[0])),
        p=SimpleNamespace(head=head),
        tokens=np.array([[0]]),
        state=state,
    )
    arrays = [array.copy() for array in state]

    logits = run_in_python(program, {"head": head}, 0, arrays)

    assert logits.tolist() == [1, 1, 1]
    assert [array[0, 0] for array in arrays] == [0, 1]


def test_growing_state_has_no_compiled_form() -> None:
    program = trace(
        lambda p, tokens, state: ((state @ p.head)[None], ops.concatenate([state, state], 0)),
        p=SimpleNamespace(head=np.eye(3, dtype=np.float32)),
        tokens=np.array([[0]]),
        state=np.ones((1, 3), np.float32),
    )

    with pytest.raises(NotTraceableError, match="a state that grows"):
        SourceWriter(program).source()


def test_vectors_of_a_token_are_looked_up_in_tables() -> None:
    rng = np.random.default_rng(0)
    p = SimpleNamespace(embedding=rng.normal(size=(VOCAB, SIZE)), W=rng.normal(size=(SIZE, SIZE)))
    p = SimpleNamespace(**{name: array.astype(np.float32) for name, array in vars(p).items()})
    state = np.ones((1, SIZE), np.float32)

    def step(p: Any, tokens: Any, state: Any) -> Any:
        h = ops.tanh(ops.embedding(p.embedding, tokens)[0] @ p.W) + state
        return h[None], h

    program = trace(step, p=p, tokens=np.array([[0]]), state=state)
    weights = {f"p.{name}": array for name, array in vars(p).items()}
    fixed = {i: weights[program.operations[i].attributes["name"]] for i in fixed_values(program)}

    with_tables = with_token_tables(program, fixed, VOCAB)

    assert "matmul" not in [operation.name for operation in with_tables.operations]
    for token in range(VOCAB):
        arguments = {**weights, "tokens": np.array([[token]]), "state": state}
        np.testing.assert_allclose(with_tables(**arguments)[0], program(**arguments)[0], rtol=1e-6)
    assert with_token_tables(program, fixed, 1 << 22) is program
