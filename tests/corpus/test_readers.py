"""Corpora: documents from files in every format and from memory, in blocks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pandas
import pytest
from corpus_files import FORMATS, write

import revgen
from revgen import Corpus, CorpusError, OptionError
from revgen.corpus import text as text_reader
from revgen.corpus.tokens import tokenize
from revgen.registry import tokenizers

LEVELS = tokenizers.names()
DOCUMENTS = [
    'first line\nsecond line, with a comma and "quotes"',
    "a\ttab, a 'quote', and\n\na blank line between",
    "último — 漢字 🎸",
    "  white space before, and after \n",
]


def set_block_sizes(monkeypatch: pytest.MonkeyPatch, block: int, line: int) -> None:
    monkeypatch.setattr(text_reader, "BLOCK_SIZE", block)
    monkeypatch.setattr(text_reader, "LINE_PIECE_SIZE", line)


# File formats ----------------------------------------------------------------------------


@pytest.mark.parametrize("packed", ["", ".gz"])
@pytest.mark.parametrize("file_format", FORMATS[1:])
@pytest.mark.parametrize("field", ["text", "the review"])
def test_each_row_of_a_table_is_a_document(tmp_path: Path, file_format: str, packed: str, field: str) -> None:
    path = write(tmp_path / f"corpus{file_format}{packed}", DOCUMENTS, field)

    corpus = revgen.read(path, field=field)

    assert list(corpus) == DOCUMENTS
    assert list(corpus) == DOCUMENTS, "it can be read again"
    assert corpus.skipped == 0


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz", "a.md", "A.TXT", "noname"])
def test_a_text_file_is_one_document(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, DOCUMENTS)

    assert list(revgen.read(str(path))) == ["".join(DOCUMENTS)]


@pytest.mark.parametrize("packed", ["", ".gz"])
def test_each_line_of_a_text_file_can_be_a_document(tmp_path: Path, packed: str) -> None:
    path = write(tmp_path / f"a.txt{packed}", ["one\n", "\n", "  two \r\n", " \t\n", "three"])

    assert list(revgen.read(path, documents="line")) == ["one", "  two ", "three"]


@pytest.mark.parametrize("file_format", FORMATS)
def test_an_empty_file_has_no_documents(tmp_path: Path, file_format: str) -> None:
    path = write(tmp_path / f"a{file_format}", [])

    assert list(revgen.read(path)) == []


@pytest.mark.parametrize("file_format", FORMATS[1:])
def test_empty_documents_are_left_out(tmp_path: Path, file_format: str) -> None:
    path = write(tmp_path / f"a{file_format}", ["", "one", "", "two", ""])

    assert list(revgen.read(path)) == ["one", "two"]


@pytest.mark.parametrize("file_format", [".txt", ".csv", ".tsv", ".jsonl"])
def test_byte_order_marks_and_windows_line_endings_are_removed(tmp_path: Path, file_format: str) -> None:
    path = write(tmp_path / f"a{file_format}", ["one", " two"])
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\r\n", b"\n").replace(b"\n", b"\r\n"))

    assert "".join(revgen.read(path)) == "one two"


@pytest.mark.parametrize("line", [1, 2, 3, 4, 5, 1 << 20])
def test_windows_line_endings_are_converted_and_other_carriage_returns_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: int
) -> None:
    set_block_sizes(monkeypatch, line, line)
    path = tmp_path / "a.txt"
    path.write_bytes(b"one\r\ntwo\rthree\r\r\n\r\n\r")

    assert list(revgen.read(path)) == ["one\ntwo\rthree\r\n\n\r"]


@pytest.mark.parametrize("block", [1, 2, 3, 5, 64])
@pytest.mark.parametrize("position", [0, 1, 4, 5, 9, 30, 44, 45, 46, 97])
def test_the_error_for_an_invalid_byte_does_not_depend_on_the_block_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int, position: int
) -> None:
    content = "é漢\r\n🎸 one\n\ntwo".encode() * 5
    path = tmp_path / "a.txt"
    path.write_bytes(content[:position] + b"\xff" + content[position:])

    def read_error(documents: str) -> str:
        with pytest.raises(CorpusError) as caught:
            list(revgen.read(path, documents=documents))
        return str(caught.value)

    line_error = read_error("line")
    set_block_sizes(monkeypatch, block, 1 << 20)
    assert read_error("file") == line_error
    path.write_bytes(content)
    assert list(revgen.read(path)) == [content.decode().replace("\r\n", "\n")]


def test_a_last_line_without_a_line_ending_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"one\ntwo")

    assert list(revgen.read(path)) == ["one\ntwo"]
    assert list(revgen.read(path, documents="line")) == ["one", "two"]


def test_blank_lines_between_rows_are_ignored(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"id,text\n\n1,one\n\n\n2,two\n\n")
    (tmp_path / "b.jsonl").write_bytes(b'\n{"text": "three"}\n  \n\n{"text": "four"}\n\n')

    assert list(revgen.read(tmp_path)) == ["one", "two", "three", "four"]


# Several files ---------------------------------------------------------------------------


def test_a_directory_is_read_in_name_order(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    write(tmp_path / "c.txt", ["one"])
    write(tmp_path / "d.jsonl.gz", ["two", "three"])
    write(tmp_path / "inner" / "a.csv", ["four"])
    (tmp_path / "e.png").write_bytes(b"\x89PNG")

    assert list(revgen.read(tmp_path)) == ["one", "two", "three", "four"]
    assert list(revgen.read(str(tmp_path))) == ["one", "two", "three", "four"]


def test_a_list_of_paths_is_read_in_list_order(tmp_path: Path) -> None:
    paths = [write(tmp_path / "b.jsonl", ["one", "two"]), write(tmp_path / "a.txt", ["three"])]

    assert list(revgen.read(paths)) == ["one", "two", "three"]
    assert list(revgen.read(tuple(paths))) == ["one", "two", "three"]
    assert list(revgen.read(paths=list(map(str, paths)))) == ["one", "two", "three"]


def test_an_empty_directory_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="no file in a supported format") as caught:
        revgen.read(tmp_path)

    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("as_list", [False, True])
def test_a_missing_file_is_an_error_that_names_it(tmp_path: Path, as_list: bool) -> None:
    path = tmp_path / "nothing.txt"

    with pytest.raises(CorpusError, match=r"nothing\.txt: there is no such file"):
        revgen.read([path] if as_list else path)


@pytest.mark.parametrize("as_path", [str, Path])
def test_a_missing_file_in_a_list_of_paths_is_an_error_that_names_it(tmp_path: Path, as_path: Any) -> None:
    existing = write(tmp_path / "a.txt", ["one"])

    with pytest.raises(CorpusError, match=r"nothing\.txt: there is no such file"):
        revgen.read(paths=[as_path(existing), as_path(tmp_path / "nothing.txt")])


@pytest.mark.parametrize("text", ["", "a review", "a long review. " * 1000, "with\0zero"])
def test_a_text_given_as_a_path_is_an_error_with_advice(text: str) -> None:
    with pytest.raises(CorpusError, match="put it in a list"):
        revgen.read(text)

    assert "".join(revgen.read([text])) == text


# Memory ----------------------------------------------------------------------------------


def generate_texts() -> Iterator[str]:
    yield from DOCUMENTS
    yield ""
    yield "\ud800 alone"


def test_a_list_of_texts_is_a_corpus() -> None:
    assert list(revgen.read([*DOCUMENTS, ""])) == DOCUMENTS
    assert list(revgen.read(tuple(DOCUMENTS))) == DOCUMENTS
    assert list(revgen.read([])) == []


def test_a_generator_can_be_read_twice() -> None:
    corpus = revgen.read(generate_texts())

    assert list(corpus) == [*DOCUMENTS, "\ud800 alone"]
    assert list(corpus) == [*DOCUMENTS, "\ud800 alone"]


def test_pandas_columns_and_tables_are_corpora() -> None:
    table = pandas.DataFrame({"id": range(len(DOCUMENTS)), "text": DOCUMENTS, "title": ["a", "b", "c", "d"]})

    assert list(revgen.read(table)) == DOCUMENTS
    assert list(revgen.read(table["text"])) == DOCUMENTS
    assert list(revgen.read(table, field="title")) == ["a", "b", "c", "d"]
    with pytest.raises(CorpusError, match="no column 'body'; it has id, text, title"):
        revgen.read(table, field="body")


def test_reading_a_corpus_returns_the_same_corpus() -> None:
    corpus = revgen.read(DOCUMENTS)

    assert revgen.read(corpus) is corpus


@pytest.mark.parametrize("as_iterator", [False, True])
@pytest.mark.parametrize("value", [3, None, b"bytes", ["list"], float("nan")])
def test_an_item_that_is_not_a_string_is_an_error_or_skipped(value: Any, as_iterator: bool) -> None:
    texts = ["one", value, "two"]

    with pytest.raises(CorpusError, match="text 2 "):
        list(revgen.read(iter(texts) if as_iterator else texts))

    corpus = revgen.read(iter(texts) if as_iterator else texts, errors="skip")
    assert list(corpus) == ["one", "two"]
    assert corpus.skipped == 1


@pytest.mark.parametrize("source", [None, 3, b"bytes", {"text": "a"}, object()])
def test_a_source_without_text_is_an_error_that_names_its_type(source: Any) -> None:
    with pytest.raises(CorpusError, match=type(source).__name__):
        revgen.read(source)


@pytest.mark.parametrize("option", ["documents", "errors"])
def test_an_invalid_option_is_an_error_that_names_it(option: str) -> None:
    with pytest.raises(OptionError, match=option):
        revgen.read(DOCUMENTS, **cast("Any", {option: "ignore"}))


# Long documents --------------------------------------------------------------------------

LONG = (
    "\ufeffIt's  a   long \u2581 document;\ttabs,\r\n   indents\n\n\nand “quotes” — 漢字 🎸🎸 and\u2028more.  \n" * 40
    + "one-very-long-line " * 40
    + " \n" * 50
    + "end  "
)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(("block", "line"), [(256, 1 << 20), (1 << 20, 7), (256, 64), (400, 5)])
def test_tokens_of_a_long_document_do_not_depend_on_the_block_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reviews: list[str], level: str, block: int, line: int
) -> None:
    path = tmp_path / "a.txt"
    text = LONG + " ".join(reviews[:40])
    path.write_bytes(text.encode())
    normalized = text.removeprefix("\ufeff").replace("\r\n", "\n")
    tokenizer = tokenizers.get(level).train([normalized])
    set_block_sizes(monkeypatch, block, line)

    corpus = revgen.read(path)
    blocks = list(corpus.blocks())
    tokens = tokenize(corpus, tokenizer)

    assert "".join(text for text, _ in blocks) == normalized
    assert [last for _, last in blocks] == [False] * (len(blocks) - 1) + [True]
    assert len(blocks) > 5 or block > 256
    assert tokens.ids.tolist() == [tokenizer.bos_id, *tokenizer.encode(normalized).tolist(), tokenizer.eos_id]


def test_a_document_without_white_space_is_read_in_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.txt", ["漢字" * 1000])
    set_block_sizes(monkeypatch, 256, 64)

    corpus = revgen.read(path)

    assert list(corpus) == ["漢字" * 1000]
    assert max(len(text) for text, _ in corpus.blocks()) < 512


@pytest.mark.parametrize("file_format", [".csv", ".jsonl"])
def test_a_row_longer_than_a_line_piece_is_one_document(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file_format: str
) -> None:
    texts = ["é" * 500, "short", "two\nlines " * 100]
    path = write(tmp_path / f"a{file_format}", texts)
    set_block_sizes(monkeypatch, 256, 7)

    assert list(revgen.read(path)) == texts


@pytest.mark.parametrize("documents", ["file", "line"])
def test_an_invalid_byte_in_a_long_line_is_an_error_with_line_and_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, documents: str
) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"one\n" + "é".encode() * 50 + b"\xff" + "é".encode() * 50 + b"\nthree\n")
    set_block_sizes(monkeypatch, 256, 7)

    with pytest.raises(CorpusError, match=r"a\.txt, line 2: not valid UTF-8: .* at byte 101 of the line"):
        list(revgen.read(path, documents=documents))

    corpus = revgen.read(path, documents=documents, errors="skip")
    text = "\n".join(corpus).strip()
    assert corpus.skipped == 1
    assert text.startswith("one\n")
    assert text.endswith("three")
    assert text.count("é") <= 50, "the rest of the line after the error is skipped"


def test_options_are_attributes_of_a_corpus() -> None:
    corpus = Corpus(DOCUMENTS, field="body", documents="line", errors="skip")

    assert (corpus.field, corpus.documents, corpus.errors) == ("body", "line", "skip")
