"""N-grams: counted over a corpus, and kept as a trie from which probabilities are read.

An n-gram is named by the place of its context, the n-gram without its last word, among those of the order below,
and by that word: one integer. Counting an order is so one sort of the text, with no loop over tokens.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from revgen.errors import OptionError
from revgen.model import Weights

Ints = NDArray[np.integer[Any]]
Floats = NDArray[np.floating[Any]]

Estimate = tuple[list["Counts"], list[Floats], list[Floats]]
"""The n-grams of each order, the probability of each, and what each context leaves to the order below."""

NEVER = -1e4
"""What stands on disk for the logarithm of 0."""


@dataclass(frozen=True)
class Counts:
    """The n-grams of one order in a corpus, sorted by context and word, (n-grams,) each.

    ``contexts`` and ``suffixes`` (the n-gram without its first word) are places in the order below; ``counts`` are
    how often each stands in the text; ``opens`` marks those at the start of a document.
    """

    contexts: Ints
    words: Ints
    suffixes: Ints
    counts: Ints
    at_start: NDArray[np.bool_]


def count(documents: Iterable[NDArray[Any]], vocab: int, order: int) -> list[Counts]:
    """Count the n-grams of every order up to ``order``; none reaches over the border of a document.

    Each document is ids from its start token to its end token. Order 1 holds the whole vocabulary.
    """
    words, offsets = _run_together(documents)
    counts = np.bincount(words[offsets > 0], minlength=vocab)
    nothing = np.zeros(vocab, np.int64)
    orders = [Counts(nothing, np.arange(vocab), nothing, counts, np.zeros(vocab, bool))]
    places = words  # for each position, that of the n-gram of the order below which ends there
    for n in range(2, order + 1):
        ends = np.flatnonzero(offsets >= n - 1)
        names = places[ends - 1] * vocab + words[ends]
        names, first, inverse, counts = np.unique(names, return_index=True, return_inverse=True, return_counts=True)
        suffixes, opens = places[ends[first]], offsets[ends[first]] == n - 1
        orders.append(Counts(names // vocab, names % vocab, suffixes, counts, opens))
        places = np.full(len(words), -1)
        places[ends] = inverse
    return orders


def text_loss(orders: list[Counts], probabilities: list[Floats]) -> float:
    """Nats per token that the probabilities of all n-grams give to the text they were counted in."""
    nats, tokens = 0.0, 0
    for counted, p in zip(orders, probabilities, strict=True):
        # Of the shorter n-grams, those at the start of a document are all there is to predict from.
        counts = counted.counts if counted is orders[-1] else np.where(counted.at_start, counted.counts, 0)
        there = counts > 0
        nats -= float(counts[there] @ np.log(p[there]))
        tokens += int(counts.sum())
    return nats / max(tokens, 1)


def prune(
    orders: list[Counts],
    probabilities: list[Floats],
    backoffs: list[Floats],
    min_gain: float = -np.inf,
    max_bytes: int | None = None,
) -> Estimate:
    """Drop n-grams that add no more than ``min_gain`` nats to the likelihood of the text, and then as many of those
    that add the least as it takes for the weights to fit in ``max_bytes``.

    What an n-gram adds is c(h w) (log p(w | h) - log B(h) p(w | h without its first word)): the weighted difference of
    Seymore & Rosenfeld (1996), *Scalable backoff language models*. One that a kept n-gram begins or ends with is kept,
    and so is order 1. What a context leaves to the order below is then what its probabilities leave of 1. Raises
    OptionError where not even order 1 fits.
    """
    gains = [np.full(len(orders[0].counts), np.inf)]
    for n in range(1, len(orders)):
        counted = orders[n]
        left = backoffs[n][counted.contexts] * probabilities[n - 1][counted.suffixes]
        gains.append(counted.counts * np.log(probabilities[n] / left))
    for n in range(len(orders) - 1, 1, -1):  # an n-gram is worth what the longer ones are that need it
        np.maximum.at(gains[n - 1], orders[n].contexts, gains[n])
        np.maximum.at(gains[n - 1], orders[n].suffixes, gains[n])
    if max_bytes is not None:
        min_gain = max(min_gain, _affordable(orders, gains, max_bytes))

    kept = [gain > min_gain for gain in gains]
    places = [np.cumsum(keep) - 1 for keep in kept]
    pruned = [orders[0]]
    left_over = [backoffs[0]]
    for n in range(1, len(orders)):
        keep, counted = kept[n], orders[n]
        contexts, suffixes = counted.contexts[keep], counted.suffixes[keep]
        size = len(orders[n - 1].counts)
        known = np.bincount(contexts, probabilities[n][keep], size)
        known_below = np.bincount(contexts, probabilities[n - 1][suffixes], size)
        lost = np.bincount(counted.contexts[~keep], minlength=size) > 0
        left_over.append(np.where(lost, (1 - known) / (1 - known_below), backoffs[n])[kept[n - 1]])
        pruned.append(
            Counts(
                places[n - 1][contexts],
                counted.words[keep],
                places[n - 1][suffixes],
                counted.counts[keep],
                counted.at_start[keep],
            )
        )
    return pruned, [p[keep] for p, keep in zip(probabilities, kept, strict=True)], left_over


def _affordable(orders: list[Counts], gains: list[Floats], max_bytes: int) -> float:
    """The gain that an n-gram must exceed for all that do to fit in ``max_bytes``, as ``to_weights`` lays them out."""
    vocab, longest = len(orders[0].counts), len(orders)
    context = 8  # a place in begins and a backoff
    fixed = vocab * (4 + context) + 4 * longest
    if max_bytes < fixed:
        raise OptionError(f"max_bytes must be at least {fixed:,} for {vocab:,} tokens, not {max_bytes!r}")
    word = _word_type(vocab)().itemsize
    sizes = [np.full(len(gain), word + 4 + (4 + context) * (n < longest)) for n, gain in enumerate(gains, 1)]
    sizes[0][:] = 0  # order 1 is kept whole, and counted
    gain = np.concatenate(gains)
    order = np.argsort(-gain, kind="stable")
    total = fixed + np.cumsum(np.concatenate(sizes)[order])
    fit = int(np.searchsorted(total, max_bytes, "right"))
    return -np.inf if fit == len(gain) else float(gain[order[fit]])


def _word_type(vocab: int) -> type[np.unsignedinteger[Any]]:
    return np.uint32 if vocab > 1 << 16 else np.uint16


def to_weights(orders: list[Counts], probabilities: list[Floats], backoffs: list[Floats]) -> Weights:
    """The arrays of a trie, by name, as a model keeps them.

    ``n.begins`` are the places at which the n-grams of each context begin, (contexts + 1,); ``n.backoff`` is what a
    context leaves to the order below, in logarithms, as is ``n.logp``.
    """
    weights: Weights = {}
    for n, (counted, p, backoff) in enumerate(zip(orders, probabilities, backoffs, strict=True), 1):
        if n > 1:
            size = len(orders[n - 2].counts)
            weights[f"{n}.begins"] = np.searchsorted(counted.contexts, np.arange(size + 1)).astype(np.uint32)
            weights[f"{n}.words"] = counted.words.astype(_word_type(len(orders[0].counts)))
        if 1 < n < len(orders):
            weights[f"{n}.suffixes"] = counted.suffixes.astype(np.uint32)
        weights[f"{n}.logp"] = _logarithm(p)
        weights[f"{n}.backoff"] = _logarithm(backoff)
    return weights


class Trie:
    """Conditional probabilities by n-grams: of the longest one that is known, or the order below times a backoff.

        p(w | h) = P(h w) where h w is known, else B(h) p(w | h without its first word)

    A state is (depth, place): the longest known context, by its number of words and its place in that order.
    """

    def __init__(self, weights: Weights) -> None:
        self.order = sum(name.endswith(".logp") for name in weights)
        self.vocab = len(weights["1.logp"])
        none = np.zeros(0, np.int64)
        every = range(1, self.order + 1)
        self.begins = [none, none] + [weights[f"{n}.begins"].astype(np.int64) for n in every if n > 1]
        self.words = [none, np.arange(self.vocab)] + [weights[f"{n}.words"].astype(np.int64) for n in every if n > 1]
        self.suffixes = [none, np.zeros(self.vocab, np.int64)]
        self.suffixes += [weights[f"{n}.suffixes"].astype(np.int64) for n in every if 1 < n < self.order]
        self.p = [none.astype(float)] + [np.exp(weights[f"{n}.logp"], dtype=np.float64) for n in every]
        self.backoff = [none.astype(float)] + [np.exp(weights[f"{n}.backoff"], dtype=np.float64) for n in every]

    def advance(self, depth: int, place: int, word: int) -> tuple[int, int]:
        """The longest known context behind one more word."""
        if depth == self.order - 1:
            if depth == 0:
                return 0, 0
            depth, place = depth - 1, int(self.suffixes[depth][place])
        while depth > 0:
            begins = self.begins[depth + 1]
            begin, end = begins[place], begins[place + 1]
            at = begin + self.words[depth + 1][begin:end].searchsorted(word)
            if at < end and self.words[depth + 1][at] == word:
                return depth + 1, int(at)
            depth, place = depth - 1, int(self.suffixes[depth][place])
        return 1, word

    def distribution(self, depth: int, place: int) -> Floats:
        """The probability of each word behind a context, (vocab,)."""
        contexts = []
        while depth > 0:
            contexts.append((depth + 1, place))
            depth, place = depth - 1, int(self.suffixes[depth][place])
        p = self.p[1].copy()
        for n, context in reversed(contexts):
            begin, end = self.begins[n][context], self.begins[n][context + 1]
            p *= self.backoff[n][context]
            p[self.words[n][begin:end]] = self.p[n][begin:end]
        return p

    def logprobs(self, sequences: list[NDArray[Any]]) -> list[Floats]:
        """The log-probability of each token behind the first of each sequence of ids."""
        words, offsets = _run_together(sequences)
        with np.errstate(divide="ignore"):
            given = np.log(self.p[1])[words]
            places = words
            for n in range(2, self.order + 1):
                if not len(self.words[n]):
                    break
                before = np.concatenate([[-1], places[:-1]])
                contexts = np.where(offsets >= n - 1, before, -1)
                known = contexts >= 0
                names = np.repeat(np.arange(len(self.begins[n]) - 1), np.diff(self.begins[n])) * self.vocab
                names += self.words[n]
                wanted = contexts * self.vocab + words
                at = np.searchsorted(names, wanted).clip(max=len(names) - 1)
                found = known & (names[at] == wanted)
                backed_off = np.where(known, given + np.log(self.backoff[n])[contexts], given)
                given = np.where(found, np.log(self.p[n])[at], backed_off)
                places = np.where(found, at, -1)
        borders = np.flatnonzero(offsets == 0)
        return [part[1:] for part in np.split(given, borders[1:])]


def _run_together(documents: Iterable[NDArray[Any]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """All ids, (tokens,), and how far each stands behind the start of its document, (tokens,)."""
    parts = list(documents)
    offsets = np.concatenate([np.arange(len(part)) for part in parts])
    return np.concatenate(parts).astype(np.int64), offsets


def _logarithm(p: Floats) -> Floats:
    with np.errstate(divide="ignore"):
        return np.maximum(np.log(p), NEVER).astype(np.float32)
