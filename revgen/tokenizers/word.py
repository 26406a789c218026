"""Words, punctuation and white space, each a token, so that joining the tokens gives the text back.

A word that is not in the vocabulary is spelled by the tokens of its characters. The model can so read
and write any word, and a likelihood per character can be held against that of other levels: nothing
is swept under ``<unk>`` but characters that were never seen.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Self

import numpy as np

from revgen.options import at_least
from revgen.registry import register_tokenizer
from revgen.tokenizers.char import frequent_characters
from revgen.tokenizers.tokenizer import (
    SPECIALS,
    Ids,
    Tokenizer,
    from_json,
    shown,
    to_json,
)

# A word with its inner apostrophes, a run of line ends, a run of spaces, or any one character.
split = re.compile(r"\w+(?:['’]\w+)*|\n+| +|.", re.DOTALL).findall


@register_tokenizer("word")
class WordTokenizer(Tokenizer):
    """The most frequent words of the training text, and all of its characters."""

    level = "word"

    def __init__(self, vocabulary: Sequence[str], min_count: int = 1, vocab_size: int | None = None) -> None:
        self.vocabulary = tuple(vocabulary)
        self.min_count = min_count
        self.vocab_size = vocab_size
        self._ids = {token: i for i, token in enumerate(self.vocabulary) if i >= len(SPECIALS)}
        self._shown = shown(self.vocabulary)

    @classmethod
    def train(cls, texts: Iterable[str], *, vocab_size: int | None = 10_000, min_count: int = 3) -> Self:
        """Learn at most ``vocab_size`` tokens (None: no limit) seen at least ``min_count`` times.

        Characters come first, in the order of the code points, then words, the most frequent first.
        """
        at_least("min_count", min_count, 1)
        if vocab_size is not None:
            at_least("vocab_size", vocab_size, len(SPECIALS) + 1)
        return cls((*SPECIALS, *_frequent(texts, min_count, vocab_size)), min_count, vocab_size)

    def missing(self, texts: Iterable[str]) -> list[str]:
        return [c for c in frequent_characters(texts, self.min_count) if c not in self._ids]

    def extend(self, texts: Iterable[str]) -> Self:
        new = [t for t in _frequent(texts, self.min_count, self.vocab_size) if t not in self._ids]
        return type(self)((*self.vocabulary, *new), self.min_count, self.vocab_size) if new else self

    def encode(self, text: str) -> Ids:
        known = self._ids.get
        ids: list[int] = []
        for token in split(text):
            i = known(token)
            if i is None:
                ids.extend([known(character, self.unknown) for character in token])
            else:
                ids.append(i)
        return np.array(ids, self.dtype)

    def decoder(self) -> Callable[[int], str]:
        return self._shown.__getitem__

    def to_bytes(self) -> bytes:
        return to_json(self.level, self.vocabulary, min_count=self.min_count, vocab_size=self.vocab_size)

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        content = from_json(cls.level, data)
        return cls(content["tokens"], content.get("min_count") or 1, content.get("vocab_size"))


def _frequent(texts: Iterable[str], min_count: int, vocab_size: int | None) -> list[str]:
    """Characters seen at least ``min_count`` times, then words, as many as ``vocab_size`` leaves room for."""
    counts: Counter[str] = Counter()

    def counted() -> Iterator[str]:
        for text in texts:
            counts.update(split(text))
            yield text

    room = None if vocab_size is None else vocab_size - len(SPECIALS)
    characters = frequent_characters(counted(), min_count, room)
    words = [(-count, word) for word, count in counts.items() if count >= min_count and len(word) > 1]
    return (characters + [word for _, word in sorted(words)])[:room]
