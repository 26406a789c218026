"""Kneser-Ney n-grams: every count gives a little away, and the shorter context says to which words.

    p(w | h) = (c(h w) - D(c)) / c(h) + γ(h) p(w | h without its first word)

c is the count of an n-gram in the highest order and at the start of a document, and elsewhere the number of different
words that stand before it: "Francisco" is frequent, but follows one word. The discounts D for counts of 1, 2, and 3 or
more come from the counts of counts; γ(h) is what they took from h. Order 1 is interpolated with the uniform
distribution. (Kneser & Ney 1995; interpolated and modified: Chen & Goodman 1999, equations 26 and 27.)
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


@dataclass(frozen=True)
class KneserNeyConfig:
    """``order`` counts the predicted token too.

    For a smaller model, n-grams that add no more than ``min_gain`` nats to the likelihood of the text are left out,
    and as many more as it takes for the weights to fit in ``max_bytes`` (about two thirds, saved as float16). A low
    order has room for more of what is frequent: in few bytes it predicts better than a high one.
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
    """Counts of n-grams, smoothed (Kneser & Ney 1995; Chen & Goodman 1999)."""

    Config = KneserNeyConfig

    def estimate(self, orders: list[Counts]) -> Estimate:
        probabilities: list[Floats] = []
        backoffs: list[Floats] = []
        vocab = len(orders[0].words)
        shorter = np.full(vocab, 1 / (vocab - 1))
        shorter[Tokenizer.bos_id] = 0  # never predicted
        contexts = 1
        for counted, counts in zip(orders, continuation_counts(orders), strict=True):
            taken = discounts(counts)[np.minimum(counts, 3)]
            totals = np.bincount(counted.contexts, counts, contexts)
            with np.errstate(invalid="ignore", divide="ignore"):
                gamma = np.where(totals > 0, np.bincount(counted.contexts, taken, contexts) / totals, 1.0)
                own = np.nan_to_num((counts - taken) / totals[counted.contexts])
            lower = shorter if not probabilities else probabilities[-1][counted.suffixes]
            probabilities.append(own + gamma[counted.contexts] * lower)
            backoffs.append(gamma)
            contexts = len(counts)
        least, most = self.config.min_gain, self.config.max_bytes
        if least is None and most is None:
            return orders, probabilities, backoffs
        return prune(orders, probabilities, backoffs, -np.inf if least is None else least, most)


def continuation_counts(orders: list[Counts]) -> list[Ints]:
    """The counts that each order is estimated from: of different words before an n-gram, but for the highest order
    and for what begins a document, before which nothing stands."""
    lower = [
        np.where(low.at_start, low.counts, np.bincount(high.suffixes, minlength=len(low.counts)))
        for low, high in pairwise(orders)
    ]
    return [*lower, orders[-1].counts]


FALLBACK_DISCOUNTS = np.array([0, 0.5, 1, 1.5])


def discounts(counts: Ints) -> Floats:
    """Return the discounts of counts of 0, 1, 2, and 3 or more, (4,) (Chen & Goodman 1999, equation 26).

    The equation presumes counts as language has them. Where a text has no n-grams of one of the counts from 1 to 4, or
    a discount is not in 0 < D <= count, all of an order are 1/2, 1 and 3/2, as KenLM's ``--discount_fallback`` sets
    them: with a discount of 0 a context would leave no probability to what it never saw.
    """
    n = [int(np.count_nonzero(counts == i)) for i in range(1, 5)]
    if not all(n):
        return FALLBACK_DISCOUNTS
    y = n[0] / (n[0] + 2 * n[1])
    found = [i - (i + 1) * y * n[i] / n[i - 1] for i in (1, 2, 3)]
    return np.array([0, *found]) if all(0 < d <= i for i, d in enumerate(found, 1)) else FALLBACK_DISCOUNTS
