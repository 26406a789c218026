"""Batches: rows of a stream of documents, read chunk by chunk, every token once an epoch."""

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

lengths = st.lists(st.integers(3, 60), min_size=1, max_size=30)
fast = settings(deadline=None, max_examples=100)


def numbered(*lengths: int) -> Tokens:
    """Documents of these lengths whose tokens are their places in the stream, so that each is known again."""
    ends = np.cumsum(lengths)
    return Tokens(np.arange(ends[-1], dtype=np.uint16), np.stack([ends - lengths, ends], 1))


def chunks(
    tokens: Tokens, batch_size: int = 4, sequence_length: int = 10, seed: int = 0, epoch: int = 0
) -> list[Chunk]:
    batches = Batches(tokens, batch_size, sequence_length, seed, epoch)
    found = list(batches)
    assert len(batches) == len(found)
    return found


def rows(found: list[Chunk]) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The inputs of all chunks, (batch, time)."""
    return np.concatenate([inputs for inputs, _ in found]).T


@fast
@given(lengths=lengths, batch_size=st.integers(1, 8), sequence_length=st.integers(1, 40), seed=st.integers(0, 9))
def test_rows_go_on_from_chunk_to_chunk_and_every_token_but_the_slack_comes_once(
    lengths: list[int], batch_size: int, sequence_length: int, seed: int
) -> None:
    total = sum(lengths)
    if (total - 1) // batch_size < 2:
        return

    found = chunks(numbered(*lengths), batch_size, sequence_length, seed)

    for inputs, targets in found:
        assert inputs.shape == targets.shape == (len(inputs), batch_size)
        assert 1 <= len(inputs) <= max(1, round(1.25 * sequence_length))
        assert (inputs[1:] == targets[:-1]).all(), "targets are the inputs one later"
    for (_, targets), (inputs, _) in pairwise(found):
        assert (targets[-1] == inputs[0]).all(), "a chunk begins where the one before ends"
    seen = rows(found).ravel()
    assert len(set(seen.tolist())) == len(seen), "no token comes twice"
    assert total - len(seen) <= batch_size, "no more is left out than does not fill the rows"


@fast
@given(lengths=lengths)
def test_documents_stay_whole_within_a_row(lengths: list[int]) -> None:
    tokens = numbered(*lengths)
    last = {end - 1 for end in tokens.spans[:, 1].tolist()}

    found = chunks(tokens, batch_size=1)

    stream = rows(found)[0].tolist()
    assert all(after == before + 1 for before, after in pairwise(stream) if before not in last)


def test_a_part_of_a_corpus_is_read_alone() -> None:
    whole = numbered(*[20] * 10)
    part = Tokens(whole.ids, whole.spans[[1, 4, 7]])

    seen = set(rows(chunks(part, batch_size=2)).ravel().tolist())

    assert seen <= {place for start, end in part.spans.tolist() for place in range(start, end)}
    assert len(seen) >= len(part) - 2


def test_the_same_seed_and_epoch_give_the_same_batches() -> None:
    tokens = numbered(*range(3, 40))

    once, again = chunks(tokens, seed=1, epoch=2), chunks(tokens, seed=1, epoch=2)

    assert len(once) == len(again)
    assert all((a[0] == b[0]).all() and (a[1] == b[1]).all() for a, b in zip(once, again, strict=True))


@pytest.mark.parametrize("other", [{"epoch": 1}, {"seed": 1}])
def test_another_epoch_or_seed_gives_another_order(other: dict[str, int]) -> None:
    tokens = numbered(*range(3, 40))

    assert not np.array_equal(rows(chunks(tokens)), rows(chunks(tokens, **other)))


def test_a_single_document_begins_at_another_place_each_epoch() -> None:
    firsts = {int(chunks(numbered(103), batch_size=10, epoch=epoch)[0][0][0, 0]) for epoch in range(20)}

    assert firsts == {0, 1, 2}


def test_chunks_have_few_lengths_around_the_one_asked_for() -> None:
    found = chunks(numbered(*[100] * 50), sequence_length=20)

    assert {len(inputs) for inputs, _ in found[:-1]} == {15, 20, 25}


@pytest.mark.parametrize(("tokens", "batch_size"), [(3, 2), (64, 32), (10, 100)])
def test_a_corpus_shorter_than_a_batch_says_what_to_do(tokens: int, batch_size: int) -> None:
    with pytest.raises(CorpusError, match=f"{tokens} tokens for batch_size={batch_size}; .*smaller batch_size"):
        Batches(numbered(tokens), batch_size, 10, 0, 0)


def test_the_shortest_corpus_that_fills_a_batch_is_read() -> None:
    assert rows(chunks(numbered(65), batch_size=32)).shape == (32, 2)
