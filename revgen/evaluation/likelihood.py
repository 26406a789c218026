"""Likelihood: what a model gives to text, counted so that models of any tokenizer can be compared.

A document is scored from its start token, and its end token counts as a prediction; the sum over all
documents is divided by their number of characters. A character outside the vocabulary costs the tokens that spell it;
where a tokenizer reads it as ``<unk>``, it costs that token and a uniform code over all characters without a token.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import exp, inf, log
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from revgen.corpus import Corpus
from revgen.corpus.tokens import tokenize
from revgen.errors import CorpusError
from revgen.options import check
from revgen.tokenizers import Tokenizer

if TYPE_CHECKING:
    from revgen.model import Model

LogProbs = Callable[[list[NDArray[Any]]], Iterator[tuple[int, NDArray[Any]]]]

WINDOW, WARM_UP = 4096, 512


@dataclass(frozen=True)
class Evaluation:
    """How well a model predicts some documents."""

    nats_per_char: float
    """The negative natural-log likelihood of all documents with their ends, over their characters."""
    perplexity: float
    """exp of the same over the tokens: comparable only between models of one tokenizer."""
    tokens: int
    characters: int
    documents: int
    unknown: int
    """How many of the characters are not in the vocabulary."""

    @property
    def bits_per_char(self) -> float:
        """``nats_per_char`` over ln 2."""
        return self.nats_per_char / log(2)

    def to_dict(self) -> dict[str, float]:
        """Every figure by name."""
        return dataclasses.asdict(self) | {"bits_per_char": self.bits_per_char}

    def __str__(self) -> str:
        return (
            f"{self.nats_per_char:.4f} nats per character ({self.bits_per_char:.4f} bits), "
            f"perplexity {self.perplexity:.2f} per token; {self.documents:,} documents, "
            f"{self.characters:,} characters, {self.tokens:,} tokens, {self.unknown:,} unknown"
        )


@dataclass(frozen=True)
class Score:
    """The log-probability of one document, token by token."""

    tokens: tuple[str, ...]
    logprobs: NDArray[np.floating[Any]]
    """Natural logarithms: one for each token, then that of the document's end, (tokens + 1,)."""

    @property
    def total(self) -> float:
        """The natural logarithm of the document's probability."""
        return float(self.logprobs.sum())


def score(model: Model, text: str, label: str | float | bool | None = None) -> Score:
    """See ``LanguageModel.score``."""
    check("text", text, isinstance(text, str), "a string")
    tokenizer = model.tokenizer
    ids = np.array([tokenizer.bos_id, *tokenizer.encode(text), tokenizer.eos_id])
    pieces = tuple(tokenizer.vocabulary[i] for i in ids[1:-1])
    logprobs = next(model.logprobs([ids + model.label_offset(label)]))[1]
    return Score(
        pieces, logprobs - np.where(ids[1:] == tokenizer.unk_id, tokenizer.unknown_nats, 0).astype(logprobs.dtype)
    )


def evaluate(model: Model, corpus: Corpus, labels: Sequence[str | int] = ()) -> Evaluation:
    """See ``LanguageModel.evaluate``."""
    tokens = tokenize(corpus, model.tokenizer, labels)
    return measure(model.logprobs, model.tokenizer, tokens.documents())


def measure(given: LogProbs, tokenizer: Tokenizer, documents: Iterable[NDArray[Any]]) -> Evaluation:
    """Evaluate on documents of ids, each with its start and end, by the log-probabilities ``given`` to sequences.

    The ids may carry labels (``corpus.tokens.shift``). A document longer than 4,096 tokens is read in windows, each
    after 512 tokens to warm the state up on.
    """
    nats, count = 0.0, 0
    counts = np.zeros(len(tokenizer), np.int64)  # how often each token is predicted
    for group in _groups(documents):
        windows, warm_ups = [], []
        for ids in group:
            count += 1
            counts += np.bincount(ids[1:] % len(tokenizer), minlength=len(tokenizer))
            for start in range(0, len(ids) - 1, WINDOW):
                begin = max(0, start - WARM_UP)
                windows.append(ids[begin : start + WINDOW + 1])
                warm_ups.append(start - begin)
        for i, row in given(windows):
            nats -= float(row[warm_ups[i] :].sum(dtype=np.float64))
    nats += int(counts[tokenizer.unk_id]) * tokenizer.unknown_nats
    tokens, characters = int(counts.sum()), int(counts @ tokenizer.char_counts)
    unknown = int(counts @ tokenizer.completes_unknown_character)
    if not characters:
        raise CorpusError("there is no text to evaluate on: it has no characters")
    return Evaluation(
        nats / characters, exp(nats / tokens) if nats < 700 * tokens else inf, tokens, characters, count, unknown
    )


def _groups(documents: Iterable[NDArray[Any]], tokens: int = 1 << 20) -> Iterator[list[NDArray[Any]]]:
    """Documents by groups of about so many tokens: enough to sort by length, few enough to hold."""
    group: list[NDArray[Any]] = []
    size = 0
    for ids in documents:
        group.append(ids)
        size += len(ids)
        if size >= tokens:
            yield group
            group, size = [], 0
    if group:
        yield group
