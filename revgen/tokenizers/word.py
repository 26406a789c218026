"""Words, punctuation and white space, each a token, so that joining the tokens gives the text back.

A word that is not in the vocabulary is spelled by the tokens of its characters, and a character that has no token by
digits. The model can read and write any text, and its likelihood per character can be compared with that of other
levels.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Self

import numpy as np

from revgen.options import check_at_least
from revgen.registry import register_tokenizer
from revgen.tokenizers.hex_fallback import RESERVED_TOKENS, HexFallbackTokenizer, frequent_characters
from revgen.tokenizers.tokenizer import Ids

# A word with its inner apostrophes, a run of line ends, a run of spaces, or any one character.
split = re.compile(r"\w+(?:['’]\w+)*|\n+| +|.", re.DOTALL).findall


@register_tokenizer("word")
class WordTokenizer(HexFallbackTokenizer):
    """The most frequent words of the training text, and all of its frequent characters."""

    level = "word"
    saved_options = ("min_count", "vocab_size")

    @classmethod
    def train(cls, texts: Iterable[str], *, vocab_size: int | None = 10_000, min_count: int = 3) -> Self:
        """Learn at most ``vocab_size`` tokens (None: no limit) seen at least ``min_count`` times.

        Characters come first, in code point order, then words, the most frequent first. The special tokens and the
        digits are part of ``vocab_size``.
        """
        check_at_least("min_count", min_count, 1)
        if vocab_size is not None:
            check_at_least("vocab_size", vocab_size, len(RESERVED_TOKENS) + 1)
        return cls((*RESERVED_TOKENS, *_frequent(texts, min_count, vocab_size)), min_count, vocab_size)

    def extend(self, texts: Iterable[str]) -> Self:
        return self.with_tokens(_frequent(texts, self.min_count, self.vocab_size))

    def encode(self, text: str) -> Ids:
        known = self.token_ids.get
        ids: list[int] = []
        for token in split(text):
            i = known(token)
            if i is not None:
                ids.append(i)
                continue
            for character in token:
                i = known(character)
                ids.extend(self.spell(character) if i is None else (i,))
        return np.array(ids, self.dtype)


def _frequent(texts: Iterable[str], min_count: int, vocab_size: int | None) -> list[str]:
    """Characters seen at least ``min_count`` times, then words, as many as ``vocab_size`` leaves room for."""
    counts: Counter[str] = Counter()

    def counted() -> Iterator[str]:
        for text in texts:
            counts.update(split(text))
            yield text

    room = None if vocab_size is None else max(0, vocab_size - len(RESERVED_TOKENS))
    characters = frequent_characters(counted(), min_count, room)
    words = [(-count, word) for word, count in counts.items() if count >= min_count and len(word) > 1]
    return (characters + [word for _, word in sorted(words)])[:room]
