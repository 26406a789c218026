"""Compiling functions with Numba, if it is installed."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

try:
    from numba import njit

    from revgen.networks.jit import FAST, INTERNAL, cached

    HAS_NUMBA = True
except ImportError:
    HAS_NUMBA = False

SOURCES = tuple((s.st_mtime, s.st_size) for s in (path.stat() for path in sorted(Path(__file__).parent.glob("*.py"))))
"""The times of the last changes and the sizes of the files of this package."""


def compiled(function: Callable[..., Any]) -> Any:
    """Compile a function and cache its machine code on disk; return the function itself without Numba.

    The code contains that of the functions which it calls, so it is compiled again if any file of this package changes.
    """
    if not HAS_NUMBA:
        return function
    dispatcher = cached(function, partial(njit, **FAST))
    if file := getattr(dispatcher._cache, "_cache_file", None):
        file._source_stamp = SOURCES  # by default, Numba compares only the file of the function itself
    return dispatcher


def internal(function: Callable[..., Any]) -> Any:
    """Compile a function that only compiled functions call; return the function itself without Numba.

    A call from Python would crash; ``function.py_func`` is the function in Python.
    """
    return njit(**INTERNAL)(function) if HAS_NUMBA else function
