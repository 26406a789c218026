"""A network that is trained on top of the predictions of another model: a *residual* of this model.

    log p = log softmax(a log p_base + b logits)

The log-probabilities of the base are computed once, before training, and kept in a file that is mapped into memory. The
ids of the training text carry the row of this file, as ids can carry labels: ``id = token + row * vocab``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from revgen.corpus.tokens import Tokens
from revgen.model import Weights
from revgen.networks.network import Network


def number_tokens(tokens: Tokens, first_row: int, vocab: int) -> Tokens:
    """Return the documents with ids that carry consecutive rows: ``token + row * vocab``."""
    documents = [*tokens.documents()]
    ids = np.concatenate(documents).astype(np.int64)
    numbered = (ids + (first_row + np.arange(len(ids))) * vocab).astype(np.uint64)
    ends = np.array([*accumulate(map(len, documents))])
    return replace(
        tokens, ids=numbered, spans=np.stack([np.append(0, ends[:-1]), ends], 1), vocab=vocab, drops_labels=False
    )


class NumberedNetwork(Network):
    """The base of networks in training whose ids carry rows of the predictions of another model.

    ``logprobs`` (rows, vocab) are these predictions, and ``params`` are trained together with the network.
    """

    def __init__(self, network: Network, logprobs: Tensor, params: Weights) -> None:
        super().__init__(params)
        self.network = network
        self.definition = network.definition
        self.logprobs = logprobs
        self.names = [*network.names, *self.names]
        self.params = nn.ParameterList([*network.params, *self.params])

    def compile_layers(self, before_compilation: Callable[[], None]) -> str | None:
        return self.network.compile_layers(before_compilation)

    def run_network(self, ids: Tensor, state: Any) -> tuple[Tensor, Any, Tensor, Tensor]:
        """Return the logits of the network and its new state, and the rows and the tokens that the ids carry."""
        for name in ("generator", "batch_slice", "bf16_matmul", "is_validating"):
            setattr(self.network, name, getattr(self, name))
        vocab = self.logprobs.shape[1]
        rows, tokens = ids // vocab, ids % vocab
        logits, state = self.network(tokens, state)
        self.penalty = self.network.penalty
        return logits, state, rows, tokens


class ResidualNetwork(NumberedNetwork):
    """A network on top of the predictions of a base, and the weight ``exponents`` with a and b."""

    def __init__(self, network: Network, exponents: NDArray[Any], logprobs: Tensor) -> None:
        super().__init__(network, logprobs, {"exponents": exponents})

    def to_numpy(self) -> Weights:
        """Return a copy of the weights, by their names in the residual model."""
        arrays = super().to_numpy()
        return {name if name == "exponents" else f"1.{name}": array for name, array in arrays.items()}

    def forward(self, tokens: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        logits, state, rows, _ = self.run_network(tokens, state)
        a, b = self.params[-1]
        return a * self.logprobs[rows].float() + b * logits.float(), state
