"""Array operators for cells and networks. They accept NumPy arrays, PyTorch tensors and traced arrays.

``@ + - * /``, slicing and comparison mean the same for all of these; this module has the other operators, with NumPy's
names. Each operator dispatches on the type of its argument. None of them imports torch: if an argument is a tensor,
torch has been imported already.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = Any
"""A NumPy array, a PyTorch tensor or a traced array (``revgen.compiler``)."""

EPSILON = 1e-5
"""Added to the variance in ``layer_norm``."""
MAX_LOGIT = 1e30
"""Logits, biases and penalties are limited to this magnitude, so that their sums stay finite in float32."""

TURN = 1 << 24
"""``rotary_angles`` counts angles in units of 1 / ``TURN`` of a full turn."""

HALF, ONE = np.array(0.5, np.float32), np.array(1, np.float32)
"""Arrays, because converting a Python number takes NumPy longer than multiplying a hundred values by an array."""


def _library(x: Array) -> Any:
    """Return the library of an array that is not a NumPy array: PyTorch, or the library of a traced array."""
    return getattr(x, "library", None) or sys.modules["torch"]


def sigmoid(x: Array) -> Array:
    """Compute 1 / (1 + exp(-x))."""
    if isinstance(x, np.ndarray):
        y = x * HALF  # sigmoid(x) = (1 + tanh(x / 2)) / 2, which cannot overflow
        np.tanh(y, out=y)
        y += ONE
        y *= HALF
        return y
    return x.sigmoid()


def tanh(x: Array) -> Array:
    """Compute the hyperbolic tangent."""
    return np.tanh(x) if isinstance(x, np.ndarray) else x.tanh()


def relu(x: Array) -> Array:
    """Compute max(x, 0)."""
    return np.maximum(x, 0) if isinstance(x, np.ndarray) else x.relu()


def exp(x: Array) -> Array:
    """Compute the exponential."""
    return np.exp(x) if isinstance(x, np.ndarray) else x.exp()


def log(x: Array) -> Array:
    """Compute the natural logarithm."""
    return np.log(x) if isinstance(x, np.ndarray) else x.log()


def softplus(x: Array) -> Array:
    """Compute log(1 + exp(x))."""
    if isinstance(x, np.ndarray):
        return np.logaddexp(x, np.zeros((), x.dtype))
    return _library(x).nn.functional.softplus(x, threshold=40)  # from here on, it is x in float64 too


def maximum(x: Array, y: Array) -> Array:
    """Compute the elementwise maximum."""
    return np.maximum(x, y) if isinstance(x, np.ndarray) else _library(x).maximum(x, y)


def log_softmax(x: Array) -> Array:
    """Compute the logarithm of softmax over the last axis."""
    if isinstance(x, np.ndarray):
        x = x - x.max(-1, keepdims=True)
        return x - np.log(np.exp(x).sum(-1, keepdims=True))
    return x.log_softmax(-1)


def softmax(x: Array) -> Array:
    """Compute exp(x) divided by its sum along the last axis."""
    if isinstance(x, np.ndarray):
        y = np.exp(x - np.maximum.reduce(x, -1, keepdims=True))  # faster than ``x.max``
        y /= np.add.reduce(y, -1, keepdims=True)
        return y
    return x.softmax(-1)


def logsumexp(x: Array) -> Array:
    """Compute log Σ exp(x) over the last axis."""
    if isinstance(x, np.ndarray):
        highest = np.maximum(x.max(-1, keepdims=True), x.dtype.type(-MAX_LOGIT))
        return (np.log(np.exp(x - highest).sum(-1, keepdims=True)) + highest)[..., 0]
    return x.logsumexp(-1)


def where(condition: Array, x: Array, y: Array | float) -> Array:
    """Return ``x`` where the condition is true, and ``y``, an array or a number, elsewhere."""
    if isinstance(x, np.ndarray):
        return np.where(condition, x, y if isinstance(y, np.ndarray) else x.dtype.type(y))
    return _library(x).where(condition, x, y)


def amax(x: Array) -> Array:
    """Return the maximum along the last axis, which is kept with size 1."""
    return x.max(-1, keepdims=True) if isinstance(x, np.ndarray) else x.amax(-1, keepdim=True)


def cumsum(x: Array) -> Array:
    """Compute the cumulative sum along the last axis, in float64."""
    return x.cumsum(-1, dtype=np.float64 if isinstance(x, np.ndarray) else _library(x).float64)


def argsort(x: Array) -> Array:
    """Return the indices that sort the last axis in ascending order; the sort is stable."""
    return np.argsort(x, -1, kind="stable") if isinstance(x, np.ndarray) else x.argsort(dim=-1, stable=True)


def take_along_axis(x: Array, indices: Array) -> Array:
    """Return the values at these indices of each row: x (batch, size), indices (batch, size)."""
    return x[np.arange(len(x))[:, None], indices] if isinstance(x, np.ndarray) else x.gather(-1, indices)


def put_along_axis(indices: Array, values: Array) -> Array:
    """Return an array with these values at these indices of each row: the inverse of ``take_along_axis``.

    The indices of a row are a permutation.
    """
    if not isinstance(values, np.ndarray):
        return _library(values).empty_like(values).scatter_(-1, indices, values)
    x = np.empty_like(values)
    x[np.arange(len(x))[:, None], indices] = values
    return x


def kth_largest(x: Array, k: int) -> Array:
    """Return the k-th largest value along the last axis, which is kept with size 1."""
    if isinstance(x, np.ndarray):
        return np.partition(x, -k, axis=-1)[..., -k, None]
    return x.topk(k, -1).values[..., -1:]


def tril(x: Array, diagonal: int = 0) -> Array:
    """Return x with zeros above a diagonal of the last two axes."""
    return np.tril(x, diagonal) if isinstance(x, np.ndarray) else x.tril(diagonal)


def split(x: Array, parts: int) -> Sequence[Array]:
    """Split the last axis into equal parts."""
    if isinstance(x, np.ndarray):
        size = x.shape[-1] // parts
        return [x[..., i * size : (i + 1) * size] for i in range(parts)]
    return x.chunk(parts, -1)  # type: ignore[no-any-return]


def stack(arrays: Sequence[Array]) -> Array:
    """Stack arrays of equal shapes along a new first axis."""
    return np.stack(arrays) if isinstance(arrays[0], np.ndarray) else _library(arrays[0]).stack(arrays)


def concatenate(arrays: Sequence[Array], axis: int = -1) -> Array:
    """Concatenate arrays along an axis, by default the last."""
    return np.concatenate(arrays, axis) if isinstance(arrays[0], np.ndarray) else _library(arrays[0]).cat(arrays, axis)


def pad_before(x: Array, size: int, axis: int) -> Array:
    """Insert ``size`` zeros before the elements along an axis."""
    if isinstance(x, np.ndarray):
        return np.pad(x, [(size if i == axis else 0, 0) for i in range(x.ndim)])
    return _library(x).nn.functional.pad(x, (*(0, 0) * (x.ndim - 1 - axis), size, 0))


def embedding(table: Array, tokens: Array) -> Array:
    """Return the row of each token: table (vocab, size) -> (*tokens, size).

    In PyTorch, its backward pass is several times as fast as the backward pass of indexing.
    """
    return (
        table.take(tokens, 0)
        if isinstance(tokens, np.ndarray)
        else _library(tokens).nn.functional.embedding(tokens, table)
    )


def linear_scan(a: Array, b: Array, h: Array) -> Array:
    """Compute h_t = a_t h_(t-1) + b_t for all time steps: a and b (time, batch, …), h (batch, …) -> (time, batch, …).

    Each of log2(time) rounds combines every step with an earlier step; the distance between the two doubles from round
    to round (Hillis & Steele 1986, *Data parallel algorithms*).
    """
    b = concatenate([b[:1] + a[:1] * h, b[1:]], 0)
    distance = 1
    while distance < len(b):
        b = concatenate([b[:distance], b[distance:] + a[distance:] * b[:-distance]], 0)
        a = concatenate([a[:distance], a[distance:] * a[:-distance]], 0)
        distance *= 2
    return b


def layer_norm(x: Array, scale: Array, shift: Array) -> Array:
    """Normalize the last axis to mean 0 and variance 1, then scale and shift it (Ba et al. 2016)."""
    if isinstance(x, np.ndarray):
        size = x.shape[-1]
        y = x - np.add.reduce(x, -1, keepdims=True) / size
        variance = np.add.reduce(y * y, -1, keepdims=True) / size
        y /= np.sqrt(variance + EPSILON)
        y *= scale
        y += shift
        return y
    return _library(x).nn.functional.layer_norm(x, scale.shape, scale, shift, EPSILON)


def gelu(x: Array) -> Array:
    """Compute x times the normal cumulative distribution of x, in the tanh approximation (Hendrycks & Gimpel 2016).

    In bfloat16 on a CPU, PyTorch computes the exact function, which takes a third of the time. It differs from the
    approximation by less than the rounding.
    """
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
    torch = _library(x)
    is_rounded = x.device is not None and x.device.type == "cpu" and x.dtype == torch.bfloat16
    return torch.nn.functional.gelu(x, approximate="none" if is_rounded else "tanh")


def type_as(x: Array, like: Array) -> Array:
    """Return ``x`` with the type of the elements of ``like``."""
    return x.astype(like.dtype) if isinstance(x, np.ndarray) else x.type_as(like)


def arange(size: int, like: Array) -> Array:
    """Return the integers from 0 to size - 1, with the library and device of ``like``."""
    return np.arange(size) if isinstance(like, np.ndarray) else _library(like).arange(size, device=like.device)


def cummax(x: Array) -> Array:
    """Compute the cumulative maximum along the last axis."""
    if x.shape[-1] == 1:
        return x
    return np.maximum.accumulate(x, -1) if isinstance(x, np.ndarray) else x.cummax(-1).values


def attention(query: Array, key: Array, value: Array, mask: Array) -> Array:
    """Compute softmax(query key' / √size) value over the keys for which ``mask`` is true.

    Queries are (batch, heads, time, size), and keys and values (batch, heads, keys, size). The mask is broadcast to
    (batch, heads, time, keys). In bfloat16 on a CPU, it may be 0 for true and -∞ for false, which saves a conversion.
    (Vaswani et al. 2017, equation 1.)
    """
    if isinstance(query, np.ndarray):
        return attention_weights(query, key, mask) @ value
    torch = _library(query)
    if query.device is None:  # traced
        return torch.nn.functional.scaled_dot_product_attention(query, key, value, mask)
    if not (query.device.type == "cpu" and (torch.is_autocast_enabled("cpu") or mask.dtype == torch.bfloat16)):
        query, key = query.to(value.dtype), key.to(value.dtype)  # the rotation was in float32
        return torch.nn.functional.scaled_dot_product_attention(query, key, value, mask)
    # On CPUs in bfloat16, the backward pass of scaled_dot_product_attention takes twice as long as these operations.
    scores = query * query.shape[-1] ** -0.5 @ key.swapaxes(-1, -2)
    if mask.dtype == torch.bool:
        mask = torch.zeros_like(mask, dtype=scores.dtype).masked_fill_(~mask, -torch.inf)
    scores += mask
    return softmax(scores) @ value


def attention_weights(query: Array, key: Array, mask: Array) -> Array:
    """Compute the softmax in ``attention``: the weight of each key for each query, (batch, heads, time, keys)."""
    scores = query * query.shape[-1] ** -0.5 @ key.swapaxes(-1, -2)
    return softmax(where(mask, scores, -np.inf))


def rotary_angles(positions: Array, size: int) -> tuple[Array, Array]:
    """Return the cosines and sines of the angles that rotate pairs of channels at each position: (…) -> (…, size / 2).

    The frequencies range from 1 to 1/10,000 radian per position (Su et al. 2021). Angles are computed as integers, in
    units of 1 / ``TURN`` of a full turn, so that they are as exact at large positions as at small ones.
    """
    frequencies = (
        rotary_frequencies(size)
        if isinstance(positions, np.ndarray) or positions.device is None
        else _rotary_frequencies_on(positions.device, size)
    )
    units = positions[..., None] * frequencies % TURN
    if isinstance(units, np.ndarray):
        angles = units.astype(np.float32) * np.float32(2 * np.pi / TURN)
        return np.cos(angles), np.sin(angles)
    angles = units.float() * (2 * np.pi / TURN)
    return angles.cos(), angles.sin()


def rotary_frequencies(size: int) -> NDArray[np.int64]:
    """Return the angle between consecutive positions for each pair of channels, (size / 2,), in units of 1 / ``TURN``
    of a full turn."""
    pairs = size // 2
    return np.round(TURN / (2 * np.pi) * 10_000.0 ** (-np.arange(pairs) / pairs)).astype(np.int64)


@cache
def _rotary_frequencies_on(device: Any, size: int) -> Array:
    """Return ``rotary_frequencies`` as a tensor; it is copied to each device only once."""
    return sys.modules["torch"].as_tensor(rotary_frequencies(size), device=device)


def tree_map(function: Callable[..., Array], state: Any, *states: Any) -> Any:
    """Apply a function to every array of a state: an array, None, or a tuple, list or dict of states.

    With several states of one structure, the function gets an array of each.
    """
    if state is None:
        return None
    if isinstance(state, tuple | list):
        parts = [tree_map(function, *group) for group in zip(state, *states, strict=True)]
        return type(state)(*parts) if hasattr(state, "_fields") else type(state)(parts)
    if isinstance(state, dict):
        return {name: tree_map(function, part, *(s[name] for s in states)) for name, part in state.items()}
    return function(state, *states)
