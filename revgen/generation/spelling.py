"""``SpellingGuide``: characters outside the vocabulary are spelled in digits, and each spelling is completed."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from revgen.tokenizers import Tokenizer
from revgen.tokenizers.hex_fallback import HEX_BASE
from revgen.tokenizers.tokenizer import UNICODE_SIZE

NO_DIGITS = -1
"""The state of a text with a complete last character. Otherwise the state is the number that the last digits form."""


class SpellingGuide:
    """Decides which tokens may follow the digits at the end of a text, so that they form a Unicode character."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.digits = tokenizer.digit_ids
        self.vocab_size = len(tokenizer)
        self.allowed_tokens = lru_cache(maxsize=512)(self._allowed_tokens)

    def next_state(self, state: int, token: int) -> int:
        """Return the state after a token."""
        if token not in self.digits:
            return NO_DIGITS
        digit = token - self.digits[0]
        return NO_DIGITS if digit >= HEX_BASE else max(state, 0) * HEX_BASE + digit

    def _allowed_tokens(self, state: int, remaining: int) -> NDArray[np.bool_]:
        """Return which tokens may follow if at most ``remaining`` do, (vocab,)."""
        numbers = max(state, 0) * HEX_BASE + np.arange(HEX_BASE)
        allowed = np.full(self.vocab_size, state == NO_DIGITS)
        surrogates = (numbers >= 0xD80) & (numbers <= 0xDFF)  # all digits but the last
        allowed[self.digits[:HEX_BASE]] = (numbers * HEX_BASE < UNICODE_SIZE) & ~surrogates & (remaining > 1)
        allowed[self.digits[HEX_BASE:]] = numbers < UNICODE_SIZE
        return allowed


spelling_guide = lru_cache(maxsize=8)(SpellingGuide)
