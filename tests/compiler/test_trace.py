"""Every operator and every network can be recorded as a program, which gives the same results as the equation."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import revgen
from revgen import ops
from revgen.architectures.functional_model import FunctionalModel
from revgen.compiler import Program, trace
from revgen.errors import NotTraceableError
from revgen.networks.functional import unflatten
from revgen.registry import architecture_class, architecture_names
from revgen.tokenizers import CharTokenizer

RNG = np.random.default_rng(0)
X = RNG.normal(size=(2, 3, 4)).astype(np.float32)
Y = RNG.normal(size=(2, 3, 4)).astype(np.float32)
HEADS = [RNG.normal(size=(2, 2, 3, 4)).astype(np.float32) for _ in range(3)]
MASK = np.tril(np.ones((3, 3), bool))

TRACEABLE: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    **{
        name: (getattr(ops, name), {"x": X})
        for name in ("sigmoid", "tanh", "relu", "exp", "softplus", "log_softmax", "softmax", "logsumexp", "gelu")
    },
    **{name: (getattr(ops, name), {"x": X}) for name in ("amax", "cumsum", "cummax", "tril")},
    "log": (ops.log, {"x": np.abs(X)}),
    "maximum": (ops.maximum, {"x": X, "y": Y}),
    "where": (lambda x: ops.where(x > 0, x, -1.5), {"x": X}),
    "split": (lambda x: ops.split(x, 2), {"x": X}),
    "stack": (lambda x, y: ops.stack([x, y]), {"x": X, "y": Y}),
    "concatenate": (lambda x, y: ops.concatenate([x, y], 1), {"x": X, "y": Y}),
    "pad_before": (lambda x: ops.pad_before(x, 2, 1), {"x": X}),
    "embedding": (ops.embedding, {"table": X[0], "tokens": np.array([[0, 2], [1, 1]])}),
    "linear_scan": (ops.linear_scan, {"a": X, "b": Y, "h": X[0]}),
    "layer_norm": (ops.layer_norm, {"x": X, "scale": Y[0, 0], "shift": Y[0, 1]}),
    "type_as": (lambda x, y: ops.type_as(x > 0, y), {"x": X, "y": Y}),
    "arange": (lambda x: x + ops.arange(4, x), {"x": X}),
    "attention": (
        lambda q, k, v: ops.attention(q, k, v, MASK),
        dict(zip("qkv", HEADS, strict=True)),
    ),
    "attention_weights": (lambda q, k: ops.attention_weights(q, k, MASK), {"q": HEADS[0], "k": HEADS[1]}),
    "rotary_angles": (lambda positions: ops.rotary_angles(positions, 6), {"positions": np.array([[0, 5, 10**6]])}),
}
NOT_TRACEABLE: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "argsort": (ops.argsort, {"x": X[0]}),
    "kth_largest": (lambda x: ops.kth_largest(x, 2), {"x": X}),
    "take_along_axis": (
        ops.take_along_axis,
        {"x": X[0], "index": np.zeros((3, 1), np.int64)},
    ),
    "put_along_axis": (
        ops.put_along_axis,
        {"index": np.zeros((3, 4), np.int64), "values": X[0]},
    ),
}
NO_ARRAYS = {"tree_map", "rotary_frequencies"}


def flatten(value: Any) -> list[Any]:
    """Return the arrays of a nested result."""
    arrays: list[Any] = []
    ops.tree_map(arrays.append, value)
    return arrays


def run(program: Program, **arguments: Any) -> Any:
    """Run a program on nested arguments, whose inputs have names like ``p.layers.0.W``."""
    inputs: dict[str, Any] = {}

    def add(name: str, value: Any) -> None:
        if isinstance(value, SimpleNamespace | dict):
            items = (vars(value) if isinstance(value, SimpleNamespace) else value).items()
            for key, part in items:
                add(f"{name}.{key}", part)
        elif isinstance(value, tuple | list):
            for i, part in enumerate(value):
                add(f"{name}.{i}", part)
        elif value is not None:
            inputs[name] = value

    for name, value in arguments.items():
        add(name, value)
    return program(**{name: inputs[name] for name in program.input_names})


def test_every_operator_is_either_traceable_or_not_traceable() -> None:
    public = {
        name
        for name, value in vars(ops).items()
        if inspect.isfunction(value) and value.__module__ == ops.__name__ and not name.startswith("_")
    }

    assert public == TRACEABLE.keys() | NOT_TRACEABLE.keys() | NO_ARRAYS


@pytest.mark.parametrize("name", TRACEABLE)
def test_program_of_an_operator_gives_the_same_result(name: str) -> None:
    function, arguments = TRACEABLE[name]

    program = trace(function, **arguments)

    for result, expected in zip(flatten(run(program, **arguments)), flatten(function(**arguments)), strict=True):
        assert result.dtype == expected.dtype
        np.testing.assert_allclose(result, expected, rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize("name", NOT_TRACEABLE)
def test_operator_that_cannot_be_traced_raises_an_error(name: str) -> None:
    function, arguments = NOT_TRACEABLE[name]

    with pytest.raises(NotTraceableError, match="cannot be traced"):
        trace(function, **arguments)


def small_network(name: str) -> Any:
    """Return a small model with its initial weights."""
    tokenizer = CharTokenizer.train(["abcdefgh " * 5])
    sizes: dict[str, Any] = {"num_heads": 2, "context": 6} if name == "transformer" else {}
    model: Any = revgen.create(f"{name}-char", tokenizer=tokenizer, hidden_size=8, **sizes)
    model.prepare(tokenizer, seed=1)
    return model


@pytest.mark.parametrize(
    "name", [n for n in architecture_names() if issubclass(architecture_class(n), FunctionalModel)]
)
def test_program_of_a_network_gives_the_same_logits_and_state(name: str) -> None:
    model = small_network(name)
    p, definition = unflatten(model.weights), model.definition
    tokens = np.array([[7]])
    _, state = definition.forward(p, np.array([[0]]), model.initial_state(1))

    program = model.program()

    logits, next_state = run(program, p=p, tokens=tokens, state=state)
    expected, expected_state = definition.forward(p, tokens, state)
    np.testing.assert_allclose(logits, expected, atol=1e-5)
    for array, expected_array in zip(flatten(next_state), flatten(expected_state), strict=True):
        np.testing.assert_allclose(array, expected_array, atol=1e-5)


def test_custom_cell_is_traceable() -> None:
    class Leaky(revgen.Cell):
        """h' = a * h + tanh(x W)."""

        def param_shapes(self) -> dict[str, tuple[int, ...]]:
            return {"W": (self.input_size, self.hidden_size), "a": (self.hidden_size,)}

        def project(self, p: Any, x: Any) -> Any:
            return x @ p.W

        def step(self, p: Any, z: Any, h: Any) -> tuple[Any, Any]:
            h = ops.sigmoid(p.a) * h + ops.tanh(z)
            return h, h

    cell = Leaky(3, 4)
    p = SimpleNamespace(W=X[0, :3], a=Y[0, 0])
    z, h = X[:, 0], Y[:, 0]

    program = trace(cell.step, p=p, z=z, state=h)

    for result, expected in zip(run(program, p=p, z=z, state=h), cell.step(p, z, h), strict=True):
        np.testing.assert_allclose(result, expected, atol=1e-6)


