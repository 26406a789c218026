"""The datasets in the package."""

from __future__ import annotations

import json

import pytest

import revgen


def test_reviews_are_long_enough_to_train_on() -> None:
    texts = list(revgen.datasets.load("reviews"))

    assert len(texts) >= 150
    assert sum(map(len, texts)) >= 60_000
    assert len(set(texts)) == len(texts)
    assert all(text == text.strip() and len(text) > 100 for text in texts)


def test_dinosaurs_are_different_names() -> None:
    names = list(revgen.datasets.load("dinosaurs"))

    assert len(names) == len(set(names)) == 600
    assert all(name.isalpha() and name.istitle() for name in names)


def test_a_dataset_can_be_read_repeatedly() -> None:
    corpus = revgen.datasets.load("reviews")

    assert list(corpus) == list(corpus)


def test_a_dataset_can_be_read_by_two_iterators_at_once() -> None:
    corpus = revgen.datasets.load("reviews")

    assert all(a == b for a, b in zip(corpus, corpus, strict=True))


def test_a_model_is_trained_and_evaluated_on_a_dataset() -> None:
    model = revgen.create("gru-char", hidden_size=8, num_layers=1)

    model.fit(revgen.datasets.load("reviews"), epochs=1, sequence_length=200, progress=False)

    evaluation = model.evaluate(revgen.datasets.load("reviews"))
    assert evaluation.documents == len(list(revgen.datasets.load("reviews")))


def test_each_review_has_an_artist_a_title_and_a_genre() -> None:
    lines = revgen.datasets.path("reviews").read_text(encoding="utf-8").splitlines()

    assert all({"text", "artist", "title", "genre"} <= json.loads(line).keys() for line in lines)


def test_each_listed_name_can_be_loaded() -> None:
    assert "reviews" in revgen.datasets.names()
    for name in revgen.datasets.names():
        assert next(iter(revgen.datasets.load(name)))


@pytest.mark.parametrize("name", ["review", "revews", "", "../reviews"])
def test_an_unknown_name_is_an_error_that_lists_the_known_names(name: str) -> None:
    with pytest.raises(revgen.UnknownNameError, match=r"there is no data set .*reviews"):
        revgen.datasets.load(name)
