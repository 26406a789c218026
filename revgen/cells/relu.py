"""Gated cells with ReLU in the place of tanh, which no fused kernel offers.

GRU    n = relu(x W_n + b_n + r * (h U_n + c_n));   h' = (1 - u) * n + u * h
LSTM   g = relu(x W + h U + b);   c' = f * c + (1 - f) * i * g;   h' = o * relu(c')

Nothing holds the state within ±1 any more: it grows by what the gates let pass times what the candidate's matrix U
stretches. The GRU's state is a mean of itself and the candidate at any gates, so it stays bounded while U shrinks
what it maps. The LSTM's gates may keep all and write all, f = i = 1, and then its memory runs away in training
however small U begins; what is written is therefore weighed with 1 - f, which makes the memory such a mean as well.

U begins as half an orthogonal matrix: it halves what goes around, in all directions alike. (Le, Jaitly & Hinton
2015, *A simple way to initialize recurrent networks of rectified linear units*, begin with the identity, which
keeps it.)
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from revgen.cells.cell import Parameters
from revgen.cells.gru import GRU
from revgen.cells.lstm import LSTM
from revgen.ops import Array, relu, sigmoid, split
from revgen.registry import register_cell


@register_cell("relu-gru")
class ReluGRU(GRU):
    """The GRU with n = relu(x W_n + b_n + r * (h U_n + c_n)) (Cho et al. 2014)."""

    fused_kernel = None  # type: ignore[assignment]
    function = staticmethod(relu)

    def init_param(self, name: str, shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.floating[Any]]:
        weights = super().init_param(name, shape, rng)
        return with_candidate(weights, rng) if name == "U" else weights


@register_cell("relu-lstm")
class ReluLSTM(LSTM):
    """The LSTM with g = relu(x W + h U + b), c' = f * c + (1 - f) * i * g and h' = o * relu(c').

    As c never falls below zero, the second ReLU changes nothing. (Hochreiter & Schmidhuber 1997; writing tied to
    forgetting: Greff et al. 2017, *LSTM: a search space odyssey*.)
    """

    fused_kernel = None  # type: ignore[assignment]

    def step(self, p: Parameters, z: Array, state: Any) -> tuple[Array, Any]:
        h, c = state
        z = z + h @ p.U
        gates = 3 * self.hidden_size
        i, f, o = split(sigmoid(z[..., :gates]), 3)  # each (batch, hidden)
        g = relu(z[..., gates:])
        c = f * c + (1 - f) * i * g
        h = o * c
        return h, (h, c)

    def init_param(self, name: str, shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.floating[Any]]:
        if name == "b":  # write and read from the start
            return np.repeat([1.0, 0.0, 1.0, 0.0], self.hidden_size)
        weights = super().init_param(name, shape, rng)
        return with_candidate(weights, rng) if name == "U" else weights


def with_candidate(weights: NDArray[np.floating[Any]], rng: np.random.Generator) -> NDArray[np.floating[Any]]:
    """U with half an orthogonal matrix as its last part, the candidate's: (hidden, gates)."""
    size = len(weights)
    weights[:, -size:] = np.linalg.qr(rng.normal(size=(size, size)))[0] / 2
    return weights
