"""The base class of the tokenizers of all levels."""

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
"""The start of a document, the end of a document, and an unknown character: ids 0, 1 and 2 at every level."""

REPLACEMENT_CHARACTER = "\N{REPLACEMENT CHARACTER}"
UNICODE_SIZE = sys.maxunicode + 1


class Tokenizer(ABC):
    """A mapping from text to token ids and back; immutable once trained.

    It is lossless: ``decode(encode(text)) == text`` for any text. A character outside the vocabulary is spelled by
    several tokens, whose ids are in ``partial_char_ids``. No text encodes to a special token: the text ``"<s>"`` is
    three ordinary characters.
    """

    level: ClassVar[str]
    file: ClassVar[str] = "vocabulary.json"
    bos_id: ClassVar[int] = 0
    eos_id: ClassVar[int] = 1
    unk_id: ClassVar[int] = 2

    is_lossless: bool = True
    """True if decoding always restores the text. Vocabularies saved by early versions are not lossless: they encode an
    unknown character as ``<unk>`` and decode it as U+FFFD."""

    digit_ids: range = range(0)
    """The ids of the digits that spell characters outside the vocabulary; empty for levels without digits."""

    vocabulary: tuple[str, ...]
    """The tokens as text, by id; the first three are ``SPECIAL_TOKENS``."""

    @classmethod
    @abstractmethod
    def train(cls, texts: Iterable[str]) -> Self:
        """Learn a vocabulary in one pass over the texts. Subclasses add options."""

    @abstractmethod
    def encode(self, text: str) -> Ids:
        """Return the ids of a text, (time,), without the start and the end of the document. Never fails.

        It must not start threads, because it runs in forked processes for a large corpus.
        """

    @abstractmethod
    def stream_decoder(self) -> Callable[[int], str]:
        """Return a function that takes one id at a time and returns the text that this id completes."""

    @abstractmethod
    def to_bytes(self) -> bytes:
        """Return the content of the tokenizer's file in a model directory."""

    @classmethod
    @abstractmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Return the tokenizer that ``to_bytes`` saved. Raises CheckpointError if the data are damaged."""

    def unknown_characters(self, texts: Iterable[str]) -> list[str]:
        """Return the characters that have no token, but would get one in training on these texts."""
        return []

    def extend(self, texts: Iterable[str]) -> Self:
        """Return this tokenizer, extended by the tokens that training on these texts would add."""
        return self

    def spell(self, character: str) -> tuple[int, ...]:
        """Return the ids that spell a character outside the vocabulary, at least one."""
        return (self.unk_id,)

    def spelled_character(self, ids: Sequence[int]) -> str | None:
        """Return the character that one or more ids of ``partial_char_ids`` spell, or None if it is incomplete."""
        return None

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of ids, (time,); the start and the end of a document decode to nothing."""
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
        """Return a copy of the attributes, because another thread may cache a property during pickling."""
        return self.__dict__.copy()

    @cached_property
    def token_bytes(self) -> tuple[bytes, ...]:
        """The UTF-8 bytes of each token, by id; empty for special tokens and digits.

        Override it if a token may be only part of a character.
        """
        texts = [self.decode([i]) if i > self.unk_id else "" for i in range(len(self))]
        return tuple(text.encode("utf-8", "surrogatepass") for text in texts)

    @cached_property
    def partial_char_ids(self) -> frozenset[int]:
        """The ids of the tokens that are only part of a character."""
        return frozenset()

    @cached_property
    def completes_unknown_character(self) -> NDArray[np.bool_]:
        """True for tokens that are counted as a character outside the vocabulary, (vocab,).

        Of the tokens that spell such a character, exactly one is true, and so is ``<unk>``.
        """
        completes = np.zeros(len(self), bool)
        completes[self.unk_id] = True
        return completes

    @cached_property
    def char_counts(self) -> NDArray[np.int64]:
        """The number of characters in each token, (vocab,); tokens that spell a character have 1 in total."""
        counts = [sum(byte & 0xC0 != 0x80 for byte in token) for token in self.token_bytes]
        return np.maximum(counts, self.completes_unknown_character)

    @cached_property
    def unknown_nats(self) -> float:
        """The cost in nats of the character that ``<unk>`` replaces: uniform over the characters without a token."""
        return math.log(UNICODE_SIZE - sum(len(token) == 1 for token in self.vocabulary))

    @property
    def dtype(self) -> type[np.unsignedinteger[Any]]:
        """The smallest unsigned integer type that holds every id."""
        return np.uint16 if len(self) <= 1 << 16 else np.uint32

    @cached_property
    def fingerprint(self) -> str:
        """The SHA-256 of the tokenizer's file; equal fingerprints mean the same ids for every text."""
        return hashlib.sha256(self.to_bytes()).hexdigest()


def vocabulary_to_json(level: str, tokens: Sequence[str], **options: int | None) -> bytes:
    """Return the content of a tokenizer's file as JSON: its level, its training options and its tokens."""
    return json.dumps({"level": level, **to_builtins(options), "tokens": list(tokens)}, indent=0).encode()


def vocabulary_from_json(level: str, data: bytes) -> dict[str, Any]:
    """Return the object that ``vocabulary_to_json`` encoded. Raises CheckpointError for any other data."""
    try:
        content = dict(json.loads(data))
        tokens = content["tokens"]
        if content["level"] != level:
            raise ValueError(f"its level is {content['level']!r}, not {level!r}")
        if tokens[:3] != list(SPECIAL_TOKENS) or not all(isinstance(token, str) and token for token in tokens):
            raise ValueError("the tokens must be strings, starting with the special tokens")
        if len(set(tokens)) != len(tokens):
            raise ValueError("a token occurs twice")
        for name in ("min_count", "vocab_size"):
            if content.get(name) is not None:
                check_at_least(name, content[name], 1)
        return content
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(f"vocabulary.json is damaged: {type(error).__name__}: {error}") from None
