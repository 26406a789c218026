"""``create_app``: the HTTP interface, a FastAPI application."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from numpy.typing import NDArray
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from revgen.errors import RevgenError
from revgen.evaluation.embeddings import embed
from revgen.language_model import LanguageModel
from revgen.serve.background import Background
from revgen.serve.completions import start_completion
from revgen.serve.engine import Engine
from revgen.serve.errors import ServeError, add_error_handlers
from revgen.serve.json_response import StrictJSONResponse
from revgen.serve.limits import Limits
from revgen.serve.metrics import Metrics
from revgen.serve.middleware import Gate
from revgen.serve.page import add_page_routes
from revgen.serve.prompts import encode_prompts
from revgen.serve.schema import CompletionRequest, EmbeddingRequest, add_schemas, describe_body, parse_body
from revgen.version import __version__


def create_app(
    models: Mapping[str, LanguageModel], *, api_key: str | None = None, limits: Limits | None = None
) -> FastAPI:
    """Return an application that serves models by name, for any ASGI server, such as uvicorn.

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

    app = FastAPI(
        title="revgen",
        version=__version__,
        lifespan=lifespan,
        redoc_url=None,
        default_response_class=StrictJSONResponse,
    )
    metrics = Metrics(engines)
    app.add_middleware(Gate, api_key=api_key, limits=limits, metrics=metrics)
    add_error_handlers(app)
    add_schemas(app)
    add_status_routes(app, engines, metrics)
    add_model_routes(app, engines, metrics, Background(limits))
    add_page_routes(app, engines)
    return app


def add_status_routes(app: FastAPI, engines: Mapping[str, Engine], metrics: Metrics) -> None:
    """Add the paths that describe the server."""
    created = int(time.time())

    def describe(name: str) -> dict[str, Any]:
        return {"id": name, "object": "model", "created": created, "owned_by": "revgen"}

    @app.get("/health")
    async def health() -> dict[str, str]:
        """Return whether the server can answer requests."""
        if not all(engine.is_alive for engine in engines.values()):
            raise ServeError(503, "the server has to be restarted: a thread has ended")
        return {"status": "ok"}

    @app.get("/metrics")
    async def get_metrics() -> Response:
        """Return what the server has counted, for Prometheus."""
        return Response(metrics.render(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.get("/v1/models")
    async def list_models() -> dict[str, Any]:
        """List the models."""
        return {"object": "list", "data": [describe(name) for name in engines]}

    @app.get("/v1/models/{name:path}")
    async def get_model(name: str) -> dict[str, Any]:
        """Describe one model."""
        find_engine(engines, name)
        return describe(name)

    @app.post("/completions", include_in_schema=False)
    @app.post("/embeddings", include_in_schema=False)
    @app.get("/models", include_in_schema=False)
    async def explain_base_url(request: Request) -> None:
        """Answer a client whose base URL lacks ``/v1``."""
        raise ServeError(404, f"use the base URL {request.base_url}v1", code="unknown_url")


def add_model_routes(app: FastAPI, engines: Mapping[str, Engine], metrics: Metrics, background: Background) -> None:
    """Add the paths that use a model."""

    @app.post("/v1/completions", openapi_extra=describe_body("CompletionRequest"))
    async def complete(request: Request) -> Response:
        """Continue prompts."""
        body = await parse_body(request, CompletionRequest)
        start = time.perf_counter()
        completion = await start_completion(find_engine(engines, body.model), body, background)
        completion.generation.on_first = lambda: metrics.first_token.observe(time.perf_counter() - start)

        def close() -> None:
            completion.generation.cancel()
            metrics.count_tokens(body.model, completion.usage())

        if body.stream:
            return EventStream(completion.events(), close)
        try:
            return StrictJSONResponse(await unless_disconnected(request, completion.response()))
        finally:
            close()

    @app.post("/v1/embeddings", openapi_extra=describe_body("EmbeddingRequest"))
    async def create_embeddings(request: Request) -> Response:
        """Return a vector for each text."""
        body = await parse_body(request, EmbeddingRequest)
        engine = find_engine(engines, body.model)

        def compute() -> tuple[int, NDArray[np.float32]]:
            prompts = encode_prompts(engine.model, body.input, "input", engine.limits)
            vectors = embed(engine.model, [prompt.text for prompt in prompts], body.pool or "mean")
            return sum(len(prompt.ids) for prompt in prompts), vectors

        try:
            count, vectors = await background.run(compute)
        except RevgenError as error:
            raise ServeError(400, str(error), param="model") from None
        if not np.isfinite(vectors).all():
            raise ServeError(400, "the model has no vector of finite numbers for this text", param="input")
        encoded = [to_base64(v) for v in vectors] if body.encoding_format == "base64" else vectors.tolist()
        data = [{"object": "embedding", "index": i, "embedding": vector} for i, vector in enumerate(encoded)]
        usage = {"prompt_tokens": count, "total_tokens": count}
        return StrictJSONResponse({"object": "list", "data": data, "model": body.model, "usage": usage})

    @app.post("/v1/chat/completions")
    @app.post("/v1/responses")
    async def chat() -> None:
        """Answer that these models continue texts, and hold no conversations."""
        message = "these models continue texts and know no chat format: use /v1/completions"
        raise ServeError(404, message, code="unsupported_endpoint")


def find_engine(engines: Mapping[str, Engine], name: str) -> Engine:
    """Return the engine of a model. Raises ServeError if there is none."""
    if name not in engines:
        message = f"the model {name!r} does not exist; /v1/models lists those that do"
        raise ServeError(404, message, param="model", code="model_not_found")
    return engines[name]


def to_base64(vector: NDArray[np.float32]) -> str:
    """Return a vector in the binary form of the protocol."""
    return base64.b64encode(vector.astype("<f4").tobytes()).decode()


class EventStream(StreamingResponse):
    """Server-sent events; ``close`` is called when they have ended, or when the client leaves."""

    def __init__(self, events: AsyncIterator[str], close: Callable[[], None]) -> None:
        super().__init__(events, media_type="text/event-stream")
        self.close = close

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self.close()


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
