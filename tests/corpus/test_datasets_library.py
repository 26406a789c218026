"""What other libraries hand over: tables of ``datasets``, the real ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import revgen
from revgen.datasets import path

datasets = pytest.importorskip("datasets")


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The reviews as a table with the columns text, artist, title and genre."""
    cache = str(tmp_path_factory.mktemp("datasets"))
    return datasets.load_dataset("json", data_files=str(path("reviews")), split="train", cache_dir=cache)


def test_a_table_and_its_column_are_a_corpus(table: Any, reviews: list[str]) -> None:
    assert list(revgen.read(table)) == list(revgen.read(table["text"])) == reviews
    assert next(iter(revgen.read(table, field="title"))) == table[0]["title"]


def test_a_table_that_is_streamed_is_a_corpus(table: Any, reviews: list[str]) -> None:
    assert list(revgen.read(table.to_iterable_dataset())) == reviews


def test_a_column_that_there_is_not_is_named(table: Any) -> None:
    with pytest.raises(revgen.CorpusError, match=r"the table has no column 'body'; it has .*text"):
        list(revgen.read(table, field="body"))


def test_models_learn_from_columns_and_labels(table: Any, tmp_path: Path) -> None:
    counting = revgen.create("kneser-ney-char")
    counting.fit(table["text"], progress=False)
    assert counting.generate("the ", max_tokens=10, seed=1).startswith("the ")

    part = table.select(range(20))
    labelled = revgen.create("textgenrnn-char", hidden_size=8)
    labelled.fit(part, labels="genre", epochs=1, progress=False)
    assert set(labelled.labels) == set(part["genre"])
