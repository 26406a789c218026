"""Kneser-Ney n-grams: every count is discounted, and the shorter context distributes the discounted probability.

    p(w | h) = (c(h w) - D(c)) / c(h) + γ(h) p(w | h without its first word)

In the highest order and at the start of a document, c is the count of an n-gram. Elsewhere it is the number of
different words that precede it: "Francisco" is frequent, but follows only "San". The discounts D for counts of 1, 2,
and 3 or more are computed from the counts of counts, and γ(h) is the probability that they take from the words after h.
Order 1 is interpolated with the uniform distribution.
(Kneser & Ney 1995, *Improved backing-off for m-gram language modeling*; interpolated and modified: Chen & Goodman 1999,
*An empirical study of smoothing techniques for language modeling*, equations 26 and 27.)
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from revgen.architectures.ngram import NGramModel, check_order
from revgen.ngrams import Counts, Estimate, Floats, Ints, prune
from revgen.options import as_float, check, is_int
from revgen.registry import register_model
from revgen.tokenizers import Tokenizer

FALLBACK_DISCOUNTS = np.array([0, 0.5, 1, 1.5])


@dataclass(frozen=True)
class KneserNeyConfig:
    """The order and the size limits of a Kneser-Ney model. ``order`` includes the predicted token.

    Two options prune the model: ``min_gain`` removes n-grams that add at most this many nats to the log-likelihood of
    the text, and ``max_bytes`` removes the least useful ones until the weights in float32 fit (saved as float16 they
    take two thirds of that). With a small ``max_bytes``, a low order predicts better than a high order.
    """

    order: int = 6
    min_gain: float | None = None
    max_bytes: int | None = None

    def __post_init__(self) -> None:
        check_order(self.order)
        check("min_gain", self.min_gain, self.min_gain is None or np.isfinite(as_float(self.min_gain)), "a number")
        check("max_bytes", self.max_bytes, self.max_bytes is None or is_int(self.max_bytes, 1), "a whole number")


@register_model("kneser-ney")
class KneserNeyModel(NGramModel):
    """Counts of n-grams with modified Kneser-Ney smoothing (Kneser & Ney 1995; Chen & Goodman 1999).

    p(w | h) = exp(n.logp)                                      if the n-gram h w is known
             = exp(n.backoff) p(w | h without its first word)   otherwise, with the backoff weight of h
    """

    Config = KneserNeyConfig

    def estimate(self, orders: list[Counts]) -> Estimate:
        probabilities: list[Floats] = []
        backoffs: list[Floats] = []
        vocab = len(orders[0].words)
        uniform = np.full(vocab, 1 / (vocab - 1))
        uniform[Tokenizer.bos_id] = 0  # never predicted
        contexts = 1
        for counted, counts in zip(orders, continuation_counts(orders), strict=True):
            discount = discounts(counts)[np.minimum(counts, 3)]
            totals = np.bincount(counted.contexts, counts, contexts)
            with np.errstate(invalid="ignore", divide="ignore"):
                gamma = np.where(totals > 0, np.bincount(counted.contexts, discount, contexts) / totals, 1.0)
                discounted = np.nan_to_num((counts - discount) / totals[counted.contexts])
            lower = uniform if not probabilities else probabilities[-1][counted.suffixes]
            probabilities.append(discounted + gamma[counted.contexts] * lower)
            backoffs.append(gamma)
            contexts = len(counts)
        min_gain, max_bytes = self.config.min_gain, self.config.max_bytes
        if min_gain is None and max_bytes is None:
            return orders, probabilities, backoffs
        return prune(orders, probabilities, backoffs, -np.inf if min_gain is None else min_gain, max_bytes)


def continuation_counts(orders: list[Counts]) -> list[Ints]:
    """Return the counts from which each order is estimated: the number of different words before each n-gram.

    N-grams of the highest order and n-grams at the start of a document keep their own counts: no word precedes them.
    """
    lower = [
        np.where(low.at_start, low.counts, np.bincount(high.suffixes, minlength=len(low.counts)))
        for low, high in pairwise(orders)
    ]
    return [*lower, orders[-1].counts]


def discounts(counts: Ints) -> Floats:
    """Return the discounts of counts of 0, 1, 2, and 3 or more, (4,) (Chen & Goodman 1999, equation 26).

    The equation assumes counts as in natural text. If no n-gram has one of the counts from 1 to 4, or a discount is not
    in 0 < D <= count, the discounts of the order are 1/2, 1 and 3/2, as with KenLM's ``--discount_fallback``. With a
    discount of 0, a context would leave no probability for unseen words.
    """
    n = [int(np.count_nonzero(counts == i)) for i in range(1, 5)]
    if not all(n):
        return FALLBACK_DISCOUNTS
    y = n[0] / (n[0] + 2 * n[1])
    estimates = [i - (i + 1) * y * n[i] / n[i - 1] for i in (1, 2, 3)]
    return np.array([0, *estimates]) if all(0 < d <= i for i, d in enumerate(estimates, 1)) else FALLBACK_DISCOUNTS
