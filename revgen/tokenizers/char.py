"""The character tokenizer: one token per Unicode code point, found in a NumPy table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Self

import numpy as np

from revgen.errors import CheckpointError
from revgen.options import check_at_least
from revgen.registry import register_tokenizer
from revgen.tokenizers.hex_fallback import (
    HEX_BASE,
    RESERVED_TOKENS,
    HexFallbackTokenizer,
    code_points,
    frequent_characters,
)
from revgen.tokenizers.tokenizer import Ids

MIN_CODE_POINTS = HEX_BASE ** np.arange(1, 6)  # the smallest code points of 2, 3, … hexadecimal digits


@register_tokenizer("char")
class CharTokenizer(HexFallbackTokenizer):
    """One token per frequent character, in code point order; all others are spelled in hexadecimal digits."""

    level = "char"

    def __init__(self, vocabulary: Sequence[str], min_count: int = 1, vocab_size: int | None = None) -> None:
        super().__init__(vocabulary, min_count)
        points = np.array([ord(token) for token in self.token_ids], np.int64)
        # The last entry is for all code points above the highest known one, because ``encode`` clips code points.
        self._id_table = np.full(points.max(initial=0) + 2, self.unk_id, self.dtype)
        self._id_table[points] = list(self.token_ids.values())

    @classmethod
    def train(cls, texts: Iterable[str], *, min_count: int = 3) -> Self:
        """Learn every character that occurs at least ``min_count`` times."""
        check_at_least("min_count", min_count, 1)
        return cls((*RESERVED_TOKENS, *frequent_characters(texts, min_count)), min_count)

    def extend(self, texts: Iterable[str]) -> Self:
        return self.with_tokens(frequent_characters(texts, self.min_count))

    def encode(self, text: str) -> Ids:
        points = code_points(text)
        ids: Ids = self._id_table.take(points, mode="clip")
        unknown = np.flatnonzero(ids == self.unk_id)
        if not len(unknown) or not self.is_lossless:
            return ids
        points = points[unknown]
        digit_counts = 1 + MIN_CODE_POINTS.searchsorted(points, "right")  # (unknown,)
        repeats = np.ones(len(ids), np.int64)
        repeats[unknown] = digit_counts
        ids, ends = ids.repeat(repeats), repeats.cumsum()[unknown]
        for power in range(digit_counts.max()):  # from the last digit of each character to the first
            has_digit = digit_counts > power
            digits = points[has_digit] >> (4 * power) & (HEX_BASE - 1)
            ids[ends[has_digit] - 1 - power] = self.digit_ids[0] + digits + (0 if power else HEX_BASE)
        return ids

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        try:
            return super().from_bytes(data)
        except TypeError:
            raise CheckpointError(f"{cls.file} is damaged: a token has more than one character") from None
