"""The model of a network that is written as a ``FunctionalNetwork``, for NumPy and PyTorch alike."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from revgen.architectures.neural import MIN_TORCH_TOKENS, NeuralModel
from revgen.model import Weights, derived, iter_blocks
from revgen.networks.functional import Backend, FunctionalNetwork, unflatten
from revgen.ops import Array, tree_map

if TYPE_CHECKING:
    from revgen.networks.compiled import Compiled
    from revgen.networks.network import FunctionalModule


class FunctionalModel(NeuralModel):
    """A model that is an ``Equation``; a subclass names its ``kind`` and its ``Config``, which has a ``dropout``."""

    kind: ClassVar[type[FunctionalNetwork]]
    network: derived[FunctionalModule]

    def make_definition(self, vocab: int) -> FunctionalNetwork:
        """The equation for this configuration and a vocabulary of that size."""
        return self.kind(self.config, vocab)

    @property
    def definition(self) -> FunctionalNetwork:
        """The equation for this configuration and tokenizer."""
        return self.make_definition(len(self.tokenizer))

    @property
    def explained_by(self) -> tuple[type, ...]:
        return (type(self.definition),)

    def validate_config(self) -> None:
        self.make_definition(1)

    def weight_shapes(self) -> dict[str, tuple[int, ...]]:
        return self.definition.param_shapes()

    def init_params(self, random: np.random.Generator) -> Weights:
        equation = self.definition
        shapes = equation.param_shapes()
        return {n: np.asarray(equation.init_weight(n, shape, random), np.float32) for n, shape in shapes.items()}

    def make_network(self) -> FunctionalModule:
        from revgen.networks.network import FunctionalModule

        return FunctionalModule(self.definition, self.weights)

    @derived
    def equation(self) -> tuple[FunctionalNetwork, SimpleNamespace] | None:
        """The equation with the weights to put into it, on NumPy; None on another device than the CPU, and where it is
        written for PyTorch alone."""
        equation, p = self.definition, unflatten(self.weights)
        if self.device != "cpu" or not equation.supports_numpy:
            return None
        equation.precompute(p)
        return equation, p

    def initial_state(self, batch: int) -> Any:
        if self.equation is None:
            return None
        return self.equation[0].initial_state(batch, lambda shape: np.zeros(shape, np.float32))

    def forward(self, tokens: NDArray[Any], state: Any) -> tuple[NDArray[np.floating[Any]], Any]:
        if self.equation is None:
            return super().forward(tokens, state)
        if tokens.shape == (1, 1) and self.compiled is not None:
            return self.compiled.step(int(tokens[0, 0]), state)
        equation, p = self.equation
        return equation.forward(p, tokens, state)

    def next_logits(self, tokens: NDArray[Any], state: Any) -> tuple[NDArray[np.floating[Any]], Any]:
        if len(tokens) == 1 or type(self).forward is not FunctionalModel.forward:  # a subclass may change the logits
            return super().next_logits(tokens, state)
        if self.equation is None:
            from revgen.networks.reading import read

            return read(self.network, tokens, state)
        if tokens.size >= MIN_TORCH_TOKENS:  # worth the import of PyTorch, as in ``logprobs``
            from revgen.networks.reading import read

            logits, state = read(self.network, tokens, tree_map(to_tensor, state))
            return logits, tree_map(np.ascontiguousarray, state)
        equation, p = self.equation
        for part in iter_blocks(tokens):
            features, state = equation.features(p, part, state)
        last: NDArray[np.floating[Any]] = equation.logits(p, features[-1:])[-1]
        return last, state

    def build_compiled(self) -> Compiled | None:
        return None if self.equation is None else self.equation[0].build_compiled(self.equation[1])

    def features(self, tokens: NDArray[Any], state: Any) -> tuple[NDArray[np.floating[Any]], Any]:
        if self.equation is not None:
            equation, p = self.equation
            return equation.features(p, tokens, state)
        from revgen.networks.network import on_arrays

        return on_arrays(self.network.features, self.network.device)(tokens, state)

    def read_with(self, backend: Backend, tokens: NDArray[Any]) -> None:
        """Read documents from their start, (time, batch), by a backend that gathers what it sees."""
        if self.equation is not None:
            equation, p = self.equation
            equation.features(p, tokens, self.initial_state(tokens.shape[1]), backend)
            return
        from revgen.networks.network import on_arrays

        network = self.network
        p = unflatten(network.named_weights())
        on_arrays(lambda tokens, state: network.features_with(p, tokens, state, backend), network.device)(tokens, None)


def to_tensor(array: NDArray[Any]) -> Array:
    """Return an array as a tensor."""
    import torch

    return torch.as_tensor(array)
