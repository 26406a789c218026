"""Counting: how often each token follows each context in the training text.

A context and the token after it are one number of 64 bits, so each kind of context is counted with one sort.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from revgen.context_mixing.code_tree import CodeTree, build_code_tree, case_folded, token_classes
from revgen.context_mixing.compiling import compiled, internal
from revgen.context_mixing.contexts import (
    LENGTH,
    finish,
    hash_last,
    new_document,
    write_all_contexts,
)
from revgen.context_mixing.parts import NUM_CONTEXTS, TOKEN_BITS
from revgen.corpus.disk import free_memory
from revgen.display.formatting import format_size
from revgen.tokenizers import Tokenizer

MIN_MATCH = 6
"""The number of equal tokens from which two positions match."""
MATCH_HASH = NUM_CONTEXTS
BYTES_PER_TOKEN = 1100
"""The memory that ``count_contexts`` takes for each token of a text without repetitions."""


class Tables(NamedTuple):
    """The counts of the training text.

    Context ``c`` has the hash ``keys[c]``, and the tokens after it are entries ``begins[c]`` to ``begins[c + 1]`` of
    ``ranks``, which is sorted, and ``counts``. The contexts of each kind are sorted by hash. Kind ``i`` has a bucket
    for each value of ``hash >> shifts[i]``; its first context is ``buckets[bucket_begins[i] + value]``.
    ``text`` are all documents, and ``match_heads`` and ``match_chain`` find the positions after equal tokens.
    ``is_used`` is true for the ``mixing.PARTS`` of the model.
    """

    tree: CodeTree
    classes: NDArray[np.int64]
    folded: NDArray[np.uint64]
    shifts: NDArray[np.uint32]
    bucket_begins: NDArray[np.int64]
    buckets: NDArray[np.int32]
    keys: NDArray[np.uint32]
    begins: NDArray[np.int32]
    ranks: NDArray[np.int32]
    counts: NDArray[np.int32]
    text: NDArray[np.int32]
    match_heads: NDArray[np.int32]
    match_chain: NDArray[np.int32]
    is_used: NDArray[np.bool_]


def memory_problem(num_tokens: int) -> str | None:
    """Return why a text of this length cannot be counted, or None if there is enough memory."""
    needed, free = num_tokens * BYTES_PER_TOKEN, free_memory()
    if free is None or needed <= free:
        return None
    size = f"counting its {num_tokens:,} tokens takes up to {format_size(needed)} of memory"
    return f"the training text is too long: {size}, and {format_size(free)} are free"


def document_starts(text: NDArray[Any]) -> NDArray[np.int64]:
    """Return the positions at which documents start, and the length of the text, (documents + 1,)."""
    return np.append(np.flatnonzero(text == Tokenizer.bos_id), len(text))


def check_text(text: NDArray[Any] | None, vocab: int) -> str | None:
    """Return a sentence that says why an array is not the training text of a model, or None if it is valid."""
    if text is None or text.ndim != 1 or text.dtype.kind != "u":
        return "the training text is missing, or is no list of token ids"
    if len(text) == 0 or text.max() >= vocab:
        return "the training text is empty, or has ids that are not in the vocabulary"
    is_start = text == Tokenizer.bos_id
    if not is_start[0] or is_start[-1] or (is_start[1:] & is_start[:-1]).any():
        return "the training text does not consist of documents"
    return memory_problem(len(text))


def count_contexts(text: NDArray[Any], vocabulary: Sequence[str], is_used: NDArray[np.bool_]) -> Tables:
    """Count the tokens after each context of a text, the ids of documents with their start and end tokens."""
    starts = document_starts(text)
    is_predicted = text != Tokenizer.bos_id
    tree = build_code_tree(np.bincount(text[is_predicted], minlength=len(vocabulary)))
    classes, folded = token_classes(vocabulary), case_folded(vocabulary)
    hashes = hash_contexts(text, classes, folded)
    ends = np.flatnonzero(is_predicted)
    ranks = tree.ranks[text[ends]].astype(np.uint64)
    columns: dict[str, list[NDArray[Any]]] = {n: [] for n in ("buckets", "keys", "begins", "ranks", "counts")}
    shifts, bucket_begins, sizes = [], [0], np.zeros(2, np.int64)
    for i in range(NUM_CONTEXTS):
        pairs = hashes[ends - 1, i].astype(np.uint64) << TOKEN_BITS | ranks
        pairs.sort()
        first = _first_of_equal(pairs)
        keys = (pairs[first] >> TOKEN_BITS).astype(np.uint32)
        begins = _first_of_equal(keys)
        bits = max(1, len(begins).bit_length() - 1)
        shifts.append(32 - bits)
        buckets = np.searchsorted(keys[begins] >> np.uint32(32 - bits), np.arange((1 << bits) + 1))
        columns["buckets"].append((buckets + sizes[0]).astype(np.int32))
        columns["keys"].append(keys[begins])
        columns["begins"].append((begins + sizes[1]).astype(np.int32))
        columns["ranks"].append(pairs[first].astype(np.uint32).view(np.int32))  # the low 32 bits
        columns["counts"].append(np.diff(np.append(first, len(pairs))).astype(np.int32))
        bucket_begins.append(bucket_begins[-1] + len(buckets))
        sizes += len(begins), len(first)
    columns["begins"].append(sizes[1:].astype(np.int32))
    del hashes, pairs
    arrays: dict[str, Any] = {name: np.concatenate(columns.pop(name)) for name in [*columns]}
    heads = np.full(1 << max(10, len(text).bit_length() - 2), -1, np.int32)
    chain = np.full(len(text), -1, np.int32)
    with np.errstate(over="ignore"):
        chain_matches(text, starts, heads, chain)
    return Tables(
        tree,
        classes,
        folded,
        np.array(shifts, np.uint32),
        np.array(bucket_begins),
        text=text.astype(np.int32),
        match_heads=heads,
        match_chain=chain,
        is_used=is_used,
        **arrays,
    )


def hash_contexts(text: NDArray[Any], classes: NDArray[np.int64], folded: NDArray[np.uint64]) -> NDArray[np.uint32]:
    """Return the hashes of all contexts after each token of a text, (tokens, contexts)."""
    starts = document_starts(text)
    hashes = np.empty((len(text), NUM_CONTEXTS), np.uint32)
    capacity = int(np.diff(starts).max())
    with np.errstate(over="ignore"):  # hashes are computed modulo 2^64
        for begin, end in pairwise(starts.tolist()):
            write_all_contexts(new_document(capacity), text[begin:end], classes, folded, hashes[begin:end])
    return hashes


def _first_of_equal(values: NDArray[Any]) -> NDArray[np.int64]:
    """Return the index of the first of each run of equal values."""
    return np.flatnonzero(np.append(True, values[1:] != values[:-1]))


@compiled
def chain_matches(text: Any, starts: Any, heads: Any, chain: Any) -> None:
    """Link the positions after equal tokens: ``heads`` (slots,) by hash, and ``chain`` (tokens,) to the one before."""
    for document in range(len(starts) - 1):
        for position in range(starts[document] + MIN_MATCH - 1, starts[document + 1] - 1):
            slot = finish(hash_last(text, position + 1, MIN_MATCH), MATCH_HASH) & (len(heads) - 1)
            chain[position] = heads[slot]
            heads[slot] = position


@internal
def find_context(tables: Any, kind: Any, key: Any) -> Any:
    """Return the number of a context of a kind, or -1 if its hash is unknown."""
    bucket = tables.bucket_begins[kind] + np.int64(key >> tables.shifts[kind])
    for context in range(tables.buckets[bucket], tables.buckets[bucket + 1]):
        if tables.keys[context] == key:
            return context
    return -1


@compiled
def find_entries(tables: Any, document: Any, entries: Any) -> None:
    """Write the entries that count the document's tokens to ``entries`` (tokens, contexts).

    The document must be part of the training text.
    """
    for t in range(1, document.counters[LENGTH]):
        rank = tables.tree.ranks[document.tokens[t]]
        for i in range(NUM_CONTEXTS):
            entry = tables.begins[find_context(tables, i, document.hashes[t - 1, i])]
            while tables.ranks[entry] != rank:
                entry += 1
            entries[t - 1, i] = entry


@compiled
def add_to_counts(tables: Any, entries: Any, change: Any) -> None:
    """Add ``change`` to the counts at ``entries``."""
    for t in range(entries.shape[0]):
        for i in range(NUM_CONTEXTS):
            tables.counts[entries[t, i]] += change
