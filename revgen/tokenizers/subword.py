"""The subword tokenizer: SentencePiece (Kudo & Richardson 2018), configured to be lossless.

White space is not normalized, a line break is a token, and a character outside the vocabulary is spelled in UTF-8
bytes.
"""

from __future__ import annotations

import codecs
import io
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from itertools import islice
from random import Random
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from revgen.errors import CheckpointError, CorpusError
from revgen.options import check_at_least
from revgen.registry import register_tokenizer
from revgen.tokenizers.tokenizer import REPLACEMENT_CHARACTER, SPECIAL_TOKENS, Ids, Tokenizer

SPACE = "▁"  # SentencePiece's symbol for a space
NUM_BYTES = 256
NO_PIECES_ERROR = "no pieces are loaded"  # part of SentencePiece's error message
ROUND_TRIP_TEXT = "  a \U0010ffff\n "

MAX_SENTENCE_CHARS = 500
"""Longer lines are cut for training."""

SEEDS_PER_PIECE, MIN_SEEDS = 10, 20_000
"""The number of candidate pieces at the start of training. SentencePiece's default of a million takes longer and gives
no better pieces."""

LONG_WORD_CHARS = 16  # the length of SentencePiece's longest pieces

LONG_WORD_CHARS_PER_PIECE = 100
"""The largest total length of long words in the training text, per piece. Text without spaces (DNA, Chinese) is one
long word, for which SentencePiece takes many times as long as for repeated words."""

MAX_DISTINCT_FRACTION = 0.5
"""If distinct words make up more than this fraction of the text, short words are limited too. In DNA in lines of
12 letters, for example, a line rarely occurs twice."""

# SentencePiece cannot encode its own space symbol or NUL; both are spelled in bytes instead.
_split_unsupported = re.compile(f"([{SPACE}\0]+)").split
_split_unsupported_and_spaces = re.compile(f"([ {SPACE}\0]+)").split
_surrogate = re.compile("[\ud800-\udfff]")
_long_space = re.compile(f" {{{LONG_WORD_CHARS},}}")  # learned as a space of the longest piece, in much less time


