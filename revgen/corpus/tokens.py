"""Token ids on disk: a corpus of any size as one memory-mapped stream with its documents' borders."""

from __future__ import annotations

import array
import json
import mmap
import os
import tempfile
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from revgen.corpus import cache
from revgen.corpus.labels import Label, find_label
from revgen.corpus.progress import with_progress
from revgen.corpus.readers import Corpus
from revgen.corpus.workers import parallel_map
from revgen.errors import CorpusError, OptionError
from revgen.options import check_at_least, safe_repr
from revgen.tokenizers import Tokenizer

PART_SIZE = 1 << 20
"""Characters that are encoded at once."""
PARTS_BEFORE_WORKERS = 16
"""Such parts before more processes help: a corpus of no more is done in the time that it takes to start them."""
MAX_MAPPED_BYTES = 1 << 28
"""Bytes of the map that may lie in the memory of the process because they were read."""
COUNT_BLOCK_SIZE = 1 << 20  # tokens at once
LENGTH_SIZE = 8  # bytes of the number with which a cached entry tells how long its description is

Ids = NDArray[np.unsignedinteger[Any]]
LabeledPiece = tuple[str, bool, bool, int]
"""Text, whether a document begins with it, whether one ends with it, and what its label adds to ids."""


@dataclass(frozen=True)
class Tokens:
    """Documents as ids: ``<s> … </s>`` one behind the other in ``ids``, (tokens,).

    Document i of this part of the corpus lies from ``spans[i, 0]`` to ``spans[i, 1]``, (documents, 2). Where documents
    have labels, an id is that of the token plus ``shift(label)``, and ``vocab`` is the size of the vocabulary.
    """

    ids: Ids
    spans: NDArray[np.int64]
    vocab: int | None = None

    def __len__(self) -> int:
        """The number of tokens."""
        return int((self.spans[:, 1] - self.spans[:, 0]).sum())

    def documents(self) -> Iterator[Ids]:
        """The ids of each document."""
        read = 0
        for start, end in self.spans:
            yield self.ids[start:end]
            read += (end - start) * self.ids.itemsize
            if read > MAX_MAPPED_BYTES:
                self.release()
                read = 0

    @cached_property
    def checksum(self) -> int:
        """The CRC-32 of the ids of the whole corpus and of the spans of this part."""
        checksum = 0
        step = max(MAX_MAPPED_BYTES // self.ids.itemsize, 1)
        for start in range(0, len(self.ids), step):
            checksum = zlib.crc32(np.ascontiguousarray(self.ids[start : start + step]).data, checksum)
            self.release()
        return zlib.crc32(self.spans.tobytes(), checksum)

    def release(self) -> None:
        """Let the system take back the memory of what was read of the map; what is read again, it fetches again."""
        pages: object = self.ids.base
        if isinstance(pages, mmap.mmap) and hasattr(pages, "madvise"):
            pages.madvise(mmap.MADV_DONTNEED)

    def counts(self, vocab: int) -> NDArray[np.int64]:
        """Return how often each token is in these documents, (vocab,)."""
        counts = np.zeros(vocab, np.int64)
        for ids in self.documents():
            for first in range(0, len(ids), COUNT_BLOCK_SIZE):
                counts += np.bincount(ids[first : first + COUNT_BLOCK_SIZE] % vocab, minlength=vocab)
        return counts

    def split(self, fraction: float, seed: int) -> tuple[Tokens, Tokens]:
        """Hold out about this fraction of the tokens: whole documents drawn at random, or the end of a single one.

        There is a document at least on either side, and documents longer than the fraction are held out only where all
        are: then the shortest.
        """
        check_at_least("seed", seed, 0)
        sizes = self.spans[:, 1] - self.spans[:, 0]
        if len(sizes) == 1:
            start, end = self.spans[0]
            boundary = end - max(int((end - start) * fraction), 2)
            return self._select(np.array([[start, boundary]])), self._select(np.array([[boundary, end]]))
        order = np.random.default_rng(seed).permutation(len(sizes))
        fitting = order[sizes[order] <= len(self) * fraction]
        if not len(fitting):
            fitting = order[[sizes[order].argmin()]]
        held_out = sizes[fitting].cumsum()
        count = 1 + int(np.abs(held_out - len(self) * fraction).argmin())
        chosen = fitting[: min(count, max(1, round(len(sizes) * max(fraction, 0.5))), len(sizes) - 1)]
        return self._select(self.spans[np.sort(np.setdiff1d(order, chosen))]), self._select(self.spans[np.sort(chosen)])

    def _select(self, spans: NDArray[np.int64]) -> Tokens:
        return Tokens(self.ids, spans, self.vocab)


def label_offset(label: Label | float | None, labels: Sequence[Label], vocab: int) -> int:
    """Return what a label adds to the ids of its text: a token with the n-th label, from 1 on, is token + n * vocab.

    So every token carries its label wherever the text is cut; ``divmod(id, vocab)`` tells both. Raises OptionError.
    """
    if label is None:
        return 0
    index = find_label(label, labels)
    if index is None:
        known = ", ".join(map(str, labels)) or "none was"
        raise OptionError(f"label must be one that was learnt ({known}), not {safe_repr(label)}")
    return (1 + index) * vocab


def tokenize(corpus: Corpus, tokenizer: Tokenizer, labels: Sequence[Label] = (), progress: bool = False) -> Tokens:
    """Encode a corpus into a temporary file that is gone with the process; of large files, into the cache.

    A slow tokenizer gets several processes for a large corpus. Without ``labels``, those of the corpus do not matter.
    ``progress`` shows a bar on a terminal. What the reader skips is a warning. Raises CorpusError where there is no
    text in the corpus, and where there is no room for the ids.
    """
    encoder = Encoder(tokenizer, tuple(labels))
    tokens = _tokenize_with_cache(corpus, encoder, progress) if corpus.is_large else None
    if tokens is None:
        tokens = _tokenize_to_temporary_file(corpus, encoder, progress)
    if corpus.skipped:
        warnings.warn(f"{corpus.skipped:,} places in the text were skipped, first {corpus.first_skipped}", stacklevel=2)
    return tokens


@dataclass(frozen=True)
class Encoder:
    """From the pieces of a corpus to ids, with their labels."""

    tokenizer: Tokenizer
    labels: tuple[Label, ...] = ()

    @property
    def dtype(self) -> type[np.unsignedinteger[Any]]:
        """The type of the ids."""
        return np.uint32 if self.labels else self.tokenizer.dtype

    def split_parts(self, corpus: Corpus) -> Iterator[list[LabeledPiece]]:
        """The text in parts to encode."""
        part: list[LabeledPiece] = []
        size, begins = 0, True
        for text, last in corpus.blocks():
            label = label_offset(corpus.label, self.labels, len(self.tokenizer)) if self.labels else 0
            part.append((text, begins, last, label))
            begins = last
            size += len(text)
            if size >= PART_SIZE:
                yield part
                part, size = [], 0
        if part:
            yield part

    def __call__(self, part: list[LabeledPiece]) -> tuple[Ids, list[int]]:
        """The ids of a part, (tokens,), and the places in them behind the documents that end there."""
        marks = np.array([self.tokenizer.bos_id, self.tokenizer.eos_id], self.tokenizer.dtype)
        found: list[Ids] = []
        ends: list[int] = []
        size = 0
        for text, begins, last, label in part:
            pieces = [marks[: int(begins)], self.tokenizer.encode(text), marks[1 : 1 + int(last)]]
            found += [piece.astype(self.dtype) + self.dtype(label) for piece in pieces] if label else pieces
            size += sum(map(len, pieces))
            if last:
                ends.append(size)
        return np.concatenate(found, dtype=self.dtype), ends

    def map_tokens(self, file: IO[bytes], ends: NDArray[np.int64]) -> Tokens:
        """The ids that a file begins with, of documents that lie one behind the other up to these ends."""
        ids = np.memmap(file, self.dtype, "r", shape=(int(ends[-1]),))
        spans = np.stack([np.concatenate([[0], ends[:-1]]), ends], 1)
        return Tokens(ids, spans, len(self.tokenizer) if self.labels else None)


def _write_ids(file: IO[bytes], corpus: Corpus, encoder: Encoder, progress: bool) -> NDArray[np.int64]:
    """Write the ids of a corpus to a file; the places behind its documents, (documents,)."""
    ends = array.array("q")
    size = 0
    parts = with_progress(encoder.split_parts(corpus), corpus, "tokens", progress)
    with closing(parallel_map(encoder, parts, PARTS_BEFORE_WORKERS)) as encoded:
        for ids, ends_there in encoded:
            file.write(ids.data)
            ends.extend([size + end for end in ends_there])
            size += len(ids)
    if not size:
        raise CorpusError("the corpus is empty: no text in it")
    file.flush()
    return np.frombuffer(ends, np.int64)


def _tokenize_to_temporary_file(corpus: Corpus, encoder: Encoder, progress: bool) -> Tokens:
    try:
        with tempfile.TemporaryFile() as file:
            return encoder.map_tokens(file, _write_ids(file, corpus, encoder, progress))
    except OSError as error:
        raise CorpusError(
            f"the token ids cannot be written to {tempfile.gettempdir()}: {error.strerror or error}; "
            "make room, or set TMPDIR to another directory"
        ) from error


def _tokenize_with_cache(corpus: Corpus, encoder: Encoder, progress: bool) -> Tokens | None:
    """The tokens that the cache has, or has from now on; None where it cannot be used."""
    before = cache.file_stamp(corpus)
    tokenizer = encoder.tokenizer
    name = cache.entry_name(corpus, type(tokenizer).__qualname__, tokenizer.fingerprint, encoder.labels)
    with suppress(OSError), (cache.cache_directory() / name).open("rb") as file:
        if (ends := _read_footer(file, corpus, encoder)) is not None:
            return encoder.map_tokens(file, ends)
    try:
        with cache.create_entry(name) as file:
            ends = _write_ids(file, corpus, encoder, progress)
            _write_footer(file, corpus, ends)
            cache.write_checksum(file)
        path = cache.cache_directory() / name
        with path.open("rb") as file:
            if cache.file_stamp(corpus) != before:
                path.unlink()  # it may be of another content than its name says
            return encoder.map_tokens(file, ends)
    except OSError as error:
        cache.warn_unusable(str(error))
        return None


def _write_footer(file: IO[bytes], corpus: Corpus, ends: NDArray[np.int64]) -> None:
    """Write behind the ids what else an entry of the cache tells."""
    skipped = {"skipped": corpus.skipped, "first_skipped": corpus.first_skipped}
    description = json.dumps(skipped | {"documents": len(ends)}).encode()
    file.write(ends.tobytes() + description + len(description).to_bytes(LENGTH_SIZE, "little"))


def _read_footer(file: IO[bytes], corpus: Corpus, encoder: Encoder) -> NDArray[np.int64] | None:
    """The places behind the documents of an entry of the cache, (documents,).

    None where it is damaged, or does not begin with the ids that the text begins with now: the tokenizer's code may
    have changed.
    """
    if not cache.has_valid_checksum(file):
        return None
    place = file.seek(-cache.CHECKSUM_SIZE - LENGTH_SIZE, os.SEEK_END)
    place = file.seek(place - int.from_bytes(file.read(LENGTH_SIZE), "little"))
    description = json.loads(file.read()[: -LENGTH_SIZE - cache.CHECKSUM_SIZE])
    size = np.dtype(np.int64).itemsize * description["documents"]
    file.seek(place - size)
    ends = np.frombuffer(file.read(size), np.int64)
    for ids, _ in map(encoder, islice(encoder.split_parts(corpus), 1)):
        file.seek(0)
        if file.read(ids.nbytes) != ids.tobytes():
            return None
    corpus.skipped, corpus.first_skipped = description["skipped"], description["first_skipped"]
    return ends


def tokenize_train_valid(
    texts: Corpus,
    valid: Corpus | float | None,
    tokenizer: Tokenizer,
    seed: int,
    labels: Sequence[Label] = (),
    progress: bool = False,
) -> tuple[Tokens, Tokens | None]:
    """Return the tokens to train on and those to validate on: of another corpus, or a held-out fraction of ``texts``.

    Raises CorpusError where one of them has no characters.
    """
    if isinstance(valid, int | float) and not 0 <= valid < 1:
        raise OptionError(f"valid must be text, or a fraction in 0 ≤ valid < 1, not {safe_repr(valid)}")
    tokens = tokenize(texts, tokenizer, labels, progress)
    if isinstance(valid, Corpus):
        held_out: Tokens | None = tokenize(valid, tokenizer, labels, progress)
    else:
        tokens, held_out = tokens.split(valid, seed) if valid else (tokens, None)
    for part, name in ((tokens, "train"), (held_out, "validate")):
        predicted = (ids[1:] % len(tokenizer) for ids in (part or tokens).documents())
        if not any(tokenizer.char_counts[ids].any() for ids in predicted):
            raise CorpusError(
                f"there is no character to {name} on"
                + (f", where {valid:g} of the text is held out" if isinstance(valid, float) else "")
                + ": give more text, validation text of its own, or valid=None"
            )
    return tokens, held_out
