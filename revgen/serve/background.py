"""``Background``: a few threads for work that would make all other requests wait."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from revgen.serve.errors import ServeError
from revgen.serve.limits import Limits

T = TypeVar("T")
NUM_THREADS = 2


class Background:
    """Threads that run functions for requests, within the limits of the server."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.executor = ThreadPoolExecutor(NUM_THREADS, "background")
        self.count = 0
        self._lock = threading.Lock()

    async def run(self, function: Callable[[], T]) -> T:
        """Return the result of a function. Raises ServeError if too many wait, or if it takes too long."""
        if self.count >= self.limits.max_queue:
            raise ServeError(429, "too many requests wait: try again later", code="queue_full")
        self._add(1)
        future = self.executor.submit(function)
        future.add_done_callback(lambda _: self._add(-1))  # called in a thread
        try:
            return await asyncio.wait_for(asyncio.wrap_future(future), self.limits.max_seconds)
        except TimeoutError:
            raise ServeError(504, f"the request took longer than {self.limits.max_seconds} seconds") from None

    def _add(self, number: int) -> None:
        with self._lock:
            self.count += number
