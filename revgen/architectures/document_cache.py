"""The document cache: n-grams of the document so far, on top of any model.

A document repeats itself: a name, a refrain or a list item that was read once is likely to come again. For each length
n of a context, from ``shortest`` to ``longest``, let c(w) be how often w followed the last n tokens in this document:

    p_n(w) = (max(c(w) - D, 0) + (D · |{w: c(w) > 0}| + S / n) · p_(n-1)(w)) / (Σ_w c(w) + S / n)

The model is the first p, and the last one is the prediction. With a discount D and a strength S, a match of 3 tokens
changes little. A longer match counts at every length, and each length moves p further to the token that followed it.
Each p_n sums to 1, because the one before does.
(Kuhn & De Mori 1990, *A cache-based natural language model for speech recognition*; discount and strength as in a
Pitman-Yor process: Teh 2006, *A hierarchical Bayesian language model based on Pitman-Yor processes*.)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from revgen.architectures.wrapper import Wrapper, WrapperConfig
from revgen.ops import log_softmax
from revgen.options import as_float, check, is_int
from revgen.registry import register_model
from revgen.sequences import ADAPTATIONS, Adaptation, align_ends, slices

MAX_LENGTH = 64
MAX_MATCHES = 1 << 21
"""The largest number of tokens that are compared with the last ones at once, for all of a block of predictions."""
DEFAULTS = {"char": (3, 48.0), "word": (2, 24.0), "subword": (1, 24.0)}
"""The shortest context and the strength for each level of tokenizer."""


@dataclass(frozen=True)
class DocumentCacheConfig(WrapperConfig):
    """The wrapped model, the lengths of the contexts in tokens, discount and strength.

    If ``shortest`` or ``strength`` is None, it depends on the level of the tokenizer (``DEFAULTS``). The cache
    remembers the last ``window`` tokens of the document: in a long document, old counts would outweigh the model.
    """

    shortest: int | None = None
    longest: int = 16
    discount: float = 0.7
    strength: float | None = None
    window: int = 2048

    def __post_init__(self) -> None:
        super().__post_init__()
        is_length = is_int(self.longest, 1) and as_float(self.longest) <= MAX_LENGTH
        check("longest", self.longest, is_length, f"a whole number from 1 to {MAX_LENGTH}")
        is_length = self.shortest is None or (is_int(self.shortest, 1) and self.shortest <= self.longest)
        check("shortest", self.shortest, is_length, "a whole number from 1 to longest")
        check("discount", self.discount, 0 <= as_float(self.discount) <= 1, "in the range 0 ≤ discount ≤ 1")
        is_positive = self.strength is None or 0 < as_float(self.strength) < np.inf
        check("strength", self.strength, is_positive, "a positive number")
        check("window", self.window, is_int(self.window, 1), "a whole number")


class Document(NamedTuple):
    """The tokens of a batch of documents, (batch, time), and which of them followed a context like the present one.

    ``lengths[b, i]`` is the number of tokens before ``tokens[b, i]`` that agree with the last tokens of document b, at
    most ``longest``. Documents of different lengths are aligned at their ends, with -1 before the shorter ones.
    """

    tokens: NDArray[np.int32]
    lengths: NDArray[np.uint8]


class Matches(NamedTuple):
    """The tokens of documents that followed a context like the present one, for each of several predictions.

    Each array has one element per token: the index of the prediction, the token, and its ``Document.lengths``.
    """

    predictions: NDArray[np.intp]
    tokens: NDArray[np.intp]
    lengths: NDArray[np.uint8]


@register_model("document-cache")
class DocumentCache(Wrapper):
    """N-grams of the document so far, on top of a model (Kuhn & De Mori 1990); ``model.adaptive()`` creates one.

    p_n(w) = (max(c(w) - D, 0) + (D · |{w: c(w) > 0}| + S / n) · p_(n-1)(w)) / (Σ_w c(w) + S / n)
    """

    Config = DocumentCacheConfig

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        shortest, strength = DEFAULTS.get(self.level, DEFAULTS["word"])
        self.shortest: int = (
            min(shortest, self.config.longest) if self.config.shortest is None else self.config.shortest
        )
        self.strength: float = strength if self.config.strength is None else self.config.strength

    @property
    def adaptation(self) -> Adaptation:
        return max("document state", self.model.adaptation, key=ADAPTATIONS.index)

    def initial_state(self, batch: int) -> Any:
        empty = Document(np.empty((batch, 0), np.int32), np.empty((batch, 0), np.uint8))
        return self.model.initial_state(batch), empty

    def forward(self, tokens: NDArray[Any], state: Any) -> tuple[NDArray[np.floating[Any]], Any]:
        logits, inner = self.model.forward(tokens, state[0])
        logprobs, document = log_softmax(logits), state[1]
        predicted = np.empty_like(logprobs)
        for block in self._blocks(tokens, document):
            matches, document = self._read(tokens[block], document)
            part = logprobs[block]
            predicted[block] = self._predict(part.reshape(-1, part.shape[-1]), matches).reshape(part.shape)
        return predicted, (inner, document)

    def next_logits(self, tokens: NDArray[Any], state: Any) -> tuple[NDArray[np.floating[Any]], Any]:
        logits, inner = self.model.next_logits(tokens, state[0])
        document = state[1]
        for block in self._blocks(tokens, document):
            matches, document = self._read(tokens[block], document)
        first = tokens[block][:-1].size  # the index of the first prediction after the last tokens
        is_last = matches.predictions >= first
        last = Matches(matches.predictions[is_last] - first, matches.tokens[is_last], matches.lengths[is_last])
        return self._predict(log_softmax(logits), last), (inner, document)

    def logprobs(self, sequences: list[NDArray[Any]]) -> Iterator[tuple[int, NDArray[np.floating[Any]]]]:
        for i, logprobs in self.model.logprobs(sequences):
            ids, mixed = sequences[i], np.empty_like(logprobs)
            _, document = self.initial_state(1)
            for block in self._blocks(ids[:-1, None], document):
                matches, document = self._read(ids[:-1][block, None], document)
                predictions, tokens, p, scales = self._estimate(matches, np.exp(logprobs[block, None], dtype=float))
                is_next = tokens == ids[1:][block][predictions] % len(self.tokenizer)
                mixed[block] = logprobs[block] + np.log(scales)
                mixed[block][predictions[is_next]] = np.log(p[is_next])
            yield i, mixed

    def join_states(self, states: Sequence[Any]) -> Any:
        inner, documents = zip(*states, strict=True)
        tokens, lengths = zip(*documents, strict=True)
        return self.model.join_states(inner), Document(align_ends(tokens, fill=-1), align_ends(lengths))

    def _blocks(self, tokens: NDArray[Any], document: Document) -> Iterator[slice]:
        """Yield the parts of ``tokens`` (time, batch) to read at once: each may match all tokens in the window."""
        time, batch = tokens.shape
        window = min(self.config.window, document.tokens.shape[1] + time)
        return slices(time, MAX_MATCHES // (batch * window))

    def _read(self, tokens: NDArray[Any], document: Document) -> tuple[Matches, Document]:
        """Read token ids (time, batch); return the matches after each of them, and the documents.

        The prediction after ``tokens[t, b]`` has the index t · batch + b. If the token before index i agrees with the
        last token, the match of i is one token longer than the match of i - 1 was; otherwise it is 0.
        """
        time, batch = tokens.shape
        size = document.tokens.shape[1]
        read = np.concatenate([document.tokens, tokens.T % len(self.tokenizer)], 1, dtype=np.int32)
        lengths = np.pad(document.lengths, ((0, 0), (0, time)))
        found: list[tuple[NDArray[Any], ...]] = []
        for t in range(time):
            end = size + t  # the index of the last token
            begin = max(0, end - self.config.window)
            agrees = read[:, begin:end] == read[:, end : end + 1]
            longer = np.minimum(lengths[:, begin:end] + 1, self.config.longest, dtype=np.uint8)
            lengths[:, begin + 1 : end + 1] = longer * agrees
            rows, indices = np.nonzero(lengths[:, begin + 1 : end + 1] >= self.shortest)
            indices += begin + 1
            found.append((t * batch + rows, read[rows, indices], lengths[rows, indices]))
        matches = Matches(*map(np.concatenate, zip(*found, strict=True)))
        keep = slice(-self.config.window, None)
        return matches, Document(read[:, keep], lengths[:, keep])

    def _predict(self, logprobs: NDArray[Any], matches: Matches) -> NDArray[np.floating[Any]]:
        """Return the log-probabilities of the cache from those of the model, (predictions, vocab)."""
        predictions, tokens, p, scales = self._estimate(matches, np.exp(logprobs, dtype=float))
        mixed: NDArray[np.floating[Any]] = logprobs + np.log(scales)[:, None].astype(logprobs.dtype)
        mixed[predictions, tokens] = np.log(p)
        return mixed

    def _estimate(
        self, matches: Matches, probabilities: NDArray[np.float64]
    ) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float64], NDArray[np.float64]]:
        """Estimate the probability of each token that was found, and the factor for those of all other tokens.

        ``probabilities`` (predictions, vocab) or (predictions, 1) are those of the model. Returns predictions, tokens
        and their probabilities, with one element for each different token of each prediction, and the factors,
        (predictions,).
        """
        discount, vocab = self.config.discount, len(self.tokenizer)
        keys, inverse = np.unique(matches.predictions * vocab + matches.tokens, return_inverse=True)
        predictions, tokens = np.divmod(keys, vocab)
        p = probabilities[predictions, tokens if probabilities.shape[1] > 1 else 0]
        scales = np.ones(len(probabilities))
        for n in range(self.shortest, self.config.longest + 1):
            is_long = matches.lengths >= n
            counts = np.bincount(inverse[is_long], minlength=len(keys))
            totals = np.bincount(matches.predictions[is_long], minlength=len(scales))
            kinds = np.bincount(predictions[counts > 0], minlength=len(scales))
            strength = self.strength / n
            factors = (discount * kinds + strength) / (totals + strength)
            scales *= factors
            p = np.maximum(counts - discount, 0) / (totals + strength)[predictions] + factors[predictions] * p
        return predictions, tokens, p, scales
