"""Tests of the labels of a corpus: fields, columns, lists, and tokens that carry them."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import revgen
from revgen.corpus.batches import Batches
from revgen.corpus.tokens import tokenize
from revgen.registry import tokenizers


def labels_of(corpus: revgen.Corpus) -> list[str | int | None]:
    return [corpus.label for _, last in corpus.blocks() if last]


def test_labels_are_read_from_a_field_of_jsonl_and_csv(tmp_path: Path) -> None:
    rows = [("a b", "x"), ("", "left out"), ("c", "x"), ("d e", "y")]
    lines = tmp_path / "corpus.jsonl"
    lines.write_text("".join(json.dumps({"text": text, "genre": genre or None}) + "\n" for text, genre in rows))
    table = tmp_path / "corpus.csv"
    table.write_text("text,genre\n" + "".join(f"{text},{genre}\n" for text, genre in rows))

    for path in (lines, table):
        corpus = revgen.read(path, labels="genre")
        assert list(corpus) == ["a b", "c", "d e"]
        assert labels_of(corpus) == ["x", "x", "y"]
        assert corpus.label_names() == ["x", "y"]
        assert labels_of(revgen.read(revgen.read(path), labels="genre")) == ["x", "x", "y"]
        with pytest.raises(revgen.CorpusError, match="'year'"):
            list(revgen.read(path, labels="year"))


def test_labels_are_read_from_a_column_of_a_data_frame() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"text": ["a", "b", "c"], "stars": [5, 1, 5]})

    assert labels_of(revgen.read(frame, labels="stars")) == [5, 1, 5]
    assert labels_of(revgen.read(frame.text, labels=frame.stars)) == [5, 1, 5]
    with pytest.raises(revgen.CorpusError, match="no column 'year'"):
        revgen.read(frame, labels="year")


def test_labels_are_read_from_a_column_of_parquet(tmp_path: Path) -> None:
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "corpus.parquet"
    parquet.write_table(pyarrow.table({"n": [1, 2], "text": ["a", "b"], "genre": ["x", None]}), path)

    assert labels_of(revgen.read(path, labels="n")) == [1, 2]
    assert labels_of(revgen.read(path)) == [None, None]
    with pytest.raises(revgen.CorpusError, match="line 2: the row has no label in 'genre'"):
        list(revgen.read(path, labels="genre"))
    assert labels_of(revgen.read(path, labels="genre", errors="skip")) == ["x"]


@pytest.mark.parametrize("missing", [None, float("nan"), np.nan, ""])
def test_error_for_a_missing_label_names_the_row(missing: Any, tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    with pytest.raises(revgen.OptionError, match=r"labels has no label for item 2, 'b'"):
        list(revgen.read(["a", "b"], labels=["x", missing]))
    frame = pandas.DataFrame({"text": ["a", "b"], "stars": pandas.array([1, pandas.NA], dtype="Int64")})
    with pytest.raises(revgen.OptionError, match=r"labels has no label for item 2, 'b'"):
        list(revgen.read(frame, labels="stars"))
    table = tmp_path / "corpus.csv"
    table.write_text("text,genre\na,x\nb,\n")
    with pytest.raises(revgen.CorpusError, match=r"corpus\.csv, line 3: the row has no label in 'genre'"):
        list(revgen.read(table, labels="genre"))


@pytest.mark.parametrize("labels", [[0, 1], np.array([0, 1]), [False, True], [0.0, 1.0], ["0", "1"]])
def test_integer_labels_stay_integers_when_saved(labels: Any, tmp_path: Path) -> None:
    model = revgen.create("textgenrnn-char", hidden_size=8, num_layers=1, embedding_size=8)
    model.fit(["good film", "bad film"] * 20, labels=list(labels) * 20, epochs=1, progress=False)
    loaded = revgen.load(model.save(tmp_path / "model"))

    texts = isinstance(labels[0], str)
    assert model.labels == loaded.labels == (("0", "1") if texts else (0, 1))
    assert type(loaded.labels[1]) is type(model.labels[1])
    label: Any
    for label in (1, np.int64(1), "1", True):
        assert loaded.generate("", label=label, seed=1) == model.generate("", label=1, seed=1)
    model.fit(["good film", "new film"] * 20, labels=[1, "x"] * 20, epochs=1, progress=False)
    assert model.labels[-1] == "x" and len(model.labels) == 3 + texts


def test_each_file_has_a_label(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / f"{name}.txt").write_text(f"{name} one\n{name} two\n")
    files = [tmp_path / "a.txt", tmp_path / "b.txt"]

    assert labels_of(revgen.read(files, labels=["A", "B"])) == ["A", "B"]
    assert labels_of(revgen.read(files, documents="line", labels=["A", "B"])) == ["A", "A", "B", "B"]
    with pytest.raises(revgen.CorpusError, match="no field 'genre'"):
        list(revgen.read(files, labels="genre"))


@pytest.mark.parametrize("labels", [["x"], ["x"] * 3, []])
def test_number_of_labels_must_equal_the_number_of_texts(labels: list[str]) -> None:
    with pytest.raises(revgen.OptionError, match="labels must have one label for each text or file"):
        revgen.create("textgenrnn-char").fit(["some text", "another"], labels=labels, progress=False)


@pytest.mark.parametrize("labels", ["genre", 5])
def test_labels_of_texts_in_memory_cannot_be_a_field(labels: Any) -> None:
    with pytest.raises(revgen.OptionError, match="labels must have one label for each text"):
        revgen.read(["some text"], labels=labels)


def test_every_token_carries_its_label_and_some_documents_have_none() -> None:
    texts, labels = ["the sea and the sand. ", "big city drums, big beat. "] * 20, ["sea", "city"] * 20
    corpus = revgen.read(texts, labels=labels)
    tokenizer = tokenizers.get("char").train(corpus)
    tokens = tokenize(corpus, tokenizer, ("city", "sea"))

    for ids, text, label in zip(tokens.documents(), texts, labels, strict=True):
        assert tokenizer.decode(ids[1:-1] % len(tokenizer)) == text
        assert set((ids // len(tokenizer)).tolist()) == {1 + ("city", "sea").index(label)}
    for part in tokens.split(0.2, seed=0):
        assert part.vocab == len(tokenizer)

    found: Counter[int] = Counter()
    plain = [list(Batches(tokenize(corpus, tokenizer), 20, 10, 0, epoch)) for epoch in range(10)]
    for epoch in range(10):
        for (inputs, targets), (wanted, following) in zip(Batches(tokens, 20, 10, 0, epoch), plain[epoch], strict=True):
            assert (inputs % len(tokenizer) == wanted).all() and (targets == following).all()
            found.update((inputs // len(tokenizer)).flatten().tolist())
    assert 0.03 < found[0] / found.total() < 0.2
    assert min(found[1], found[2]) / found.total() > 0.3
