"""The operators that cells are written in, for NumPy arrays and PyTorch tensors alike.

``@ + - * /``, slicing and comparison mean the same on both; these are the rest. Each dispatches on the
type of its argument, and none imports torch: where a tensor comes in, torch is there already.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np

Array: TypeAlias = Any
"""A NumPy array or a PyTorch tensor."""

EPSILON = 1e-5


def _torch() -> Any:
    return sys.modules["torch"]


def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x))."""
    if isinstance(x, np.ndarray):
        y = np.tanh(x * 0.5)  # the same function, and it cannot overflow
        y += 1
        y *= 0.5
        return y
    return x.sigmoid()


def tanh(x: Array) -> Array:
    """The hyperbolic tangent."""
    return np.tanh(x) if isinstance(x, np.ndarray) else x.tanh()


def relu(x: Array) -> Array:
    """max(x, 0)."""
    return np.maximum(x, 0) if isinstance(x, np.ndarray) else x.relu()


def exp(x: Array) -> Array:
    """The exponential."""
    return np.exp(x) if isinstance(x, np.ndarray) else x.exp()


def log(x: Array) -> Array:
    """The natural logarithm."""
    return np.log(x) if isinstance(x, np.ndarray) else x.log()


def softplus(x: Array) -> Array:
    """log(1 + exp(x))."""
    return np.logaddexp(x, np.zeros((), x.dtype)) if isinstance(x, np.ndarray) else _torch().nn.functional.softplus(x)


def maximum(x: Array, y: Array) -> Array:
    """The larger of two, element by element."""
    return np.maximum(x, y) if isinstance(x, np.ndarray) else _torch().maximum(x, y)


def log_softmax(x: Array) -> Array:
    """The logarithm of softmax over the last axis."""
    if isinstance(x, np.ndarray):
        x = x - x.max(-1, keepdims=True)
        return x - np.log(np.exp(x).sum(-1, keepdims=True))
    return x.log_softmax(-1)


def softmax(x: Array) -> Array:
    """exp(x) over its sum along the last axis."""
    if isinstance(x, np.ndarray):
        y = np.exp(x - x.max(-1, keepdims=True))
        y /= y.sum(-1, keepdims=True)
        return y
    return x.softmax(-1)


def split(x: Array, parts: int) -> Sequence[Array]:
    """Equal parts of the last axis."""
    if isinstance(x, np.ndarray):
        size = x.shape[-1] // parts
        return [x[..., i * size : (i + 1) * size] for i in range(parts)]
    return x.chunk(parts, -1)  # type: ignore[no-any-return]


def stack(arrays: Sequence[Array]) -> Array:
    """Arrays of one shape along a new first axis."""
    return np.stack(arrays) if isinstance(arrays[0], np.ndarray) else _torch().stack(arrays)


def concatenate(arrays: Sequence[Array]) -> Array:
    """Arrays joined along their last axis."""
    return np.concatenate(arrays, -1) if isinstance(arrays[0], np.ndarray) else _torch().cat(arrays, -1)


def linear_scan(a: Array, b: Array, h: Array) -> Array:
    """h_t = a_t h_(t-1) + b_t for all time steps at once: a and b (time, batch, …), h (batch, …) -> (time, batch, …).

    Each of log2(time) rounds joins every step with the one twice as far back (Hillis & Steele 1986).
    """
    b = _joined(b[:1] + a[:1] * h, b[1:])
    distance = 1
    while distance < len(b):
        b = _joined(b[:distance], b[distance:] + a[distance:] * b[:-distance])
        a = _joined(a[:distance], a[distance:] * a[:-distance])
        distance *= 2
    return b


def _joined(first: Array, rest: Array) -> Array:
    return np.concatenate([first, rest]) if isinstance(first, np.ndarray) else _torch().cat([first, rest])


def layer_norm(x: Array, scale: Array, shift: Array) -> Array:
    """The last axis brought to mean 0 and variance 1, then scaled and shifted (Ba et al. 2016)."""
    if isinstance(x, np.ndarray):
        size = x.shape[-1]
        y = x - np.add.reduce(x, -1, keepdims=True) / size
        variance = np.einsum("...i,...i->...", y, y)[..., None] / size
        y /= np.sqrt(variance + EPSILON)
        y *= scale
        y += shift
        return y
    return _torch().nn.functional.layer_norm(x, scale.shape, scale, shift, EPSILON)


def map_state(function: Callable[[Array], Array], state: Any) -> Any:
    """``function`` of every array in a state: an array, None, or a tuple, list or dict of states."""
    if state is None:
        return None
    if isinstance(state, tuple | list):
        return type(state)([map_state(function, part) for part in state])
    if isinstance(state, dict):
        return {name: map_state(function, part) for name, part in state.items()}
    return function(state)
