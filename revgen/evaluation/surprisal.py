"""Surprisal: how much a model expected each token of a text, how certain it was, and what it expected instead."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from revgen.display.tables import to_frame, to_text
from revgen.evaluation.coloring import colored_html, surprisal_color, to_bits
from revgen.model import Model
from revgen.ops import log_softmax
from revgen.options import check, check_at_least

BLOCK_VALUES = 1 << 18
"""The number of logits that are computed at a time."""
COLUMNS = ("token", "logprob", "entropy", "rank", "alternatives")


@dataclass(frozen=True)
class ExplainedToken:
    """One token of a text, or its end."""

    token: str
    text: str
    """The text that the token adds. It is empty for the end."""
    logprob: float
    """The natural logarithm of the token's probability."""
    entropy: float
    """The entropy of the predicted distribution, in nats."""
    rank: int
    """The rank of the token among all tokens; 1 is the most likely."""
    alternatives: tuple[tuple[str, float], ...]
    """The most likely tokens with their probabilities."""

    @property
    def bits(self) -> float:
        """The surprisal, -log2 p."""
        return to_bits(self.logprob)

    def __str__(self) -> str:
        alternatives = ", ".join(f"{token!r} {p:.0%}" for token, p in self.alternatives)
        return (
            f"{self.token!r}: {self.bits:.1f} bits, rank {self.rank}, entropy {self.entropy:.2f} nats; {alternatives}"
        )


@dataclass(frozen=True)
class Explanation:
    """The surprisal of a text, token by token. Prints as a table; notebooks show it in color."""

    model: str
    tokens: tuple[ExplainedToken, ...]

    def __iter__(self) -> Iterator[ExplainedToken]:
        return iter(self.tokens)

    def __len__(self) -> int:
        return len(self.tokens)

    def to_dicts(self) -> list[dict[str, Any]]:
        """Return one dictionary for each token."""
        return [{name: getattr(token, name) for name in COLUMNS} for token in self]

    def to_frame(self) -> Any:
        """Return a pandas data frame with one row for each token. Raises MissingExtraError without pandas."""
        return to_frame(self.to_dicts())

    def __str__(self) -> str:
        return to_text(*self.to_rows())

    def to_rows(self) -> tuple[list[dict[str, Any]], Sequence[str]]:
        """Return the rows and the columns to show."""
        rows = [
            {"token": repr(t.token), "logprob": t.logprob, "entropy": t.entropy, "rank": t.rank}
            | {"alternatives": "  ".join(f"{token!r} {p:.0%}" for token, p in t.alternatives)}
            for t in self
        ]
        return rows, COLUMNS

    def to_terminal(self) -> str:
        """Return the text for a terminal with 24-bit color: the higher the surprisal, the stronger the color."""
        parts = []
        for token in self:
            red, green, blue = surprisal_color(token.bits)
            for i, line in enumerate(token.text.split("\n")):
                if i:
                    parts.append("\n")
                if line:
                    parts.append(f"\x1b[30;48;2;{red};{green};{blue}m{line}\x1b[0m")
        return "".join(parts)

    def to_html(self) -> str:
        """Return the text as an HTML element in the same colors. The tooltip of each token shows its numbers."""
        return colored_html((token.text, token.bits, str(token)) for token in self)

    def _repr_html_(self) -> str:
        return self.to_html()


def explain(model: Model, text: str, top: int = 5, label: str | float | bool | None = None) -> Explanation:
    """Return the log-probability, entropy, rank and ``top`` alternatives of each token of a text and of its end."""
    check("text", text, isinstance(text, str), "a string")
    check_at_least("top", top, 1)
    tokenizer = model.tokenizer
    vocabulary = tokenizer.vocabulary
    ids = np.array([tokenizer.bos_id, *tokenizer.encode(text), tokenizer.eos_id])
    decode, offset = tokenizer.stream_decoder(), model.label_offset(label)
    state: Any = model.initial_state(1)
    tokens: list[ExplainedToken] = []
    block_size = max(1, BLOCK_VALUES // len(tokenizer))
    for begin in range(0, len(ids) - 1, block_size):
        inputs = ids[begin : min(begin + block_size, len(ids) - 1)]
        targets = ids[begin + 1 : begin + 1 + len(inputs)]
        logits, state = model.forward(inputs[:, None] + offset, state)
        logprobs = log_softmax(logits[:, 0].astype(np.float64))  # (time, vocab)
        with np.errstate(invalid="ignore"):
            entropies = -np.where(np.isneginf(logprobs), 0, np.exp(logprobs) * logprobs).sum(-1)
        bounds = np.partition(logprobs, -min(top, len(tokenizer)), axis=-1)[:, -min(top, len(tokenizer))]
        for i, target in enumerate(targets.tolist()):
            row = logprobs[i]
            candidates = np.flatnonzero(~(row < bounds[i]))  # a sort of all tokens would take most of the time
            most_likely = candidates[np.argsort(-row[candidates], kind="stable")][:top]
            alternatives = tuple((vocabulary[j], float(np.exp(row[j]))) for j in most_likely.tolist())
            rank = 1 + int((row > row[target]).sum())
            logprob = float(row[target]) - (tokenizer.unknown_nats if target == tokenizer.unk_id else 0.0)
            tokens.append(
                ExplainedToken(vocabulary[target], decode(target), logprob, float(entropies[i]), rank, alternatives)
            )
    return Explanation(model.name, tuple(tokens))
