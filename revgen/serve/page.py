"""The page of the server: the exported page, with the models of the server."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from fastapi import FastAPI
from starlette.responses import HTMLResponse

from revgen.browser.page import describe_model, make_server_page
from revgen.serve.engine import Engine


def add_page_routes(app: FastAPI, engines: Mapping[str, Engine]) -> None:
    """Add the page, and the descriptions of the models for it."""
    make = cache(make_server_page)

    @app.get("/", include_in_schema=False)
    async def page() -> HTMLResponse:
        """Return the page, which needs no API key and holds nothing about the models."""
        return HTMLResponse(make(), headers={"Cache-Control": "no-cache"})

    @app.get("/page/models", include_in_schema=False)
    async def models() -> list[dict[str, Any]]:
        """Describe the models to the page."""
        return [describe_for_page(name, engine) for name, engine in engines.items()]


def describe_for_page(name: str, engine: Engine) -> dict[str, Any]:
    """Return the description of a model under the name by which requests ask for it."""
    description = describe_model(engine.model)
    weights_bytes = sum(array.nbytes for array in engine.model.weights.values())
    limit = min(engine.limits.max_tokens, 10_000)
    defaults = description["defaults"]
    defaults |= {"max_length": limit, "max_tokens": min(defaults["max_tokens"], limit)}
    return description | {
        "name": name,
        "defaults": defaults,
        "info": description["info"] | {"weights_bytes": weights_bytes},
    }
