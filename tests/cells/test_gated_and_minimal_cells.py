"""Tests of the gated cells with ReLU, the minimal cells, RG-LRU and sLSTM against the equations of their papers."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import revgen
from revgen.networks.stack import make_cell
from revgen.testing import check_cell

TIME, BATCH, INPUT, HIDDEN = 12, 3, 5, 8
NAMES = ["relu-gru", "relu-lstm", "mingru", "minlstm", "rglru", "slstm"]

Values = NDArray[np.float64]


def parameters(cell: revgen.Cell, spread: float = 0.3) -> dict[str, Values]:
    """Return initial parameters with noise, so that biases are not zero."""
    random = np.random.default_rng(1)
    return {
        name: cell.init_param(name, tuple(shape), random) + random.normal(0, spread, shape)
        for name, shape in cell.param_shapes().items()
    }


def inputs(time: int = TIME, scale: float = 1.0) -> Values:
    return np.random.default_rng(2).normal(0, scale, (time, BATCH, INPUT))


def on_numpy(cell: revgen.Cell, values: dict[str, Values], x: Values, dtype: Any = np.float32) -> tuple[Any, Any]:
    """Return outputs and last state of the cell for a sequence, on NumPy."""
    p = SimpleNamespace(**{name: value.astype(dtype) for name, value in values.items()})
    state = cell.initial_state(x.shape[1], lambda shape: np.zeros(shape, dtype))
    return cell.sequence(p, cell.project(p, x.astype(dtype)), state)


def leaves(state: Any) -> list[Any]:
    return list(state) if isinstance(state, tuple) else [state]


# The equations of the papers, as simply as possible


def sigmoid(x: Values) -> Values:
    y: Values = 1 / (1 + np.exp(-x))
    return y


def relu(x: Values) -> Values:
    return np.where(x > 0, x, 0.0)


def relu_gru(p: dict[str, Values], x: Values) -> Values:
    def part(name: str, i: int) -> Values:
        return p[name][..., i * HIDDEN : (i + 1) * HIDDEN]

    h, outputs = np.zeros((BATCH, HIDDEN)), []
    for x_t in x:
        r, u = (sigmoid(x_t @ part("W", i) + part("b", i) + h @ part("U", i) + part("c", i)) for i in range(2))
        n = relu(x_t @ part("W", 2) + part("b", 2) + r * (h @ part("U", 2) + part("c", 2)))
        h = (1 - u) * n + u * h
        outputs.append(h)
    return np.array(outputs)


def relu_lstm(p: dict[str, Values], x: Values) -> Values:
    h, c, outputs = np.zeros((BATCH, HIDDEN)), np.zeros((BATCH, HIDDEN)), []
    for x_t in x:
        i, f, o, g = np.split(x_t @ p["W"] + h @ p["U"] + p["b"], 4, -1)
        c = sigmoid(f) * c + (1 - sigmoid(f)) * sigmoid(i) * relu(g)
        h = sigmoid(o) * relu(c)
        outputs.append(h)
    return np.array(outputs)


def perceptron(p: dict[str, Values], h: Values) -> Values:
    return relu(h @ p["V"] + p["c"]) @ p["Y"]


def mingru(p: dict[str, Values], x: Values) -> Values:
    h, outputs = np.zeros((BATCH, HIDDEN)), []
    for x_t in x:
        u, n = np.split(x_t @ p["W"] + p["b"], 2, -1)
        z = 1 - sigmoid(u)  # the paper's gate is 1 minus ours
        h = (1 - z) * h + z * n
        outputs.append(perceptron(p, h))
    return np.array(outputs)


def minlstm(p: dict[str, Values], x: Values) -> Values:
    h, outputs = np.zeros((BATCH, HIDDEN)), []
    for x_t in x:
        f, i, n = np.split(x_t @ p["W"] + p["b"], 3, -1)
        f, i = sigmoid(f), sigmoid(i)
        h = f / (f + i) * h + i / (f + i) * n
        outputs.append(perceptron(p, h))
    return np.array(outputs)


def rglru(p: dict[str, Values], x: Values) -> Values:
    def gelu(v: Values) -> Values:
        inner: Values = np.sqrt(2 / np.pi) * (v + 0.044715 * v**3)
        output: Values = 0.5 * v * (1 + np.tanh(inner))
        return output

    h, outputs = np.zeros((BATCH, HIDDEN)), []
    for x_t in x:
        v = x_t @ p["W"]
        r, i = np.split(sigmoid(v @ p["R"] + p["b"]), 2, -1)
        a = sigmoid(p["L"]) ** (8 * r)
        h = a * h + np.sqrt(1 - a**2) * (i * v)
        outputs.append((h * gelu(x_t @ p["G"])) @ p["V"])
    return np.array(outputs)


def slstm(p: dict[str, Values], x: Values) -> Values:
    """Compute with plain exponentials, without the stabilizer m."""
    h, c, n, outputs = np.zeros((BATCH, HIDDEN)), np.zeros((BATCH, HIDDEN)), np.zeros((BATCH, HIDDEN)), []
    for x_t in x:
        z, o, i, f = np.split(x_t @ p["W"] + h @ p["U"] + p["b"], 4, -1)
        c = sigmoid(f) * c + np.exp(i) * np.tanh(z)
        n = sigmoid(f) * n + np.exp(i)
        h = sigmoid(o) * c / n
        outputs.append(h)
    return np.array(outputs)


REFERENCES: dict[str, Callable[[dict[str, Values], Values], Values]] = {
    "relu-gru": relu_gru,
    "relu-lstm": relu_lstm,
    "mingru": mingru,
    "minlstm": minlstm,
    "rglru": rglru,
    "slstm": slstm,
}


@pytest.mark.parametrize("name", NAMES)
def test_cell_computes_the_equations_of_its_paper(name: str) -> None:
    cell = make_cell(name, INPUT, HIDDEN, {})
    values = parameters(cell)

    output, _ = on_numpy(cell, values, inputs(), np.float64)

    np.testing.assert_allclose(output, REFERENCES[name](values, inputs()), atol=1e-9, rtol=0)


@pytest.mark.parametrize("name", ["mingru", "minlstm", "rglru"])
@pytest.mark.parametrize("time", [2, 7, 64, 100])
def test_parallel_scan_equals_step_by_step(name: str, time: int) -> None:
    cell = make_cell(name, INPUT, HIDDEN, {})
    values = parameters(cell)
    p = SimpleNamespace(**values)
    z = cell.project(p, inputs(time))
    start = np.random.default_rng(3).normal(size=(BATCH, HIDDEN))

    at_once, last = cell.sequence(p, z, start)
    steps, state = [], start
    for z_t in z:
        output, state = cell.step(p, z_t, state)
        steps.append(output)

    np.testing.assert_allclose(at_once, steps, atol=1e-12, rtol=0)
    np.testing.assert_allclose(last, state, atol=1e-12, rtol=0)


@pytest.mark.parametrize("name", NAMES)
def test_long_sequence_is_finite_and_float32(name: str) -> None:
    cell = make_cell(name, INPUT, HIDDEN, {})
    with np.errstate(over="raise", divide="raise", invalid="raise"):
        output, state = on_numpy(cell, parameters(cell, 0.0), inputs(5_000))

    assert np.isfinite(output).all() and np.abs(output).max() < 100
    for array in leaves(state):
        assert array.dtype == np.float32 and array.shape == (BATCH, HIDDEN) and np.isfinite(array).all()


@pytest.mark.parametrize("name", ["minlstm", "rglru", "slstm"])
@pytest.mark.parametrize("backend", ["numpy", "torch"])
def test_saturated_gates_give_finite_outputs_and_gradients(name: str, backend: str) -> None:
    cell = make_cell(name, INPUT, HIDDEN, {})
    values, x = parameters(cell), inputs(scale=60.0)  # exp overflows, and sigmoid is 0 or 1

    if backend == "numpy":
        with np.errstate(over="raise", divide="raise", invalid="raise"):
            output, _ = on_numpy(cell, values, x)
        assert np.isfinite(output).all()
        return
    p = SimpleNamespace(**{k: torch.tensor(v, dtype=torch.float32, requires_grad=True) for k, v in values.items()})
    output, _ = cell.sequence(p, cell.project(p, torch.tensor(x).float()), cell.initial_state(BATCH, torch.zeros))
    output.sum().backward()
    assert torch.isfinite(output).all()
    assert all(torch.isfinite(value.grad).all() for value in vars(p).values())


# Single cells


@pytest.mark.parametrize("name", ["relu-gru", "relu-lstm"])
def test_relu_cells_have_no_fused_kernel(name: str) -> None:
    parent, cell = (make_cell(kind, INPUT, HIDDEN, {}) for kind in (name.removeprefix("relu-"), name))

    assert cell.fused_kernel is None and parent.fused_kernel is not None
    assert cell.param_shapes() == parent.param_shapes()


@pytest.mark.parametrize("expansion", [1, 3])
@pytest.mark.parametrize("name", ["mingru", "minlstm"])
def test_expansion_sets_the_width_of_the_perceptron(name: str, expansion: int) -> None:
    check_cell(name, expansion=expansion)
    assert make_cell(name, INPUT, HIDDEN, {"expansion": expansion}).param_shapes()["V"] == (HIDDEN, expansion * HIDDEN)


@pytest.mark.parametrize("expansion", [0, -1, True])
def test_expansion_out_of_range_raises_at_creation(expansion: Any) -> None:
    with pytest.raises(revgen.OptionError, match="expansion must be a whole number of at least 1, not"):
        revgen.create("mingru-char", expansion=expansion)


@pytest.mark.parametrize("name", ["mingru", "minlstm"])
def test_state_of_minimal_cells_is_a_mean_of_candidates(name: str) -> None:
    cell = make_cell(name, INPUT, HIDDEN, {})
    values, x = parameters(cell), inputs()
    candidates = (x @ values["W"] + values["b"])[..., -HIDDEN:]

    _, state = on_numpy(cell, values, x)

    assert (np.abs(state) <= np.abs(candidates).max(0) + 1e-6).all()


def test_rglru_starts_with_short_and_long_memories() -> None:
    cell = make_cell("rglru", INPUT, 1_000, {})

    decay = sigmoid(np.asarray(cell.init_param("L", (1_000,), np.random.default_rng(0)), np.float64)) ** 8

    assert 0.001 <= decay.min() < 0.002 and 0.99 < decay.max() <= 0.999
    assert np.median(decay) < 0.25


def test_rglru_keeps_the_variance_of_its_input() -> None:
    cell = make_cell("rglru", INPUT, HIDDEN, {})
    values = parameters(cell, 0.0)
    values["W"] = np.eye(INPUT, HIDDEN)
    values["b"][HIDDEN:] = 100  # the input gate is open
    values["R"][:] = 0  # the recurrence gate is the same for all steps

    x = np.random.default_rng(0).normal(size=(200, 400, INPUT))
    _, state = on_numpy(cell, values | {"L": np.full(HIDDEN, 4.0)}, x)

    np.testing.assert_allclose(state[:, :INPUT].std(0), 1, atol=0.15)


def test_slstm_does_not_change_when_all_log_weights_are_shifted() -> None:
    cell = make_cell("slstm", INPUT, HIDDEN, {})
    values = parameters(cell)
    shifted = values | {"b": values["b"].copy()}
    shifted["b"][2 * HIDDEN : 3 * HIDDEN] += 200  # exp(200) overflows float32

    output, _ = on_numpy(cell, values, inputs())
    other, state = on_numpy(cell, shifted, inputs())

    np.testing.assert_allclose(output, other, atol=1e-4, rtol=0)
    assert (leaves(state)[2] >= 1).all()


def test_first_output_of_slstm_is_the_first_input_for_any_weight() -> None:
    cell = make_cell("slstm", INPUT, HIDDEN, {})
    values = parameters(cell)
    values["b"][2 * HIDDEN : 3 * HIDDEN] -= 500  # exp(-500) is 0
    z, o, *_ = np.split(inputs(1)[0] @ values["W"] + values["b"], 4, -1)

    output, _ = on_numpy(cell, values, inputs(1))

    np.testing.assert_allclose(output[0], sigmoid(o) * np.tanh(z), atol=1e-5, rtol=0)
