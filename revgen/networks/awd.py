"""The AWD-LSTM in PyTorch: its dropout and its activation penalties (Merity et al. 2018)."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from torch import Tensor

from revgen.networks.functional import Backend
from revgen.networks.network import Penalty, dropout_mask
from revgen.networks.recurrent import RecurrentModule


class AWDModule(RecurrentModule):
    """A recurrent network with dropout of weights, words and channels; each mask is sampled once per sequence."""

    def features_with(
        self, p: SimpleNamespace, tokens: Tensor, state: Any, backend: Backend | None = None
    ) -> tuple[Tensor, Any]:
        config = self.stack.config
        if self.training:
            for layer in p.layers:  # DropConnect (Wan et al. 2013)
                layer.U = layer.U * dropout_mask(layer.U, layer.U.shape, config.weight_drop, self.generator)
            p.head = p.embedding  # the output keeps all words
            words = len(p.embedding), 1
            p.embedding = p.embedding * dropout_mask(p.embedding, words, config.embedding_dropout, self.generator)
        return super().features_with(p, tokens, state, backend)

    def dropout(self, x: Tensor, index: int = 0) -> Tensor:
        y = super().dropout(x, index)
        if self.training and index == len(self.stack.cells):
            self.penalty = self.activation_penalty(y) + self.change_penalty(x)
        return y

    def can_compile_dropout(self, index: int) -> bool:
        return index < len(self.stack.cells)  # the penalties need the output before its dropout

    def dropout_rate(self, index: int) -> float:
        config = self.stack.config
        if index == 0:
            return float(config.input_dropout)
        return float(config.dropout if index == len(self.stack.cells) else config.hidden_dropout)

    def activation_penalty(self, y: Tensor) -> Penalty:
        """Return the penalty on large outputs, after dropout (activation regularization)."""
        alpha: float = self.stack.config.alpha
        return alpha * y.square().mean() if alpha else 0.0

    def change_penalty(self, x: Tensor) -> Penalty:
        """Return the penalty on changes from one time step to the next (temporal activation regularization)."""
        beta: float = self.stack.config.beta
        return beta * (x[1:] - x[:-1]).square().mean() if beta and len(x) > 1 else 0.0
