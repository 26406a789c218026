"""Tests of novelty: the index of the training text, reports of copied spans, and generation that limits copying."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toys import chars, table

import revgen
from revgen import CheckpointError, LanguageModel, NotFittedError, OptionError
from revgen.generation.text_guides import CopyGuide
from revgen.novelty import CheckedText, CopyReport, Span, SuffixIndex, find_copies
from revgen.registry import tokenizers


@pytest.fixture(scope="module", params=["char", "word", "subword"])
def copier(request: pytest.FixtureRequest, reviews: list[str]) -> LanguageModel:
    """An n-gram model of high order, which copies long spans of its training text."""
    model = revgen.create(f"ngram-{request.param}", order=20)
    model.fit(reviews[:40], index_texts=True, progress=False)
    return model


def test_novelty_reports_the_copied_spans(copier: LanguageModel, reviews: list[str]) -> None:
    text = "QX" + reviews[7][10:60] + "XQ"

    report = copier.novelty(text)

    assert report == find_copies(text, reviews[:40])
    assert report.longest >= 50
    assert copier.novelty(text, minimum=1000).spans == ()


def test_white_space_at_the_ends_of_a_copy_does_not_count() -> None:
    training = "def f(x):\n        return x\n        pass"

    report = find_copies("_\n        return x\n        _", training, minimum=8)

    assert report == CopyReport((Span(10, 18),), longest=8, fraction=8 / 28)
    assert find_copies(" " * 8, training, minimum=8) == CopyReport((), longest=0, fraction=0.0)


def test_checked_texts_are_strings_with_a_copy_report(copier: LanguageModel) -> None:
    texts = copier.generate("The ", n=3, seed=0, max_tokens=60, check_novelty=True)

    assert texts == copier.generate("The ", n=3, seed=0, max_tokens=60)
    for text in texts:
        assert isinstance(text, CheckedText)
        assert text.copied == copier.novelty(text)
    single = copier.generate("The ", seed=0, max_tokens=60, check_novelty=True)
    assert isinstance(single, CheckedText) and single.copied.longest > 0
    assert not isinstance(copier.generate("The ", seed=0, max_tokens=5), CheckedText)


@pytest.mark.parametrize("limit", [1, 3, 12, 40])
def test_no_text_copies_more_than_max_copied_chars(copier: LanguageModel, limit: int) -> None:
    texts = copier.generate(["The ", ""], n=4, seed=0, max_tokens=80, max_copied_chars=limit, min_tokens=5)

    for text in itertools.chain(*texts):
        for start in range(len(text) - limit):
            end = start + limit + 1
            assert text[start:end] not in copier.index or end <= len("The "), text[start:end]


def test_a_limit_that_is_never_reached_does_not_change_the_text(copier: LanguageModel) -> None:
    options: dict[str, Any] = {"seed": 3, "max_tokens": 60}

    assert copier.generate("The ", max_copied_chars=10**6, **options) == copier.generate("The ", **options)


def test_max_copied_chars_bans_exactly_the_tokens_that_copy_too_much(reviews: list[str]) -> None:
    for level, limit in (("char", 12), ("word", 12), ("subword", 9)):
        tokenizer = tokenizers.get(level).train(reviews)
        index = SuffixIndex(reviews[:40])
        guide = CopyGuide(tokenizer, index, limit)
        for begin in ("The guit", reviews[5][40:75], reviews[9][3:14], ""):
            allowed = guide.allowed_tokens(guide.initial_state(begin), 1)
            for token, spelled in enumerate(tokenizer.token_bytes):
                text = begin + spelled.decode(errors="ignore")
                ends = range(len(begin) + 1, len(text) + 1)
                copies = any(end > limit and text[end - limit - 1 : end] in index for end in ends)
                assert allowed[token] == (not copies), (level, begin, spelled)


def test_max_copied_chars_counts_spelled_characters() -> None:
    tokenizer = tokenizers.get("char").train(["abc"], min_count=1)
    guide = CopyGuide(tokenizer, SuffixIndex(["ab中c"]), 2)
    last = tokenizer.spell("中")[-1]
    other = tokenizer.spell("丮")[-1]  # a digit that completes another character

    state = guide.initial_state("ab")
    for digit in tokenizer.spell("中")[:-1]:
        assert guide.allowed_tokens(state, 9)[digit]
        state = guide.next_state(state, digit)

    assert not guide.allowed_tokens(state, 9)[last]
    assert guide.allowed_tokens(state, 9)[other]
    assert not guide.allowed_tokens(guide.initial_state("b中"), 9)[tokenizer.encode("c")[0]]


def test_max_copied_chars_combines_with_greedy_decoding_beams_and_filters(copier: LanguageModel) -> None:
    greedy: dict[str, Any] = {"temperature": 0}
    for options in (greedy, {"num_beams": 3, "min_tokens": 30}, {"top_k": 1}, {"top_p": 0.3}):
        text = copier.generate("The ", max_copied_chars=15, max_tokens=50, seed=0, **options)
        assert all(text[i : i + 16] not in copier.index for i in range(len(text) - 15))


def test_the_index_is_saved_with_the_model_and_read_on_first_use(
    copier: LanguageModel, reviews: list[str], tmp_path: Path
) -> None:
    directory = copier.save(tmp_path / "model")
    loaded = revgen.load(directory)

    assert loaded.has_index and callable(loaded._index)
    assert loaded.novelty(reviews[3]).fraction == 1
    again = revgen.load(revgen.load(directory).save(tmp_path / "again"))
    assert again.novelty(reviews[3]) == copier.novelty(reviews[3])
    assert (again.index.suffixes == copier.index.suffixes).all()


def test_a_damaged_index_file_is_named_in_the_error(copier: LanguageModel, tmp_path: Path) -> None:
    directory = copier.save(tmp_path / "model")
    (directory / "index.safetensors").write_bytes(b"nothing")
    model = revgen.load(directory)

    assert model.generate("The ", max_tokens=3)
    with pytest.raises(CheckpointError, match=r"index\.safetensors is damaged"):
        model.novelty("a text")


@pytest.mark.parametrize("data", [b"", b"nothing", SuffixIndex(["ab"]).to_bytes()[:-1]])
def test_reading_damaged_index_bytes_raises_an_error(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"not an index|do not belong"):
        SuffixIndex.from_bytes(data)


def test_a_model_without_an_index_is_saved_without_one(
    copier: LanguageModel, small_model: LanguageModel, tmp_path: Path
) -> None:
    copier.save(tmp_path / "model")
    small_model.save(tmp_path / "model", overwrite=True)

    assert not (tmp_path / "model" / "index.safetensors").exists()
    assert "index" not in json.loads((tmp_path / "model" / "config.json").read_bytes())
    assert not revgen.load(tmp_path / "model").has_index


@pytest.mark.parametrize("options", [{"max_copied_chars": 9}, {"check_novelty": True}])
def test_the_error_without_an_index_says_how_to_create_one(options: dict[str, Any]) -> None:
    model = table(chars("ab"))
    with pytest.raises(
        NotFittedError, match=r"has no index of its training text: fit it with index_texts=True, or call index_texts"
    ):
        model.generate("a", **options)

    model.index_texts(["abab"])

    assert model.generate("", max_tokens=5, seed=0, **options) is not None


def test_index_texts_adds_to_the_texts_indexed_before(small_model: LanguageModel, tmp_path: Path) -> None:
    model = revgen.load(small_model.save(tmp_path / "model"))

    model.index_texts(["the first text"])
    model.index_texts(["another one"])

    assert [model.novelty(text, 5).longest for text in ("the first text", "another one")] == [14, 11]
    assert "textanother" not in model.index


def test_fit_can_index_the_training_text_of_a_neural_model(reviews: list[str]) -> None:
    model = revgen.create("gru-char", hidden_size=8, num_layers=1)
    model.fit(reviews[:10], epochs=1, progress=False, index_texts=True)

    assert model.novelty(reviews[4]).fraction == 1
    assert np.mean([model.novelty(text).fraction for text in reviews[20:30]]) < 0.1


def test_a_stream_cannot_be_checked_for_novelty(copier: LanguageModel) -> None:
    with pytest.raises(OptionError, match="check_novelty must be False: only a complete text can be checked"):
        copier.stream("a", check_novelty=True)
