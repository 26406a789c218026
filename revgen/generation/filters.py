"""Filters: steps that change the logits before a token is sampled.

A filter is a function of logits (batch, vocab) and a ``FilterContext`` that returns new logits. The filters here are
written in the operators of ``revgen.ops``, so they compute the same on NumPy arrays and on PyTorch tensors.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeGuard, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from revgen import ops, registry
from revgen.errors import OptionError
from revgen.ops import Array
from revgen.options import check, safe_repr

Floats = NDArray[np.floating[Any]]

MIN_TEMPERATURE, MAX_TEMPERATURE = 1e-30, 1e30
"""The range of temperatures that logits are divided by: the quotients fit into float32."""

MAX_LOGIT = 1e30
"""Penalties, biases and infinite logits are limited to this size, so that their sums are finite in float32."""

MIN_PROBABILITY = float(np.finfo(np.float32).tiny)


class FilterContext(NamedTuple):
    """Facts about the texts of a batch that a filter may use."""

    positions: Array
    """The number of tokens that have been sampled for each text, (batch,)."""
    temperature: float | Array = 1.0
    """The temperature of the next token, one for all texts or one for each, (batch, 1)."""
    tokens: Sequence[Sequence[int]] = ()
    """The ids of each text, prompt included. Empty unless a filter has ``needs_tokens``."""
    counts: Array | None = None
    """How often each text contains each token, (batch, vocab). None unless a filter has ``needs_tokens``."""


@runtime_checkable
class Filter(Protocol):
    """A function of logits (batch, vocab) that returns the logits to sample from, -inf for impossible tokens.

    It computes each row on its own, and does not change its argument. With the attribute ``needs_tokens = True``, it
    finds the tokens of each text in the context, and texts are generated token by token, which is slower. On a GPU, a
    filter is recorded with the model if it is a frozen dataclass with hashable fields, and called each time otherwise.
    """

    def __call__(self, logits: Array, context: FilterContext, /) -> Array:
        """Return new logits, (batch, vocab)."""


@dataclass(frozen=True)
class RepetitionPenalty:
    """Divide positive logits of tokens in the text by a penalty, and multiply negative ones by it.

    (Keskar et al. 2019.)
    """

    penalty: float
    needs_tokens = True

    def __call__(self, logits: Array, context: FilterContext) -> Array:
        penalty = min(max(self.penalty, 1 / MAX_LOGIT), MAX_LOGIT)
        with np.errstate(over="ignore"):
            penalized = ops.relu(logits) / penalty - ops.relu(-logits) * penalty
        penalized = ops.where(logits == -np.inf, logits, penalized.clip(-MAX_LOGIT, MAX_LOGIT))
        return ops.where(_counts(context) > 0, penalized, logits)


@dataclass(frozen=True)
class FrequencyPenalty:
    """Subtract a penalty from the logit of a token once for each time that it is in the text."""

    penalty: float
    needs_tokens = True

    def __call__(self, logits: Array, context: FilterContext) -> Array:
        penalty = min(max(self.penalty, -MAX_LOGIT), MAX_LOGIT)
        with np.errstate(over="ignore"):
            return logits - (penalty * _counts(context)).clip(-MAX_LOGIT, MAX_LOGIT)


@dataclass(frozen=True)
class PresencePenalty:
    """Subtract a penalty from the logits of tokens that are in the text."""

    penalty: float
    needs_tokens = True

    def __call__(self, logits: Array, context: FilterContext) -> Array:
        penalty = min(max(self.penalty, -MAX_LOGIT), MAX_LOGIT)
        return ops.where(_counts(context) > 0, logits - penalty, logits)


def _counts(context: FilterContext) -> Array:
    assert context.counts is not None, "a filter that needs tokens gets them"
    return context.counts


@dataclass(frozen=True, eq=False)
class LogitBias:
    """Add a number to the logit of each token, (vocab,); -inf bans a token."""

    biases: Array

    def __call__(self, logits: Array, context: FilterContext) -> Array:
        return logits + self.biases


@dataclass(frozen=True)
class TemperatureScaling:
    """Divide the logits by the temperature of the context; 0 keeps the most likely token only.

    The temperature is not a field, so that one recording on a GPU serves every temperature.
    """

    def __call__(self, logits: Array, context: FilterContext) -> Array:
        temperature = context.temperature
        if isinstance(temperature, float | int):
            if temperature == 1:
                return logits
            if temperature == 0:
                return _keep_most_likely(logits)
            divisor: Any = bounded_temperature(temperature)
        else:
            divisor = temperature.clip(MIN_TEMPERATURE, MAX_TEMPERATURE)
        with np.errstate(over="ignore"):
            scaled = (logits - ops.amax(logits)) / divisor  # at most 0, so nothing becomes +inf
        if isinstance(temperature, float | int):
            return scaled
        return ops.where(temperature == 0, _keep_most_likely(logits), scaled)


@dataclass(frozen=True)
class TopK:
    """Keep the k most likely tokens, and ties with the last of them (Fan et al. 2018)."""

    k: int

    def __call__(self, logits: Array, context: FilterContext) -> Array:
        if self.k >= logits.shape[-1]:
            return logits
        return ops.where(logits >= ops.kth_largest(logits, self.k), logits, -np.inf)


@dataclass(frozen=True)
class TopP:
    """Keep the smallest set of most likely tokens with at least this probability (Holtzman et al. 2020)."""

    p: float

    def __call__(self, logits: Array, context: FilterContext) -> Array:
        p = ops.softmax(logits)
        return ops.where(_is_among_first(p, ops.argsort(-p), self.p), logits, -np.inf)


@dataclass(frozen=True)
class MinP:
    """Keep tokens that are at least this fraction as likely as the most likely token (Nguyen et al. 2024)."""

    p: float

    def __call__(self, logits: Array, context: FilterContext) -> Array:
        if not self.p:
            return logits
        return ops.where(logits >= ops.amax(logits) + math.log(self.p), logits, -np.inf)


@dataclass(frozen=True)
class TypicalP:
    """Keep the smallest set with at least this probability of tokens with a typical surprisal (Meister et al. 2023).

    The surprisal of a token is -log p; the most typical one is closest to the entropy, its expectation.
    """

    p: float

    def __call__(self, logits: Array, context: FilterContext) -> Array:
        surprisal = -ops.log_softmax(logits)
        p = ops.exp(-surprisal)
        entropy = (p * ops.where(p > 0, surprisal, 0)).sum(-1, keepdims=True)
        return ops.where(_is_among_first(p, ops.argsort(abs(surprisal - entropy)), self.p), logits, -np.inf)


@dataclass(frozen=True)
class CheckedFilter:
    """A filter of the user, whose result is checked.

    A token that was impossible stays impossible. If the filter leaves no token to a text, it is ignored there.
    """

    filter: Filter

    @property
    def needs_tokens(self) -> bool:
        """Whether the filter reads the tokens of the context."""
        return needs_tokens(self.filter)

    def __call__(self, logits: Array, context: FilterContext) -> Array:
        result = self.filter(logits, context)
        if type(result) is not type(logits) or result.shape != logits.shape:
            shape = f"{type(result).__name__} of shape {getattr(result, 'shape', 'unknown')}"
            raise OptionError(f"filters: {safe_repr(self.filter)} must return logits like its argument, not a {shape}")
        result = ops.where(logits == -np.inf, logits, finite(result))
        return ops.where(ops.amax(result) == -np.inf, logits, result)


def needs_tokens(filter: Filter) -> bool:
    """Return whether a filter reads the tokens of each text from its context."""
    return bool(getattr(filter, "needs_tokens", False))


def is_immutable(filter: Filter) -> bool:
    """Return whether a filter is a frozen dataclass with hashable fields: equal filters then compute the same."""
    if isinstance(filter, CheckedFilter):
        return is_immutable(filter.filter)
    parameters = vars(type(filter)).get("__dataclass_params__")
    if parameters is None or not parameters.frozen:
        return False
    try:
        hash(filter)
    except TypeError:
        return False
    return True


def make_filters(filters: Iterable[str | Filter]) -> tuple[Filter, ...]:
    """Return the filters of the user, ready to apply; a string is the name of a registered class.

    Raises OptionError for an item that is neither, and UnknownNameError for a name that is not registered.
    """
    made: list[Filter] = []
    for item in filters:
        instance = registry.filters.get(item)() if isinstance(item, str) else item
        check("filters", item, _is_filter(instance), "a list of functions of logits and a context, or of their names")
        made.append(CheckedFilter(instance))
    return tuple(made)


def _is_filter(value: Any) -> TypeGuard[Filter]:
    return callable(value) and not isinstance(value, type)


def apply_filters(filters: Iterable[Filter], logits: Array, context: FilterContext) -> Array:
    """Return the logits (batch, vocab) after all filters."""
    for step in filters:
        logits = step(logits, context)
    return logits


def finite(logits: Array) -> Array:
    """Return logits (batch, vocab) as finite numbers and -inf: NaN becomes -inf, and infinity a large number."""
    return ops.where(logits == logits, logits, -np.inf).clip(max=MAX_LOGIT)


def bounded_temperature(temperature: float) -> float:
    """Return a temperature above 0 that float32 can divide logits by."""
    return min(max(temperature, MIN_TEMPERATURE), MAX_TEMPERATURE)


def _keep_most_likely(logits: Array) -> Array:
    tokens = ops.arange(logits.shape[-1], logits)
    return ops.where(tokens == logits.argmax(-1)[:, None], logits, -np.inf)


def _is_among_first(p: Array, order: Array, total: float) -> Array:
    """Return which tokens are the first in ``order`` with a probability of ``total`` together, (batch, vocab).

    The very first token is always among them.
    """
    ordered = ops.take_along_axis(p, order)
    before = ops.cumsum(ordered) - ordered
    return ops.put_along_axis(order, before < max(total, MIN_PROBABILITY))
