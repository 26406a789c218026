"""Files that unpack to far more than their size, endless lines and open quotes: bounded memory, and clear errors."""

from __future__ import annotations

import gzip
import os
import zipfile
from collections import namedtuple
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

import revgen
from revgen import CorpusError, OptionError

LIMIT = 1000
LINE = b"the song of the band\n"
TOO_LARGE = r"more than 1,000 bytes.*max_document_bytes"

LARGE: dict[str, tuple[bytes, list[str]]] = {  # the content of a file, and the documents that can be read from it
    "line.jsonl": (b'{"text": "one"}\n{"text": "' + b"a" * 2000 + b'"}\n{"text": "two"}\n', ["one", "two"]),
    "line.csv": (b"text,id\none,1\n" + b"a" * 2000 + b",2\ntwo,3\n", ["one", "two"]),
    "quote.csv": (b'id,text\n1,one\n2,"' + LINE * 100, ["one"]),
    "column.csv": (b'text\none\n"' + LINE * 100, ["one"]),
    "header.csv": (b"a" * 2000, []),
    "item.json": (b'["one", "' + b"a" * 5000 + b'", "two"]', ["one", "two"]),
    "object.json": (b'{"text": "' + b"a" * 5000 + b'"}', []),
    "large.json": (b'["one", "' + b"a" * (3 << 20) + b'", "two"]', ["one"]),
}


@pytest.mark.parametrize("name", LARGE)
@pytest.mark.parametrize("packed", ["", ".gz"])
def test_a_line_row_or_value_over_the_limit_is_an_error(tmp_path: Path, name: str, packed: str) -> None:
    content, _ = LARGE[name]
    path = tmp_path / f"{name}{packed}"
    path.write_bytes(gzip.compress(content) if packed else content)

    with pytest.raises(CorpusError, match=TOO_LARGE) as caught:
        list(revgen.read(path, max_document_bytes=LIMIT))

    assert str(path) in str(caught.value)


@pytest.mark.parametrize("name", ["line.jsonl", "line.csv", "item.json"])
def test_a_line_row_or_value_over_the_limit_can_be_skipped(tmp_path: Path, name: str) -> None:
    content, documents = LARGE[name]
    (tmp_path / name).write_bytes(content)
    corpus = revgen.read(tmp_path / name, max_document_bytes=LIMIT, errors="skip")

    assert list(corpus) == documents
    assert corpus.skipped == 1


def test_rows_after_a_row_over_the_limit_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b'id,text\n1,"' + b"a line\n" * 200 + b"2,two\n3,three\n")
    corpus = revgen.read(path, max_document_bytes=LIMIT, errors="skip")

    assert list(corpus)[-2:] == ["two", "three"]


@pytest.mark.parametrize("documents", ["line", "blank"])
def test_a_line_of_text_over_the_limit_is_an_error_where_lines_are_read(tmp_path: Path, documents: str) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"one\n\n" + b"a" * 2000 + b"\n\ntwo\n")

    with pytest.raises(CorpusError, match=f"line 3: the line has {TOO_LARGE}"):
        list(revgen.read(path, documents=documents, max_document_bytes=LIMIT))
    assert list(revgen.read(path, documents=documents, max_document_bytes=LIMIT, errors="skip")) == ["one", "two"]


