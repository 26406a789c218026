"""Training the mixers on the text whose contexts were counted, one document after another.

While the mixers read a document, its own tokens are subtracted from the counts. So the counts are from other documents,
as they are when the model reads a new one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from revgen.context_mixing.code_tree import tree_depth
from revgen.context_mixing.contexts import new_document, write_all_contexts
from revgen.context_mixing.counting import Tables, add_to_counts, document_starts, find_entries, memory_problem
from revgen.context_mixing.mixing import Maps, Mixers, initial_maps, initial_mixers, new_work, saved_arrays
from revgen.context_mixing.parts import NUM_CONTEXTS
from revgen.context_mixing.reading import score_document
from revgen.errors import OptionError

FIRST_RATE, LAST_RATE = 0.02, 0.0003
"""The learning rates of the mixers at the start and at the end of training; in between, it falls exponentially."""
FINAL_RATE = 0.3
"""The learning rate of the last mixer, as a fraction of the rate of the others."""

OnStep = Callable[[float, float, float], None]
"""A function of the fraction of the run that is done, the loss in nats per token, and the tokens per second."""


def prune_documents(documents: list[NDArray[Any]], vocab: int, max_bytes: int) -> NDArray[Any]:
    """Return the documents as one text, without some random ones if a model with all would exceed ``max_bytes``.

    Raises OptionError if no document fits, or if there is not enough memory to count them.
    """
    dtype = np.min_scalar_type(vocab - 1)
    fixed_size = sum(array.nbytes for array in saved_arrays(initial_mixers(), initial_maps()).values())
    sizes = np.array([len(ids) for ids in documents]) * dtype.itemsize
    if fixed_size + sizes.sum() > max_bytes:
        order = np.random.default_rng(0).permutation(len(sizes))
        fits = order[fixed_size + sizes[order].cumsum() <= max_bytes]
        if not len(fits):
            minimum = fixed_size + sizes[order[0]]
            raise OptionError(f"max_bytes must be at least {minimum:,} for these documents, not {max_bytes!r}")
        documents = [documents[i] for i in np.sort(fits)]
    if problem := memory_problem(sum(map(len, documents))):
        raise OptionError(f"{problem}: limit it by max_bytes")
    return np.concatenate(documents).astype(dtype)


def train_mixers(
    tables: Tables, mixers: Mixers, maps: Maps, epochs: int, adapts: bool, seed: int, on_step: OnStep
) -> Iterator[tuple[int, float, float]]:
    """Train mixers and maps in place; yield the epoch, its loss in nats per token, and the learning rate at its end.

    ``seed`` chooses the order of the documents.
    """
    starts = document_starts(tables.text)
    capacity = int(np.diff(starts).max())
    work, entries = new_work(tree_depth(tables.tree)), np.zeros((capacity, NUM_CONTEXTS), np.int64)
    logprobs = np.zeros(capacity, np.float32)
    rng, num_read, start_time = np.random.default_rng(seed), 0, time.perf_counter()
    for epoch in range(1, epochs + 1):
        nats, first = 0.0, num_read
        for number in rng.permutation(len(starts) - 1).tolist():
            begin, end = int(starts[number]), int(starts[number + 1])
            ids, size = tables.text[begin:end], end - begin - 1
            fraction = num_read / (epochs * len(tables.text))
            rate = FIRST_RATE * (LAST_RATE / FIRST_RATE) ** fraction
            rates = np.array([rate, FINAL_RATE * rate], np.float32)
            with np.errstate(over="ignore"):
                document = new_document(end - begin)
                write_all_contexts(document, ids, tables.classes, tables.folded, document.hashes)
                find_entries(tables, document, entries)
                add_to_counts(tables, entries[:size], -1)
                score_document(
                    *(tables, maps, mixers, new_document(end - begin), work, ids, rates),
                    *(adapts, True, begin, logprobs[:size]),
                )
                add_to_counts(tables, entries[:size], 1)
            num_read += end - begin
            nats -= float(logprobs[:size].sum(dtype=np.float64))
            speed = num_read / (time.perf_counter() - start_time)
            on_step(num_read / (epochs * len(tables.text)), nats / (num_read - first), speed)
        yield epoch, nats / (num_read - first), rate
