"""``Batch``: the texts of one call, which are generated together."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from revgen.generation.constraints import Constraints, TextState, TokenHistory
from revgen.generation.filters import Floats
from revgen.generation.sentences import CONTEXT_CHARS, SentenceStop
from revgen.generation.streamer import TextStreamer
from revgen.ops import tree_map
from revgen.tokenizers import Tokenizer

if TYPE_CHECKING:
    from revgen.model import Model

Piece = tuple[int, str]
"""The row of a text, and the next piece of it."""


class Batch:
    """The texts of one call, each in a row: ``n`` rows for each prompt. They are sampled with ``seed``.

    All rows read their prompts in step, and each row is sampled from the end of its own prompt on. If the texts are
    streamed, the text of each token is a piece. ``on_token`` is called with the row, the token and the logits (vocab,)
    of each token that is sampled.
    """

    def __init__(
        self,
        model: Model,
        constraints: Constraints,
        prompts: Sequence[tuple[list[int], TextState]],
        seed: int | None,
        n: int = 1,
        *,
        is_streamed: bool = True,
        on_token: Callable[[int, int, Floats], None] | None = None,
    ) -> None:
        tokenizer, config = model.tokenizer, constraints.config
        self.constraints = constraints
        self.label_offset = model.label_offset(config.label)
        self.n = n
        self.is_streamed = is_streamed
        self.on_token = on_token
        self.max_tokens, self.min_tokens = config.max_tokens, config.min_tokens
        self.eos_id = tokenizer.eos_id
        self.is_context_free = constraints.is_context_free
        self.random = np.random.default_rng(seed)
        self.lengths = [len(ids) for ids, _ in prompts for _ in range(n)]
        """How many tokens of each row are not counted: its prompt, and tokens that generate the end of it again."""
        self.prompts = np.full((max(self.lengths), len(prompts)), self.eos_id)  # (time, prompts), padded
        for i, (ids, _) in enumerate(prompts):
            self.prompts[: len(ids), i] = ids
        self.states = [state for _, state in prompts for _ in range(n)]
        self.streamers = [
            TextStreamer(
                tokenizer.stream_decoder(), config.stops, SentenceStop(context) if config.stop_at_sentence else None
            )
            for context in (prompt_end(tokenizer, ids, state) for ids, state in prompts)
            for _ in range(n)
        ]
        self.history: TokenHistory | None = None
        if constraints.needs_tokens:
            self.history = TokenHistory((ids for ids, _ in prompts for _ in range(n)), len(tokenizer))
        self.endings: dict[int, tuple[str, int]] = {}
        """Why each row has ended, "stop" or "length", and its number of tokens."""
        self.rows = list(range(len(self.lengths))) if self.max_tokens else []
        """The rows that have not ended."""
        self.read = 0
        """The number of tokens that each of them has read."""
        self._is_settled = False

    @property
    def is_settled(self) -> bool:
        """Whether all rows have read their prompts, and generated the ends of them again."""
        if not self._is_settled and self.read >= len(self.prompts):
            self._is_settled = not any(self.states[row].pending for row in self.rows)
        return self._is_settled

    def num_sampled(self, row: int) -> int:
        """Return the number of tokens of a row so far, without its prompt."""
        return self.endings[row][1] if row in self.endings else max(0, self.read - self.lengths[row])

    def uniforms(self, rows: list[int]) -> list[float]:
        """Return random numbers in [0, 1) for the next tokens of these rows.

        One is sampled for every row, also for one that has ended, so that no row depends on when others end.
        """
        if len(self.lengths) == 1:
            return [self.random.random()]
        numbers: list[float] = self.random.random(len(self.lengths))[rows].tolist()
        return numbers

    def sampled_rows(self) -> list[int]:
        """Return the indices in ``rows`` of those whose next token is sampled; the others read their prompts."""
        return [i for i, row in enumerate(self.rows) if self.read >= self.lengths[row]]

    def prompt_tokens(self) -> NDArray[np.intp]:
        """Return the next token of the prompt of each of ``rows``; padding after its end."""
        tokens: NDArray[np.intp] = self.prompts[min(self.read, len(self.prompts) - 1), np.array(self.rows) // self.n]
        return tokens

    def accept(self, tokens: list[int]) -> tuple[list[Piece], list[int]]:
        """Add a token to each of ``rows``; return the text that is ready, and the indices of rows that continue."""
        pieces: list[Piece] = []
        going: list[int] = []
        for i, (row, token) in enumerate(zip(self.rows, tokens, strict=True)):
            if (position := self.read - self.lengths[row]) >= 0:
                self._accept_token(row, token, position)
            streamer = self.streamers[row]
            if (streamer.finished or self.is_streamed) and (piece := streamer.take()):
                pieces.append((row, piece))
            if not streamer.finished:
                going.append(i)
        self.read += 1
        if len(going) < len(self.rows):
            self.rows = [self.rows[i] for i in going]
        return pieces, going

    def _accept_token(self, row: int, token: int, position: int) -> None:
        streamer, state, is_done = self.streamers[row], self.states[row], False
        if state.pending or not self.is_context_free:
            self.states[row], is_done = self.constraints.next_state(state, token)
            if self.constraints.is_part_of_prompt(state, token):
                self.lengths[row] += 1
                return
        streamer.write(token, check_stops=position >= self.min_tokens, skip=len(state.pending))
        is_end = streamer.finished or is_done or token == self.eos_id
        if is_end or position + 1 == self.max_tokens:
            streamer.finish()
            self.endings[row] = "stop" if is_end else "length", position + 1

    def accept_block(self, row: int, block: list[int], remaining: int) -> list[Piece]:
        """Add a block of tokens to a row, of which at most ``remaining`` count; return the text that is ready."""
        streamer, pieces = self.streamers[row], []
        unchecked = max(0, self.min_tokens - (self.max_tokens - remaining))
        del block[remaining:]
        if self.eos_id in block:
            del block[block.index(self.eos_id) + 1 :]
        for i, tokens in enumerate([[token] for token in block] if self.is_streamed else [block]):
            streamer.write_all(tokens, unchecked - i)
            pieces.append((row, streamer.take()))
            if streamer.finished:
                break
        if block[-1] == self.eos_id or remaining == len(block):
            streamer.finish()
            pieces.append((row, streamer.take()))
        return [(row, piece) for row, piece in pieces if piece]


def prompt_end(tokenizer: Tokenizer, ids: Sequence[int], state: TextState) -> str:
    """Return at most about ``CONTEXT_CHARS`` characters of a prompt, of which ``ids`` are read."""
    return tokenizer.decode(ids[-CONTEXT_CHARS:]) + state.pending


def select_rows(state: Any, rows: NDArray[np.intp]) -> Any:
    """Return these rows of every array in a state."""
    return tree_map(operator.itemgetter(rows), state)
