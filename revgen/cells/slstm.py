"""The sLSTM of xLSTM: a scalar memory with exponential gates, normalized to a weighted mean.

    z, o = tanh(x W_z + h U_z + b_z), sigmoid(x W_o + h U_o + b_o)
    i, f = exp(x W_i + h U_i + b_i), sigmoid(x W_f + h U_f + b_f)
    c' = f * c + i * z
    n' = f * n + i          the sum of the weights
    h' = o * c' / n'        o times a weighted mean of z, so that |h'| < 1

The exponential i can overflow, so c and n are stored divided by exp(m), where m is the largest log-weight so far:

    m' = max(log f + m, log i);   i and f above become exp(log i - m') and exp(log f + m - m')

One of these two is 1 at each step, so n' is never below 1.
(Beck et al. 2024, *xLSTM: extended long short-term memory*, arXiv 2405.04517, equations 8 to 17.)
There is one head, so U mixes the whole memory. The paper's convolution and the projections around the cell are left
out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from revgen.cells.cell import Cell, Parameters
from revgen.ops import Array, exp, maximum, sigmoid, softplus, split, tanh
from revgen.registry import register_cell

INITIAL_LOG_WEIGHT = -1e30
"""The log-weight m before the first step; finite, because the difference of two infinities is NaN."""


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
        log_f = m - softplus(-f)  # the logarithm of the memory's weight, f exp(m)
        m = maximum(log_f, log_i)
        i, f = exp(log_i - m), exp(log_f - m)
        c = f * c + i * tanh(z)
        n = f * n + i
        h = sigmoid(o) * c / n
        return h, (h, c, n, m)

    def initial_state(self, batch: int, zeros: Callable[[tuple[int, ...]], Array]) -> Any:
        shape = (batch, self.hidden_size)
        return zeros(shape), zeros(shape), zeros(shape), zeros(shape) + INITIAL_LOG_WEIGHT

    def init_param(self, name: str, shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.floating[Any]]:
        weights = super().init_param(name, shape, rng)
        if name == "b":  # forget gates start open (Jozefowicz et al. 2015)
            weights[-self.hidden_size :] = 1
        return weights
