"""Long short-term memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from revgen.cells.cell import Cell, Parameters
from revgen.ops import Array, concatenate, sigmoid, split, tanh
from revgen.registry import register_cell


@register_cell("lstm")
class LSTM(Cell):
    """A memory cell c with input, forget and output gates (Hochreiter & Schmidhuber 1997; Gers et al. 2000).

    i, f, o = sigmoid(x W + h U + b)    the first three quarters
    g = tanh(x W + h U + b)             the last quarter
    c' = f * c + i * g
    h' = o * tanh(c')
    """

    fused_kernel = "lstm"

    def param_shapes(self) -> dict[str, tuple[int, ...]]:
        gates = 4 * self.hidden_size
        return {"W": (self.input_size, gates), "U": (self.hidden_size, gates), "b": (gates,)}

    def project(self, p: Parameters, x: Array) -> Array:
        return x @ p.W + p.b  # (time, batch, 4 * hidden)

    def step(self, p: Parameters, z: Array, state: Any) -> tuple[Array, Any]:
        h, c = state
        z = z + h @ p.U
        gates = 3 * self.hidden_size
        i, f, o = split(sigmoid(z[..., :gates]), 3)  # each (batch, hidden)
        g = tanh(z[..., gates:])
        c = f * c + i * g
        h = o * tanh(c)
        return h, (h, c)

    def fused_kernel_weights(self, p: Parameters) -> Sequence[Array]:
        def reorder(w: Array) -> Array:  # to the order of the kernel: i, f, g, o
            i, f, o, g = split(w, 4)
            return concatenate([i, f, g, o])

        b = reorder(p.b)
        return reorder(p.W).t(), reorder(p.U).t(), b, b.new_zeros(b.shape)

    def initial_state(self, batch: int, zeros: Callable[[tuple[int, ...]], Array]) -> Any:
        shape = (batch, self.hidden_size)
        return zeros(shape), zeros(shape)

    def init_param(self, name: str, shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.floating[Any]]:
        weights = super().init_param(name, shape, rng)
        if name == "b":  # forget gates start open (Jozefowicz et al. 2015)
            weights[self.hidden_size : 2 * self.hidden_size] = 1
        return weights
