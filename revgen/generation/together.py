"""Several models generate one text in turn: each continues what the others have generated, one word at a time.

The models may have different tokenizers, since they exchange text. A turn ends where a model would begin a new word;
the next model begins it instead. (After ``synthesize`` of textgenrnn, whose models alternate token by token.)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Unpack, overload

import numpy as np

from revgen.arguments import validate_call
from revgen.errors import OptionError
from revgen.generation.config import DEFAULTS, GenerationConfig, GenerationOptions
from revgen.generation.constraints import Constraints, TextState, TokenHistory
from revgen.generation.defaults import add_defaults, resolve_prompt
from revgen.generation.sampler import probabilities, sample
from revgen.generation.sentences import SentenceStop
from revgen.generation.streamer import find_end
from revgen.options import check, check_at_least

if TYPE_CHECKING:
    from revgen.model import Model

SHARED_OPTIONS = (
    *("temperature", "top_k", "top_p", "min_p", "typical_p", "repetition_penalty"),
    *("frequency_penalty", "presence_penalty", "logit_bias", "banned_tokens", "filters"),
    *("max_tokens", "min_tokens", "stop", "stop_at_sentence", "seed"),
)
"""Options that apply to all models together."""


@overload
def synthesize(
    models: Sequence[Model], prompt: str | None = None, *, n: None = None, **options: Unpack[GenerationOptions]
) -> str: ...


@overload
def synthesize(
    models: Sequence[Model], prompt: str | None = None, *, n: int, **options: Unpack[GenerationOptions]
) -> list[str]: ...


@validate_call(defaults=DEFAULTS)
def synthesize(
    models: Sequence[Model], prompt: str | None = None, *, n: int | None = None, **options: Unpack[GenerationOptions]
) -> str | list[str]:
    """Continue the prompt with several models in turn, word by word; return one text, or a list of ``n``.

    ``options`` are the options of ``generate`` that shape the distribution, ``max_tokens`` and ``min_tokens`` (for all
    models together), ``stop``, ``stop_at_sentence`` and ``seed``. The text ends where a model ends the document. Other
    options raise OptionError. If no prompt or option is given, the default of the first model applies.
    """
    check("models", models, isinstance(models, Sequence) and len(models) > 0, "a list of at least one model")
    prompt = resolve_prompt(models[0], prompt)
    check("prompt", prompt, isinstance(prompt, str), "a string")
    if n is not None:
        check_at_least("n", n, 1)
    defaults = {name: value for name, value in add_defaults(models[0], options).items() if name in SHARED_OPTIONS}
    config = GenerationConfig.from_kwargs(**(defaults | dict(options)))
    for name, default in DEFAULTS.items():
        if name not in SHARED_OPTIONS and getattr(config, name) != default:
            raise OptionError(f"{name} does not combine with taking turns: it is an option for a text of one model")
    random = np.random.default_rng(config.seed)
    participants = [Participant(model, config, random) for model in models]
    texts = [prompt + _continuation(participants, prompt, config) for _ in range(n or 1)]
    return texts[0] if n is None else texts


def _continuation(participants: Sequence[Participant], prompt: str, config: GenerationConfig) -> str:
    for participant in participants:
        participant.begin(prompt)
    text, position, turn, start = "", 0, 0, 0
    while position < config.max_tokens:
        participant = participants[turn % len(participants)]
        word, tokens, is_end = participant.take_turn(position, begins_word=turn > 0)
        text += word
        position += tokens
        turn += 1
        for other in participants:
            if other is not participant:
                other.observe(word)
        is_final = is_end or position >= config.max_tokens
        if position <= config.min_tokens:
            start = len(text) + (position < config.min_tokens)
        else:
            sentences = SentenceStop(prompt, start) if config.stop_at_sentence else None
            if (end := find_end(text, config.stops, sentences, start, is_final=is_final)) is not None:
                return text[:end]
        if is_end:
            break
    return text


class Participant:
    """A model that takes turns, with the text that it has read."""

    def __init__(self, model: Model, config: GenerationConfig, random: np.random.Generator) -> None:
        self.model, self.random = model, random
        self.max_tokens = config.max_tokens
        self.constraints = Constraints(model, config)
        tokenizer = model.tokenizer
        self.starts_with_space = np.array([spelled[:1].isspace() for spelled in tokenizer.token_bytes])
        self.ends_word = self.starts_with_space.copy()
        self.ends_word[tokenizer.eos_id] = True

    def begin(self, prompt: str) -> None:
        """Begin a document."""
        self.history = TokenHistory([[]], len(self.model.tokenizer))
        self.model_state: Any = self.model.initial_state(1)
        self.unread_ids = [self.model.tokenizer.bos_id]
        self.unread_text = prompt

    def observe(self, text: str) -> None:
        """Add text of another participant, which is read at the next turn."""
        self.unread_text += text

    def read(self, ids: Sequence[int]) -> None:
        """Read tokens."""
        self.logits, self.model_state = self.model.next_logits(np.array(ids)[:, None], self.model_state)
        self.history.extend(0, ids)

    def take_turn(self, position: int, *, begins_word: bool) -> tuple[str, int, bool]:
        """Generate a word; return its text, its number of tokens, and whether it ends the document.

        ``position`` counts the tokens of the text so far. With ``begins_word``, the word starts with white space,
        since the participant before completed its word; otherwise it may complete a word of the prompt.
        """
        tokenizer, constraints = self.model.tokenizer, self.constraints
        ids, state = [*self.unread_ids, *tokenizer.encode(self.unread_text).tolist()], TextState()
        self.unread_ids, self.unread_text = [], ""
        if not begins_word:
            ids, state = constraints.begin("", ids)
        if ids:
            self.read(ids)
        decode, text, tokens = tokenizer.stream_decoder(), "", 0
        while position + tokens < self.max_tokens:
            token = self._sample(position + tokens, state, starts_word=begins_word and not tokens)
            if token == tokenizer.eos_id:
                return text + decode(tokenizer.eos_id), tokens, True
            if self.starts_with_space[token] and text.strip():
                break
            text += decode(token)[len(state.pending) :]
            tokens += not constraints.is_part_of_prompt(state, token)
            state, _ = constraints.next_state(state, token)
            self.read([token])
        return text + decode(tokenizer.eos_id), tokens, False

    def _sample(self, position: int, state: TextState, *, starts_word: bool) -> int:
        context = self.constraints.context(np.array([position]), self.history, np.zeros(1, np.intp))
        logits = self.constraints.apply(self.logits, context, [state])
        if starts_word and np.isfinite(logits[0, self.ends_word]).any():
            logits[0, ~self.ends_word] = -np.inf
        return int(sample(probabilities(self.constraints.filters, logits, context), self.random.random(1))[0])
