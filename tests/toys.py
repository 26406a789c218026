"""Models with a given table of logits, so tests know the text that they generate."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from revgen import GenerationConfig, LanguageModel, Tokenizer
from revgen.generation import sampler
from revgen.generation.constraints import temperature_schedule
from revgen.generation.filters import FilterContext
from revgen.tokenizers import CharTokenizer
from revgen.tokenizers.tokenizer import SPECIAL_TOKENS

Floats = NDArray[np.floating[Any]]
LETTERS = "abcdefghijklmnopqrstuvwxyz"


class Table(LanguageModel):
    """A model whose next token depends only on the last token, with a table of logits (vocab, vocab)."""

    table: Floats

    def weight_shapes(self) -> dict[str, tuple[int, ...]]:
        return {"table": self.table.shape}

    def initial_state(self, batch: int) -> Any:
        return np.zeros((batch, 1), np.float32)

    def forward(self, tokens: NDArray[Any], state: Any) -> tuple[Floats, Any]:
        return self.table[tokens], state

    def fit(self, texts: Any, valid: Any = None, *, labels: Any = None, **options: Any) -> Any:
        raise NotImplementedError


class Silent(Table):
    """A model that fails the test if its logits are computed."""

    def forward(self, tokens: NDArray[Any], state: Any) -> tuple[Floats, Any]:
        raise AssertionError("a token was sampled")


def table(tokenizer: Tokenizer, logits: Floats | float = 0.0, kind: type[Table] = Table) -> Table:
    """Return a model with this table of logits, or with the same logit for all tokens."""
    model = kind("table", tokenizer.level, None, tokenizer)
    model.table = np.zeros((len(tokenizer), len(tokenizer)), np.float32) + np.asarray(logits, np.float32)
    model.weights = {"table": model.table}
    return model


class Scripted(Table):
    """A model that generates one text and ends it; its state is the position in the text."""

    script: NDArray[np.intp]

    def initial_state(self, batch: int) -> Any:
        return np.zeros((batch, 1), np.int64)

    def forward(self, tokens: NDArray[Any], state: Any) -> tuple[Floats, Any]:
        positions = state[:, 0] + np.arange(len(tokens))[:, None]
        ids = self.script[np.minimum(positions, len(self.script) - 1)]
        return 40 * np.eye(len(self.tokenizer), dtype=np.float32)[ids], state + len(tokens)


def scripted(text: str, tokenizer: Tokenizer | None = None) -> Table:
    """Return a model that generates this text, after a start that is part of it."""
    model = table(tokenizer or chars(text), kind=Scripted)
    model.script = np.array([*model.tokenizer.encode(text), model.tokenizer.eos_id])  # type: ignore[attr-defined]
    return model


def chars(text: str) -> Tokenizer:
    """Return a tokenizer of only these characters, without the digits that spell other characters."""
    return CharTokenizer((*SPECIAL_TOKENS, *sorted(set(text))))


def probabilities(logits: Any, counts: Any = None, positions: Any = 0, **options: Any) -> Any:
    """Return the probabilities that ``generate`` samples with, from logits (batch, vocab) and these options."""
    config = GenerationConfig(**options)
    schedule = temperature_schedule(config.temperature, config.max_tokens)
    positions = np.broadcast_to(positions, len(logits))
    temperature = schedule if isinstance(schedule, float) else schedule[positions % len(schedule)][:, None]
    counts = None if counts is None else np.asarray(counts, np.float32)
    context = FilterContext(positions, temperature, (), counts)
    return sampler.probabilities((*config.build_penalties(), *config.build_filters()), logits, context)


def softmax(logits: Floats) -> Floats:
    """Return the softmax of logits (batch, vocab) in double precision."""
    powers = np.exp(logits.astype(np.float64) - logits.max(-1, keepdims=True))
    normalized: Floats = powers / powers.sum(-1, keepdims=True)
    return normalized


def chi_square(counts: NDArray[Any], expected: Floats) -> float:
    """Return the chi-square statistic of observed and expected counts."""
    return float(((counts - expected) ** 2 / expected).sum())


def alphabet() -> Table:
    """Return a model whose most likely text repeats the alphabet."""
    model = table(chars(LETTERS))
    ids = model.tokenizer.encode(LETTERS)
    model.table[ids, np.roll(ids, -1)] = 10
    model.table[model.tokenizer.bos_id, ids[0]] = 10
    return model
