"""Errors in the form of the OpenAI protocol."""

from __future__ import annotations

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from revgen.errors import one_line
from revgen.serve.json_response import StrictJSONResponse

TYPES = {401: "authentication_error", 429: "rate_limit_error"}
"""The type of the errors with a status, if it is not one of the request or of the server."""
HEADERS = {401: {"WWW-Authenticate": "Bearer"}, 429: {"Retry-After": "1"}}


class ServeError(Exception):
    """A failure of a request: the HTTP status, a message, the parameter that is wrong, and a code for programs."""

    def __init__(self, status: int, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = one_line(message)  # it may quote a request of any content
        self.param = param
        self.code = code

    def to_dict(self) -> dict[str, dict[str, str | None]]:
        """Return the body of the response."""
        kind = TYPES.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}


def error_response(error: ServeError) -> Response:
    """Return the response for an error."""
    return StrictJSONResponse(error.to_dict(), error.status, HEADERS.get(error.status))


def add_error_handlers(app: FastAPI) -> None:
    """Let an application return all errors in this form."""

    @app.exception_handler(ServeError)
    async def on_serve_error(_: Request, error: ServeError) -> Response:
        return error_response(error)

    @app.exception_handler(HTTPException)
    async def on_http_error(_: Request, error: HTTPException) -> Response:
        return error_response(ServeError(error.status_code, error.detail))

    @app.exception_handler(Exception)
    async def on_error(_: Request, error: Exception) -> Response:
        return error_response(ServeError(500, "the server failed; its log says why"))
