"""The weights of the networks whose compiled code is written by hand, in the layout that ``networks.kernels`` reads.

A matrix is in float16 if that type holds all its values, as after ``save(dtype="float16")``: most of the time of a
larger network is spent reading matrices. Vectors stay in float32: they are small.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
Matrix = NDArray[np.float32] | NDArray[np.uint16]
"""Values in float32, or the bits of values in float16."""


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


def pack_weight(array: Any) -> Any:
    """Return a vector in float32; a matrix too, or as the bits of float16 if that type holds all its values exactly."""
    if array.ndim < 2:
        return np.ascontiguousarray(array, np.float32)
    with np.errstate(over="ignore"):
        half = np.ascontiguousarray(array, np.float16)
    return half.view(np.uint16) if (half == array).all() else np.ascontiguousarray(array, np.float32)
