"""Characters: one token for each Unicode code point, by NumPy look-up tables."""

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

MIN_CODE_POINTS = HEX_BASE ** np.arange(1, 6)  # the first code points of 2, 3, … digits


@register_tokenizer("char")
class CharTokenizer(HexFallbackTokenizer):
    """One token for each frequent character (Unicode code point), in code point order; digits spell the rest."""

    level = "char"

    def __init__(self, vocabulary: Sequence[str], min_count: int = 1, vocab_size: int | None = None) -> None:
        super().__init__(vocabulary, min_count)
        points = np.array([ord(token) for token in self.token_ids], np.int64)
        # One row more than the highest known character: whatever is above is clipped to it, unknown.
        self._ids = np.full(points.max(initial=0) + 2, self.unk_id, self.dtype)
        self._ids[points] = list(self.token_ids.values())

    @classmethod
    def train(cls, texts: Iterable[str], *, min_count: int = 3) -> Self:
        """Learn every character that is seen at least ``min_count`` times."""
        check_at_least("min_count", min_count, 1)
        return cls((*RESERVED_TOKENS, *frequent_characters(texts, min_count)), min_count)

    def extend(self, texts: Iterable[str]) -> Self:
        return self.with_tokens(frequent_characters(texts, self.min_count))

    def encode(self, text: str) -> Ids:
        points = code_points(text)
        ids: Ids = self._ids.take(points, mode="clip")
        places = np.flatnonzero(ids == self.unk_id)
        if not len(places) or not self.is_lossless:
            return ids
        points = points[places]
        sizes = 1 + MIN_CODE_POINTS.searchsorted(points, "right")  # digits of each unknown character
        counts = np.ones(len(ids), np.int64)
        counts[places] = sizes
        ids, ends = ids.repeat(counts), counts.cumsum()[places]
        for power in range(sizes.max()):
            some = sizes > power
            digits = points[some] >> (4 * power) & (HEX_BASE - 1)
            ids[ends[some] - 1 - power] = self.digit_ids[0] + digits + (0 if power else HEX_BASE)
        return ids

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        try:
            return super().from_bytes(data)
        except TypeError:
            raise CheckpointError(f"{cls.file} is damaged: it holds a token that is not one character") from None
