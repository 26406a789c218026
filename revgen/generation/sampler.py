"""The sampler: from logits to the next tokens, the same for every model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from revgen.ops import softmax
from revgen.options import check, number, whole

Floats = NDArray[np.floating[Any]]

COLDEST = 1e-30
"""The lowest temperature that logits are divided by: float32 still holds the quotients."""


class SamplingOptions(TypedDict, total=False):
    """The keyword arguments of ``generate`` and ``stream`` that shape the distribution."""

    temperature: float
    top_k: int | None
    top_p: float | None
    min_p: float | None
    repetition_penalty: float


@dataclass(frozen=True)
class Sampling:
    """How the next token is drawn, in this order.

    - ``repetition_penalty``: logits of tokens that the text has already are divided by it where positive,
      multiplied where negative; 1 leaves them (Keskar et al. 2019).
    - ``temperature``: logits are divided by it: below 1 bolder, above 1 wilder, 0 takes the likeliest token.
    - ``top_k``: only the k likeliest tokens stay (Fan et al. 2018).
    - ``top_p``: only the smallest set of likeliest tokens with at least this probability (Holtzman et al. 2020).
    - ``min_p``: only tokens at least this likely, measured by the likeliest (Nguyen et al. 2024).
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float = 1.0

    def __post_init__(self) -> None:
        check("temperature", self.temperature, 0 <= number(self.temperature) < np.inf, "0 or more")
        check("top_k", self.top_k, self.top_k is None or whole(self.top_k, 1), "a whole number of at least 1")
        check("top_p", self.top_p, self.top_p is None or 0 < number(self.top_p) <= 1, "in 0 < top_p ≤ 1")
        check("min_p", self.min_p, self.min_p is None or 0 <= number(self.min_p) <= 1, "in 0 ≤ min_p ≤ 1")
        penalty = self.repetition_penalty
        check("repetition_penalty", penalty, 0 < number(penalty) < np.inf, "above 0")

    def probabilities(self, logits: Floats, seen: NDArray[np.bool_] | None = None) -> Floats:
        """Logits (batch, vocab) -> the probabilities that tokens are drawn with, (batch, vocab).

        ``seen`` marks the tokens that each row's text has already, (batch, vocab).
        """
        if seen is not None and self.repetition_penalty != 1:
            penalty = self.repetition_penalty
            logits = np.where(seen, np.where(logits > 0, logits / penalty, logits * penalty), logits)
        if self.temperature == 0:
            greedy: Floats = np.eye(logits.shape[-1], dtype=logits.dtype)[logits.argmax(-1)]
            return greedy
        if self.temperature != 1:
            # The likeliest at 0 first: a division by a very small temperature stays finite there.
            logits = (logits - logits.max(-1, keepdims=True)) / max(self.temperature, COLDEST)
        if self.top_k is not None and self.top_k < logits.shape[-1]:
            least = np.partition(logits, -self.top_k, axis=-1)[:, -self.top_k, None]
            logits = np.where(logits < least, -np.inf, logits)
        p: Floats = softmax(logits)
        if self.top_p is not None and self.top_p < 1:
            order = np.argsort(-p, axis=-1, kind="stable")
            ordered = np.take_along_axis(p, order, -1)
            kept = (
                np.cumsum(ordered, -1, dtype=np.float64) - ordered < self.top_p
            )  # what lies before it is not enough yet
            np.put_along_axis(p, order, ordered * kept, -1)
        if self.min_p is not None:
            p[p < self.min_p * p.max(-1, keepdims=True)] = 0
        if self.top_p is not None or self.min_p is not None:
            p /= p.sum(-1, keepdims=True)
        return p


def draw(probabilities: Floats, uniform: Floats) -> NDArray[np.intp]:
    """One token a row, (batch,), where ``uniform`` (batch,) in [0, 1) falls in the cumulated (batch, vocab)."""
    cumulated = probabilities.cumsum(-1, dtype=np.float64)
    drawn: NDArray[np.intp] = (cumulated > uniform[:, None] * cumulated[:, -1:]).argmax(-1)
    return drawn
