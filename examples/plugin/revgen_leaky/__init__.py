"""A plug-in with one cell: after ``pip install`` of this package, revgen has the model ``leaky-char``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import revgen
from revgen.ops import sigmoid, tanh


@revgen.register_cell("leaky")
class Leaky(revgen.Cell):
    """A leaky integrator: c' = d c + (1 - d) x W and h' = tanh(c' + h U), with a trained decay d = sigmoid(a)."""

    def param_shapes(self) -> dict[str, tuple[int, ...]]:
        return {
            "W": (self.input_size, self.hidden_size),
            "U": (self.hidden_size, self.hidden_size),
            "a": (self.hidden_size,),
        }

    def project(self, p: Any, x: Any) -> Any:
        return x @ p.W

    def step(self, p: Any, z: Any, state: Any) -> tuple[Any, Any]:
        h, c = state
        decay = sigmoid(p.a)
        c = decay * c + (1 - decay) * z
        h = tanh(c + h @ p.U)
        return h, (h, c)

    def initial_state(self, batch: int, zeros: Callable[[tuple[int, ...]], Any]) -> Any:
        return zeros((batch, self.hidden_size)), zeros((batch, self.hidden_size))
