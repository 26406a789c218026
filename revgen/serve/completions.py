"""Completions: from a request to texts for the engine, and from their pieces to a response."""

from __future__ import annotations

import itertools
import json
import secrets
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from revgen.errors import RevgenError
from revgen.generation.batch import Batch
from revgen.generation.config import GenerationConfig
from revgen.generation.constraints import Constraints, TextState
from revgen.generation.defaults import add_defaults, resolve_prompt
from revgen.model import Model
from revgen.serve.background import Background
from revgen.serve.engine import Engine, Generation
from revgen.serve.errors import ServeError
from revgen.serve.json_response import to_text
from revgen.serve.logprobs import TokenLog, join_logprobs, prompt_logprobs
from revgen.serve.prompts import EncodedPrompt, encode_prompts
from revgen.serve.schema import DEFAULT_MAX_TOKENS, OPTION_FIELDS, generation_options

SLOW_OPTIONS = {"regex", "choices", "max_copied_chars", "known_words"}
"""The options whose preparation may take long."""
LONG_PROMPT = 10_000
"""The number of characters of a prompt, or of the text of its ids, whose preparation may take long."""
MAX_LOGPROBS = 1 << 20
"""The number of log-probabilities that a response may have, alternatives included."""
PROCESS_ID, NUMBERS = secrets.token_hex(8), itertools.count(1)
"""The parts of the ids of completions: random numbers for each would take a hundred times as long."""


