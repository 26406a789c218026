"""The gradient of a program agrees with PyTorch's autograd, for every operator and for random programs."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from fused_layers import leaves
from hypothesis import given, settings
from numpy.typing import NDArray
from random_cells import SIZE, RandomCell, random_cells

from revgen import ops
from revgen.compiler import trace
from revgen.compiler.gradient import RULES, compute_gradients, differentiate
from revgen.compiler.primitives import PRIMITIVES
from revgen.errors import NotTraceableError

RNG = np.random.default_rng(0)
X, Y, POSITIVE = RNG.normal(size=(2, 3, 4)), RNG.normal(size=(2, 3, 4)), RNG.uniform(0.5, 2, (2, 3, 4))
ROW, MATRIX, SQUARE = RNG.normal(size=4), RNG.normal(size=(4, 5)), RNG.normal(size=(4, 4))

FUNCTIONS: dict[str, tuple[Callable[..., Any], tuple[NDArray[Any], ...]]] = {
    "add": (lambda x, y: x + y, (X, Y)),
    "subtract": (lambda x, y: x - y, (X, Y)),
    "multiply": (lambda x, y: x * y, (X, Y)),
    "divide": (lambda x, y: x / y, (X, POSITIVE)),
    "remainder": (lambda x: x % 0.7, (X,)),
    "power of a variable": (lambda x: x**2.5, (POSITIVE,)),
    "power as a variable": (lambda x: 1.5**x, (X,)),
    "power 0.5": (lambda x: x**0.5, (POSITIVE,)),
    "power -1": (lambda x: x**-1, (POSITIVE,)),
    "maximum": (ops.maximum, (X, Y)),
    "negative": (lambda x: -x, (X,)),
    "exp": (ops.exp, (X,)),
    "log": (ops.log, (POSITIVE,)),
    "tanh": (ops.tanh, (X,)),
    "relu": (ops.relu, (X,)),
    "cos and sin": (lambda x: x.cos() * x.sin(), (X,)),
    "softplus": (ops.softplus, (X,)),
    "sigmoid": (ops.sigmoid, (X,)),
    "where": (lambda x, y: ops.where(x > y, x * y, y), (X, Y)),
    "where with a number": (lambda x: ops.where(x > 0, x, 0.1), (X,)),
    "softmax": (ops.softmax, (X,)),
    "log_softmax": (ops.log_softmax, (X,)),
    "logsumexp": (ops.logsumexp, (X,)),
    "gelu": (ops.gelu, (X,)),
    "amax": (ops.amax, (X,)),
    "cumsum": (ops.cumsum, (X,)),
    "tril": (ops.tril, (X,)),
    "layer_norm": (ops.layer_norm, (X, ROW, ROW + 1)),
    "linear_scan": (ops.linear_scan, (X, Y, X[0])),
    "reshape": (lambda x: x.reshape(2, 2, 6) * x.reshape(2, 2, 6), (X,)),
    "transpose": (lambda x, y: x.swapaxes(0, 2) * y.swapaxes(0, 2), (X, Y)),
    "concatenate": (lambda x, y: ops.concatenate([x, y, x], 1), (X, Y)),
    "stack": (lambda x, y: ops.stack([x, y, x]), (X, Y)),
    "pad_before": (lambda x: ops.pad_before(x, 2, 1), (X,)),
    "split": (lambda x: ops.split(x, 2)[0] * ops.split(x, 2)[1], (X,)),
    "product with a matrix": (lambda x, w: x @ w, (X, MATRIX)),
    "product with a transposed matrix": (lambda x, w: x @ w.T, (X, MATRIX.T.copy())),
    "batched product": (lambda x, y: x @ y.swapaxes(1, 2), (X, Y)),
    "product with a broadcast batch": (lambda x, y: x[None] @ y.swapaxes(1, 2), (X, Y)),
    "product with a vector": (lambda x, v: x @ v, (X, ROW)),
    "product of a product": (lambda x, w: ops.tanh(x @ w) @ w, (X, SQUARE)),
    "attention": (lambda q, k, v: ops.softmax(q @ k.swapaxes(1, 2)) @ v, (X, Y, X)),
    "broadcast over the first axes": (lambda x, row: x * row + row, (X, ROW)),
    "broadcast over an axis of size 1": (lambda x, y: x * y[:, :1] + y[:1], (X, Y)),
    "broadcast result": (lambda x, y: x[:, :1] + y[:1, :, :1], (X, Y)),
    "value used many times": (lambda x: x * x * x + x * x / (1 + x * x), (X,)),
    "overlapping slices": (lambda x: x[..., :3] * x[..., 1:] + x[..., 2:3], (X,)),
    "slices of several axes": (lambda x: x[:, 1:, :2] * x[:, :2, 2:] + x[0, 0, 0], (X,)),
    "slice and whole array": (lambda x: x[:, :1, :2] + x[:, :1, 1:3] * x[:, :, :2] + ops.amax(x), (X,)),
    "nested slices that overlap": (lambda x: x[:, 1:][:, :1, 1:] * x[:, 1:2, :3] * x[:, :1, 2:3], (X,)),
    "slices of rows": (lambda x: x[0] * x[1] + x[1], (X,)),
    "gradient through a cast": (lambda x: ops.cumsum(x) * x, (X,)),
}


def compare(function: Callable[..., Any], arrays: tuple[NDArray[Any], ...]) -> None:
    """Check the gradients of all arguments, for random gradients of the results."""
    names = [f"x{i}" for i in range(len(arrays))]
    program = trace(function, **dict(zip(names, arrays, strict=True)))
    indices = [i for name in names for i, o in enumerate(program.operations) if o.attributes.get("name") == name]
    tensors = [torch.tensor(array, requires_grad=True) for array in arrays]
    results = leaves(function(*tensors))
    rng = np.random.default_rng(1)
    d_results = [rng.normal(size=tuple(result.shape)) for result in results]
    expected = torch.autograd.grad(results, tensors, [torch.from_numpy(np.asarray(d)) for d in d_results])

    inputs = dict(zip(names, arrays, strict=True)) | {f"d.{i}": d for i, d in enumerate(d_results)}
    gradients = compute_gradients(differentiate(program, indices), inputs)

    for i, gradient in zip(indices, expected, strict=True):
        assert gradients[i].shape == tuple(gradient.shape)
        np.testing.assert_allclose(gradients[i], gradient, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_gradient_of_an_operator_agrees_with_pytorch(name: str) -> None:
    compare(*FUNCTIONS[name])


def test_every_primitive_has_a_rule_or_no_derivative_and_every_rule_is_tested() -> None:
    tested = set()
    for function, arrays in FUNCTIONS.values():
        program = trace(function, **{f"x{i}": array for i, array in enumerate(arrays)})
        tested |= {operation.name for operation in program.operations}
    comparisons = {"less", "less_equal", "greater", "greater_equal", "equal", "not_equal"}
    logic = {"logical_and", "logical_or", "logical_not"}

    assert RULES.keys() - {"cast", "sum"} <= tested | {"sqrt"}
    assert PRIMITIVES.keys() - RULES.keys() - comparisons - logic == {"floor_divide", "cummax", "take", "slice"}


@pytest.mark.parametrize(
    "function",
    [
        ops.cummax,
        lambda x: x // 2,
        lambda x: 2.0 % x,
        lambda x: x[..., ::2],
        lambda x: x[0, 0] @ SQUARE,
    ],
)
def test_operation_without_a_derivative_is_an_error(function: Callable[[Any], Any]) -> None:
    program = trace(function, x=X)

    with pytest.raises(NotTraceableError, match="no derivative"):
        differentiate(program, [0])


def test_operation_without_a_derivative_may_be_applied_to_constants() -> None:
    compare(lambda x: x * (ops.arange(4, x) // 2), (X,))


def test_equal_maxima_share_the_gradient() -> None:
    program = trace(ops.amax, x=X)
    x = np.zeros((2, 3, 4))

    gradients = compute_gradients(differentiate(program, [0]), {"x": x, "d.0": np.ones((2, 3, 1))})

    assert (gradients[0] == 0.25).all()


def test_unused_input_has_no_gradient() -> None:
    program = trace(lambda x, y: x * 2, x=X, y=Y)

    assert differentiate(program, [0, 1]).outputs.keys() == {0}


def test_result_that_is_an_input_has_its_gradient() -> None:
    program = trace(lambda x: (x, x), x=X)

    gradients = compute_gradients(differentiate(program, [0]), {"x": X, "d.0": Y, "d.1": X})

    np.testing.assert_allclose(gradients[0], X + Y)


def test_gradient_of_a_matrix_is_the_sum_over_its_products() -> None:
    program = trace(lambda x, w: ops.tanh(x @ w) @ w + w.sum(0)[0], x=X[0], w=SQUARE)
    inputs = {"x": X[0], "w": SQUARE, "d.0": Y[0]}

    whole = differentiate(program, [0, 1])
    by_products = differentiate(program, [0, 1], [1])

    assert len(by_products.products[1]) == 2
    np.testing.assert_allclose(compute_gradients(by_products, inputs)[1], compute_gradients(whole, inputs)[1])


def check_random_step(cell: RandomCell) -> None:
    """Compare the gradient of a step in parameters, input and state."""
    rng = np.random.default_rng(0)
    params = {name: rng.normal(0, 0.5, shape) for name, shape in cell.param_shapes().items()}
    names = [*params, "z", "state.0", "state.1", "state.2"]
    arrays = [*params.values(), *(rng.normal(size=shape) for shape in ((2, SIZE), (2, SIZE), (2, SIZE), (2,)))]

    def step(*values: Any) -> Any:
        p = SimpleNamespace(**dict(zip(params, values, strict=False)))
        z, a, b, c = values[len(params) :]
        return cell.step(p, z, (a, b, c))

    with np.errstate(all="ignore"):
        program = trace(step, **dict(zip(names, arrays, strict=True)))
        tensors = [torch.tensor(array, requires_grad=True) for array in arrays]
        results = leaves(step(*tensors))
        d_results = [np.random.default_rng(1).normal(size=tuple(result.shape)) for result in results]
        expected = torch.autograd.grad(results, tensors, list(map(torch.from_numpy, d_results)), allow_unused=True)
        if any(g is not None and not (g.isfinite().all() and g.abs().max() < 1e5) for g in expected):
            return
        indices = {o.attributes["name"]: i for i, o in enumerate(program.operations) if o.name == "input"}
        inputs = dict(zip(names, arrays, strict=True)) | {f"d.{i}": d for i, d in enumerate(d_results)}
        gradients = compute_gradients(differentiate(program, indices.values()), inputs)

    for name, gradient in zip(names, expected, strict=True):
        if gradient is not None:
            actual = gradients.get(indices[name], np.zeros(gradient.shape))
            np.testing.assert_allclose(actual, gradient, rtol=1e-8, atol=1e-8, err_msg=name)


@given(cell=random_cells())
@settings(max_examples=60, deadline=None)
def test_gradient_of_random_programs_agrees_with_pytorch(cell: RandomCell) -> None:
    check_random_step(cell)


@pytest.mark.fuzz
@given(cell=random_cells())
@settings(max_examples=2000, deadline=None)
def test_gradient_of_many_random_programs_agrees_with_pytorch(cell: RandomCell) -> None:
    check_random_step(cell)
