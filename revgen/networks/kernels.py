"""The machine code of ``networks.compiled``; importing it needs Numba."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

TANH, RELU, GATED, MEMORY = range(4)  # as in networks.compiled


@njit(cache=True, inline="always")
def tanh(x: Any) -> Any:
    """The hyperbolic tangent in arithmetic alone, so that the compiler computes many at once.

    That of a quarter of x by four terms of its continued fraction (Lambert 1768), then twice that of the double.
    """
    x = np.float32(0.25) * min(max(x, np.float32(-10)), np.float32(10))
    y = x * x
    above = x * (np.float32(135135) + y * (np.float32(17325) + y * (np.float32(378) + y)))
    t = above / (np.float32(135135) + y * (np.float32(62370) + y * (np.float32(3150) + y * np.float32(28))))
    t = np.float32(2) * t / (np.float32(1) + t * t)
    return np.float32(2) * t / (np.float32(1) + t * t)


@njit(cache=True, inline="always")
def sigmoid(x: Any) -> Any:
    """1 / (1 + exp(-x))."""
    return np.float32(0.5) + np.float32(0.5) * tanh(np.float32(0.5) * x)


@njit(cache=True, error_model="numpy")
def add_product(x: Any, matrix: Any, out: Any) -> None:
    """out += x @ matrix, for a vector; the rows of the matrix lie in the order that it is read."""
    rows, columns = matrix.shape
    whole = rows - rows % 4
    for k in range(0, whole, 4):
        a, b, c, d = x[k], x[k + 1], x[k + 2], x[k + 3]
        first, second, third, fourth = matrix[k], matrix[k + 1], matrix[k + 2], matrix[k + 3]
        for j in range(columns):
            out[j] += (a * first[j] + b * second[j]) + (c * third[j] + d * fourth[j])
    for k in range(whole, rows):
        a, first = x[k], matrix[k]
        for j in range(columns):
            out[j] += a * first[j]


@njit(cache=True, error_model="numpy")
def normalized(x: Any, scale: Any, shift: Any, epsilon: Any) -> Any:
    """Mean 0 and variance 1, scaled and shifted; as it is without a scale."""
    if len(scale) == 0:
        return x
    mean = np.float32(0)
    for value in x:
        mean += value
    mean /= np.float32(len(x))
    y = x - mean
    variance = np.float32(0)
    for value in y:
        variance += value * value
    factor = np.float32(1) / np.sqrt(variance / np.float32(len(x)) + epsilon)
    for j in range(len(y)):
        y[j] = y[j] * factor * scale[j] + shift[j]
    return y


@njit(cache=True, error_model="numpy")
def recurrence(kind: Any, z: Any, h: Any, c: Any, u: Any, bias: Any, new_h: Any, new_c: Any) -> None:
    """One layer: what came from its input, z, and its state (h, c) -> the new one."""
    size = len(h)
    if kind == GATED:
        y = bias.copy()
        add_product(h, u, y)
        for j in range(size):
            reset, update = sigmoid(z[j] + y[j]), sigmoid(z[size + j] + y[size + j])
            new = tanh(z[2 * size + j] + reset * y[2 * size + j])
            new_h[j] = new + update * (h[j] - new)
        return
    z = z.copy()
    add_product(h, u, z)
    if kind == MEMORY:
        for j in range(size):
            memory = sigmoid(z[size + j]) * c[j] + sigmoid(z[j]) * tanh(z[3 * size + j])
            new_c[j] = memory
            new_h[j] = sigmoid(z[2 * size + j]) * tanh(memory)
    elif kind == TANH:
        for j in range(size):
            new_h[j] = tanh(z[j])
    else:
        for j in range(size):
            new_h[j] = max(z[j], np.float32(0))


@njit(cache=True, error_model="numpy")
def token_step(
    token: Any,
    hs: Any,
    cs: Any,
    new_hs: Any,
    new_cs: Any,
    kind: Any,
    embedding: Any,
    table: Any,
    ws: Any,
    bs: Any,
    us: Any,
    inner: Any,
    scales: Any,
    shifts: Any,
    residual: Any,
    projection: Any,
    head: Any,
    bias: Any,
    epsilon: Any,
) -> Any:
    """A token through the whole stack, as ``networks.stack`` says it -> logits (1, 1, vocab); the states of each layer,
    (1, hidden), become those in ``new_hs`` and ``new_cs``, which may be the same arrays."""
    x = embedding[token].copy()
    for i in range(len(us)):
        if i == 0 and len(table) > 0:
            z = table[token]
        else:
            z = bs[i].copy()
            add_product(normalized(x, scales[i], shifts[i], epsilon), ws[i], z)
        recurrence(kind, z, hs[i][0], cs[i][0], us[i], inner[i], new_hs[i][0], new_cs[i][0])
        y = new_hs[i][0]
        x = x + y if residual and len(x) == len(y) else y
    x = normalized(x, scales[len(us)], shifts[len(us)], epsilon)
    if len(projection) > 0:
        projected = np.zeros(projection.shape[1], np.float32)
        add_product(x, projection, projected)
        x = projected
    logits = np.empty((1, 1, len(bias)), np.float32)
    logits[0, 0] = bias
    add_product(x, head, logits[0, 0])
    return logits


@njit(cache=True, error_model="numpy")
def draw(logits: Any, biases: Any, temperature: Any, end: Any, uniform: Any) -> Any:
    """A token by the softmax of logits with biases, as ``generation.sampler`` draws it; the end where there is none."""
    x = logits + biases
    likeliest = x.argmax()
    highest = x[likeliest]
    if highest == -np.inf:
        return end
    if temperature == 0:
        return likeliest
    cumulated = np.empty(len(x), np.float64)
    total = 0.0
    for j in range(len(x)):
        total += np.exp((x[j] - highest) / temperature)
        cumulated[j] = total
    return np.searchsorted(cumulated, uniform * total, side="right")


@njit(cache=True, error_model="numpy")
def write_tokens(
    token: Any, hs: Any, cs: Any, uniforms: Any, tokens: Any, temperature: Any, end: Any, biases: Any, *stack: Any
) -> Any:
    """Read a token, draw the next, read that, and so on, one for each of ``uniforms``, into ``tokens``, up to the end
    of the document; how many were drawn. The states become the last. ``stack`` is the rest of ``token_step``."""
    for i in range(len(uniforms)):
        logits = token_step(token, hs, cs, hs, cs, *stack)
        token = draw(logits[0, 0], biases, temperature, end, uniforms[i])
        tokens[i] = token
        if token == end:
            return i + 1
    return len(uniforms)
