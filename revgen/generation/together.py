"""Several models write one text together: they take turns at the borders of words, each reading what the others wrote.

The models may have different tokenizers: what passes between them is text. A turn ends where a model would begin a new
word; the next one begins it instead. (After ``synthesize`` of textgenrnn, whose models take turns token by token.)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, Unpack, overload

import numpy as np

from revgen.errors import OptionError
from revgen.generation.sampler import draw
from revgen.generation.settings import GenerationOptions, Rules, Settings
from revgen.options import at_least, check

if TYPE_CHECKING:
    from revgen.language_model import LanguageModel

SHARED = ("max_tokens", "stop", "seed", "sampling")
"""Settings that mean something to all models together."""


@overload
def synthesize(
    models: Sequence[LanguageModel], prompt: str = "", *, n: Literal[1] = 1, **options: Unpack[GenerationOptions]
) -> str: ...


@overload
def synthesize(
    models: Sequence[LanguageModel], prompt: str = "", *, n: int = ..., **options: Unpack[GenerationOptions]
) -> list[str]: ...


def synthesize(
    models: Sequence[LanguageModel], prompt: str = "", *, n: int = 1, **options: Unpack[GenerationOptions]
) -> str | list[str]:
    """The prompt and a continuation that several models write in turn, word by word; for ``n`` > 1 a list of ``n``.

    ``options`` are those of ``generate`` that shape the distribution, ``max_tokens`` for all models together, ``stop``
    and ``seed``. The text ends where one of them ends the document. Raises OptionError for the other options.
    """
    check("models", models, isinstance(models, Sequence) and len(models) > 0, "a list of at least one model")
    check("prompt", prompt, isinstance(prompt, str), "a string")
    at_least("n", n, 1)
    settings, plain = Settings.of(options), Settings()
    for name in vars(settings):
        if name not in SHARED and getattr(settings, name) != getattr(plain, name):
            raise OptionError(f"{name} does not combine with taking turns: it is for a text of one model")
    random = np.random.default_rng(settings.seed)
    voices = [Voice(model, settings, random) for model in models]
    texts = [prompt + _text(voices, prompt, settings) for _ in range(n)]
    return texts[0] if n == 1 else texts


def _text(voices: Sequence[Voice], prompt: str, settings: Settings) -> str:
    """One continuation."""
    for voice in voices:
        voice.begin(prompt)
    text, drawn, place = "", 0, 0
    border = False
    while drawn < settings.max_tokens:
        voice = voices[place % len(voices)]
        written, tokens, ended = voice.turn(border, drawn)
        text += written
        drawn += tokens
        for other in voices:
            if other is not voice:
                other.hear(written)
        found = [at for at in map(text.find, settings.stops) if at >= 0]
        if found:
            return text[: min(found)]
        if ended:
            break
        border, place = True, place + 1
    return text


class Voice:
    """A model in its part, with what it has read of the text."""

    def __init__(self, model: LanguageModel, settings: Settings, random: np.random.Generator) -> None:
        self.model, self.settings, self.random = model, settings, random
        self.rules = Rules(model, settings)
        tokenizer = model.tokenizer
        self.spaces = np.array([spelled[:1].isspace() for spelled in tokenizer.spelling])
        self.between = self.spaces.copy()  # what may stand behind a word
        self.between[tokenizer.end] = True

    def begin(self, prompt: str) -> None:
        """Begin a document."""
        self.counts = np.zeros((1, len(self.model.tokenizer)), np.int32)
        self.state: Any = self.model.initial_state(1)
        self.heard = ""
        self.read(self.model.encode_prompt(prompt))

    def hear(self, text: str) -> None:
        """What another one wrote."""
        self.heard += text

    def read(self, ids: Sequence[int]) -> None:
        """Go on by some tokens."""
        self.logits, self.state = self.model.next_logits(np.array(ids)[:, None], self.state)
        self.counts += np.bincount(ids, minlength=self.counts.shape[1])[None]

    def turn(self, border: bool, drawn: int) -> tuple[str, int, bool]:
        """A word: its text, its tokens, and whether the document ends with it.

        ``border``: it begins with white space, as the one before wrote a whole word. ``drawn`` tokens stand before.
        """
        tokenizer, sampling = self.model.tokenizer, self.rules.sampling
        if self.heard:
            self.read(tokenizer.encode(self.heard).tolist())
            self.heard = ""
        decode, text, tokens = tokenizer.decoder(), "", 0
        while drawn + tokens < self.settings.max_tokens:
            place = np.array([drawn + tokens])
            logits = self.rules.apply(self.logits, self.counts, place, [])
            if border and not tokens and np.isfinite(logits[0, self.between]).any():
                logits[0, ~self.between] = -np.inf
            token = int(draw(sampling.filtered(logits, place), self.random.random(1))[0])
            if token == tokenizer.end:
                return text + decode(tokenizer.end), tokens, True
            if self.spaces[token] and text.strip():
                break
            text += decode(token)
            tokens += 1
            self.read([token])
        return text + decode(tokenizer.end), tokens, False
