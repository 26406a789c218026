"""Functions of single elements agree with NumPy's, also for special values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from fused_layers import to_bfloat16
from numba import njit
from numpy.typing import NDArray

from revgen.networks import jit
from revgen.networks.fused import element_kernels as kernels

NAMES = ("exp", "log", "sigmoid", "softplus", "tanh")
REFERENCES: dict[str, Callable[[Any], Any]] = {
    "exp": np.exp,
    "log": np.log,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "softplus": lambda x: np.logaddexp(x, 0),
    "tanh": np.tanh,
}
FLOAT32_MAX = float(np.finfo(np.float32).max)


def mapped(function: Any) -> Callable[[NDArray[Any]], NDArray[Any]]:
    """Return a function that applies a compiled function to each element."""

    @njit
    def apply(x: Any, out: Any) -> None:
        for i in range(len(x)):
            out[i] = function(x[i])

    def call(x: NDArray[Any]) -> NDArray[Any]:
        out = np.empty_like(x)
        apply(x, out)
        return out

    return call


FUNCTIONS = {name: mapped(getattr(kernels, name)) for name in NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_relative_error_is_a_few_units_in_the_last_place(name: str) -> None:
    x = np.concatenate([np.linspace(-20, 20, 20_001), np.geomspace(1e-30, 80, 5_000), -np.geomspace(1e-30, 80, 5_000)])
    x = np.concatenate([x, np.geomspace(1e-37, 1e38, 5_000), 1 + np.linspace(-1e-3, 1e-3, 999)]) if name == "log" else x
    x = np.abs(x[x != 0]) if name == "log" else x
    x = x.astype(np.float32)
    expected = REFERENCES[name](x.astype(np.float64))

    actual = FUNCTIONS[name](x).astype(np.float64)

    scale = np.maximum(np.abs(expected), 2.0**-120)
    assert np.max(np.abs(actual - expected) / scale) < 6e-7


@pytest.mark.parametrize("name", NAMES)
def test_double_precision_is_exact_to_a_few_units(name: str) -> None:
    x = np.linspace(0.01, 30, 500) if name == "log" else np.linspace(-30, 30, 500)

    actual = mapped(getattr(kernels, f"{name}_float64"))(x)

    np.testing.assert_allclose(actual, REFERENCES[name](x), rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize(
    ("name", "x", "expected"),
    [
        ("exp", 0, 1),
        ("sigmoid", 0, 0.5),
        ("sigmoid", 200, 1),
        ("sigmoid", np.inf, 1),
        ("tanh", 0, 0),
        ("tanh", 200, 1),
        ("tanh", -200, -1),
        ("tanh", np.inf, 1),
        ("tanh", -np.inf, -1),
        ("softplus", 200, 200),
        ("softplus", FLOAT32_MAX, FLOAT32_MAX),
        ("softplus", np.inf, np.inf),
        ("log", 1, 0),
        ("log", 0, -np.inf),
        ("log", np.inf, np.inf),
        ("log", -1, np.nan),
        ("log", np.nan, np.nan),
    ],
)
def test_special_values(name: str, x: float, expected: float) -> None:
    actual = FUNCTIONS[name](np.array([x], np.float32))

    np.testing.assert_array_equal(actual, np.array([expected], np.float32))


@pytest.mark.parametrize("name", ["exp", "sigmoid", "softplus"])
@pytest.mark.parametrize("x", [-200.0, -FLOAT32_MAX, -np.inf])
def test_very_negative_values_give_almost_zero(name: str, x: float) -> None:
    (actual,) = FUNCTIONS[name](np.array([x], np.float32))

    assert 0 <= actual < 2e-38


@pytest.mark.parametrize("x", [100.0, FLOAT32_MAX, np.inf])
def test_exponential_of_large_values_is_large(x: float) -> None:
    (actual,) = FUNCTIONS["exp"](np.array([x], np.float32))

    assert actual > 1e38


@pytest.mark.parametrize("name", NAMES)
def test_nan_is_kept(name: str) -> None:
    assert np.isnan(FUNCTIONS[name](np.array([np.nan], np.float32))).all()


@pytest.mark.parametrize("function", [jit.to_bfloat16, jit.to_bfloat16_by_integers])
def test_bfloat16_is_rounded_to_nearest_even_like_in_pytorch(function: Any) -> None:
    @njit
    def convert(x: Any, bits: Any, back: Any) -> None:
        for i in range(len(x)):
            bits[i] = function(x[i])
            back[i] = jit.from_bfloat16(bits[i])

    rng = np.random.default_rng(0)
    x = np.concatenate(
        [rng.normal(size=2000), 1 + np.arange(64) / 256, [0, -0.0, 1e-37, 1e38, np.inf, -np.inf, np.nan]]
    )
    x = np.append(x, 3.39e38).astype(np.float32)  # rounds to infinity
    bits, back = np.empty(len(x), np.uint16), np.empty_like(x)
    convert(x, bits, back)

    is_nan = np.isnan(x)
    assert (bits[is_nan] & 0x7FFF > 0x7F80).all()
    np.testing.assert_array_equal(bits[~is_nan], to_bfloat16(x[~is_nan]))
    finite = np.isfinite(x) & (x != 0) & np.isfinite(back)
    assert np.max(np.abs(back[finite] / x[finite] - 1)) <= 2**-8
