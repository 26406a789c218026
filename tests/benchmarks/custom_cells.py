"""Three cells that nobody tuned for: the benchmarks compare their speed with the built-in cells."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import revgen
from revgen import ops
from revgen.cells import Cell

Array = ops.Array
NAMES = ("multiplicative-gru", "leaky-memory", "competing-experts")


@revgen.register_cell("multiplicative-gru")
class MultiplicativeGRU(Cell):
    """A GRU whose candidate sees the product of two projections, in the style of Krause et al. 2016.

    m = (x A) * (h B);   r, u = sigmoid(x W + m U + b);   h' = u h + (1 - u) tanh(x V + (r h) C)
    """

    def param_shapes(self) -> dict[str, tuple[int, ...]]:
        x, n = self.input_size, self.hidden_size
        return {"A": (x, 4 * n), "B": (n, n), "U": (n, 2 * n), "C": (n, n), "b": (4 * n,)}

    def project(self, p: Any, x: Array) -> Array:
        return x @ p.A + p.b

    def step(self, p: Any, z: Array, h: Array) -> tuple[Array, Array]:
        n = self.hidden_size
        m = z[..., :n] * (h @ p.B)
        r, u = ops.split(ops.sigmoid(z[..., n : 3 * n] + m @ p.U), 2)
        h = u * h + (1 - u) * ops.tanh(z[..., 3 * n :] + (r * h) @ p.C)
        return h, h


@revgen.register_cell("leaky-memory")
class LeakyMemory(Cell):
    """Memory cells with learned rates of decay, and a normalized, gated output: many elementwise operations.

    a, g, o = x W + h U + b;   m' = d m + (1 - d) tanh(a) softplus(g);   h' = sigmoid(o) gelu(norm(m'))
    """

    def param_shapes(self) -> dict[str, tuple[int, ...]]:
        x, n = self.input_size, self.hidden_size
        return {"W": (x, 3 * n), "U": (n, 3 * n), "b": (3 * n,), "decay": (n,), "scale": (n,), "shift": (n,)}

    def project(self, p: Any, x: Array) -> Array:
        return x @ p.W + p.b

    def step(self, p: Any, z: Array, state: Any) -> tuple[Array, Any]:
        h, m = state
        a, g, o = ops.split(z + h @ p.U, 3)
        d = ops.sigmoid(p.decay)
        m = d * m + (1 - d) * ops.tanh(a) * ops.softplus(g)
        h = ops.sigmoid(o) * ops.gelu(ops.layer_norm(m, p.scale, p.shift))
        return h, (h, m)

    def initial_state(self, batch: int, zeros: Callable[[tuple[int, ...]], Array]) -> Any:
        return zeros((batch, self.hidden_size)), zeros((batch, self.hidden_size))


@revgen.register_cell("competing-experts")
class CompetingExperts(Cell):
    """Four small recurrences whose outputs compete in a softmax.

    e = tanh(x W + h U + b) in four parts;   h' = sum of the parts, weighted by softmax(h' V)
    """

    def param_shapes(self) -> dict[str, tuple[int, ...]]:
        x, n = self.input_size, self.hidden_size
        return {"W": (x, 4 * n), "U": (n, 4 * n), "V": (n, 4), "b": (4 * n,)}

    def project(self, p: Any, x: Array) -> Array:
        return x @ p.W + p.b

    def step(self, p: Any, z: Array, h: Array) -> tuple[Array, Array]:
        weights = ops.softmax(h @ p.V)
        parts = ops.split(ops.tanh(z + h @ p.U), 4)
        new: Array = 0
        for i in range(4):
            new = new + weights[..., i : i + 1] * parts[i]
        h = 0.5 * (h + new)
        return h, h
