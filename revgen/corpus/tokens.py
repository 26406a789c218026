"""Token ids on disk: a corpus of any size as one memory-mapped array, with the span of each document."""

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
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from revgen.corpus import cache
from revgen.corpus.disk import check_free_space
from revgen.corpus.labels import Label, find_label
from revgen.corpus.progress import with_progress
from revgen.corpus.readers import Corpus
from revgen.corpus.workers import parallel_map
from revgen.errors import CorpusError, OptionError
from revgen.options import check_at_least, is_int, safe_repr
from revgen.tokenizers import Tokenizer

PART_SIZE = 1 << 20
"""Characters that are encoded at once."""
PARTS_BEFORE_WORKERS = 16
"""Parts that are encoded before workers start. A smaller corpus is done before workers would help."""
MAX_MAPPED_BYTES = 1 << 28
"""Bytes of the memory map that may stay in memory after they were read."""
COUNT_BLOCK_SIZE = 1 << 20
"""Tokens that are counted at once."""
LENGTH_SIZE = 8
"""Bytes of the number that gives the length of the footer of a cache entry."""

Ids = NDArray[np.unsignedinteger[Any]]
LabeledPiece = tuple[str, bool, bool, int]
"""Text, whether it starts a document, whether it ends the document, and the offset that its label adds to ids."""


