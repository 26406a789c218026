"""Generated code gives the same results as the interpreter of programs. Python runs it here, without Numba."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from programs import SIZE, STEPS, VOCAB, random_program, swapping_program

from revgen import ops
from revgen.compiler import Program, trace
from revgen.errors import NotTraceableError
from revgen.networks.numba_code import HEADER, NumbaWriter
from revgen.networks.token_tables import with_token_tables


def add_product(x: Any, x_begin: int, matrix: Any, out: Any, out_begin: int) -> None:
    """Do the same as the compiled function of this name."""
    rows, columns = matrix.shape
    out[out_begin : out_begin + columns] += x[x_begin : x_begin + rows] @ matrix


def run_in_python(program: Program, weights: dict[str, Any], token: int, state: list[Any]) -> Any:
    """Return the logits that the generated code computes in Python. It overwrites the arrays of the state."""
    writer = NumbaWriter(program)
    source = writer.source().removeprefix(HEADER.partition("@njit")[0])
    scope: dict[str, Any] = {
        "np": np,
        "njit": lambda **options: lambda function: function,
        "INTERNAL": {},
        "cached": lambda function: function,
        "to_float32": np.float32,
        "add_product": add_product,
        "sigmoid": lambda x: np.float32(1) / (np.float32(1) + np.exp(-x)),
        "softplus": lambda x: np.logaddexp(x, np.float32(0)),
        "tanh": np.tanh,
        "exp": np.exp,
        "log": np.log,
    }
    exec(source, scope)
    values = program.compute(writer.fixed, weights)
    packed = [values[i] if as_matrix else values[i].reshape(-1) for i, as_matrix in writer.weights]
    return scope["forward_token"](packed, token, [array.reshape(-1) for array in state])


@given(steps=STEPS, seed=st.integers(0, 1000))
@settings(max_examples=150, deadline=None)
def test_generated_code_of_random_programs_agrees_with_the_interpreter(
    steps: list[tuple[int, int, int]], seed: int
) -> None:
    random = random_program(steps, seed)
    with np.errstate(all="ignore"):
        expected, expected_state = random.run()
        arrays = [array.copy() for array in random.state]
        logits = run_in_python(random.program, random.weights, random.token, arrays)

    np.testing.assert_allclose(logits, expected.reshape(-1), rtol=1e-3, atol=1e-3)
    for array, expected_array in zip(arrays, expected_state, strict=True):
        np.testing.assert_allclose(array, expected_array, rtol=1e-3, atol=1e-3)


def test_arrays_of_the_state_may_swap() -> None:
    program, head, state = swapping_program()
    arrays = [array.copy() for array in state]

    logits = run_in_python(program, {"p.head": head}, 0, arrays)

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
        NumbaWriter(program).source()


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

    with_tables = with_token_tables(program, weights, VOCAB)

    assert "matmul" not in [operation.name for operation in with_tables.operations]
    for token in range(VOCAB):
        arguments = {**weights, "tokens": np.array([[token]]), "state": state}
        np.testing.assert_allclose(with_tables(**arguments)[0], program(**arguments)[0], rtol=1e-6)
    assert with_token_tables(program, weights, 1 << 22) is program
