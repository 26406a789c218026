"""Handwritten compiled code; importing this module needs Numba.

``forward_token`` has one implementation for each layout in ``networks.layouts``; Numba picks it by the type of the
first argument. ``networks.codegen`` generates the code of all other networks, which uses the arithmetic of this file.
All arithmetic is in this file: Numba caches machine code on disk, and compiles it again only when the file with the
``cached`` function changes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit
from numba.extending import overload

from revgen.networks import layouts
from revgen.networks.fused.element_kernels import exp, tanh
from revgen.networks.jit import INTERNAL, cached, to_float32
from revgen.ops import EPSILON, MAX_LOGIT, TURN
from revgen.tokenizers import Tokenizer

BOS = Tokenizer.bos_id
VARIANCE_EPSILON = np.float32(EPSILON)
LOGIT_LIMIT = np.float32(MAX_LOGIT)
RADIANS = np.float32(2 * np.pi / TURN)


@njit(**INTERNAL)
def add_product(x: Any, x_begin: Any, matrix: Any, out: Any, out_begin: Any) -> None:
    """Add x @ matrix to ``out``, from these indices on. The matrix is read row by row, in the order of memory."""
    x, out = x[x_begin:], out[out_begin:]
    rows, columns = matrix.shape
    unrolled = rows - rows % 8
    for k in range(0, unrolled, 8):
        a, b, c, d, e, f, g, h = x[k], x[k + 1], x[k + 2], x[k + 3], x[k + 4], x[k + 5], x[k + 6], x[k + 7]
        for j in range(columns):
            first = (a * to_float32(matrix[k, j]) + b * to_float32(matrix[k + 1, j])) + (
                c * to_float32(matrix[k + 2, j]) + d * to_float32(matrix[k + 3, j])
            )
            last = (e * to_float32(matrix[k + 4, j]) + f * to_float32(matrix[k + 5, j])) + (
                g * to_float32(matrix[k + 6, j]) + h * to_float32(matrix[k + 7, j])
            )
            out[j] += first + last
    for k in range(unrolled, rows):
        a = x[k]
        for j in range(columns):
            out[j] += a * to_float32(matrix[k, j])


@njit(**INTERNAL)
def read_row(matrix: Any, i: Any) -> Any:
    """Return a copy of a row, in float32."""
    out = np.empty(matrix.shape[1], np.float32)
    for j in range(len(out)):
        out[j] = to_float32(matrix[i, j])
    return out


@njit(**INTERNAL)
def layer_norm(x: Any, scale: Any, shift: Any) -> Any:
    """Compute ``ops.layer_norm`` of a vector."""
    mean = np.float32(0)
    for value in x:
        mean += value
    y = x - mean / np.float32(len(x))
    variance = np.float32(0)
    for value in y:
        variance += value * value
    factor = np.float32(1) / np.sqrt(variance / np.float32(len(x)) + VARIANCE_EPSILON)
    for j in range(len(y)):
        y[j] = y[j] * factor * scale[j] + shift[j]
    return y


def forward_token(net: Any, token: Any, state: Any) -> Any:
    """Return the logits after one more token, (vocab,), and overwrite the state."""
    raise NotImplementedError


@njit(**INTERNAL)
def rotate(x: Any, cosines: Any, sines: Any) -> None:
    """Rotate pairs of channels in place. Channel i of the first half and channel i of the second half are a pair."""
    half = len(x) // 2
    for j in range(half):
        a, b = x[j], x[half + j]
        x[j] = a * cosines[j] - b * sines[j]
        x[half + j] = a * sines[j] + b * cosines[j]


@njit(**INTERNAL)
def attend(query: Any, keys: Any, values: Any, first: Any, end: Any, out: Any) -> None:
    """Write softmax(query keys / √size) values of one head to ``out``, over the tokens from ``first`` up to ``end``.

    Keys are (size, tokens), and values (tokens, size).
    """
    weights = np.zeros(keys.shape[1], np.float32)
    add_product(query, 0, keys, weights, 0)
    weights = weights[first:end]
    highest = weights.max()
    scale = np.float32(1) / np.sqrt(np.float32(len(query)))
    total = np.float32(0)
    for i in range(len(weights)):
        weights[i] = exp((weights[i] - highest) * scale)
        total += weights[i]
    for i in range(len(weights)):
        weights[i] /= total
    for j in range(len(out)):
        out[j] = np.float32(0)
    add_product(weights, 0, values[first:end], out, 0)


def forward_transformer(net: Any, token: Any, state: Any) -> Any:
    """Return the logits of ``architectures.transformer`` after one more token, and overwrite the state.

    The state is the position in the document, the number of cached tokens, and the cache with free space at its end:
    keys (layers, heads, size, capacity) and values (layers, heads, capacity, size).
    """
    positions, num_cached, keys, values = state
    position = 0 if token == BOS else positions[0]
    cosines = np.empty(len(net.frequencies), np.float32)
    sines = np.empty(len(cosines), np.float32)
    for j in range(len(cosines)):
        angle = np.float32(position * net.frequencies[j] % TURN) * RADIANS
        cosines[j], sines[j] = np.cos(angle), np.sin(angle)
    last = num_cached[0]
    first = last + 1 - min(net.context, position + 1, last + 1)
    x = read_row(net.embedding, token)
    hidden = len(x)
    size = 2 * len(cosines)
    for j in range(hidden):
        x[j] *= np.sqrt(np.float32(hidden))
    attended = np.empty(hidden, np.float32)
    for i in range(len(net.layers)):
        layer = net.layers[i]
        z = np.zeros(3 * hidden, np.float32)
        add_product(layer_norm(x, net.scales[2 * i], net.shifts[2 * i]), 0, layer.attention, z, 0)
        for head in range(hidden // size):
            query = z[head * size : (head + 1) * size]
            key = z[hidden + head * size : hidden + (head + 1) * size]
            rotate(query, cosines, sines)
            rotate(key, cosines, sines)
            for j in range(size):  # Numba takes a second longer to compile the assignment of a slice
                keys[i, head, j, last] = key[j]
                values[i, head, last, j] = z[2 * hidden + head * size + j]
            out = attended[head * size : (head + 1) * size]
            attend(query, keys[i, head], values[i, head], first, last + 1, out)
        add_product(attended, 0, layer.output, x, 0)
        inner = layer.bias.copy()
        add_product(layer_norm(x, net.scales[2 * i + 1], net.shifts[2 * i + 1]), 0, layer.up, inner, 0)
        for j in range(len(inner)):
            v = inner[j]
            t = tanh(np.float32((2 / np.pi) ** 0.5) * v * (np.float32(1) + np.float32(0.044715) * v * v))
            inner[j] = np.float32(0.5) * v * (np.float32(1) + t)
        add_product(inner, 0, layer.down, x, 0)
    positions[0] = position + 1
    num_cached[0] = last + 1
    logits = net.bias.copy()
    add_product(layer_norm(x, net.scales[-1], net.shifts[-1]), 0, net.head, logits, 0)
    return logits


def forward_trie(net: Any, token: Any, state: Any) -> Any:
    """Return the logits of ``ngrams.Trie`` after one more token, and overwrite the state.

    The state (1, 3) has the depth and the index of the context, and the number of tokens read.
    """
    depth, index = state[0, 0], state[0, 1]
    if depth == net.order - 1 and depth > 0:
        index = net.suffixes[depth][index]
        depth -= 1
    if net.order > 1:
        is_known = False
        while depth > 0 and not is_known:
            begin, end = net.begins[depth + 1][index], net.begins[depth + 1][index + 1]
            words = net.words[depth + 1]
            child = begin + np.searchsorted(words[begin:end], token)
            is_known = child < end and words[child] == token
            index = child if is_known else net.suffixes[depth][index]
            depth += 1 if is_known else -1
        if not is_known:
            depth, index = 1, token
    state[0, 0], state[0, 1] = depth, index
    state[0, 2] += 1
    logits = np.full(len(net.p[1]), np.float32(-np.inf))
    if net.ends_unseen and depth < min(state[0, 2], net.order - 1):
        logits[net.eos_id] = 0
        return logits
    backoff = 1.0
    p = np.full(len(logits), -1.0)
    while depth > 0:  # from the longest context to the shortest; the first probability of a word is its probability
        p_of, words = net.p[depth + 1], net.words[depth + 1]
        for child in range(net.begins[depth + 1][index], net.begins[depth + 1][index + 1]):
            if p[words[child]] < 0:
                p[words[child]] = backoff * p_of[child]
        backoff *= net.backoff[depth + 1][index]
        index = net.suffixes[depth][index]
        depth -= 1
    for j in range(len(p)):
        logits[j] = np.log(p[j] if p[j] >= 0 else backoff * net.p[1][j])
    return logits


NETWORKS: dict[type, Callable[..., Any]] = {
    layouts.TransformerNet: forward_transformer,
    layouts.TrieNet: forward_trie,
}


@overload(forward_token, jit_options=INTERNAL)
def forward_token_for(net: Any, token: Any, state: Any) -> Any:
    return NETWORKS[net.instance_class]


@njit(error_model="numpy")
def sample(logits: Any, biases: Any, temperature: Any, log_min_p: Any, end: Any, uniform: Any) -> Any:
    """Sample a token from the softmax of logits plus biases; return ``end`` if no token is possible.

    Tokens whose log-probability is less than that of the most likely one plus ``log_min_p`` are not sampled.
    """
    x = np.empty(len(logits), np.float32)
    best = 0
    is_finite = True
    for j in range(len(x)):
        x[j] = logits[j] + biases[j]
        if not abs(x[j]) <= LOGIT_LIMIT and x[j] != -np.inf:
            is_finite = False
    if not is_finite:  # as in ``generation.filters.finite``: NaN becomes -inf, and infinity a large number
        for j in range(len(x)):
            x[j] = min(x[j], LOGIT_LIMIT) if x[j] == x[j] else -np.inf
    for j in range(len(x)):
        if x[j] > x[best]:
            best = j
    highest = x[best]
    if highest == -np.inf:
        return end
    if temperature == 0:
        return best
    cumulative = np.empty(len(x), np.float64)
    total = 0.0
    for j in range(len(x)):
        scaled = (x[j] - highest) / temperature
        if scaled >= log_min_p:
            total += np.exp(scaled)
        cumulative[j] = total
    limit = uniform * total
    low, high = 0, len(x)
    while low < high:  # the first token whose cumulative probability is greater
        middle = (low + high) // 2
        if cumulative[middle] > limit:
            high = middle
        else:
            low = middle + 1
    return low if low < len(x) else best


@cached
def token_logits(net: Any, token: Any, state: Any) -> Any:
    """Call ``forward_token`` from Python."""
    return forward_token(net, token, state)


@cached
def sample_tokens(
    net: Any,
    token: Any,
    state: Any,
    uniforms: Any,
    tokens: Any,
    temperature: Any,
    log_min_p: Any,
    end: Any,
    biases: Any,
    offset: Any,
) -> Any:
    """Sample one token per number in ``uniforms``, until ``end``. Write them to ``tokens`` and return their count.

    ``token`` is read first. ``offset`` is added to each token before it is read.
    """
    for i in range(len(uniforms)):
        token = sample(forward_token(net, token + offset, state), biases, temperature, log_min_p, end, uniforms[i])
        tokens[i] = token
        if token == end:
            return i + 1
    return len(uniforms)
