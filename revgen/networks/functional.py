"""A network that is written once, as a function of its weights, for NumPy and PyTorch.

PyTorch trains it, with dropout. NumPy generates and scores with it on the CPU.
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
from revgen.networks.block import Block
from revgen.ops import Array
from revgen.sequences import CompiledStep


class Backend:
    """The operations of a network that can be computed in several ways; this class computes them without dropout.

    PyTorch modules override them for training. As the backend is an argument of ``FunctionalNetwork.features``, the
    network itself never changes, and several threads can use it.
    """

    training: bool = False
    """True in training."""

    def dropout(self, x: Array, index: int = 0) -> Array:
        """Return ``x`` after dropout. ``index`` distinguishes the dropouts of a network."""
        return x

    def run_layer(self, cell: Cell, p: Parameters, x: Array, state: Any) -> tuple[Array, Any]:
        """Run one layer over a sequence: (time, batch, input) and a state -> (time, batch, output) and a state."""
        return cell.sequence(p, cell.project(p, x), state)

    def run_block(self, block: Block, p: SimpleNamespace, x: Array, state: Any, index: int) -> tuple[Array, Any]:
        """Run a block over a sequence, as ``run_layer`` does. ``index`` is the index of its dropout."""
        y, state = self.run_layer(block.cell, p.layer, block.enter(p, x), state)
        return block.leave(p, x, self.dropout(y, index)), state

    def cast(self, x: Array) -> Array:
        """Return ``x``, an array that is not a weight, in the precision in which the layers are computed."""
        return x

    def attention(self, query: Array, key: Array, value: Array, mask: Array) -> Array:
        """Compute ``ops.attention``: the weighted means of the values, (batch, heads, time, size)."""
        return ops.attention(query, key, value, mask)


PLAIN = Backend()
"""The backend for generation and scoring."""


class FunctionalNetwork(ABC):
    """A network as a function of its weights, in the operators of ``revgen.ops``.

    A subclass defines ``param_shapes``, ``features`` and ``logits``, and ``initial_state`` if it has a state. Nothing
    on the network changes from call to call: everything that it remembers of a text is in the state.
    """

    batch_axis: ClassVar[int] = 1
    """The axis of the batch in the arrays that are passed to ``Backend.dropout``."""

    row_block: ClassVar[int] = 1
    """The number of rows of a batch that NumPy computes at once: a batch of another size is padded to a multiple."""

    trains_in_bf16: ClassVar[bool] = False
    """True if layers can be trained in bfloat16 as a whole, instead of only their products. Then ``features`` calls
    ``Backend.cast`` for all arrays that do not come from a layer."""

    def __init__(self, config: Any, vocab: int) -> None:
        self.config = config
        self.vocab = vocab

    @abstractmethod
    def param_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of each weight by name: ``"bias"``, or ``"layers.0.W"`` for weights of numbered layers."""

    @abstractmethod
    def features(self, p: SimpleNamespace, tokens: Array, state: Any, backend: Backend) -> tuple[Array, Any]:
        """Compute the vectors that the logits are computed from, (time, batch, features), and the next state.

        ``p`` holds the weights as attributes: ``p.bias``, ``p.layers[0].W``. ``tokens`` are ids (time, batch), and
        ``state`` is the state after the preceding tokens. ``backend`` provides ``dropout``.
        """

    @abstractmethod
    def logits(self, p: SimpleNamespace, features: Array) -> Array:
        """Compute logits from features: (time, batch, features) -> (time, batch, vocab)."""

    def forward(self, p: SimpleNamespace, tokens: Array, state: Any) -> tuple[Array, Any]:
        """Compute logits (time, batch, vocab) and the next state from token ids (time, batch), without dropout."""
        features, state = self.features(p, tokens, state, PLAIN)
        return self.logits(p, features), state

    def initial_state(self, batch: int, zeros: Callable[[tuple[int, ...]], Array]) -> Any:
        """Return the state at the start of ``batch`` documents: None, an array, or a tuple, list or dict of arrays.

        The first axis of each array is the batch. ``zeros(shape)`` creates an array for the backend and device.
        """
        return None

    def pad_state(self, state: Any) -> Any:
        """Return a state, padded to the shape that it has after a long text, as CUDA graphs and pages require."""
        return state

    def init_weight(self, name: str, shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[Any]:
        """Return the initial value of a weight.

        Vectors are 0, or 1 if the name ends with "scale". Matrices of ``layers`` are (inputs, outputs) and all others
        (outputs, inputs); their values are normal with variance 1 / inputs.
        """
        if len(shape) == 1:
            return np.full(shape, float(name.endswith("scale")))
        inputs = shape[0] if name.startswith("layers.") else shape[1]
        return rng.normal(0, inputs**-0.5, shape)

    def num_blocks(self, name: str) -> int:
        """Return how many matrices a weight joins along its columns. Muon makes each of them orthogonal."""
        return 1

    @property
    def supports_numpy(self) -> bool:
        """True if the network runs on NumPy; False if it runs only on PyTorch."""
        return True

    @property
    def has_fading_memory(self) -> bool:
        """True if the effect of a token on the state fades as more tokens are read."""
        return False

    def precompute(self, p: SimpleNamespace) -> None:  # noqa: B027  most networks have nothing to precompute
        """Compute values that depend only on the weights ``p``, NumPy arrays, once instead of for each token."""

    def build_compiled(self, p: SimpleNamespace) -> CompiledStep | None:
        """Return a handwritten compiled step with the NumPy weights ``p``, or None to have one generated."""
        return None


def unflatten(weights: Mapping[str, Array]) -> SimpleNamespace:
    """Return weights by dotted name as nested attributes: ``layers.0.W`` becomes ``p.layers[0].W``."""
    nested: dict[str, Any] = {}
    for name, value in weights.items():
        group, _, rest = name.partition(".")
        if not rest:
            nested[group] = value
            continue
        i, _, leaf = rest.partition(".")
        layers = nested.setdefault(group, [])
        while len(layers) <= int(i):
            layers.append(SimpleNamespace())
        setattr(layers[int(i)], leaf, value)
    return SimpleNamespace(**nested)
