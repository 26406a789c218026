"""The real-gated linear recurrent unit of Griffin: a gated memory that all time steps fill at once.

v = x W                                          what is to be remembered
r, i = sigmoid(v W_r + b_r), sigmoid(v W_i + b_i)
a = sigmoid(L)^(8 r)                             how much is kept: L is learnt for each unit, r for each step
h' = a * h + sqrt(1 - a^2) * i * v               the root keeps the variance of h as it is
y = (h' * gelu(x G)) V

(De et al. 2024, *Griffin: mixing gated linear recurrences with local attention*, arXiv 2402.19427,
equations 1 to 4, and the recurrent block of figure 2.) The block's short convolution before the gates is left
out, and so are the local attention and the perceptron between such blocks; W_r and W_i are full, kept as one R.
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
SPECK = 1e-12
"""Keeps the root's gradient finite where r is 0."""
KEPT = 0.001, 0.999
"""Where sigmoid(L)^8 begins, between these. The paper's 0.9 to 0.999 remembers 10 to 1,000 tokens, which suits its long
sequences; a model of characters learns from the last few first, and L moves too slowly to get there."""


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
        decay = SHARPNESS * softplus(-p.L) * r + SPECK  # -log a
        t = tanh(decay)
        root = (2 * t / (1 + t)) ** 0.5  # of 1 - a^2, as exact where a is almost 1
        return concatenate([exp(-decay), root * i * v, gelu(x @ p.G)])  # (time, batch, 3 * hidden)

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
            low, high = KEPT
            a = rng.uniform(low ** (1 / 3), high ** (1 / 3), shape) ** (3 / SHARPNESS)  # more short memories than long
            return np.log(a) - np.log1p(-a)
        if len(shape) > 1:  # keep the variance of what goes through
            return rng.normal(0, shape[0] ** -0.5, shape)
        return super().init_param(name, shape, rng)
