"""Graves' LSTM: every layer reads the input, and the output reads every layer.

    x = E[token]
    h_1 = lstm_1(x),   h_n = lstm_n(x, h_(n-1))
    logits = W_1 h_1 + … + W_N h_N + b

The skip connections shorten the path between input and output, so that deep networks are easier to train. The layers
are LSTMs with peepholes (``peephole-lstm``). Dropout replaces the paper's noise on the weights. With
``tie_embeddings``, the output uses the embedding matrix: W_n = E P_n.
(Graves 2013, *Generating sequences with recurrent neural networks*, arXiv 1308.0850, equations 1 to 4.)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType, SimpleNamespace
from typing import Any, ClassVar

from revgen.architectures.recurrent import RecurrentModel
from revgen.networks.block import Block
from revgen.networks.functional import Backend
from revgen.networks.stack import Stack
from revgen.ops import Array, concatenate, embedding
from revgen.options import check_flags, check_fractions, check_sizes
from revgen.registry import register_model


@dataclass(frozen=True)
class GravesConfig:
    """The sizes and options of Graves' LSTM; ``embedding_size`` and ``dropout`` are as in ``RecurrentConfig``."""

    hidden_size: int = 192
    num_layers: int = 3
    embedding_size: int | None = None
    dropout: float = 0.2
    tie_embeddings: bool = True
    layer_norm: ClassVar[bool] = False
    cell_options: ClassVar[Mapping[str, Any]] = MappingProxyType({})

    def __post_init__(self) -> None:
        check_sizes(self, "hidden_size", "num_layers", optional=["embedding_size"])
        check_fractions(self, "dropout")
        check_flags(self, "tie_embeddings")


class GravesStack(Stack):
    """Layers with connections from the input to every layer, and from every layer to the output."""

    def input_size(self, i: int) -> int:
        if i == self.config.num_layers:
            return sum(cell.output_size for cell in self.cells)
        return self.embedding_size + (self.cells[i - 1].output_size if i else 0)

    def make_block(self, i: int) -> Block:
        return Block(self.cells[i])

    def features(self, p: SimpleNamespace, tokens: Array, state: Any, backend: Backend) -> tuple[Array, Any]:
        x = backend.dropout(embedding(p.embedding, tokens), 0)  # (time, batch, embedding)
        outputs: list[Array] = []
        states = []
        for i in range(len(self.cells)):
            y, layer_state = self.run_block(p, i, concatenate([x, *outputs[-1:]]), state[i], tokens, backend)
            outputs.append(y)  # (time, batch, hidden)
            states.append(layer_state)
        return concatenate(outputs), tuple(states)


@register_model("graves-lstm")
class GravesLSTM(RecurrentModel):
    """LSTMs with peepholes and skip connections (Graves 2013).

    x = embedding[token]
    h_1 = lstm_1(x),   h_n = lstm_n([x, h_(n-1)])
    logits = [h_1, …, h_N] H + bias     with H = head', or H = projection embedding' if the embeddings are tied
    """

    Config = GravesConfig

    def make_definition(self, vocab: int) -> Stack:
        return GravesStack("peephole-lstm", self.config, vocab)
