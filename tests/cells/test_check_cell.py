"""Tests of ``revgen.testing.check_cell``: the cells that pass, and the mistakes that it finds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import revgen
from revgen.ops import concatenate, relu, tanh
from revgen.testing import check_cell


class Plain(revgen.Cell):
    """h' = tanh(x W + h U + b), which the tests change."""

    def param_shapes(self) -> dict[str, tuple[int, ...]]:
        return {
            "W": (self.input_size, self.hidden_size),
            "U": (self.hidden_size, self.hidden_size),
            "b": (self.hidden_size,),
        }

    def project(self, p: Any, x: Any) -> Any:
        return x @ p.W + p.b

    def step(self, p: Any, z: Any, h: Any) -> tuple[Any, Any]:
        h = tanh(z + h @ p.U)
        return h, h


class PairState(Plain):
    """A cell whose state is a container of two arrays; the second is not of the hidden size."""

    container: str = "tuple"

    def param_shapes(self) -> dict[str, tuple[int, ...]]:
        return dict(super().param_shapes()) | {"V": (2, self.hidden_size)}

    def initial_state(self, batch: int, zeros: Any) -> Any:
        return self.pack(zeros((batch, self.hidden_size)), zeros((batch, 2)))

    def step(self, p: Any, z: Any, state: Any) -> tuple[Any, Any]:
        h, memory = state.values() if isinstance(state, dict) else state
        h = tanh(z + h @ p.U + memory @ p.V)
        return h, self.pack(h, h[..., :2] + memory * 0.5)

    def pack(self, h: Any, memory: Any) -> Any:
        return {"tuple": (h, memory), "list": [h, memory], "dict": {"h": h, "memory": memory}}[self.container]


@pytest.mark.parametrize("container", ["tuple", "list", "dict"])
def test_state_may_be_a_container_of_arrays(container: str) -> None:
    check_cell(PairState, container=container)


def test_state_may_be_nested_containers() -> None:
    class Nested(Plain):
        def initial_state(self, batch: int, zeros: Any) -> Any:
            return {"now": (zeros((batch, self.hidden_size)),), "before": [zeros((batch, self.hidden_size)), None]}

        def step(self, p: Any, z: Any, state: Any) -> tuple[Any, Any]:
            h = tanh(z + (state["now"][0] + state["before"][0]) @ p.U)
            return h, {"now": (h,), "before": [state["now"][0], None]}

    check_cell(Nested)


def test_output_may_be_wider_than_the_hidden_state() -> None:
    class Wide(Plain):
        @property
        def output_size(self) -> int:
            return 2 * self.hidden_size

        def step(self, p: Any, z: Any, h: Any) -> tuple[Any, Any]:
            new = tanh(z + h @ p.U)
            return concatenate([new, h]), new

    check_cell(Wide)


# Mistakes that check_cell finds


def test_output_of_the_wrong_shape_is_found() -> None:
    class Narrow(Plain):
        def step(self, p: Any, z: Any, h: Any) -> tuple[Any, Any]:
            h = tanh(z + h @ p.U)
            return h[..., :-1], h

    with pytest.raises(AssertionError, match=r"the outputs have the shape \(7, 3, 7\), not .*\(7, 3, 8\)"):
        check_cell(Narrow)


def test_state_of_the_wrong_shape_is_found() -> None:
    class Turned(Plain):
        def initial_state(self, batch: int, zeros: Any) -> Any:
            return zeros((self.hidden_size, batch))

        def step(self, p: Any, z: Any, h: Any) -> tuple[Any, Any]:
            h = tanh(z + h.T @ p.U)
            return h, h.T

    with pytest.raises(AssertionError, match=r"state has the shape \(8, 3\), not \(batch, …\)"):
        check_cell(Turned)


def test_parameters_of_the_wrong_shape_are_found() -> None:
    class Misshapen(Plain):
        def init_param(self, name: str, shape: tuple[int, ...], rng: np.random.Generator) -> Any:
            return np.zeros((*shape, 1))

    with pytest.raises(AssertionError, match=r"init_param\('W'\) returned the shape \(5, 8, 1\), not \(5, 8\)"):
        check_cell(Misshapen)


