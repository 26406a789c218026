"""What was read, in a line: how many documents and characters, from which files, and how much of it is spelled."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from revgen.corpus.readers import Corpus
from revgen.corpus.tokens import Tokens
from revgen.tokenizers import Tokenizer

MAX_SPELLED = 0.01


def describe_corpus(corpus: Corpus, parts: Sequence[Tokens], tokenizer: Tokenizer) -> tuple[str, str | None]:
    """Return a line on what was read, and a note where more than 1 % of the characters have no token of their own.

    ``parts`` are the tokens of the corpus, in one part or split for training and validation.
    """
    counts = np.sum([part.counts(len(tokenizer)) for part in parts], 0)
    characters = int(counts @ tokenizer.char_counts)
    line = f"{_count(int(counts[tokenizer.end]), 'document')}, {_count(characters, 'character')}"
    sources = corpus.sources
    unknown = int(counts @ tokenizer.completes_unknown)
    if unknown <= MAX_SPELLED * characters:
        return line + (f" from {sources}" if sources else ""), None
    how = "spelled out by several tokens each" if tokenizer.is_lossless else "read as <unk>"
    return line + (f" from {sources}" if sources else ""), (
        f"{unknown / characters:.1%} of the characters are not in the vocabulary, and {how}: "
        f"a smaller min_count or a larger vocab_size of the tokenizer, or extend_vocabulary=True for a fitted model, "
        "gives them tokens of their own"
    )


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
