"""Settings of the processor and of the memory allocator that make training faster."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # the numbers of these options in malloc.h
DEFAULTS = {M_TRIM_THRESHOLD: 128 << 10, M_MMAP_MAX: 1 << 16}
KEEP_FREED = {M_TRIM_THRESHOLD: (1 << 31) - 1, M_MMAP_MAX: 0}


@contextmanager
def flush_denormals() -> Iterator[None]:
    """Treat numbers that are too small to be normal floats as zero within the context.

    A hidden state that decays to zero, as in a ReLU cell, passes through such numbers, and most processors are several
    times slower with them.
    """
    was_enabled = float(torch.tensor(1e-39) * 1) == 0
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(was_enabled)


@contextmanager
def keep_freed_memory() -> Iterator[None]:
    """Let the process keep up to 2 GB of freed memory for reuse within the context.

    Each step of training allocates the same large arrays as the previous step. On Linux, glibc returns their memory to
    the system and requests it again, and the system clears it page by page. For a small network, this is a third of
    the training time. On other systems, this context does nothing.
    """
    library = ctypes.CDLL(None) if sys.platform == "linux" else None
    mallopt = getattr(library, "mallopt", None)
    if library is None or mallopt is None:
        yield
        return
    for option, value in KEEP_FREED.items():
        mallopt(option, value)
    try:
        yield
    finally:
        for option, value in DEFAULTS.items():
            mallopt(option, value)
        library.malloc_trim(0)
