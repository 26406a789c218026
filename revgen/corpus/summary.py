"""What was read, in a line: how many documents and characters, from which files, and how much of it is spelled."""

from __future__ import annotations

from revgen.corpus.readers import Corpus
from revgen.corpus.tokens import Tokens
from revgen.tokenizers import Tokenizer

MAX_SPELLED = 0.01


def describe_corpus(
    corpus: Corpus, tokens: Tokens, held_out: Tokens | None, tokenizer: Tokenizer
) -> tuple[str, str | None]:
    """Return a line on what was read, and a note where more than 1 % of the characters have no token of their own.

    ``tokens`` are those of the corpus but what was ``held_out`` of it for validation.
    """
    counts = tokens.counts(len(tokenizer))
    if held_out is not None:
        counts += held_out.counts(len(tokenizer))
    characters = int(counts @ tokenizer.char_counts)
    line = f"{_count(int(counts[tokenizer.end]), 'document')}, {_count(characters, 'character')}"
    line += f" from {corpus.sources}" if corpus.sources else ""
    unknown = int(counts @ tokenizer.completes_unknown)
    if unknown <= MAX_SPELLED * characters:
        return line, None
    how = "spelled out by several tokens each" if tokenizer.is_lossless else "read as <unk>"
    return line, (
        f"{unknown / characters:.1%} of the characters are not in the vocabulary, and {how}: "
        f"a smaller min_count or a larger vocab_size of the tokenizer, or extend_vocabulary=True for a fitted model, "
        "gives them tokens of their own"
    )


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
