"""``Connection``: HTTP/1.1 that does not wait forever for a slow client, unlike uvicorn's own."""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


class Connection(HttpToolsProtocol):
    """A connection that ends if the client takes longer than ``max_seconds`` to send the head of a request or to read.

    ``serve.middleware`` limits the time for the body.
    """

    max_seconds: float
    _reading: asyncio.TimerHandle | None = None
    _writing: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._reading = self._start_timer()

    def on_message_begin(self) -> None:
        """Expect the rest of the head."""
        super().on_message_begin()
        stop_timer(self._reading)
        self._reading = self._start_timer()

    def on_headers_complete(self) -> None:
        """Let the application wait for the body."""
        stop_timer(self._reading)
        super().on_headers_complete()

    def pause_writing(self) -> None:
        """Expect the client to read what has been sent: the buffer is full."""
        super().pause_writing()
        self._writing = self._start_timer()

    def resume_writing(self) -> None:
        """Send more."""
        stop_timer(self._writing)
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the application."""
        stop_timer(self._reading)
        stop_timer(self._writing)
        super().connection_lost(exc)

    def _start_timer(self) -> asyncio.TimerHandle:
        return self.loop.call_later(self.max_seconds, self.transport.abort)


def stop_timer(timer: asyncio.TimerHandle | None) -> None:
    """Cancel a timer, if there is one."""
    if timer is not None:
        timer.cancel()


def connection_class(max_seconds: float) -> type[Connection]:
    """Return ``Connection`` with this limit."""
    return type("Connection", (Connection,), {"max_seconds": max_seconds})
