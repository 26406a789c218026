"""``Engine``: a thread that continues the texts of all requests to one model together."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence

from revgen.generation.batch import Batch, Piece
from revgen.generation.decoder import Decoder
from revgen.model import Model
from revgen.serve.errors import ServeError
from revgen.serve.limits import Limits

PROMPT_TOKENS = 64
"""The number of tokens of new prompts that are read between two tokens of the other texts."""
EVENT_SECONDS, MAX_EVENTS_PER_SECOND = 0.04, 400
"""The minimum time between two events of a stream, and the limit for all streams: faster tokens are sent together."""
WAKE_SECONDS = 0.005
"""The minimum time between two calls of the event loop, for each of which this thread waits until the loop is done."""

MAX_UNREAD_PIECES = 1 << 14
"""The number of pieces that a client may leave unread, before its generation ends."""

logger = logging.getLogger("uvicorn.error")


class Generation:
    """The texts of one request, which its engine generates.

    The engine's thread adds pieces, and a task in the event loop takes them.
    """

    def __init__(self, batch: Batch, engine: Engine) -> None:
        self.batch = batch
        self.engine = engine
        self.deadline = time.monotonic() + engine.limits.max_seconds
        self.is_done = not batch.rows
        """Whether all texts have ended, and all pieces have been added."""
        self.ended: frozenset[int] = frozenset()
        """The rows that have ended, and whose pieces have been added."""
        self.error: ServeError | None = None
        self.on_first: Callable[[], None] | None = None
        """Is called when the first pieces are taken."""
        self.next_event = 0.0
        """The time from which a piece is reported."""
        self._pieces: deque[Piece] = deque()
        self._is_signaled = False
        self._event = asyncio.Event()

    def add(self, pieces: Sequence[Piece]) -> bool:
        """Add pieces in the engine's thread; return whether the event loop has to be told."""
        self._pieces.extend(pieces)
        is_new_end = len(self.batch.endings) > len(self.ended)
        if is_new_end:
            self.ended = frozenset(self.batch.endings)
            self.is_done = not self.batch.rows
        elif (now := time.monotonic()) < self.next_event:
            return False
        else:
            self.next_event = now + max(EVENT_SECONDS, self.engine.num_running / MAX_EVENTS_PER_SECOND)
        was_signaled, self._is_signaled = self._is_signaled, True
        return not was_signaled

    def problem(self, now: float) -> ServeError | None:
        """Return the reason to end the texts now, if there is one."""
        if now > self.deadline:
            return ServeError(504, f"the request took longer than {self.engine.limits.max_seconds} seconds")
        if len(self._pieces) > MAX_UNREAD_PIECES:
            return ServeError(408, "the client reads the stream too slowly")
        return None

    def fail(self, error: ServeError) -> None:
        """End all texts with an error."""
        self.error = error
        self.batch.rows = []
        self.is_done = True

    def wake(self) -> None:
        """Tell the task that waits, in the event loop."""
        self._event.set()

    async def pieces(self) -> AsyncIterator[tuple[list[Piece], frozenset[int]]]:
        """Yield the pieces that have come since the last time, and the rows that have ended, until all have.

        Raises ServeError.
        """
        while True:
            await self._event.wait()
            self._event.clear()
            self._is_signaled = False
            is_done, ended = self.is_done, self.ended  # before the pieces
            if self.error is not None:
                raise self.error
            if self.on_first is not None:
                self.on_first()
                self.on_first = None
            yield [self._pieces.popleft() for _ in range(len(self._pieces))], ended
            if is_done:
                return

    def cancel(self) -> None:
        """Stop generating, unless all texts have ended."""
        if not self.is_done:
            self.engine.cancel(self)


