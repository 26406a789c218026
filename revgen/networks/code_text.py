"""Templates for the source that ``networks.codegen`` generates, and arithmetic with shapes and strides."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from revgen.compiler import Operation

EXPRESSIONS = {
    "add": "{0} + {1}",
    "subtract": "{0} - {1}",
    "multiply": "{0} * {1}",
    "divide": "{0} / {1}",
    "floor_divide": "{0} // {1}",
    "remainder": "{0} % {1}",
    "power": "{0} ** {1}",
    "maximum": "max({0}, {1})",
    "negative": "-{0}",
    "exp": "np.exp({0})",
    "log": "np.log({0})",
    "tanh": "tanh({0})",
    "sqrt": "np.sqrt({0})",
    "cos": "np.cos({0})",
    "sin": "np.sin({0})",
    "softplus": "softplus({0})",
    "sigmoid": "sigmoid({0})",
    "less": "{0} < {1}",
    "less_equal": "{0} <= {1}",
    "greater": "{0} > {1}",
    "greater_equal": "{0} >= {1}",
    "equal": "{0} == {1}",
    "not_equal": "{0} != {1}",
    "logical_and": "{0} and {1}",
    "logical_or": "{0} or {1}",
    "logical_not": "not {0}",
    "where": "{1} if {0} else {2}",
}
"""The Python expression of each elementwise operation."""

REDUCTIONS = {
    "sum": ("0", "a += {}"),
    "amax": ("-np.inf", "a = max(a, {})"),
    "cumsum": ("0", "a += {}"),
    "cummax": ("-(1 << 62)", "a = max(a, {})"),
}
"""For each operation along an axis, the initial value of ``a``, and the statement that adds an element to it."""

TYPES = {"float32": "np.float32", "float64": "np.float64", "int64": "np.int64", "bool": "np.bool_"}

HEADER = '''\
"""Generated from the program of one token."""

import numpy as np
from numba import njit

from revgen.networks.jit import cached, to_float32
from revgen.networks.kernels import FAST, add_product, sample, sigmoid, softplus, tanh


@njit(**FAST)
def forward_token(weights, token, state):
'''
FOOTER = """

@cached
def token_logits(weights, token, state):
    return forward_token(weights, token, state)


@cached
def sample_tokens(weights, token, state, uniforms, tokens, temperature, end, biases, offset):
    for i in range(len(uniforms)):
        token = sample(forward_token(weights, token + offset, state), biases, temperature, end, uniforms[i])
        tokens[i] = token
        if token == end:
            return i + 1
    return len(uniforms)
"""


def literal(value: float | bool, operation: Operation) -> str:
    """Return the source of a constant number."""
    if operation.dtype.kind in "bi":
        return str(value)
    special = {np.inf: "np.inf", -np.inf: "-np.inf"}
    return f"{TYPES[str(operation.dtype)]}({special.get(value, repr(float(value)))})"


def squeezed(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return a shape without the axes of size 1."""
    return tuple(size for size in shape if size > 1)


def row_major_strides(shape: tuple[int, ...]) -> list[int]:
    """Return the strides of an array in row-major order, in elements."""
    return [prod(shape[axis + 1 :]) for axis in range(len(shape))]


def broadcast_strides(shape: tuple[int, ...], target: tuple[int, ...]) -> list[int]:
    """Return the strides of an array that is broadcast to a larger shape."""
    strides = [0 if size == 1 else stride for size, stride in zip(shape, row_major_strides(shape), strict=True)]
    return [0] * (len(target) - len(shape)) + strides


def element_index(shape: tuple[int, ...], strides: Sequence[int]) -> str:
    """Return the expression for the index in the source, which has these strides, of element j of a result."""
    terms = []
    for size, stride, step in zip(shape, strides, row_major_strides(shape), strict=True):
        if size > 1 and stride:
            coordinate = f"j // {step} % {size}" if step > 1 else f"j % {size}"
            terms.append(f"({coordinate}) * {stride}")
    return " + ".join(terms) or "0"


def split_at(shape: tuple[int, ...], axis: int) -> tuple[int, int, int]:
    """Return the number of elements before, along and after an axis."""
    return prod(shape[:axis]), shape[axis], prod(shape[axis + 1 :])
