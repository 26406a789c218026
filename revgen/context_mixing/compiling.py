"""Compiling a function with Numba, if it is installed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

OPTIONS: Any = {"error_model": "numpy", "fastmath": {"contract", "reassoc", "nsz"}}
"""No checks for division by zero, and sums in any order, so that they use vector instructions."""


def compiled(function: Callable[..., Any]) -> Any:
    """Compile a function and cache its machine code on disk; return the function itself without Numba.

    Numba compiles again only when the file of the function changes. After a change of a function that is called from
    another file, delete the cache, or touch that file.
    """
    try:
        from numba import njit
    except ImportError:
        return function
    try:
        return njit(cache=True, **OPTIONS)(function)
    except RuntimeError:  # neither the package nor the user's cache directory is writable
        return njit(**OPTIONS)(function)