def test_branch_on_a_value_is_an_error() -> None:
    with pytest.raises(NotTraceableError, match="depends on the value of an array"):
        trace(lambda x: x if x.sum(-1)[0, 0] > 0 else -x, x=X)


def test_torch_module_cannot_be_traced_and_has_no_cost() -> None:
    import torch

    revgen.register_cell("module-cell")(torch.nn.GRU)
    try:
        model = small_network("module-cell")
        with pytest.raises(NotTraceableError, match="module-cell-char is written for PyTorch only"):
            model.program()
        assert "flop_per_token" not in model.info()
    finally:
        revgen.registry.cells.unregister("module-cell")


def test_equal_operations_are_recorded_once_and_unused_ones_are_dropped() -> None:
    def function(x: Any) -> Any:
        ops.tanh(x)  # unused
        return ops.exp(x) + ops.exp(x)

    program = trace(function, x=X)

    assert [operation.name for operation in program.operations] == ["input", "exp", "add"]


def test_constants_are_computed_when_the_program_is_recorded() -> None:
    program = trace(lambda x: x * (ops.arange(4, x) * 2 + 1), x=X)

    assert [operation.name for operation in program.operations] == ["input", "constant", "multiply"]
    np.testing.assert_array_equal(program(x=X), X * np.array([1, 3, 5, 7]))


def test_program_prints_as_assignments() -> None:
    program = trace(lambda x, w: ops.tanh(x @ w) * 2, x=np.ones((1, 3), np.float32), w=np.ones((3, 2), np.float32))

    assert str(program).splitlines() == [
        "x: float32[1, 3]",
        "w: float32[3, 2]",
        "v2: float32[1, 2] = matmul(x, w)",
        "v3: float32[1, 2] = tanh(v2)",
        "v5: float32[1, 2] = multiply(v3, 2)",
        "return v5",
    ]


def test_cost_counts_products_elements_and_bytes() -> None:
    program = trace(lambda x, w: ops.tanh(x @ w), x=np.ones((1, 3), np.float32), w=np.ones((3, 2), np.float32))

    cost = program.cost()

    assert cost.matmul_flop == 2 * 3 * 2
    assert cost.flop == cost.matmul_flop + 2
    assert cost.bytes == 4 * ((3 + 6 + 2) + (2 + 2))


def test_cost_counts_only_the_selected_rows_of_a_table() -> None:
    table = np.ones((1000, 8), np.float32)

    cost = trace(ops.embedding, table=table, tokens=np.zeros((1, 1), np.int64)).cost()

    assert cost.bytes == 8 + 2 * 4 * 8


def test_info_of_a_model_includes_its_cost() -> None:
    info = small_network("gru").info()

    matrices = sum(array.size for array in small_network("gru").weights.values() if array.ndim == 2)
    assert 1.5 * matrices < info["flop_per_token"] < 4 * matrices
    assert info["bytes_per_token"] > 0
