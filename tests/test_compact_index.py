"""Tests of the compact index: it knows words and copies, not the text, and it is saved with the model."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save
from toys import chars, table

import revgen
from revgen import CheckpointError, LanguageModel, NotFittedError, OptionError
from revgen.compact_index import MAX_FILTERS, MAX_WORDS, WINDOW, CompactIndex, read_index, word_starts
from revgen.novelty import SuffixIndex


@pytest.fixture(scope="module")
def index(reviews: list[str]) -> CompactIndex:
    return CompactIndex().add(reviews[:100])


def test_every_copy_is_recognized_where_a_word_begins(index: CompactIndex, reviews: list[str]) -> None:
    for text in reviews[:20]:
        for end in word_starts(text):
            for size in (WINDOW, WINDOW + 7, 60):
                assert end < size or index.is_copied(text[end - size : end], size - 1)


def test_few_other_texts_are_taken_for_copies(index: CompactIndex, reviews: list[str]) -> None:
    known = SuffixIndex(reviews[:100])
    texts = [text[i : i + WINDOW] for text in reviews[100:] for i in range(0, len(text) - WINDOW, 3)]
    others = [text for text in texts if text not in known]

    assert len(others) > 1000
    assert np.mean([index.is_copied(text, WINDOW - 1) for text in others]) < 0.04


def test_a_text_that_is_shorter_than_the_limit_copies_nothing(index: CompactIndex, reviews: list[str]) -> None:
    assert not index.is_copied(reviews[0][:WINDOW], WINDOW)
    assert not index.is_copied("", WINDOW)


def test_words_are_those_of_the_text_itself(index: CompactIndex, reviews: list[str]) -> None:
    assert index.words == SuffixIndex(reviews[:100]).words


def test_an_index_is_read_back_from_its_bytes(index: CompactIndex) -> None:
    again = read_index(index.to_bytes())

    assert isinstance(again, CompactIndex)
    assert (again.words, again.filters) == (index.words, index.filters)
    assert isinstance(read_index(SuffixIndex(["ab"]).to_bytes()), SuffixIndex)


def test_the_file_of_an_empty_index_can_be_read() -> None:
    empty = read_index(CompactIndex().add([]).to_bytes())

    assert empty.words == ()
    assert isinstance(empty, CompactIndex) and not empty.is_copied("a" * WINDOW, WINDOW - 1)


def test_damaged_bytes_raise_an_error(index: CompactIndex) -> None:
    data = index.to_bytes()
    for damaged in (
        b"",
        data[:-1],
        data[:100],
        data.replace(b'"words"', b'"werds"'),
        data[:200] + bytes(len(data) - 200),
    ):
        with pytest.raises(ValueError, match="not an index"):
            read_index(damaged)


@pytest.mark.parametrize(
    "words", [b"\n" * (70 << 20), b"\n" * MAX_WORDS, b"a" * (70 << 20)], ids=["bomb", "many", "long"]
)
def test_words_that_take_much_memory_are_refused(words: bytes) -> None:
    arrays = {"words": zlib.compress(words, 1), "windows.0": b"\0"}
    data = save({name: np.frombuffer(content, np.uint8) for name, content in arrays.items()})

    with pytest.raises(ValueError, match="words in the index are cut off, or too many"):
        read_index(data)


def test_the_number_of_parts_is_limited() -> None:
    index = CompactIndex(filters=[b"\0"] * MAX_FILTERS)

    assert isinstance(read_index(index.to_bytes()), CompactIndex)
    with pytest.raises(OptionError, match="index fewer texts, or all in one call"):
        index.add(["a text"])
    with pytest.raises(ValueError, match="windows in the index are missing, or too many"):
        read_index(CompactIndex(filters=[b"\0"] * (MAX_FILTERS + 1)).to_bytes())


def test_a_compact_index_is_saved_without_the_text(reviews: list[str], tmp_path: Path) -> None:
    model = revgen.create("kneser-ney-char", order=3)
    model.fit(reviews[:30], progress=False)
    model.index_texts(reviews[:30], compact=True)

    loaded = revgen.load(model.save(tmp_path / "model"))

    assert isinstance(loaded.text_index, CompactIndex)
    assert b"guitar" not in (tmp_path / "model" / "index.safetensors").read_bytes()
    with pytest.raises(NotFittedError, match=r"compact index, without the training text.*index_texts\(texts\)"):
        loaded.novelty("a text")
    loaded.generation_config = {"max_copied_chars": 5}
    with pytest.raises(OptionError, match="max_copied_chars must be at least 20 with a compact index, not 5"):
        loaded.save(tmp_path / "model")
    (tmp_path / "model" / "index.safetensors").write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match=r"index\.safetensors is damaged"):
        revgen.load(tmp_path / "model").generate(max_copied_chars=20)


def test_texts_can_be_added_to_a_compact_index(reviews: list[str]) -> None:
    model: LanguageModel = table(chars("ab"))
    model.index_texts(reviews[:1])
    model.index_texts(reviews[1:2], compact=True)
    model.index_texts(reviews[2:3])

    index = model.text_index
    assert isinstance(index, CompactIndex)
    assert index.words == SuffixIndex(reviews[:3]).words
    for text in reviews[:3]:
        assert all(index.is_copied(text[:end], WINDOW - 1) for end in word_starts(text, WINDOW))
