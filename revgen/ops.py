"""The operators that cells are written in, for NumPy arrays and PyTorch tensors alike.

``@ + - * /``, slicing and comparison mean the same on both; these are the rest. Each dispatches on the
type of its argument, and none imports torch: where a tensor comes in, torch is there already.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = Any
"""A NumPy array or a PyTorch tensor."""

EPSILON = 1e-5
MAX_LOGIT = 1e30
"""Logits, biases and penalties are limited to this size, so that their sums stay finite in float32."""

TURN = 1 << 24
"""Angles are integers in this fraction of a full turn."""

HALF, ONE = np.array(0.5, np.float32), np.array(1, np.float32)
"""As arrays: NumPy takes longer to look at a number of Python than to multiply a hundred by it."""


def _library(x: Array) -> Any:
    """Return the library of an array that is not NumPy's: PyTorch, or the library of a traced array."""
    return getattr(x, "library", None) or sys.modules["torch"]


def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x))."""
    if isinstance(x, np.ndarray):
        y = x * HALF  # the hyperbolic tangent is the same function, and cannot overflow
        np.tanh(y, out=y)
        y += ONE
        y *= HALF
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
    return (
        np.logaddexp(x, np.zeros((), x.dtype)) if isinstance(x, np.ndarray) else _library(x).nn.functional.softplus(x)
    )


def maximum(x: Array, y: Array) -> Array:
    """The larger of two, element by element."""
    return np.maximum(x, y) if isinstance(x, np.ndarray) else _library(x).maximum(x, y)


def log_softmax(x: Array) -> Array:
    """The logarithm of softmax over the last axis."""
    if isinstance(x, np.ndarray):
        x = x - x.max(-1, keepdims=True)
        return x - np.log(np.exp(x).sum(-1, keepdims=True))
    return x.log_softmax(-1)


def softmax(x: Array) -> Array:
    """exp(x) over its sum along the last axis."""
    if isinstance(x, np.ndarray):
        y = np.exp(x - np.maximum.reduce(x, -1, keepdims=True))  # the method ``max`` is a detour through Python
        y /= np.add.reduce(y, -1, keepdims=True)
        return y
    return x.softmax(-1)


def logsumexp(x: Array) -> Array:
    """log Σ exp(x) over the last axis."""
    return np.logaddexp.reduce(x, -1) if isinstance(x, np.ndarray) else x.logsumexp(-1)


def where(condition: Array, x: Array, y: float) -> Array:
    """``x`` where a condition holds, and the number ``y`` elsewhere."""
    return np.where(condition, x, x.dtype.type(y)) if isinstance(x, np.ndarray) else _library(x).where(condition, x, y)


def amax(x: Array) -> Array:
    """The largest value along the last axis, which stays with the size 1."""
    return x.max(-1, keepdims=True) if isinstance(x, np.ndarray) else x.amax(-1, keepdim=True)


def cumsum(x: Array) -> Array:
    """The sums so far along the last axis, in double precision."""
    return x.cumsum(-1, dtype=np.float64 if isinstance(x, np.ndarray) else _library(x).float64)


def argsort(x: Array) -> Array:
    """The places of the values along the last axis from the smallest to the largest; of equal ones the first first."""
    return np.argsort(x, -1, kind="stable") if isinstance(x, np.ndarray) else x.argsort(dim=-1, stable=True)


def take_along_axis(x: Array, places: Array) -> Array:
    """The values at these places of each row: (batch, size), places (batch, size)."""
    return x[np.arange(len(x))[:, None], places] if isinstance(x, np.ndarray) else x.gather(-1, places)


def put_along_axis(places: Array, values: Array) -> Array:
    """The values at these places of each row, which are all places there are: the way back from ``at``."""
    if not isinstance(values, np.ndarray):
        return _library(values).empty_like(values).scatter_(-1, places, values)
    x = np.empty_like(values)
    x[np.arange(len(x))[:, None], places] = values
    return x


def kth_largest(x: Array, k: int) -> Array:
    """The k-th largest value along the last axis, which stays with the size 1."""
    if isinstance(x, np.ndarray):
        return np.partition(x, -k, axis=-1)[..., -k, None]
    return x.topk(k, -1).values[..., -1:]


def tril(x: Array, diagonal: int = 0) -> Array:
    """The matrices of the last two axes with 0 above a diagonal."""
    return np.tril(x, diagonal) if isinstance(x, np.ndarray) else x.tril(diagonal)


def split(x: Array, parts: int) -> Sequence[Array]:
    """Equal parts of the last axis."""
    if isinstance(x, np.ndarray):
        size = x.shape[-1] // parts
        return [x[..., i * size : (i + 1) * size] for i in range(parts)]
    return x.chunk(parts, -1)  # type: ignore[no-any-return]


def stack(arrays: Sequence[Array]) -> Array:
    """Arrays of one shape along a new first axis."""
    return np.stack(arrays) if isinstance(arrays[0], np.ndarray) else _library(arrays[0]).stack(arrays)


def concatenate(arrays: Sequence[Array], axis: int = -1) -> Array:
    """Arrays joined along an axis, the last where not given."""
    return np.concatenate(arrays, axis) if isinstance(arrays[0], np.ndarray) else _library(arrays[0]).cat(arrays, axis)


def embedding(table: Array, tokens: Array) -> Array:
    """The row of each token: table (vocab, size) -> (*tokens, size). PyTorch sums the gradient of an embedding up
    several times as fast as that of an index."""
    return (
        table.take(tokens, 0)
        if isinstance(table, np.ndarray)
        else _library(table).nn.functional.embedding(tokens, table)
    )


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
    return np.concatenate([first, rest]) if isinstance(first, np.ndarray) else _library(first).cat([first, rest])


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
    return _library(x).nn.functional.layer_norm(x, scale.shape, scale, shift, EPSILON)


def gelu(x: Array) -> Array:
    """x times the normal distribution function of x, by its approximation with tanh (Hendrycks & Gimpel 2016)."""
    if isinstance(x, np.ndarray):
        y = x * x
        y *= 0.044715
        y += 1
        y *= x
        y *= (2 / np.pi) ** 0.5
        np.tanh(y, out=y)
        y += 1
        y *= x
        y *= 0.5
        return y
    return _library(x).nn.functional.gelu(x, approximate="tanh")


def arange(size: int, like: Array) -> Array:
    """The whole numbers from 0 on, as an array of the kind and on the device of ``like``."""
    return np.arange(size) if isinstance(like, np.ndarray) else _library(like).arange(size, device=like.device)


def cummax(x: Array) -> Array:
    """The largest value so far along the last axis."""
    if x.shape[-1] == 1:
        return x
    return np.maximum.accumulate(x, -1) if isinstance(x, np.ndarray) else x.cummax(-1).values


def attention(query: Array, key: Array, value: Array, mask: Array) -> Array:
    """What each query takes from the values whose keys match it: softmax(query key' / √size) value, where ``mask``.

    Queries are (batch, heads, time, size), keys and values (batch, heads, keys, size), and the mask can be spread over
    (batch, heads, time, keys). (Vaswani et al. 2017, equation 1.)
    """
    if isinstance(query, np.ndarray) or query.device is None:  # None: traced
        return attention_weights(query, key, mask) @ value
    torch = _library(query)
    if not (query.device.type == "cpu" and torch.is_autocast_enabled("cpu")):
        query, key = query.to(value.dtype), key.to(value.dtype)  # they were rotated in float32
        return torch.nn.functional.scaled_dot_product_attention(query, key, value, mask)
    # The backward pass of that in bfloat16 takes a CPU twice as long as these.
    scores = query * query.shape[-1] ** -0.5 @ key.swapaxes(-1, -2)
    scores += torch.zeros_like(mask, dtype=scores.dtype).masked_fill_(~mask, -torch.inf)
    return softmax(scores) @ value


def attention_weights(query: Array, key: Array, mask: Array) -> Array:
    """How much each query takes from each key, (batch, heads, time, keys): the softmax within ``attention``."""
    scores = query * query.shape[-1] ** -0.5 @ key.swapaxes(-1, -2)
    return softmax(where(mask, scores, -np.inf))


def rotary_angles(positions: Array, size: int) -> tuple[Array, Array]:
    """Cosine and sine of the angles by which ``size`` channels in pairs are turned at each position: (…) ->
    (…, size / 2), from 1 radian a position down to 1/10,000 (Su et al. 2021).

    Angles are whole parts of a turn, so that those of high positions are as exact as those of low ones.
    """
    turns = (
        rotary_frequencies(size)
        if isinstance(positions, np.ndarray) or positions.device is None
        else _rotary_frequencies_on(positions.device, size)
    )
    parts = positions[..., None] * turns % TURN
    if isinstance(parts, np.ndarray):
        angles = parts.astype(np.float32) * np.float32(2 * np.pi / TURN)
        return np.cos(angles), np.sin(angles)
    angles = parts.float() * (2 * np.pi / TURN)
    return angles.cos(), angles.sin()


def rotary_frequencies(size: int) -> NDArray[np.int64]:
    """How far ``rotation`` turns each pair of channels from one position to the next, (size / 2,), in parts of a
    turn."""
    pairs = size // 2
    return np.round(TURN / (2 * np.pi) * 10_000.0 ** (-np.arange(pairs) / pairs)).astype(np.int64)


@cache
def _rotary_frequencies_on(device: Any, size: int) -> Array:
    """``speeds`` on a device of PyTorch, where they are brought once."""
    return sys.modules["torch"].as_tensor(rotary_frequencies(size), device=device)


def tree_map(function: Callable[[Array], Array], state: Any) -> Any:
    """``function`` of every array in a state: an array, None, or a tuple, list or dict of states."""
    if state is None:
        return None
    if isinstance(state, tuple | list):
        parts = [tree_map(function, part) for part in state]
        return type(state)(*parts) if hasattr(state, "_fields") else type(state)(parts)  # a named tuple, or a plain one
    if isinstance(state, dict):
        return {name: tree_map(function, part) for name, part in state.items()}
    return function(state)
