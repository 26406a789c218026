"""A feedforward network over the last n tokens: what lies further back is not seen.

    x_t = [E[token_t-n+1] … E[token_t]]
    h_t = relu(x_t W + b), for each layer
    p(token_t+1) = softmax(h_t V' + c)

Where the document began less than n tokens ago, start tokens stand before it.
(Bengio et al. 2003, *A neural probabilistic language model*; ReLU in place of tanh, no direct connections.)
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
from revgen.options import check_fractions, check_sizes
from revgen.registry import register_model
from revgen.tokenizers import Tokenizer


@dataclass(frozen=True)
class MLPConfig:
    """``context`` is the number of tokens that the next one is predicted from; ``dropout`` the share of the embeddings
    and of each layer's output that are left out of a training step."""

    context: int = 8
    embedding_size: int = 64
    hidden_size: int = 512
    num_layers: int = 1
    dropout: float = 0.1

    def __post_init__(self) -> None:
        check_sizes(self, "context", "embedding_size", "hidden_size", "num_layers")
        check_fractions(self, "dropout")


class MLP(FunctionalNetwork):
    """The network; its state are the last ``context`` - 1 tokens, (batch, context - 1)."""

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
            weights *= shape[1] ** 0.5  # of the size that the layers expect
        if name.endswith(".W"):
            weights *= 2**0.5  # ReLU lets half of it through (He et al. 2015)
        return weights

    def features(self, p: SimpleNamespace, tokens: Array, state: Any, backend: Backend) -> tuple[Array, Any]:
        n, start = self.config.context, Tokenizer.bos_id
        if state is None:
            state = [tokens[0][:, None] * 0 + start] * (n - 1)
        read = concatenate([*state, tokens.T]) if isinstance(state, list) else concatenate([state, tokens.T])
        time = len(tokens)
        window = [read[:, n - 1 :]]  # the tokens now, then those before them, (batch, time)
        for back in range(1, n):
            begun = window[-1] == start  # the document, so what stands before is another's
            before = read[:, n - 1 - back : n - 1 - back + time]
            window.append(before * ~begun + start * begun)
        x = backend.dropout(
            concatenate([embedding(p.embedding, part.T) for part in reversed(window)])
        )  # (time, batch, n * embedding)
        for layer in p.layers:
            x = backend.dropout(relu(x @ layer.W + layer.b))  # (time, batch, hidden)
        return x, read[:, time:]

    def logits(self, p: SimpleNamespace, features: Array) -> Array:
        return features @ p.head.T + p.bias


@register_model("mlp")
class MLPModel(FunctionalModel):
    """A feedforward network over the last n tokens (Bengio et al. 2003)."""

    Config = MLPConfig
    network_class = MLP
    learning_rate = 3e-3
