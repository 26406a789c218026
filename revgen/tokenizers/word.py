"""The word tokenizer: words, punctuation and white space are tokens, and joining the tokens restores the text.

A word outside the vocabulary is spelled in characters, and a character without a token in hexadecimal digits. So a
model can read and generate any text, and likelihoods per character are comparable between levels.
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

# A word with its inner apostrophes, a run of line ends, a run of spaces, or any other single character.
split_words = re.compile(r"\w+(?:['’]\w+)*|\n+| +|.", re.DOTALL).findall


@register_tokenizer("word")
class WordTokenizer(HexFallbackTokenizer):
    """The most frequent words of the training text, and all of its frequent characters."""

    level = "word"
    saved_options = ("min_count", "vocab_size")

    @classmethod
    def train(cls, texts: Iterable[str], *, vocab_size: int | None = 10_000, min_count: int = 3) -> Self:
        """Learn at most ``vocab_size`` tokens (None: no limit) that occur at least ``min_count`` times.

        Characters come first, in code point order, then words, the most frequent first. ``vocab_size`` includes the
        special tokens and the digits.
        """
        check_at_least("min_count", min_count, 1)
        if vocab_size is not None:
            check_at_least("vocab_size", vocab_size, len(RESERVED_TOKENS) + 1)
        return cls((*RESERVED_TOKENS, *_frequent_tokens(texts, min_count, vocab_size)), min_count, vocab_size)

    def extend(self, texts: Iterable[str]) -> Self:
        return self.with_tokens(_frequent_tokens(texts, self.min_count, self.vocab_size))

    def encode(self, text: str) -> Ids:
        id_of = self.token_ids.get
        ids: list[int] = []
        for word in split_words(text):
            i = id_of(word)
            if i is not None:
                ids.append(i)
                continue
            for character in word:
                i = id_of(character)
                ids.extend(self.spell(character) if i is None else (i,))
        return np.array(ids, self.dtype)


def _frequent_tokens(texts: Iterable[str], min_count: int, vocab_size: int | None) -> list[str]:
    """Return the frequent characters, then the frequent words; with the reserved tokens, at most ``vocab_size``."""
    counts: Counter[str] = Counter()

    def count_words() -> Iterator[str]:
        for text in texts:
            counts.update(split_words(text))
            yield text

    limit = None if vocab_size is None else max(0, vocab_size - len(RESERVED_TOKENS))
    characters = frequent_characters(count_words(), min_count, limit)
    words = [(-count, word) for word, count in counts.items() if count >= min_count and len(word) > 1]
    return (characters + [word for _, word in sorted(words)])[:limit]
