"""Counting n-grams, and the trie that stores their probabilities.

An n-gram is identified by one integer: the index of its context (the n-gram without its last word) among the n-grams of
the order below, times the size of the vocabulary, plus its last word. So each order is counted with one sort of the
text, without a loop over tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from revgen.errors import OptionError
from revgen.model import Weights

Ints = NDArray[np.integer[Any]]
Floats = NDArray[np.floating[Any]]

Estimate = tuple[list["Counts"], list[Floats], list[Floats]]
"""For each order: the n-grams, their probabilities, and the backoff weights of the contexts."""

MIN_LOG = -1e4
"""The value that files have for the logarithm of 0."""


@dataclass(frozen=True)
class Counts:
    """The n-grams of one order in a corpus, sorted by context and word. Each array is (n-grams,).

    ``contexts`` and ``suffixes`` (the n-gram without its first word) are indices of n-grams of the order below.
    ``counts`` are numbers of occurrences, and ``at_start`` is true for n-grams at the start of a document.
    """

    contexts: Ints
    words: Ints
    suffixes: Ints
    counts: Ints
    at_start: NDArray[np.bool_]


def count(documents: Iterable[NDArray[Any]], vocab: int, order: int) -> list[Counts]:
    """Count the n-grams of every order up to ``order``. No n-gram crosses the boundary between two documents.

    A document is an array of ids, from the start token to the end token. Order 1 contains the whole vocabulary.
    """
    words, offsets = _concatenate(documents)
    counts = np.bincount(words[offsets > 0], minlength=vocab)
    zeros = np.zeros(vocab, np.int64)
    orders = [Counts(zeros, np.arange(vocab), zeros, counts, np.zeros(vocab, bool))]
    indices = words  # for each position, the index of the n-gram of the order below that ends there
    for n in range(2, order + 1):
        ends = np.flatnonzero(offsets >= n - 1)
        keys = indices[ends - 1] * vocab + words[ends]
        keys, first, inverse, counts = np.unique(keys, return_index=True, return_inverse=True, return_counts=True)
        suffixes, at_start = indices[ends[first]], offsets[ends[first]] == n - 1
        orders.append(Counts(keys // vocab, keys % vocab, suffixes, counts, at_start))
        indices = np.full(len(words), -1)
        indices[ends] = inverse
    return orders


def text_loss(orders: list[Counts], probabilities: list[Floats]) -> float:
    """Return the cross-entropy in nats per token of the counted text under the probabilities of its n-grams."""
    nats, tokens = 0.0, 0
    for counted, p in zip(orders, probabilities, strict=True):
        # A shorter n-gram predicts a token only at the start of a document.
        counts = counted.counts if counted is orders[-1] else np.where(counted.at_start, counted.counts, 0)
        occurs = counts > 0
        nats -= float(counts[occurs] @ np.log(p[occurs]))
        tokens += int(counts.sum())
    return nats / max(tokens, 1)


def prune(
    orders: list[Counts],
    probabilities: list[Floats],
    backoffs: list[Floats],
    min_gain: float = -np.inf,
    max_bytes: int | None = None,
) -> Estimate:
    """Remove n-grams that add at most ``min_gain`` nats to the log-likelihood of the text.

    If the weights are still larger than ``max_bytes``, remove more n-grams, smallest gain first. The gain of an n-gram
    is c(h w) (log p(w | h) - log B(h) p(w | h without its first word)), the weighted difference of Seymore & Rosenfeld
    (1996), *Scalable backoff language models*. Prefixes and suffixes of kept n-grams are kept, and so is order 1. The
    backoff weights are recomputed, so that the probabilities after a context sum to 1. Raises OptionError if order 1
    alone is too large.
    """
    gains = [np.full(len(orders[0].counts), np.inf)]
    for n in range(1, len(orders)):
        counted = orders[n]
        backed_off = backoffs[n][counted.contexts] * probabilities[n - 1][counted.suffixes]
        gains.append(counted.counts * np.log(probabilities[n] / backed_off))
    for n in range(len(orders) - 1, 1, -1):  # an n-gram has at least the gain of the longer ones that need it
        np.maximum.at(gains[n - 1], orders[n].contexts, gains[n])
        np.maximum.at(gains[n - 1], orders[n].suffixes, gains[n])
    if max_bytes is not None:
        min_gain = max(min_gain, _min_gain_for_size(orders, gains, max_bytes))

    masks = [gain > min_gain for gain in gains]
    new_indices = [np.cumsum(mask) - 1 for mask in masks]
    pruned, new_backoffs = [orders[0]], [backoffs[0]]
    for n in range(1, len(orders)):
        mask, counted = masks[n], orders[n]
        contexts, suffixes = counted.contexts[mask], counted.suffixes[mask]
        size = len(orders[n - 1].counts)
        kept_mass = np.bincount(contexts, probabilities[n][mask], size)
        kept_mass_below = np.bincount(contexts, probabilities[n - 1][suffixes], size)
        changed = np.bincount(counted.contexts[~mask], minlength=size) > 0
        backoff = np.where(changed, (1 - kept_mass) / (1 - kept_mass_below), backoffs[n])
        new_backoffs.append(backoff[masks[n - 1]])
        pruned.append(
            Counts(
                new_indices[n - 1][contexts],
                counted.words[mask],
                new_indices[n - 1][suffixes],
                counted.counts[mask],
                counted.at_start[mask],
            )
        )
    return pruned, [p[mask] for p, mask in zip(probabilities, masks, strict=True)], new_backoffs


def _min_gain_for_size(orders: list[Counts], gains: list[Floats], max_bytes: int) -> float:
    """Return the gain that n-grams must exceed for the arrays of ``to_weights`` to fit into ``max_bytes``."""
    vocab, longest = len(orders[0].counts), len(orders)
    context_size = 8  # bytes of an entry of begins and a backoff weight
    order_1_size = vocab * (4 + context_size) + 4 * longest
    if max_bytes < order_1_size:
        raise OptionError(f"max_bytes must be at least {order_1_size:,} for {vocab:,} tokens, not {max_bytes!r}")
    word_size = _word_type(vocab)().itemsize
    sizes = [np.full(len(gain), word_size + 4 + (4 + context_size) * (n < longest)) for n, gain in enumerate(gains, 1)]
    sizes[0][:] = 0  # order 1 is always kept, and counted above
    gain = np.concatenate(gains)
    order = np.argsort(-gain, kind="stable")
    total = order_1_size + np.cumsum(np.concatenate(sizes)[order])
    num_kept = int(np.searchsorted(total, max_bytes, "right"))
    return -np.inf if num_kept == len(gain) else float(gain[order[num_kept]])


def _word_type(vocab: int) -> type[np.unsignedinteger[Any]]:
    return np.uint32 if vocab > 1 << 16 else np.uint16


def to_weights(orders: list[Counts], probabilities: list[Floats], backoffs: list[Floats]) -> Weights:
    """Return the arrays of a trie by name, as a model saves them.

    ``n.begins`` (contexts + 1,) holds the index of the first n-gram of each context. ``n.logp`` and ``n.backoff`` are
    the logarithms of the probabilities and of the contexts' backoff weights.
    """
    weights: Weights = {}
    for n, (counted, p, backoff) in enumerate(zip(orders, probabilities, backoffs, strict=True), 1):
        if n > 1:
            size = len(orders[n - 2].counts)
            weights[f"{n}.begins"] = np.searchsorted(counted.contexts, np.arange(size + 1)).astype(np.uint32)
            weights[f"{n}.words"] = counted.words.astype(_word_type(len(orders[0].counts)))
        if 1 < n < len(orders):
            weights[f"{n}.suffixes"] = counted.suffixes.astype(np.uint32)
        weights[f"{n}.logp"] = _log(p)
        weights[f"{n}.backoff"] = _log(backoff)
    return weights


class Trie:
    """Conditional probabilities of n-grams with backoff.

        p(w | h) = P(h w) if the n-gram h w is known, else B(h) p(w | h without its first word)

    A context is a pair (depth, index): its number of words, and its index among the n-grams of that order. A state is
    the longest known context of the text so far.
    """

    def __init__(self, weights: Weights) -> None:
        self.order = sum(name.endswith(".logp") for name in weights)
        self.vocab = len(weights["1.logp"])
        empty = np.zeros(0, np.int64)
        orders = range(1, self.order + 1)
        # Lists are indexed by the order, so index 0 is not used.
        self.begins = [empty, empty] + [weights[f"{n}.begins"].astype(np.int64) for n in orders if n > 1]
        self.words = [empty, np.arange(self.vocab)] + [weights[f"{n}.words"].astype(np.int64) for n in orders if n > 1]
        self.suffixes = [empty, np.zeros(self.vocab, np.int64)]
        self.suffixes += [weights[f"{n}.suffixes"].astype(np.int64) for n in orders if 1 < n < self.order]
        self.p = [empty.astype(float)] + [np.exp(weights[f"{n}.logp"], dtype=np.float64) for n in orders]
        self.backoff = [empty.astype(float)] + [np.exp(weights[f"{n}.backoff"], dtype=np.float64) for n in orders]
        self._cached_keys: dict[int, NDArray[np.int64]] = {}

    def advance(self, depth: int, index: int, word: int) -> tuple[int, int]:
        """Return the longest known context after one more word."""
        if depth == self.order - 1:
            if depth == 0:
                return 0, 0
            depth, index = depth - 1, int(self.suffixes[depth][index])
        while depth > 0:
            begin, end = self.begins[depth + 1][index], self.begins[depth + 1][index + 1]
            child = begin + self.words[depth + 1][begin:end].searchsorted(word)
            if child < end and self.words[depth + 1][child] == word:
                return depth + 1, int(child)
            depth, index = depth - 1, int(self.suffixes[depth][index])
        return 1, word

    def distribution(self, depth: int, index: int) -> Floats:
        """Return the probability of each word after a context, (vocab,)."""
        contexts = []
        while depth > 0:
            contexts.append((depth + 1, index))
            depth, index = depth - 1, int(self.suffixes[depth][index])
        p = self.p[1].copy()
        for n, context in reversed(contexts):
            begin, end = self.begins[n][context], self.begins[n][context + 1]
            p *= self.backoff[n][context]
            p[self.words[n][begin:end]] = self.p[n][begin:end]
        return p

    def context_words(self, depth: int, index: int) -> list[int]:
        """Return the words of a context."""
        words: list[int] = []
        for n in range(depth, 1, -1):
            words.insert(0, int(self.words[n][index]))
            index = int(self.begins[n].searchsorted(index, "right")) - 1
        return [index, *words] if depth else []

    def contexts(self, sequences: Sequence[NDArray[Any]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return depth and index of the longest known context after each word of all sequences, each (words,)."""
        words, offsets = _concatenate(sequences)
        is_deep = self.order > 1
        depths, indices = np.full(len(words), int(is_deep)), words * is_deep
        for n, _, ngrams in self._find_ngrams(words, offsets):
            if n < self.order:
                depths, indices = np.where(ngrams >= 0, n, depths), np.where(ngrams >= 0, ngrams, indices)
        return depths, indices

    def distributions(self, depths: NDArray[np.int64], indices: NDArray[np.int64]) -> Floats:
        """Return the probability of each word after each of several contexts, (contexts, vocab)."""
        levels: list[tuple[int, NDArray[np.int64], NDArray[np.int64]]] = []
        for n in range(self.order, 1, -1):
            rows = np.flatnonzero(depths == n - 1)
            levels.append((n, rows, indices[rows]))
            depths, indices = depths.copy(), indices.copy()
            depths[rows], indices[rows] = n - 2, self.suffixes[n - 1][indices[rows]]
        p = np.repeat(self.p[1][None], len(depths), 0)
        for n, rows, contexts in reversed(levels):
            sizes, children = entries_of(contexts, self.begins[n])
            p[rows] *= self.backoff[n][contexts][:, None]
            p[np.repeat(rows, sizes), self.words[n][children]] = self.p[n][children]
        return p

    def logprobs(self, sequences: list[NDArray[Any]]) -> list[Floats]:
        """Return the log-probability of each token after the first, for each sequence of ids."""
        words, offsets = _concatenate(sequences)
        with np.errstate(divide="ignore"):
            logprobs = np.log(self.p[1])[words]
            for n, contexts, ngrams in self._find_ngrams(words, offsets):
                backed_off = np.where(contexts >= 0, logprobs + np.log(self.backoff[n])[contexts], logprobs)
                logprobs = np.where(ngrams >= 0, np.log(self.p[n])[ngrams], backed_off)
        starts = np.flatnonzero(offsets == 0)
        return [part[1:] for part in np.split(logprobs, starts[1:])]

    def _find_ngrams(
        self, words: NDArray[np.int64], offsets: NDArray[np.int64]
    ) -> Iterator[tuple[int, NDArray[np.int64], NDArray[np.int64]]]:
        """Yield ``(n, contexts, ngrams)`` for the orders from 2 on.

        For each word, these are the index of the n-gram that it ends, and of the context of this n-gram, or -1 if the
        trie lacks it. ``offsets`` are the positions of the words in their sequences.
        """
        ngrams = words
        for n in range(2, self.order + 1):
            if not len(self.words[n]):
                return
            contexts = np.where(offsets >= n - 1, np.concatenate([[-1], ngrams[:-1]]), -1)
            queries = contexts * self.vocab + words
            nearest = self._keys(n).searchsorted(queries).clip(max=len(self.words[n]) - 1)
            is_known = (contexts >= 0) & (self._keys(n)[nearest] == queries)
            ngrams = np.where(is_known, nearest, -1)
            yield n, contexts, ngrams

    def _keys(self, n: int) -> NDArray[np.int64]:
        """Return the integers that identify the n-grams of an order, in ascending order."""
        if n not in self._cached_keys:
            contexts = np.repeat(np.arange(len(self.begins[n]) - 1), np.diff(self.begins[n]))
            self._cached_keys[n] = contexts * self.vocab + self.words[n]
        return self._cached_keys[n]


def entries_of(contexts: NDArray[np.int64], begins: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return how many entries each context has, (contexts,), and the indices of all of these entries, (entries,).

    The entries of context ``c`` are ``begins[c]`` to ``begins[c + 1]``.
    """
    first = begins[contexts]
    sizes = begins[contexts + 1] - first
    return sizes, np.arange(sizes.sum()) + np.repeat(first - sizes.cumsum() + sizes, sizes)


def _concatenate(documents: Iterable[NDArray[Any]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return all ids, (tokens,), and the position of each in its document, (tokens,)."""
    parts = list(documents)
    offsets = np.concatenate([np.arange(len(part)) for part in parts])
    return np.concatenate(parts).astype(np.int64), offsets


def _log(p: Floats) -> Floats:
    with np.errstate(divide="ignore"):
        return np.maximum(np.log(p), MIN_LOG).astype(np.float32)
