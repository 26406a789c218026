"""The base class of ``char`` and ``word``: a list of tokens, and hexadecimal digits for all other characters.

A character without a token is encoded as the hexadecimal digits of its code point. The last digit is marked:
中, U+4E2D, is ``<x4> <xE> <x2> <xD;>``. Thirty-two tokens cover all of Unicode this way, with one to six tokens per
character. No text is lost, and a model assigns a probability to each character, not only to "unknown".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from revgen.tokenizers.tokenizer import (
    REPLACEMENT_CHARACTER,
    SPECIAL_TOKENS,
    UNICODE_SIZE,
    Tokenizer,
    vocabulary_from_json,
    vocabulary_to_json,
)

HEX_BASE = 16
DIGIT_TOKENS = tuple(f"<x{digit:X}{mark}>" for mark in ("", ";") for digit in range(HEX_BASE))
"""The digits 0 to F, then the digits 0 to F marked as the last digit of a character."""

RESERVED_TOKENS = (*SPECIAL_TOKENS, *DIGIT_TOKENS)
"""The first tokens of a new vocabulary."""

MIN_SPELLED_FRACTION = 0.05
"""A model generates spelled characters only if they make up more than this fraction of its training text."""

BLOCK_SIZE = 1 << 20  # the number of characters that are counted at once


class HexFallbackTokenizer(Tokenizer):
    """A tokenizer with a list of tokens, among them the hexadecimal digits.

    Vocabularies saved by early versions have no digits: they encode unknown characters as ``<unk>``.
    """

    saved_options: ClassVar[tuple[str, ...]] = ("min_count",)

    def __init__(self, vocabulary: Sequence[str], min_count: int = 1, vocab_size: int | None = None) -> None:
        self.vocabulary = tuple(vocabulary)
        self.min_count = min_count
        self.vocab_size = vocab_size
        start = self.vocabulary.index(DIGIT_TOKENS[0]) if DIGIT_TOKENS[0] in self.vocabulary else len(self)
        self.is_lossless = self.vocabulary[start : start + len(DIGIT_TOKENS)] == DIGIT_TOKENS
        self.digit_ids = range(start, start + len(DIGIT_TOKENS)) if self.is_lossless else range(0)
        self.token_ids = {
            token: i for i, token in enumerate(self.vocabulary) if i >= len(SPECIAL_TOKENS) and i not in self.digit_ids
        }
        self._texts = ("", "", REPLACEMENT_CHARACTER, *self.vocabulary[len(SPECIAL_TOKENS) :])

    def spell(self, character: str) -> tuple[int, ...]:
        if not self.is_lossless:
            return (self.unk_id,)
        digits = [int(digit, HEX_BASE) for digit in f"{ord(character):X}"]
        digits[-1] += HEX_BASE
        return tuple(self.digit_ids[digit] for digit in digits)

    def spelled_character(self, ids: Sequence[int]) -> str | None:
        if ids[-1] < self.digit_ids[HEX_BASE]:
            return None
        point = int("".join(f"{(i - self.digit_ids[0]) % HEX_BASE:X}" for i in ids), HEX_BASE)
        return chr(point) if point < UNICODE_SIZE else REPLACEMENT_CHARACTER

    def stream_decoder(self) -> Callable[[int], str]:
        if not self.is_lossless:
            return self._texts.__getitem__
        pending: list[int] = []

        def decode(i: int) -> str:
            if i not in self.digit_ids:
                incomplete = REPLACEMENT_CHARACTER if pending else ""
                pending.clear()
                return incomplete + self._texts[i]
            pending.append(i)
            character = self.spelled_character(pending)
            if character is not None:
                pending.clear()
            return character or ""

        return decode

    def unknown_characters(self, texts: Iterable[str]) -> list[str]:
        return [c for c in frequent_characters(texts, self.min_count) if c not in self.token_ids]

    def with_tokens(self, tokens: Sequence[str]) -> Self:
        """Return this tokenizer with the digits and ``tokens`` appended, except for tokens that it already has."""
        new = [*(() if self.is_lossless else DIGIT_TOKENS), *(token for token in tokens if token not in self.token_ids)]
        return type(self)((*self.vocabulary, *new), self.min_count, self.vocab_size) if new else self

    def to_bytes(self) -> bytes:
        return vocabulary_to_json(
            self.level, self.vocabulary, **{name: getattr(self, name) for name in self.saved_options}
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        content = vocabulary_from_json(cls.level, data)
        return cls(content["tokens"], content.get("min_count") or 1, content.get("vocab_size"))

    @cached_property
    def token_bytes(self) -> tuple[bytes, ...]:
        known = [token if token in self.token_ids else "" for token in self.vocabulary]
        return tuple(token.encode("utf-8", "surrogatepass") for token in known)

    @cached_property
    def partial_char_ids(self) -> frozenset[int]:
        return frozenset(self.digit_ids)

    @cached_property
    def completes_unknown_character(self) -> NDArray[np.bool_]:
        completes = super().completes_unknown_character
        completes[self.digit_ids[HEX_BASE:]] = True
        return completes


def code_points(text: str) -> NDArray[np.uint32]:
    """Return the code points of a text, (chars,)."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)


def frequent_characters(texts: Iterable[str], min_count: int, limit: int | None = None) -> list[str]:
    """Return the characters that occur at least ``min_count`` times, in code point order.

    If there are more than ``limit``, return the most frequent ones.
    """
    counts = np.zeros(1 << 8, np.int64)
    for block in join_blocks(texts, BLOCK_SIZE):
        block_counts = np.bincount(code_points(block), minlength=len(counts))
        block_counts[: len(counts)] += counts
        counts = block_counts
    points = np.flatnonzero(counts >= min_count)
    return [chr(point) for point in np.sort(points[np.argsort(-counts[points], kind="stable")[:limit]])]


def join_blocks(texts: Iterable[str], size: int) -> Iterator[str]:
    """Yield the texts joined into blocks of at least ``size`` characters, because NumPy is slow on short arrays."""
    pending: list[str] = []
    length = 0
    for text in texts:
        pending.append(text)
        length += len(text)
        if length >= size:
            yield "".join(pending)
            pending, length = [], 0
    if length:
        yield "".join(pending)
