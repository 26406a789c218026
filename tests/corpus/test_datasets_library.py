"""Tables of the library ``datasets`` as corpora."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import revgen
from revgen.datasets import path

datasets = pytest.importorskip("datasets")


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return the reviews as a table with the columns text, artist, title and genre."""
    cache = str(tmp_path_factory.mktemp("datasets"))
    return datasets.load_dataset("json", data_files=str(path("reviews")), split="train", cache_dir=cache)


def test_a_table_or_its_column_is_a_corpus(table: Any, reviews: list[str]) -> None:
    assert list(revgen.read(table)) == list(revgen.read(table["text"])) == reviews
    assert next(iter(revgen.read(table, field="title"))) == table[0]["title"]


def test_a_streamed_table_is_a_corpus(table: Any, reviews: list[str]) -> None:
    assert list(revgen.read(table.to_iterable_dataset())) == reviews


def test_a_missing_column_is_an_error_that_lists_the_columns(table: Any) -> None:
    with pytest.raises(revgen.CorpusError, match=r"the table has no column 'body'; it has .*text"):
        list(revgen.read(table, field="body"))


def test_models_are_trained_on_columns_and_labels(table: Any, tmp_path: Path) -> None:
    model = revgen.create("kneser-ney-char")
    model.fit(table["text"], progress=False)
    assert model.generate("the ", max_tokens=10, seed=1).startswith("the ")

    part = table.select(range(20))
    labeled = revgen.create("textgenrnn-char", hidden_size=8)
    labeled.fit(part, labels="genre", epochs=1, progress=False)
    assert set(labeled.labels) == set(part["genre"])
