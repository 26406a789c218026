"""Batches for truncated backpropagation through time: rows of a stream of documents, chunk by chunk."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from revgen.corpus.tokens import Tokens
from revgen.errors import CorpusError

UNLABELLED = 0.1
"""The share of documents that are read without their labels, drawn anew for each epoch: so a model learns both."""
LENGTHS = (0.75, 1.0, 1.25)
"""How long a chunk is, drawn by chance, in parts of ``sequence_length``: few, as each is a shape to prepare for."""


class Batches:
    """The batches of one epoch over a corpus.

    The documents, in an order drawn anew for each epoch, make one stream; it is cut into ``batch_size`` rows of
    equal length from an offset drawn by chance, and the rows are read side by side in chunks of about
    ``sequence_length`` tokens, so that the state behind one chunk is the state before the next. The epoch is
    a function of ``seed`` and ``epoch`` alone.
    """

    def __init__(self, tokens: Tokens, batch_size: int, sequence_length: int, seed: int, epoch: int) -> None:
        random = np.random.default_rng((seed, epoch))
        self.ids = np.asarray(tokens.ids)  # slices of a memory map itself cost several times as much
        spans = tokens.spans[random.permutation(len(tokens.spans))]
        self.begins = spans[:, 0]
        self.ends = np.cumsum(spans[:, 1] - spans[:, 0])
        self.batch_size = batch_size
        total = int(self.ends[-1])
        self.row_length = (total - 1) // batch_size
        if self.row_length < 2:
            raise CorpusError(
                f"the corpus is shorter than a batch: {total:,} tokens for batch_size={batch_size}; "
                "use more text or a smaller batch_size"
            )
        self.offset = int(random.integers(total - self.row_length * batch_size))
        self.lengths = self._lengths(sequence_length, random)
        self.vocab = tokens.vocab
        self.unlabelled = random.random(len(spans)) < UNLABELLED

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        return self.chunks()

    def chunks(self, first: int = 0) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """Yield inputs and targets, the inputs one token later, each (time, batch), from the chunk ``first`` on; only
        inputs carry labels."""
        start = sum(self.lengths[:first])
        for length in self.lengths[first:]:
            rows = np.empty((self.batch_size, length + 1), np.int64)
            for row in range(self.batch_size):
                self._read(self.offset + row * self.row_length + start, rows[row])
            chunk = np.ascontiguousarray(rows.T)
            yield chunk[:-1], chunk[1:] if self.vocab is None else chunk[1:] % self.vocab
            start += length

    def _lengths(self, sequence_length: int, random: np.random.Generator) -> list[int]:
        lengths: list[int] = []
        left = self.row_length
        choices = [max(1, round(sequence_length * part)) for part in LENGTHS]
        while left:
            lengths.append(min(left, choices[random.integers(len(choices))]))
            left -= lengths[-1]
        return lengths

    def _read(self, position: int, out: NDArray[Any]) -> None:
        """Fill ``out`` with the stream from ``position`` on."""
        document = int(np.searchsorted(self.ends, position, "right"))
        filled = 0
        while filled < len(out):
            end = int(self.ends[document])
            take = min(end - position, len(out) - filled)
            begin = int(self.begins[document]) + position - (end - self._length(document))
            ids = self.ids[begin : begin + take]
            out[filled : filled + take] = ids % self.vocab if self.vocab and self.unlabelled[document] else ids
            filled += take
            position += take
            document += 1

    def _length(self, document: int) -> int:
        return int(self.ends[document] - (self.ends[document - 1] if document else 0))