def test_a_text_file_over_the_limit_is_read_in_blocks_but_not_as_one_string(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(LINE * 100)
    (tmp_path / "b.txt").write_bytes(b"short")
    corpus = revgen.read(tmp_path, max_document_bytes=LIMIT)

    assert sum(len(text) for text in corpus.pieces()) == 2100 + 5
    with pytest.raises(CorpusError, match=rf"a\.txt: document 1 has {TOO_LARGE}"):
        list(corpus)
    skipping = revgen.read(tmp_path, max_document_bytes=LIMIT, errors="skip")
    assert list(skipping) == ["short"]
    assert skipping.skipped == 1


def test_a_line_of_exactly_the_limit_is_read(tmp_path: Path) -> None:
    for end in ("", "\n", "\r\n"):
        (tmp_path / "a.txt").write_bytes((("a" * LIMIT + end) * (2 if end else 1)).encode())

        documents = list(revgen.read(tmp_path / "a.txt", documents="line", max_document_bytes=LIMIT))

        assert set(documents) == {"a" * LIMIT}


def test_texts_in_memory_have_no_limit() -> None:
    assert list(revgen.read(["a" * 2000], max_document_bytes=LIMIT)) == ["a" * 2000]


@pytest.mark.parametrize("value", [0, -1, 1.5, "1", None, 10**400])
def test_the_limit_must_be_a_number_of_bytes(value: Any) -> None:
    with pytest.raises(OptionError, match="max_document_bytes must be a whole number"):
        revgen.read(["a"], max_document_bytes=value)


def test_carriage_returns_at_the_end_of_a_block_are_not_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("revgen.corpus.text.BLOCK_SIZE", 4)
    monkeypatch.setattr("revgen.corpus.text.LINE_PIECE_SIZE", 4)
    for content in ("a\n" + "\r" * 10, "abc\r\nabc\r\n", "ab\r\r\r\r\nc", "\r\r\r\n\r"):
        path = tmp_path / "a.txt"
        path.write_bytes(content.encode())

        assert "".join(revgen.read(path)) == content.replace("\r\n", "\n")
        path.write_bytes(content.encode() + b"\xff\nafter")  # the rest is read line by line

        assert "".join(revgen.read(path, errors="skip")).endswith("after")


# Files that unpack to far more than their size


def test_a_file_that_unpacks_to_more_than_100_times_its_size_causes_a_warning(tmp_path: Path) -> None:
    path = tmp_path / "a.txt.gz"
    path.write_bytes(gzip.compress(b"a" * (2 << 20)))
    with pytest.warns(UserWarning, match=r"a\.txt\.gz unpacks to more than 100 times its size"):
        list(revgen.read(path))

    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("b.txt", b"a" * (2 << 20))
    with pytest.warns(UserWarning, match=r"b\.txt unpacks to more than 100 times its size"):
        list(revgen.read(tmp_path / "a.zip"))


def test_an_ordinary_compressed_file_causes_no_warning(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    path = tmp_path / "a.txt.gz"
    path.write_bytes(gzip.compress(os.urandom(1 << 20).hex().encode()))

    list(revgen.read(path))

    assert not recwarn.list


Usage = namedtuple("Usage", "total used free")


def test_a_text_for_whose_ids_the_disk_is_too_small_is_refused_before_it_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(LINE * 100_000)
    directory = tmp_path / "temporary"
    directory.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(directory))
    monkeypatch.setattr("shutil.disk_usage", lambda directory: Usage(10 << 20, 7 << 20, 3 << 20))
    model = revgen.create("ngram-char", order=2)

    with pytest.raises(CorpusError, match=r"cannot be written.*4\.\d+ MB more are needed, and 2\.\d+ MB of the disk"):
        model.fit(path, progress=False)

    assert not list(directory.iterdir())


@pytest.mark.parametrize("device", ["/dev/zero", "/dev/random", "/dev/full"])
def test_a_device_is_not_read(device: str) -> None:
    if not Path(device).exists():
        pytest.skip(f"no {device} on this system")
    with pytest.raises(CorpusError, match=f"{device}: is a device"):
        revgen.read(Path(device))


# Tables


def test_a_csv_file_may_name_its_delimiter_in_the_first_line(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    for first, delimiter in (("sep=;", ";"), ('"sep=;"', ";"), ("sep=,", ","), ("sep=\t", "\t"), ("sep=|", "|")):
        path.write_text(f"{first}\nid{delimiter}text\n1{delimiter}one\n", "utf-8")

        assert list(revgen.read(path)) == ["one"]


def test_a_quote_that_is_never_closed_is_an_error_in_a_file_with_one_column(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('text\none\n"two\nthree\n', "utf-8")

    with pytest.raises(CorpusError, match="the row after line 2: it opens a quote that is never closed"):
        list(revgen.read(path))
    assert list(revgen.read(path, quoting="none")) == ["one", '"two', "three"]


def test_many_columns_are_checked_quickly(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(",".join(["text", *(f"c{i}" for i in range(100_000))]) + "\none\n", "utf-8")

    assert list(revgen.read(path)) == ["one"]


def test_a_parquet_string_that_is_not_utf8_is_an_error_or_skipped(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    texts = pyarrow.array([b"one", b"t\xffwo", b"three"], pyarrow.binary()).view(pyarrow.string())
    parquet.write_table(pyarrow.table({"text": texts}), path)

    with pytest.raises(CorpusError, match=r"a\.parquet, line 2: not valid UTF-8"):
        list(revgen.read(path))
    assert list(revgen.read(path, errors="skip")) == ["one", "three"]


def test_a_json_array_is_read_item_by_item(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('[\n"one",\n {"text": "two"} ,\n"three", 4]\n', "utf-8")
    texts = iter(revgen.read(path))

    assert [next(texts) for _ in range(3)] == ["one", "two", "three"]
    with pytest.raises(CorpusError, match="item 4"):
        next(texts)
