"""The simple recurrent network with tanh or ReLU, and a fused kernel."""

from __future__ import annotations

from typing import Any

from revgen import ops
from revgen.cells.cell import Parameters
from revgen.cells.elman import Elman
from revgen.errors import OptionError
from revgen.ops import Array
from revgen.options import safe_repr
from revgen.registry import register_cell


@register_cell("rnn")
class RNN(Elman):
    """h' = f(x W + h U + b), where f is tanh or ReLU (Elman 1990; ReLU: Le, Jaitly & Hinton 2015)."""

    nonlinearity: str = "tanh"

    def __init__(self, input_size: int, hidden_size: int, **options: Any) -> None:
        super().__init__(input_size, hidden_size, **options)
        if self.nonlinearity not in ("tanh", "relu"):
            raise OptionError(f'nonlinearity must be "tanh" or "relu", not {safe_repr(self.nonlinearity)}')
        self.activation = ops.tanh if self.nonlinearity == "tanh" else ops.relu
        self.fused_kernel = f"rnn_{self.nonlinearity}"  # type: ignore[misc]

    def step(self, p: Parameters, z: Array, h: Any) -> tuple[Array, Any]:
        h = self.activation(z + h @ p.U)  # (batch, hidden)
        return h, h
