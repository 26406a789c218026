"""Functions of single elements for generated loops. Needs Numba.

The functions of float32 numbers consist of basic arithmetic only, so that the compiler can vectorize a loop with them.
Their relative error is a few units in the last place.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from revgen.networks.jit import FAST, as_float32, as_uint32

EXACT: Any = {"error_model": "numpy", "fastmath": {"contract", "arcp"}, "forceinline": True}
"""Compiler options for functions in which the order of operations matters. A vector division becomes an estimate of the
reciprocal and a Newton step, which take a fraction of the time."""
LOG2_E, LN2_HIGH, LN2_LOW = np.float32(1.44269504), np.float32(0.693145752), np.float32(1.42860677e-6)
MIN_EXP, MAX_EXP = np.float32(-87.3), np.float32(88.7)
EXP_COEFFICIENTS = tuple(np.float32(1 / x) for x in (5040, 720, 120, 24, 6, 2, 1, 1))
LOG_COEFFICIENTS = tuple(np.float32(2 / x) for x in (13, 11, 9, 7, 5, 3, 1))
N1, N2, N3, D1, D2, D3 = (np.float32(x / 135135) for x in (17325, 378, 1, 62370, 3150, 28))
C7, C6, C5, C4, C3, C2, C1, C0 = EXP_COEFFICIENTS
L13, L11, L9, L7, L5, L3, L1 = LOG_COEFFICIENTS


@njit(**EXACT)
def exp(x: Any) -> Any:
    """Compute the exponential as 2^n exp(r), with |r| at most ln(2) / 2, and a Taylor series for exp(r)."""
    x = min(max(x, MIN_EXP), MAX_EXP)
    y = x * LOG2_E
    n = np.int32(y + (np.float32(0.5) if y > np.float32(0) else np.float32(-0.5)))
    r = (x - np.float32(n) * LN2_HIGH) - np.float32(n) * LN2_LOW
    series = ((((((C7 * r + C6) * r + C5) * r + C4) * r + C3) * r + C2) * r + C1) * r + C0
    return series * as_float32(np.uint32((n + np.int32(127)) << np.int32(23)))


@njit(**EXACT)
def _log_ratio(s: Any) -> Any:
    """Compute log((1 + s) / (1 - s)) for |s| at most 1/3, by its Taylor series."""
    y = s * s
    return s * ((((((L13 * y + L11) * y + L9) * y + L7) * y + L5) * y + L3) * y + L1)


@njit(**EXACT)
def log(x: Any) -> Any:
    """Compute the natural logarithm as n log(2) + log(m), with m between 2/3 and 4/3."""
    bits = as_uint32(x)
    n = np.int32((bits + np.uint32(0x00555556)) >> np.uint32(23)) - np.int32(127)
    m = as_float32(np.uint32(bits - np.uint32(n << np.int32(23))))
    y = _log_ratio((m - np.float32(1)) / (m + np.float32(1))) + np.float32(n) * LN2_LOW + np.float32(n) * LN2_HIGH
    y = y if x < np.float32(np.inf) else x
    return y if x > np.float32(0) else np.float32(-np.inf) if x == np.float32(0) else np.float32(np.nan)


@njit(**EXACT)
def sigmoid(x: Any) -> Any:
    """Compute 1 / (1 + exp(-x))."""
    return np.float32(1) / (np.float32(1) + exp(-x))


@njit(**EXACT)
def tanh(x: Any) -> Any:
    """Compute the hyperbolic tangent, also of tiny numbers, which 1 - 2 / (1 + exp(2 x)) would round to 0.

    Four terms of the continued fraction give tanh(x / 4) (Lambert 1768), and the double-angle formula is applied twice,
    to numerator and denominator, so that there is only one division.
    """
    x = np.float32(0.25) * min(max(x, np.float32(-10)), np.float32(10))
    y = x * x
    a = x * (np.float32(1) + y * (N1 + y * (N2 + y * N3)))
    b = np.float32(1) + y * (D1 + y * (D2 + y * D3))
    a, b = np.float32(2) * a * b, b * b + a * a
    return np.float32(2) * a * b / (b * b + a * a)


@njit(**EXACT)
def softplus(x: Any) -> Any:
    """Compute log(1 + exp(x))."""
    y = exp(-abs(x))
    return max(x, np.float32(0)) + _log_ratio(y / (np.float32(2) + y))


@njit(**FAST)
def exp_float64(x: Any) -> Any:
    """Compute the exponential."""
    return np.exp(x)


@njit(**FAST)
def log_float64(x: Any) -> Any:
    """Compute the natural logarithm."""
    return np.log(x)


@njit(**FAST)
def tanh_float64(x: Any) -> Any:
    """Compute the hyperbolic tangent."""
    return np.tanh(x)


@njit(**FAST)
def sigmoid_float64(x: Any) -> Any:
    """Compute 1 / (1 + exp(-x))."""
    return 0.5 + 0.5 * np.tanh(0.5 * x)


@njit(**FAST)
def softplus_float64(x: Any) -> Any:
    """Compute log(1 + exp(x))."""
    return max(x, 0.0) + np.log1p(np.exp(-abs(x)))
