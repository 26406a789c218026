"""The log-probabilities of tokens, of a prompt and of its continuation, in the form of the OpenAI protocol."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from revgen.generation.filters import Floats
from revgen.generation.healing import token_texts
from revgen.model import Model
from revgen.ops import log_softmax
from revgen.tokenizers import Tokenizer

BLOCK_VALUES = 1 << 18
"""The number of logits of a prompt that are computed at a time."""


class TokenLog:
    """The tokens of one text, with their log-probabilities and ``top`` alternatives, as the model predicts them.

    ``skip`` is the number of characters that only generate the end of the prompt again.
    """

    def __init__(self, tokenizer: Tokenizer, top: int, skip: int = 0) -> None:
        self.names = [
            text or name for text, name in zip(token_texts(tokenizer).texts, tokenizer.vocabulary, strict=True)
        ]
        self.top = top
        self.decode = tokenizer.stream_decoder()
        self.position = -skip
        self.entries: list[tuple[int, str, float, dict[str, float]]] = []
        """The position in the text, the token, its log-probability and its alternatives, not yet taken."""

    def add(self, token: int, logits: Floats) -> None:
        """Add a token, given its logits (vocab,)."""
        logprobs: NDArray[np.float64] = log_softmax(logits.astype(np.float64))
        start = self.position
        self.position += len(self.decode(token))
        if start < 0 and self.position <= 0:
            return  # a part of the prompt
        best = np.argsort(-logprobs, kind="stable")[: self.top].tolist() if self.top else []
        alternatives = {self.names[i]: finite(logprobs[i]) for i in reversed(best)}
        self.entries.append((max(start, 0), self.names[token], finite(logprobs[token]), alternatives))

    def to_dict(self, end: int | None = None, offset: int = 0) -> dict[str, Any]:
        """Return all tokens, or those that begin before a position in the text; ``offset`` is added to positions."""
        entries = [entry for entry in self.entries if end is None or entry[0] < end]
        return {
            "tokens": [name for _, name, _, _ in entries],
            "token_logprobs": [logprob for _, _, logprob, _ in entries],
            "top_logprobs": [alternatives for _, _, _, alternatives in entries] if self.top else None,
            "text_offset": [offset + start for start, _, _, _ in entries],
        }

    def take(self, end: int, offset: int) -> dict[str, Any]:
        """Do the same as ``to_dict``, and forget these tokens."""
        tokens = self.to_dict(end, offset)
        self.entries = self.entries[len(tokens["tokens"]) :]
        return tokens


def finite(logprob: float) -> float:
    """Return a log-probability as a number that JSON has: minus infinity and NaN become the smallest of float32."""
    return max(float(np.finfo(np.float32).min), float(logprob))  # a comparison with NaN is false


def prompt_logprobs(model: Model, ids: list[int], label_offset: int, top: int) -> TokenLog:
    """Return the log-probabilities of the tokens of a prompt, ``ids`` without the start token."""
    log = TokenLog(model.tokenizer, top)
    tokens = np.array([model.tokenizer.bos_id, *ids])
    state: Any = model.initial_state(1)
    size = max(1, BLOCK_VALUES // len(model.tokenizer))
    for begin in range(0, len(ids), size):
        inputs = tokens[begin : min(begin + size, len(ids))]
        logits, state = model.forward(inputs[:, None] + label_offset, state)
        for token, row in zip(ids[begin:], logits[:, 0], strict=False):
            log.add(token, row)
    return log


def join_logprobs(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the log-probabilities of consecutive parts of a text."""
    return {
        name: None if parts[0][name] is None else [item for part in parts for item in part[name]] for name in parts[0]
    }
