"""Completions: from a request to texts for the engine, and from their pieces to a response."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from revgen.errors import RevgenError
from revgen.generation.batch import Batch
from revgen.generation.config import GenerationConfig
from revgen.generation.constraints import Constraints
from revgen.model import Model
from revgen.serve.engine import Engine, Generation
from revgen.serve.errors import ServeError
from revgen.serve.limits import Limits
from revgen.serve.schema import OPTION_FIELDS, Prompt, generation_options, split_prompts

SLOW_OPTIONS = {"regex", "choices", "max_copied_chars"}
"""The options whose preparation may take long, and is done in a thread of its own."""


@dataclass
class Completion:
    """The texts of one request."""

    request: Any
    prompts: list[str]
    """The text of each prompt."""
    prompt_tokens: int
    batch: Batch
    generation: Generation

    def __post_init__(self) -> None:
        self.id = f"cmpl-{secrets.token_hex(12)}"
        self.created = int(time.time())

    def body(self, choices: list[dict[str, Any]], *, with_usage: bool = True) -> dict[str, Any]:
        """Return a response, or the data of an event."""
        head = {"id": self.id, "object": "text_completion", "created": self.created, "model": self.request.model}
        return head | {"choices": choices} | ({"usage": self.usage()} if with_usage else {})

    def usage(self) -> dict[str, int]:
        """Return the numbers of tokens."""
        generated = sum(count for _, count in self.batch.endings.values())
        total = self.prompt_tokens + generated
        return {"prompt_tokens": self.prompt_tokens, "completion_tokens": generated, "total_tokens": total}

    def choice(self, row: int, text: str, finish_reason: str | None) -> dict[str, Any]:
        """Return one text, or a piece of it."""
        return {"index": row, "text": text, "logprobs": None, "finish_reason": finish_reason}

    def finish_reason(self, row: int) -> str:
        """Return why a text has ended."""
        return self.batch.endings.get(row, ("length", 0))[0]  # a text of 0 tokens has no ending

    def echo(self, row: int) -> str:
        """Return the prompt of a text if the request asks for it."""
        return self.prompts[row // self.batch.n] if self.request.echo else ""

    async def response(self) -> dict[str, Any]:
        """Return the response, when all texts have ended."""
        texts = [self.echo(row) for row in range(len(self.batch.lengths))]
        async for pieces in self.generation.pieces():
            for row, piece in pieces:
                texts[row] += piece
        return self.body([self.choice(row, text, self.finish_reason(row)) for row, text in enumerate(texts)])

    async def events(self) -> AsyncIterator[str]:
        """Yield server-sent events, at least one for each text, and the end of the stream."""
        pieces = {row: prompt for row in range(len(self.batch.lengths)) if (prompt := self.echo(row))}
        open_rows = set(range(len(self.batch.lengths)))
        try:
            async for new in self.generation.pieces():
                for row, piece in new:
                    pieces[row] = pieces.get(row, "") + piece
                for row in sorted(pieces.keys() | (open_rows & self.batch.endings.keys())):
                    reason = self.batch.endings[row][0] if row in self.batch.endings else None
                    if reason is not None:
                        open_rows.discard(row)
                    yield event(self.body([self.choice(row, pieces.get(row, ""), reason)], with_usage=False))
                pieces = {}
            for row in sorted(open_rows):
                yield event(self.body([self.choice(row, "", self.finish_reason(row))], with_usage=False))
        except ServeError as error:
            yield event(error.to_dict())
            return
        if self.request.stream_options is not None and self.request.stream_options.include_usage:
            yield event(self.body([]))
        yield "data: [DONE]\n\n"


def event(data: dict[str, Any]) -> str:
    """Return a server-sent event."""
    return f"data: {json.dumps(data, ensure_ascii=False)}\n\n"


async def start_completion(engine: Engine, request: Any) -> Completion:
    """Check a request and submit its texts. Raises ServeError."""
    slow = any(getattr(request, name) is not None for name in SLOW_OPTIONS)
    prepare = asyncio.to_thread(prepare_batch, engine, request) if slow else None
    prompts, batch = prepare_batch(engine, request) if prepare is None else await prepare
    count = sum(len(ids) for _, ids in prompts)
    return Completion(request, [text for text, _ in prompts], count, batch, engine.submit(batch))


def prepare_batch(engine: Engine, request: Any) -> tuple[list[tuple[str, list[int]]], Batch]:
    """Return the text and the ids of each prompt, and the texts to generate. Raises ServeError."""
    model, limits = engine.model, engine.limits
    n = request.n or 1
    if request.best_of not in (None, n):
        raise ServeError(400, f"best_of must be null or n, {n}", param="best_of")
    prompts = encode_prompts(model, request.prompt, "prompt", limits, n)
    if (request.max_tokens or 0) > limits.max_tokens:
        raise ServeError(400, f"max_tokens must be at most {limits.max_tokens}", param="max_tokens")
    try:
        constraints = Constraints(model, GenerationConfig.from_kwargs(**generation_options(request)))
        begun = [
            constraints.begin(text, [model.tokenizer.bos_id, *ids])
            if is_text
            else ([model.tokenizer.bos_id, *ids], constraints.initial_state(text))
            for text, ids, is_text in prompts
        ]
        batch = Batch(model, constraints, begun, n, whole=not request.stream)
    except RevgenError as error:
        message = str(error)
        name = message.partition(" ")[0]
        raise ServeError(400, message, param=name if name in OPTION_FIELDS else None) from None
    return [(text, ids) for text, ids, _ in prompts], batch


def encode_prompts(
    model: Model, prompt: Prompt, param: str, limits: Limits, n: int = 1
) -> list[tuple[str, list[int], bool]]:
    """Return the text and the ids of each prompt, and whether it was given as a text. Raises ServeError."""
    tokenizer = model.tokenizer
    prompts = split_prompts(prompt)
    if not 1 <= len(prompts) * n <= limits.max_texts:
        name = "n" if len(prompts) <= limits.max_texts and n > 1 else param
        raise ServeError(400, f"a request must have from 1 to {limits.max_texts} texts", param=name)
    encoded: list[tuple[str, list[int], bool]] = []
    for item in prompts:
        if isinstance(item, str):
            encoded.append((item, tokenizer.encode(item).tolist(), True))
        elif all(0 <= token < len(tokenizer) for token in item):
            encoded.append((tokenizer.decode(item), list(item), False))
        else:
            raise ServeError(400, f"token ids must be from 0 to {len(tokenizer) - 1}", param=param)
    longest = max(len(ids) for _, ids, _ in encoded)
    if longest > limits.max_prompt_tokens:
        message = f"a prompt may have {limits.max_prompt_tokens} tokens, and this one has {longest}"
        raise ServeError(400, message, param=param, code="context_length_exceeded")
    return encoded
