"""Recurrent language models: read a text token by token, update a state, and predict the next token from it.

    x_t = E[token_t];   y_t, state = cells(x_t, state);   p(token_t+1) = softmax(y_t E' + b)

Every registered cell is such an architecture: ``lstm-char``, ``gru-word``, and your own. The equations of the cells are
in ``revgen.cells``, and the network around them is ``networks.stack``.
(Mikolov et al. 2010, *Recurrent neural network based language model*; tied output: Press & Wolf 2017.)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from revgen.architectures.functional_model import FunctionalModel
from revgen.networks.ngram_heads import NgramStack
from revgen.networks.stack import RecurrentConfig, Stack
from revgen.registry import register_cell_architecture

if TYPE_CHECKING:
    from revgen.networks.network import FunctionalModule


@register_cell_architecture
class RecurrentModel(FunctionalModel):
    """``num_layers`` recurrent cells between an embedding and an output layer.

    x = E[token]
    x = x + cell(norm(x))     for each layer; without the residual connection if the sizes differ
    logits = norm(x) H + b    with H = E' if the embeddings are tied, or H = P E' if the sizes differ
    """

    Config: ClassVar[type[Any]] = RecurrentConfig
    optimizer = "muon"
    max_batch_size = 32

    def make_definition(self, vocab: int) -> Stack:
        stack = NgramStack if self.config.ngram_heads else Stack
        return stack(self.architecture, self.config, vocab)

    @property
    def explained_by(self) -> tuple[type, ...]:
        definition = self.make_definition(1)
        heads = [NgramStack] if isinstance(definition, NgramStack) else []
        return *super().explained_by, *heads, definition.cell_class

    def make_network(self) -> FunctionalModule:
        from revgen.networks.recurrent import RecurrentModule

        return RecurrentModule(self.make_definition(len(self.tokenizer)), self.weights)
