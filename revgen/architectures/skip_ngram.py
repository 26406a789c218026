"""N-grams whose contexts skip tokens: a chain of contexts, each of which extends or replaces the one before.

    p_i(w | c_i) = (n_i(c_i w) - d(n_i)) / n_i(c_i) + γ(c_i) p_{i-1}(w | c_{i-1})

The contexts c_1, c_2, … are parts of the text before the token: its last tokens, the current word, the words before it,
or tokens with a gap. So a chain can use the word before the last one without the last one, which no suffix of the text
can do. As in Kneser-Ney smoothing, the count n_i of a context other than the last one in the chain is the number of
different longer contexts in which c_i w occurs. Such a model adds to Kneser-Ney models in a mixture.
(Bilmes & Kirchhoff 2003, *Factored language models and generalized parallel backoff*; Goodman 2001, *A bit of progress
in language modeling*.)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from revgen.architectures.counting import CountingModel, recounted
from revgen.architectures.kneser_ney import discounts
from revgen.context_mixing.parts import CONTEXTS, NUM_CONTEXTS, TOKEN_BITS
from revgen.corpus.tokens import Tokens
from revgen.derived import derived
from revgen.model import Weights
from revgen.ngrams import entries_of
from revgen.options import check_tuple
from revgen.registry import register_model
from revgen.sequences import SCORE_BLOCK_LOGITS, slices
from revgen.tokenizers import Tokenizer


@dataclass(frozen=True)
class SkipNGramConfig:
    """The chain of contexts, from the shortest to the longest. ``context_mixing.parts.CONTEXTS`` lists their names."""

    contexts: Sequence[str] = ("order 1", "order 2", "word", "word before and word")

    def __post_init__(self) -> None:
        expected = f"a list of at least one of these names: {', '.join(CONTEXTS)}"
        check_tuple(self, "contexts", lambda names: bool(names) and all(n in CONTEXTS for n in names), expected)


class Level(NamedTuple):
    """The tokens after each context of one kind.

    Context ``c`` has the hash ``keys[c]`` and the factor ``gamma[c]`` of the probabilities without it. The tokens after
    it are entries ``begins[c]`` to ``begins[c + 1]`` of ``words``, with the discounted probabilities ``p``.
    """

    keys: NDArray[np.uint32]
    gamma: NDArray[np.float64]
    begins: NDArray[np.int64]
    words: NDArray[np.int64]
    p: NDArray[np.float64]


@register_model("skip-ngram")
class SkipNGramModel(CountingModel):
    """N-grams whose contexts can skip tokens and words (Bilmes & Kirchhoff 2003).

    p_i(w | c_i) = (n_i(c_i w) - d(n_i)) / n_i(c_i) + γ(c_i) p_{i-1}(w | c_{i-1})

    The model contains its training text.
    """

    Config = SkipNGramConfig

    def count_texts(self, tokens: Tokens, tokenizer: Tokenizer) -> Callable[[], float]:
        documents = [*tokens.documents()]
        self.tokenizer, self.weights = tokenizer, joined_text(documents, tokenizer)
        return lambda: -float(np.concatenate([logprobs for _, logprobs in self.logprobs(documents)]).mean())

    def recount(self, documents: Sequence[NDArray[Any]], tokenizer: Tokenizer, *, keep_networks: bool = False) -> Self:
        return recounted(self, tokenizer, joined_text(documents, tokenizer))

    @derived
    def levels_of_counts(self) -> list[Level]:
        """The counts of the training text, one level for each context of the chain after that without a context."""
        from revgen.context_mixing.counting import hash_contexts

        text = self.weights["text"]
        ends = np.flatnonzero(text != Tokenizer.bos_id)
        kinds = [CONTEXTS.index(name) for name in ("order 0", *self.config.contexts)]
        hashes = hash_contexts(text, *self._token_numbers)[ends - 1][:, kinds].astype(np.uint64)
        pairs = hashes << TOKEN_BITS | text[ends, None].astype(np.uint64)
        longer: list[Any] = [*hashes.T[1:], None]
        return [count_level(column, context) for column, context in zip(pairs.T, longer, strict=True)]

    @derived
    def _token_numbers(self) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
        """The class of each token, and a number that does not depend on its case."""
        from revgen.context_mixing.code_tree import case_folded, token_classes

        return token_classes(self.tokenizer.vocabulary), case_folded(self.tokenizer.vocabulary)

    def weight_shapes(self) -> dict[str, tuple[int, ...]]:
        return {}

    def validate_weights(self, arrays: Weights) -> str | None:
        from revgen.context_mixing.counting import check_text

        unknown = sorted(arrays.keys() - {"text"})
        return f"the weight {unknown[0]} is unknown" if unknown else check_text(arrays.get("text"), len(self.tokenizer))

    @property
    def copies_training_text(self) -> bool:
        return True

    def initial_state(self, batch: int) -> Any:
        from revgen.context_mixing.contexts import new_document
        from revgen.context_mixing.predictor import MIN_CAPACITY

        return new_document(MIN_CAPACITY, (batch,)), None

    def forward(self, tokens: NDArray[Any], state: Any) -> tuple[NDArray[np.floating[Any]], Any]:
        hashes, state = self._read(tokens, state)
        logits = np.empty((*tokens.shape, len(self.tokenizer)), np.float32)
        rows = logits.reshape(-1, logits.shape[-1])
        for block in slices(len(rows), SCORE_BLOCK_LOGITS // logits.shape[-1]):
            with np.errstate(divide="ignore"):
                np.log(self._distributions(hashes[block]), out=rows[block])
        return logits, state

    def next_logits(self, tokens: NDArray[Any], state: Any) -> tuple[NDArray[np.floating[Any]], Any]:
        hashes, state = self._read(tokens, state)
        with np.errstate(divide="ignore"):
            return np.log(self._distributions(hashes[-tokens.shape[1] :])).astype(np.float32), state

    def join_states(self, states: Sequence[Any]) -> Any:
        from revgen.context_mixing.predictor import join_states

        return join_states(states)

    def _read(self, tokens: NDArray[Any], state: Any) -> tuple[NDArray[np.uint32], Any]:
        """Return the hashes of all contexts after each token, (time · batch, contexts), and the next state."""
        from revgen.context_mixing.contexts import Document, write_all_contexts
        from revgen.context_mixing.predictor import copy_state

        state = copy_state(state, len(tokens))
        hashes = np.empty((*tokens.T.shape, NUM_CONTEXTS), np.uint32)
        with np.errstate(over="ignore"):
            for row, ids in enumerate(tokens.T):
                document = Document._make(array[row] for array in state[0])
                write_all_contexts(document, np.ascontiguousarray(ids), *self._token_numbers, hashes[row])
        return hashes.swapaxes(0, 1).reshape(-1, NUM_CONTEXTS), state

    def _distributions(self, hashes: NDArray[np.uint32]) -> NDArray[np.float64]:
        """Return the probability of each token after contexts with these hashes, (positions, vocab)."""
        vocab = len(self.tokenizer)
        p = np.full((len(hashes), vocab), 1 / (vocab - 1))
        p[:, Tokenizer.bos_id] = 0  # never predicted
        kinds = [CONTEXTS.index(name) for name in ("order 0", *self.config.contexts)]
        for level, kind in zip(self.levels_of_counts, kinds, strict=True):
            contexts = level.keys.searchsorted(hashes[:, kind]).clip(max=len(level.keys) - 1)
            rows = np.flatnonzero(level.keys[contexts] == hashes[:, kind])
            contexts = contexts[rows]
            sizes, entries = entries_of(contexts, level.begins)
            p[rows] *= level.gamma[contexts][:, None]
            p[np.repeat(rows, sizes), level.words[entries]] += level.p[entries]
        return p


def joined_text(documents: Sequence[NDArray[Any]], tokenizer: Tokenizer) -> Weights:
    """Return the ids of all documents as the array ``text``, in the smallest type that holds them."""
    return {"text": np.concatenate(documents).astype(np.min_scalar_type(len(tokenizer) - 1))}


def count_level(pairs: NDArray[np.uint64], longer: NDArray[np.uint64] | None) -> Level:
    """Count the pairs of a context and a token, hash << 32 | token, one for each token of a text.

    ``longer`` are the hashes of the next contexts of the chain, which are counted instead of tokens; None for the last
    one.
    """
    if longer is None:
        pairs, counts = np.unique(pairs, return_counts=True)
    else:
        order = np.lexsort((longer, pairs))
        pairs, longer = pairs[order], longer[order]
        is_new = np.append(True, (pairs[1:] != pairs[:-1]) | (longer[1:] != longer[:-1]))
        pairs, counts = np.unique(pairs[is_new], return_counts=True)
    keys, begins = np.unique((pairs >> TOKEN_BITS).astype(np.uint32), return_index=True)
    begins = np.append(begins, len(pairs))
    contexts = np.repeat(np.arange(len(keys)), np.diff(begins))
    discount = discounts(counts)[np.minimum(counts, 3)]
    totals = np.bincount(contexts, counts)
    gamma = np.bincount(contexts, discount) / totals
    p = (counts - discount) / totals[contexts]
    return Level(keys, gamma, begins, (pairs & np.uint64(0xFFFFFFFF)).astype(np.int64), p)
