"""The gated recurrent unit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from revgen.cells.cell import Cell, Parameters
from revgen.ops import Array, sigmoid, split, tanh
from revgen.registry import register_cell


@register_cell("gru")
class GRU(Cell):
    """Two gates: r resets the state for the candidate n, and u mixes state and candidate (Cho et al. 2014).

    r, u = sigmoid(x W_r + h U_r + b_r + c_r), sigmoid(x W_u + h U_u + b_u + c_u)
    n = tanh(x W_n + b_n + r * (h U_n + c_n))
    h' = (1 - u) * n + u * h

    The matrices W and U hold the parts for r, u and n side by side. The reset gate is applied after the matrix product,
    as in cuDNN and PyTorch, not before it as in the paper.
    """

    fused_kernel = "gru"
    activation = staticmethod(tanh)

    def param_shapes(self) -> dict[str, tuple[int, ...]]:
        gates = 3 * self.hidden_size
        return {"W": (self.input_size, gates), "U": (self.hidden_size, gates), "b": (gates,), "c": (gates,)}

    def project(self, p: Parameters, x: Array) -> Array:
        return x @ p.W + p.b  # (time, batch, 3 * hidden)

    def step(self, p: Parameters, z: Array, h: Any) -> tuple[Array, Any]:
        xr, xu, xn = split(z, 3)
        hr, hu, hn = split(h @ p.U + p.c, 3)  # each (batch, hidden)
        r, u = sigmoid(xr + hr), sigmoid(xu + hu)
        n = self.activation(xn + r * hn)
        h = n + u * (h - n)
        return h, h

    def fused_kernel_weights(self, p: Parameters) -> Sequence[Array]:
        return p.W.t(), p.U.t(), p.b, p.c
