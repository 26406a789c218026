"""The sampler: from logits to the next tokens, the same for every model and both backends."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from revgen import ops
from revgen.errors import OptionError
from revgen.generation.config import Temperature, Token, check_temperature
from revgen.ops import MAX_LOGIT, Array
from revgen.options import is_int
from revgen.tokenizers import Tokenizer

Floats = NDArray[np.floating[Any]]

COLDEST, HOTTEST = 1e-30, 1e30
"""The range of temperatures that logits are divided by: float32 still holds the quotients."""

SMALLEST = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True)
class Sampling:
    """How the next token is drawn, in this order.

    - ``repetition_penalty``: logits of tokens that the text has already are divided by it where positive,
      multiplied where negative; 1 leaves them (Keskar et al. 2019).
    - ``frequency_penalty``: it is taken off a token's logit once for each time that the text has it.
    - ``logit_bias``: what is added to the logits of some tokens. ``banned_tokens`` ones are never drawn.
    - ``temperature``: logits are divided by it: below 1 bolder, above 1 wilder, 0 takes the likeliest token. A list
      gives one for each token that is drawn, from its beginning again behind its end; a function is given how many
      tokens were drawn before, and returns one.
    - ``top_k``: only the k likeliest tokens stay, and those as likely as the last of them (Fan et al. 2018).
    - ``top_p``: only the smallest set of likeliest tokens with at least this probability (Holtzman et al. 2020).
    - ``min_p``: only tokens at least this likely, measured by the likeliest (Nguyen et al. 2024).
    - ``typical_p``: only the smallest set with at least this probability of the tokens whose surprise, -log p, is
      nearest to the one that is expected, the entropy (Meister et al. 2023).

    A token is named by its id or, where it is one token of the vocabulary, by its text; the end of the document by
    ``Tokenizer.eos_id``. The text is the prompt and what was sampled. Each filter sees what the one before left, made
    to sum to 1 again.
    """

    temperature: Temperature = 1.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float = 1.0
    typical_p: float | None = None
    frequency_penalty: float = 0.0
    logit_bias: Mapping[Token, float] | None = None
    banned_tokens: Collection[Token] | None = None

    @property
    def penalizes(self) -> bool:
        """Whether it matters which tokens the text has."""
        return self.repetition_penalty != 1 or self.frequency_penalty != 0

    @property
    def unfiltered(self) -> bool:
        """Whether there is one temperature, and every token stays."""
        filters = (self.top_k, self.top_p, self.min_p, self.typical_p)
        return filters == (None,) * 4 and not isinstance(self.temperature, Sequence)

    def scheduled(self, length: int) -> Self:
        """The same with a temperature that is a function computed for a text of ``length`` tokens."""
        if not callable(self.temperature):
            return self
        try:
            temperatures = [self.temperature(i) for i in range(length)]
        except Exception as error:  # whatever the function does
            raise OptionError(f"temperature must be a function of a number of tokens; it fails: {error}") from error
        check_temperature(temperatures or 1.0)
        return dataclasses.replace(self, temperature=temperatures or 1.0)

    def biases(self, tokenizer: Tokenizer) -> Floats:
        """What is added to the logits of every text, (vocab,): the start of a document and what is unknown are no text,
        and are never drawn. Raises OptionError for a token that there is not."""
        biases = np.zeros(len(tokenizer), np.float32)
        for token, bias in (self.logit_bias or {}).items():
            biases[token_id("logit_bias", token, tokenizer)] += min(max(bias, -MAX_LOGIT), MAX_LOGIT)
        banned = () if self.banned_tokens is None else self.banned_tokens
        biases[[token_id("banned_tokens", token, tokenizer) for token in banned]] = -np.inf
        biases[[tokenizer.bos_id, tokenizer.unk_id]] = -np.inf
        return biases

    def probabilities(
        self, logits: Floats, counts: NDArray[Any] | None = None, positions: NDArray[np.integer[Any]] | int = 0
    ) -> Floats:
        """Logits (batch, vocab) -> the probabilities that tokens are drawn with, (batch, vocab).

        ``counts`` are how often each row's text has each token, (batch, vocab); ``positions`` how many tokens of it
        were drawn, (batch,) or for all. Biases are not in it, as they need a tokenizer.
        """
        return self.filtered(self.penalized(logits, counts), positions)

    def penalized(self, logits: Floats, counts: NDArray[Any] | None) -> Floats:
        """Logits with the penalties for what the text has already."""
        if counts is None:
            return logits
        with np.errstate(over="ignore"):
            if (penalty := np.float64(self.repetition_penalty)) != 1:
                penalized = np.where(logits > 0, logits / penalty, logits * penalty)
                logits = np.where(counts > 0, _bounded(penalized, logits), logits)
            if penalty := np.float64(self.frequency_penalty):
                logits = logits - (penalty * counts).clip(-MAX_LOGIT, MAX_LOGIT).astype(logits.dtype)
        return logits

    def filtered(self, logits: Floats, positions: NDArray[np.integer[Any]] | int = 0) -> Floats:
        """Logits -> probabilities by the temperature and what stays."""
        p: Floats = self.apply_filters(logits, self.temperatures(positions))
        return p

    def apply_filters(self, logits: Array, temperature: float | Array) -> Array:
        """Logits (batch, vocab) -> probabilities at a temperature for all rows, or one for each, (batch, 1): arrays of
        NumPy, or tensors."""
        if isinstance(temperature, float):
            if temperature == 0:
                return _likeliest(logits)
            divisor: Any = bounded_temperature(temperature)
        else:
            divisor = temperature.clip(COLDEST, HOTTEST)
        if not (isinstance(temperature, float) and temperature == 1):
            # The largest at 0 first: a division by a very small temperature stays finite there.
            with np.errstate(over="ignore"):
                logits = (logits - ops.amax(logits)) / divisor
        if self.top_k is not None and self.top_k < logits.shape[-1]:
            logits = ops.where(logits >= ops.kth_largest(logits, self.top_k), logits, -np.inf)
        p = ops.softmax(logits)
        if self.top_p is not None and self.top_p < 1:
            p = _first(p, ops.argsort(-p), self.top_p)
        if self.min_p is not None:
            p = _normalized(ops.where(p >= self.min_p * ops.amax(p), p, 0))
        if self.typical_p is not None and self.typical_p < 1:
            with np.errstate(divide="ignore"):
                surprise = -ops.log(p)
            entropy = (p * ops.where(p > 0, surprise, 0)).sum(-1, keepdims=True)
            p = _first(p, ops.argsort(abs(surprise - entropy)), self.typical_p)
        if not isinstance(temperature, float):
            bold = temperature == 0
            p = p * ~bold + _likeliest(logits) * bold
        return p

    def temperatures(self, positions: NDArray[np.integer[Any]] | int) -> float | NDArray[np.float32]:
        """One for all rows, or one for each, (batch, 1); for several steps (time, batch, 1)."""
        if isinstance(self.temperature, Sequence):
            given = np.minimum(self.temperature, HOTTEST)[np.asarray(positions) % len(self.temperature)].astype(
                np.float32
            )
            return given[..., None] if given.ndim else float(given)
        assert not callable(self.temperature), "a function is scheduled first"
        return float(self.temperature)


def bounded_temperature(temperature: float) -> float:
    """Return a temperature above 0 that float32 can divide logits by."""
    return min(max(temperature, COLDEST), HOTTEST)


def finite(logits: Array) -> Array:
    """Return logits (batch, vocab) as numbers and -inf: NaN counts as impossible, infinity as a very large number."""
    return ops.where(logits == logits, logits, -np.inf).clip(max=MAX_LOGIT)


def _bounded(changed: NDArray[Any], logits: Floats) -> Floats:
    """Logits after a change in float64, of the type that they had; what is impossible stays so."""
    kept: Floats = np.where(logits == -np.inf, logits, changed.clip(-MAX_LOGIT, MAX_LOGIT)).astype(logits.dtype)
    return kept


def _likeliest(logits: Array) -> Array:
    """The probability 1 at the largest, (batch, vocab)."""
    places = ops.arange(logits.shape[-1], logits)
    return ops.softmax(ops.where(places == logits.argmax(-1)[:, None], logits, -np.inf))


def _first(p: Array, order: Array, share: float) -> Array:
    """Of the tokens in this order, as few as have the probability ``share`` together; always the first."""
    ordered = ops.take_along_axis(p, order)
    before = ops.cumsum(ordered) - ordered
    return _normalized(ops.put_along_axis(order, ordered * (before < max(share, SMALLEST))))


def _normalized(p: Array) -> Array:
    return p / p.sum(-1, keepdims=True)


def sample(probabilities: Array, uniform: Array) -> Array:
    """One token a row, (batch,), where ``uniform`` (batch,) in [0, 1) falls in the cumulated (batch, vocab)."""
    cumulated = ops.cumsum(probabilities)
    total = cumulated[:, -1:]
    return ((cumulated <= uniform[:, None] * total) & (cumulated < total)).sum(-1)


def token_id(option: str, token: Any, tokenizer: Tokenizer) -> int:
    """The id of a token that an option names by its id or its text. Raises OptionError where there is none, or where it
    is one that no text has."""
    wanted = f"tokens of the vocabulary, by their ids up to {len(tokenizer) - 1:,} or their texts"
    if isinstance(token, str):
        ids = tokenizer.encode(token).tolist()
        if len(ids) != 1 or ids[0] == tokenizer.unk_id:
            number_of = "none" if tokenizer.unk_id in ids or not ids else len(ids)
            raise OptionError(f"{option} must name {wanted}: {token!r} is {number_of} of them")
        return int(ids[0])
    if not is_int(token, 0) or token >= len(tokenizer):
        raise OptionError(f"{option} must name {wanted}, not {token!r}")
    if token in (tokenizer.bos_id, tokenizer.unk_id):
        raise OptionError(f"{option} names {tokenizer.vocabulary[token]}, which is never drawn")
    return int(token)
