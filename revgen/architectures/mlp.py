"""MLP: a feedforward network that predicts the next token from the last n tokens.

    x_t = [E[token_t-n+1] … E[token_t]]
    h_t = relu(x_t W + b), for each layer
    p(token_t+1) = softmax(h_t V' + c)

Before the start of the document, the window is filled with start tokens.
(Bengio et al. 2003, *A neural probabilistic language model*; here with ReLU instead of tanh, and without direct
connections from the embeddings to the output.)
"""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from revgen.architectures.functional_model import FunctionalModel
from revgen.networks.functional import Backend, FunctionalNetwork
from revgen.ops import Array, concatenate, embedding, relu
from revgen.options import check, check_fractions, check_sizes, is_int
from revgen.registry import register_model
from revgen.tokenizers import Tokenizer

MAX_CONTEXT = 1024
"""The largest context. Each token of it is looked up on its own."""
MAX_INPUT_VALUES = 1 << 25
"""The number of inputs of the first layer, for all tokens and texts, that are computed at once."""


@dataclass(frozen=True)
class MLPConfig:
    """The sizes and the dropout rate of an MLP.

    ``context`` is the number of tokens that a prediction depends on. ``dropout`` is the rate for the embeddings and for
    the output of each layer.
    """

    context: int = 8
    embedding_size: int = 64
    hidden_size: int = 512
    num_layers: int = 1
    dropout: float = 0.1

    def __post_init__(self) -> None:
        check_sizes(self, "embedding_size", "hidden_size", "num_layers")
        is_valid = is_int(self.context, 1) and self.context <= MAX_CONTEXT
        check("context", self.context, is_valid, f"a whole number from 1 to {MAX_CONTEXT:,}")
        check_fractions(self, "dropout")


class MLP(FunctionalNetwork):
    """A feedforward network whose state is the last ``context`` - 1 tokens, (batch, context - 1)."""

    def param_shapes(self) -> dict[str, tuple[int, ...]]:
        c = self.config
        shapes: dict[str, tuple[int, ...]] = {"embedding": (self.vocab, c.embedding_size)}
        inputs = c.context * c.embedding_size
        for i in range(c.num_layers):
            shapes |= {f"layers.{i}.W": (inputs, c.hidden_size), f"layers.{i}.b": (c.hidden_size,)}
            inputs = c.hidden_size
        return shapes | {"head": (self.vocab, c.hidden_size), "bias": (self.vocab,)}

    def init_weight(self, name: str, shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[Any]:
        weights = super().init_weight(name, shape, rng)
        if name == "embedding":
            weights *= shape[1] ** 0.5  # to variance 1, as the layers expect
        if name.endswith(".W"):
            weights *= 2**0.5  # ReLU halves the variance (He et al. 2015)
        return weights

    def features(self, p: SimpleNamespace, tokens: Array, state: Any, backend: Backend) -> tuple[Array, Any]:
        """Compute features in parts, which limits the memory for the inputs of a long sequence."""
        size = max(1, MAX_INPUT_VALUES // (tokens.shape[1] * self.config.context * self.config.embedding_size))
        if backend.training or len(tokens) <= size:
            return self.read_part(p, tokens, state, backend)
        features = []
        for begin in range(0, len(tokens), size):
            part, state = self.read_part(p, tokens[begin : begin + size], state, backend)
            features.append(part)
        return concatenate(features, 0), state

    def read_part(self, p: SimpleNamespace, tokens: Array, state: Any, backend: Backend) -> tuple[Array, Any]:
        """Compute ``features`` of one part."""
        n, start = self.config.context, Tokenizer.bos_id
        if state is None:
            state = [tokens[0][:, None] * 0 + start] * (n - 1)
        history = concatenate([*(state if isinstance(state, list) else [state]), tokens.T])  # (batch, n - 1 + time)
        time = len(tokens)
        window = [history[:, n - 1 :]]  # the current tokens, then those one step back, …: each (batch, time)
        for lag in range(1, n):
            is_start = window[-1] == start  # tokens before a start token belong to another document
            previous = history[:, n - 1 - lag : n - 1 - lag + time]
            window.append(previous * ~is_start + start * is_start)
        x = concatenate([embedding(p.embedding, column.T) for column in reversed(window)])
        x = backend.dropout(x)  # (time, batch, n * embedding)
        for layer in p.layers:
            x = backend.dropout(relu(x @ layer.W + layer.b))  # (time, batch, hidden)
        return x, history[:, time:]

    def logits(self, p: SimpleNamespace, features: Array) -> Array:
        return features @ p.head.T + p.bias


@register_model("mlp")
class MLPModel(FunctionalModel):
    """A feedforward network over the last ``context`` tokens (Bengio et al. 2003).

    x = [embedding[token_t-n+1] … embedding[token_t]]
    x = relu(x W + b)          for each layer
    logits = x head' + bias
    """

    Config = MLPConfig
    network_class = MLP
    learning_rate = 3e-3
