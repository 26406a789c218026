"""The computation of a trained model: states, logits, and log-probabilities."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from revgen.context_mixing.code_tree import tree_depth
from revgen.context_mixing.contexts import LENGTH, Document, new_document, relink
from revgen.context_mixing.counting import Tables, count_contexts
from revgen.context_mixing.mixing import Mixers, from_saved, new_work
from revgen.context_mixing.reading import read_tokens, score_document
from revgen.ops import tree_map
from revgen.tokenizers import Tokenizer

RATES = np.array([0.002, 0.0006], np.float32)
"""The learning rates of the mixers and of the last mixer while they read a document."""
MIN_CAPACITY = 512
"""The smallest number of tokens for which a state has room."""

State = tuple[Document, Mixers | None]
"""The documents of a batch, and the mixers that learned from them; None if the mixers do not learn."""


class Predictor:
    """A trained model. ``weights`` are the training text and the arrays of ``mixing.saved_arrays``.

    ``tables`` are the counts of the text; without them, they are counted.
    """

    def __init__(
        self,
        weights: Mapping[str, NDArray[Any]],
        vocabulary: Sequence[str],
        is_used: NDArray[np.bool_],
        adapts: bool,
        tables: Tables | None = None,
    ) -> None:
        self.mixers, self.maps = from_saved(weights)
        self.tables = count_contexts(weights["text"], vocabulary, is_used) if tables is None else tables
        self.adapts = adapts
        self.rates = RATES if adapts else np.zeros(2, np.float32)
        self.depth = tree_depth(self.tables.tree)

    def initial_state(self, batch: int) -> State:
        """Return the state at the start of ``batch`` documents."""
        learned = Mixers._make(np.repeat(array[None], batch, 0) for array in self.mixers) if self.adapts else None
        return new_document(MIN_CAPACITY, (batch,)), learned

    def read(self, tokens: NDArray[Any], state: State, num_logits: int) -> tuple[NDArray[np.float32], State]:
        """Read token ids (time, batch); return the logits after the last ones and the next state.

        The logits are (num_logits, batch, vocab). Raises IndexError for an unknown token.
        """
        state = copy_state(state, len(tokens))
        rows = [DocumentReader(self, state, row).read_all(ids, num_logits) for row, ids in enumerate(tokens.T)]
        return np.stack(rows, 1), state

    def logprobs(self, sequences: Sequence[NDArray[Any]]) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Yield the index of each document and the log-probability of each of its tokens after the first."""
        work = new_work(self.depth)
        for i, ids in enumerate(sequences):
            logprobs = np.empty(len(ids) - 1, np.float32)
            mixers = Mixers._make(array.copy() for array in self.mixers) if self.adapts else self.mixers
            with np.errstate(over="ignore"):
                score_document(
                    *(self.tables, self.maps, mixers, new_document(len(ids)), work, ids.astype(np.int32), self.rates),
                    *(self.adapts, False, -1, logprobs),
                )
            yield i, logprobs


class DocumentReader:
    """A reader of one document, a ``sequences.TokenReader``, which overwrites a row of a state."""

    def __init__(self, predictor: Predictor, state: State, row: int = 0) -> None:
        self.predictor = predictor
        self.state = state
        document, learned = state
        self.document = Document._make(array[row] for array in document)
        self.mixers = predictor.mixers if learned is None else Mixers._make(array[row] for array in learned)
        self.work = new_work(predictor.depth)

    def read_all(self, ids: NDArray[Any], num_logits: int) -> NDArray[np.float32]:
        """Read tokens, (time,), and return the logits after the last ones, (num_logits, vocab)."""
        predictor = self.predictor
        ranks = predictor.tables.tree.ranks
        ranks[ids]  # raises IndexError for an unknown token, which compiled code does not check
        logits = np.empty((num_logits, len(ranks) - 1), np.float32)
        with np.errstate(over="ignore"):
            read_tokens(
                *(predictor.tables, predictor.maps, self.mixers, self.document, self.work, ids.astype(np.int32)),
                *(predictor.rates, predictor.adapts, logits),
            )
        by_token: NDArray[np.float32] = logits[:, ranks]
        by_token[:, Tokenizer.bos_id] = -np.inf
        return by_token

    def read(self, token: int, /) -> NDArray[np.float32]:
        """Return the logits after one more token, (vocab,)."""
        logits: NDArray[np.float32] = self.read_all(np.array([token]), 1)[0]
        return logits


def copy_state(state: State, num_tokens: int) -> State:
    """Return a copy of a state, with room for this number of tokens."""
    document, learned = state
    needed = int(document.counters[:, LENGTH].max(initial=0)) + num_tokens
    capacity = max(document.tokens.shape[1], 1 << (needed - 1).bit_length())
    return _with_capacity(document, capacity), tree_map(np.copy, learned)


def join_states(states: Sequence[State]) -> State:
    """Return one state for the documents of several states, in this order."""
    capacity = max(document.tokens.shape[1] for document, _ in states)
    documents = [_with_capacity(document, capacity) for document, _ in states]
    joined = Document._make(np.concatenate(arrays) for arrays in zip(*documents, strict=True))
    mixers = [learned for _, learned in states if learned is not None]
    return joined, Mixers._make(np.concatenate(arrays) for arrays in zip(*mixers, strict=True)) if mixers else None


def _with_capacity(document: Document, capacity: int) -> Document:
    """Return a copy of the documents of a batch, with room for ``capacity`` tokens, which may be more than before."""
    batch, previous_capacity = document.tokens.shape
    if capacity == previous_capacity:
        return Document._make(array.copy() for array in document)
    copied = new_document(capacity, (batch,))
    copied.tokens[:, :previous_capacity] = document.tokens
    copied.hashes[:, :previous_capacity] = document.hashes
    copied.rolling[:], copied.counters[:] = document.rolling, document.counters
    copied.previous[:] = -1
    for row in np.flatnonzero((document.heads >= 0).any((1, 2))):  # a model that does not adapt links nothing
        relink(Document._make(array[row] for array in copied))
    return copied
