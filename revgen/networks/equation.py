"""A network as one equation for NumPy and PyTorch alike, and the model that it is.

PyTorch trains it, with dropout; NumPy generates and scores by it on the CPU.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import cached_property
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from revgen.language_model import Weights
from revgen.networks.neural import NeuralModel
from revgen.networks.stack import nest
from revgen.ops import Array

if TYPE_CHECKING:
    from revgen.networks.network import Network


class Equation(ABC):
    """A subclass gives the shapes of the weights and ``forward``, in the operators of ``revgen.ops``."""

    def __init__(self, config: Any, vocab: int) -> None:
        self.config = config
        self.vocab = vocab
        self.drop: Callable[[Array], Array] = keep  # a network in training puts dropout in its place

    @abstractmethod
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each weight, by its dotted name."""

    @abstractmethod
    def forward(self, p: SimpleNamespace, tokens: Array, state: Any) -> tuple[Array, Any]:
        """Tokens (time, batch) -> logits (time, batch, vocab), the new state; ``p`` as ``nest`` gives it.

        The state None is the start of a document; the arrays of others have the batch as their first axis.
        """

    def initialize(self, name: str, shape: tuple[int, ...], random: np.random.Generator) -> NDArray[Any]:
        """The weight ``name`` before training: vectors are zero, or one as a ``scale``; the outputs of matrices have
        the size of their inputs, and an embedding has the length 1."""
        if len(shape) == 1:
            return np.full(shape, float(name.endswith("scale")))
        inputs = shape[0] if name.startswith("layers.") else shape[1]
        return random.normal(0, inputs**-0.5, shape)


class EquationModel(NeuralModel):
    """A model that is an ``Equation``; a subclass names its ``kind`` and its ``Config``, which has a ``dropout``."""

    kind: ClassVar[type[Equation]]

    def make_equation(self) -> Equation:
        """The equation for this configuration and tokenizer."""
        return self.kind(self.config, len(self.tokenizer))

    def weight_shapes(self) -> dict[str, tuple[int, ...]]:
        return self.make_equation().shapes()

    def initialize(self, random: np.random.Generator) -> Weights:
        equation = self.make_equation()
        return {
            name: np.asarray(equation.initialize(name, shape, random), np.float32)
            for name, shape in equation.shapes().items()
        }

    def make_network(self) -> Network:
        from revgen.networks.network import EquationNetwork

        return EquationNetwork(self.make_equation(), self.weights)

    @cached_property
    def equation(self) -> tuple[Equation, SimpleNamespace]:
        """The equation, and the weights on NumPy to put into it."""
        return self.make_equation(), nest(self.weights)

    def forward(self, tokens: NDArray[Any], state: Any) -> tuple[NDArray[np.floating[Any]], Any]:
        if self.device != "cpu":
            return super().forward(tokens, state)
        equation, p = self.equation
        return equation.forward(p, tokens, state)

    def forget(self) -> None:
        super().forget()
        self.__dict__.pop("equation", None)


def keep(x: Array) -> Array:
    """No dropout."""
    return x
