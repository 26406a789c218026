"""What was read: how many documents and characters, from which files, and how much of it is spelled."""

from __future__ import annotations

from dataclasses import dataclass

from revgen.corpus.readers import Corpus
from revgen.corpus.tokens import Tokens
from revgen.formatting import pluralize
from revgen.tokenizers import Tokenizer

MAX_SPELLED = 0.01


@dataclass(frozen=True)
class CorpusSummary:
    """How much text there is. It prints as one line."""

    documents: int
    characters: int
    unknown: int
    """How many of the characters have no token of their own."""
    is_lossless: bool
    sources: str

    @property
    def spelled(self) -> float:
        """The fraction of the characters that have no token of their own."""
        return self.unknown / self.characters

    def __str__(self) -> str:
        line = f"{pluralize(self.documents, 'document')}, {pluralize(self.characters, 'character')}"
        return f"{line} from {self.sources}" if self.sources else line

    @property
    def note(self) -> str | None:
        """What to do where more than 1 % of the characters have no token of their own."""
        if self.spelled <= MAX_SPELLED:
            return None
        how = "spelled out by several tokens each" if self.is_lossless else "read as <unk>"
        return (
            f"{self.spelled:.1%} of the characters are not in the vocabulary, and {how}: a smaller min_count or a "
            "larger vocab_size of the tokenizer, or extending the vocabulary of a fitted model, gives them tokens of "
            "their own"
        )


def summarize(corpus: Corpus, tokens: Tokens, held_out: Tokens | None, tokenizer: Tokenizer) -> CorpusSummary:
    """Count what was read; ``tokens`` are those of the corpus but what was ``held_out`` of it for validation."""
    counts = tokens.counts(len(tokenizer))
    if held_out is not None:
        counts += held_out.counts(len(tokenizer))
    return CorpusSummary(
        documents=int(counts[tokenizer.eos_id]),
        characters=int(counts @ tokenizer.char_counts),
        unknown=int(counts @ tokenizer.completes_unknown_character),
        is_lossless=tokenizer.is_lossless,
        sources=corpus.sources,
    )
