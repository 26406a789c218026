"""Decoding: prompts in, texts out as they are drawn, one row or many."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from revgen.generation.blocks import BLOCK, Write, block_writer
from revgen.generation.config import GenerationConfig
from revgen.generation.constraints import Constraints, TextState
from revgen.generation.sampler import Floats, sample
from revgen.novelty import check_text
from revgen.ops import tree_map
from revgen.options import check, check_at_least
from revgen.tokenizers import Tokenizer

if TYPE_CHECKING:
    from revgen.model import Model


MAX_TEXTS = 1 << 20
"""Texts that one call of ``generate`` may return."""


def generate(
    model: Model, prompt: str | list[str] | tuple[str, ...], n: int | None, options: Mapping[str, Any]
) -> str | list[str] | list[list[str]]:
    """Generate texts; ``LanguageModel.generate`` describes the parameters."""
    prompts = list(prompt) if isinstance(prompt, list | tuple) else [prompt]
    config = GenerationConfig.from_kwargs(**options)
    count = 1 if n is None else n
    limit = f"at most {MAX_TEXTS:,} for all prompts together: write more with write_samples"
    check("n", n, count * len(prompts) <= MAX_TEXTS, limit)
    texts: dict[int, list[str]] = {}
    if config.num_beams is None:
        texts = {row: [prompts[row // count]] for row in range(len(prompts) * count)}
    for row, piece in decode(model, prompts, config, count, whole=True):
        texts.setdefault(row, [prompts[row // count]]).append(piece)
    rows_of_prompts = [range(i * count, (i + 1) * count) for i in range(len(prompts))]
    results = [["".join(texts[row]) for row in rows if row in texts] for rows in rows_of_prompts]
    if config.check_novelty:
        results = [[check_text(text, model.index) for text in row] for row in results]
    unwrapped = [result[0] for result in results] if n is None else results
    return unwrapped if isinstance(prompt, list | tuple) else unwrapped[0]


def stream(model: Model, prompt: str, options: Mapping[str, Any]) -> Iterator[str]:
    """Yield the continuation of a prompt in pieces, as it is sampled."""
    config = GenerationConfig.from_kwargs(**options)
    check("check_novelty", config.check_novelty, not config.check_novelty, "False: a stream is not a whole text")
    return (piece for _, piece in decode(model, [prompt], config) if piece)


def decode(
    model: Model, prompts: Sequence[str], settings: GenerationConfig, n: int = 1, *, whole: bool = False
) -> Iterator[tuple[int, str]]:
    """Write ``n`` continuations of each prompt at once; yields (row, piece of its text) as they come, one for each
    token or, with ``whole``, larger ones.

    The rows of a prompt stand one behind the other; beams come whole, and may be fewer than ``n``. A row ends at the
    end of the document, before the first of the stop strings, where a pattern can have nothing more, or after
    ``max_tokens``. Bad options raise OptionError here, before anything is drawn.
    """
    check_at_least("n", n, 1)
    check("prompt", prompts, len(prompts) > 0, "a string, or a list of at least one")
    for prompt in prompts:
        check("prompt", prompt, isinstance(prompt, str), "a string, or a list of strings")
    if settings.num_beams is not None:
        check("n", n, n <= settings.num_beams, f"at most num_beams, {settings.num_beams}")
    shift = model.label_offset(settings.label)
    rules = Constraints(model, settings)
    begun: list[tuple[list[int], TextState]] = []
    for prompt in prompts:  # no comprehension: a warning tells the line of the caller by its frame
        begun.append(rules.begin(prompt, model.encode_prompt(prompt)))
    if settings.num_beams is not None:
        from revgen.generation.beam import search

        found = (search(model, ids, shift, rules, state, n) for ids, state in begun)
        return ((i * n + place, text) for i, texts in enumerate(found) for place, text in enumerate(texts))
    return _decode(model, [ids for ids, _ in begun], shift, rules, [state for _, state in begun], n, whole)


def _decode(
    model: Model,
    prompts: list[list[int]],
    shift: int,
    rules: Constraints,
    begins: list[TextState],
    n: int,
    whole: bool,
) -> Iterator[tuple[int, str]]:
    """The rows read their prompts side by side, and each is drawn from the position on where its own ends.

    ``lengths`` counts what is not drawn freely: a prompt, and tokens that only write its end again.
    """
    tokenizer, settings, sampling = model.tokenizer, rules.settings, rules.sampling
    if settings.max_tokens == 0:
        return
    random = np.random.default_rng(settings.seed)
    lengths = np.array([len(ids) for ids in prompts]).repeat(n)
    longest = int(lengths.max())
    given = np.full((longest, len(prompts)), tokenizer.eos_id)  # (time, prompts), padded
    counts = np.zeros((len(prompts), len(tokenizer)), np.int32) if sampling.penalizes else None
    for place, ids in enumerate(prompts):
        given[: len(ids), place] = ids
        if counts is not None:
            counts[place] = np.bincount(ids, minlength=len(tokenizer))
    counts = None if counts is None else counts.repeat(n, 0)
    states = [state for state in begins for _ in range(n)]
    writers = [TextStreamer(tokenizer.stream_decoder(), settings.stops) for _ in lengths]
    rows = np.arange(len(lengths))

    read = int(lengths.min())
    last, state = read_prompt(model, given[:read] + shift)
    if n > 1:
        last, state = last.repeat(n, 0), _rows(state, rows // n)

    def choose(last: Floats, rows: NDArray[np.intp], places: NDArray[np.intp]) -> NDArray[np.intp]:
        """The next token of some rows, (rows,)."""
        counted = None if counts is None else counts[rows]
        here = [states[row] for row in rows.tolist()]
        p = sampling.filtered(rules.apply(last, counted, places, here), places)
        uniform = random.random(len(lengths))  # for all, so that a row's draws do not depend on which others are done
        drawn: NDArray[np.intp] = sample(p, uniform[rows])
        if counts is not None:
            counts[rows, drawn] += 1
        return drawn

    def accept(row: int, token: int, place: int) -> tuple[str, bool]:
        """Write a token of a row: the text that is ready, and whether that was all of it."""
        writer, before = writers[row], states[row]
        states[row], complete = rules.advance(before, token)
        if rules.rewrites_prompt(before, token):
            lengths[row] += 1
            return "", False
        writer.write(token, stopping=place >= settings.min_tokens, skip=len(before.pending))
        if token == tokenizer.eos_id or complete or place + 1 == settings.max_tokens:
            writer.finish()
        return writer.take(), writer.finished

    def in_blocks(
        write: Write, drawn: NDArray[Any], rows: NDArray[np.intp], state: Any, places: NDArray[np.intp]
    ) -> Iterator[tuple[int, str]]:
        """All that follows the tokens ``drawn``. Rows that are done stay while most go on, as their number is what
        ``write`` is prepared for."""
        going = np.ones(len(rows), bool)
        while going.any():
            if 2 * np.count_nonzero(going) <= len(rows):
                kept = np.flatnonzero(going)
                rows, drawn, places, going, state = _rows((rows, drawn, places, going, state), kept)
            uniforms = random.random((BLOCK, len(lengths)))[:, rows]
            columns, state = write(drawn, state, uniforms, places)
            drawn = np.array([column[-1] for column in columns])
            for i in np.flatnonzero(going).tolist():
                row, left, column = int(rows[i]), settings.max_tokens - int(places[i]), columns[i]
                del column[left:]
                if tokenizer.eos_id in column:
                    del column[column.index(tokenizer.eos_id) + 1 :]
                writer = writers[row]
                for tokens in [column] if whole else [[token] for token in column]:
                    writer.write_all(tokens)
                    if piece := writer.take():
                        yield row, piece
                    if writer.finished:
                        break
                if column[-1] == tokenizer.eos_id or left <= BLOCK:
                    writer.finish()
                    if piece := writer.take():
                        yield row, piece
                going[i] = not writer.finished
            places = places + BLOCK

    write = block_writer(model, rules, shift, len(lengths))
    while True:
        places = read - lengths[rows]  # how many tokens of each were drawn; below 0, its prompt is still read
        if read >= longest:
            drawn = choose(last, rows, places)
        else:
            drawn = given[read, rows // n]
            if len(here := np.flatnonzero(places >= 0)):
                drawn[here] = choose(last[here], rows[here], places[here])
        going = []
        for i, (row, token, place) in enumerate(zip(rows.tolist(), drawn.tolist(), places.tolist(), strict=True)):
            if place >= 0:
                piece, finished = accept(row, token, place)
                if piece:
                    yield row, piece
                if finished:
                    continue
            going.append(i)
        if not going:
            return
        if write is not None and read >= longest and not any(states[row].pending for row in rows[going].tolist()):
            yield from in_blocks(
                write, drawn[going], rows[going], _rows(state, np.array(going)), read + 1 - lengths[rows[going]]
            )
            return
        if len(going) < len(rows):
            kept = np.array(going)
            rows, drawn, state = rows[kept], drawn[kept], _rows(state, kept)
        logits, state = model.forward(drawn[None] + shift, state)
        last = logits[-1]
        read += 1


def read_prompt(model: Model, tokens: NDArray[Any]) -> tuple[Floats, Any]:
    """Read documents from their start, tokens (time, prompts) -> the next one's logits (prompts, vocab), the state."""
    return model.next_logits(tokens, model.initial_state(tokens.shape[1]))


