"""The minimal GRU and LSTM: their gates depend only on the input, so that all time steps can be computed at once.

    h' = u * h + (1 - u) * n      a running mean of
    n = x W_n + b_n               the candidate, with
    u = sigmoid(x W_u + b_u)      in the minGRU
    u = f / (f + i)               in the minLSTM, where f, i = sigmoid(x W_f + b_f), sigmoid(x W_i + b_i)
    y = relu(h' V + c) Y          the layer's output

As h' is linear in h, a parallel scan computes h for a whole sequence in log2(time) rounds. The perceptron after the
recurrence, as in the paper's blocks, makes up for the weaker recurrence; the convolution of these blocks is left out.
The candidate is linear, as in the paper's main text. The appendix uses a positive candidate to compute in logarithms,
which a scan of means does not need.
(Feng et al. 2024, *Were RNNs all we needed?*, arXiv 2410.01201, sections 3.1 and 3.2.)
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from revgen.cells.cell import Cell, Parameters
from revgen.errors import OptionError
from revgen.ops import Array, concatenate, linear_scan, relu, sigmoid, softplus, split
from revgen.options import safe_repr
from revgen.registry import register_cell


@register_cell("mingru")
class MinGRU(Cell):
    """h' = u * h + (1 - u) * (x W_n + b_n) with u = sigmoid(x W_u + b_u), and y = relu(h' V + c) Y (Feng et al. 2024).

    W holds W_u and W_n side by side, and b the two biases. ``expansion`` is the width of the perceptron, as a multiple
    of ``hidden_size``.
    """

    expansion: int = 2
    gates = 1

    def __init__(self, input_size: int, hidden_size: int, **options: Any) -> None:
        super().__init__(input_size, hidden_size, **options)
        if self.expansion < 1 or self.expansion is True:
            raise OptionError(f"expansion must be a whole number of at least 1, not {safe_repr(self.expansion)}")

    def param_shapes(self) -> dict[str, tuple[int, ...]]:
        gates, width = (self.gates + 1) * self.hidden_size, self.expansion * self.hidden_size
        return {
            "W": (self.input_size, gates),
            "b": (gates,),
            "V": (self.hidden_size, width),
            "c": (width,),
            "Y": (width, self.hidden_size),
        }

    def project(self, p: Parameters, x: Array) -> Array:
        u, n = split(x @ p.W + p.b, 2)
        return decay_and_update(u, n)  # (time, batch, 2 * hidden)

    def step(self, p: Parameters, z: Array, h: Any) -> tuple[Array, Any]:
        decay, update = split(z, 2)  # each (batch, hidden)
        h = decay * h + update
        return self.output(p, h), h

    def sequence(self, p: Parameters, z: Array, h: Any) -> tuple[Array, Any]:
        if len(z) == 1:
            return super().sequence(p, z, h)
        decay, update = split(z, 2)  # each (time, batch, hidden)
        h = linear_scan(decay, update, h)
        return self.output(p, h), h[-1]

    def init_param(self, name: str, shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.floating[Any]]:
        if len(shape) > 1:  # so that outputs have the variance of the inputs
            return rng.normal(0, shape[0] ** -0.5, shape)
        return super().init_param(name, shape, rng)

    def output(self, p: Parameters, h: Array) -> Array:
        """Compute the layer's output: the perceptron, applied to the state."""
        return relu(h @ p.V + p.c) @ p.Y


@register_cell("minlstm")
class MinLSTM(MinGRU):
    """h' = u * h + (1 - u) * (x W_n + b_n) with u = f / (f + i), and y = relu(h' V + c) Y (Feng et al. 2024).

    f, i = sigmoid(x W_f + b_f), sigmoid(x W_i + b_i). W holds W_f, W_i and W_n side by side. ``expansion`` is the width
    of the perceptron, as a multiple of ``hidden_size``.
    """

    gates = 2

    def project(self, p: Parameters, x: Array) -> Array:
        f, i, n = split(x @ p.W + p.b, 3)
        return decay_and_update(softplus(-i) - softplus(-f), n)  # log f - log i, as f / (f + i) can be 0 / 0


def decay_and_update(u: Array, n: Array) -> Array:
    """Return the decay sigmoid(u) and the update (1 - sigmoid(u)) n, side by side."""
    return concatenate([sigmoid(u), sigmoid(-u) * n])
