"""What a run asks of the processor and of the memory that is lent to it."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch

TRIM_THRESHOLD, MMAP_MAX = -1, -4  # as malloc.h numbers them
USUAL = {TRIM_THRESHOLD: 128 << 10, MMAP_MAX: 1 << 16}
KEPT = {TRIM_THRESHOLD: (1 << 31) - 1, MMAP_MAX: 0}


@contextmanager
def flush_denormals() -> Iterator[None]:
    """Within, numbers too small to be normal are zero: memories that fade away, as those of ReLU cells do, pass through
    them, and a processor computes with them several times as slowly."""
    already = float(torch.tensor(1e-39) * 1) == 0
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(already)


@contextmanager
def keep_freed_memory() -> Iterator[None]:
    """Within, memory that is let go of stays with the process, up to 2 GB of it.

    A step of training takes the same large arrays as the step before. The C library of Linux gives each back to the
    system and asks for it anew, which clears it page by page: a third of the time of a small network. Elsewhere
    nothing changes.
    """
    library = ctypes.CDLL(None) if sys.platform == "linux" else None
    mallopt = getattr(library, "mallopt", None)
    if library is None or mallopt is None:
        yield
        return
    for option, value in KEPT.items():
        mallopt(option, value)
    try:
        yield
    finally:
        for option, value in USUAL.items():
            mallopt(option, value)
        library.malloc_trim(0)
