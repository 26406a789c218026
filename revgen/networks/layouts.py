"""The weights of the networks whose compiled code is written by hand, in the layout that ``networks.kernels`` reads.

A matrix is in float16 if that type holds all its values, as after ``save(dtype="float16")``, because a large network
spends most of its time reading matrices. Vectors stay in float32: they are small.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
Matrix = NDArray[np.float32] | NDArray[np.uint16]
"""Values in float32, or the bits of values in float16."""


class Block(NamedTuple):
    """The weights of one layer of ``architectures.transformer``."""

    attention: Matrix
    output: Matrix
    up: Matrix
    bias: Floats
    down: Matrix


class TransformerNet(NamedTuple):
    """The weights of ``architectures.transformer``."""

    embedding: Matrix
    layers: tuple[Any, ...]
    scales: tuple[Floats, ...]
    shifts: tuple[Floats, ...]
    head: Matrix
    bias: Floats
    context: int
    frequencies: NDArray[np.int64]


class TrieNet(NamedTuple):
    """The arrays of ``ngrams.Trie``; ``ends_unseen`` is true if an unseen context ends the document."""

    order: int
    begins: tuple[NDArray[np.int64], ...]
    words: tuple[NDArray[np.int64], ...]
    suffixes: tuple[NDArray[np.int64], ...]
    p: tuple[Floats, ...]
    backoff: tuple[Floats, ...]
    ends_unseen: bool
    eos_id: int


def pack_weight(array: Any) -> Any:
    """Return an array in float32, or a matrix as the bits of float16 if that type holds all its values exactly."""
    if array.ndim < 2:
        return np.ascontiguousarray(array, np.float32)
    with np.errstate(over="ignore"):
        half = np.ascontiguousarray(array, np.float16)
    return half.view(np.uint16) if (half == array).all() else np.ascontiguousarray(array, np.float32)
