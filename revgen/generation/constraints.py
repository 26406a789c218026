"""``Constraints``: the tokens that may follow a text, for one model and the options of one call."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from revgen.errors import OptionError
from revgen.generation.config import GenerationConfig
from revgen.generation.guides import CopyGuide, Guide, PatternGuide, choices_guide
from revgen.generation.healing import token_texts
from revgen.generation.sampler import Floats, Sampling, finite, token_id
from revgen.generation.spelling import NO_DIGITS, SpellingGuide, spelling_guide

if TYPE_CHECKING:
    from revgen.model import Model


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
        self.sampling = Sampling(
            **{option.name: getattr(settings, option.name) for option in dataclasses.fields(Sampling)}
        ).scheduled(settings.max_tokens)
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
            self.spelling = spelling_guide(tokenizer) if tokenizer.digit_ids and model.writes_digits else None

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
