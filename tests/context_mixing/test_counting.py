"""Tests of counting contexts."""

from __future__ import annotations

from collections import Counter, defaultdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import revgen
from revgen.context_mixing import counting
from revgen.context_mixing.contexts import new_document, write_all_contexts
from revgen.context_mixing.counting import (
    Tables,
    add_to_counts,
    count_contexts,
    document_starts,
    find_entries,
)
from revgen.context_mixing.parts import CONTEXTS, NUM_CONTEXTS, PARTS

find_context = counting.find_context.py_func  # only compiled code can call the compiled function
VOCABULARY = ("<s>", "</s>", "<unk>", "a", "b", " ")


@pytest.fixture(scope="module")
def text() -> NDArray[np.uint8]:
    rng = np.random.default_rng(0)
    documents = [np.concatenate([[0], rng.integers(3, 6, size), [1]]) for size in (0, 1, 40, 90, 200)]
    return np.concatenate(documents).astype(np.uint8)


@pytest.fixture(scope="module")
def tables(text: NDArray[Any]) -> Tables:
    return count_contexts(text, VOCABULARY, np.ones(len(PARTS), bool))


def hashes_of(tables: Tables, ids: NDArray[Any]) -> NDArray[np.uint32]:
    document = new_document(len(ids))
    with np.errstate(over="ignore"):
        write_all_contexts(document, ids, tables.classes, tables.folded, document.hashes)
    return document.hashes


@pytest.mark.parametrize("order", [0, 1, 2, 5])
def test_counts_of_an_order_equal_a_count_by_hand(order: int, text: NDArray[Any], tables: Tables) -> None:
    expected: dict[tuple[int, ...], Counter[int]] = defaultdict(Counter)
    starts = document_starts(text)
    for begin, end in pairwise(starts.tolist()):
        for t in range(begin + 1, end):
            expected[tuple(text[max(begin, t - order) : t])][int(tables.tree.ranks[text[t]])] += 1

    for begin, end in pairwise(starts.tolist()):
        hashes = hashes_of(tables, text[begin:end])
        for t in range(begin + 1, end):
            context = find_context(tables, order, hashes[t - begin - 1, order])
            entries = slice(tables.begins[context], tables.begins[context + 1])
            counted = dict(zip(tables.ranks[entries].tolist(), tables.counts[entries].tolist(), strict=True))
            assert counted == expected[tuple(text[max(begin, t - order) : t])]


def test_each_kind_of_context_counts_every_token_once(text: NDArray[Any], tables: Tables) -> None:
    assert tables.counts.sum() == NUM_CONTEXTS * (text != 0).sum()


def test_unknown_context_is_not_found(tables: Tables) -> None:
    known = {*tables.keys.tolist()}
    unknown = next(np.uint32(key) for key in range(1 << 20, 1 << 21) if key not in known)
    assert all(find_context(tables, kind, unknown) == -1 for kind in range(NUM_CONTEXTS))


def test_subtracting_a_document_leaves_the_counts_of_the_others(text: NDArray[Any], tables: Tables) -> None:
    starts = document_starts(text)
    begin, end = int(starts[3]), int(starts[4])
    others = count_contexts(np.concatenate([text[:begin], text[end:]]), VOCABULARY, tables.is_used)
    before = tables.counts.copy()
    document = new_document(end - begin)
    with np.errstate(over="ignore"):
        write_all_contexts(document, text[begin:end], tables.classes, tables.folded, document.hashes)
        entries = np.zeros((end - begin - 1, NUM_CONTEXTS), np.int64)
        find_entries(tables, document, entries)
    add_to_counts(tables, entries, -1)
    assert tables.counts.min() == 0
    assert np.sort(tables.counts[tables.counts > 0]).tolist() == np.sort(others.counts).tolist()
    add_to_counts(tables, entries, 1)
    assert (tables.counts == before).all()


def test_contexts_with_a_gap_ignore_the_tokens_in_it() -> None:
    document_a, document_b = ([0, *ids] for ids in ([3, 4, 3, 3, 4], [4, 4, 3, 3, 3]))
    tables = count_contexts(np.array([*document_a, 1, *document_b, 1], np.uint8), VOCABULARY, np.ones(len(PARTS), bool))
    a, b = (hashes_of(tables, np.array(ids))[-1] for ids in (document_a, document_b))
    equal = {name for name, x, y in zip(CONTEXTS, a, b, strict=True) if x == y}
    assert {"order 0", "skip 1, 2 tokens", "skip 1, 3 tokens", "column", "classes"} - equal == {"column"}
    assert not {"order 1", "order 2", "word", "skip the second, 2 tokens"} & equal


def test_a_text_that_needs_more_memory_than_there_is_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = revgen.create("cm-char", tokenizer={"min_count": 1})
    model.fit(["the band of the song"] * 4, epochs=1, progress=False)
    directory = model.save(tmp_path / "model")
    monkeypatch.setattr(counting, "free_memory", lambda: 50_000)

    with pytest.raises(
        revgen.CheckpointError, match=r"88 tokens takes up to 96\.8 kB of memory, and 50\.0 kB are free"
    ):
        revgen.load(directory)
    with pytest.raises(revgen.OptionError, match="are free: limit it by max_bytes"):
        model.fit(["the band of the song"] * 4, epochs=1, progress=False)
