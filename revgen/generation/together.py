"""Several models write one text together: they take turns at the borders of words, each reading what the others wrote.

The models may have different tokenizers: what passes between them is text. A turn ends where a model would begin a new
word; the next one begins it instead. (After ``synthesize`` of textgenrnn, whose models take turns token by token.)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Unpack, overload

import numpy as np

from revgen.arguments import validate_call
from revgen.errors import OptionError
from revgen.generation.config import DEFAULTS, GenerationConfig, GenerationOptions
from revgen.generation.constraints import Constraints, TextState
from revgen.generation.sampler import sample
from revgen.options import check, check_at_least

if TYPE_CHECKING:
    from revgen.model import Model

SHARED = (
    *("temperature", "top_k", "top_p", "min_p", "typical_p", "repetition_penalty", "frequency_penalty"),
    *("logit_bias", "banned_tokens", "max_tokens", "stop", "seed"),
)
"""Settings that mean something to all models together."""


@overload
def synthesize(
    models: Sequence[Model], prompt: str = "", *, n: None = None, **options: Unpack[GenerationOptions]
) -> str: ...


@overload
def synthesize(
    models: Sequence[Model], prompt: str = "", *, n: int, **options: Unpack[GenerationOptions]
) -> list[str]: ...


@validate_call(defaults=DEFAULTS)
def synthesize(
    models: Sequence[Model], prompt: str = "", *, n: int | None = None, **options: Unpack[GenerationOptions]
) -> str | list[str]:
    """Write the prompt and a continuation by several models in turn, word by word; with ``n`` a list of ``n``.

    ``options`` are those of ``generate`` that shape the distribution, ``max_tokens`` for all models together, ``stop``
    and ``seed``. The text ends where one of them ends the document. Raises OptionError for the other options.
    """
    check("models", models, isinstance(models, Sequence) and len(models) > 0, "a list of at least one model")
    check("prompt", prompt, isinstance(prompt, str), "a string")
    if n is not None:
        check_at_least("n", n, 1)
    settings, plain = GenerationConfig.from_kwargs(**options), GenerationConfig()
    for name in vars(settings):
        if name not in SHARED and getattr(settings, name) != getattr(plain, name):
            raise OptionError(f"{name} does not combine with taking turns: it is for a text of one model")
    random = np.random.default_rng(settings.seed)
    voices = [Participant(model, settings, random) for model in models]
    texts = [prompt + _text(voices, prompt, settings) for _ in range(n or 1)]
    return texts[0] if n is None else texts


def _text(voices: Sequence[Participant], prompt: str, settings: GenerationConfig) -> str:
    """One continuation."""
    for voice in voices:
        voice.begin(prompt)
    text, drawn, place = "", 0, 0
    border = False
    while drawn < settings.max_tokens:
        voice = voices[place % len(voices)]
        written, tokens, ended = voice.take_turn(border, drawn)
        text += written
        drawn += tokens
        for other in voices:
            if other is not voice:
                other.observe(written)
        found = [at for at in map(text.find, settings.stops) if at >= 0]
        if found:
            return text[: min(found)]
        if ended:
            break
        border, place = True, place + 1
    return text


class Participant:
    """A model in its part, with what it has read of the text."""

    def __init__(self, model: Model, settings: GenerationConfig, random: np.random.Generator) -> None:
        self.model, self.settings, self.random = model, settings, random
        self.rules = Constraints(model, settings)
        tokenizer = model.tokenizer
        self.spaces = np.array([spelled[:1].isspace() for spelled in tokenizer.token_bytes])
        self.between = self.spaces.copy()  # what may stand behind a word
        self.between[tokenizer.eos_id] = True

    def begin(self, prompt: str) -> None:
        """Begin a document."""
        self.counts = np.zeros((1, len(self.model.tokenizer)), np.int32)
        self.memory: Any = self.model.initial_state(1)
        self.unread = [self.model.tokenizer.bos_id]
        self.heard = prompt

    def observe(self, text: str) -> None:
        """What another one wrote."""
        self.heard += text

    def read(self, ids: Sequence[int]) -> None:
        """Go on by some tokens."""
        self.logits, self.memory = self.model.next_logits(np.array(ids)[:, None], self.memory)
        self.counts += np.bincount(ids, minlength=self.counts.shape[1])[None]

    def take_turn(self, border: bool, drawn: int) -> tuple[str, int, bool]:
        """A word: its text, its tokens, and whether the document ends with it.

        ``border``: it begins with white space, as the one before wrote a whole word. ``drawn`` tokens stand before.
        """
        tokenizer, sampling, rules = self.model.tokenizer, self.rules.sampling, self.rules
        ids, state = [*self.unread, *tokenizer.encode(self.heard).tolist()], TextState()
        self.unread, self.heard = [], ""
        if not border:  # the word may have been begun by the prompt
            ids, state = rules.begin("", ids)
        if ids:
            self.read(ids)
        decode, text, tokens = tokenizer.stream_decoder(), "", 0
        while drawn + tokens < self.settings.max_tokens:
            place = np.array([drawn + tokens])
            logits = rules.apply(self.logits, self.counts, place, [state])
            if border and not tokens and np.isfinite(logits[0, self.between]).any():
                logits[0, ~self.between] = -np.inf
            token = int(sample(sampling.filtered(logits, place), self.random.random(1))[0])
            if token == tokenizer.eos_id:
                return text + decode(tokenizer.eos_id), tokens, True
            if self.spaces[token] and text.strip():
                break
            text += decode(token)[len(state.pending) :]
            tokens += not rules.rewrites_prompt(state, token)
            state, _ = rules.advance(state, token)
            self.read([token])
        return text + decode(tokenizer.eos_id), tokens, False