@dataclass
class Completion:
    """The texts of one request. Each is a row: ``n`` for each prompt."""

    request: Any
    prompts: list[EncodedPrompt]
    batch: Batch
    generation: Generation
    logs: list[TokenLog]
    """The tokens of each row, if the request asks for their log-probabilities."""
    prompt_logs: list[TokenLog]
    """The tokens of each prompt, if it also asks for the prompt."""

    def __post_init__(self) -> None:
        self.id = f"cmpl-{PROCESS_ID}-{next(NUMBERS)}"
        self.created = int(time.time())
        self.echoes = [
            self.prompts[row // self.batch.n].text if has_echo(self.request) else "" for row in self.all_rows
        ]
        self.lengths = [0] * len(self.all_rows)
        """The number of characters of each row that have been returned, without its prompt."""

    @property
    def all_rows(self) -> range:
        """All rows, ended or not."""
        return range(len(self.batch.lengths))

    def body(self, choices: list[dict[str, Any]], *, with_usage: bool = True) -> dict[str, Any]:
        """Return a response, or the data of an event."""
        head = {"id": self.id, "object": "text_completion", "created": self.created, "model": self.request.model}
        return head | {"choices": choices} | ({"usage": self.usage()} if with_usage else {})

    def usage(self) -> dict[str, int]:
        """Return the numbers of tokens so far."""
        prompt = sum(len(prompt.ids) for prompt in self.prompts)
        generated = sum(map(self.batch.num_sampled, self.all_rows))
        return {"prompt_tokens": prompt, "completion_tokens": generated, "total_tokens": prompt + generated}

    def choice(self, row: int, piece: str, *, is_first: bool, is_last: bool) -> dict[str, Any]:
        """Return a piece of a text, or all of it."""
        echo = self.echoes[row]
        self.lengths[row] += len(piece)
        logprobs = None
        if self.logs:
            logprobs = self.logs[row].take(self.lengths[row], len(echo))
            if is_first and self.prompt_logs:
                logprobs = join_logprobs([self.prompt_logs[row // self.batch.n].to_dict(), logprobs])
        reason = self.batch.endings.get(row, ("length", 0))[0]  # a text of 0 tokens has no ending
        text = echo + piece if is_first else piece
        return {"index": row, "text": text, "logprobs": logprobs, "finish_reason": reason if is_last else None}

    async def response(self) -> dict[str, Any]:
        """Return the response, when all texts have ended."""
        texts = [""] * len(self.all_rows)
        async for pieces, _ in self.generation.pieces():
            for row, piece in pieces:
                texts[row] += piece
        return self.body([self.choice(row, text, is_first=True, is_last=True) for row, text in enumerate(texts)])

    async def events(self) -> AsyncIterator[str]:
        """Yield server-sent events, at least one for each text, and the end of the stream."""
        unsent, open_rows = {*self.all_rows}, {*self.all_rows}
        options = self.request.stream_options
        try:
            async for new, all_ended in self.generation.pieces():
                pieces: dict[int, str] = {}
                for row, piece in new:
                    pieces[row] = pieces.get(row, "") + piece
                ended = open_rows & all_ended if self.batch.max_tokens else open_rows
                events = []
                for row in sorted(pieces.keys() | ended):
                    choice = self.choice(row, pieces.get(row, ""), is_first=row in unsent, is_last=row in ended)
                    events.append(event(self.body([choice], with_usage=False)))
                unsent, open_rows = unsent - pieces.keys() - ended, open_rows - ended
                if not open_rows:
                    if options is not None and options.include_usage:
                        events.append(event(self.body([])))
                    events.append("data: [DONE]\n\n")
                yield "".join(events)
        except ServeError as error:
            yield event(error.to_dict())


def has_echo(request: Any) -> bool:
    """Return whether texts begin with their prompts: if a request asks for it, or gives no prompt."""
    return bool(request.echo) or request.prompt is None


def event(data: dict[str, Any]) -> str:
    """Return a server-sent event."""
    return f"data: {to_text(data)}\n\n"


async def start_completion(engine: Engine, request: Any, background: Background) -> Completion:
    """Check a request and submit its texts. Raises ServeError."""
    model, limits, n = engine.model, engine.limits, request.n or 1
    if request.best_of not in (None, n):
        raise ServeError(400, f"best_of must be null or equal to n, which is {n}", param="best_of")
    if request.suffix:
        raise ServeError(400, "suffix must be null: no text can be put between two others", param="suffix")
    if (request.max_tokens or 0) > limits.max_tokens:
        raise ServeError(400, f"max_tokens must be at most {limits.max_tokens}", param="max_tokens")
    options = resolve_options(model, generation_options(request), limits.max_tokens)
    prompt = resolve_prompt(model, request.prompt)
    seed = options.pop("seed", None)

    def prepare() -> tuple[list[EncodedPrompt], Batch, list[TokenLog]]:
        prompts = encode_prompts(model, prompt, "prompt", limits, n)
        check_logprobs(request, prompts, options["max_tokens"])
        batch = prepare_batch(model, prompts, options, seed, n, is_streamed=bool(request.stream))
        prompt_logs = []
        if request.logprobs is not None and has_echo(request):
            prompt_logs = [prompt_logprobs(model, p.ids, batch.label_offset, request.logprobs) for p in prompts]
        return prompts, batch, prompt_logs

    is_slow = not SLOW_OPTIONS.isdisjoint(options) or (request.logprobs is not None and has_echo(request))
    is_slow |= len(str(prompt)) > LONG_PROMPT
    prompts, batch, prompt_logs = await background.run(prepare) if is_slow else prepare()
    logs: list[TokenLog] = []
    if request.logprobs is not None:
        logs = [TokenLog(model.tokenizer, request.logprobs, len(state.pending)) for state in batch.states]
        batch.on_token = lambda row, token, logits: logs[row].add(token, logits)
    return Completion(request, prompts, batch, engine.submit(batch), logs, prompt_logs)


def check_logprobs(request: Any, prompts: Sequence[EncodedPrompt], max_tokens: int) -> None:
    """Raise ServeError if a response would have too many log-probabilities."""
    if request.logprobs is None:
        return
    tokens = sum((len(prompt.ids) if has_echo(request) else 0) + max_tokens for prompt in prompts)
    if tokens * (request.n or 1) * (request.logprobs + 1) > MAX_LOGPROBS:
        raise ServeError(400, f"a response may have at most {MAX_LOGPROBS:,} log-probabilities", param="logprobs")


def resolve_options(model: Model, given: Mapping[str, Any], max_tokens: int) -> dict[str, Any]:
    """Return the options of a request with the defaults of the model, of at most ``max_tokens``."""
    own = min(model.generation_config.get("max_tokens", DEFAULT_MAX_TOKENS), max_tokens)
    return add_defaults(model, {"max_tokens": own} | dict(given))


def prepare_batch(
    model: Model,
    prompts: Sequence[EncodedPrompt],
    options: Mapping[str, Any],
    seed: int | None,
    n: int,
    *,
    is_streamed: bool,
) -> Batch:
    """Return the texts to generate. Raises ServeError for options that the model cannot follow."""
    try:
        make = make_constraints if SLOW_OPTIONS.isdisjoint(options) else make_constraints.__wrapped__  # may be large
        constraints = make(model, json.dumps(sorted(options.items())))
        begun: list[tuple[list[int], TextState]] = []
        for prompt in prompts:
            document = [model.tokenizer.bos_id, *prompt.ids]
            state = constraints.initial_state(prompt.text)
            begun.append(constraints.begin(prompt.text, document) if prompt.is_text else (document, state))
        return Batch(model, constraints, begun, seed, n, is_streamed=is_streamed)
    except RevgenError as error:
        name = str(error).partition(" ")[0]
        raise ServeError(400, str(error), param=name if name in OPTION_FIELDS else None) from None


@lru_cache(maxsize=64)
def make_constraints(model: Model, options: str) -> Constraints:
    """Return the constraints of the JSON of some options: many requests have equal ones."""
    values = dict(json.loads(options))
    if "logit_bias" in values:
        values["logit_bias"] = {int(token): bias for token, bias in values["logit_bias"].items()}
    return Constraints(model, GenerationConfig.from_kwargs(**values))
