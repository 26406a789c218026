"""Likelihood: how well a model predicts text, in units that are comparable between models with different tokenizers.

The model predicts all tokens of a document after its start token, including the end token. The sum of the negative
log-likelihoods of all documents is divided by their number of characters. A character outside the vocabulary costs as
much as the tokens that spell it. If the tokenizer encodes it as ``<unk>``, it costs as much as ``<unk>`` and a uniform
code over all characters without a token.
"""

from __future__ import annotations

import dataclasses
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import exp, inf, log
from typing import Any

import numpy as np
from numpy.typing import NDArray

from revgen.corpus import read
from revgen.corpus.summary import LINES_HINT, has_short_lines
from revgen.corpus.tokens import count_tokens, tokenize
from revgen.display.formatting import pluralize
from revgen.display.html_tables import html_block, html_facts, html_table
from revgen.display.tables import to_text
from revgen.errors import CorpusError
from revgen.evaluation.coloring import colored_html, to_bits
from revgen.model import Model
from revgen.options import ReadOptions, check
from revgen.sequences import Adaptation
from revgen.tokenizers import Tokenizer

LogProbs = Callable[[list[NDArray[Any]]], Iterator[tuple[int, NDArray[Any]]]]
"""A function that yields ``(index, logprobs)`` for each sequence of ids, like ``Model.logprobs``."""

WINDOW, WARM_UP = 4096, 512
"""The number of tokens in each window of a long document, and the number of tokens read before the window."""
GROUP_SIZE = 1 << 20
"""The number of tokens of the documents that are scored together: enough to sort by length, few enough for memory."""
MAX_LOG = 700.0
"""The exponential of a larger number overflows."""


@dataclass(frozen=True)
class Evaluation:
    """The evaluation of a model on a set of documents."""

    nats_per_char: float
    """Negative log-likelihood (natural logarithm) of all documents including their ends, per character."""
    perplexity: float
    """Perplexity per token. It is comparable only between models with the same tokenizer."""
    tokens: int
    characters: int
    documents: int
    unknown: int
    """The number of characters that are not in the vocabulary."""
    adaptation: Adaptation = "fixed weights"
    """How the model adapts to each document: "fixed weights", "document state" or "adapted weights"."""
    adaptive: tuple[Evaluation, ...] = ()
    """The evaluations of the same model when it adapts more, if requested."""

    @property
    def bits_per_char(self) -> float:
        """``nats_per_char`` divided by ln 2."""
        return self.nats_per_char / log(2)

    def metrics(self) -> dict[str, Any]:
        """Return, by name, the metrics that are fields of ``EpochMetrics``."""
        return {
            "nats_per_char": self.nats_per_char,
            "bits_per_char": self.bits_per_char,
            "perplexity": self.perplexity,
        }

    def to_dict(self) -> dict[str, Any]:
        """Return all fields and ``bits_per_char`` by name; without ``adaptive`` if it is empty."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        fields["adaptive"] = [evaluation.to_dict() for evaluation in self.adaptive]
        return {k: v for k, v in fields.items() if k != "adaptive" or v} | {"bits_per_char": self.bits_per_char}

    def to_rows(self) -> tuple[list[dict[str, Any]], list[str]]:
        """Return a table with a row for each metric and a column for each way to adapt."""
        evaluations = (self, *self.adaptive)
        names = {"nats_per_char": "nats per character", "bits_per_char": "bits per character"}
        rows = [
            {"": names.get(name, f"{name} per token")} | {e.adaptation: e.metrics()[name] for e in evaluations}
            for name in self.metrics()
        ]
        return rows, ["", *(evaluation.adaptation for evaluation in evaluations)]

    def __str__(self) -> str:
        text = (
            f"{pluralize(self.documents, 'document')}, {self.characters:,} characters, {self.tokens:,} tokens, "
            f"{self.unknown:,} unknown"
        )
        if self.adaptive:
            return f"{to_text(*self.to_rows())}\n{text}"
        return (
            f"{self.nats_per_char:.4f} nats per character ({self.bits_per_char:.4f} bits), "
            f"perplexity {self.perplexity:.2f} per token; {text}; {self.adaptation}"
        )

    def _repr_html_(self) -> str:
        counts = {name: getattr(self, name) for name in ("documents", "characters", "tokens", "unknown")}
        return html_block(html_table(*self.to_rows()), html_facts(counts))


@dataclass(frozen=True)
class Score:
    """The log-probability of one document, token by token."""

    tokens: tuple[str, ...]
    logprobs: NDArray[np.floating[Any]]
    """The natural logarithm of the probability of each token and of the document's end, (tokens + 1,)."""

    @property
    def total(self) -> float:
        """The natural logarithm of the document's probability."""
        return float(self.logprobs.sum())

    def _repr_html_(self) -> str:
        names = [*map(repr, self.tokens), "the end"]
        tokens = [
            (text, to_bits(logprob), f"{name}: {exp(logprob):.2%}")
            for text, name, logprob in zip([*self.tokens, ""], names, self.logprobs.tolist(), strict=True)
        ]
        return html_block(colored_html(tokens), f"<p>{-self.total:.2f} nats in total</p>")


