"""A network as one equation for NumPy and PyTorch alike, and the model that it is.

PyTorch trains it, with dropout; NumPy generates and scores by it on the CPU.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from revgen import ops
from revgen.cells.cell import Cell, Parameters
from revgen.model import CompiledStep
from revgen.ops import Array


class Backend:
    """The parts of an equation that can be computed in several ways; these are the plain ones, without dropout.

    A PyTorch network in training overrides them. A backend is an argument of ``Equation.features``, so that an equation
    never changes and several threads can compute with it.
    """

    def dropout(self, x: Array, site: int = 0) -> Array:
        """Return ``x`` after the dropout at this site of the network."""
        return x

    def run_layer(self, cell: Cell, p: Parameters, x: Array, state: Any) -> tuple[Array, Any]:
        """Run one layer over a sequence: (time, batch, input), state -> (time, batch, output), state."""
        return cell.sequence(p, cell.project(p, x), state)

    def attention(self, query: Array, key: Array, value: Array, mask: Array) -> Array:
        """Return the values (batch, heads, time, size) that each query attends to."""
        return ops.attention(query, key, value, mask)


PLAIN = Backend()


class FunctionalNetwork(ABC):
    """A subclass gives the shapes of the weights, ``features`` and ``logits``, in the operators of ``revgen.ops``."""

    batch_axis: ClassVar[int] = 1
    """The axis of the batch in what goes through ``Backend.dropout``."""

    def __init__(self, config: Any, vocab: int) -> None:
        self.config = config
        self.vocab = vocab

    @abstractmethod
    def param_shapes(self) -> dict[str, tuple[int, ...]]:
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

    def pad_state(self, state: Any) -> Any:
        """The same state, as PyTorch has it, in the shape that states have in the end."""
        return state

    def initial_state(self, batch: int, zeros: Callable[[tuple[int, ...]], Array]) -> Any:
        """The state at the start of a document; ``zeros(shape)`` makes an array of the right kind."""
        return None

    def init_weight(self, name: str, shape: tuple[int, ...], random: np.random.Generator) -> NDArray[Any]:
        """The weight ``name`` before training: vectors are zero, or one as a ``scale``; the outputs of matrices have
        the size of their inputs, and an embedding has the length 1."""
        if len(shape) == 1:
            return np.full(shape, float(name.endswith("scale")))
        inputs = shape[0] if name.startswith("layers.") else shape[1]
        return random.normal(0, inputs**-0.5, shape)

    @property
    def supports_numpy(self) -> bool:
        """Whether it runs on NumPy too."""
        return True

    @property
    def forgets(self) -> bool:
        """Whether the state is of arrays that hold ever less of a token the further back it is."""
        return False

    def precompute(self, p: SimpleNamespace) -> None:  # noqa: B027  most have nothing to
        """Compute once, from the weights on NumPy, what generation would compute again and again."""

    def build_compiled(self, p: SimpleNamespace) -> CompiledStep | None:
        """Build compiled code with the weights ``p``, NumPy arrays; return None if the network has none."""
        return None


def unflatten(weights: Mapping[str, Array]) -> SimpleNamespace:
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
