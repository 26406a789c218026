"""``Decoder``: the loop in which a model continues texts token by token. Texts join and leave it at any token."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from revgen.generation.batch import Batch, Piece, select_rows
from revgen.generation.constraints import Constraints, merge_constraints
from revgen.generation.filters import Floats
from revgen.generation.sampler import sample

if TYPE_CHECKING:
    from revgen.model import Model

TOKENS_IN_STEP = 32
"""While other texts are sampled, this number of tokens at the end of a new prompt is read together with them."""


class Decoder:
    """The batches that a model continues together.

    ``add`` batches at any time. In turn, ``read_prompts`` lets them join the others, ``sample`` appends a token to each
    row, and ``forward`` computes the logits of the next token. The text of a row does not depend on the other rows,
    except where float32 rounding decides: products of matrices round differently for other numbers of rows.
    """

    def __init__(self, model: Model) -> None:
        self.model = model
        self.waiting: list[Batch] = []
        """The batches whose prompts have to be read, in the order of arrival."""
        self.batches: list[Batch] = []
        """The batches that are continued, in the order of their rows in ``logits`` and ``state``."""
        self.tokens: list[int] = []
        """The token that each row has to read next, without its label."""
        self.logits: Any = None
        self.state: Any = None
        self._unread: tuple[Any, Any] = None, None  # logits and state of the first batch that waits
        self._groups: list[Group] | None = None

    @property
    def num_rows(self) -> int:
        """The number of texts that have not ended, of all batches."""
        return sum(len(batch.rows) for batch in (*self.batches, *self.waiting))

    def add(self, batch: Batch) -> None:
        """Add a batch, which joins the others when enough of its prompts has been read."""
        self.waiting.append(batch)

    def read_prompts(self, max_tokens: int | None = None) -> None:
        """Read prompts, at most about ``max_tokens`` of their tokens, and let the batches join the others.

        A batch joins after the shortest of its prompts, or ``TOKENS_IN_STEP`` tokens earlier if there are other rows.
        """
        remaining = max_tokens or sys.maxsize
        joining: list[tuple[Any, Any]] = []
        while self.waiting and remaining > 0:
            batch = self.waiting[0]
            if batch.rows:
                end = min(batch.lengths)
                begin, width = batch.read, batch.prompts.shape[1]
                if not begin:
                    self._unread = (
                        np.zeros((width, len(self.model.tokenizer)), np.float32),
                        self.model.initial_state(width),
                    )
                if self.batches:
                    end = max(0 if has_arrays(self._unread[1]) else 1, end - TOKENS_IN_STEP)
                batch.read = min(end, begin + max(1, remaining // width))
                remaining -= (batch.read - begin) * width
                if batch.read > begin:
                    tokens = batch.prompts[begin : batch.read] + batch.label_offset
                    self._unread = self.model.next_logits(tokens, self._unread[1])
                if batch.read < end:
                    continue
                copies = np.arange(len(batch.lengths)) // batch.n
                joining.append(self._unread if batch.n == 1 else select_rows(self._unread, copies))
                self.batches.append(batch)
            self.waiting.pop(0)
        if joining:
            parts = joining if self.logits is None else [(self.logits, self.state), *joining]
            logits, states = zip(*parts, strict=True)
            self.logits, self.state = np.concatenate(logits), self.model.join_states(states)
            self._groups = None

    def remove(self, batch: Batch) -> None:
        """Stop generating the texts of a batch."""
        if batch in self.batches:
            kept = np.flatnonzero([other is not batch for other in self.batches for _ in other.rows])
            self.batches.remove(batch)
            self.logits, self.state = select_rows((self.logits, self.state), kept) if len(kept) else (None, None)
            self._groups = None
        batch.rows = []

    def sample(self) -> list[tuple[Batch, list[Piece]]]:
        """Append the next token to each row; return the batches with text that is ready, or with rows that ended."""
        if self._groups is None:
            self._groups = list(make_groups(self.batches))
        tokens = np.empty(len(self.logits), np.intp)
        start = 0
        for batch in self.batches:
            if not batch.is_settled:
                tokens[start : start + len(batch.rows)] = batch.prompt_tokens()
            start += len(batch.rows)
        for group in self._groups:
            tokens[group.indices] = group.sample(self.logits[group.indices])
        return self._accept(tokens.tolist())

    def _accept(self, tokens: list[int]) -> list[tuple[Batch, list[Piece]]]:
        results: list[tuple[Batch, list[Piece]]] = []
        kept: list[int] = []
        start = 0
        for batch in self.batches:
            count, was_settled = len(batch.rows), batch.is_settled
            pieces, going = batch.accept(tokens[start : start + count])
            kept += [start + i for i in going]
            start += count
            if pieces or len(going) < count:
                results.append((batch, pieces))
            if not was_settled and batch.read >= min(batch.lengths):  # more rows are sampled, or with other calls
                self._groups = None
        if len(kept) < len(tokens):
            self.batches = [batch for batch in self.batches if batch.rows]
            self.state = select_rows(self.state, np.array(kept, np.intp))
            self._groups = None
            tokens = [tokens[i] for i in kept]
        self.tokens = tokens
        return results

    def forward(self) -> None:
        """Let each row read its last token."""
        offsets = [batch.label_offset for batch in self.batches for _ in batch.rows]
        if not offsets:
            self.logits = self.state = None
            return
        output, self.state = self.model.forward(np.array([self.tokens]) + offsets, self.state)
        self.logits = output[-1]


def has_arrays(state: Any) -> bool:
    """Return whether a state has all its arrays. Some networks have none before the first token."""
    if isinstance(state, tuple | list):
        return all(map(has_arrays, state))
    return all(map(has_arrays, state.values())) if isinstance(state, dict) else state is not None


@dataclass(frozen=True)
class Group:
    """Rows that are sampled with one call: rows of one batch, or of several batches with equal filters."""

    constraints: Constraints
    members: list[tuple[Batch, list[int]]]
    """Each batch and its rows."""
    indices: NDArray[np.intp]
    """The indices of all rows in the decoder."""

    def sample(self, logits: Floats) -> NDArray[np.intp]:
        """Sample the next tokens from logits (rows, vocab), and report them to ``Batch.on_token``."""
        rows = [(batch, row) for batch, rows in self.members for row in rows]
        positions = np.array([batch.read - batch.lengths[row] for batch, row in rows])
        history = self.members[0][0].history  # only a batch alone has one
        context = self.constraints.context(positions, history, np.array(self.members[0][1]))
        p = self.constraints.probabilities(logits, context, [batch.states[row] for batch, row in rows])
        uniform = [number for batch, rows in self.members for number in batch.uniforms(rows)]
        tokens: NDArray[np.intp] = sample(p, np.array(uniform))
        if history is not None or any(batch.on_token for batch, _ in self.members):
            for i, ((batch, row), token) in enumerate(zip(rows, tokens.tolist(), strict=True)):
                if batch.history is not None:
                    batch.history.extend(row, [token])
                if batch.on_token is not None:
                    batch.on_token(row, token, logits[i])
        return tokens


def make_groups(batches: list[Batch]) -> Iterator[Group]:
    """Yield the groups of all rows whose next token is sampled."""
    parts: dict[Any, list[tuple[Batch, list[int], list[int]]]] = {}
    start = 0
    for batch in batches:
        if sampled := batch.sampled_rows():
            rows, indices = [batch.rows[i] for i in sampled], [start + i for i in sampled]
            key = batch.constraints.merge_key if batch.is_settled else None
            parts.setdefault(batch if key is None else key, []).append((batch, rows, indices))
        start += len(batch.rows)
    for members in parts.values():
        constraints = members[0][0].constraints
        if len(members) > 1:
            constraints = merge_constraints([batch.constraints for batch, rows, _ in members for _ in rows])
        all_indices = np.array([i for _, _, indices in members for i in indices])
        yield Group(constraints, [(batch, rows) for batch, rows, _ in members], all_indices)
