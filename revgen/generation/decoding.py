"""Decoding: continue prompts token by token, all texts of a call together."""

from __future__ import annotations

import operator
from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from revgen.generation.beam import search
from revgen.generation.blocks import BLOCK_SIZE, LARGE_BLOCK_SIZE, SampleBlock, block_sampler
from revgen.generation.config import GenerationConfig
from revgen.generation.constraints import Constraints, TextState, TokenHistory
from revgen.generation.filters import Floats
from revgen.generation.sampler import sample
from revgen.generation.streamer import TextStreamer
from revgen.novelty import check_text
from revgen.ops import tree_map
from revgen.options import check, check_at_least

if TYPE_CHECKING:
    from revgen.model import Model


MAX_TEXTS = 1 << 20
"""The number of texts that one call of ``generate`` may return."""

Pieces: TypeAlias = Iterator[tuple[int, str]]
"""The row of a text, and the next piece of it."""


def generate(
    model: Model, prompt: str | list[str] | tuple[str, ...], n: int | None, options: Mapping[str, Any]
) -> str | list[str] | list[list[str]]:
    """Generate texts; ``LanguageModel.generate`` describes the parameters."""
    prompts = list(prompt) if isinstance(prompt, list | tuple) else [prompt]
    config = GenerationConfig.from_kwargs(**options)
    count = 1 if n is None else n
    limit = f"at most {MAX_TEXTS:,} for all prompts together: generate more with write_samples"
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
    check(
        "check_novelty",
        config.check_novelty,
        not config.check_novelty,
        "False: only a complete text can be checked",
    )
    return (piece for _, piece in decode(model, [prompt], config) if piece)


def decode(
    model: Model, prompts: Sequence[str], config: GenerationConfig, n: int = 1, *, whole: bool = False
) -> Pieces:
    """Generate ``n`` continuations of each prompt together; yield ``(row, piece)`` as they come.

    The rows of a prompt are consecutive. Each token is a piece; with ``whole``, pieces are larger. Beam search yields
    each text at once, and may yield fewer than ``n``. A row ends at the end of the document, before the first stop
    string, where a pattern allows no more text, or after ``max_tokens``. Raises OptionError, before anything is
    sampled, for options that the model cannot follow.
    """
    check_at_least("n", n, 1)
    check("prompt", prompts, len(prompts) > 0, "a string, or a list of at least one")
    for prompt in prompts:
        check("prompt", prompt, isinstance(prompt, str), "a string, or a list of strings")
    if config.num_beams is not None:
        check("n", n, n <= config.num_beams, f"at most num_beams, {config.num_beams}")
    label_offset = model.label_offset(config.label)
    constraints = Constraints(model, config)
    begun: list[tuple[list[int], TextState]] = []
    for prompt in prompts:  # no comprehension: a warning finds the caller's line by the number of frames
        begun.append(constraints.begin(prompt, model.encode_prompt(prompt)))
    if config.num_beams is not None:
        searches = (search(model, ids, label_offset, constraints, state, n) for ids, state in begun)
        return ((i * n + rank, text) for i, texts in enumerate(searches) for rank, text in enumerate(texts))
    return Batch(model, constraints, begun, label_offset, n, whole).decode()


def read_prompt(model: Model, tokens: NDArray[Any]) -> tuple[Floats, Any]:
    """Read documents from their start, token ids (time, batch); return the next logits (batch, vocab) and the state."""
    return model.next_logits(tokens, model.initial_state(tokens.shape[1]))


