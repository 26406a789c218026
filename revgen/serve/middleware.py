"""``Gate``: the middleware that checks and counts each request."""

from __future__ import annotations

import asyncio
import hmac
import time
from collections.abc import Mapping

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from revgen.serve.errors import ServeError, error_response
from revgen.serve.limits import Limits
from revgen.serve.metrics import Metrics

OPEN_PATHS = ("/", "/health", "/docs", "/openapi.json")
"""The paths that need no API key."""
MAX_DISCARDED = 8
"""How many times the largest body are read of a body that is too large, before the connection ends."""


class Gate:
    """Refuses requests without the API key and requests with a large or slow body, and counts all of them."""

    def __init__(self, app: ASGIApp, api_key: str | None, limits: Limits, metrics: Metrics) -> None:
        self.app = app
        self.authorization = None if api_key is None else f"Bearer {api_key}".encode()
        self.limits = limits
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start, status = time.perf_counter(), 500
        body = Body(receive, self.limits)

        async def counted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if not body.is_complete and not await body.discard():
                    message["headers"] = [*message["headers"], (b"connection", b"close")]
            await send(message)

        try:
            self._check(scope["path"], dict(scope["headers"]))
            await self.app(scope, body.receive, counted)
        except ServeError as error:
            await error_response(error)(scope, body.receive, counted)
        finally:
            route = scope.get("route")
            self.metrics.requests.labels(getattr(route, "path", "other"), status).inc()
            self.metrics.seconds.observe(time.perf_counter() - start)

    def _check(self, path: str, headers: Mapping[bytes, bytes]) -> None:
        given = headers.get(b"authorization", b"")
        is_open = self.authorization is None or path in OPEN_PATHS
        if not is_open and not hmac.compare_digest(given, self.authorization or b""):
            raise ServeError(401, "the API key is missing or wrong", code="invalid_api_key")
        length = headers.get(b"content-length", b"0")
        check_size(int(length) if length.isdigit() else 0, self.limits)


class Body:
    """The body of a request, which must have arrived ``max_client_seconds`` after the head."""

    def __init__(self, receive: Receive, limits: Limits) -> None:
        self.limits = limits
        self.size = 0
        self.is_complete = False
        self._receive = receive
        self._deadline = asyncio.get_running_loop().time() + limits.max_client_seconds

    async def receive(self) -> Message:
        """Return the next part of the body, or wait until the client leaves. Raises ServeError."""
        if self.is_complete:
            return await self._receive()
        try:
            message = await self._next()
        except TimeoutError:
            text = f"the body of the request did not arrive within {self.limits.max_client_seconds} seconds"
            raise ServeError(408, text) from None
        check_size(self.size, self.limits)
        return message

    async def discard(self) -> bool:
        """Read the rest, because many clients read a response after they have sent all; return whether it has come."""
        try:
            while not self.is_complete and self.size < MAX_DISCARDED * self.limits.max_body_bytes:
                await self._next()
        except TimeoutError:
            pass
        return self.is_complete

    async def _next(self) -> Message:
        async with asyncio.timeout_at(self._deadline):
            message = await self._receive()
        self.size += len(message.get("body", b""))
        self.is_complete = not message.get("more_body", False)
        return message


def check_size(size: int, limits: Limits) -> None:
    """Raise ServeError if a body of this size is too large."""
    if size > limits.max_body_bytes:
        raise ServeError(413, f"the body of a request may have at most {limits.max_body_bytes} bytes")
