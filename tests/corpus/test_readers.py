"""Corpora: documents from files in every format and from memory, errors with line numbers, token ids on disk."""

from __future__ import annotations

import csv
import gzip
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pyarrow
import pytest
from pyarrow import parquet

import revgen
from revgen import Corpus, CorpusError, OptionError, Tokenizer
from revgen.corpus import text as text_reader
from revgen.corpus.tokens import Tokens, tokenize
from revgen.registry import tokenizers

LEVELS = tokenizers.names()
FORMATS = [".txt", ".csv", ".tsv", ".jsonl", ".parquet"]
DOCUMENTS = [
    'first line\nsecond line, with a comma and "quotes"',
    "a\ttab, a 'quote', and\n\na blank line between",
    "último — 漢字 🎸",
    "  white space before, and after \n",
]


def write(path: Path, texts: list[str], field: str = "text") -> Path:
    """Write a file in the format of its suffix, with a number for each text, and return its path."""
    file_format = Path(path.name.removesuffix(".gz")).suffix
    plain = path.with_name(f"plain{file_format}")
    if file_format == ".jsonl":
        lines = [json.dumps({"id": i, field: text}, ensure_ascii=False) for i, text in enumerate(texts)]
        plain.write_bytes("\n".join(lines).encode())
    elif file_format == ".parquet":
        parquet.write_table(pyarrow.table({"id": list(range(len(texts))), field: texts}), plain)
    elif file_format in (".csv", ".tsv"):
        with plain.open("w", encoding="utf-8", newline="") as file:
            rows = csv.writer(file, delimiter="," if file_format == ".csv" else "\t")
            rows.writerow(["id", field])
            rows.writerows(enumerate(texts))
    else:
        plain.write_bytes("".join(texts).encode())
    content = plain.read_bytes()
    plain.unlink()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def set_block_sizes(monkeypatch: pytest.MonkeyPatch, block: int, line: int) -> None:
    monkeypatch.setattr(text_reader, "BLOCK_SIZE", block)
    monkeypatch.setattr(text_reader, "LINE_PIECE_SIZE", line)


# File formats --------------------------------------------------------------------


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
        revgen.read(DOCUMENTS, **{option: "ignore"})


# Invalid lines ---------------------------------------------------------------------------

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


# Token ids -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def chars(reviews: list[str]) -> Tokenizer:
    tokenizer: Tokenizer = tokenizers.get("char").train(reviews, min_count=1)
    return tokenizer


@pytest.mark.parametrize("level", LEVELS)
def test_each_document_has_a_start_and_an_end_token(level: str, reviews: list[str]) -> None:
    tokenizer = tokenizers.get(level).train(reviews * 3)

    tokens = tokenize(revgen.read(reviews), tokenizer)

    documents = list(tokens.documents())
    assert [tokenizer.decode(ids) for ids in documents] == reviews
    assert all(ids[0] == tokenizer.bos_id and ids[-1] == tokenizer.eos_id for ids in documents)
    assert len(tokens) == len(tokens.ids) == sum(map(len, documents))
    assert tokens.ids.dtype == tokenizer.dtype


def test_token_ids_are_memory_mapped(chars: Tokenizer, reviews: list[str]) -> None:
    tokens = tokenize(revgen.read(reviews), chars)

    assert isinstance(tokens.ids, np.memmap)
    assert not tokens.ids.flags.writeable


@pytest.mark.parametrize("texts", [[], ["", ""]])
def test_a_corpus_without_text_is_an_error(chars: Tokenizer, texts: list[str]) -> None:
    with pytest.raises(CorpusError, match="empty"):
        tokenize(revgen.read(texts), chars)


@pytest.mark.parametrize("fraction", [0.05, 0.1, 0.3, 0.5])
@pytest.mark.parametrize("count", [1, 2, 19, 20, 166])
def test_a_split_is_a_partition_with_about_the_requested_fraction(
    chars: Tokenizer, reviews: list[str], fraction: float, count: int
) -> None:
    tokens = tokenize(revgen.read(reviews[:count]), chars)

    train, valid = tokens.split(fraction, seed=0)

    assert positions(train).isdisjoint(positions(valid))
    assert positions(train) | positions(valid) == set(range(len(tokens)))
    assert len(train) + len(valid) == len(tokens)
    longest = max(map(len, reviews)) + 2
    assert 0 < len(valid) <= fraction * len(tokens) + longest
    assert len(valid) >= fraction * len(tokens) - longest
    if count > 1:
        assert {tuple(span) for span in tokens.spans} == {tuple(span) for part in (train, valid) for span in part.spans}


def positions(tokens: Tokens) -> set[int]:
    return {position for start, end in tokens.spans.tolist() for position in range(start, end)}


def test_a_split_holds_out_random_documents_that_depend_on_the_seed(chars: Tokenizer, reviews: list[str]) -> None:
    tokens = tokenize(revgen.read(reviews), chars)

    def held_out(seed: int) -> list[list[int]]:
        spans: list[list[int]] = tokens.split(0.1, seed)[1].spans.tolist()
        return spans

    assert all(span in tokens.spans.tolist() for span in held_out(0))
    assert held_out(0) == held_out(0)
    assert held_out(0) != held_out(1)


def test_a_single_document_is_cut_at_its_end(chars: Tokenizer, reviews: list[str]) -> None:
    text = "\n".join(reviews)
    tokens = tokenize(revgen.read([text]), chars)

    train, valid = tokens.split(0.1, seed=0)

    assert chars.decode(train.ids[slice(*train.spans[0])]) + chars.decode(valid.ids[slice(*valid.spans[0])]) == text
    assert abs(len(valid) - 0.1 * len(tokens)) < 2


def test_a_long_document_among_short_ones_is_not_held_out(chars: Tokenizer, reviews: list[str]) -> None:
    tokens = tokenize(revgen.read([*reviews[:25], "\n".join(reviews)]), chars)

    fractions = [len(tokens.split(0.1, seed)[1]) / len(tokens) for seed in range(200)]

    assert min(fractions) > 0.02 and max(fractions) < 0.2


# Memory of the process -------------------------------------------------------------------

MEASURE = """
import re, sys
from pathlib import Path
import revgen
from revgen.corpus.tokens import tokenize
from revgen.registry import tokenizers

corpus = revgen.read(sys.argv[1])
tokens = tokenize(corpus, tokenizers.get("char").train(corpus.pieces()))
# The peak of this program only. The one of getrusage includes the process that started it.
peak = re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())
print(len(tokens), int(peak[1]) * 1024)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak from /proc")
def test_reading_a_large_file_takes_little_memory(tmp_path: Path, reviews: list[str]) -> None:
    size = 300 * 10**6
    text = "\n".join(reviews).encode()
    path = tmp_path / "large.txt"
    with path.open("wb") as file:
        while file.tell() < size:
            file.write(text)

    result = subprocess.run(
        [sys.executable, "-c", MEASURE, str(path)],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"REVGEN_CACHE": str(tmp_path / "cache")},
    )

    tokens, peak = map(int, result.stdout.split())
    assert tokens > 0.9 * size
    assert peak < 500 * 10**6, f"{peak / 1e6:.0f} MB"


def test_options_are_attributes_of_a_corpus() -> None:
    corpus = Corpus(DOCUMENTS, field="body", documents="line", errors="skip")

    assert (corpus.field, corpus.documents, corpus.errors) == ("body", "line", "skip")