def _rows(state: Any, rows: NDArray[np.intp]) -> Any:
    """The state of these rows of the batch."""
    return tree_map(operator.itemgetter(rows), state)


class TextStreamer:
    """The text of one row: token by token, held back while it may be the beginning of a stop string."""

    def __init__(self, decode: Callable[[int], str], stops: tuple[str, ...]) -> None:
        self.decode = decode
        self.stops = stops
        self.ready = ""
        self.held = ""
        self.finished = False

    def write(self, token: int, stopping: bool = True, skip: int = 0) -> None:
        """Add a token but its first ``skip`` characters; stop strings count where ``stopping``."""
        new = self.decode(token)[skip:]
        if not self.stops or not stopping:
            self.ready += new
            return
        text = self.held + new
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

    def write_all(self, tokens: list[int]) -> None:
        """Add some tokens, up to a stop string."""
        if not self.stops:
            self.ready += "".join(map(self.decode, tokens))
            return
        for token in tokens:
            self.write(token)
            if self.finished:
                return

    def finish(self) -> None:
        """No token follows: what was held back is text, unless a stop string has ended it."""
        if self.finished:
            return
        self.write(Tokenizer.eos_id)
        self.ready += self.held
        self.held = ""
        self.finished = True

    def take(self) -> str:
        """The text that is ready since the last call."""
        ready, self.ready = self.ready, ""
        return ready
