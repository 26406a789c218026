"""Compiling a function with Numba, if it is installed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

OPTIONS: Any = {"error_model": "numpy", "fastmath": {"contract", "reassoc", "nsz"}}
"""No checks for division by zero, and sums in any order, so that they use vector instructions."""
SOURCES = tuple((s.st_mtime, s.st_size) for s in (path.stat() for path in sorted(Path(__file__).parent.glob("*.py"))))
"""The times of the last changes and the sizes of the files of this package."""


def compiled(function: Callable[..., Any]) -> Any:
    """Compile a function and cache its machine code on disk; return the function itself without Numba.

    The code contains that of the functions which it calls, so it is compiled again if any file of this package changes.
    """
    try:
        from numba import njit
    except ImportError:
        return function
    try:
        dispatcher = njit(cache=True, **OPTIONS)(function)
    except RuntimeError:  # neither the package nor the user's cache directory is writable
        return njit(**OPTIONS)(function)
    if file := getattr(dispatcher._cache, "_cache_file", None):
        file._source_stamp = SOURCES  # by default, Numba compares only the file of the function itself
    return dispatcher
