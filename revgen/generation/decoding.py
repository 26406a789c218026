"""Decoding: continue prompts token by token, all texts of a call together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from revgen.generation.batch import Batch, select_rows
from revgen.generation.beam import search
from revgen.generation.blocks import BLOCK_SIZE, LARGE_BLOCK_SIZE, SampleBlock, block_sampler
from revgen.generation.config import GenerationConfig
from revgen.generation.constraints import Constraints, TextState
from revgen.generation.decoder import Decoder
from revgen.generation.defaults import add_defaults, resolve_prompt
from revgen.novelty import check_text
from revgen.ops import tree_map
from revgen.options import check, check_at_least

if TYPE_CHECKING:
    from revgen.model import Model


MAX_TEXTS = 1 << 20
"""The number of texts that one call of ``generate`` may return."""
MIN_ROWS = 64
MAX_BATCH_BYTES = 1 << 30
"""The memory for texts that are generated together. At least ``MIN_ROWS`` texts are, unless one takes more than
``MAX_ROW_BYTES``."""
MAX_ROW_BYTES = 1 << 26
MAX_SEARCH_TOKENS = 1 << 22
"""The number of tokens of all hypotheses of a beam search."""

Pieces: TypeAlias = Iterator[tuple[int, str]]
"""The row of a text, and the next piece of it."""


def generate(
    model: Model, prompt: str | list[str] | tuple[str, ...] | None, n: int | None, options: Mapping[str, Any]
) -> str | list[str] | list[list[str]]:
    """Generate texts; ``LanguageModel.generate`` describes the parameters."""
    config = GenerationConfig.from_kwargs(**add_defaults(model, options))
    prompt = resolve_prompt(model, prompt)
    prompts = list(prompt) if isinstance(prompt, list | tuple) else [prompt]
    count = 1 if n is None else n
    limit = f"at most {MAX_TEXTS:,} for all prompts together: generate more with write_samples"
    check("n", n, count * len(prompts) <= MAX_TEXTS, limit)
    texts: dict[int, list[str]] = {}
    if config.num_beams is None:
        texts = {row: [prompts[row // count]] for row in range(len(prompts) * count)}
    for row, piece in decode(model, prompts, config, count, is_streamed=False):
        texts.setdefault(row, [prompts[row // count]]).append(piece)
    rows_of_prompts = [range(i * count, (i + 1) * count) for i in range(len(prompts))]
    results = [["".join(texts[row]) for row in rows if row in texts] for rows in rows_of_prompts]
    if config.check_novelty:
        results = [[check_text(text, model.index) for text in row] for row in results]
    unwrapped = [result[0] for result in results] if n is None else results
    return unwrapped if isinstance(prompt, list | tuple) else unwrapped[0]


def stream(model: Model, prompt: str | None, options: Mapping[str, Any]) -> Iterator[str]:
    """Yield the continuation of a prompt in pieces, as it is sampled."""
    config = GenerationConfig.from_kwargs(**add_defaults(model, options))
    prompt = resolve_prompt(model, prompt)
    check(
        "check_novelty",
        config.check_novelty,
        not config.check_novelty,
        "False: only a complete text can be checked",
    )
    return (piece for _, piece in decode(model, [prompt], config) if piece)


def decode(
    model: Model, prompts: Sequence[str], config: GenerationConfig, n: int = 1, *, is_streamed: bool = True
) -> Pieces:
    """Generate ``n`` continuations of each prompt together; yield ``(row, piece)`` as they come.

    The rows of a prompt are consecutive. Each token is a piece if the texts are streamed; otherwise, pieces are larger.
    Beam search yields each text at once, and may yield fewer than ``n``. A row ends at the end of the document, before
    the first stop string, after a sentence, where a pattern allows no more text, or after ``max_tokens``. Raises
    OptionError, before anything is sampled, for options that the model cannot follow.
    """
    check_at_least("n", n, 1)
    check("prompt", prompts, len(prompts) > 0, "a string, or a list of at least one")
    for prompt in prompts:
        check("prompt", prompt, isinstance(prompt, str), "a string, or a list of strings")
    if config.num_beams is not None:
        _check_beams(model, config, config.num_beams, n)
    label_offset = model.label_offset(config.label)
    constraints = Constraints(model, config)
    begun: list[tuple[list[int], TextState]] = []
    for prompt in prompts:  # no comprehension: a warning finds the caller's line by the number of frames
        begun.append(constraints.begin(prompt, model.encode_prompt(prompt)))
    if config.num_beams is not None:
        searches = (search(model, ids, label_offset, constraints, state, n) for ids, state in begun)
        return ((i * n + rank, text) for i, texts in enumerate(searches) for rank, text in enumerate(texts))
    max_rows = _max_rows(model, len(begun) * n)
    if len(begun) * n <= max_rows:
        return _decode_batch(model, Batch(model, constraints, begun, config.seed, n, is_streamed=is_streamed))
    return _decode_batches(model, constraints, begun, n, is_streamed, max_rows)


def _check_beams(model: Model, config: GenerationConfig, num_beams: int, n: int) -> None:
    """Raise OptionError for a beam search that would take too much memory, or return fewer than ``n`` texts."""
    check("n", n, n <= num_beams, f"at most num_beams, {num_beams}")
    max_tokens = MAX_SEARCH_TOKENS // num_beams
    check("max_tokens", config.max_tokens, config.max_tokens <= max_tokens, f"at most {max_tokens:,} with these beams")
    max_beams = _max_rows(model, num_beams)
    check("num_beams", num_beams, num_beams <= max_beams, f"at most {max_beams:,}: more would take too much memory")


def _max_rows(model: Model, rows: int) -> int:
    """Return how many of ``rows`` texts may be generated together: their logits and states take about 1 GiB."""
    if rows == 1 or (rows <= MIN_ROWS and not model.has_large_states):
        return rows
    _, state = model.forward(np.array([[model.tokenizer.bos_id]]), model.initial_state(1))
    row_bytes = 4 * state_bytes(model.join_states([state])) + 32 * len(model.tokenizer)
    return max(MIN_ROWS if row_bytes <= MAX_ROW_BYTES else 1, MAX_BATCH_BYTES // row_bytes)


def state_bytes(state: Any) -> int:
    """Return the size of a state in bytes. The objects in an array of objects have a size of their own, ``nbytes``."""
    sizes: list[int] = []
    tree_map(lambda x: sizes.append(sum(item.nbytes for item in x) if x.dtype == object else x.nbytes), state)
    return sum(sizes)


def _decode_batches(
    model: Model,
    constraints: Constraints,
    begun: Sequence[tuple[list[int], TextState]],
    n: int,
    is_streamed: bool,
    rows: int,
) -> Pieces:
    """Yield ``(row, piece)`` of batches of at most ``rows`` texts. One generator of random numbers serves all."""
    random = np.random.default_rng(constraints.config.seed)
    prompts_at_once, n_at_once = max(1, rows // n), min(n, rows)
    for first in range(0, len(begun), prompts_at_once):
        prompts = begun[first : first + prompts_at_once]
        for first_text in range(0, n, n_at_once):
            size = min(n_at_once, n - first_text)
            batch = Batch(model, constraints, prompts, constraints.config.seed, size, is_streamed=is_streamed)
            batch.random = random
            for row, piece in _decode_batch(model, batch):
                yield (first + row // size) * n + first_text + row % size, piece


def _decode_batch(model: Model, batch: Batch) -> Pieces:
    """Yield ``(row, piece)`` until all rows of a batch have ended."""
    decoder = Decoder(model)
    decoder.add(batch)
    decoder.read_prompts()
    sample_block = block_sampler(model, batch.constraints, batch.label_offset, len(batch.rows))
    while batch.rows:
        for _, pieces in decoder.sample():
            yield from pieces
        if sample_block is not None and batch.is_settled and batch.rows:
            yield from _decode_in_blocks(model, batch, sample_block, decoder.tokens, decoder.state)
            return
        decoder.forward()


def _decode_in_blocks(model: Model, batch: Batch, sample_block: SampleBlock, tokens: list[int], state: Any) -> Pieces:
    """Yield the text after ``tokens``.

    Rows that have ended are removed only when half of them have: ``sample_block`` is prepared for their number.
    """
    rows = np.array(batch.rows)
    last, positions = np.array(tokens), batch.read - np.array(batch.lengths)[rows]
    going = np.ones(len(rows), bool)
    is_single = len(batch.lengths) == 1 and model.device == "cpu"
    size = LARGE_BLOCK_SIZE if not batch.is_streamed and is_single and not batch.streamers[0].may_stop else BLOCK_SIZE
    while going.any():
        if 2 * np.count_nonzero(going) <= len(rows):
            rows, last, positions, going, state = select_rows((rows, last, positions, going, state), going.nonzero()[0])
        uniforms = batch.random.random((size, len(batch.lengths)))[:, rows]
        blocks, state = sample_block(last, state, uniforms, positions)
        last = np.array([block[-1] for block in blocks])
        for i in np.flatnonzero(going).tolist():
            row = int(rows[i])
            yield from batch.accept_block(row, blocks[i], batch.max_tokens - int(positions[i]))
            going[i] = not batch.streamers[row].finished
        positions = positions + size
