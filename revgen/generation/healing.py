"""Token healing: the last tokens of a prompt are removed and sampled again, together with the text that follows.

A prompt may end in the middle of a token. A subword model has learned the token ``▁song``, not ``▁`` followed by
``song``, so after ``"the "`` it expects no word. Token healing removes the end of the prompt that may begin a longer
token, and the first sampled tokens must spell it: after ``"the"``, these are ``▁song``, ``▁band`` and all other tokens
that begin with a space. (The term comes from the library ``guidance``.)
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from revgen.tokenizers import Tokenizer


class TokenTexts:
    """The texts of a tokenizer's tokens.

    Special tokens and parts of characters have an empty text.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.texts = [
            "" if token in tokenizer.partial_char_ids else spelled.decode("utf-8", "surrogatepass")
            for token, spelled in enumerate(tokenizer.token_bytes)
        ]
        self.max_length = max(map(len, self.texts))
        self.sorted_texts = sorted(set(self.texts))
        self.allowed = lru_cache(maxsize=64)(self._allowed)

    def trim(self, ids: Sequence[int]) -> tuple[list[int], str]:
        """Return the ids of a prompt without the longest end that begins a longer token, and the text of that end."""
        num_removed, removed_text, text = 0, "", ""
        for i, token in enumerate(reversed(ids), 1):
            text = self.texts[token] + text
            if not self.texts[token] or len(text) >= self.max_length:
                break
            if self.is_prefix(text):
                num_removed, removed_text = i, text
        return list(ids[: len(ids) - num_removed]), removed_text

    def is_prefix(self, text: str) -> bool:
        """Return whether a longer token begins with a text."""
        following = bisect_right(self.sorted_texts, text)
        return following < len(self.sorted_texts) and self.sorted_texts[following].startswith(text)

    def _allowed(self, pending: str) -> NDArray[np.bool_]:
        """Return a mask (vocab,) of the tokens that begin with ``pending`` or are a prefix of it."""
        return np.array([bool(t) and (t.startswith(pending) or pending.startswith(t)) for t in self.texts])

    def longest_prefix(self, pending: str) -> int:
        """Return the id of the longest token that is a prefix of ``pending``."""
        prefixes = (token for token, text in enumerate(self.texts) if text and pending.startswith(text))
        return max(prefixes, key=lambda token: len(self.texts[token]))


token_texts = lru_cache(maxsize=8)(TokenTexts)
