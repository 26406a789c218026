"""``Constraints``: the tokens that may follow a text, for one model and the options of one call."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from revgen.errors import OptionError
from revgen.generation.config import GenerationConfig, Temperature, Token, check_temperature
from revgen.generation.filters import (
    MAX_LOGIT,
    MAX_TEMPERATURE,
    FilterContext,
    Floats,
    LogitBias,
    MinP,
    TemperatureScaling,
    apply_filters,
    finite,
    is_immutable,
    needs_tokens,
)
from revgen.generation.guides import Guide, PatternGuide, TextGuide, choices_guide
from revgen.generation.healing import token_texts
from revgen.generation.sampler import probabilities
from revgen.generation.spelling import NO_DIGITS, SpellingGuide, spelling_guide
from revgen.generation.text_guides import CombinedGuide, CopyGuide, WordGuide, WordStartGuide
from revgen.novelty import SuffixIndex
from revgen.options import is_int
from revgen.tokenizers import Tokenizer

if TYPE_CHECKING:
    from revgen.model import Model


@dataclass(frozen=True)
class TextState:
    """The state of a text between two tokens."""

    pending: str = ""
    """The end of the prompt that still has to be generated again (``healing``)."""
    guide_state: Any = None
    digits: int = NO_DIGITS
    """The number that the digits of an incomplete character make (``spelling``)."""


class TokenHistory:
    """The tokens of each text of a batch, as ids and as counts (batch, vocab)."""

    def __init__(self, texts: Iterable[Sequence[int]], vocab_size: int) -> None:
        self.tokens = [list(ids) for ids in texts]
        self.counts = np.array([np.bincount(ids, minlength=vocab_size) for ids in self.tokens], np.float32)

    def extend(self, row: int, ids: Sequence[int]) -> None:
        """Add tokens to one text."""
        self.tokens[row] += ids
        np.add.at(self.counts[row], ids, 1)


class Constraints:
    """The options of one call, prepared for a model: filters, biases, forced tokens and a guide.

    Raises OptionError if an option does not fit the model.
    """

    def __init__(self, model: Model, config: GenerationConfig) -> None:
        tokenizer = model.tokenizer
        if config.check_novelty:
            model.index  # noqa: B018  raises an error if there is no index
        self.config = config
        self.vocab_size = len(tokenizer)
        self.eos_id = tokenizer.eos_id
        self.token_texts = token_texts(tokenizer)
        self.biases = token_biases(config, tokenizer)
        self.forced = self._forced_tokens(tokenizer)
        self.temperature = temperature_schedule(config.temperature, config.max_tokens)
        self.row_temperatures: NDArray[np.float32] | None = None
        """The temperature of each row, (rows, 1), if these are the constraints of several calls."""
        self.penalties = (*config.build_penalties(), LogitBias(self.biases))
        self.filters = config.build_filters()
        self.needs_tokens = any(map(needs_tokens, (*self.penalties, *self.filters)))
        self.guide = _make_guide(model, config, self.biases)
        self.guide_is_strict = self.guide is not None and bool(getattr(self.guide, "is_strict", False))
        self.spelling: SpellingGuide | None = None
        if not self.guide_is_strict:
            self.biases[model.suppressed_tokens] = -np.inf
            self.spelling = spelling_guide(tokenizer) if tokenizer.digit_ids and model.can_spell else None

    def _forced_tokens(self, tokenizer: Tokenizer) -> dict[int, int]:
        forced, min_tokens = {}, self.config.min_tokens
        for position, token in (self.config.forced_tokens or {}).items():
            forced[position] = token_id("forced_tokens", token, tokenizer)
            if np.isneginf(self.biases[forced[position]]):
                raise OptionError(f"forced_tokens has a banned token: {token!r}")
            if forced[position] == self.eos_id and position < min_tokens:
                raise OptionError(f"forced_tokens ends the text at {position}, before min_tokens, {min_tokens}")
        return forced

    @property
    def is_context_free(self) -> bool:
        """Whether the tokens that may follow depend at most on the number of tokens so far, and not on the text."""
        return not (self.forced or self.guide or self.spelling or self.needs_tokens)

    @property
    def is_unconstrained(self) -> bool:
        """Whether a token depends on logits, biases, ``min_tokens``, one temperature and ``min_p`` only."""
        simple = (TemperatureScaling(),), (TemperatureScaling(), MinP(self.config.min_p or 0))
        return self.is_context_free and self.filters in simple and isinstance(self.temperature, float)

    @cached_property
    def merge_key(self) -> Any:
        """A key that calls with the same filters have in common, or None if this call is sampled on its own."""
        is_merged = self.is_context_free and isinstance(self.temperature, float)
        key = self.filters, self.config.min_tokens
        return key if is_merged and all(map(is_immutable, self.filters)) else None

    # Logits

    def context(self, positions: NDArray[np.integer[Any]], history: TokenHistory | None, rows: Any) -> FilterContext:
        """Return what filters may know of these rows of a batch; ``positions`` (rows,) count the sampled tokens."""
        temperature = self.temperature_at(positions)
        if history is None:
            return FilterContext(positions, temperature)
        tokens = [history.tokens[row] for row in rows.tolist()]
        return FilterContext(positions, temperature, tokens, history.counts[rows])

    def temperature_at(self, positions: NDArray[np.integer[Any]]) -> float | NDArray[np.float32]:
        """Return one temperature for all texts, or one for each position, (..., 1)."""
        if self.row_temperatures is not None:
            return self.row_temperatures
        if isinstance(self.temperature, float):
            return self.temperature
        temperatures: NDArray[np.float32] = self.temperature[positions % len(self.temperature)][..., None]
        return temperatures

    def probabilities(self, logits: Floats, context: FilterContext, states: Sequence[TextState]) -> Floats:
        """Return the probabilities that the next token is sampled with, (batch, vocab)."""
        p: Floats = probabilities(self.filters, self.apply(logits, context, states), context)
        return p

    def apply(self, logits: Floats, context: FilterContext, states: Sequence[TextState]) -> Floats:
        """Return logits (batch, vocab) after penalties and biases, with -inf for tokens that may not follow."""
        positions = context.positions
        logits = apply_filters(self.penalties, finite(logits), context)
        if self.config.min_tokens:
            logits[positions < self.config.min_tokens, self.eos_id] = -np.inf
        allowed: Any = None
        if self.guide or self.spelling or any(state.pending for state in states):
            remaining = (self.config.max_tokens - positions).tolist()
            allowed = np.stack([self.allowed_tokens(state, n) for state, n in zip(states, remaining, strict=True)])
            logits[~allowed] = -np.inf
        for row in np.flatnonzero(np.maximum.reduce(logits, -1) == -np.inf).tolist():
            self._allow_something(logits[row], states[row], allowed if allowed is None else allowed[row])
        for position, token in self.forced.items():
            logits[positions == position] = -np.inf
            logits[positions == position, token] = 0
        return logits

    def _allow_something(self, logits: Floats, state: TextState, allowed: Any) -> None:
        """Change logits (vocab,) in which no token is possible; ``allowed`` (vocab,) is None without a guide."""
        if state.pending:
            logits[self.token_texts.longest_prefix(state.pending)] = 0
        elif self.guide_is_strict:
            logits[allowed] = 0
        elif self.spelling is not None and state.digits != NO_DIGITS:  # complete the character, then end
            last_digits = self.spelling.allowed_tokens(state.digits, 1) & np.isfinite(self.biases)
            both = last_digits & allowed
            logits[both if both.any() else last_digits] = 0
        else:
            logits[self.eos_id] = 0

    def allowed_tokens(self, state: TextState, remaining: int) -> NDArray[np.bool_]:
        """Return which tokens may follow if at most ``remaining`` do, (vocab,)."""
        guide = self.guide
        if not state.pending:
            allowed = (
                np.ones(self.vocab_size, bool) if guide is None else guide.allowed_tokens(state.guide_state, remaining)
            )
            if self.spelling is None:
                return allowed
            return allowed & self.spelling.allowed_tokens(state.digits, min(remaining, 2))
        allowed = self.token_texts.allowed(state.pending)
        if isinstance(guide, TextGuide):
            allowed = allowed.copy()
            for token in np.flatnonzero(allowed).tolist():
                rest = self.token_texts.texts[token][len(state.pending) :]
                allowed[token] = not rest or guide.allows_text(state.guide_state, rest, remaining)
        return allowed

    # States

    def begin(self, prompt: str, ids: Sequence[int]) -> tuple[list[int], TextState]:
        """Return the ids of a prompt to read, and the state of the text after them.

        The prompt keeps its end if tokens are forced, or if the guide does not understand parts of tokens.
        """
        heals = not self.forced and (self.guide is None or isinstance(self.guide, TextGuide))
        kept, pending = self.token_texts.trim(ids) if heals else (list(ids), "")
        return kept, self.initial_state(prompt, pending)

    def initial_state(self, prompt: str, pending: str = "") -> TextState:
        """Return the state of the text after a prompt, the end of which is ``pending``."""
        return TextState(pending, None if self.guide is None else self.guide.initial_state(prompt))

    def is_part_of_prompt(self, state: TextState, token: int) -> bool:
        """Return whether a token only generates the end of the prompt again; such a token is not counted."""
        return 0 < len(self.token_texts.texts[token]) <= len(state.pending)

    def next_state(self, state: TextState, token: int) -> tuple[TextState, bool]:
        """Return the state of a text after a token, and whether the guide ends the text there."""
        guide, text = self.guide, self.token_texts.texts[token]
        if self.is_part_of_prompt(state, token):
            return TextState(state.pending[len(text) :], state.guide_state), False
        digits = NO_DIGITS if self.spelling is None else self.spelling.next_state(state.digits, token)
        if guide is None:
            return TextState(digits=digits), False
        if state.pending and isinstance(guide, TextGuide):
            guide_state = guide.next_state_for_text(state.guide_state, text[len(state.pending) :])
        else:
            guide_state = guide.next_state(state.guide_state, token)
        return TextState("", guide_state, digits), guide.is_done(guide_state)


def merge_constraints(rows: Sequence[Constraints]) -> Constraints:
    """Return the constraints of a batch, given those of each row, which have the same ``merge_key``."""
    if len({*map(id, rows)}) == 1:
        return rows[0]
    merged = copy.copy(rows[0])
    merged.biases = np.stack([constraints.biases for constraints in rows])
    merged.penalties = (LogitBias(merged.biases),)
    temperatures = [constraints.temperature for constraints in rows]
    if len({*temperatures}) > 1:
        merged.row_temperatures = np.array(temperatures, np.float32)[:, None]
    return merged


def temperature_schedule(temperature: Temperature, max_tokens: int) -> float | NDArray[np.float32]:
    """Return a constant temperature, or the temperatures of consecutive tokens, (time,).

    Raises OptionError if ``temperature`` is a function that fails or returns anything but a temperature.
    """
    if callable(temperature):
        try:
            temperature = [temperature(position) for position in range(max_tokens)] or 1.0
        except Exception as error:  # any exception of the user's function
            raise OptionError(f"temperature must be a function of the number of sampled tokens: {error}") from error
        check_temperature(temperature)
    if isinstance(temperature, Sequence):
        return np.minimum(temperature, MAX_TEMPERATURE).astype(np.float32)
    return float(temperature)


def token_biases(config: GenerationConfig, tokenizer: Tokenizer) -> Floats:
    """Return the biases of all tokens, (vocab,): -inf for banned tokens, the start of a document and unknown tokens.

    Raises OptionError if an option names a token that is not in the vocabulary.
    """
    biases = np.zeros(len(tokenizer), np.float32)
    for token, bias in (config.logit_bias or {}).items():
        biases[token_id("logit_bias", token, tokenizer)] += min(max(bias, -MAX_LOGIT), MAX_LOGIT)
    banned = () if config.banned_tokens is None else config.banned_tokens
    biases[[token_id("banned_tokens", token, tokenizer) for token in banned]] = -np.inf
    biases[[tokenizer.bos_id, tokenizer.unk_id]] = -np.inf
    return biases


def token_id(option: str, token: Token, tokenizer: Tokenizer) -> int:
    """Return the id of a token that an option names by its id or its text.

    Raises OptionError for an unknown token, and for one that is never sampled.
    """
    expected = f"tokens of the vocabulary, by their ids up to {len(tokenizer) - 1:,} or their texts"
    if isinstance(token, str):
        ids = tokenizer.encode(token).tolist()
        if len(ids) != 1 or ids[0] == tokenizer.unk_id:
            count = "none" if tokenizer.unk_id in ids or not ids else len(ids)
            raise OptionError(f"{option} must name {expected}: {token!r} is {count} of them")
        return int(ids[0])
    if not is_int(token, 0) or token >= len(tokenizer):
        raise OptionError(f"{option} must name {expected}, not {token!r}")
    if token in (tokenizer.bos_id, tokenizer.unk_id):
        raise OptionError(f"{option} names {tokenizer.vocabulary[token]}, which is never sampled")
    return int(token)


def _make_guide(model: Model, config: GenerationConfig, biases: Floats) -> Guide | None:
    banned = np.flatnonzero(np.isneginf(biases)).tolist()
    if config.regex is not None:
        return PatternGuide(model.tokenizer, config.regex, config.max_tokens, banned)
    if config.choices is not None:
        return choices_guide(model.tokenizer, config.choices, config.max_tokens, banned)
    guides: list[TextGuide] = []
    if config.max_copied_chars is not None:
        index = model.text_index
        guide_class: Any = CopyGuide if isinstance(index, SuffixIndex) else WordStartGuide
        guides.append(guide_class(model.tokenizer, index, config.max_copied_chars))
    if config.known_words:
        guides.append(WordGuide(model.tokenizer, model.text_index.words))
    return CombinedGuide(guides) if len(guides) > 1 else guides[0] if guides else config.guide
