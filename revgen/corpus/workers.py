"""Work on a corpus in several processes: in order, and with no more of it in memory than they need to be busy."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import chain, islice
from typing import Any, TypeVar

from revgen.errors import CorpusError

Item = TypeVar("Item")
Result = TypeVar("Result")

MOST = 8
"""Processes: the one that reads the text cannot feed more."""
AHEAD = 2
"""Items for each process, at work or waiting."""
WORTH = 0.02
"""Seconds of work on an item: for less, sending it to and fro costs as much."""

_work: Callable[[Any], Any]  # in a worker, what it is for


def parallel_map(
    function: Callable[[Item], Result], items: Iterable[Item], alone: int
) -> Generator[Result, None, None]:
    """``map(function, items)``: the first ``alone`` items in this process, all others in one for each processor, if
    these took long enough.

    The processes are forked, so that ``function`` may be anything and a script needs no ``__main__`` guard; where that
    cannot be, this process does everything. What ``function`` raises is raised here. It must not use threads or locks
    that may have been in use when the process was forked.
    """
    items = iter(items)
    seconds = 0.0
    for item in islice(items, alone):
        began = time.perf_counter()
        result = function(item)
        seconds += time.perf_counter() - began
        yield result
    count, more = min(processors(), MOST), list(islice(items, 1))
    pool = _forked(function, count) if more and count > 1 and seconds >= alone * WORTH else None
    if pool is None:
        yield from map(function, chain(more, items))
        return
    waiting: deque[Future[Result]] = deque()
    try:
        for item in chain(more, items):
            waiting.append(pool.submit(_run, item))
            if len(waiting) == AHEAD * count:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool:
        raise CorpusError(
            "a process that tokenizes was ended from outside, perhaps for want of memory; try again with more of it"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def processors() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _forked(function: Callable[[Any], Any], count: int) -> ProcessPoolExecutor | None:
    """Processes that are ready to work; None where there can be none."""
    if "fork" not in multiprocessing.get_all_start_methods() or multiprocessing.current_process().daemon:
        return None
    try:
        fork = multiprocessing.get_context("fork")
        pool = ProcessPoolExecutor(count, fork, initializer=_begin, initargs=(function, os.getpid()))
        with warnings.catch_warnings():
            # Python 3.12 and later warn of threads; the workers touch nothing that these may have locked.
            warnings.simplefilter("ignore", DeprecationWarning)
            pool.submit(os.getpid).result()
    except (OSError, ImportError, NotImplementedError, BrokenProcessPool):  # no semaphores, or no room for a process
        return None
    return pool


def _begin(function: Callable[[Any], Any], parent: int) -> None:
    """Make a worker ready. Ctrl-C is for its parent, with which it ends."""
    global _work
    _work = function
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _run(item: Any) -> Any:
    return _work(item)
