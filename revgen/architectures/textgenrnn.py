"""textgenrnn: LSTMs with an attention-weighted average of the features of all layers over the text so far.

    x_t = norm([e_t, h1_t, …, hN_t]),   e = E[token] + L[label],   h1 = lstm_1(e),   hn = lstm_n(h(n-1))
    a_t = Σ_s exp(w·x_s) x_s / Σ_s exp(w·x_s)   over the tokens s of the document up to t
    logits = [a_t, x_t] W + b

The embedding and every LSTM have a skip connection to the average. Differences from the original textgenrnn:

- textgenrnn reads the last 40 tokens again for each prediction. Here the average is over the whole document so far, and
  the state has the average and the total of its weights. So one pass predicts every token of a sequence.
- The output also reads the newest features x_t. In a short window, the position of a token shows how recent it is; an
  average over a whole document does not show this.
- The inputs of each layer and of the average are normalized, as in ``networks.stack``. Otherwise training fails.
- A label ("context" in textgenrnn) is added to the embedding of every token, not to the output.

(Woolf 2017, *textgenrnn*; after DeepMoji: Felbo et al. 2017, arXiv 1708.00524.)
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
from revgen.networks.block import Block
from revgen.networks.functional import Backend
from revgen.networks.stack import Stack
from revgen.ops import Array, concatenate, embedding, logsumexp, softmax, tril, where
from revgen.options import check_fractions, check_sizes, check_tuple
from revgen.registry import register_model
from revgen.tokenizers import Tokenizer

ATTENTION_BLOCK_SIZE = 128
"""The number of tokens that are averaged at once; the attention weights take memory quadratic in this number."""


@dataclass(frozen=True)
class TextgenConfig:
    """The sizes and options of textgenrnn; ``embedding_size`` and ``dropout`` are as in ``RecurrentConfig``.

    ``labels`` are the labels that a text can have; ``fit`` sets them.
    """

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
        check_tuple(self, "labels", are_different_labels, "a list of different strings or whole numbers")


def are_different_labels(labels: Sequence[Any]) -> bool:
    """Return whether each value is a string or a whole number and differs from the others."""
    return all(type(label) in (str, int) for label in labels) and len({*labels}) == len(labels)


class AttentiveStack(Stack):
    """Layers with an attention-weighted average over their outputs and the embedding."""

    def input_size(self, i: int) -> int:
        return self.features_size if i == self.config.num_layers else super().input_size(i)

    def make_block(self, i: int) -> Block:
        return Block(self.cells[i], normalizes_input=True)

    @property
    def features_size(self) -> int:
        """The total size of the embedding and all layers."""
        return self.embedding_size + sum(cell.output_size for cell in self.cells)

    def param_shapes(self) -> dict[str, tuple[int, ...]]:
        labels = (1 + len(self.config.labels), self.embedding_size)  # the first row is for texts without a label
        head = (self.vocab, 2 * self.features_size)
        return super().param_shapes() | {"labels": labels, "attention": (self.features_size,), "head": head}

    def init_weight(self, name: str, shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[Any]:
        return np.zeros(shape) if name in ("labels", "attention") else super().init_weight(name, shape, rng)

    @property
    def has_fading_memory(self) -> bool:
        return False  # the average is over the whole document

    def initial_state(self, batch: int, zeros: Callable[[tuple[int, ...]], Array]) -> Any:
        average = zeros((batch, self.features_size)), zeros((batch,)) - inf  # a total weight of 0
        return super().initial_state(batch, zeros), average

    def features(self, p: SimpleNamespace, tokens: Array, state: Any, backend: Backend) -> tuple[Array, Any]:
        """Compute the averages and the newest features, (time, batch, 2 * features).

        The tokens include labels (``corpus.tokens.label_offset``).
        """
        layers, average_state = state
        labels, tokens = tokens // self.vocab, tokens % self.vocab
        x = embedding(p.embedding, tokens) + embedding(p.labels, labels)  # (time, batch, embedding)
        outputs, states = [backend.dropout(x, 0)], []
        for i in range(len(self.cells)):
            y, layer_state = self.run_block(p, i, outputs[-1], layers[i], tokens, backend)  # (time, batch, hidden)
            outputs.append(y)
            states.append(layer_state)
        x = self.norm(p, len(self.cells), concatenate(outputs))  # (time, batch, features)
        begins = tokens == Tokenizer.bos_id
        averages = []
        for i in range(0, len(x), ATTENTION_BLOCK_SIZE):
            block = slice(i, i + ATTENTION_BLOCK_SIZE)
            average, average_state = attend(p, x[block], begins[block], *average_state)
            averages.append(average)
        return concatenate([concatenate(averages, 0), x]), (tuple(states), average_state)

    def precompute(self, p: SimpleNamespace) -> None:
        """Do nothing: the first layer's input depends on the label, so there is no table with one row per token."""


def attend(p: SimpleNamespace, x: Array, begins: Array, average: Array, weight: Array) -> tuple[Array, Any]:
    """Return the average up to each token of x (time, batch, features), and the state of the average after the last.

    ``begins`` (time, batch) marks the first tokens of documents. The text before x counts as one token with the
    features ``average`` (batch, features) and the log-weight ``weight`` (batch,).
    """
    x = x.swapaxes(0, 1)  # (batch, time, features)
    document = begins.swapaxes(0, 1).cumsum(1)[..., None]  # document 0 started before x
    visible = tril(concatenate([document == 0, document == document.swapaxes(1, 2)]), 1)
    scores = concatenate([weight[:, None], x @ p.attention])[:, None]
    scores = where(visible, scores, -inf)  # (batch, time, 1 + time)
    averages = softmax(scores) @ concatenate([average[:, None], x], 1)
    return averages.swapaxes(0, 1), (averages[:, -1], logsumexp(scores[:, -1]))


@register_model("textgenrnn")
class Textgenrnn(RecurrentModel):
    """LSTMs with an attention-weighted average of all features, and labels (Woolf 2017; Felbo et al. 2017).

    e = embedding[token] + labels[label]
    h_1 = lstm(norm(e)),   h_n = lstm(norm(h_(n-1)))
    x_t = norm([e, h_1, …, h_N])
    a_t = Σ_s exp(x_s · attention) x_s / Σ_s exp(x_s · attention)   over the tokens s of the document up to t
    logits = [a_t, x_t] head' + bias
    """

    Config = TextgenConfig
    takes_labels = True

    def make_definition(self, vocab: int) -> Stack:
        return AttentiveStack("lstm", self.config, vocab)

    def attention_weights(self, ids: NDArray[Any]) -> NDArray[np.floating[Any]]:
        check_attention_size(len(ids), 1)
        features, _ = self.features(ids[:, None], self.initial_state(1))
        x = features[:, 0, features.shape[-1] // 2 :]  # the second half; the first half is the averages
        scores = x @ self.weights["attention"]
        weights = np.zeros((len(x), len(x)), np.float32)
        for i in range(len(x)):
            weights[i, : i + 1] = softmax(scores[: i + 1])
        return weights[None, None]
