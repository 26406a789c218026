"""A loop over an LSTM of two layers that is written by hand for Numba: what compiled code is compared with."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from measure import Task
from numba import njit

import revgen


@njit(fastmath=True)
def sigmoid(x: Any) -> Any:
    return np.float32(1) / (np.float32(1) + np.exp(-x))


@njit(fastmath=True)
def add_product(x: Any, matrix: Any, out: Any) -> None:
    for k in range(len(x)):
        for j in range(len(out)):
            out[j] += x[k] * matrix[k, j]


@njit(fastmath=True)
def lstm(z: Any, h: Any, c: Any) -> None:
    n = len(h)
    for j in range(n):
        c[j] = sigmoid(z[n + j]) * c[j] + sigmoid(z[j]) * np.tanh(z[3 * n + j])
        h[j] = sigmoid(z[2 * n + j]) * np.tanh(c[j])


@njit(fastmath=True)
def sample(logits: Any) -> Any:
    highest, total = logits.max(), np.float32(0)
    for j in range(len(logits)):
        total += np.exp(logits[j] - highest)
        logits[j] = total
    return min(np.searchsorted(logits, np.random.random() * total), len(logits) - 1)  # noqa: NPY002  Numba's generator


@njit(fastmath=True)
def generate(table: Any, u0: Any, w1: Any, u1: Any, b1: Any, head: Any, bias: Any, steps: int) -> Any:
    """Generate tokens; ``table`` has the input of the first layer for each token."""
    size = len(u0)
    h0, c0 = np.zeros(size, np.float32), np.zeros(size, np.float32)
    h1, c1 = np.zeros(size, np.float32), np.zeros(size, np.float32)
    tokens = np.zeros(steps + 1, np.int64)
    for i in range(steps):
        z = table[tokens[i]].copy()
        add_product(h0, u0, z)
        lstm(z, h0, c0)
        z = b1.copy()
        add_product(h0, w1, z)
        add_product(h1, u1, z)
        lstm(z, h1, c1)
        logits = bias.copy()
        add_product(h1, head, logits)
        tokens[i + 1] = sample(logits)
    return tokens


def handwritten_loop(model: revgen.LanguageModel, steps: int) -> Task:
    """Return the task of generating with the weights of an LSTM of two layers without normalization."""
    w = model.weights
    table = w["embedding"] @ w["layers.0.W"] + w["layers.0.b"]
    rest = w["layers.0.U"], w["layers.1.W"], w["layers.1.U"], w["layers.1.b"], np.ascontiguousarray(w["head"].T)

    def run() -> float:
        start = time.perf_counter()
        generate(table, *rest, w["bias"], steps)
        return steps / (time.perf_counter() - start)

    return run
