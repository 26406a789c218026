"""Gated cells with ReLU instead of tanh, for which there is no fused kernel.

    GRU    n = relu(x W_n + b_n + r * (h U_n + c_n));   h' = (1 - u) * n + u * h
    LSTM   g = relu(x W + h U + b);   c' = f * c + (1 - f) * i * g;   h' = o * relu(c')

With ReLU, the state can grow from step to step. The GRU's new state is a weighted mean of the old state and the
candidate, and stays bounded as long as U makes vectors shorter. A plain LSTM with f = i = 1 would add the candidate to
its memory at each step and diverge in training, however small U is initially. So the candidate has the weight 1 - f
here, which makes the memory a weighted mean too.

The candidate's part of U starts as half an orthogonal matrix, which halves the length of every vector. (Le, Jaitly &
Hinton 2015, *A simple way to initialize recurrent networks of rectified linear units*, start with the identity.)
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
    """The GRU with the candidate n = relu(x W_n + b_n + r * (h U_n + c_n)) (Cho et al. 2014)."""

    fused_kernel = None  # type: ignore[assignment]
    activation = staticmethod(relu)

    def init_param(self, name: str, shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.floating[Any]]:
        weights = super().init_param(name, shape, rng)
        return half_orthogonal(weights, rng) if name == "U" else weights


@register_cell("relu-lstm")
class ReluLSTM(LSTM):
    """The LSTM with g = relu(x W + h U + b), c' = f * c + (1 - f) * i * g and h' = o * relu(c').

    As c is never below 0, the second ReLU changes nothing. (Hochreiter & Schmidhuber 1997; input gate coupled to the
    forget gate: Greff et al. 2017, *LSTM: a search space odyssey*.)
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
        if name == "b":  # input and output gates start open
            return np.repeat([1.0, 0.0, 1.0, 0.0], self.hidden_size)
        weights = super().init_param(name, shape, rng)
        return half_orthogonal(weights, rng) if name == "U" else weights


def half_orthogonal(weights: NDArray[np.floating[Any]], rng: np.random.Generator) -> NDArray[np.floating[Any]]:
    """Return U (hidden, gates) with half an orthogonal matrix in its last part, which computes the candidate."""
    size = len(weights)
    weights[:, -size:] = np.linalg.qr(rng.normal(size=(size, size)))[0] / 2
    return weights
