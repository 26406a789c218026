"""The primitive operations of a program, each with its NumPy implementation.

All traceable functions of ``revgen.ops`` are composed of these, so a backend has to implement nothing else. Shapes are
static and follow NumPy's rules for broadcasting.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

ELEMENTWISE: dict[str, Callable[..., Any]] = {
    "add": np.add,
    "subtract": np.subtract,
    "multiply": np.multiply,
    "divide": np.divide,
    "floor_divide": np.floor_divide,
    "remainder": np.remainder,
    "power": np.power,
    "maximum": np.maximum,
    "negative": np.negative,
    "exp": np.exp,
    "log": np.log,
    "tanh": np.tanh,
    "sqrt": np.sqrt,
    "cos": np.cos,
    "sin": np.sin,
    "softplus": lambda x: np.logaddexp(x, np.zeros((), x.dtype)),
    "sigmoid": lambda x: (np.tanh(x * x.dtype.type(0.5)) + x.dtype.type(1)) * x.dtype.type(0.5),
    "less": np.less,
    "less_equal": np.less_equal,
    "greater": np.greater,
    "greater_equal": np.greater_equal,
    "equal": np.equal,
    "not_equal": np.not_equal,
    "logical_and": np.logical_and,
    "logical_or": np.logical_or,
    "logical_not": np.logical_not,
    "where": np.where,
}
"""Operations that compute each element of the result from one element of each input."""

REDUCTIONS: dict[str, Callable[..., Any]] = {
    "sum": lambda x, axis: x.sum(axis, keepdims=True, dtype=x.dtype),
    "amax": lambda x, axis: x.max(axis, keepdims=True),
    "cummax": np.maximum.accumulate,
    "cumsum": np.cumsum,
}
"""Operations along one axis. ``sum`` and ``amax`` keep the axis with size 1."""

STRUCTURE: dict[str, Callable[..., Any]] = {
    "reshape": lambda x, shape: x.reshape(shape),  # np.reshape has no keyword `shape` before NumPy 2.1
    "transpose": np.transpose,
    "slice": lambda x, index: x[tuple(slice(*part) for part in index)],
    "concatenate": lambda *arrays, axis: np.concatenate(arrays, axis),
    "cast": np.asarray,
    "take": lambda table, index: table.take(index, 0),
}
"""Operations that move elements, or convert their type. ``take`` selects rows of a table by integers."""

PRIMITIVES: dict[str, Callable[..., NDArray[Any]]] = ELEMENTWISE | REDUCTIONS | STRUCTURE | {"matmul": np.matmul}
