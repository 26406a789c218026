"""Loops that several threads run together. Needs Numba.

The threads are those of PyTorch's own OpenMP team. They keep a processor busy for some milliseconds after each of
PyTorch's operations, and other threads would have to wait for them.
"""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numba import cfunc, njit, types
from numba.core.cpu import CPUTargetOptions
from numba.core.options import TargetOptions
from numpy.typing import NDArray

from revgen.networks.jit import FAST, INTERNAL, cached, call

BLOCK_ROWS = 8
"""Threads compute multiples of this number of rows."""
HEADER_SIZE = 6
"""The length of the header of a table of arguments: the number of the thread, or -1 if OpenMP tells it; the number of
threads; the number of rows; the number of time steps; and the addresses of OpenMP's functions that return the number
of the thread and the number of threads, which can be smaller than requested."""

Table = NDArray[np.int64]


def compiled(function: Callable[[Any], None]) -> Any:
    """Compile a function of a table of arguments, as ``jit.cached`` does."""
    return cached(function, partial(cfunc, types.void(types.CPointer(types.int64)), **FAST))


CPUTargetOptions.noalias = TargetOptions.Mapping("noalias")  # an option of Numba's that its decorators lack
rows: Any = njit(**INTERNAL | {"noalias": True})
"""Compile a function that only compiled code calls. Its arguments are arrays that do not overlap, so that its loops can
be vectorized."""


@njit(**INTERNAL)
def thread_rows(table: Any) -> Any:
    """Return the range of rows that the current thread computes, and its number."""
    thread = call(table[4]) if table[0] < 0 else table[0]
    num_threads = call(table[5]) if table[0] < 0 else table[1]
    size = -(-table[2] // (num_threads * BLOCK_ROWS)) * BLOCK_ROWS
    begin = min(thread * size, table[2])
    return begin, min(begin + size, table[2]), thread


def run(function: Any, num_rows: int, time: int, arguments: list[int]) -> None:
    """Run a compiled function on all rows, in as many threads as PyTorch uses."""
    num_threads = torch.get_num_threads()
    if num_threads > 1 and (openmp := _openmp()) is not None:
        start, *questions = openmp
        table = np.array([-1, num_threads, num_rows, time, *questions, *arguments], np.int64)
        start(function.address, table.ctypes.data, num_threads, 0)
        return
    header = [num_threads, num_rows, time, 0, 0]
    tables = [np.array([thread, *header, *arguments], np.int64) for thread in range(num_threads)]
    pointers = [table.ctypes.data_as(ctypes.POINTER(ctypes.c_int64)) for table in tables]
    others = [_pool().submit(function.ctypes, pointer) for pointer in pointers[1:]]
    function.ctypes(pointers[0])
    for other in others:
        other.result()


@cache
def _openmp() -> tuple[Any, int, int] | None:
    """Return the function that runs another one in PyTorch's OpenMP team, and the addresses of the functions that
    return the number of the thread and the number of threads; None if the library is not GNU's."""
    try:
        text = Path("/proc/self/maps").read_text("utf-8")
    except OSError:  # not Linux
        return None
    root = str(Path(torch.__file__).resolve().parent.parent)
    paths = dict.fromkeys(re.findall(r"(/\S*libgomp\S*)", text))
    ours = [path for path in paths if path.startswith(root)]
    if not ours:
        return None
    library = ctypes.CDLL(ours[0])
    library.GOMP_parallel.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
    library.GOMP_parallel.restype = None
    number, count = (
        ctypes.cast(function, ctypes.c_void_p).value or 0
        for function in (library.omp_get_thread_num, library.omp_get_num_threads)
    )
    return library.GOMP_parallel, number, count


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max(1, torch.get_num_threads() - 1), "revgen")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)
