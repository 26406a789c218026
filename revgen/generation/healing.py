"""Token healing: the last tokens of a prompt are given back, and drawn again with what follows them.

A prompt may end within what the model knows as one token: a subword model learnt ``▁song``, not ``▁`` and then
``song``, and would expect no word after ``"the "``. So the end of the prompt that begins a longer token is taken off,
and the first tokens that are drawn must spell it: after ``"the"`` these are ``▁song``, ``▁band`` and all others that
begin with the space. (The guidance library gave this its name.)
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from revgen.tokenizers import Tokenizer


class TokenTexts:
    """The tokens of a tokenizer as texts, and what they begin with.

    Special tokens and the parts of characters are empty.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.texts = [
            "" if token in tokenizer.partial_char_ids else spelled.decode("utf-8", "surrogatepass")
            for token, spelled in enumerate(tokenizer.token_bytes)
        ]
        self.longest = max(map(len, self.texts))
        self.prefixes = {text[:end] for text in self.texts for end in range(1, len(text))}
        self.allowed = lru_cache(maxsize=64)(self._allowed)

    def give_back(self, ids: Sequence[int]) -> tuple[list[int], str]:
        """Return the ids of a prompt without the end that begins a longer token, and the text of that end."""
        count, end, text = 0, "", ""
        for i, token in enumerate(reversed(ids), 1):
            text = self.texts[token] + text
            if not self.texts[token] or len(text) >= self.longest:
                break
            if text in self.prefixes:
                count, end = i, text
        return list(ids[: len(ids) - count]), end

    def _allowed(self, pending: str) -> NDArray[np.bool_]:
        """Return which tokens begin with ``pending``, or are its beginning, (vocab,)."""
        return np.array([bool(t) and (t.startswith(pending) or pending.startswith(t)) for t in self.texts])

    def longest_beginning(self, pending: str) -> int:
        """Return the longest token that ``pending`` begins with."""
        fits = (token for token, text in enumerate(self.texts) if text and pending.startswith(text))
        return max(fits, key=lambda token: len(self.texts[token]))


token_texts = lru_cache(maxsize=8)(TokenTexts)
