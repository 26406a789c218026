"""A network that learns from a text and from the predictions of a teacher for it (Hinton et al. 2015).

    loss = -log p(target) - Σ p_teacher log p

The teacher's predictions are computed once, before training, and kept in a file, as those of a base
(``revgen.networks.residual``).
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.nn.functional import log_softmax

from revgen.networks.network import Network
from revgen.networks.residual import NumberedNetwork


class DistilledNetwork(NumberedNetwork):
    """A network that learns the predictions of a teacher, ``logprobs`` (rows, vocab), in addition to the text."""

    def __init__(self, network: Network, logprobs: Tensor, eos_id: int) -> None:
        super().__init__(network, logprobs, {})
        self.eos_id = eos_id

    def forward(self, tokens: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        logits, state, rows, tokens = self.run_network(tokens, state)
        if self.training:
            is_predicted = tokens != self.eos_id  # nothing follows the end of a document
            expected = (self.logprobs[rows].float().exp() * log_softmax(logits.float(), -1)).sum(-1)
            self.penalty = self.penalty - (expected * is_predicted).sum() / is_predicted.sum().clamp(min=1)
        return logits, state
