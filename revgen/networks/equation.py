"""A network as one equation for NumPy and PyTorch alike, and the model that it is.

PyTorch trains it, with dropout; NumPy generates and scores by it on the CPU.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from revgen import ops
from revgen.architectures.neural import MUCH, NeuralModel
from revgen.cells.cell import Cell, Parameters
from revgen.language_model import Weights, blocks, derived
from revgen.ops import Array, map_state

if TYPE_CHECKING:
    from revgen.networks.compiled import Compiled
    from revgen.networks.network import EquationNetwork


class Backend:
    """The parts of an equation that can be computed in several ways; these are the plain ones, without dropout.

    A PyTorch network in training overrides them. A backend is an argument of ``Equation.features``, so that an equation
    never changes and several threads can compute with it.
    """

    def drop(self, x: Array, site: int = 0) -> Array:
        """Return ``x`` after the dropout at this site of the network."""
        return x

    def sequence(self, cell: Cell, p: Parameters, x: Array, state: Any) -> tuple[Array, Any]:
        """Run one layer over a sequence: (time, batch, input), state -> (time, batch, output), state."""
        return cell.sequence(p, cell.project(p, x), state)

    def attention(self, query: Array, key: Array, value: Array, mask: Array) -> Array:
        """Return the values (batch, heads, time, size) that each query attends to."""
        return ops.attention(query, key, value, mask)


PLAIN = Backend()


class Equation(ABC):
    """A subclass gives the shapes of the weights, ``features`` and ``logits``, in the operators of ``revgen.ops``."""

    batch_axis: ClassVar[int] = 1
    """The axis of the batch in what goes through ``Backend.drop``."""

    def __init__(self, config: Any, vocab: int) -> None:
        self.config = config
        self.vocab = vocab

    @abstractmethod
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each weight, by its dotted name."""

    @abstractmethod
    def features(self, p: SimpleNamespace, tokens: Array, state: Any, backend: Backend = PLAIN) -> tuple[Array, Any]:
        """Compute what the logits are computed from: tokens (time, batch) -> (time, batch, features), the new state.

        ``p`` are the weights as ``nest`` gives them. The arrays of a state have the batch as their first axis.
        """

    @abstractmethod
    def logits(self, p: SimpleNamespace, features: Array) -> Array:
        """Compute logits from features: (time, batch, features) -> (time, batch, vocab)."""

    def forward(self, p: SimpleNamespace, tokens: Array, state: Any) -> tuple[Array, Any]:
        """Compute logits from tokens: (time, batch) -> (time, batch, vocab), the new state."""
        features, state = self.features(p, tokens, state)
        return self.logits(p, features), state

    def full(self, state: Any) -> Any:
        """The same state, as PyTorch has it, in the shape that states have in the end."""
        return state

    def initial_state(self, batch: int, zeros: Callable[[tuple[int, ...]], Array]) -> Any:
        """The state at the start of a document; ``zeros(shape)`` makes an array of the right kind."""
        return None

    def first(self, name: str, shape: tuple[int, ...], random: np.random.Generator) -> NDArray[Any]:
        """The weight ``name`` before training: vectors are zero, or one as a ``scale``; the outputs of matrices have
        the size of their inputs, and an embedding has the length 1."""
        if len(shape) == 1:
            return np.full(shape, float(name.endswith("scale")))
        inputs = shape[0] if name.startswith("layers.") else shape[1]
        return random.normal(0, inputs**-0.5, shape)

    @property
    def portable(self) -> bool:
        """Whether it runs on NumPy too."""
        return True

    @property
    def fades(self) -> bool:
        """Whether the state is of arrays that hold ever less of a token the further back it is."""
        return False

    def tabulate(self, p: SimpleNamespace) -> None:  # noqa: B027  most have nothing to
        """Compute once, from the weights on NumPy, what generation would compute again and again."""

    def machine_code(self, p: SimpleNamespace) -> Compiled | None:
        """What computes it for one row with the weights ``p``, on NumPy; None where there is nothing of the kind."""
        return None


class EquationModel(NeuralModel):
    """A model that is an ``Equation``; a subclass names its ``kind`` and its ``Config``, which has a ``dropout``."""

    kind: ClassVar[type[Equation]]
    network: derived[EquationNetwork]

    def make_equation(self, vocab: int) -> Equation:
        """The equation for this configuration and a vocabulary of that size."""
        return self.kind(self.config, vocab)

    @property
    def definition(self) -> Equation:
        """The equation for this configuration and tokenizer."""
        return self.make_equation(len(self.tokenizer))

    @property
    def explained_by(self) -> tuple[type, ...]:
        return (type(self.definition),)

    def check(self) -> None:
        self.make_equation(1)

    def weight_shapes(self) -> dict[str, tuple[int, ...]]:
        return self.definition.shapes()

    def initialize(self, random: np.random.Generator) -> Weights:
        equation = self.definition
        shapes = equation.shapes()
        return {n: np.asarray(equation.first(n, shape, random), np.float32) for n, shape in shapes.items()}

    def make_network(self) -> EquationNetwork:
        from revgen.networks.network import EquationNetwork

        return EquationNetwork(self.definition, self.weights)

    @derived
    def equation(self) -> tuple[Equation, SimpleNamespace] | None:
        """The equation with the weights to put into it, on NumPy; None on another device than the CPU, and where it is
        written for PyTorch alone."""
        equation, p = self.definition, nest(self.weights)
        if self.device != "cpu" or not equation.portable:
            return None
        equation.tabulate(p)
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
        if len(tokens) == 1 or type(self).forward is not EquationModel.forward:  # a subclass may change the logits
            return super().next_logits(tokens, state)
        if self.equation is None:
            from revgen.networks.reading import read

            return read(self.network, tokens, state)
        if tokens.size >= MUCH:  # worth the import of PyTorch, as in ``logprobs``
            from revgen.networks.reading import read

            logits, state = read(self.network, tokens, map_state(to_tensor, state))
            return logits, map_state(np.ascontiguousarray, state)
        equation, p = self.equation
        for part in blocks(tokens):
            features, state = equation.features(p, part, state)
        last: NDArray[np.floating[Any]] = equation.logits(p, features[-1:])[-1]
        return last, state

    def machine_code(self) -> Compiled | None:
        return None if self.equation is None else self.equation[0].machine_code(self.equation[1])

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
        p = nest(network.named_weights())
        on_arrays(lambda tokens, state: network.features_with(p, tokens, state, backend), network.device)(tokens, None)


def to_tensor(array: NDArray[Any]) -> Array:
    """Return an array as a tensor."""
    import torch

    return torch.as_tensor(array)


def nest(weights: Mapping[str, Array]) -> SimpleNamespace:
    """Weights by dotted names as attributes: ``layers.0.W`` is ``p.layers[0].W``."""
    nested: dict[str, Any] = {}
    for name, value in weights.items():
        kind, _, rest = name.partition(".")
        if not rest:
            nested[kind] = value
            continue
        i, _, leaf = rest.partition(".")
        parts = nested.setdefault(kind, [])
        while len(parts) <= int(i):
            parts.append(SimpleNamespace())
        setattr(parts[int(i)], leaf, value)
    return SimpleNamespace(**nested)
