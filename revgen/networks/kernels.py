"""The machine code of ``networks.compiled``; importing it needs Numba.

``read`` and ``recur`` have one body for each kind of network and of layer, which the type of the first argument chooses
when a function that calls them is compiled. All of it stands in one file, by whose date Numba knows what is stale.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic, overload

from revgen.generation.sampler import LARGEST_LOGIT
from revgen.networks.compiled import (
    AttentiveNet,
    ElmanParams,
    GRUParams,
    LSTMParams,
    MinGRUParams,
    ReluRNNParams,
    StackNet,
    TransformerNet,
    TrieNet,
)
from revgen.ops import EPSILON, PARTS
from revgen.tokenizers import Tokenizer

FAST: Any = {"error_model": "numpy", "fastmath": {"contract", "reassoc", "nsz"}}
"""No check of divisors, products and sums in one instruction, and sums in any order; infinities are what they are."""
START = Tokenizer.bos_id
SMALL = np.float32(EPSILON)
LARGEST = np.float32(LARGEST_LOGIT)
ANGLE = np.float32(2 * np.pi / PARTS)


def cached(function: Callable[..., Any]) -> Any:
    """Compile a function and keep its machine code on disk; in this process alone where no directory can be written."""
    try:
        return njit(cache=True)(function)
    except RuntimeError:  # neither beside this file nor in the cache of the user
        return njit(function)


def number(typing: Any, x: Any) -> Any:
    """A number as float32: the bits of a float16 are given as uint16, which Numba has no type for."""

    def widened(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.fpext(builder.bitcast(arguments[0], ir.HalfType()), ir.FloatType())

    def same(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return arguments[0]

    return types.float32(x), widened if x == types.uint16 else same


real: Any = intrinsic(number)


@njit(inline="always", **FAST)
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


@njit(inline="always", **FAST)
def sigmoid(x: Any) -> Any:
    """1 / (1 + exp(-x))."""
    return np.float32(0.5) + np.float32(0.5) * tanh(np.float32(0.5) * x)


@njit(**FAST)
def add_product(x: Any, matrix: Any, out: Any) -> None:
    """out += x @ matrix, for a vector; the rows of the matrix lie in the order that it is read."""
    rows, columns = matrix.shape
    whole = rows - rows % 8
    for k in range(0, whole, 8):
        a, b, c, d = x[k], x[k + 1], x[k + 2], x[k + 3]
        e, f, g, h = x[k + 4], x[k + 5], x[k + 6], x[k + 7]
        m, n, o, p = matrix[k], matrix[k + 1], matrix[k + 2], matrix[k + 3]
        q, r, s, t = matrix[k + 4], matrix[k + 5], matrix[k + 6], matrix[k + 7]
        for j in range(columns):
            first = (a * real(m[j]) + b * real(n[j])) + (c * real(o[j]) + d * real(p[j]))
            out[j] += first + ((e * real(q[j]) + f * real(r[j])) + (g * real(s[j]) + h * real(t[j])))
    for k in range(whole, rows):
        a, m = x[k], matrix[k]
        for j in range(columns):
            out[j] += a * real(m[j])


@njit(**FAST)
def row(matrix: Any, i: Any) -> Any:
    """A copy of a row."""
    out = np.empty(matrix.shape[1], np.float32)
    for j in range(len(out)):
        out[j] = real(matrix[i, j])
    return out


@njit(**FAST)
def normalized(x: Any, scale: Any, shift: Any) -> Any:
    """Mean 0 and variance 1, scaled and shifted; as it is without a scale."""
    if len(scale) == 0:
        return x
    mean = np.float32(0)
    for value in x:
        mean += value
    y = x - mean / np.float32(len(x))
    variance = np.float32(0)
    for value in y:
        variance += value * value
    factor = np.float32(1) / np.sqrt(variance / np.float32(len(x)) + SMALL)
    for j in range(len(y)):
        y[j] = y[j] * factor * scale[j] + shift[j]
    return y


def step_layer(layer: Any, z: Any, state: Any) -> Any:
    """One layer: what came from its input, z, which may be written over, and its state, which becomes the new one ->
    its output, (hidden,)."""
    raise NotImplementedError


def tanh_layer(layer: Any, z: Any, state: Any) -> Any:
    h = state[0][0]
    add_product(h, layer.U, z)
    for j in range(len(h)):
        h[j] = tanh(z[j])
    return h


def relu_layer(layer: Any, z: Any, state: Any) -> Any:
    h = state[0][0]
    add_product(h, layer.U, z)
    for j in range(len(h)):
        h[j] = max(z[j], np.float32(0))
    return h


def gated_layer(layer: Any, z: Any, state: Any) -> Any:
    h = state[0][0]
    size = len(h)
    y = layer.c.copy()
    add_product(h, layer.U, y)
    for j in range(size):
        reset, update = sigmoid(z[j] + y[j]), sigmoid(z[size + j] + y[size + j])
        new = tanh(z[2 * size + j] + reset * y[2 * size + j])
        h[j] = new + update * (h[j] - new)
    return h


def memory_layer(layer: Any, z: Any, state: Any) -> Any:
    h, c = state[0][0], state[1][0]
    size = len(h)
    add_product(h, layer.U, z)
    for j in range(size):
        memory = sigmoid(z[size + j]) * c[j] + sigmoid(z[j]) * tanh(z[3 * size + j])
        c[j] = memory
        h[j] = sigmoid(z[2 * size + j]) * tanh(memory)
    return h


def mean_layer(layer: Any, z: Any, state: Any) -> Any:
    h = state[0][0]
    size = len(h)
    for j in range(size):
        kept = sigmoid(z[j])
        h[j] = z[size + j] + kept * (h[j] - z[size + j])
    wide = layer.c.copy()
    add_product(h, layer.V, wide)
    for j in range(len(wide)):
        wide[j] = max(wide[j], np.float32(0))
    y = np.zeros(size, np.float32)
    add_product(wide, layer.Y, y)
    return y


RECURRENCES: dict[type, Callable[..., Any]] = {
    ElmanParams: tanh_layer,
    ReluRNNParams: relu_layer,
    GRUParams: gated_layer,
    LSTMParams: memory_layer,
    MinGRUParams: mean_layer,
}


@overload(step_layer, jit_options=FAST)
def step_layer_for(layer: Any, z: Any, state: Any) -> Any:
    return RECURRENCES[layer.instance_class]


def forward_token(net: Any, token: Any, state: Any) -> Any:
    """A token through a whole network -> logits (vocab,). The state becomes the new one."""
    raise NotImplementedError


def forward_stack(net: Any, token: Any, state: Any) -> Any:
    """See ``networks.stack``."""
    x = row(net.embedding, token)
    for i in range(len(net.layers)):
        layer = net.layers[i]
        if i == 0 and len(net.table) > 0:
            z = net.table[token].copy()
        else:
            z = layer.b.copy()
            add_product(normalized(x, net.scales[i], net.shifts[i]), layer.W, z)
        y = step_layer(layer, z, state[i])
        x = x + y if net.residual and len(x) == len(y) else y
    x = normalized(x, net.scales[-1], net.shifts[-1])
    if len(net.projection) > 0:
        projected = np.zeros(net.projection.shape[1], np.float32)
        add_product(x, net.projection, projected)
        x = projected
    logits = net.bias.copy()
    add_product(x, net.head, logits)
    return logits


def forward_attentive(net: Any, token: Any, state: Any) -> Any:
    """See ``models.textgenrnn``."""
    layers, (average, weight) = state
    vocab, features = len(net.bias), len(net.attention)
    label, token = token // vocab, token % vocab
    x = row(net.embedding, token) + row(net.labels, label)
    outputs = np.empty(features, np.float32)
    outputs[: len(x)] = x
    end = len(x)
    for i in range(len(net.layers)):
        layer = net.layers[i]
        z = layer.b.copy()
        add_product(normalized(x, net.scales[i], net.shifts[i]), layer.W, z)
        x = step_layer(layer, z, layers[i])
        outputs[end : end + len(x)] = x
        end += len(x)
    x = normalized(outputs, net.scales[-1], net.shifts[-1])
    score = np.float32(0)
    for j in range(features):
        score += x[j] * net.attention[j]
    if token == START:
        weight[0] = -np.inf
    highest = max(weight[0], score)
    total = np.exp(weight[0] - highest) + np.exp(score - highest)
    share = np.float32(np.exp(score - highest) / total)
    weight[0] = highest + np.log(total)
    for j in range(features):
        average[0, j] += share * (x[j] - average[0, j])
    logits = net.bias.copy()
    add_product(average[0], net.head[:features], logits)
    add_product(x, net.head[features:], logits)
    return logits


@njit(**FAST)
def turned(x: Any, cosines: Any, sines: Any) -> None:
    """Pairs of channels, one of each half, turned by an angle each."""
    half = len(x) // 2
    for j in range(half):
        a, b = x[j], x[half + j]
        x[j] = a * cosines[j] - b * sines[j]
        x[half + j] = a * sines[j] + b * cosines[j]


@njit(**FAST)
def attended(query: Any, keys: Any, values: Any, first: Any, end: Any, out: Any) -> None:
    """out = softmax(query keys / √size) values, for one head and its tokens from ``first`` to ``end``: keys (size,
    tokens), values (tokens, size)."""
    shares = np.zeros(keys.shape[1], np.float32)
    add_product(query, keys, shares)
    shares = shares[first:end]
    highest = shares.max()
    scale = np.float32(1) / np.sqrt(np.float32(len(query)))
    total = np.float32(0)
    for i in range(len(shares)):
        shares[i] = np.exp((shares[i] - highest) * scale)
        total += shares[i]
    shares /= total
    out[:] = np.float32(0)
    add_product(shares, values[first:end], out)


def forward_transformer(net: Any, token: Any, state: Any) -> Any:
    """See ``models.transformer``. The state is how many tokens of the document were read, how many are kept, and with
    room behind those the keys, (layers, heads, size, room), and the values, (layers, heads, room, size)."""
    places, kept, keys, values = state
    place = 0 if token == START else places[0]
    angles = (place * net.speeds % PARTS).astype(np.float32) * ANGLE
    cosines, sines = np.cos(angles), np.sin(angles)
    last = kept[0]
    first = last + 1 - min(net.context, place + 1, last + 1)
    x = row(net.embedding, token)
    hidden = len(x)
    size = 2 * len(angles)
    x *= np.sqrt(np.float32(hidden))
    taken = np.empty(hidden, np.float32)
    for i in range(len(net.layers)):
        layer = net.layers[i]
        z = np.zeros(3 * hidden, np.float32)
        add_product(normalized(x, net.scales[2 * i], net.shifts[2 * i]), layer.attention, z)
        for head in range(hidden // size):
            query = z[head * size : (head + 1) * size]
            key = z[hidden + head * size : hidden + (head + 1) * size]
            turned(query, cosines, sines)
            turned(key, cosines, sines)
            keys[i, head, :, last] = key
            values[i, head, last] = z[2 * hidden + head * size : 2 * hidden + (head + 1) * size]
            out = taken[head * size : (head + 1) * size]
            attended(query, keys[i, head], values[i, head], first, last + 1, out)
        add_product(taken, layer.output, x)
        wide = layer.bias.copy()
        add_product(normalized(x, net.scales[2 * i + 1], net.shifts[2 * i + 1]), layer.up, wide)
        for j in range(len(wide)):
            v = wide[j]
            inner = np.float32((2 / np.pi) ** 0.5) * v * (np.float32(1) + np.float32(0.044715) * v * v)
            wide[j] = np.float32(0.5) * v * (np.float32(1) + tanh(inner))
        add_product(wide, layer.down, x)
    places[0] = place + 1
    kept[0] = last + 1
    logits = net.bias.copy()
    add_product(normalized(x, net.scales[-1], net.shifts[-1]), net.head, logits)
    return logits


def forward_trie(net: Any, token: Any, state: Any) -> Any:
    """See ``ngrams.Trie``, whose context and the tokens read are the state, (1, 3)."""
    depth, place = state[0, 0], state[0, 1]
    if depth == net.order - 1 and depth > 0:
        place = net.suffixes[depth][place]
        depth -= 1
    if net.order > 1:
        found = False
        while depth > 0 and not found:
            begin, end = net.begins[depth + 1][place], net.begins[depth + 1][place + 1]
            words = net.words[depth + 1]
            at = begin + np.searchsorted(words[begin:end], token)
            found = at < end and words[at] == token
            place = at if found else net.suffixes[depth][place]
            depth += 1 if found else -1
        if not found:
            depth, place = 1, token
    state[0, 0], state[0, 1] = depth, place
    state[0, 2] += 1
    logits = np.full(len(net.p[1]), np.float32(-np.inf))
    if net.ends and depth < min(state[0, 2], net.order - 1):
        logits[net.end] = 0
        return logits
    left = 1.0
    p = np.full(len(logits), -1.0)
    while depth > 0:  # what a longer context says stands
        p_of, words = net.p[depth + 1], net.words[depth + 1]
        for at in range(net.begins[depth + 1][place], net.begins[depth + 1][place + 1]):
            if p[words[at]] < 0:
                p[words[at]] = left * p_of[at]
        left *= net.backoff[depth + 1][place]
        place = net.suffixes[depth][place]
        depth -= 1
    for j in range(len(p)):
        logits[j] = np.log(p[j] if p[j] >= 0 else left * net.p[1][j])
    return logits


READERS: dict[type, Callable[..., Any]] = {
    StackNet: forward_stack,
    AttentiveNet: forward_attentive,
    TransformerNet: forward_transformer,
    TrieNet: forward_trie,
}


@overload(forward_token, jit_options=FAST)
def forward_token_for(net: Any, token: Any, state: Any) -> Any:
    return READERS[net.instance_class]


@njit(error_model="numpy")
def draw(logits: Any, biases: Any, temperature: Any, end: Any, uniform: Any) -> Any:
    """A token by the softmax of logits with biases, as ``generation.sampler`` draws it; the end where there is none."""
    x = logits + biases
    likeliest = x.argmax()
    if not np.isfinite(x[likeliest]):  # as ``generation.sampler.finite`` has it
        for j in range(len(x)):
            x[j] = min(x[j], LARGEST) if x[j] == x[j] else -np.inf
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
    token = np.searchsorted(cumulated, uniform * total, side="right")
    return token if token < len(x) else likeliest


@cached
def read_token(net: Any, token: Any, state: Any) -> Any:
    """``read`` from Python."""
    return forward_token(net, token, state)


@cached
def write_tokens(
    net: Any, token: Any, state: Any, uniforms: Any, tokens: Any, temperature: Any, end: Any, biases: Any, shift: Any
) -> Any:
    """Read a token, draw the next, read that, and so on, one for each of ``uniforms``, into ``tokens``, up to the end
    of the document; how many were drawn. ``shift`` is added to each that is read. The state becomes the last."""
    for i in range(len(uniforms)):
        token = draw(forward_token(net, token + shift, state), biases, temperature, end, uniforms[i])
        tokens[i] = token
        if token == end:
            return i + 1
    return len(uniforms)