@dataclass(frozen=True)
class Tokens:
    """A corpus, or a part of one, as token ids: ``<s> … </s>`` for each document, concatenated in ``ids`` (tokens,).

    ``spans`` (documents, 2) has the start and end of each document of this part in ``ids``. With labels, ids are token
    plus ``label_offset(label)``, and ``vocab`` is the size of the vocabulary; without labels, ``vocab`` is None.
    ``drops_labels`` says whether training reads some of the documents without their labels.
    """

    ids: Ids
    spans: NDArray[np.int64]
    vocab: int | None = None
    drops_labels: bool = True

    def __len__(self) -> int:
        """Return the number of tokens."""
        return int((self.spans[:, 1] - self.spans[:, 0]).sum())

    def documents(self) -> Iterator[Ids]:
        """Yield the ids of each document."""
        bytes_read = 0
        for start, end in self.spans:
            yield self.ids[start:end]
            bytes_read += (end - start) * self.ids.itemsize
            if bytes_read > MAX_MAPPED_BYTES:
                self.release()
                bytes_read = 0

    @cached_property
    def checksum(self) -> int:
        """The CRC-32 of the ids of the entire corpus and the spans of this part."""
        checksum = 0
        step = max(MAX_MAPPED_BYTES // self.ids.itemsize, 1)
        for start in range(0, len(self.ids), step):
            checksum = zlib.crc32(np.ascontiguousarray(self.ids[start : start + step]).data, checksum)
            self.release()
        return zlib.crc32(self.spans.tobytes(), checksum)

    def release(self) -> None:
        """Let the system free the memory of the map. Ids that are read later are loaded from disk again."""
        pages: object = self.ids.base
        if isinstance(pages, mmap.mmap) and hasattr(pages, "madvise"):
            pages.madvise(mmap.MADV_DONTNEED)

    def counts(self, vocab: int) -> NDArray[np.int64]:
        """Return how often each token occurs in the documents, (vocab,)."""
        counts = np.zeros(vocab, np.int64)
        for ids in self.documents():
            counts += count_tokens(ids, vocab)
        return counts

    def split(self, fraction: float, seed: int) -> tuple[Tokens, Tokens]:
        """Return the training part and the held-out part, which has about this fraction of the tokens.

        Random documents are held out as a whole; of a single document, its end is held out. Each part has at least one
        document. A document longer than the fraction is held out only if all are, and then it is the shortest.
        """
        check_at_least("seed", seed, 0)
        sizes = self.spans[:, 1] - self.spans[:, 0]
        if len(sizes) == 1:
            start, end = self.spans[0]
            boundary = end - max(int((end - start) * fraction), 2)
            return self._select(np.array([[start, boundary]])), self._select(np.array([[boundary, end]]))
        order = np.random.default_rng(seed).permutation(len(sizes))
        candidates = order[sizes[order] <= len(self) * fraction]
        if not len(candidates):
            candidates = order[[sizes[order].argmin()]]
        total_sizes = sizes[candidates].cumsum()
        count = 1 + int(np.abs(total_sizes - len(self) * fraction).argmin())
        max_count = min(max(1, round(len(sizes) * max(fraction, 0.5))), len(sizes) - 1)
        held_out = candidates[: min(count, max_count)]
        train = np.setdiff1d(order, held_out)
        return self._select(self.spans[train]), self._select(self.spans[np.sort(held_out)])

    def _select(self, spans: NDArray[np.int64]) -> Tokens:
        """Return the part of the corpus with these documents."""
        return replace(self, spans=spans)


def count_tokens(ids: Ids, vocab: int) -> NDArray[np.int64]:
    """Return how often each token occurs in ids of any number, (vocab,)."""
    counts = np.zeros(vocab, np.int64)
    for start in range(0, len(ids), COUNT_BLOCK_SIZE):
        counts += np.bincount(ids[start : start + COUNT_BLOCK_SIZE] % vocab, minlength=vocab)
    return counts


def label_offset(label: Label | float | None, labels: Sequence[Label], vocab: int) -> int:
    """Return the offset that a label adds to the ids of its text, 0 without a label. Raises OptionError.

    A token with the n-th label, counted from 1, has the id ``token + n * vocab``. So each token carries its label,
    wherever the text is cut, and ``divmod(id, vocab)`` returns both.
    """
    if label is None:
        return 0
    index = find_label(label, labels)
    if index is None:
        names = ", ".join(map(str, labels)) or "none"
        raise OptionError(f"label must be one of the labels of the training text ({names}), not {safe_repr(label)}")
    return (1 + index) * vocab


def tokenize(corpus: Corpus, tokenizer: Tokenizer, labels: Sequence[Label] = (), progress: bool = False) -> Tokens:
    """Return the token ids of a corpus, in the cache for large files and in a temporary file otherwise.

    The temporary file is deleted when the process ends. A slow tokenizer runs in several processes for a large corpus.
    The labels of the documents are ignored if ``labels`` is empty. ``progress`` shows a bar on a terminal.

    Warns about errors that the reader skipped. Raises CorpusError if the corpus has no text, or if the disk is full.
    """
    encoder = Encoder(tokenizer, tuple(labels))
    tokens = _tokenize_with_cache(corpus, encoder, progress) if corpus.is_large else None
    if tokens is None:
        tokens = _tokenize_to_temporary_file(corpus, encoder, progress)
    if corpus.skipped:
        warnings.warn(
            f"{corpus.skipped:,} errors in the text were skipped; the first is {corpus.first_skipped}", stacklevel=2
        )
    return tokens


@dataclass(frozen=True)
class Encoder:
    """A tokenizer and the labels of a corpus, which turn the blocks of the corpus into ids."""

    tokenizer: Tokenizer
    labels: tuple[Label, ...] = ()

    @property
    def dtype(self) -> type[np.unsignedinteger[Any]]:
        """The NumPy type of the ids."""
        return np.uint32 if self.labels else self.tokenizer.dtype

    @property
    def num_ids(self) -> int:
        """The number of different ids: tokens times labels, where the first "label" is no label."""
        return len(self.tokenizer) * (len(self.labels) + 1)

    def split_parts(self, corpus: Corpus) -> Iterator[list[LabeledPiece]]:
        """Yield the text in parts of about ``PART_SIZE`` characters."""
        part: list[LabeledPiece] = []
        size, is_first = 0, True
        for text, is_last in corpus.blocks():
            offset = label_offset(corpus.label, self.labels, len(self.tokenizer)) if self.labels else 0
            part.append((text, is_first, is_last, offset))
            is_first = is_last
            size += len(text)
            if size >= PART_SIZE:
                yield part
                part, size = [], 0
        if part:
            yield part

    def __call__(self, part: list[LabeledPiece]) -> tuple[Ids, list[int]]:
        """Return the ids of a part, (tokens,), and the end positions of the documents that end in it."""
        bos_eos = np.array([self.tokenizer.bos_id, self.tokenizer.eos_id], self.tokenizer.dtype)
        arrays: list[Ids] = []
        ends: list[int] = []
        size = 0
        for text, is_first, is_last, offset in part:
            pieces = [bos_eos[: int(is_first)], self.tokenizer.encode(text), bos_eos[1 : 1 + int(is_last)]]
            arrays += [piece.astype(self.dtype) + self.dtype(offset) for piece in pieces] if offset else pieces
            size += sum(map(len, pieces))
            if is_last:
                ends.append(size)
        return np.concatenate(arrays, dtype=self.dtype), ends

    def map_tokens(self, file: IO[bytes], ends: NDArray[np.int64]) -> Tokens:
        """Return the ids at the start of a file as a memory map, given the end positions of the documents."""
        ids = np.memmap(file, self.dtype, "r", shape=(int(ends[-1]),))
        spans = np.stack([np.concatenate([[0], ends[:-1]]), ends], 1)
        return Tokens(ids, spans, len(self.tokenizer) if self.labels else None)


def _write_ids(
    file: IO[bytes], directory: str | Path, corpus: Corpus, encoder: Encoder, progress: bool
) -> NDArray[np.int64]:
    """Write the ids of a corpus to a file, and return the end positions of its documents, (documents,).

    Raises OSError as soon as the ids of the whole corpus are expected to need more space than ``directory`` has.
    """
    ends = array.array("q")
    size = 0
    parts = with_progress(encoder.split_parts(corpus), corpus, "tokens", progress)
    with closing(parallel_map(encoder, parts, PARTS_BEFORE_WORKERS)) as encoded:
        for ids, ends_in_part in encoded:
            check_free_space(directory, _expected_bytes(ids, size, corpus))
            file.write(ids.data)
            ends.extend([size + end for end in ends_in_part])
            size += len(ids)
    if not size:
        raise CorpusError("the corpus is empty: it has no text", corpus.only_file)
    file.flush()
    return np.frombuffer(ends, np.int64)


def _expected_bytes(ids: Ids, num_written: int, corpus: Corpus) -> int:
    """Return how many bytes the next ids of a corpus and all after them will probably take.

    Before a sixteenth of the files has been read, these are the next ids only.
    """
    if corpus.bytes_read * 16 < corpus.size or not corpus.bytes_read:
        return ids.nbytes
    written = num_written * ids.itemsize
    return max(ids.nbytes, int((written + ids.nbytes) * corpus.size / corpus.bytes_read) - written)


def _tokenize_to_temporary_file(corpus: Corpus, encoder: Encoder, progress: bool) -> Tokens:
    try:
        with tempfile.TemporaryFile() as file:
            ends = _write_ids(file, tempfile.gettempdir(), corpus, encoder, progress)
            return encoder.map_tokens(file, ends)
    except OSError as error:
        raise CorpusError(
            f"the token ids cannot be written to {tempfile.gettempdir()}: {error.strerror or error}; "
            "free some disk space, or set TMPDIR to another directory"
        ) from error


def _tokenize_with_cache(corpus: Corpus, encoder: Encoder, progress: bool) -> Tokens | None:
    """Return the tokens of the cache entry, creating it if it is missing, or None if the cache is unusable."""
    stamp = cache.file_stamp(corpus)
    tokenizer = encoder.tokenizer
    name = cache.entry_name(corpus, type(tokenizer).__qualname__, tokenizer.fingerprint, encoder.labels)
    with suppress(OSError), cache.open_entry(name) as file:
        if (ends := _read_footer(file, corpus, encoder)) is not None:
            return encoder.map_tokens(file, ends)
    try:
        with cache.create_entry(name) as file:
            ends = _write_ids(file, cache.cache_directory(), corpus, encoder, progress)
            _write_footer(file, corpus, ends)
            cache.write_checksum(file)
        path = cache.cache_directory() / name
        with path.open("rb") as file:
            if cache.file_stamp(corpus) != stamp:
                path.unlink()  # the text may have changed since the entry was named
            return encoder.map_tokens(file, ends)
    except OSError as error:
        cache.warn_unusable(str(error))
        return None


def _write_footer(file: IO[bytes], corpus: Corpus, ends: NDArray[np.int64]) -> None:
    """Append the end positions of the documents and the skipped errors to the ids of a cache entry."""
    metadata = {"skipped": corpus.skipped, "first_skipped": corpus.first_skipped, "documents": len(ends)}
    encoded = json.dumps(metadata).encode()
    file.write(ends.tobytes() + encoded + len(encoded).to_bytes(LENGTH_SIZE, "little"))


def _read_footer(file: IO[bytes], corpus: Corpus, encoder: Encoder) -> NDArray[np.int64] | None:
    """Return the end positions of the documents of a cache entry, (documents,), and set the skipped errors.

    Returns None if the entry is damaged, or if the text now starts with other ids, because the code of the tokenizer
    has changed.
    """
    if not cache.has_valid_checksum(file):
        return None
    try:
        ends, metadata = _parse_footer(file, encoder)
    except (ValueError, TypeError, LookupError, OverflowError, RecursionError, MemoryError):
        return None
    for ids, _ in map(encoder, islice(encoder.split_parts(corpus), 1)):
        file.seek(0)
        if file.read(ids.nbytes) != ids.tobytes():
            return None
    corpus.skipped, corpus.first_skipped = metadata["skipped"], metadata["first_skipped"]
    return ends


def _parse_footer(file: IO[bytes], encoder: Encoder) -> tuple[NDArray[np.int64], dict[str, Any]]:
    """Return the end positions of the documents of a cache entry, (documents,), and its other values.

    Raises ValueError, TypeError, LookupError or RecursionError if they do not describe the ids of the entry.
    """
    end = file.seek(-cache.CHECKSUM_SIZE - LENGTH_SIZE, os.SEEK_END)
    length = int.from_bytes(file.read(LENGTH_SIZE), "little")
    start = file.seek(max(end - length, 0))
    metadata = json.loads(file.read(end - start))
    if not (is_int(metadata["documents"], 1) and is_int(metadata["skipped"], 0)):
        raise ValueError("a count is not a whole number")
    if not isinstance(metadata["first_skipped"], str | None):
        raise TypeError("the first error is not a string")
    size = np.dtype(np.int64).itemsize * metadata["documents"]
    if size > start:
        raise ValueError("the entry has fewer documents")
    file.seek(start - size)
    ends = np.frombuffer(file.read(size), np.int64)
    if ends[0] <= 0 or (np.diff(ends) <= 0).any() or ends[-1] * np.dtype(encoder.dtype).itemsize != start - size:
        raise ValueError("the positions of the documents are wrong")
    ids = encoder.map_tokens(file, ends).ids
    if max(int(ids[i : i + COUNT_BLOCK_SIZE].max()) for i in range(0, len(ids), COUNT_BLOCK_SIZE)) >= encoder.num_ids:
        raise ValueError("an id is not in the vocabulary")
    return ends, metadata


def tokenize_train_valid(
    texts: Corpus,
    valid: Corpus | float | None,
    tokenizer: Tokenizer,
    seed: int,
    labels: Sequence[Label] = (),
    progress: bool = False,
) -> tuple[Tokens, Tokens | None]:
    """Return the tokens for training and for validation: another corpus, or a held-out fraction of ``texts``.

    Raises CorpusError if one of them has no characters.
    """
    if isinstance(valid, int | float) and not 0 <= valid < 1:
        raise OptionError(f"valid must be text, or a fraction in 0 ≤ valid < 1, not {safe_repr(valid)}")
    tokens = tokenize(texts, tokenizer, labels, progress)
    if isinstance(valid, Corpus):
        held_out: Tokens | None = tokenize(valid, tokenizer, labels, progress)
    else:
        tokens, held_out = tokens.split(valid, seed) if valid else (tokens, None)
    for part, purpose in ((tokens, "train"), (held_out, "validate")):
        targets = (count_tokens(ids[1:], len(tokenizer)) for ids in (part or tokens).documents())
        if not any(counts @ tokenizer.char_counts for counts in targets):
            raise CorpusError(
                f"there is no character to {purpose} on"
                + (f" when {valid:g} of the text is held out" if isinstance(valid, float) else "")
                + ": give more text, a separate validation text, or valid=None"
            )
    return tokens, held_out
