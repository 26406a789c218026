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
EVENT_SECONDS = 0.01
"""The minimum time between two events of a stream: faster tokens are sent together."""

logger = logging.getLogger("uvicorn.error")


class Generation:
    """The texts of one request, which its engine generates.

    The engine's thread adds pieces, and the event loop takes them.
    """

    def __init__(self, batch: Batch, engine: Engine) -> None:
        self.batch = batch
        self.engine = engine
        self.deadline = time.monotonic() + engine.limits.max_seconds
        self.num_ended = 0
        self.error: ServeError | None = None
        self._pieces: list[Piece] = []
        self._is_signaled = False
        self._event = asyncio.Event()

    def add(self, pieces: Sequence[Piece]) -> bool:
        """Add pieces; return whether the event loop has to be told, which is in the engine's thread."""
        num_ended = len(self.batch.endings)
        if not pieces and num_ended == self.num_ended:
            return False
        self.num_ended = num_ended
        self._pieces += pieces
        was_signaled, self._is_signaled = self._is_signaled, True
        return not was_signaled

    def wake(self) -> None:
        """Tell the task that waits, in the event loop."""
        self._event.set()

    @property
    def is_done(self) -> bool:
        """Whether all texts have ended."""
        return not self.batch.rows

    async def pieces(self) -> AsyncIterator[list[Piece]]:
        """Yield the pieces of text that have come since the last time, until all texts have ended.

        Raises ServeError. A consumer that stops early stops the generation.
        """
        try:
            while True:
                await self._event.wait()
                self._event.clear()
                self._is_signaled = False
                is_done = self.is_done  # before the pieces are taken
                if self.error is not None:
                    raise self.error
                pieces, self._pieces = self._pieces, []
                yield pieces
                if is_done:
                    return
                await asyncio.sleep(EVENT_SECONDS)
        finally:
            if not self.is_done:
                self.engine.cancel(self)


class Engine:
    """The requests to a model, and the thread in which it continues their texts.

    A request waits until there is room for its texts, in the order of arrival; it joins the others at the next token.
    """

    def __init__(self, model: Model, limits: Limits) -> None:
        self.model = model
        self.limits = limits
        self.tokens_generated = 0
        self._queue: deque[Generation] = deque()
        self._running: dict[Batch, Generation] = {}
        self._canceled: list[Generation] = []
        self._condition = threading.Condition()
        self._is_stopping = False
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
            self._queue.append(generation)
            self._condition.notify()
        return generation

    def cancel(self, generation: Generation) -> None:
        """Stop generating the texts of a request."""
        with self._condition:
            self._canceled.append(generation)
            self._condition.notify()

    def _run(self) -> None:
        decoder = Decoder(self.model)
        while True:
            with self._condition:
                self._condition.wait_for(lambda: self._is_stopping or self._queue or self._running or self._canceled)
                if self._is_stopping:
                    return
                self._update(decoder)
            try:
                self._step(decoder)
            except Exception:
                logger.exception("the model failed")
                self._fail(list(self._running.values()), ServeError(500, "the model failed; the log says why"))
                self._running.clear()
                decoder = Decoder(self.model)

    def _update(self, decoder: Decoder) -> None:
        """Remove requests whose clients have left or whose time is over, and admit others."""
        now = time.monotonic()
        late = [g for g in (*self._queue, *self._running.values()) if now > g.deadline]
        for generation in (*self._canceled, *late):
            if self._running.pop(generation.batch, None) is not None:
                decoder.remove(generation.batch)
            elif generation in self._queue:
                self._queue.remove(generation)
        self._canceled.clear()
        self._fail(late, ServeError(504, f"the request took longer than {self.limits.max_seconds} seconds"))
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
        results = decoder.sample()
        self._notify([g for batch, pieces in results if (g := self._running[batch]).add(pieces)])
        for batch, _ in results:
            self.tokens_generated += len(batch.rows)
            if not batch.rows:
                del self._running[batch]
        decoder.forward()

    def _fail(self, generations: Sequence[Generation], error: ServeError) -> None:
        for generation in generations:
            generation.error = error
            generation.batch.rows = []
        self._notify(generations)

    def _notify(self, generations: Sequence[Generation]) -> None:
        if generations:
            assert self._loop is not None
            self._loop.call_soon_threadsafe(wake_all, [generation.wake for generation in generations])


def wake_all(wakes: Sequence[Callable[[], None]]) -> None:
    """Call each function."""
    for wake in wakes:
        wake()
