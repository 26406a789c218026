"""The real-gated linear recurrent unit of Griffin: a gated linear recurrence, computed for all time steps at once.

    v = x W                                              the input of the recurrence
    r, i = sigmoid(v W_r + b_r), sigmoid(v W_i + b_i)    the recurrence gate and the input gate
    a = sigmoid(L)^(8 r)                                 the decay: L is trained for each unit, r depends on the step
    h' = a * h + sqrt(1 - a^2) * i * v                   the root keeps the variance of h constant
    y = (h' * gelu(x G)) V

(De et al. 2024, *Griffin: mixing gated linear recurrences with local attention*, arXiv 2402.19427, equations 1 to 4,
and the recurrent block of figure 2.) The block's short convolution before the gates, the local attention and the
perceptron between blocks are left out. W_r and W_i are full matrices, stored side by side as R.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from revgen.cells.cell import Cell, Parameters
from revgen.ops import Array, concatenate, exp, gelu, linear_scan, sigmoid, softplus, split, tanh
from revgen.registry import register_cell

SHARPNESS = 8.0
"""The exponent c of the paper."""
MIN_DECAY_RATE = 1e-12
"""Added to the decay rate, so that the gradient of the root is finite if r is 0."""
INITIAL_DECAY_RANGE = 0.001, 0.999
"""The initial range of sigmoid(L)^8. The paper's range of 0.9 to 0.999, a memory of 10 to 1,000 tokens, suits long
sequences. A character model first learns from the last few characters. In the paper's range its memory would be too
long for this, and L changes slowly."""


@register_cell("rglru")
class RGLRU(Cell):
    """h' = a * h + sqrt(1 - a^2) * i * v with gates of the input alone, and y = (h' * gelu(x G)) V (De et al. 2024)."""

    def param_shapes(self) -> dict[str, tuple[int, ...]]:
        hidden = self.hidden_size
        return {
            "W": (self.input_size, hidden),
            "G": (self.input_size, hidden),
            "R": (hidden, 2 * hidden),
            "b": (2 * hidden,),
            "L": (hidden,),
            "V": (hidden, hidden),
        }

    def project(self, p: Parameters, x: Array) -> Array:
        v = x @ p.W
        r, i = split(sigmoid(v @ p.R + p.b), 2)
        decay_rate = SHARPNESS * softplus(-p.L) * r + MIN_DECAY_RATE  # -log a
        t = tanh(decay_rate)
        root = (2 * t / (1 + t)) ** 0.5  # sqrt(1 - a^2), also exact if a is almost 1
        return concatenate([exp(-decay_rate), root * i * v, gelu(x @ p.G)])  # (time, batch, 3 * hidden)

    def step(self, p: Parameters, z: Array, h: Any) -> tuple[Array, Any]:
        a, b, gate = split(z, 3)  # each (batch, hidden)
        h = a * h + b
        return (h * gate) @ p.V, h

    def sequence(self, p: Parameters, z: Array, h: Any) -> tuple[Array, Any]:
        if len(z) == 1:
            return super().sequence(p, z, h)
        a, b, gate = split(z, 3)  # each (time, batch, hidden)
        h = linear_scan(a, b, h)
        return (h * gate) @ p.V, h[-1]

    def init_param(self, name: str, shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.floating[Any]]:
        if name == "L":
            low, high = INITIAL_DECAY_RANGE
            a = rng.uniform(low ** (1 / 3), high ** (1 / 3), shape) ** (3 / SHARPNESS)  # most memories are short
            return np.log(a) - np.log1p(-a)
        if len(shape) > 1:  # so that outputs have the variance of the inputs
            return rng.normal(0, shape[0] ** -0.5, shape)
        return super().init_param(name, shape, rng)