def test_state_kept_on_the_cell_is_found() -> None:
    class Secretive(Plain):
        last: Any = 0.0

        def step(self, p: Any, z: Any, h: Any) -> tuple[Any, Any]:
            h = tanh(z + h @ p.U + self.last * 0.5)
            self.last = h.mean()
            return h, h

    with pytest.raises(AssertionError, match="reading a sequence twice gives different outputs"):
        check_cell(Secretive)


def test_outputs_that_depend_on_the_sequence_length_are_found() -> None:
    class Counting(Plain):
        def project(self, p: Any, x: Any) -> Any:
            return x @ p.W + p.b * len(x)

    with pytest.raises(AssertionError, match="reading in two parts and at once gives different outputs"):
        check_cell(Counting)


def test_sequence_that_differs_from_its_steps_is_found() -> None:
    class Hasty(Plain):
        def sequence(self, p: Any, z: Any, state: Any) -> tuple[Any, Any]:
            return super().sequence(p, z, state) if len(z) == 1 else super().sequence(p, z, state * 0)

    with pytest.raises(AssertionError, match="reading in two parts and at once gives different outputs"):
        check_cell(Hasty)


def test_projection_that_reads_later_steps_is_found() -> None:
    class Prophetic(Plain):
        def project(self, p: Any, x: Any) -> Any:
            return (x + x.sum(0)) @ p.W + p.b

    with pytest.raises(AssertionError, match="the outputs of a step depend on later steps"):
        check_cell(Prophetic)


def test_rows_that_affect_each_other_are_found() -> None:
    class Gossiping(Plain):
        def step(self, p: Any, z: Any, h: Any) -> tuple[Any, Any]:
            h = tanh(z + h.sum(0) @ p.U)
            return h + z * 0, h + z * 0

    with pytest.raises(AssertionError, match="a row alone and in a batch gives different outputs"):
        check_cell(Gossiping)


def test_float64_output_on_numpy_is_found() -> None:
    class Double(Plain):
        def step(self, p: Any, z: Any, h: Any) -> tuple[Any, Any]:
            h = tanh(z + h @ p.U)
            return (h.astype(np.float64) if isinstance(h, np.ndarray) else h), h

    with pytest.raises(AssertionError, match="on NumPy the output is float64, not float32"):
        check_cell(Double)


def test_numpy_and_torch_that_disagree_are_found() -> None:
    class TwoFaced(Plain):
        def step(self, p: Any, z: Any, h: Any) -> tuple[Any, Any]:
            h = tanh(z + h @ p.U) if isinstance(h, np.ndarray) else relu(z + h @ p.U)
            return h, h

    with pytest.raises(AssertionError, match="NumPy and PyTorch give different outputs"):
        check_cell(TwoFaced)


def test_unused_parameter_is_found() -> None:
    class Idle(Plain):
        def param_shapes(self) -> dict[str, tuple[int, ...]]:
            return dict(super().param_shapes()) | {"V": (3, 3)}

    with pytest.raises(AssertionError, match="the weight V gets no gradient"):
        check_cell(Idle)


def test_fused_kernel_that_computes_something_else_is_found() -> None:
    class Mistaken(Plain):
        fused_kernel = "rnn_relu"

    with pytest.raises(AssertionError, match="the fused kernel rnn_relu and the cell give different outputs"):
        check_cell(Mistaken)


@pytest.mark.parametrize("kernel_name", ["lstm", "nothing"])
def test_fused_kernel_that_rejects_the_weights_is_found(kernel_name: str) -> None:
    class Unfit(Plain):
        fused_kernel = kernel_name

    with pytest.raises(AssertionError, match=f"the fused kernel {kernel_name} rejects the weights"):
        check_cell(Unfit)


def test_bidirectional_module_is_found() -> None:
    class Both(torch.nn.Module):
        def __init__(self, input_size: int, hidden_size: int) -> None:
            super().__init__()
            self.gru = torch.nn.GRU(input_size, hidden_size // 2, bidirectional=True)

        def forward(self, x: torch.Tensor, state: Any) -> tuple[torch.Tensor, Any]:
            return self.gru(x)[0], None

    with pytest.raises(AssertionError, match="the outputs of a step depend on later steps"):
        check_cell(Both)
