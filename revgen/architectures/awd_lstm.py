"""AWD-LSTM: plain LSTMs, and regularization wherever it does no harm.

    x_0 = E[token],   x_n = lstm_n(x_(n-1)),   logits = x_N E' + b
    loss = cross-entropy + α mean((m * x_N)²) + β mean((x_N,t - x_N,t-1)²)

In training, once for a whole sequence, chance leaves out words of E, channels of the input x_0, of what goes from layer
to layer, and of the output x_N (its mask is m), and single weights of the recurrent matrices U: so the fused kernel of
PyTorch still computes a layer. The last layer is as wide as the embedding, which the output shares.

The paper trains by SGD at a constant rate and averages the weights from the moment when validation no longer improves
(NT-ASGD). Under a one-cycle schedule that moment does not come before the end, as a falling rate improves validation to
the last; so the average of the weights over the last part of the run is what is validated and kept.
(Merity, Keskar & Socher 2018, *Regularizing and optimizing LSTM language models*, arXiv 1708.02182.)
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from revgen.architectures.recurrent import RecurrentModel
from revgen.networks.stack import Stack
from revgen.options import as_float, check, check_fractions, check_sizes
from revgen.registry import register_model

if TYPE_CHECKING:
    from revgen.networks.network import FunctionalModule


GAIN = np.float32(3)
"""How many times larger than others the matrices of layers begin that read another layer."""


@dataclass(frozen=True)
class AWDConfig:
    """The sizes, and how much of what is left out of a training step; the defaults are for characters.

    ``dropout`` is of the output, ``input_dropout`` of the embedding's channels, ``hidden_dropout`` between layers,
    ``embedding_dropout`` of whole words, ``weight_drop`` of the recurrent matrices; ``alpha`` weighs large outputs and
    ``beta`` outputs that change from one time step to the next. For words the paper has 0.4, 0.4, 0.25, 0.1, 0.5, 2, 1.
    """

    hidden_size: int = 256
    num_layers: int = 3
    embedding_size: int = 128
    dropout: float = 0.1
    input_dropout: float = 0.1
    hidden_dropout: float = 0.1
    embedding_dropout: float = 0.0
    weight_drop: float = 0.2
    alpha: float = 0.0
    beta: float = 0.0
    residual: ClassVar[bool] = False
    layer_norm: ClassVar[bool] = False
    tie_embeddings: ClassVar[bool] = True
    cell_options: ClassVar[Mapping[str, Any]] = MappingProxyType({})

    def __post_init__(self) -> None:
        check_sizes(self, "hidden_size", "num_layers", "embedding_size")
        check_fractions(self, "dropout", "input_dropout", "hidden_dropout", "embedding_dropout", "weight_drop")
        for name in ("alpha", "beta"):
            check(name, getattr(self, name), 0 <= as_float(getattr(self, name)) < math.inf, "0 or more")


class AWDStack(Stack):
    """The last layer has the size of the embedding; nothing is normalized on the way."""

    def hidden_size(self, i: int) -> int:
        return self.embedding_size if i == self.config.num_layers - 1 else super().hidden_size(i)

    def init_weight(self, name: str, shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[Any]:
        """With larger matrices between layers: of the small values that come out of an LSTM, little would arrive behind
        three of them, and learning would stand still for long."""
        between = name.endswith(".W") and name != "layers.0.W"
        return super().init_weight(name, shape, rng) * (GAIN if between else 1)


@register_model("awd-lstm")
class AWDLSTM(RecurrentModel):
    """LSTMs with dropped weights, words, inputs and outputs (Merity et al. 2018)."""

    Config = AWDConfig
    weight_averaging = 0.25

    def make_definition(self, vocab: int) -> Stack:
        return AWDStack("lstm", self.config, vocab)

    def make_network(self) -> FunctionalModule:
        from revgen.networks.awd import AWDModule

        return AWDModule(self.make_definition(len(self.tokenizer)), self.weights)
