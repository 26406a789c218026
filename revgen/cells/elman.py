"""The simple recurrent network, written from scratch."""

from __future__ import annotations

from typing import Any

from revgen.cells.cell import Cell, Parameters
from revgen.ops import Array, tanh
from revgen.registry import register_cell


@register_cell("elman")
class Elman(Cell):
    """h' = tanh(x W + h U + b), and the output is h' (Elman 1990, *Finding structure in time*).

    Read this cell first, and copy it to write your own. It has no fused kernel.
    """

    def param_shapes(self) -> dict[str, tuple[int, ...]]:
        return {
            "W": (self.input_size, self.hidden_size),
            "U": (self.hidden_size, self.hidden_size),
            "b": (self.hidden_size,),
        }

    def project(self, p: Parameters, x: Array) -> Array:
        return x @ p.W + p.b  # (time, batch, hidden)

    def step(self, p: Parameters, z: Array, h: Any) -> tuple[Array, Any]:
        h = tanh(z + h @ p.U)  # (batch, hidden)
        return h, h
