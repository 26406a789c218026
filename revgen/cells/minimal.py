"""The minimal GRU and LSTM: gates that look at the input alone, so that all time steps are computed at once.

h' = u * h + (1 - u) * n                         a running mean, with
n = x W_n + b_n                                  the candidate, and
u = sigmoid(x W_u + b_u)                         minGRU: what is kept
u = f / (f + i)                                  minLSTM: f, i = sigmoid(x W_f + b_f), sigmoid(x W_i + b_i)
y = relu(h' V + c) Y                             the layer's output

As h' is linear in h, a parallel scan computes h for a whole sequence in log2(time) rounds. What makes up for the
weaker recurrence is the multilayer perceptron behind it, which the paper's blocks have as well; their convolution
is left out. The candidate is linear, as in the paper's main text: its positive one of the appendix is for
computing in logarithms, which a scan of means has no need of.
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
    """h' = u * h + (1 - u) * (x W_n + b_n) with u = sigmoid(x W_u + b_u) (Feng et al. 2024).

    ``expansion`` is the width of the perceptron behind the recurrence, in hidden sizes.
    """

    expansion: int = 2
    gates = 1

    def __init__(self, input_size: int, hidden_size: int, **options: Any) -> None:
        super().__init__(input_size, hidden_size, **options)
        if self.expansion < 1 or self.expansion is True:
            raise OptionError(f"expansion must be a whole number of at least 1, not {safe_repr(self.expansion)}")

    def param_shapes(self) -> dict[str, tuple[int, ...]]:
        parts, wide = (self.gates + 1) * self.hidden_size, self.expansion * self.hidden_size
        return {
            "W": (self.input_size, parts),
            "b": (parts,),
            "V": (self.hidden_size, wide),
            "c": (wide,),
            "Y": (wide, self.hidden_size),
        }

    def project(self, p: Parameters, x: Array) -> Array:
        u, n = split(x @ p.W + p.b, 2)
        return mean(u, n)  # (time, batch, 2 * hidden)

    def step(self, p: Parameters, z: Array, h: Any) -> tuple[Array, Any]:
        kept, new = split(z, 2)  # each (batch, hidden)
        h = kept * h + new
        return self.output(p, h), h

    def sequence(self, p: Parameters, z: Array, h: Any) -> tuple[Array, Any]:
        if len(z) == 1:
            return super().sequence(p, z, h)
        kept, new = split(z, 2)  # each (time, batch, hidden)
        h = linear_scan(kept, new, h)
        return self.output(p, h), h[-1]

    def init_param(self, name: str, shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.floating[Any]]:
        if len(shape) > 1:  # keep the variance of what goes through
            return rng.normal(0, shape[0] ** -0.5, shape)
        return super().init_param(name, shape, rng)

    def output(self, p: Parameters, h: Array) -> Array:
        """The multilayer perceptron behind the recurrence."""
        return relu(h @ p.V + p.c) @ p.Y


@register_cell("minlstm")
class MinLSTM(MinGRU):
    """h' = u * h + (1 - u) * (x W_n + b_n) with u = f / (f + i), the gates of an LSTM (Feng et al. 2024).

    ``expansion`` is the width of the perceptron behind the recurrence, in hidden sizes.
    """

    gates = 2

    def project(self, p: Parameters, x: Array) -> Array:
        f, i, n = split(x @ p.W + p.b, 3)
        return mean(softplus(-i) - softplus(-f), n)  # log f - log i; f / (f + i) itself is 0 / 0 where both vanish


def mean(u: Array, n: Array) -> Array:
    """What is kept of the state and what comes to it, where sigmoid(u) weighs the state against n."""
    return concatenate([sigmoid(u), sigmoid(-u) * n])
