"""Helpers for ``networks.kernels``: caching of compiled code, and reading float16. Needs Numba."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic


def cached(function: Callable[..., Any]) -> Any:
    """Compile a function and cache its machine code on disk, or only in this process if no directory is writable."""
    try:
        return njit(cache=True)(function)
    except RuntimeError:  # neither the package nor the user's cache directory is writable
        return njit(function)


def _to_float32(typing: Any, x: Any) -> Any:
    """Convert a number to float32. The bits of a float16 are passed as uint16: Numba has no float16 on CPUs."""

    def convert(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        value = arguments[0]
        return builder.fpext(builder.bitcast(value, ir.HalfType()), ir.FloatType()) if x == types.uint16 else value

    return types.float32(x), convert


to_float32: Any = intrinsic(_to_float32)
