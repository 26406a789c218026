"""x"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from revgen.cells.cell import Cell, Parameters
from revgen.ops import Array, concatenate, linear_scan, relu, sigmoid, softplus, split
from revgen.registry import register_cell

MODE = "lin"
BIAS = 0.0
SCALE = 1.0
OUT = 0

def g(x):
    return relu(x) + sigmoid(-relu(-x)) if MODE == "g" else x

@register_cell("mingru")
class MinGRU(Cell):

    gates = 1

    def shapes(self) -> dict[str, tuple[int, ...]]:
        parts = (1 + self.gates) * self.inner
        s = {"W": (self.input_size, parts), "b": (parts,)}
        if OUT: s["V"] = (self.inner, self.hidden_size)
        return s

    @property
    def inner(self): return self.hidden_size * max(OUT, 1)

    def project(self, p: Parameters, x: Array) -> Array:
        u, n = split(x @ p.W + p.b, 2)
        a, b = sigmoid(u), sigmoid(-u)
        return concatenate([a, b * g(n)])

    def step(self, p: Parameters, z: Array, h: Any) -> tuple[Array, Any]:
        a, b = split(z, 2)
        h = a * h + b
        return (h@p.V if OUT else h), h

    def sequence(self, p: Parameters, z: Array, h: Any) -> tuple[Array, Any]:
        if len(z) == 1: return super().sequence(p, z, h)
        hs = linear_scan(*split(z, 2), h)
        return (hs@p.V if OUT else hs), hs[-1]

    def initial_state(self, batch, zeros):
        return zeros((batch, self.inner))

    def initialize(self, name: str, shape: tuple[int, ...], random: np.random.Generator) -> NDArray[np.floating[Any]]:
        weights = super().initialize(name, shape, random)*SCALE
        if name == "b":
            weights[: self.inner] = BIAS if not isinstance(BIAS, tuple) else np.linspace(*BIAS, self.inner)
        return weights


@register_cell("minlstm")
class MinLSTM(MinGRU):
    gates = 2

    def project(self, p: Parameters, x: Array) -> Array:
        f, i, n = split(x @ p.W + p.b, 3)
        u = softplus(-i) - softplus(-f)
        a, b = sigmoid(u), sigmoid(-u)
        return concatenate([a, b * g(n)])
