"""``GenerationConfig``: the options of ``generate`` and ``stream``, with their defaults, descriptions and checks."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self, TypeAlias, TypedDict

import numpy as np

from revgen.arguments import check_fields
from revgen.errors import OptionError
from revgen.generation.filters import (
    Filter,
    FrequencyPenalty,
    MinP,
    PresencePenalty,
    RepetitionPenalty,
    TemperatureScaling,
    TopK,
    TopP,
    TypicalP,
    make_filters,
)
from revgen.generation.guides import Guide
from revgen.options import as_float, check, check_at_least, convert_fields, is_int
from revgen.registry import unknown_name_message

Temperature: TypeAlias = float | Sequence[float] | Callable[[int], float]
"""One temperature, one for each token in turn, or a function from the number of sampled tokens to a temperature."""

Token: TypeAlias = int | str
"""A token by its id, or by its text if that is a single token of the vocabulary."""

MAX_TOKENS, MAX_BEAMS, SEED_LIMIT = 1 << 40, 1 << 12, 1 << 128


class GenerationOptions(TypedDict, total=False):
    """The fields of ``GenerationConfig`` as keyword arguments, for type checkers."""

    temperature: Temperature
    top_k: int | None
    top_p: float | None
    min_p: float | None
    typical_p: float | None
    repetition_penalty: float
    frequency_penalty: float
    presence_penalty: float
    logit_bias: Mapping[Token, float] | None
    banned_tokens: Collection[Token] | None
    filters: Sequence[str | Filter] | None
    max_tokens: int
    min_tokens: int
    stop: str | Sequence[str] | None
    stop_at_sentence: bool
    forced_tokens: Mapping[int, Token] | None
    regex: str | None
    choices: Sequence[str] | None
    max_copied_chars: int | None
    known_words: bool
    guide: Guide | None
    check_novelty: bool
    num_beams: int | None
    length_penalty: float
    seed: int | None
    label: str | float | bool | None


@dataclass(frozen=True, kw_only=True)
class GenerationConfig:
    """The options of ``generate`` and ``stream``; each field describes itself in ``metadata["help"]``.

    Logits pass through the penalties and ``logit_bias``, then the constraints, then ``filters``, ``temperature``,
    ``top_k``, ``top_p``, ``min_p`` and ``typical_p`` in this order. Each step sees the result of the one before.
    """

    temperature: Temperature = field(
        default=1.0,
        metadata={
            "help": "Divide the logits by this number: text is more predictable below 1, more surprising above 1; "
            "0 takes the most likely token."
        },
    )
    top_k: int | None = field(
        default=None, metadata={"help": "Keep the k most likely tokens, and ties with the last of them."}
    )
    top_p: float | None = field(
        default=None, metadata={"help": "Keep the smallest set of most likely tokens with at least this probability."}
    )
    min_p: float | None = field(
        default=None,
        metadata={"help": "Keep tokens that are at least this fraction as likely as the most likely token."},
    )
    typical_p: float | None = field(
        default=None,
        metadata={
            "help": "Keep the smallest set with this probability of tokens whose surprisal is closest to the entropy."
        },
    )
    repetition_penalty: float = field(
        default=1.0,
        metadata={
            "help": "Divide positive logits of tokens that are in the text by this number, and multiply negative ones."
        },
    )
    frequency_penalty: float = field(
        default=0.0,
        metadata={"help": "Subtract this number from the logit of a token once for each time that it is in the text."},
    )
    presence_penalty: float = field(
        default=0.0,
        metadata={"help": "Subtract this number from the logits of tokens that are in the text."},
    )
    logit_bias: Mapping[Token, float] | None = field(
        default=None, metadata={"help": "Add these numbers to the logits of tokens."}
    )
    banned_tokens: Collection[Token] | None = field(default=None, metadata={"help": "Never sample these tokens."})
    filters: Sequence[str | Filter] | None = field(
        default=None,
        metadata={
            "help": "Apply these filters of your own before the temperature: functions, or names of registered filters."
        },
    )
    max_tokens: int = field(default=300, metadata={"help": "Sample at most this many tokens."})
    min_tokens: int = field(
        default=0,
        metadata={"help": "Ignore stop strings and ends of sentences, and end no document, before this many tokens."},
    )
    stop: str | Sequence[str] | None = field(
        default=None, metadata={"help": "End the text before the first of these strings."}
    )
    stop_at_sentence: bool = field(
        default=False, metadata={"help": "End the text after the first complete sentence, from min_tokens on."}
    )
    forced_tokens: Mapping[int, Token] | None = field(
        default=None, metadata={"help": "Put these tokens at these positions, where 0 is the first sampled token."}
    )
    regex: str | None = field(
        default=None, metadata={"help": "Let the whole continuation match this regular expression."}
    )
    choices: Sequence[str] | None = field(
        default=None, metadata={"help": "Let the continuation be one of these strings."}
    )
    max_copied_chars: int | None = field(
        default=None,
        metadata={
            "help": "Copy at most this many consecutive characters of the training text, if the model has its index."
        },
    )
    known_words: bool = field(
        default=False,
        metadata={"help": "Generate only words of the training text, if the model has its index."},
    )
    guide: Guide | None = field(
        default=None, metadata={"help": "Let this object of your own decide which tokens may follow each text."}
    )
    check_novelty: bool = field(
        default=False,
        metadata={"help": "Report what each text copies from the training text, in its attribute copied."},
    )
    num_beams: int | None = field(
        default=None,
        metadata={"help": "Search for the most likely text with this many hypotheses instead of sampling."},
    )
    length_penalty: float = field(
        default=1.0,
        metadata={
            "help": "Rank texts of beam search by log-probability divided by length to the power of this number."
        },
    )
    seed: int | None = field(
        default=None, metadata={"help": "Generate the same text each time that this number is given."}
    )
    label: str | float | bool | None = field(
        default=None, metadata={"help": "Generate text of this label, with a model that was fitted with labels."}
    )

    @classmethod
    def from_kwargs(cls, **options: Any) -> Self:
        """Build a configuration; raise OptionError with the closest names if an option is unknown."""
        known = [option.name for option in dataclasses.fields(cls)]
        for name in options:
            if name not in known:
                raise OptionError(unknown_name_message("option of generate", name, ["prompt", "n", *known]))
        return cls(**options)

    def build_penalties(self) -> tuple[Filter, ...]:
        """Return the filters that compare the logits with the text so far."""
        penalties: list[Filter] = []
        if self.repetition_penalty != 1:
            penalties.append(RepetitionPenalty(self.repetition_penalty))
        if self.frequency_penalty != 0:
            penalties.append(FrequencyPenalty(self.frequency_penalty))
        if self.presence_penalty != 0:
            penalties.append(PresencePenalty(self.presence_penalty))
        return tuple(penalties)

    def build_filters(self) -> tuple[Filter, ...]:
        """Return the filters that make the distribution to sample from, in their order.

        The filters of the user come first, so that truncation never leaves only tokens that they ban.
        """
        filters: list[Filter] = [*make_filters(self.filters or ()), TemperatureScaling()]
        if self.top_k is not None:
            filters.append(TopK(self.top_k))
        if self.top_p is not None and self.top_p < 1:
            filters.append(TopP(self.top_p))
        if self.min_p is not None:
            filters.append(MinP(self.min_p))
        if self.typical_p is not None and self.typical_p < 1:
            filters.append(TypicalP(self.typical_p))
        return tuple(filters)

    def __post_init__(self) -> None:
        convert_fields(self)
        check_fields(self)
        make_filters(self.filters or ())
        self._check_sampling()
        self._check_tokens()
        self._check_constraints()
        self._check_combinations()

    def _check_sampling(self) -> None:
        if not callable(self.temperature):
            check_temperature(self.temperature)
        check("top_k", self.top_k, self.top_k is None or is_int(self.top_k, 1), "a whole number of at least 1")
        check("top_p", self.top_p, self.top_p is None or 0 < as_float(self.top_p) <= 1, "in the range 0 < top_p ≤ 1")
        check("min_p", self.min_p, self.min_p is None or 0 <= as_float(self.min_p) <= 1, "in the range 0 ≤ min_p ≤ 1")
        typical_p = self.typical_p
        check(
            "typical_p", typical_p, typical_p is None or 0 < as_float(typical_p) <= 1, "in the range 0 < typical_p ≤ 1"
        )
        penalty = self.repetition_penalty
        check("repetition_penalty", penalty, 0 < as_float(penalty) < np.inf, "above 0")
        for name in ("frequency_penalty", "presence_penalty"):
            check(name, getattr(self, name), np.isfinite(as_float(getattr(self, name))), "a number")

    def _check_tokens(self) -> None:
        bias, banned, forced = self.logit_bias, self.banned_tokens, self.forced_tokens
        is_bias = bias is None or (isinstance(bias, Mapping) and all(np.isfinite(as_float(b)) for b in bias.values()))
        check("logit_bias", bias, is_bias, "a dictionary from tokens to finite numbers")
        is_list = isinstance(banned, Collection) and not isinstance(banned, str | bytes)
        check("banned_tokens", banned, banned is None or is_list, "a list of tokens")
        has_positions = forced is None or (isinstance(forced, Mapping) and all(is_int(i, 0) for i in forced))
        check("forced_tokens", forced, has_positions, "a dictionary from positions, 0 or more, to tokens")
        for name, value in (("max_tokens", self.max_tokens), ("min_tokens", self.min_tokens)):
            is_number = is_int(value, 0) and value <= MAX_TOKENS
            check(name, value, is_number, f"a whole number from 0 to {MAX_TOKENS:,}")
        fits = self.min_tokens <= self.max_tokens
        check("min_tokens", self.min_tokens, fits, f"at most max_tokens, {self.max_tokens}")
        fits = all(position < self.max_tokens for position in forced or ())
        check("forced_tokens", forced, fits, f"at positions below max_tokens, {self.max_tokens}")

    def _check_constraints(self) -> None:
        are_strings = all(isinstance(stop, str) and stop for stop in self.stops)
        check("stop", self.stop, are_strings, "one or more strings that are not empty")
        check("regex", self.regex, self.regex is None or isinstance(self.regex, str), "a string")
        choices = self.choices
        is_list = isinstance(choices, list | tuple) and len(choices) > 0 and all(isinstance(c, str) for c in choices)
        check("choices", choices, choices is None or is_list, "a list of one or more strings")
        if self.max_copied_chars is not None:
            check_at_least("max_copied_chars", self.max_copied_chars, 1)
        for name in ("check_novelty", "stop_at_sentence", "known_words"):
            check(name, getattr(self, name), type(getattr(self, name)) is bool, "True or False")
        is_number = self.num_beams is None or (is_int(self.num_beams, 1) and self.num_beams <= MAX_BEAMS)
        check("num_beams", self.num_beams, is_number, f"a whole number from 1 to {MAX_BEAMS:,}")
        check("length_penalty", self.length_penalty, bool(np.isfinite(as_float(self.length_penalty))), "a number")
        is_seed = self.seed is None or (is_int(self.seed, 0) and self.seed < SEED_LIMIT)
        check("seed", self.seed, is_seed, "a whole number from 0 to below 2**128")

    def _check_combinations(self) -> None:
        """Raise OptionError for options that contradict each other."""
        names = ("guide", "regex", "choices", "max_copied_chars", "known_words")
        guides = [name for name in names if getattr(self, name) not in (None, False)]
        if self.guide is not None:
            self._refuse("guide", {name: (name != "guide", "a text has one guide") for name in guides})
        if self.regex is not None or self.choices is not None:
            self._refuse(
                "regex" if self.regex is not None else "choices",
                {
                    "stop": (self.stops, "a text that is cut off may not match"),
                    "stop_at_sentence": (self.stop_at_sentence, "a text that is cut off may not match"),
                    "min_tokens": (self.min_tokens, "the length of the text is part of the match"),
                    "forced_tokens": (self.forced_tokens, "a forced token may not match"),
                    "max_copied_chars": (self.max_copied_chars, "every match may be a copy"),
                    "known_words": (self.known_words, "every match may have other words"),
                    "choices": (self.regex is not None and self.choices, "both describe the whole text"),
                },
            )
        elif self.max_copied_chars is not None:
            self._refuse("max_copied_chars", {"forced_tokens": (self.forced_tokens, "forced tokens may be copies")})
        elif self.known_words:
            self._refuse("known_words", {"forced_tokens": (self.forced_tokens, "forced tokens may be other words")})
        if self.num_beams is not None:
            reason = "beam search does not sample"
            names = ("temperature", "top_k", "top_p", "min_p", "typical_p")
            changed = {name: (getattr(self, name) not in (None, DEFAULTS[name]), reason) for name in names}
            self._refuse("num_beams", changed)
        elif self.length_penalty != DEFAULTS["length_penalty"]:
            raise OptionError("length_penalty needs num_beams: it ranks the texts of beam search")

    @staticmethod
    def _refuse(option: str, others: Mapping[str, tuple[Any, str]]) -> None:
        for name, (is_used, reason) in others.items():
            if is_used:
                raise OptionError(f"{name} does not combine with {option}: {reason}")

    @property
    def stops(self) -> tuple[Any, ...]:
        """The stop strings."""
        if self.stop is None:
            return ()
        return tuple(self.stop) if isinstance(self.stop, list | tuple) else (self.stop,)


DEFAULTS: dict[str, Any] = {option.name: option.default for option in dataclasses.fields(GenerationConfig)}
"""The default of each option."""


def check_temperature(temperature: Any) -> None:
    """Raise OptionError unless a temperature, or each temperature of a list, is a finite number of at least 0."""
    is_list = isinstance(temperature, Sequence) and not isinstance(temperature, str | bytes)
    for value in temperature if is_list and temperature else [temperature]:
        check("temperature", value, 0 <= as_float(value) < np.inf, "0 or more")
