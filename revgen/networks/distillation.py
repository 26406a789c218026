"""A network that learns from a text and from the predictions of a teacher for it (Hinton et al. 2015).

    loss = -log p(target) - Σ p_teacher log p

The teacher's predictions are computed once, before training, and kept in a file, as those of a base
(``revgen.networks.residual``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.nn.functional import log_softmax

from revgen.networks.network import Network


class DistilledNetwork(Network):
    """A network in training. Its ids carry the row of the teacher's predictions, ``logprobs`` (rows, vocab)."""

    def __init__(self, network: Network, logprobs: Tensor, eos_id: int) -> None:
        super().__init__({})
        self.network = network
        self.definition = network.definition
        self.logprobs = logprobs
        self.eos_id = eos_id
        self.names = network.names
        self.params = nn.ParameterList(network.params)

    def compile_layers(self, before_compilation: Callable[[], None]) -> str | None:
        return self.network.compile_layers(before_compilation)

    def forward(self, tokens: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        for name in ("generator", "batch_slice", "bf16_matmul", "is_validating"):
            setattr(self.network, name, getattr(self, name))
        vocab = self.logprobs.shape[1]
        rows, tokens = tokens // vocab, tokens % vocab
        logits, state = self.network(tokens, state)
        self.penalty = self.network.penalty
        if self.training:
            is_predicted = tokens != self.eos_id  # nothing follows the end of a document
            expected = (self.logprobs[rows].float().exp() * log_softmax(logits.float(), -1)).sum(-1)
            self.penalty = self.penalty - (expected * is_predicted).sum() / is_predicted.sum().clamp(min=1)
        return logits, state
