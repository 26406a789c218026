"""``create_app``: the HTTP interface, a FastAPI application."""

from __future__ import annotations

import asyncio
import base64
import hmac
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, StreamingResponse
from numpy.typing import NDArray
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from revgen.errors import RevgenError
from revgen.evaluation.embeddings import embed
from revgen.language_model import LanguageModel
from revgen.serve.completions import encode_prompts, start_completion
from revgen.serve.engine import Engine
from revgen.serve.errors import ServeError
from revgen.serve.limits import Limits
from revgen.serve.schema import CompletionRequest, EmbeddingRequest
from revgen.version import __version__

OPEN_PATHS = ("/", "/health", "/docs", "/openapi.json")
"""The paths that need no API key."""


def create_app(
    models: Mapping[str, LanguageModel], *, api_key: str | None = None, limits: Limits | None = None
) -> FastAPI:
    """Return an application that serves models by name; it is run by any ASGI server, such as uvicorn.

    With ``api_key``, requests to the API must have the header ``Authorization: Bearer <api_key>``.
    """
    limits = limits or Limits()
    engines = {name: Engine(model, limits) for name, model in models.items()}

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        for engine in engines.values():
            engine.start()
        yield
        for engine in engines.values():
            engine.stop()

    app = FastAPI(title="revgen", version=__version__, lifespan=lifespan, redoc_url=None)
    app.state.engines = engines
    app.add_middleware(Gate, api_key=api_key, max_body_bytes=limits.max_body_bytes)
    add_error_handlers(app)
    add_routes(app, engines)
    return app


def add_routes(app: FastAPI, engines: Mapping[str, Engine]) -> None:
    """Add the paths of the protocol."""
    created = int(time.time())

    def engine_of(name: str) -> Engine:
        if name not in engines:
            message = f"the model {name!r} does not exist; /v1/models lists those that do"
            raise ServeError(404, message, param="model", code="model_not_found")
        return engines[name]

    def describe(name: str) -> dict[str, Any]:
        return {"id": name, "object": "model", "created": created, "owned_by": "revgen"}

    @app.get("/health")
    async def health() -> dict[str, str]:
        """Return that the server is ready."""
        return {"status": "ok"}

    @app.get("/v1/models")
    async def list_models() -> dict[str, Any]:
        """List the models."""
        return {"object": "list", "data": [describe(name) for name in engines]}

    @app.get("/v1/models/{name:path}")
    async def get_model(name: str) -> dict[str, Any]:
        """Describe one model."""
        engine_of(name)
        return describe(name)

    @app.post("/v1/completions")
    async def complete(body: CompletionRequest, request: Request) -> Response:
        """Continue prompts."""
        completion = await start_completion(engine_of(body.model), body)
        if body.stream:
            return StreamingResponse(completion.events(), media_type="text/event-stream")
        return JSONResponse(await unless_disconnected(request, completion.response()))

    @app.post("/v1/embeddings")
    async def create_embeddings(body: EmbeddingRequest) -> dict[str, Any]:
        """Return a vector for each text."""
        engine = engine_of(body.model)
        prompts = encode_prompts(engine.model, body.input, "input", engine.limits)
        texts = [text for text, _, _ in prompts]
        try:
            vectors = await asyncio.to_thread(embed, engine.model, texts, body.pool or "mean")
        except RevgenError as error:
            raise ServeError(400, str(error), param="model") from None
        count = sum(len(ids) for _, ids, _ in prompts)
        is_base64 = body.encoding_format == "base64"
        encoded = [to_base64(vector) for vector in vectors] if is_base64 else vectors.tolist()
        data = [{"object": "embedding", "index": i, "embedding": vector} for i, vector in enumerate(encoded)]
        usage = {"prompt_tokens": count, "total_tokens": count}
        return {"object": "list", "data": data, "model": body.model, "usage": usage}

    @app.post("/v1/chat/completions")
    async def chat() -> None:
        """Answer that these models continue texts, and hold no conversations."""
        message = "these models continue texts and know no chat format: use /v1/completions"
        raise ServeError(404, message, code="unsupported_endpoint")


def to_base64(vector: NDArray[np.float32]) -> str:
    """Return a vector in the binary form of the protocol."""
    return base64.b64encode(vector.astype("<f4").tobytes()).decode()


async def unless_disconnected(request: Request, work: Awaitable[Any]) -> Any:
    """Return the result of some work; cancel it if the client leaves."""

    async def listen() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    tasks = [asyncio.ensure_future(work), asyncio.ensure_future(listen())]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if not tasks[0].done():
            raise ServeError(499, "the client has left")
        return tasks[0].result()
    finally:
        for task in tasks:
            task.cancel()


def add_error_handlers(app: FastAPI) -> None:
    """Return all errors in the form of the protocol."""

    def respond(error: ServeError) -> Response:
        headers = {"WWW-Authenticate": "Bearer"} if error.status == 401 else {}
        return JSONResponse(error.to_dict(), error.status, headers)

    @app.exception_handler(ServeError)
    async def on_serve_error(_: Request, error: ServeError) -> Response:
        return respond(error)

    @app.exception_handler(RequestValidationError)
    async def on_invalid(_: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        path = [str(part) for part in first["loc"] if part != "body"]
        param = path[0] if path and first["type"] != "json_invalid" else None
        return respond(ServeError(400, f"{'.'.join(path)}: {first['msg']}" if path else first["msg"], param=param))

    @app.exception_handler(HTTPException)
    async def on_http_error(_: Request, error: HTTPException) -> Response:
        return respond(ServeError(error.status_code, error.detail))

    @app.exception_handler(Exception)
    async def on_error(_: Request, error: Exception) -> Response:
        return respond(ServeError(500, "the server failed; its log says why"))


class Gate:
    """Middleware that refuses requests without the API key, and requests with a large body."""

    def __init__(self, app: ASGIApp, api_key: str | None, max_body_bytes: int) -> None:
        self.app = app
        self.authorization = None if api_key is None else f"Bearer {api_key}".encode()
        self.max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        try:
            self._check(scope["path"], headers)
        except ServeError as error:
            await JSONResponse(error.to_dict(), error.status)(scope, receive, send)
            return
        await self.app(scope, self._limit(receive), send)

    def _check(self, path: str, headers: Mapping[bytes, bytes]) -> None:
        given = headers.get(b"authorization", b"")
        is_open = self.authorization is None or path in OPEN_PATHS
        if not is_open and not hmac.compare_digest(given, self.authorization or b""):
            raise ServeError(401, "the API key is missing or wrong", code="invalid_api_key")
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and int(length) > self.max_body_bytes:
            raise ServeError(413, f"the body of a request may have {self.max_body_bytes} bytes")

    def _limit(self, receive: Receive) -> Callable[[], Awaitable[Message]]:
        size = 0

        async def limited() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > self.max_body_bytes:
                raise ServeError(413, f"the body of a request may have {self.max_body_bytes} bytes")
            return message

        return limited
