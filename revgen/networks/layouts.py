"""The weights of each network in the layout that ``networks.kernels`` reads, one named tuple for each kind.

Matrices are in float16 if every matrix of the network holds float16 values, as after ``save(dtype="float16")``: most of
the time of a larger network is spent reading them. Vectors stay in float32: they are small.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
Matrix = NDArray[np.float32] | NDArray[np.uint16]
"""Values in float32, or the bits of values in float16."""


class ElmanParams(NamedTuple):
    """h' = tanh(x W + b + h U) (``cells.elman``)."""

    W: Matrix
    b: Floats
    U: Matrix


class ReluRNNParams(NamedTuple):
    """h' = relu(x W + b + h U) (``cells.rnn``)."""

    W: Matrix
    b: Floats
    U: Matrix


class GRUParams(NamedTuple):
    """One layer of ``cells.gru``."""

    W: Matrix
    b: Floats
    U: Matrix
    c: Floats


class LSTMParams(NamedTuple):
    """One layer of ``cells.lstm``."""

    W: Matrix
    b: Floats
    U: Matrix


class MinGRUParams(NamedTuple):
    """One layer of ``cells.minimal.MinGRU``."""

    W: Matrix
    b: Floats
    V: Matrix
    c: Floats
    Y: Matrix


class StackNet(NamedTuple):
    """``networks.stack``. Arrays that the configuration does without are empty."""

    embedding: Matrix
    table: Floats
    """The first layer's x W + b for each token, (vocab, …)."""
    layers: tuple[Any, ...]
    scales: tuple[Floats, ...]
    shifts: tuple[Floats, ...]
    residual: bool
    projection: Matrix
    head: Matrix
    bias: Floats


class AttentiveNet(NamedTuple):
    """``architectures.textgenrnn``."""

    embedding: Matrix
    labels: Matrix
    layers: tuple[Any, ...]
    scales: tuple[Floats, ...]
    shifts: tuple[Floats, ...]
    attention: Floats
    head: Matrix
    bias: Floats


class Block(NamedTuple):
    """One layer of ``architectures.transformer``."""

    attention: Matrix
    output: Matrix
    up: Matrix
    bias: Floats
    down: Matrix


class TransformerNet(NamedTuple):
    """``architectures.transformer``."""

    embedding: Matrix
    layers: tuple[Any, ...]
    scales: tuple[Floats, ...]
    shifts: tuple[Floats, ...]
    head: Matrix
    bias: Floats
    context: int
    frequencies: NDArray[np.int64]


class TrieNet(NamedTuple):
    """The arrays of ``ngrams.Trie``; ``ends_unseen`` says whether a context that was never seen ends the document."""

    order: int
    begins: tuple[NDArray[np.int64], ...]
    words: tuple[NDArray[np.int64], ...]
    suffixes: tuple[NDArray[np.int64], ...]
    p: tuple[Floats, ...]
    backoff: tuple[Floats, ...]
    ends_unseen: bool
    eos_id: int


class ParamPacker:
    """Packs the weights of one network, as ``functional.unflatten`` returns them, into these layouts."""

    def __init__(self, p: SimpleNamespace) -> None:
        self.p = p
        with np.errstate(over="ignore"):
            self.is_half = all((array.astype(np.float16) == array).all() for array in iter_matrices(p))

    def matrix(self, array: Any) -> Matrix:
        """Return a matrix in the type that all matrices of the network have."""
        return np.ascontiguousarray(array, np.float16).view(np.uint16) if self.is_half else self.vector(array)

    @staticmethod
    def vector(array: Any) -> NDArray[np.float32]:
        """Return a vector in float32."""
        return np.ascontiguousarray(array, np.float32)

    def layers(self, layout: Any) -> tuple[Any, ...]:
        """Return the layers, each as a ``layout``; its fields are the names of weights."""
        return tuple(layout(*(self.pack(getattr(layer, name)) for name in layout._fields)) for layer in self.p.layers)

    def pack(self, array: Any) -> Any:
        """Return a matrix or a vector."""
        return self.matrix(array) if array.ndim > 1 else self.vector(array)

    def norms(self) -> dict[str, tuple[Floats, ...]]:
        """Return the ``scales`` and ``shifts`` of all normalizations; empty vectors for a network without any."""
        empty = SimpleNamespace(scale=[], shift=[])
        norms = getattr(self.p, "norms", [empty] * (len(self.p.layers) + 1))
        return {
            "scales": tuple(self.vector(norm.scale) for norm in norms),
            "shifts": tuple(self.vector(norm.shift) for norm in norms),
        }


def iter_matrices(p: SimpleNamespace) -> Iterator[NDArray[Any]]:
    """Yield the weights that have more than one axis."""
    for value in vars(p).values():
        if isinstance(value, list):
            for layer in value:
                yield from iter_matrices(layer)
        elif value.ndim > 1:
            yield value
