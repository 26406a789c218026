"""What a model thinks of a text: how it expected each token, how sure it was, and what else it would have written."""

from __future__ import annotations

import html
from collections.abc import Iterator
from dataclasses import dataclass
from math import log
from typing import TYPE_CHECKING, Any

import numpy as np

from revgen.ops import log_softmax
from revgen.options import at_least, check
from revgen.tables import to_frame, to_text

if TYPE_CHECKING:
    from revgen.model import Model

STEP = 1 << 18
"""Values of logits at once."""

MOST_BITS = 8
"""The surprise, in bits, from which on a token has the full colour."""

COLOUR = (255, 140, 60)
STYLE = "font-family: monospace; white-space: pre-wrap; line-height: 1.6"


@dataclass(frozen=True)
class Explained:
    """One token of a text, or its end."""

    token: str
    text: str
    """What it writes: nothing for the end."""
    logprob: float
    """The natural logarithm of its probability."""
    entropy: float
    """Of the distribution that it was drawn from, in nats: how open the model was."""
    rank: int
    """How many tokens were likelier, and 1 more."""
    alternatives: tuple[tuple[str, float], ...]
    """The likeliest tokens there with their probabilities."""

    @property
    def bits(self) -> float:
        """The surprise, -log2 p."""
        return max(-self.logprob / log(2), 0.0)

    def __str__(self) -> str:
        others = ", ".join(f"{token!r} {p:.0%}" for token, p in self.alternatives)
        return f"{self.token!r}: {self.bits:.1f} bits, rank {self.rank}, entropy {self.entropy:.2f} nats; {others}"


@dataclass(frozen=True)
class Explanation:
    """A text token by token. It prints as a table, and shows itself in a notebook in colours."""

    model: str
    tokens: tuple[Explained, ...]

    def __iter__(self) -> Iterator[Explained]:
        return iter(self.tokens)

    def __len__(self) -> int:
        return len(self.tokens)

    def to_dicts(self) -> list[dict[str, Any]]:
        """One dictionary a token."""
        names = ("token", "logprob", "entropy", "rank", "alternatives")
        return [{name: getattr(token, name) for name in names} for token in self]

    def to_frame(self) -> Any:
        """A pandas data frame, one row a token."""
        return to_frame(self.to_dicts())

    def __str__(self) -> str:
        rows = [
            {"token": repr(t.token), "logprob": t.logprob, "entropy": t.entropy, "rank": t.rank}
            | {"alternatives": "  ".join(f"{token!r} {p:.0%}" for token, p in t.alternatives)}
            for t in self
        ]
        return to_text(rows, ("token", "logprob", "entropy", "rank", "alternatives"))

    def to_terminal(self) -> str:
        """The text for a terminal of 24-bit colours: the more surprising a token, the stronger its colour."""
        parts = []
        for token in self:
            red, green, blue = _colour(token.bits)
            for i, line in enumerate(token.text.split("\n")):
                if i:
                    parts.append("\n")
                if line:
                    parts.append(f"\x1b[30;48;2;{red};{green};{blue}m{line}\x1b[0m")
        return "".join(parts)

    def to_html(self) -> str:
        """The same as an HTML element; each token tells its figures where the pointer rests on it."""
        spans = []
        for token in self:
            red, green, blue = _colour(token.bits)
            shown = html.escape(token.text) if token.text else "⏹"
            title = html.escape(str(token))
            style = f"background: rgb({red} {green} {blue}); color: black"
            spans.append(f'<span style="{style}" title="{title}">{shown}</span>')
        return f'<div style="{STYLE}">{"".join(spans)}</div>'

    def _repr_html_(self) -> str:
        return self.to_html()


def explain(model: Model, text: str, top: int = 5, label: str | float | bool | None = None) -> Explanation:
    """See ``LanguageModel.explain``."""
    check("text", text, isinstance(text, str), "a string")
    at_least("top", top, 0)
    tokenizer = model.tokenizer
    vocabulary = tokenizer.vocabulary
    ids = np.array([tokenizer.bos_id, *tokenizer.encode(text), tokenizer.eos_id])
    decode, shift = tokenizer.stream_decoder(), model.label_offset(label)
    state: Any = model.initial_state(1)
    found: list[Explained] = []
    step = max(1, STEP // len(tokenizer))
    for begin in range(0, len(ids) - 1, step):
        some = ids[begin : min(begin + step, len(ids) - 1)]
        logits, state = model.forward(some[:, None] + shift, state)
        logp = log_softmax(logits[:, 0].astype(np.float64))  # (time, vocab)
        with np.errstate(invalid="ignore"):
            entropies = -np.where(np.isneginf(logp), 0, np.exp(logp) * logp).sum(-1)
        order = np.argsort(-logp, axis=-1, kind="stable")[:, :top]
        for place, token in enumerate(ids[begin + 1 : begin + 1 + len(some)].tolist()):
            row = logp[place]
            likeliest = tuple((vocabulary[i], float(np.exp(row[i]))) for i in order[place].tolist())
            rank = 1 + int((row > row[token]).sum())
            logprob = float(row[token]) - (tokenizer.unknown_nats if token == tokenizer.unk_id else 0.0)
            found.append(Explained(vocabulary[token], decode(token), logprob, float(entropies[place]), rank, likeliest))
    return Explanation(model.name, tuple(found))


def _colour(bits: float) -> tuple[int, int, int]:
    """From white to the full colour."""
    share = min(bits / MOST_BITS, 1)
    red, green, blue = (round(255 + (full - 255) * share) for full in COLOUR)
    return red, green, blue
