"""AWD-LSTM: LSTMs with dropout on weights, words and activations, and two activation penalties.

    x_0 = E[token],   x_n = lstm_n(x_(n-1)),   logits = x_N E' + b
    loss = cross-entropy + α mean((m * x_N)²) + β mean((x_N,t - x_N,t-1)²)

In training, dropout masks are sampled once per sequence: for words of E, for channels of the input x_0, of the
activations between layers and of the output x_N (mask m), and for single weights of the recurrent matrices U. As the
masks do not change from step to step, a layer can still use PyTorch's fused kernel. The last layer is as wide as the
embedding, and the output uses the embedding matrix.

The paper trains with SGD at a constant learning rate and averages the weights from the epoch at which validation stops
improving (NT-ASGD). With a one-cycle schedule, validation improves until the end. So here the weights are averaged over
the last part of the run; the average is validated and becomes the model.
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


LAYER_GAIN = np.float32(3)
"""The factor on the initial input matrices of all layers but the first."""


@dataclass(frozen=True)
class AWDConfig:
    """The sizes, dropout rates and penalties of an AWD-LSTM. The defaults are for characters.

    ``dropout`` is the rate for the output, ``input_dropout`` for channels of the embedding, ``hidden_dropout`` for
    activations between layers, ``embedding_dropout`` for whole words, and ``weight_drop`` for the recurrent matrices.
    ``alpha`` is the weight of the penalty on large outputs, and ``beta`` the weight of the penalty on changes of the
    output from one time step to the next. For words, the paper uses 0.4, 0.4, 0.25, 0.1, 0.5, 2 and 1, in this order.
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
    """Layers without normalization; the last one has the size of the embedding."""

    def hidden_size(self, i: int) -> int:
        return self.embedding_size if i == self.config.num_layers - 1 else super().hidden_size(i)

    def init_weight(self, name: str, shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[Any]:
        """Return the initial value of a weight, with larger values for matrices between layers.

        The outputs of an LSTM are small. Without normalization, the signal would vanish over three layers, and training
        would start slowly.
        """
        reads_layer = name.endswith(".W") and name != "layers.0.W"
        return super().init_weight(name, shape, rng) * (LAYER_GAIN if reads_layer else 1)


@register_model("awd-lstm")
class AWDLSTM(RecurrentModel):
    """LSTMs with dropout on weights, words, inputs and outputs (Merity et al. 2018).

    x = embedding[token]
    x = lstm(x)                       for each layer
    logits = x embedding' + bias
    """

    Config = AWDConfig
    weight_averaging = 0.25

    def make_definition(self, vocab: int) -> Stack:
        return AWDStack("lstm", self.config, vocab)

    def make_network(self) -> FunctionalModule:
        from revgen.networks.awd import AWDModule

        return AWDModule(self.make_definition(len(self.tokenizer)), self.weights)
