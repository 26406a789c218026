"""Batches: rows of a stream of documents, read chunk by chunk, each token at most once per epoch."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from revgen import CorpusError
from revgen.corpus.batches import Batches
from revgen.corpus.tokens import Tokens

Chunk = tuple[np.ndarray[Any, np.dtype[np.int64]], np.ndarray[Any, np.dtype[np.int64]]]

document_lengths = st.lists(st.integers(3, 60), min_size=1, max_size=30)
fast = settings(deadline=None, max_examples=100)


def make_tokens(*lengths: int) -> Tokens:
    """Return documents of these lengths in which each token is its own position in the stream."""
    ends = np.cumsum(lengths)
    return Tokens(np.arange(ends[-1], dtype=np.uint16), np.stack([ends - lengths, ends], 1))


def read_chunks(
    tokens: Tokens, batch_size: int = 4, sequence_length: int = 10, seed: int = 0, epoch: int = 0
) -> list[Chunk]:
    batches = Batches(tokens, batch_size, sequence_length, seed, epoch)
    chunks = list(batches)
    assert len(batches) == len(chunks)
    return chunks


def join_rows(chunks: list[Chunk]) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return the inputs of all chunks, (batch, time)."""
    return np.concatenate([inputs for inputs, _ in chunks]).T


@fast
@given(
    lengths=document_lengths, batch_size=st.integers(1, 8), sequence_length=st.integers(1, 40), seed=st.integers(0, 9)
)
def test_rows_continue_across_chunks_and_contain_each_token_once(
    lengths: list[int], batch_size: int, sequence_length: int, seed: int
) -> None:
    total = sum(lengths)
    if (total - 1) // batch_size < 2:
        return

    chunks = read_chunks(make_tokens(*lengths), batch_size, sequence_length, seed)

    for inputs, targets in chunks:
        assert inputs.shape == targets.shape == (len(inputs), batch_size)
        assert 1 <= len(inputs) <= max(1, round(1.25 * sequence_length))
        assert (inputs[1:] == targets[:-1]).all(), "targets are the next inputs"
    for (_, targets), (inputs, _) in pairwise(chunks):
        assert (targets[-1] == inputs[0]).all(), "a chunk starts where the previous one ends"
    tokens = join_rows(chunks).ravel()
    assert len(set(tokens.tolist())) == len(tokens), "no token is repeated"
    assert total - len(tokens) <= batch_size, "at most one token per row is left out"


@fast
@given(lengths=document_lengths)
def test_documents_are_not_split_within_a_row(lengths: list[int]) -> None:
    tokens = make_tokens(*lengths)
    last_tokens = {end - 1 for end in tokens.spans[:, 1].tolist()}

    chunks = read_chunks(tokens, batch_size=1)

    stream = join_rows(chunks)[0].tolist()
    assert all(after == before + 1 for before, after in pairwise(stream) if before not in last_tokens)


def test_only_the_documents_of_a_part_are_read() -> None:
    corpus = make_tokens(*[20] * 10)
    part = Tokens(corpus.ids, corpus.spans[[1, 4, 7]])

    tokens = set(join_rows(read_chunks(part, batch_size=2)).ravel().tolist())

    assert tokens <= {position for start, end in part.spans.tolist() for position in range(start, end)}
    assert len(tokens) >= len(part) - 2


def test_same_seed_and_epoch_give_the_same_batches() -> None:
    tokens = make_tokens(*range(3, 40))

    first, second = read_chunks(tokens, seed=1, epoch=2), read_chunks(tokens, seed=1, epoch=2)

    assert len(first) == len(second)
    assert all((a[0] == b[0]).all() and (a[1] == b[1]).all() for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("other", [{"epoch": 1}, {"seed": 1}])
def test_another_epoch_or_seed_gives_another_order(other: dict[str, int]) -> None:
    tokens = make_tokens(*range(3, 40))

    assert not np.array_equal(join_rows(read_chunks(tokens)), join_rows(read_chunks(tokens, **other)))


def test_a_single_document_starts_at_a_random_offset_in_each_epoch() -> None:
    offsets = {int(read_chunks(make_tokens(103), batch_size=10, epoch=epoch)[0][0][0, 0]) for epoch in range(20)}

    assert offsets == {0, 1, 2}


def test_chunk_lengths_are_near_the_sequence_length() -> None:
    chunks = read_chunks(make_tokens(*[100] * 50), sequence_length=20)

    assert {len(inputs) for inputs, _ in chunks[:-1]} == {15, 20, 25}


@pytest.mark.parametrize(("num_tokens", "batch_size"), [(3, 2), (64, 32), (10, 100)])
def test_a_corpus_shorter_than_a_batch_is_an_error_with_advice(num_tokens: int, batch_size: int) -> None:
    with pytest.raises(CorpusError, match=f"{num_tokens} tokens for batch_size={batch_size}; .*smaller batch_size"):
        Batches(make_tokens(num_tokens), batch_size, 10, 0, 0)


def test_the_shortest_corpus_that_fills_a_batch_is_read() -> None:
    assert join_rows(read_chunks(make_tokens(65), batch_size=32)).shape == (32, 2)
