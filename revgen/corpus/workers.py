"""A parallel map over forked processes that keeps the order and holds few items in memory."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import chain, islice
from typing import Any, TypeVar

from revgen.errors import CorpusError

Item = TypeVar("Item")
Result = TypeVar("Result")

MAX_WORKERS = 8
"""The process that reads the text cannot keep more workers busy."""
ITEMS_PER_WORKER = 2
"""Items in flight for each worker: one at work and one waiting."""
MIN_SECONDS_PER_ITEM = 0.02
"""With less work on an item, sending it to a worker and back costs as much as the work."""

_function: Callable[[Any], Any]  # set in each worker


def parallel_map(
    function: Callable[[Item], Result], items: Iterable[Item], num_serial: int
) -> Generator[Result, None, None]:
    """Yield ``function(item)`` for each item, in order.

    This process computes the first ``num_serial`` items and measures the time. If they are slow enough, one worker per
    CPU computes the rest. Workers are forked, so ``function`` may be any callable and a script needs no ``__main__``
    guard. Where forking is impossible, this process computes everything.

    An exception in ``function`` is raised here. ``function`` must not use threads, or locks that another thread may
    hold at the time of the fork. Raises CorpusError if a worker is killed.
    """
    items = iter(items)
    seconds = 0.0
    for item in islice(items, num_serial):
        start = time.perf_counter()
        result = function(item)
        seconds += time.perf_counter() - start
        yield result
    count, next_items = min(available_cpus(), MAX_WORKERS), list(islice(items, 1))
    is_slow = seconds >= num_serial * MIN_SECONDS_PER_ITEM
    pool = _fork_pool(function, count) if next_items and count > 1 and is_slow else None
    if pool is None:
        yield from map(function, chain(next_items, items))
        return
    pending: deque[Future[Result]] = deque()
    try:
        for item in chain(next_items, items):
            pending.append(pool.submit(_call_function, item))
            if len(pending) == ITEMS_PER_WORKER * count:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    except BrokenProcessPool:
        raise CorpusError(
            "a process that tokenizes was killed, perhaps because memory ran out; try again with more free memory"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def available_cpus() -> int:
    """Return the number of CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _fork_pool(function: Callable[[Any], Any], count: int) -> ProcessPoolExecutor | None:
    """Return a pool of ``count`` running workers, or None if processes cannot be forked."""
    if "fork" not in multiprocessing.get_all_start_methods() or multiprocessing.current_process().daemon:
        return None
    try:
        context = multiprocessing.get_context("fork")
        pool = ProcessPoolExecutor(count, context, initializer=_init_worker, initargs=(function, os.getpid()))
        with warnings.catch_warnings():
            # Python 3.12 and later warn about threads. The workers use nothing that other threads may have locked.
            warnings.simplefilter("ignore", DeprecationWarning)
            with _delay_interrupts():
                pool.submit(os.getpid).result()
    except (OSError, ImportError, NotImplementedError, BrokenProcessPool):  # no semaphores, or no memory for a process
        return None
    return pool


@contextmanager
def _delay_interrupts() -> Iterator[None]:
    """Delay Ctrl-C to the end of the block: a worker that gets it before it ignores it would print a traceback."""
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _init_worker(function: Callable[[Any], Any], parent: int) -> None:
    """Prepare a worker: it ignores Ctrl-C, which its parent handles, and ends when its parent does."""
    global _function
    _function = function
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_exit_with_parent, args=(parent,), daemon=True).start()


def _exit_with_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _call_function(item: Any) -> Any:
    return _function(item)