class Batch:
    """Texts that are generated together, each in a row: ``n`` rows for each prompt.

    All rows read their prompts in step, and each row is sampled from the end of its own prompt on.
    """

    def __init__(
        self,
        model: Model,
        constraints: Constraints,
        prompts: Sequence[tuple[list[int], TextState]],
        label_offset: int,
        n: int,
        whole: bool,
    ) -> None:
        tokenizer, config = model.tokenizer, constraints.config
        self.model = model
        self.constraints = constraints
        self.label_offset = label_offset
        self.n = n
        self.whole = whole
        self.max_tokens, self.min_tokens = config.max_tokens, config.min_tokens
        self.eos_id = tokenizer.eos_id
        self.is_context_free = constraints.is_context_free
        self.random = np.random.default_rng(config.seed)
        self.lengths = np.array([len(ids) for ids, _ in prompts]).repeat(n)
        """How many tokens of each row are not counted: its prompt, and tokens that generate the end of it again."""
        self.prompts = np.full((int(self.lengths.max()), len(prompts)), self.eos_id)  # (time, prompts), padded
        for i, (ids, _) in enumerate(prompts):
            self.prompts[: len(ids), i] = ids
        self.states = [state for _, state in prompts for _ in range(n)]
        self.streamers = [TextStreamer(tokenizer.stream_decoder(), config.stops) for _ in self.states]
        self.history: TokenHistory | None = None
        if constraints.needs_tokens:
            self.history = TokenHistory((ids for ids, _ in prompts for _ in range(n)), len(tokenizer))

    def decode(self) -> Pieces:
        """Yield ``(row, piece)`` until all rows have ended."""
        if self.max_tokens == 0:
            return
        rows, read = np.arange(len(self.lengths)), int(self.lengths.min())
        logits, state = read_prompt(self.model, self.prompts[:read] + self.label_offset)
        if self.n > 1:
            logits, state = logits.repeat(self.n, 0), select_rows(state, rows // self.n)
        sample_block = block_sampler(self.model, self.constraints, self.label_offset, len(rows))
        while True:
            positions = read - self.lengths[rows]  # below 0 while a row still reads its prompt
            tokens = self._next_tokens(logits, rows, positions, read)
            going = yield from self._accept(rows, tokens, positions)
            if len(going) == 0:
                return
            if len(going) < len(rows):
                rows, tokens, state = rows[going], tokens[going], select_rows(state, going)
            read += 1
            if sample_block is not None and read > len(self.prompts) and not self._any_pending(rows):
                yield from self._decode_in_blocks(sample_block, rows, tokens, state, read - self.lengths[rows])
                return
            output, state = self.model.forward(tokens[None] + self.label_offset, state)
            logits = output[-1]

    def _any_pending(self, rows: NDArray[np.intp]) -> bool:
        return any(self.states[row].pending for row in rows.tolist())

    def _next_tokens(
        self, logits: Floats, rows: NDArray[np.intp], positions: NDArray[np.intp], read: int
    ) -> NDArray[np.intp]:
        """Return the next token of each row, (rows,): of its prompt, or a sampled one."""
        if read >= len(self.prompts):
            return self._sample(logits, rows, positions)
        tokens: NDArray[np.intp] = self.prompts[read, rows // self.n]
        if len(sampled := np.flatnonzero(positions >= 0)):
            tokens[sampled] = self._sample(logits[sampled], rows[sampled], positions[sampled])
        return tokens

    def _sample(self, logits: Floats, rows: NDArray[np.intp], positions: NDArray[np.intp]) -> NDArray[np.intp]:
        constraints, history = self.constraints, self.history
        context = constraints.context(positions, history, rows)
        p = constraints.probabilities(logits, context, [self.states[row] for row in rows.tolist()])
        uniform = self.random.random(len(self.lengths))  # for all rows, so that no row depends on when others end
        tokens: NDArray[np.intp] = sample(p, uniform[rows])
        if history is not None:
            for row, token in zip(rows.tolist(), tokens.tolist(), strict=True):
                history.extend(row, [token])
        return tokens

    def _accept(
        self, rows: NDArray[np.intp], tokens: NDArray[np.intp], positions: NDArray[np.intp]
    ) -> Generator[tuple[int, str], None, NDArray[np.intp]]:
        """Add a token to each row and yield the text that is ready; return the indices of the rows that continue."""
        going = []
        for i, (row, token, position) in enumerate(
            zip(rows.tolist(), tokens.tolist(), positions.tolist(), strict=True)
        ):
            if position >= 0:
                self._accept_token(row, token, position)
            finished = self.streamers[row].finished
            if finished or not self.whole:
                yield from self._ready(row)
            if not finished:
                going.append(i)
        return np.array(going, np.intp)

    def _ready(self, row: int) -> Pieces:
        if piece := self.streamers[row].take():
            yield row, piece

    def _accept_token(self, row: int, token: int, position: int) -> None:
        streamer, state, is_done = self.streamers[row], self.states[row], False
        if state.pending or not self.is_context_free:
            self.states[row], is_done = self.constraints.next_state(state, token)
            if self.constraints.is_part_of_prompt(state, token):
                self.lengths[row] += 1
                return
        streamer.write(token, check_stops=position >= self.min_tokens, skip=len(state.pending))
        if token == self.eos_id or is_done or position + 1 == self.max_tokens:
            streamer.finish()

    def _decode_in_blocks(
        self,
        sample_block: SampleBlock,
        rows: NDArray[np.intp],
        tokens: NDArray[Any],
        state: Any,
        positions: NDArray[np.intp],
    ) -> Pieces:
        """Yield the text after ``tokens``.

        Rows that have ended are removed only when half of them have: ``sample_block`` is prepared for their number.
        """
        going = np.ones(len(rows), bool)
        is_single = len(self.lengths) == 1 and self.model.device == "cpu"
        size = LARGE_BLOCK_SIZE if self.whole and is_single and not self.streamers[0].stops else BLOCK_SIZE
        while going.any():
            if 2 * np.count_nonzero(going) <= len(rows):
                kept = np.flatnonzero(going)
                rows, tokens, positions, going, state = select_rows((rows, tokens, positions, going, state), kept)
            uniforms = self.random.random((size, len(self.lengths)))[:, rows]
            blocks, state = sample_block(tokens, state, uniforms, positions)
            tokens = np.array([block[-1] for block in blocks])
            for i in np.flatnonzero(going).tolist():
                row = int(rows[i])
                yield from self._accept_block(row, blocks[i], self.max_tokens - int(positions[i]))
                going[i] = not self.streamers[row].finished
            positions = positions + size

    def _accept_block(self, row: int, block: list[int], remaining: int) -> Pieces:
        streamer = self.streamers[row]
        del block[remaining:]
        if self.eos_id in block:
            del block[block.index(self.eos_id) + 1 :]
        for tokens in [block] if self.whole else [[token] for token in block]:
            streamer.write_all(tokens)
            yield from self._ready(row)
            if streamer.finished:
                return
        if block[-1] == self.eos_id or remaining == len(block):
            streamer.finish()
            yield from self._ready(row)


def select_rows(state: Any, rows: NDArray[np.intp]) -> Any:
    """Return these rows of every array in a state."""
    return tree_map(operator.itemgetter(rows), state)
