"""Recurrent language models: read a text token by token, carry a state, predict the next token.

    x_t = E[token_t];   y_t, state = cells(x_t, state);   p(token_t+1) = softmax(y_t E' + b)

Any registered cell is such an architecture, by its registration alone: ``lstm-char``, ``gru-word``, and
your own. The cells' files hold their equations; ``networks.stack`` holds what stands around them.
(Mikolov et al. 2010, *Recurrent neural network based language model*; tied output: Press & Wolf 2017.)
"""

from __future__ import annotations

from functools import cached_property
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from revgen.language_model import Weights
from revgen.networks.neural import NeuralModel
from revgen.networks.stack import RecurrentConfig, Stack, nest

if TYPE_CHECKING:
    from revgen.networks.network import Network


class RecurrentModel(NeuralModel):
    """A stack of ``num_layers`` of the cell that the architecture is named after."""

    Config: ClassVar[type[Any]] = RecurrentConfig

    def make_stack(self, vocab: int) -> Stack:
        """The network as an equation, for a vocabulary of that size."""
        return Stack(self.architecture, self.config, vocab)

    @property
    def stack(self) -> Stack:
        """The network as an equation."""
        return self.make_stack(len(self.tokenizer))

    def check(self) -> None:
        self.make_stack(1)

    def weight_shapes(self) -> dict[str, tuple[int, ...]]:
        return self.stack.shapes()

    def initialize(self, random: np.random.Generator) -> Weights:
        return self.stack.initialize(random)

    def make_network(self) -> Network:
        from revgen.networks.recurrent import RecurrentNetwork

        return RecurrentNetwork(self.stack, self.weights)

    def initial_state(self, batch: int) -> Any:
        if self.equation is None:
            return super().initial_state(batch)
        return self.equation[0].initial_state(batch, lambda shape: np.zeros(shape, np.float32))

    def forward(self, tokens: NDArray[Any], state: Any) -> tuple[NDArray[np.floating[Any]], Any]:
        if self.equation is None:
            return super().forward(tokens, state)
        stack, p = self.equation
        return stack.forward(p, tokens, state)

    @cached_property
    def equation(self) -> tuple[Stack, SimpleNamespace] | None:
        """The network as an equation on NumPy with its weights; None on another device than the CPU, and where
        the cell is written for PyTorch alone."""
        stack, p = self.stack, nest(self.weights)
        if self.device != "cpu" or not all(cell.portable for cell in stack.cells):
            return None
        stack.tabulate(p)
        return stack, p

    def forget(self) -> None:
        super().forget()
        self.__dict__.pop("equation", None)
