"""The interface of a tokenizer, and what the three levels share."""

from __future__ import annotations

import hashlib
import json
import math
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from revgen.errors import CheckpointError
from revgen.options import check_at_least, to_builtins

Ids = NDArray[np.unsignedinteger[Any]]

SPECIAL_TOKENS = ("<s>", "</s>", "<unk>")
"""The start of a document, its end, and a character that a tokenizer cannot write: ids 0, 1, 2 at every level."""

REPLACEMENT_CHARACTER = "\N{REPLACEMENT CHARACTER}"
UNICODE_SIZE = sys.maxunicode + 1


class Tokenizer(ABC):
    """Text as ids of a vocabulary; immutable once trained.

    Lossless: ``decode(encode(text)) == text`` for any text. A character outside the vocabulary is spelled by several
    tokens, its ``parts``. The special tokens are ids that no text can spell: a text ``"<s>"`` is three characters like
    any others.
    """

    level: ClassVar[str]
    file: ClassVar[str] = "vocabulary.json"
    bos_id: ClassVar[int] = 0
    eos_id: ClassVar[int] = 1
    unk_id: ClassVar[int] = 2

    is_lossless: bool = True
    """Whether it spells every text. Vocabularies saved by early versions do not: they read a character outside of them
    as ``<unk>``, which ``decode`` shows as U+FFFD."""

    digit_ids: range = range(0)
    """The ids of the digits that spell a character outside the vocabulary, where the level has such tokens."""

    vocabulary: tuple[str, ...]
    """The tokens as text, by id; the first three are ``SPECIALS``."""

    @classmethod
    @abstractmethod
    def train(cls, texts: Iterable[str]) -> Self:
        """Learn a vocabulary from texts, read once. Subclasses add options."""

    @abstractmethod
    def encode(self, text: str) -> Ids:
        """The ids of a text, (time,), without the document's start and end. Never fails.

        For large corpora it is called in forked processes: it must not rely on threads of its own.
        """

    @abstractmethod
    def stream_decoder(self) -> Callable[[int], str]:
        """A function from one id after the other to the text that it completes, for streaming."""

    @abstractmethod
    def to_bytes(self) -> bytes:
        """The content of the tokenizer's file in a model directory."""

    @classmethod
    @abstractmethod
    def from_bytes(cls, data: bytes) -> Self:
        """The tokenizer of such a file. Raises CheckpointError where it is damaged."""

    def unknown_characters(self, texts: Iterable[str]) -> list[str]:
        """Return the characters that training on these texts would learn, and that have no token here."""
        return []

    def extend(self, texts: Iterable[str]) -> Self:
        """Return this tokenizer with the tokens after its last one that training on these texts would add."""
        return self

    def spell(self, character: str) -> tuple[int, ...]:
        """Return the ids that spell a character outside the vocabulary, at least one."""
        return (self.unk_id,)

    def spelled_character(self, ids: Sequence[int]) -> str | None:
        """Return the character that ``parts`` spell, (parts,) of at least one; None before it is complete."""
        return None

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of ids, (time,); the start and the end of a document are empty."""
        decode = self.stream_decoder()
        return "".join([decode(int(i)) for i in [*ids, self.eos_id]])

    def __len__(self) -> int:
        return len(self.vocabulary)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Tokenizer) and self.fingerprint == other.fingerprint

    def __hash__(self) -> int:
        return hash(self.fingerprint)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {len(self):,} tokens>"

    def __getstate__(self) -> dict[str, Any]:
        """Return a copy of the attributes, as another thread may compute ``spelling`` during a pickle."""
        return self.__dict__.copy()

    @cached_property
    def token_bytes(self) -> tuple[bytes, ...]:
        """The UTF-8 that each token is in a text, by id; empty for special tokens and for ``parts`` that are no
        bytes. To be overridden where a token may be a part of a character."""
        texts = [self.decode([i]) if i > self.unk_id else "" for i in range(len(self))]
        return tuple(text.encode("utf-8", "surrogatepass") for text in texts)

    @cached_property
    def partial_char_ids(self) -> frozenset[int]:
        """The tokens of which several spell one character."""
        return frozenset()

    @cached_property
    def completes_unknown_character(self) -> NDArray[np.bool_]:
        """Whether a token is, or is the one that counts of those that spell, a character outside the vocabulary,
        (vocab,)."""
        completes = np.zeros(len(self), bool)
        completes[self.unk_id] = True
        return completes

    @cached_property
    def char_counts(self) -> NDArray[np.int64]:
        """How many characters each token is, (vocab,); of the parts of a character, one counts."""
        counts = [sum(byte & 0xC0 != 0x80 for byte in spelled) for spelled in self.token_bytes]
        return np.maximum(counts, self.completes_unknown_character)

    @cached_property
    def unknown_nats(self) -> float:
        """The cost of which character an ``<unk>`` was, by a uniform code over those that have no token, in nats."""
        return math.log(UNICODE_SIZE - sum(len(token) == 1 for token in self.vocabulary))

    @property
    def dtype(self) -> type[np.unsignedinteger[Any]]:
        """The smallest type that holds every id."""
        return np.uint16 if len(self) <= 1 << 16 else np.uint32

    @cached_property
    def fingerprint(self) -> str:
        """The SHA-256 of the tokenizer's file: equal for tokenizers that give the same ids."""
        return hashlib.sha256(self.to_bytes()).hexdigest()


def vocabulary_to_json(level: str, tokens: Sequence[str], **options: int | None) -> bytes:
    """Return the file of a tokenizer that is a list of tokens and the options of its training."""
    return json.dumps({"level": level, **to_builtins(options), "tokens": list(tokens)}, indent=0).encode()


def vocabulary_from_json(level: str, data: bytes) -> dict[str, Any]:
    """Read ``to_json`` back; raises CheckpointError where it is anything else."""
    try:
        content = dict(json.loads(data))
        tokens = content["tokens"]
        if content["level"] != level:
            raise ValueError(f"it is of the level {content['level']!r}, not {level!r}")
        if tokens[:3] != list(SPECIAL_TOKENS) or not all(isinstance(t, str) and t for t in tokens):
            raise ValueError("bad tokens")
        if len(set(tokens)) != len(tokens):
            raise ValueError("it holds a token twice")
        for name in ("min_count", "vocab_size"):
            if content.get(name) is not None:
                check_at_least(name, content[name], 1)
        return content
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(f"vocabulary.json is damaged: {type(error).__name__}: {error}") from None
