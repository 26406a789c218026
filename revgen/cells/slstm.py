"""The LSTM of xLSTM with a scalar memory: exponential gates over a running weighted mean.

z, o = tanh(x W_z + h U_z + b_z), sigmoid(x W_o + h U_o + b_o)
i, f = exp(x W_i + h U_i + b_i), sigmoid(x W_f + h U_f + b_f)
c' = f * c + i * z
n' = f * n + i                                   the sum of the weights
h' = o * c' / n'                                 their mean of z, so that |h'| < 1

As i may be anything from 0 to beyond float32, c and n are kept divided by exp(m), where m is the largest
logarithm among the weights so far:

m' = max(log f + m, log i);   i and f above become exp(log i - m') and exp(log f + m - m')

One of these two is 1 at each step, so that n' never falls below 1.
(Beck et al. 2024, *xLSTM: extended long short-term memory*, arXiv 2405.04517, equations 8 to 17.)
One head, so U mixes all of the memory; the paper's convolution and the projections around the cell are left out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from revgen.cells.cell import Cell, Parameters
from revgen.ops import Array, exp, maximum, sigmoid, softplus, split, tanh
from revgen.registry import register_cell

EMPTY = 1e30
"""So far below zero lies the logarithm of the weights before the first step; a finite number, as the difference
of two infinite ones is none."""


@register_cell("slstm")
class SLSTM(Cell):
    """h' = o * c' / n' with c' = f * c + i * z, n' = f * n + i and i = exp(…) (Beck et al. 2024)."""

    def param_shapes(self) -> dict[str, tuple[int, ...]]:
        gates = 4 * self.hidden_size
        return {"W": (self.input_size, gates), "U": (self.hidden_size, gates), "b": (gates,)}

    def project(self, p: Parameters, x: Array) -> Array:
        return x @ p.W + p.b  # (time, batch, 4 * hidden)

    def step(self, p: Parameters, z: Array, state: Any) -> tuple[Array, Any]:
        h, c, n, m = state
        z, o, log_i, f = split(z + h @ p.U, 4)  # each (batch, hidden)
        log_f = m - softplus(-f)  # of the memory's weight, f exp(m)
        m = maximum(log_f, log_i)
        i, f = exp(log_i - m), exp(log_f - m)
        c = f * c + i * tanh(z)
        n = f * n + i
        h = sigmoid(o) * c / n
        return h, (h, c, n, m)

    def initial_state(self, batch: int, zeros: Callable[[tuple[int, ...]], Array]) -> Any:
        shape = (batch, self.hidden_size)
        return zeros(shape), zeros(shape), zeros(shape), zeros(shape) - EMPTY

    def init_param(self, name: str, shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.floating[Any]]:
        weights = super().init_param(name, shape, rng)
        if name == "b":  # remember from the start (Jozefowicz et al. 2015)
            weights[-self.hidden_size :] = 1
        return weights
