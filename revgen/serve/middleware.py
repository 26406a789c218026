"""``Gate``: the middleware that checks and counts each request."""

from __future__ import annotations

import hmac
import time
from collections.abc import Mapping

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from revgen.serve.errors import ServeError, error_response
from revgen.serve.metrics import Metrics

OPEN_PATHS = ("/", "/health", "/docs", "/openapi.json")
"""The paths that need no API key."""


class Gate:
    """Refuses requests without the API key and requests with a large body, and counts all of them."""

    def __init__(self, app: ASGIApp, api_key: str | None, max_body_bytes: int, metrics: Metrics) -> None:
        self.app = app
        self.authorization = None if api_key is None else f"Bearer {api_key}".encode()
        self.max_body_bytes = max_body_bytes
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start, status, size = time.perf_counter(), 500, 0

        async def counted(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        async def limited() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            self._check_size(size)
            return message

        try:
            self._check(scope["path"], dict(scope["headers"]))
            await self.app(scope, limited, counted)
        except ServeError as error:
            await discard_body(
                receive, 8 * self.max_body_bytes
            )  # many clients read the response after they have sent it
            await error_response(error)(scope, receive, counted)
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
        self._check_size(int(length) if length.isdigit() else 0)

    def _check_size(self, size: int) -> None:
        if size > self.max_body_bytes:
            raise ServeError(413, f"the body of a request may have at most {self.max_body_bytes} bytes")


async def discard_body(receive: Receive, max_bytes: int) -> None:
    """Read the rest of a body, or its next ``max_bytes``."""
    size, is_open = 0, True
    while is_open and size < max_bytes:
        message = await receive()
        size += len(message.get("body", b""))
        is_open = message.get("more_body", False)
