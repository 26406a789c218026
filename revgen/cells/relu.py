"""Gated cells with ReLU in the place of tanh, which no fused kernel offers.

GRU   n = relu(x W_n + b_n + r * (h U_n + c_n))
LSTM  g = relu(x W + h U + b), the last quarter;   h' = o * relu(c')

What tanh holds within ±1 may now grow: at each step by as much as the candidate's matrix U stretches the
state, times what the gates let pass. That matrix therefore begins as half the identity, so that what goes
around halves at the most open gates, and every unit of the state begins as a memory of its own.
(ReLU and the identity in recurrent networks: Le, Jaitly & Hinton 2015, *A simple way to initialize
recurrent networks of rectified linear units*.)
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from revgen.cells.gru import GRU
from revgen.cells.lstm import LSTM
from revgen.ops import relu
from revgen.registry import register_cell


@register_cell("relu-gru")
class ReluGRU(GRU):
    """The GRU with n = relu(x W_n + b_n + r * (h U_n + c_n)) (Cho et al. 2014)."""

    kernel = None
    function = staticmethod(relu)

    def initialize(self, name: str, shape: tuple[int, ...], random: np.random.Generator) -> NDArray[np.floating[Any]]:
        weights = super().initialize(name, shape, random)
        if name == "U":
            weights[:, -self.hidden_size :] = np.eye(self.hidden_size) / 2
        return weights


@register_cell("relu-lstm")
class ReluLSTM(LSTM):
    """The LSTM with g = relu(x W + h U + b) and h' = o * relu(c') (Hochreiter & Schmidhuber 1997)."""

    kernel = None
    function = staticmethod(relu)

    def initialize(self, name: str, shape: tuple[int, ...], random: np.random.Generator) -> NDArray[np.floating[Any]]:
        weights = super().initialize(name, shape, random)
        if name == "U":
            weights[:, -self.hidden_size :] = np.eye(self.hidden_size) / 2
        return weights
