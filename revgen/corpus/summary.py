"""A summary of the text that was read: documents, characters, files, and characters outside the vocabulary."""

from __future__ import annotations

from dataclasses import dataclass

from revgen.corpus.readers import Corpus
from revgen.corpus.tokens import Tokens
from revgen.display.formatting import pluralize
from revgen.tokenizers import Tokenizer

MAX_UNKNOWN_FRACTION = 0.01
"""With a larger fraction of characters outside the vocabulary, ``vocabulary_hint`` says how to extend it."""

MIN_LINES, MAX_LINE_LENGTH, MAX_TOKENS = 50, 25, 1 << 16
"""In a list of names, the first ``MAX_TOKENS`` have at least ``MIN_LINES`` lines, of at most this average length."""
LINES_HINT = (
    "all lines are one document; if each line is a text of its own, such as a name, read the file with "
    'documents="line" (on the command line, --documents line)'
)


@dataclass(frozen=True)
class CorpusSummary:
    """The size of a corpus. It prints as one line."""

    documents: int
    characters: int
    unknown_characters: int
    """The number of characters without a token of their own."""
    is_lossless: bool
    """Whether the tokenizer spells such characters out, instead of reading them as ``<unk>``."""
    sources: str
    has_short_lines: bool = False
    """Whether the corpus is one document of short lines."""

    @property
    def unknown_fraction(self) -> float:
        """The fraction of characters without a token of their own."""
        return self.unknown_characters / self.characters

    def __str__(self) -> str:
        line = f"{pluralize(self.documents, 'document')}, {pluralize(self.characters, 'character')}"
        return f"{line} from {self.sources}" if self.sources else line

    @property
    def hints(self) -> list[str]:
        """Advice on how to read the corpus, and on the vocabulary."""
        return [hint for hint in (self.lines_hint, self.vocabulary_hint) if hint is not None]

    @property
    def lines_hint(self) -> str | None:
        """Advice on the documents if the corpus is one document of short lines, such as a file of names, else None."""
        return LINES_HINT if self.has_short_lines else None

    @property
    def vocabulary_hint(self) -> str | None:
        """Advice on the vocabulary if more than 1 % of the characters are not in it, else None."""
        if self.unknown_fraction <= MAX_UNKNOWN_FRACTION:
            return None
        how = "spelled out by several tokens each" if self.is_lossless else "read as <unk>"
        return (
            f"{self.unknown_fraction:.1%} of the characters are not in the vocabulary, and {how}; to give them tokens "
            "of their own, lower min_count, raise vocab_size, or extend the vocabulary of a fitted model"
        )


def summarize(corpus: Corpus, tokens: Tokens, held_out: Tokens | None, tokenizer: Tokenizer) -> CorpusSummary:
    """Return the summary of a corpus, given its tokens and, separately, the tokens held out for validation."""
    counts = tokens.counts(len(tokenizer))
    if held_out is not None:
        counts += held_out.counts(len(tokenizer))
    num_documents = int(counts[tokenizer.eos_id])
    return CorpusSummary(
        documents=num_documents,
        characters=int(counts @ tokenizer.char_counts),
        unknown_characters=int(counts @ tokenizer.completes_unknown_character),
        is_lossless=tokenizer.is_lossless,
        sources=corpus.sources,
        has_short_lines=num_documents == 1 and has_short_lines(tokens, tokenizer),
    )


def has_short_lines(tokens: Tokens, tokenizer: Tokenizer) -> bool:
    """Return whether the first document begins with many short lines."""
    ids = next(iter(tokens.documents()))[:MAX_TOKENS] % len(tokenizer)
    text = tokenizer.decode(ids.tolist())
    lines = text.count("\n")
    return lines >= MIN_LINES and len(text) <= MAX_LINE_LENGTH * lines