@register_tokenizer("subword")
class SubwordTokenizer(Tokenizer):
    """A unigram model over pieces of words. A lone surrogate, which UTF-8 cannot encode, becomes U+FFFD."""

    level = "subword"
    file = "tokenizer.model"

    def __init__(self, model: bytes) -> None:
        import sentencepiece

        self._model = model
        self._pieces = sentencepiece.SentencePieceProcessor(model_proto=model)
        size = self._pieces.get_piece_size()
        self.vocabulary = tuple(self._pieces.id_to_piece(i) for i in range(size))
        self._bytes = [self._piece_bytes(i, piece) for i, piece in enumerate(self.vocabulary)]
        # Models that early versions trained on text without spaces have no piece for the space.
        self._split = _split_unsupported if SPACE in self.vocabulary else _split_unsupported_and_spaces
        self._byte_ids = [self._pieces.piece_to_id(f"<0x{byte:02X}>") for byte in range(NUM_BYTES)]

    def _piece_bytes(self, i: int, piece: str) -> bytes:
        """Return the bytes that the piece with id ``i`` decodes to."""
        if i < self.unk_id:
            return b""
        if i == self.unk_id:
            return REPLACEMENT_CHARACTER.encode()
        return bytes([int(piece[3:5], 16)]) if self._pieces.is_byte(i) else piece.replace(SPACE, " ").encode()

    @classmethod
    def train(cls, texts: Iterable[str], *, vocab_size: int = 2_000, max_sentences: int = 50_000) -> Self:
        """Learn at most ``vocab_size`` pieces from a random sample of at most ``max_sentences`` lines.

        ``vocab_size`` includes the 256 byte pieces and the special tokens; a small text gives fewer pieces. Raises
        CorpusError if there is no text, or if SentencePiece fails.
        """
        import sentencepiece

        check_at_least("vocab_size", vocab_size, NUM_BYTES + len(SPECIAL_TOKENS) + 1)
        check_at_least("max_sentences", max_sentences, 1)
        lines = _drop_rare_characters(_sample(_sentences(texts), max_sentences), vocab_size)
        lines = [line for line in _limit_long_words(lines, LONG_WORD_CHARS_PER_PIECE * vocab_size) if line]
        lines = [_long_space.sub(" " * LONG_WORD_CHARS, line) for line in lines]
        if not lines:
            raise CorpusError("the corpus is empty: it has no text to learn a vocabulary from")
        options: dict[str, Any] = {
            "model_type": "unigram",
            "vocab_size": vocab_size,
            "hard_vocab_limit": False,
            "character_coverage": 0.9999,
            "byte_fallback": True,
            "normalization_rule_name": "identity",
            "add_dummy_prefix": False,
            "remove_extra_whitespaces": False,
            "allow_whitespace_only_pieces": True,  # for example, the indentation of a line of code
            "user_defined_symbols": ["\n"],
            "bos_id": Tokenizer.bos_id,
            "eos_id": Tokenizer.eos_id,
            "unk_id": Tokenizer.unk_id,
            "required_chars": SPACE,  # even if the training text has no space, other texts do
            "seed_sentencepiece_size": max(SEEDS_PER_PIECE * vocab_size, MIN_SEEDS),
            "max_sentence_length": MAX_SENTENCE_CHARS * 4,  # bytes; SentencePiece skips longer lines
            "num_threads": 1,  # with more threads the pieces differ from run to run
            "minloglevel": 2,
        }
        # SentencePiece may find no pieces in one or two words. The second attempt adds a line for each character.
        for sentences in (lines, [*lines, *sorted({*"".join(lines)})]):
            model = io.BytesIO()
            try:
                sentencepiece.SentencePieceTrainer.train(
                    sentence_iterator=iter(sentences), model_writer=model, **options
                )
                return cls(model.getvalue())
            except (RuntimeError, OSError) as error:
                reason = str(error)
                if NO_PIECES_ERROR not in reason:
                    break
        raise CorpusError(f"SentencePiece could not learn {vocab_size} pieces from this text: {reason}")

    def encode(self, text: str) -> Ids:
        if _surrogate.search(text):
            text = _surrogate.sub(REPLACEMENT_CHARACTER, text)
        ids: list[int] = []
        for i, part in enumerate(self._split(text)):
            if i % 2:  # unsupported characters
                ids.extend(self._byte_ids[byte] for byte in part.encode())
            else:
                ids.extend(self._pieces.encode(part))
        return np.array(ids, self.dtype)

    def spell(self, character: str) -> tuple[int, ...]:
        return tuple(self._byte_ids[byte] for byte in _surrogate.sub(REPLACEMENT_CHARACTER, character).encode())

    def spelled_character(self, ids: Sequence[int]) -> str | None:
        try:
            return b"".join(self._bytes[i] for i in ids).decode()
        except UnicodeDecodeError as error:
            return None if error.reason == "unexpected end of data" else REPLACEMENT_CHARACTER

    def stream_decoder(self) -> Callable[[int], str]:
        utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        return lambda i: utf8.decode(self._bytes[i], final=i == self.eos_id)

    def decode(self, ids: Iterable[int]) -> str:
        return b"".join([self._bytes[int(i)] for i in ids]).decode(errors="replace")

    @cached_property
    def token_bytes(self) -> tuple[bytes, ...]:
        return tuple(b"" if i <= self.unk_id else piece for i, piece in enumerate(self._bytes))

    @cached_property
    def partial_char_ids(self) -> frozenset[int]:
        return frozenset(self._byte_ids[0x80:])

    @cached_property
    def completes_unknown_character(self) -> NDArray[np.bool_]:
        completes = super().completes_unknown_character
        for byte, i in enumerate(self._byte_ids):
            completes[i] = byte & 0xC0 != 0x80  # the first byte of a character
        return completes

    def to_bytes(self) -> bytes:
        return self._model

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        if not data:
            raise CheckpointError(f"{cls.file} is damaged: it is empty")
        try:
            tokenizer = cls(data)
        except (RuntimeError, ValueError, IndexError) as error:
            raise CheckpointError(f"{cls.file} is damaged: {error}") from None
        if tokenizer.vocabulary[: len(SPECIAL_TOKENS)] != SPECIAL_TOKENS:
            raise CheckpointError(f"{cls.file} must start with the special tokens {', '.join(SPECIAL_TOKENS)}")
        # A file that was truncated between two of its sections loads with different settings.
        if tokenizer.decode(tokenizer.encode(ROUND_TRIP_TEXT)) != ROUND_TRIP_TEXT:
            raise CheckpointError(
                f"{cls.file} is damaged, or not from revgen: it changes a text that it encodes and decodes"
            )
        return tokenizer


def _sentences(texts: Iterable[str]) -> Iterator[str]:
    """Yield the lines of the texts, cut into pieces that SentencePiece accepts."""
    for text in texts:
        for line in _surrogate.sub("", text).replace("\0", "").split("\n"):
            for start in range(0, len(line), MAX_SENTENCE_CHARS):
                yield line[start : start + MAX_SENTENCE_CHARS]


def _sample(lines: Iterator[str], size: int) -> list[str]:
    """Return a reservoir sample of at most ``size`` lines; SentencePiece's own sample differs in each process."""
    rng = Random(0)
    reservoir = list(islice(lines, size))
    for count, line in enumerate(lines, size + 1):
        index = rng.randrange(count)
        if index < size:
            reservoir[index] = line
    return reservoir


def _limit_long_words(lines: list[str], limit: int) -> list[str]:
    """Drop random lines, so that the long words left have about ``limit`` characters in total.

    If most words occur only once, all words count as long.
    """
    distinct = sum(map(len, {word for line in lines for word in line.split(" ")}))
    threshold = 0 if distinct > MAX_DISTINCT_FRACTION * sum(map(len, lines)) else LONG_WORD_CHARS
    sizes = [sum(len(word) for word in line.split(" ") if len(word) > threshold) for line in lines]
    if sum(sizes) <= limit:
        return lines
    rng, fraction = Random(0), limit / sum(sizes)
    return [line for line, size in zip(lines, sizes, strict=True) if not size or rng.random() < fraction]


def _drop_rare_characters(lines: list[str], vocab_size: int) -> list[str]:
    """Cut the lines at rare characters if characters would take more than half of the vocabulary."""
    counts = Counter[str]()
    for line in lines:
        counts.update(line)
    limit = max(1, (vocab_size - NUM_BYTES - len(SPECIAL_TOKENS)) // 2)
    table = {ord(character): "\n" for character, _ in counts.most_common()[limit:]}
    return [part for line in lines for part in line.translate(table).split("\n") if part] if table else lines
