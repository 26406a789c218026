"""Invalid files: errors with file and line, and ``errors="skip"``."""

from __future__ import annotations

import gzip
from pathlib import Path

import pyarrow
import pytest
from corpus_files import FORMATS, write
from pyarrow import parquet

import revgen
from revgen import CorpusError

INVALID: list[tuple[str, bytes, int, list[str]]] = [  # name, content, invalid line, other documents
    ("utf8.txt", b"one\nt\xffwo\nthree\n", 2, ["one\nthree\n"]),
    ("latin1.txt", "one\ntwo\nfünf".encode("latin-1"), 3, ["one\ntwo\n"]),
    ("cut.txt", b"one\ntwo\n\xe6\xbc", 3, ["one\ntwo\n"]),
    ("utf8.jsonl", b'{"text": "one"}\n{"text": "t\xffwo"}\n{"text": "three"}', 2, ["one", "three"]),
    ("broken.jsonl", b'{"text": "one"}\n\n{"text": "two\n{"text": "three"}\n', 3, ["one", "three"]),
    ("cut.jsonl", b'{"text": "one"}\n{"te', 2, ["one"]),
    ("field.jsonl", b'{"text": "one"}\n{"body": "two"}\n', 2, ["one"]),
    ("number.jsonl", b'{"text": 1}\n{"text": "two"}\n', 1, ["two"]),
    ("null.jsonl", b'{"text": null}\n{"text": "two"}\n', 1, ["two"]),
    ("nested.jsonl", b'{"text": ["one"]}\n{"text": "two"}\n', 1, ["two"]),
    ("list.jsonl", b'["text"]\n{"text": "two"}\n', 1, ["two"]),
    ("string.jsonl", b'"text"\n{"text": "two"}\n', 1, ["two"]),
    ("plain.jsonl", b'3\n{"text": "two"}\n', 1, ["two"]),
    ("deep.jsonl", b"[" * 100_000 + b'\n{"text": "two"}\n', 1, ["two"]),
    ("short.csv", b"id,text\n1,one\n\n2\n3,three\n", 4, ["one", "three"]),
    ("short.tsv", b"id\ttext\n1\tone\n2\n3\tthree\n", 3, ["one", "three"]),
    ("multiline.csv", b'id,text\n1,"a\n\nb"\n2\n3,three\n', 5, ["a\n\nb", "three"]),
    ("quote.csv", b'id,text\n1,"one" more\n2,two\n', 2, ["two"]),
    ("unclosed.csv", b'id,text\n1,one\n2,"two\n3,three\n', 4, ["one"]),
    ("return.csv", b"id,text\n1,one\n2,t\rwo\n3,three\n", 3, ["one", "three"]),
    ("utf8.csv", b"id,text\n1,one\n2,t\xffwo\n3,three\n", 3, ["one", "three"]),
]


@pytest.mark.parametrize(("name", "content", "line", "rest"), INVALID, ids=[case[0] for case in INVALID])
@pytest.mark.parametrize("packed", ["", ".gz"])
def test_an_invalid_line_is_an_error_with_file_and_line(
    tmp_path: Path, name: str, content: bytes, line: int, rest: list[str], packed: str
) -> None:
    path = tmp_path / f"{name}{packed}"
    path.write_bytes(gzip.compress(content) if packed else content)

    with pytest.raises(CorpusError) as caught:
        list(revgen.read(path))

    assert (caught.value.path, caught.value.line) == (path, line)
    assert str(caught.value).startswith(f"{path}, line {line}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("name", "content", "line", "rest"), INVALID, ids=[case[0] for case in INVALID])
def test_an_invalid_line_can_be_skipped_and_is_counted(
    tmp_path: Path, name: str, content: bytes, line: int, rest: list[str]
) -> None:
    (tmp_path / name).write_bytes(content)
    corpus = revgen.read(tmp_path / name, errors="skip")

    assert list(corpus) == rest
    assert corpus.skipped == 1
    list(corpus)
    assert corpus.skipped == 1, "each reading starts a new count"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("column.csv", b"id,body\n1,one\n"),
        ("column.tsv", b"id\tbody\n1\tone\n"),
        ("delimiter.csv", b"id|text\n1|one\n"),
        ("quote.csv", b'id,"text\n1,one\n'),
        ("empty.csv", b""),
    ],
)
def test_a_missing_column_is_an_error_in_line_1(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)

    with pytest.raises(CorpusError, match=r", line 1: .*column"):
        list(revgen.read(tmp_path / name, errors="skip"))


def test_a_parquet_row_without_text_is_an_error_or_skipped(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.table({"text": ["one", None, "three"]}), path)

    with pytest.raises(CorpusError, match=r"a\.parquet, line 2: "):
        list(revgen.read(path))

    corpus = revgen.read(path, errors="skip")
    assert list(corpus) == ["one", "three"]
    assert corpus.skipped == 1


def test_a_parquet_file_without_the_column_is_an_error_that_lists_the_columns(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", ["one"], field="body")

    with pytest.raises(CorpusError, match=r"a\.parquet: no column 'text'; it has id, body"):
        list(revgen.read(path))


@pytest.mark.parametrize("packed", ["", ".gz"])
@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1 something else PAR1", b"text" * 100])
def test_an_invalid_parquet_file_is_an_error_that_names_it(tmp_path: Path, content: bytes, packed: str) -> None:
    path = tmp_path / f"a.parquet{packed}"
    path.write_bytes(gzip.compress(content) if packed else content)

    with pytest.raises(CorpusError, match=r"a\.parquet"):
        list(revgen.read(path))


@pytest.mark.parametrize("file_format", FORMATS)
def test_a_damaged_gzip_file_is_an_error_that_names_it(tmp_path: Path, file_format: str, reviews: list[str]) -> None:
    path = write(tmp_path / f"a{file_format}.gz", reviews)
    intact = path.read_bytes()
    middle = len(intact) // 2
    flipped = [intact[:i] + bytes([intact[i] ^ 0xFF]) + intact[i + 1 :] for i in (*range(20, 40), middle)]

    for damaged in (b"no gzip at all", intact[:5], intact[:middle], intact[:-4], *flipped):
        path.write_bytes(damaged)
        with pytest.raises(CorpusError, match=r"\.gz"):
            list(revgen.read(path))


@pytest.mark.parametrize("level", ["char", "word", "subword"])
def test_an_empty_file_is_an_error_that_names_it(level: str, tmp_path: Path) -> None:
    path = tmp_path / "empty.txt"
    path.touch()

    with pytest.raises(CorpusError, match=r"empty\.txt: the corpus is empty"):
        revgen.create(f"kneser-ney-{level}").fit(path, progress=False)


@pytest.mark.parametrize("name", ["text.txt", "text.jsonl", "text.csv"])
def test_file_of_nuls_is_damaged(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    with path.open("wb") as file:
        file.truncate(8 << 30)

    with pytest.raises(CorpusError, match="the file is damaged: its first 65,536 bytes are NUL"):
        list(revgen.read(path))
    (tmp_path / "whole.txt").write_text("one")
    assert list(revgen.read(tmp_path, errors="skip")) == ["one"]
