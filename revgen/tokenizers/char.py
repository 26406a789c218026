"""Characters: one token for each Unicode code point, by NumPy look-up tables."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Self

import numpy as np
from numpy.typing import NDArray

from revgen.errors import CheckpointError
from revgen.options import at_least
from revgen.registry import register_tokenizer
from revgen.tokenizers.tokenizer import (
    SPECIALS,
    Ids,
    Tokenizer,
    from_json,
    shown,
    to_json,
)

BLOCK = 1 << 20


@register_tokenizer("char")
class CharTokenizer(Tokenizer):
    """One token a character (Unicode code point), in the order of the code points."""

    level = "char"

    def __init__(self, vocabulary: Sequence[str], min_count: int = 1) -> None:
        self.vocabulary = tuple(vocabulary)
        self.min_count = min_count
        points = np.array([ord(token) for token in self.vocabulary[len(SPECIALS) :]], np.int64)
        # One row more than the highest known character: whatever lies above is clipped to it, unknown.
        self._ids = np.full(points.max(initial=0) + 2, self.unknown, self.dtype)
        self._ids[points] = np.arange(len(SPECIALS), len(self))
        self._shown = shown(self.vocabulary)

    @classmethod
    def train(cls, texts: Iterable[str], *, min_count: int = 3) -> Self:
        """Every character that is seen at least ``min_count`` times; rarer ones teach what unknown is."""
        at_least("min_count", min_count, 1)
        return cls((*SPECIALS, *frequent_characters(texts, min_count)), min_count)

    def missing(self, texts: Iterable[str]) -> list[str]:
        known = set(self.vocabulary)
        return [c for c in frequent_characters(texts, self.min_count) if c not in known]

    def extend(self, texts: Iterable[str]) -> Self:
        new = self.missing(texts)
        return type(self)((*self.vocabulary, *new), self.min_count) if new else self

    def encode(self, text: str) -> Ids:
        return self._ids.take(code_points(text), mode="clip")

    def decoder(self) -> Callable[[int], str]:
        return self._shown.__getitem__

    def to_bytes(self) -> bytes:
        return to_json(self.level, self.vocabulary, min_count=self.min_count)

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        content = from_json(cls.level, data)
        if any(len(token) != 1 for token in content["tokens"][len(SPECIALS) :]):
            raise CheckpointError(f"{cls.file} is damaged: it holds a token that is not one character")
        return cls(content["tokens"], content.get("min_count") or 1)


def code_points(text: str) -> NDArray[np.uint32]:
    """The code points of a text, (characters,)."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)


def frequent_characters(texts: Iterable[str], min_count: int, most: int | None = None) -> list[str]:
    """The characters seen at least ``min_count`` times, the ``most`` frequent ones, in the order of the code points."""
    counts = np.zeros(1 << 8, np.int64)
    for block in joined(texts, BLOCK):
        seen = np.bincount(code_points(block), minlength=len(counts))
        seen[: len(counts)] += counts
        counts = seen
    points = np.flatnonzero(counts >= min_count)
    return [chr(point) for point in np.sort(points[np.argsort(-counts[points], kind="stable")[:most]])]


def joined(texts: Iterable[str], size: int) -> Iterator[str]:
    """The texts run together into blocks of about ``size`` characters, so that NumPy has enough to do."""
    waiting: list[str] = []
    length = 0
    for text in texts:
        waiting.append(text)
        length += len(text)
        if length >= size:
            yield "".join(waiting)
            waiting, length = [], 0
    if length:
        yield "".join(waiting)