def score(model: Model, text: str, label: str | float | bool | None = None) -> Score:
    """Return the log-probability of each token of a document and of its end."""
    check("text", text, isinstance(text, str), "a string")
    tokenizer = model.tokenizer
    ids = np.array([tokenizer.bos_id, *tokenizer.encode(text), tokenizer.eos_id])
    _, logprobs = next(model.logprobs([ids + model.label_offset(label)]))
    unknown_nats = np.where(ids[1:] == tokenizer.unk_id, tokenizer.unknown_nats, 0).astype(logprobs.dtype)
    return Score(tuple(tokenizer.vocabulary[i] for i in ids[1:-1]), logprobs - unknown_nats)


def evaluate(model: Model, texts: Any, labels: Any, reading: ReadOptions, versions: Sequence[Model]) -> Evaluation:
    """Evaluate the versions of a model, and return the first result, which has the others as ``adaptive``.

    ``LanguageModel.evaluate`` describes the other parameters.
    """
    if labels is not None:
        model.check_labels()
    if (documents := model.metadata.get("documents")) in ("line", "blank"):
        reading.setdefault("documents", documents)
    corpus = read(texts, labels=labels, **reading)
    tokens = tokenize(corpus, model.tokenizer, () if labels is None else model.labels)
    if "documents" not in reading and len(tokens.spans) == 1 and has_short_lines(tokens, model.tokenizer):
        warnings.warn(LINES_HINT, stacklevel=4)
    evaluation, *others = (
        measure(version.logprobs, version.tokenizer, tokens.documents(), version.adaptation) for version in versions
    )
    return dataclasses.replace(evaluation, adaptive=tuple(others))


def measure(
    logprobs: LogProbs,
    tokenizer: Tokenizer,
    documents: Iterable[NDArray[Any]],
    adaptation: Adaptation = "fixed weights",
) -> Evaluation:
    """Evaluate the log-probabilities that ``logprobs`` returns for documents of ids, including start and end tokens.

    The ids may carry labels (``corpus.tokens.label_offset``). If the weights are fixed, a document of more than 4,096
    tokens is scored in windows. Before each window, the model reads the 512 tokens that precede it. Raises CorpusError
    if the documents have no characters.
    """
    window = WINDOW if adaptation == "fixed weights" else sys.maxsize
    nats, num_documents = 0.0, 0
    counts = np.zeros(len(tokenizer), np.int64)  # how often each token is predicted
    for group in _groups(documents):
        windows, warm_ups = [], []
        for ids in group:
            num_documents += 1
            counts += count_tokens(ids[1:], len(tokenizer))
            for start in range(0, len(ids) - 1, window):
                begin = max(0, start - WARM_UP)
                windows.append(ids[begin : start + window + 1])
                warm_ups.append(start - begin)
        for i, window_logprobs in logprobs(windows):
            nats -= float(window_logprobs[warm_ups[i] :].sum(dtype=np.float64))
    nats += int(counts[tokenizer.unk_id]) * tokenizer.unknown_nats
    num_tokens, num_characters = int(counts.sum()), int(counts @ tokenizer.char_counts)
    if not num_characters:
        raise CorpusError("there is no text to evaluate on: the documents have no characters")
    return Evaluation(
        nats_per_char=nats / num_characters,
        perplexity=exp(nats / num_tokens) if nats < MAX_LOG * num_tokens else inf,
        tokens=num_tokens,
        characters=num_characters,
        documents=num_documents,
        unknown=int(counts @ tokenizer.completes_unknown_character),
        adaptation=adaptation,
    )


def _groups(documents: Iterable[NDArray[Any]]) -> Iterator[list[NDArray[Any]]]:
    """Yield lists of consecutive documents with about ``GROUP_SIZE`` tokens."""
    group: list[NDArray[Any]] = []
    size = 0
    for ids in documents:
        group.append(ids)
        size += len(ids)
        if size >= GROUP_SIZE:
            yield group
            group, size = [], 0
    if group:
        yield group
