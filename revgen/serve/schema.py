"""The requests of the OpenAI protocol. Their options for generation are those of ``GenerationConfig``."""

from __future__ import annotations

import dataclasses
import json
from typing import Annotated, Any, get_type_hints

from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model
from pydantic.json_schema import models_json_schema
from starlette.requests import Request as HttpRequest

from revgen.generation.config import SEED_LIMIT, GenerationConfig
from revgen.registry import unknown_name_message
from revgen.serve.errors import ServeError

NOT_IN_JSON = {"guide", "filters", "forced_tokens", "check_novelty", "num_beams", "length_penalty"}
"""The options that a request cannot have."""
MAX_STOPS = 64
JSON_TYPES: dict[str, Any] = {
    "temperature": float,
    "logit_bias": dict[str, float] | None,
    "banned_tokens": list[int | str] | None,
    "stop": str | Annotated[list[str], Field(max_length=MAX_STOPS)] | None,
    "choices": list[str] | None,
}
"""The types of options for which JSON has no such type, or of which a request can have only one form."""
SHOULD_BE = "Input should be "
"""The beginning of Pydantic's messages about a value of the wrong type or range."""
MAX_ID_DIGITS = 10
DEFAULT_MAX_TOKENS = 16
"""The default of the OpenAI protocol."""

Prompt = str | list[str] | list[int] | list[list[int]]


class Request(BaseModel):
    """A request; an unknown field is an error."""

    model_config = ConfigDict(extra="forbid", strict=True, protected_namespaces=())


class StreamOptions(Request):
    """The options of a stream."""

    include_usage: bool | None = Field(None, description="Send the number of tokens in a last event.")
    include_obfuscation: bool | None = Field(None, description="Has no effect.")


class CompletionFields(Request):
    """The fields of a completion that are not options of ``generate``."""

    model: str = Field(description="The name of a model; /v1/models lists them.")
    prompt: Prompt | None = Field(
        None,
        description="The text to continue, or its token ids, or a list of several. "
        "Without it, the text begins with the prompt of the model.",
    )
    n: int | None = Field(1, ge=1, description="The number of texts for each prompt.")
    stream: bool | None = Field(False, description="Send the text in pieces, as server-sent events.")
    stream_options: StreamOptions | None = None
    echo: bool | None = Field(False, description="Return the prompt before its continuation.")
    logprobs: int | None = Field(
        None, ge=0, le=20, description="Return the log-probability of each token, and this number of alternatives."
    )
    best_of: int | None = Field(None, description="Only null and the value of n are possible.")
    suffix: str | None = Field(None, description="Only null and an empty text are possible.")
    user: str | None = Field(None, description="Has no effect.")


def _option_fields() -> dict[str, Any]:
    hints = get_type_hints(GenerationConfig) | JSON_TYPES
    fields: dict[str, Any] = {}
    for option in dataclasses.fields(GenerationConfig):
        if option.name not in NOT_IN_JSON:
            default = DEFAULT_MAX_TOKENS if option.name == "max_tokens" else option.default
            limits: Any = {"ge": 0, "lt": SEED_LIMIT} if option.name == "seed" else {}
            own = "" if default is None else f" The default is {json.dumps(default)}, unless the model has its own."
            field: Any = Field(None, description=f"{option.metadata['help']}{own}", **limits)
            fields[option.name] = (hints[option.name] | None, field)
    return fields


OPTION_FIELDS = _option_fields()
CompletionRequest: Any = create_model("CompletionRequest", __base__=CompletionFields, **OPTION_FIELDS)


class EmbeddingRequest(Request):
    """A request for vectors of texts."""

    model: str = Field(description="The name of a model; /v1/models lists them.")
    input: Prompt = Field(description="A text, or its token ids, or a list of several.")
    encoding_format: str | None = Field("float", pattern="^(float|base64)$", description="float or base64.")
    dimensions: None = Field(None, description="Only null is possible: the model determines the size.")
    pool: str | None = Field("mean", pattern="^(mean|last)$", description="The mean over all tokens, or the last.")
    user: str | None = Field(None, description="Has no effect.")


async def parse_body(request: HttpRequest, schema: type[BaseModel]) -> Any:
    """Return the body of a request. Raises ServeError unless it is JSON that fits the schema."""
    if "json" not in request.headers.get("content-type", ""):
        raise ServeError(415, "the body must be JSON, with the header Content-Type: application/json")
    try:
        return schema.model_validate_json(await request.body())
    except ValidationError as error:
        raise _request_error(error, schema) from None


def _request_error(error: ValidationError, schema: type[BaseModel]) -> ServeError:
    first, *others = error.errors(include_url=False, include_input=False, include_context=False)
    if not first["loc"]:
        return ServeError(400, first["msg"])
    param = str(first["loc"][0])
    if first["type"] == "extra_forbidden" and len(first["loc"]) == 1:
        return ServeError(400, unknown_name_message("field", param, schema.model_fields), param=param)
    # A field of several types has an error for each of them.
    messages = [first["msg"], *(other["msg"] for other in others if other["loc"][0] == param)]
    for message in messages:
        if not message.startswith(SHOULD_BE):
            return ServeError(400, f"{param}: {message}", param=param)
    expected = dict.fromkeys(message.removeprefix(SHOULD_BE) for message in messages)
    return ServeError(400, f"{param} must be {' or '.join(expected)}", param=param)


def describe_body(name: str) -> dict[str, Any]:
    """Return the OpenAPI description of a body that ``parse_body`` reads."""
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}}}
    return {"requestBody": {"required": True, "content": content}}


def add_schemas(app: FastAPI) -> None:
    """Add the schemas of the bodies to the OpenAPI document of an application."""
    make = app.openapi
    models: Any = [(CompletionRequest, "validation"), (EmbeddingRequest, "validation")]

    def openapi() -> dict[str, Any]:
        document = make()
        _, schemas = models_json_schema(models, ref_template="#/components/schemas/{model}")
        document.setdefault("components", {}).setdefault("schemas", {}).update(schemas["$defs"])
        return document

    app.openapi = openapi  # type: ignore[method-assign]


def generation_options(request: Any) -> dict[str, Any]:
    """Return the options that a request gives, for ``GenerationConfig``."""
    values = {name: getattr(request, name) for name in OPTION_FIELDS}
    options = {name: value for name, value in values.items() if value is not None}
    if "logit_bias" in options:
        options["logit_bias"] = {token_id(key): bias for key, bias in options["logit_bias"].items()}
    return options


def token_id(key: str) -> int:
    """Return the token id that is a key of ``logit_bias``. Raises ServeError."""
    if not (key.isascii() and key.isdigit() and len(key) < MAX_ID_DIGITS):
        raise ServeError(400, f"logit_bias must have token ids as keys, not {key[:20]!r}", param="logit_bias")
    return int(key)
