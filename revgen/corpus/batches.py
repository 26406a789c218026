"""Batches for truncated backpropagation through time: rows of one stream of documents, chunk by chunk."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from revgen.corpus.tokens import MAX_MAPPED_BYTES, Tokens
from revgen.errors import CorpusError

LABEL_DROPOUT = 0.1
"""The fraction of documents read without their labels in an epoch, so that a model learns to work without a label."""
CHUNK_LENGTH_FACTORS = (0.75, 1.0, 1.25)
"""The possible lengths of a chunk, in units of ``sequence_length``. They are few: each costs a compilation."""

READAHEAD_SIZE = 1 << 16
"""Bytes that the system may load in addition with each read of the memory map."""


class Batches:
    """The batches of one epoch over a corpus.

    The documents are shuffled and concatenated into one stream. From a random offset, the stream is cut into
    ``batch_size`` rows of equal length. The rows are read in parallel, in chunks of about ``sequence_length`` tokens,
    so the state after one chunk is the initial state of the next. The batches depend only on ``seed`` and ``epoch``.
    """

    def __init__(self, tokens: Tokens, batch_size: int, sequence_length: int, seed: int, epoch: int) -> None:
        rng = np.random.default_rng((seed, epoch))
        self.tokens = tokens
        self.ids = np.asarray(tokens.ids)  # slicing a memory map itself is several times as slow
        order = rng.permutation(len(tokens.spans))
        self.stops = tokens.spans[order, 1]  # of documents, in ``ids``
        self.ends = np.cumsum(self.stops - tokens.spans[order, 0])  # of documents, in the stream
        self.batch_size = batch_size
        total = int(self.ends[-1])
        self.row_length = (total - 1) // batch_size
        if self.row_length < 2:
            raise CorpusError(
                f"the corpus is shorter than a batch: {total:,} tokens for batch_size={batch_size}; "
                "use more text or a smaller batch_size"
            )
        self.offset = int(rng.integers(total - self.row_length * batch_size))
        self.chunk_lengths = self._sample_chunk_lengths(sequence_length, rng)
        self.vocab = tokens.vocab
        dropout = LABEL_DROPOUT if tokens.drops_labels else 0.0
        self.drops_label = rng.random(len(order) if self.vocab else 0) < dropout
        self._bytes_mapped = 0  # an upper bound

    def __len__(self) -> int:
        return len(self.chunk_lengths)

    def __iter__(self) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        return self.chunks()

    def chunks(self, first: int = 0) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """Yield ``(inputs, targets)`` for each chunk from number ``first`` on, both (time, batch).

        The targets are the tokens that follow the inputs. Only inputs carry labels.
        """
        start = sum(self.chunk_lengths[:first])
        for length in self.chunk_lengths[first:]:
            rows = self._read(self.offset + np.arange(self.batch_size) * self.row_length + start, length + 1)
            if self._bytes_mapped > MAX_MAPPED_BYTES:
                self.tokens.release()
                self._bytes_mapped = 0
            chunk = np.ascontiguousarray(rows.T)  # (time + 1, batch)
            yield chunk[:-1], chunk[1:] if self.vocab is None else chunk[1:] % self.vocab
            start += length

    def _sample_chunk_lengths(self, sequence_length: int, rng: np.random.Generator) -> list[int]:
        """Return random chunk lengths that add up to the length of a row."""
        lengths: list[int] = []
        remaining = self.row_length
        choices = [max(1, round(sequence_length * factor)) for factor in CHUNK_LENGTH_FACTORS]
        while remaining:
            lengths.append(min(remaining, choices[rng.integers(len(choices))]))
            remaining -= lengths[-1]
        return lengths

    def _read(self, positions: NDArray[np.int64], length: int) -> NDArray[np.int64]:
        """Return ``length`` tokens of the stream from each position on, (positions, length)."""
        out = np.empty((len(positions), length), np.int64)
        documents = np.searchsorted(self.ends, positions, "right")
        is_whole = self.ends[documents] - positions >= length  # within one document
        if self.vocab:
            is_whole &= ~self.drops_label[documents]
        whole = documents[is_whole]
        starts = positions[is_whole] - self.ends[whole] + self.stops[whole]
        out[is_whole] = self.ids[starts[:, None] + np.arange(length)]
        self._bytes_mapped += len(whole) * (READAHEAD_SIZE + length * self.ids.itemsize)
        for row in np.flatnonzero(~is_whole):
            self._fill(out[row], int(positions[row]))
        return out

    def _fill(self, out: NDArray[Any], position: int) -> None:
        """Fill ``out`` with the tokens of the stream from ``position`` on."""
        document = int(np.searchsorted(self.ends, position, "right"))
        filled = 0
        while filled < len(out):
            end = int(self.ends[document])
            count = min(end - position, len(out) - filled)
            start = int(self.stops[document]) + position - end
            ids = self.ids[start : start + count]
            out[filled : filled + count] = ids % self.vocab if self.vocab and self.drops_label[document] else ids
            self._bytes_mapped += READAHEAD_SIZE + ids.nbytes
            filled += count
            position += count
            document += 1
