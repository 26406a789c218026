"""The settings of a generation: every option of ``generate`` and ``stream``, checked before anything is drawn."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from revgen.arguments import check_fields
from revgen.errors import OptionError
from revgen.generation.guides import CopyGuide, Guide, PatternGuide, choices_guide
from revgen.generation.healing import token_texts
from revgen.generation.sampler import Floats, Sampling, SamplingOptions, Token, finite, token_id
from revgen.generation.spelling import NO_DIGITS, SpellingGuide, spelling_guide
from revgen.options import as_float, at_least, check, is_int, make_plain
from revgen.registry import unknown_name_message

if TYPE_CHECKING:
    from revgen.model import Model


MOST_TOKENS, MOST_BEAMS, SEEDS = 1 << 40, 1 << 12, 1 << 128


class GenerationOptions(SamplingOptions, total=False):
    """The keyword arguments of ``generate`` and ``stream`` but the prompt and how many texts."""

    max_tokens: int
    min_tokens: int
    stop: str | Sequence[str] | None
    forced_tokens: Mapping[int, Token] | None
    regex: str | None
    choices: Sequence[str] | None
    max_copied_chars: int | None
    check_novelty: bool
    num_beams: int | None
    length_penalty: float
    seed: int | None
    label: str | float | bool | None


@dataclass(frozen=True)
class GenerationConfig:
    """What a text is, beside the distribution that its tokens are drawn from.

    - ``max_tokens``, ``min_tokens``: how many tokens are drawn. Before the fewest, the document does not end, and stop
      strings do not count.
    - ``stop``: strings that the text ends before.
    - ``forced_tokens``: the token at some places, ``{0: "a"}`` for the first that is drawn.
    - ``regex``: a regular expression that the continuation matches as a whole.
    - ``choices``: strings of which the continuation is one.
    - ``max_copied_chars``: the most characters in a row that stand in the training text, for models with its index.
    - ``check_novelty``: the text is a ``CheckedText``, whose ``copied`` tells what of it is copied.
    - ``num_beams``: search for the most likely text with this many beams, instead of sampling. Texts are
      ranked by their log-probability divided by their number of tokens to the power of ``length_penalty``.
    - ``seed``: the same one gives the same text. ``label``: what the text is conditioned on.
    """

    max_tokens: int = 300
    min_tokens: int = 0
    stop: str | Sequence[str] | None = None
    forced_tokens: Mapping[int, Token] | None = None
    regex: str | None = None
    choices: Sequence[str] | None = None
    max_copied_chars: int | None = None
    check_novelty: bool = False
    num_beams: int | None = None
    length_penalty: float = 1.0
    seed: int | None = None
    label: str | float | bool | None = None
    sampling: Sampling = field(default_factory=Sampling)

    @classmethod
    def from_kwargs(cls, options: Mapping[str, Any]) -> Self:
        """From keyword arguments. Raises OptionError that names one which there is not, or whose value cannot be."""
        own, shaping = ([f.name for f in dataclasses.fields(c) if f.name != "sampling"] for c in (cls, Sampling))
        for name in options:
            if name not in own + shaping:
                raise OptionError(unknown_name_message("option of generate", name, ["prompt", "n", *own, *shaping]))
        sampling = Sampling(**{name: value for name, value in options.items() if name in shaping})
        return cls(**{name: value for name, value in options.items() if name in own}, sampling=sampling)

    def __post_init__(self) -> None:
        make_plain(self)
        check_fields(self)
        most_tokens = f"a whole number from 0 to {MOST_TOKENS:,}"
        check("max_tokens", self.max_tokens, is_int(self.max_tokens, 0) and self.max_tokens <= MOST_TOKENS, most_tokens)
        at_least("min_tokens", self.min_tokens, 0)
        most = self.min_tokens <= self.max_tokens
        check("min_tokens", self.min_tokens, most, f"at most max_tokens, {self.max_tokens}")
        stops = all(isinstance(s, str) and s for s in self.stops)
        check("stop", self.stop, stops, "one or more strings that are not empty")
        forced = self.forced_tokens
        places = forced is None or (isinstance(forced, Mapping) and all(is_int(place, 0) for place in forced))
        check("forced_tokens", forced, places, "a token for each of some places, {place: token}")
        late = [place for place in forced or () if place >= self.max_tokens]
        check("forced_tokens", forced, not late, f"at places below max_tokens, {self.max_tokens}")
        check("regex", self.regex, self.regex is None or isinstance(self.regex, str), "a string")
        some = self.choices is None or (
            isinstance(self.choices, list | tuple)
            and len(self.choices) > 0
            and all(isinstance(choice, str) for choice in self.choices)
        )
        check("choices", self.choices, some, "a list of one or more strings")
        good = self.max_copied_chars is None or is_int(self.max_copied_chars, 1)
        check("max_copied_chars", self.max_copied_chars, good, "a whole number of at least 1")
        check("check_novelty", self.check_novelty, type(self.check_novelty) is bool, "True or False")
        beams = self.num_beams is None or (is_int(self.num_beams, 1) and self.num_beams <= MOST_BEAMS)
        check("num_beams", self.num_beams, beams, f"a whole number from 1 to {MOST_BEAMS:,}")
        penalty = self.length_penalty
        check("length_penalty", penalty, bool(np.isfinite(as_float(penalty))), "a number")
        seed = self.seed is None or (is_int(self.seed, 0) and self.seed < SEEDS)
        check("seed", self.seed, seed, "a whole number from 0 to below 2**128")
        self._check_combinations()

    def _check_combinations(self) -> None:
        """Say of options that do not combine why they do not."""
        guide = "regex" if self.regex is not None else "choices"
        clashes: dict[str, Any] = {}
        if self.regex is not None or self.choices is not None:
            clashes = {
                "stop": (self.stops, "a text that is cut need not match"),
                "min_tokens": (self.min_tokens, "the length of a text is a part of what it matches"),
                "forced_tokens": (self.forced_tokens, "forced tokens may be those that do not match"),
                "max_copied_chars": (self.max_copied_chars, "all that matches may be copied"),
                "choices": (self.regex is not None and self.choices, "both say what the whole text is"),
            }
        elif self.max_copied_chars is not None:
            guide, clashes = "max_copied_chars", {"forced_tokens": (self.forced_tokens, "forced tokens may be copies")}
        for name, (given, reason) in clashes.items():
            if given:
                raise OptionError(f"{name} does not combine with {guide}: {reason}")
        if self.num_beams is None:
            return
        plain, sampling = Sampling(), self.sampling
        for name in ("temperature", "top_k", "top_p", "min_p", "typical_p"):
            if getattr(sampling, name) not in (None, getattr(plain, name)):
                raise OptionError(f"{name} does not combine with num_beams: the search draws nothing")

    @property
    def stops(self) -> tuple[Any, ...]:
        """The stop strings."""
        if self.stop is None:
            return ()
        return tuple(self.stop) if isinstance(self.stop, list | tuple) else (self.stop,)


DEFAULTS: dict[str, Any] = {
    f.name: f.default for kind in (GenerationConfig, Sampling) for f in dataclasses.fields(kind)
}
"""The value of each option that is not given."""


@dataclass(frozen=True)
class TextState:
    """Where a text is: the end of its prompt that is still to be written again, and the state of the guide."""

    pending: str = ""
    guided: Any = None
    number: int = NO_DIGITS
    """That of the digits of a character which the text ends within."""


class Constraints:
    """Settings for one model: from logits to those of what may follow. Raises OptionError where they do not fit it."""

    def __init__(self, model: Model, settings: GenerationConfig) -> None:
        tokenizer = model.tokenizer
        if settings.check_novelty:
            model.index  # noqa: B018  says where there is none
        self.settings = settings
        self.end = tokenizer.eos_id
        self.token_texts = token_texts(tokenizer)
        self.sampling = settings.sampling.scheduled(settings.max_tokens)
        self.biases = self.sampling.biases(tokenizer)
        self.forced = {
            place: token_id("forced_tokens", token, tokenizer)
            for place, token in (settings.forced_tokens or {}).items()
        }
        for place, token in self.forced.items():
            if np.isneginf(self.biases[token]):
                raise OptionError(f"forced_tokens has a banned token: {settings.forced_tokens[place]!r}")  # type: ignore[index]
            if token == self.end and place < settings.min_tokens:
                raise OptionError(f"forced_tokens ends the text at {place}, before min_tokens, {settings.min_tokens}")
        self.guide = _guide(model, settings, self.biases)
        self.spelling: SpellingGuide | None = None
        if not (self.guide and self.guide.binding):
            self.biases[model.suppressed_tokens] = -np.inf
            self.spelling = spelling_guide(tokenizer) if tokenizer.digits and model.writes_digits else None

    def apply(
        self,
        logits: Floats,
        counts: NDArray[Any] | None,
        places: NDArray[np.integer[Any]],
        states: Sequence[TextState],
    ) -> Floats:
        """Logits (batch, vocab) as penalties, biases and guide leave them.

        ``counts`` as in ``Sampling.probabilities``; ``places`` are how many tokens of each text were drawn, (batch,);
        ``states`` are those of the texts.
        """
        logits = self.sampling.penalized(finite(logits), counts) + self.biases
        if self.settings.min_tokens:
            logits[places < self.settings.min_tokens, self.end] = -np.inf
        allowed: Any = True
        if self.guide or self.spelling or any(state.pending for state in states):
            left = (self.settings.max_tokens - places).tolist()
            allowed = np.stack([self.allowed(state, some) for state, some in zip(states, left, strict=True)])
            logits[~allowed] = -np.inf
        stuck = np.maximum.reduce(logits, -1) == -np.inf  # nothing that may follow has any probability
        for row in np.flatnonzero(stuck).tolist():
            if states[row].pending:
                logits[row, self.token_texts.longest_beginning(states[row].pending)] = 0
            elif self.guide is not None and self.guide.binding:
                logits[row] = np.where(allowed[row], np.float32(0), -np.inf)
            elif self.spelling is not None and states[row].number != NO_DIGITS:  # the text ends behind the character
                last = self.spelling.allowed_tokens(states[row].number, 1) & np.isfinite(self.biases)
                some = allowed[row] & last
                logits[row] = np.where(some if some.any() else last, np.float32(0), -np.inf)
            else:
                logits[row, self.end] = 0
        for place, token in self.forced.items():
            logits[places == place] = -np.inf
            logits[places == place, token] = 0
        return logits

    def allowed(self, state: TextState, left: int) -> NDArray[np.bool_]:
        """Return which tokens may follow, where at most ``left`` do, (vocab,)."""
        if not state.pending:
            allowed = (
                np.ones(len(self.biases), bool) if self.guide is None else self.guide.allowed_tokens(state.guided, left)
            )
            return (
                allowed if self.spelling is None else allowed & self.spelling.allowed_tokens(state.number, min(left, 2))
            )
        allowed = self.token_texts.allowed(state.pending)
        if self.guide is not None:
            allowed = allowed.copy()
            for token in np.flatnonzero(allowed).tolist():
                beyond = self.token_texts.texts[token][len(state.pending) :]
                allowed[token] = not beyond or self.guide.allows_text(state.guided, beyond, left)
        return allowed

    @property
    def is_unconstrained(self) -> bool:
        """Whether a token depends on nothing but the logits, one temperature and the biases."""
        return self.is_context_free and self.sampling.unfiltered

    @property
    def is_context_free(self) -> bool:
        """Whether it does not matter for a token what the text has already."""
        return not (self.settings.min_tokens or self.forced or self.guide or self.spelling or self.sampling.penalizes)

    def begin(self, prompt: str, ids: Sequence[int]) -> tuple[list[int], TextState]:
        """Return the ids of a prompt to read, and the state of the text after them.

        Where tokens are forced, the prompt keeps its end: what follows it is decided.
        """
        given, pending = (list(ids), "") if self.forced else self.token_texts.give_back(ids)
        return given, TextState(pending, self.guide and self.guide.initial_state(prompt))

    def rewrites_prompt(self, state: TextState, token: int) -> bool:
        """Return whether a token only writes the end of the prompt again, and so does not count as drawn."""
        return 0 < len(self.token_texts.texts[token]) <= len(state.pending)

    def advance(self, state: TextState, token: int) -> tuple[TextState, bool]:
        """Return the state of a text after a token, and whether the text is complete there."""
        guide, text = self.guide, self.token_texts.texts[token]
        if self.rewrites_prompt(state, token):
            return TextState(state.pending[len(text) :], state.guided), False
        number = NO_DIGITS if self.spelling is None else self.spelling.next_state(state.number, token)
        if guide is None:
            return TextState(number=number), False
        guided = (
            guide.next_state_for_text(state.guided, text[len(state.pending) :])
            if state.pending
            else guide.next_state(state.guided, token)
        )
        return TextState("", guided, number), guide.is_done(guided)


def _guide(model: Model, settings: GenerationConfig, biases: Floats) -> Guide | None:
    banned = np.flatnonzero(np.isneginf(biases)).tolist()
    if settings.regex is not None:
        return PatternGuide(model.tokenizer, settings.regex, settings.max_tokens, banned)
    if settings.choices is not None:
        return choices_guide(model.tokenizer, settings.choices, settings.max_tokens, banned)
    if settings.max_copied_chars is not None:
        return CopyGuide(model.tokenizer, model.index, settings.max_copied_chars)
    return None
