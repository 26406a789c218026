"""Recurrent cells that use the operators in unusual ways, for tests of code that is generated from equations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from revgen import Cell, ops
from revgen.ops import Array


class Custom(Cell):
    """A cell with a hidden matrix U, an input matrix W and the vectors b and g."""

    def param_shapes(self) -> dict[str, tuple[int, ...]]:
        hidden = self.hidden_size
        return {"W": (self.input_size, hidden), "U": (hidden, hidden), "b": (hidden,), "g": (hidden,)}

    def project(self, p: Any, x: Array) -> Array:
        return x @ p.W + p.b


class TwoProducts(Custom):
    """A candidate that is computed from a gated state: two products, one after the other."""

    def step(self, p: Any, z: Array, h: Array) -> tuple[Array, Array]:
        gate = ops.sigmoid(z + h @ p.U)
        h = (1 - gate) * h + gate * ops.tanh((gate * h) @ p.U + p.g * z)
        return h, h


class NoProject(Custom):
    """A step that multiplies its input itself."""

    project = Cell.project

    def step(self, p: Any, x: Array, h: Array) -> tuple[Array, Array]:
        h = ops.tanh(x @ p.W + h @ p.U + p.b) * p.g
        return h, h


class ProductOfProduct(Custom):
    """h' = tanh(z + (h U) U)."""

    def step(self, p: Any, z: Array, h: Array) -> tuple[Array, Array]:
        h = ops.tanh(z + (h @ p.U) @ p.U) + p.g
        return h, h


class NormalizedState(Custom):
    """Layer normalization in the step."""

    def step(self, p: Any, z: Array, h: Array) -> tuple[Array, Array]:
        h = ops.tanh(ops.layer_norm(z + h @ p.U, p.g, p.b))
        return h, h


class SharedVector(Custom):
    """A vector that is added and multiplied."""

    def step(self, p: Any, z: Array, h: Array) -> tuple[Array, Array]:
        h = ops.tanh(z + p.g * (h @ p.U) + p.g)
        return h * p.g, h


class TransposedMatrix(Custom):
    """h' = tanh(z + h U + tanh(h) U')."""

    def step(self, p: Any, z: Array, h: Array) -> tuple[Array, Array]:
        h = ops.tanh(z + h @ p.U + ops.tanh(h) @ p.U.T) + p.g
        return h, h


class SoftmaxState(Custom):
    """A state whose units sum to 1, and a logarithmic one in the output."""

    def step(self, p: Any, z: Array, h: Array) -> tuple[Array, Array]:
        h = ops.softmax(z + h @ p.U) * p.g
        return ops.log_softmax(h) + ops.logsumexp(h)[:, None], h


class Piecewise(Custom):
    """Comparisons and maxima."""

    def step(self, p: Any, z: Array, h: Array) -> tuple[Array, Array]:
        a = z + h @ p.U
        h = ops.where(a > p.g, ops.tanh(a), 0.1 * a) + ops.maximum(a, h) * ops.amax(a) + ops.gelu(a) - ops.relu(h)
        return h, ops.tanh(h)


