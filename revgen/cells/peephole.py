"""Long short-term memory with peephole connections: its gates read the memory cell."""

from __future__ import annotations

from typing import Any

from revgen.cells.cell import Parameters
from revgen.cells.lstm import LSTM
from revgen.ops import Array, sigmoid, split, tanh
from revgen.registry import register_cell


@register_cell("peephole-lstm")
class PeepholeLSTM(LSTM):
    """An LSTM with peepholes V from the memory cell to the gates, one weight per unit (Gers et al. 2002; Graves 2013).

    a_i, a_f, a_o, a_g = x W + h U + b
    i, f = sigmoid(a_i + V_i * c), sigmoid(a_f + V_f * c)
    c' = f * c + i * tanh(a_g)
    o = sigmoid(a_o + V_o * c')
    h' = o * tanh(c')

    The output gate reads the new memory cell, the other two the old one (Graves 2013, equations 7 to 11).
    """

    fused_kernel = None  # type: ignore[assignment]

    def param_shapes(self) -> dict[str, tuple[int, ...]]:
        return super().param_shapes() | {"V": (3 * self.hidden_size,)}

    def step(self, p: Parameters, z: Array, state: Any) -> tuple[Array, Any]:
        h, c = state
        i, f, o, g = split(z + h @ p.U, 4)  # each (batch, hidden)
        v_i, v_f, v_o = split(p.V, 3)
        i, f = sigmoid(i + v_i * c), sigmoid(f + v_f * c)
        c = f * c + i * tanh(g)
        h = sigmoid(o + v_o * c) * tanh(c)
        return h, (h, c)