class Engine:
    """The requests to a model, and the thread in which it continues their texts.

    A request waits until there is room for its texts, in the order of arrival; it joins the others at the next token.
    """

    def __init__(self, model: Model, limits: Limits) -> None:
        self.model = model
        self.limits = limits
        self._queue: deque[Generation] = deque()
        self._running: dict[Batch, Generation] = {}
        self._canceled: list[Generation] = []
        self._condition = threading.Condition()
        self._is_stopping = False
        self._signaled: list[Generation] = []
        self._next_wake = 0.0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name=f"engine of {model.name}", daemon=True)

    def start(self) -> None:
        """Start the thread; the running event loop will get the texts."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    def stop(self) -> None:
        """End the thread, and with it all generations."""
        with self._condition:
            self._is_stopping = True
            self._condition.notify()
        self._thread.join()

    @property
    def is_alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    @property
    def num_waiting(self) -> int:
        """The number of requests in the queue."""
        return len(self._queue)

    @property
    def num_running(self) -> int:
        """The number of requests whose texts are generated."""
        return len(self._running)

    def submit(self, batch: Batch) -> Generation:
        """Queue the texts of a request. Raises ServeError if the queue is full."""
        with self._condition:
            if len(self._queue) >= self.limits.max_queue:
                raise ServeError(429, "the queue of this model is full: try again later", code="queue_full")
            generation = Generation(batch, self)
            if batch.rows:
                self._queue.append(generation)
                self._condition.notify()
            else:  # texts of 0 tokens
                generation.wake()
        return generation

    def cancel(self, generation: Generation) -> None:
        """Stop generating the texts of a request."""
        with self._condition:
            self._canceled.append(generation)
            self._condition.notify()

    def _run(self) -> None:
        decoder = Decoder(self.model)
        while True:
            try:
                with self._condition:
                    self._condition.wait_for(
                        lambda: self._is_stopping or self._queue or self._running or self._canceled
                    )
                    if self._is_stopping:
                        return
                    self._update(decoder)
                self._step(decoder)
            except Exception:
                logger.exception("the model failed")
                self._fail(list(self._running.values()), ServeError(500, "the model failed; the log says why"))
                self._running.clear()
                decoder = Decoder(self.model)

    def _update(self, decoder: Decoder) -> None:
        """Remove requests whose clients have left or whose time is over, and admit others."""
        now = time.monotonic()
        failed = [(g, e) for g in (*self._queue, *self._running.values()) if (e := g.problem(now)) is not None]
        for generation in (*self._canceled, *(generation for generation, _ in failed)):
            if self._running.pop(generation.batch, None) is not None:
                decoder.remove(generation.batch)
            elif generation in self._queue:
                self._queue.remove(generation)
        self._canceled.clear()
        for generation, error in failed:
            self._fail([generation], error)
        while self._queue and (not decoder.num_rows or self._fits(decoder, self._queue[0])):
            generation = self._queue.popleft()
            self._running[generation.batch] = generation
            decoder.add(generation.batch)

    def _fits(self, decoder: Decoder, generation: Generation) -> bool:
        return decoder.num_rows + len(generation.batch.rows) <= self.limits.max_batch

    def _step(self, decoder: Decoder) -> None:
        """Append one token to each text, and tell the requests about it."""
        if not self._running:
            return
        decoder.read_prompts(PROMPT_TOKENS)
        if not decoder.batches:
            return
        for batch, pieces in decoder.sample():
            generation = self._running[batch] if batch.rows else self._running.pop(batch)
            if generation.add(pieces):
                self._signaled.append(generation)
        if time.monotonic() >= self._next_wake or not decoder.batches:
            self._notify()
        decoder.forward()

    def _fail(self, generations: Sequence[Generation], error: ServeError) -> None:
        for generation in generations:
            generation.fail(error)
        self._signaled += generations
        self._notify()

    def _notify(self) -> None:
        """Wake the tasks that wait for requests with news."""
        if self._signaled:
            assert self._loop is not None
            self._loop.call_soon_threadsafe(wake_all, self._signaled)
            self._signaled, self._next_wake = [], time.monotonic() + WAKE_SECONDS


def wake_all(generations: Sequence[Generation]) -> None:
    """Tell the tasks that wait for these requests."""
    for generation in generations:
        generation.wake()
