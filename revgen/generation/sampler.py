"""The sampler: from logits to one token for each text of a batch, on NumPy arrays and PyTorch tensors."""

from __future__ import annotations

from collections.abc import Iterable

from revgen import ops
from revgen.generation.filters import Filter, FilterContext, apply_filters
from revgen.ops import Array


def probabilities(filters: Iterable[Filter], logits: Array, context: FilterContext) -> Array:
    """Return the probabilities that tokens are sampled with, (batch, vocab), after all filters."""
    return ops.softmax(apply_filters(filters, logits, context))


def sample(probabilities: Array, uniform: Array) -> Array:
    """Sample one token for each row of probabilities (batch, vocab) by inverse transform, (batch,).

    ``uniform`` (batch,) holds random numbers in [0, 1). A token with the probability 0 is never sampled.
    """
    cumulative = ops.cumsum(probabilities)
    total = cumulative[:, -1:]
    return ((cumulative <= uniform[:, None] * total) & (cumulative < total)).sum(-1)
