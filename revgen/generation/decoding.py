"""Decoding: a prompt in, text out as it is drawn, one row or many."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from revgen.generation.sampler import Sampling, draw
from revgen.ops import map_state
from revgen.options import at_least, check, whole
from revgen.tokenizers import Tokenizer

if TYPE_CHECKING:
    from revgen.language_model import LanguageModel


def decode(
    model: LanguageModel,
    prompt: str,
    sampling: Sampling,
    *,
    n: int = 1,
    max_tokens: int = 300,
    stop: str | Sequence[str] | None = None,
    seed: int | None = None,
    label: str | None = None,
) -> Iterator[tuple[int, str]]:
    """Draw ``n`` continuations at once; yields (row, piece of its text) as they come.

    A row ends at the end of the document, before the first of the ``stop`` strings, or after
    ``max_tokens``. Bad options raise OptionError here, before anything is drawn.
    """
    stops = () if stop is None else tuple(stop) if isinstance(stop, list | tuple) else (stop,)
    check("prompt", prompt, isinstance(prompt, str), "a string")
    at_least("n", n, 1)
    at_least("max_tokens", max_tokens, 0)
    check("stop", stop, all(isinstance(s, str) and s for s in stops), "one or more strings that are not empty")
    check("seed", seed, seed is None or whole(seed, 0), "a whole number of at least 0")
    shift = model.label_shift(label)
    return _decode(model, model.encode_prompt(prompt), shift, sampling, n, max_tokens, stops, seed)


def _decode(
    model: LanguageModel,
    prompt: list[int],
    shift: int,
    sampling: Sampling,
    n: int,
    max_tokens: int,
    stops: tuple[str, ...],
    seed: int | None,
) -> Iterator[tuple[int, str]]:
    tokenizer = model.tokenizer
    random = np.random.default_rng(seed)
    never = np.zeros(len(tokenizer), np.float32)
    never[[tokenizer.start, tokenizer.unknown]] = -np.inf
    seen = None
    if sampling.repetition_penalty != 1:
        seen = np.zeros((n, len(tokenizer)), bool)
        seen[:, prompt] = True
    writers = [Writer(tokenizer.decoder(), stops) for _ in range(n)]
    rows = np.arange(n)
    tokens, state = np.array(prompt)[:, None] + shift, model.initial_state(1)

    for position in range(max_tokens):
        logits, state = model.forward(tokens, state)  # (time, rows, vocab)
        last = logits[-1] + never
        if (stuck := np.isneginf(last.max(-1))).any():  # where nothing but the unknown can follow, the document ends
            last[stuck, tokenizer.end] = 0
        if position == 0 and n > 1:
            last, state = last.repeat(n, 0), _rows(state, np.zeros(n, int))
        uniform = random.random(n)  # for all rows, so that a row's draws do not depend on which others are done
        drawn = draw(sampling.probabilities(last, None if seen is None else seen[rows]), uniform[rows])
        if seen is not None:
            seen[rows, drawn] = True
        going = []
        for place, (row, token) in enumerate(zip(rows.tolist(), drawn.tolist(), strict=True)):
            writer = writers[row]
            if token == tokenizer.end:
                writer.finish()
            else:
                writer.write(token)
            if piece := writer.take():
                yield row, piece
            if not writer.finished:
                going.append(place)
        if not going:
            return
        if len(going) < len(rows):
            kept = np.array(going)
            rows, drawn, state = rows[kept], drawn[kept], _rows(state, kept)
        tokens = drawn[None] + shift
    for row in rows.tolist():
        writers[row].finish()
        if piece := writers[row].take():
            yield row, piece


def _rows(state: Any, rows: NDArray[np.intp]) -> Any:
    """The state of these rows of the batch."""
    return map_state(lambda array: array[rows], state)


class Writer:
    """The text of one row: token by token, held back while it may be the beginning of a stop string."""

    def __init__(self, decode: Callable[[int], str], stops: tuple[str, ...]) -> None:
        self.decode = decode
        self.stops = stops
        self.ready = ""
        self.held = ""
        self.finished = False

    def write(self, token: int) -> None:
        """Add a token."""
        if not self.stops:
            self.ready += self.decode(token)
            return
        text = self.held + self.decode(token)
        found = [at for at in map(text.find, self.stops) if at >= 0]
        if found:
            self.ready += text[: min(found)]
            self.held = ""
            self.finished = True
            return
        beginnings = (
            length
            for stop in self.stops
            for length in range(min(len(stop) - 1, len(text)), 0, -1)
            if text.endswith(stop[:length])
        )
        kept = len(text) - max(beginnings, default=0)
        self.ready += text[:kept]
        self.held = text[kept:]

    def finish(self) -> None:
        """No token follows: what was held back is text."""
        self.write(Tokenizer.end)
        self.ready += self.held
        self.held = ""
        self.finished = True

    def take(self) -> str:
        """The text that is ready since the last call."""
        ready, self.ready = self.ready, ""
        return ready