class Heads(Custom):
    """Heads with a matrix each: a batched product with weights of three axes."""

    def param_shapes(self) -> dict[str, tuple[int, ...]]:
        size = self.hidden_size // 2
        return {"W": (self.input_size, self.hidden_size), "b": (self.hidden_size,), "R": (2, size, size)}

    def step(self, p: Any, z: Array, h: Array) -> tuple[Array, Array]:
        heads = h.reshape(len(h), 2, 1, self.hidden_size // 2) @ p.R
        h = ops.tanh(z + heads.reshape(len(h), self.hidden_size))
        return h, h


class FastWeights(Custom):
    """A matrix as a state, to which outer products are added (Ba et al. 2016)."""

    def initial_state(self, batch: int, zeros: Callable[..., Array]) -> Any:
        return zeros((batch, self.hidden_size, self.hidden_size)), zeros((batch, self.hidden_size))

    def step(self, p: Any, z: Array, state: Any) -> tuple[Array, Any]:
        memory, h = state
        memory = 0.9 * memory + 0.1 * h[:, :, None] * z[:, None, :]
        h = ops.tanh(z + h @ p.U + (h[:, None, :] @ memory)[:, 0] * p.g)
        return h, (memory, h)


class NestedState(Custom):
    """A dict of three arrays of different sizes, and an output of another size."""

    @property
    def output_size(self) -> int:
        return self.hidden_size + 2

    def param_shapes(self) -> dict[str, tuple[int, ...]]:
        return {**super().param_shapes(), "V": (self.hidden_size, 3), "c": (self.hidden_size + 2,)}

    def initial_state(self, batch: int, zeros: Callable[..., Array]) -> Any:
        return {
            "h": zeros((batch, self.hidden_size)),
            "rest": (zeros((batch, 3)), [zeros((batch, 1))]),
        }

    def step(self, p: Any, z: Array, state: Any) -> tuple[Array, Any]:
        h, (small, [total]) = state["h"], state["rest"]
        h = ops.tanh(z + h @ p.U * total + small[:, :1] * p.g)
        small = small * 0.5 + h @ p.V
        total = ops.sigmoid(total + small[:, 1:2]) + small[:, 2:]
        return ops.concatenate([h, small[:, :2]]) * p.c, {"h": h, "rest": (small, [total])}


class VectorState(Custom):
    """A state of one number for each sequence, without an axis for units."""

    def initial_state(self, batch: int, zeros: Callable[..., Array]) -> Any:
        return zeros((batch, self.hidden_size)), zeros((batch,))

    def step(self, p: Any, z: Array, state: Any) -> tuple[Array, Any]:
        h, level = state
        h = ops.tanh(z + (h @ p.U) * level[:, None]) * p.g
        return h, (h, 0.5 * level + h[:, 0])


class SameStateTwice(Custom):
    """Two states that are the same value."""

    def initial_state(self, batch: int, zeros: Callable[..., Array]) -> Any:
        return zeros((batch, self.hidden_size)), zeros((batch, self.hidden_size))

    def step(self, p: Any, z: Array, state: Any) -> tuple[Array, Any]:
        a, b = state
        h = ops.tanh(z + a @ p.U + b * p.g)
        return h, (h, h)


class ScaledOutput(Custom):
    """An output with a product, computed from the new state."""

    def step(self, p: Any, z: Array, h: Array) -> tuple[Array, Array]:
        h = ops.tanh(z * p.g + h)
        return ops.sigmoid(h @ p.U) * h, h


class PositiveWeights(Custom):
    """Weights that are functions of weights."""

    def step(self, p: Any, z: Array, h: Array) -> tuple[Array, Array]:
        h = ops.exp(-ops.softplus(p.g)) * h + ops.tanh(z + h @ (ops.softplus(p.U) * 0.1))
        return h, h


class SlicedWeights(Custom):
    """Parts of one matrix as the matrices of several products."""

    def param_shapes(self) -> dict[str, tuple[int, ...]]:
        return {**super().param_shapes(), "U": (self.hidden_size, 2 * self.hidden_size)}

    def step(self, p: Any, z: Array, h: Array) -> tuple[Array, Array]:
        left, right = ops.split(p.U, 2)
        h = ops.tanh(z + h @ left + (h * p.g) @ right)
        return h, h


class RowVector(Custom):
    """The vectors of weights as matrices of one row."""

    def step(self, p: Any, z: Array, h: Array) -> tuple[Array, Array]:
        gate = ops.sigmoid(h @ p.g[:, None])  # (batch, 1)
        h = gate * h + (1 - gate) * ops.tanh(z + gate @ p.b[None])
        return h, h


class Rotated(Custom):
    """Units that move by one at each step: slices and concatenation."""

    def step(self, p: Any, z: Array, h: Array) -> tuple[Array, Array]:
        moved = ops.concatenate([h[:, 1:], h[:, :1]])
        h = ops.tanh(moved + z * p.g)
        return h, ops.concatenate([h[:, -1:] * 2, h[:, :-1]])


class Alternating(Custom):
    """Every second unit is a gate of the unit after it."""

    def step(self, p: Any, z: Array, h: Array) -> tuple[Array, Array]:
        pairs = (z + h @ p.U).reshape(len(z), self.hidden_size // 2, 2)
        value = ops.sigmoid(pairs[..., 0]) * ops.tanh(pairs[..., 1])
        h = ops.concatenate([value, value * value])
        return h * p.g, h


class Reversed(Custom):
    """Outputs that are transposed matrices of units, and their cumulative sums."""

    def step(self, p: Any, z: Array, h: Array) -> tuple[Array, Array]:
        a = (z + h @ p.U).reshape(len(z), self.hidden_size // 2, 2)
        h = ops.tanh(ops.concatenate([a.swapaxes(1, 2).reshape(len(z), self.hidden_size), z])[:, : self.hidden_size])
        return h * p.g, h


class Attending(Custom):
    """Attention over the last three states, which are kept in a state of three axes."""

    def initial_state(self, batch: int, zeros: Callable[..., Array]) -> Any:
        return zeros((batch, 3, self.hidden_size))

    def step(self, p: Any, z: Array, memory: Array) -> tuple[Array, Any]:
        weights = ops.softmax((memory * (z @ p.U)[:, None]) @ p.g[:, None] * 0.5 + memory[:, :, :1])  # (batch, 3, 1)
        weights = ops.softmax(weights.swapaxes(1, 2))  # (batch, 1, 3)
        h = ops.tanh((weights @ memory)[:, 0] + z)
        return h, ops.concatenate([memory[:, 1:] * 0.9, h[:, None]], 1)


class Powers(Custom):
    """Powers, roots, logarithms and trigonometric functions."""

    def step(self, p: Any, z: Array, h: Array) -> tuple[Array, Array]:
        a = (h @ p.U) ** 2 + 1
        h = a**-1 + a**0.5 * ops.tanh(z) + ops.log(a) - 1 / (a + p.g * p.g) + a**1.5 * 0.01
        return h, ops.tanh(h)


class DroppedUnits(Custom):
    """Units that no result uses, so that a part of a vector has no gradient."""

    def step(self, p: Any, z: Array, h: Array) -> tuple[Array, Array]:
        a, b = z[:, :3] + p.g[:3], z[:, 3:] + p.g[3:]
        return z, ops.concatenate([a, b, z])[:, 3 : 3 + self.hidden_size] + 0.1 * h


class Clock(Custom):
    """A state that counts steps, as a float."""

    def initial_state(self, batch: int, zeros: Callable[..., Array]) -> Any:
        return zeros((batch, self.hidden_size)), zeros((batch, 1))

    def step(self, p: Any, z: Array, state: Any) -> tuple[Array, Any]:
        h, count = state
        count = count + 1
        h = ops.tanh(z + h @ p.U / count + p.g)
        return h, (h, count)


class DelayedInput(Custom):
    """A state that is computed from the input alone, without its own past."""

    def initial_state(self, batch: int, zeros: Callable[..., Array]) -> Any:
        return zeros((batch, self.hidden_size)), zeros((batch, self.hidden_size))

    def step(self, p: Any, z: Array, state: Any) -> tuple[Array, Any]:
        h, last = state
        h = ops.tanh(z + h @ p.U + last * p.g)
        return h, (h, 2 * z)


class ProductAsState(Custom):
    """A state that is a product, which is also the output."""

    def step(self, p: Any, z: Array, h: Array) -> tuple[Array, Array]:
        h = (ops.tanh(h) * p.g + z) @ p.U
        return h, h


class CopiedInput(Custom):
    """A state that is a copy of the input."""

    project = Cell.project

    def initial_state(self, batch: int, zeros: Callable[..., Array]) -> Any:
        return zeros((batch, self.hidden_size)), zeros((batch, self.input_size))

    def step(self, p: Any, x: Array, state: Any) -> tuple[Array, Any]:
        h, last = state
        h = ops.tanh(x @ p.W + h @ p.U + last @ p.W + p.b * p.g)
        return h, (h, x)


class CopiedState(Custom):
    """A state that is a copy of another state before the step."""

    def initial_state(self, batch: int, zeros: Callable[..., Array]) -> Any:
        return zeros((batch, self.hidden_size)), zeros((batch, self.hidden_size))

    def step(self, p: Any, z: Array, state: Any) -> tuple[Array, Any]:
        h, last = state
        new = ops.tanh(z + h @ p.U + last * p.g)
        return new, (new, h)


class SwappedStates(Custom):
    """Two states that are exchanged at each step."""

    initial_state = CopiedState.initial_state

    def step(self, p: Any, z: Array, state: Any) -> tuple[Array, Any]:
        a, b = state
        return ops.tanh(z + a @ p.U + b * p.g), (b, a)


class ConstantState(Custom):
    """A state that never changes."""

    initial_state = CopiedState.initial_state

    def step(self, p: Any, z: Array, state: Any) -> tuple[Array, Any]:
        h, fixed = state
        h = ops.tanh(z + h @ p.U + fixed * p.g)
        return h, (h, fixed)


class OutputOfOldState(Custom):
    """An output that is the state before the step."""

    def step(self, p: Any, z: Array, h: Array) -> tuple[Array, Array]:
        return h, ops.tanh(z + h @ p.U + p.g)


class JoinedProducts(Custom):
    """Two products side by side, as the output and as the state."""

    def param_shapes(self) -> dict[str, tuple[int, ...]]:
        half = self.hidden_size // 2
        return {**super().param_shapes(), "U": (self.hidden_size, half), "V": (self.hidden_size, half)}

    def step(self, p: Any, z: Array, h: Array) -> tuple[Array, Array]:
        h = ops.tanh(h + z * p.g)
        return ops.concatenate([h @ p.U, h @ p.V]), ops.concatenate([h @ p.V, h @ p.U])


class ProductsInOutput(JoinedProducts):
    """Two products side by side, as the output only."""

    def step(self, p: Any, z: Array, h: Array) -> tuple[Array, Array]:
        h = ops.tanh(h + z * p.g)
        return ops.concatenate([h @ p.U, h @ p.V]), h


class Masked(Custom):
    """A constant mask of truth values."""

    def step(self, p: Any, z: Array, h: Array) -> tuple[Array, Array]:
        h = ops.tanh(z + h @ p.U) + p.g
        return ops.where(ops.arange(self.hidden_size, h) < 2, h, -h), h


class BiasedOutput(Custom):
    """An output that differs from the state by a bias."""

    def step(self, p: Any, z: Array, h: Array) -> tuple[Array, Array]:
        h = ops.tanh(z + h @ p.U)
        return h + p.g, h


class SumOfInputs(Custom):
    """A state that sums up the projected inputs: its gradient is the gradient of the matrix's product."""

    def step(self, p: Any, z: Array, h: Array) -> tuple[Array, Array]:
        h = z + h
        return h, h


class LastInput(Custom):
    """A state that is a product with the input, and an output that is computed from the state before."""

    def step(self, p: Any, z: Array, h: Array) -> tuple[Array, Array]:
        return ops.tanh(h @ p.U) * p.g, z


class ScalarGate(Custom):
    """A product with a vector: one gate for all units."""

    def step(self, p: Any, z: Array, h: Array) -> tuple[Array, Array]:
        gate = ops.sigmoid(h @ p.g)[:, None]
        h = gate * ops.tanh(z + h @ p.U) + (1 - gate) * h
        return h, h


class LogarithmOfWeights(Custom):
    """A vector that has to be positive."""

    def init_param(self, name: str, shape: tuple[int, ...], rng: Any) -> Any:
        return np.ones(shape) if name == "g" else super().init_param(name, shape, rng)

    def step(self, p: Any, z: Array, h: Array) -> tuple[Array, Array]:
        h = ops.tanh(z + h @ p.U) * ops.log(p.g * p.g)
        return h, h


COMPILED: tuple[type[Custom], ...] = (*Custom.__subclasses__(), ProductsInOutput)
"""Cells that have a compiled form."""


class NoRecurrence(Custom):
    """A layer without a state."""

    def initial_state(self, batch: int, zeros: Callable[..., Array]) -> Any:
        return ()

    def step(self, p: Any, z: Array, state: Any) -> tuple[Array, Any]:
        return ops.tanh(z @ p.U + p.g), ()


class UnusedState(Custom):
    """A state that nothing depends on."""

    def step(self, p: Any, z: Array, h: Array) -> tuple[Array, Array]:
        y = ops.tanh(z @ p.U + p.g)
        return y, y


class UnusedInput(Custom):
    """A layer that ignores its input."""

    def step(self, p: Any, z: Array, h: Array) -> tuple[Array, Array]:
        h = ops.tanh(h @ p.U + p.g)
        return h, h


class ZeroedState(Custom):
    """A state that is 0 after each step."""

    def step(self, p: Any, z: Array, h: Array) -> tuple[Array, Array]:
        return ops.tanh(z + h @ p.U + p.g), h * 0


class Mixing(Custom):
    """The rows of a batch affect each other."""

    def step(self, p: Any, z: Array, h: Array) -> tuple[Array, Array]:
        h = ops.tanh(z + h @ p.U)
        return h, h - h.sum(0) / len(h)


class MixingProject(Custom):
    """The rows of a batch affect each other in ``project``."""

    def project(self, p: Any, x: Array) -> Array:
        z = x @ p.W + p.b
        return z - z.sum(1)[:, None] / z.shape[1]

    def step(self, p: Any, z: Array, h: Array) -> tuple[Array, Array]:
        h = ops.tanh(z + h @ p.U)
        return h, h


class Branching(Custom):
    """A branch on a value."""

    def step(self, p: Any, z: Array, h: Array) -> tuple[Array, Array]:
        h = ops.tanh(z + h @ p.U)
        return (h if float(h[0, 0]) > 0 else -h), h


class NotDifferentiable(Custom):
    """An operator without a derivative in programs."""

    def step(self, p: Any, z: Array, h: Array) -> tuple[Array, Array]:
        h = ops.tanh(ops.cummax(z + h @ p.U))
        return h, h


class IntegerState(Custom):
    """A state of integers."""

    def initial_state(self, batch: int, zeros: Callable[..., Array]) -> Any:
        count = zeros((batch, 1))
        return zeros((batch, self.hidden_size)), (count > 1) * 1

    def step(self, p: Any, z: Array, state: Any) -> tuple[Array, Any]:
        h, count = state
        h = ops.tanh(z + h @ p.U + count)
        return h, (h, count + 1)


class GrowingState(Custom):
    """A state that grows at each step."""

    def initial_state(self, batch: int, zeros: Callable[..., Array]) -> Any:
        return zeros((batch, 1, self.hidden_size))

    def step(self, p: Any, z: Array, h: Array) -> tuple[Array, Array]:
        y = ops.tanh(z + h[:, -1] @ p.U)
        return y, ops.concatenate([h, y[:, None]], 1)


class TorchOnly(Custom):
    """A function of PyTorch."""

    def step(self, p: Any, z: Array, h: Array) -> tuple[Array, Array]:
        h = torch.nn.functional.silu(z + h @ p.U)
        return h, h


class DoublePrecision(Custom):
    """A sum in double precision."""

    def step(self, p: Any, z: Array, h: Array) -> tuple[Array, Array]:
        h = ops.tanh(z + h @ p.U)
        return ops.cumsum(h), h


NOT_COMPILED: dict[type[Custom], str] = {
    NoRecurrence: "a layer without a state",
    UnusedState: "does not depend on the input, or on a part of the state",
    UnusedInput: "does not depend on the input, or on a part of the state",
    Mixing: "the rows of a batch affect each other",
    MixingProject: "the rows of a batch affect each other",
    Branching: "depends on the value of an array",
    NotDifferentiable: "cummax has no derivative",
    IntegerState: "not float32 numbers",
    GrowingState: "a state of floats that keeps its shape",
    TorchOnly: "silu",
    DoublePrecision: "not float32 numbers",
}
"""Cells that have no compiled form, and a part of the reason that is given."""
