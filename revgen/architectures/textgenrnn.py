"""textgenrnn: LSTMs whose features of all layers are averaged over the text so far, as attention weighs them.

    x_t = norm([e_t, h1_t, …, hN_t]),   e = E[token] + L[label],   h1 = lstm_1(e),   hn = lstm_n(h(n-1))
    a_t = Σ_s exp(w·x_s) x_s / Σ_s exp(w·x_s)   over the tokens s of the document up to t
    logits = [a_t, x_t] W + b

The embedding and every LSTM skip to the average (Woolf 2017, *textgenrnn*, after DeepMoji: Felbo et al. 2017,
arXiv 1708.00524). What differs from textgenrnn:

- It reads a window of the last 40 tokens anew for each prediction. Here the average goes over all of the document so
  far, and one pass gives the predictions of a whole sequence: the state holds the average and its weight.
- The output sees the newest features x_t beside the average, in which they would drown: a network that begins anew
  with each window can tell by counting which tokens are the last ones, one that reads on cannot.
- What enters each layer and the average is normalized, as in ``networks.stack``: without that it hardly learns.
- A label (its context) is added to the embedding of every token, rather than to the output alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from types import MappingProxyType, SimpleNamespace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from revgen.architectures.recurrent import RecurrentModel
from revgen.evaluation.attention import check_attention_size
from revgen.networks.functional import Backend
from revgen.networks.stack import Stack
from revgen.ops import Array, concatenate, embedding, logsumexp, softmax, tril, where
from revgen.options import check, check_fractions, check_sizes
from revgen.registry import register_model
from revgen.tokenizers import Tokenizer

BLOCK = 128
"""Tokens that are averaged over at once: the shares of a block take its square."""


@dataclass(frozen=True)
class TextgenConfig:
    """The sizes; ``embedding_size`` None means ``hidden_size``; ``dropout`` as in ``RecurrentConfig``; ``labels`` are
    those that a text can have, which ``fit`` fills in."""

    hidden_size: int = 128
    num_layers: int = 2
    embedding_size: int | None = 100
    dropout: float = 0.2
    labels: Sequence[str | int] = ()
    layer_norm: ClassVar[bool] = True
    tie_embeddings: ClassVar[bool] = False
    cell_options: ClassVar[Mapping[str, Any]] = MappingProxyType({})

    def __post_init__(self) -> None:
        check_sizes(self, "hidden_size", "num_layers", optional=["embedding_size"])
        check_fractions(self, "dropout")
        named = isinstance(self.labels, list | tuple) and all(type(label) in (str, int) for label in self.labels)
        different = named and len({*self.labels}) == len(self.labels)
        check("labels", self.labels, different, "different strings or whole numbers")
        object.__setattr__(self, "labels", tuple(self.labels))  # a list, where it comes from JSON


class AttentiveStack(Stack):
    """Layers whose features, the embedding's among them, are averaged by attention."""

    def input_size(self, i: int) -> int:
        return self.features_size if i == self.config.num_layers else super().input_size(i)

    @property
    def features_size(self) -> int:
        """The size of the embedding and all layers together."""
        return self.embedding_size + sum(cell.output_size for cell in self.cells)

    def param_shapes(self) -> dict[str, tuple[int, ...]]:
        labels = (1 + len(self.config.labels), self.embedding_size)  # the first row: none
        head = (self.vocab, 2 * self.features_size)
        return super().param_shapes() | {"labels": labels, "attention": (self.features_size,), "head": head}

    def init_weight(self, name: str, shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[Any]:
        return np.zeros(shape) if name in ("labels", "attention") else super().init_weight(name, shape, rng)

    @property
    def forgets(self) -> bool:
        return False  # the average is over all of the document

    def initial_state(self, batch: int, zeros: Callable[[tuple[int, ...]], Array]) -> Any:
        past = zeros((batch, self.features_size)), zeros((batch,)) - inf  # no weight
        return super().initial_state(batch, zeros), past

    def features(self, p: SimpleNamespace, tokens: Array, state: Any, backend: Backend) -> tuple[Array, Any]:
        """Compute averages and newest features, (time, batch, 2 * features); tokens carry labels
        (``corpus.tokens.shift``)."""
        layers, past = state
        labels, tokens = tokens // self.vocab, tokens % self.vocab
        x = embedding(p.embedding, tokens) + embedding(p.labels, labels)  # (time, batch, embedding)
        outputs, states = [backend.dropout(x, 0)], []
        for i in range(len(self.cells)):
            y, layer_state = self.run_layer(p, i, outputs[-1], layers[i], tokens, backend)  # (time, batch, hidden)
            outputs.append(backend.dropout(y, i + 1))
            states.append(layer_state)
        x = self.norm(p, len(self.cells), concatenate(outputs))  # (time, batch, features)
        begins = tokens == Tokenizer.bos_id
        averages = []
        for i in range(0, len(x), BLOCK):
            average, past = attend(p, x[i : i + BLOCK], begins[i : i + BLOCK], *past)
            averages.append(average)
        return concatenate([concatenate(averages, 0), x]), (tuple(states), past)

    def precompute(self, p: SimpleNamespace) -> None:
        """There is no table: what enters the first layer depends on the label too."""


def attend(p: SimpleNamespace, x: Array, begins: Array, average: Array, weight: Array) -> tuple[Array, Any]:
    """The averages up to each token of x, (time, batch, features), and the last one with the logarithm of its weight.

    ``begins`` tells where documents begin, (time, batch). What was before x counts as one token: ``average``
    (batch, features), ``weight`` (batch,).
    """
    x = x.swapaxes(0, 1)  # (batch, time, features)
    document = begins.swapaxes(0, 1).cumsum(1)[..., None]  # 0 is the one that began before x
    visible = tril(concatenate([document == 0, document == document.swapaxes(1, 2)]), 1)
    scores = concatenate([weight[:, None], x @ p.attention])[:, None]
    scores = where(visible, scores, -inf)  # (batch, time, 1 + time)
    averages = softmax(scores) @ concatenate([average[:, None], x], 1)
    return averages.swapaxes(0, 1), (averages[:, -1], logsumexp(scores[:, -1]))


@register_model("textgenrnn")
class Textgenrnn(RecurrentModel):
    """LSTMs under an attention-weighted average of all features, and labels (Woolf 2017; Felbo et al. 2017)."""

    Config = TextgenConfig
    takes_labels = True

    def make_definition(self, vocab: int) -> Stack:
        return AttentiveStack("lstm", self.config, vocab)

    def attention_weights(self, ids: NDArray[Any]) -> NDArray[np.floating[Any]]:
        check_attention_size(len(ids), 1)
        features, _ = self.features(ids[:, None], self.initial_state(1))
        x = features[:, 0, features.shape[-1] // 2 :]  # beside the averages
        scores = x @ self.weights["attention"]
        shares = np.zeros((len(x), len(x)), np.float32)
        for i in range(len(x)):
            shares[i, : i + 1] = softmax(scores[: i + 1])
        return shares[None, None]
