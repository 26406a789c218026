"""Corpora: documents from files of every kind and from memory, errors with their place, token ids on disk."""

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
KINDS = [".txt", ".csv", ".tsv", ".jsonl", ".parquet"]
DOCUMENTS = [
    'first line\nsecond line, with a comma and "quotes"',
    "a\ttab, a 'quote', and\n\na blank line between",
    "último — 漢字 🎸",
    "  white space before, and behind \n",
]


def write(path: Path, texts: list[str], field: str = "text") -> Path:
    """A file of the kind that its name tells, with the texts in it and a number beside each."""
    kind = Path(path.name.removesuffix(".gz")).suffix
    plain = path.with_name(f"plain{kind}")
    if kind == ".jsonl":
        lines = [json.dumps({"id": i, field: text}, ensure_ascii=False) for i, text in enumerate(texts)]
        plain.write_bytes("\n".join(lines).encode())
    elif kind == ".parquet":
        parquet.write_table(pyarrow.table({"id": list(range(len(texts))), field: texts}), plain)
    elif kind in (".csv", ".tsv"):
        with plain.open("w", encoding="utf-8", newline="") as file:
            rows = csv.writer(file, delimiter="," if kind == ".csv" else "\t")
            rows.writerow(["id", field])
            rows.writerows(enumerate(texts))
    else:
        plain.write_bytes("".join(texts).encode())
    content = plain.read_bytes()
    plain.unlink()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def small_pieces(monkeypatch: pytest.MonkeyPatch, block: int, line: int) -> None:
    monkeypatch.setattr(text_reader, "BLOCK_SIZE", block)
    monkeypatch.setattr(text_reader, "LINE_PIECE_SIZE", line)


# Kinds of files --------------------------------------------------------------------------


@pytest.mark.parametrize("packed", ["", ".gz"])
@pytest.mark.parametrize("kind", KINDS[1:])
@pytest.mark.parametrize("field", ["text", "the review"])
def test_each_row_of_a_table_is_a_document(tmp_path: Path, kind: str, packed: str, field: str) -> None:
    path = write(tmp_path / f"corpus{kind}{packed}", DOCUMENTS, field)

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


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_with_nothing_in_it_has_no_documents(tmp_path: Path, kind: str) -> None:
    path = write(tmp_path / f"a{kind}", [])

    assert list(revgen.read(path)) == []


@pytest.mark.parametrize("kind", KINDS[1:])
def test_empty_documents_are_left_out(tmp_path: Path, kind: str) -> None:
    path = write(tmp_path / f"a{kind}", ["", "one", "", "two", ""])

    assert list(revgen.read(path)) == ["one", "two"]


@pytest.mark.parametrize("kind", [".txt", ".csv", ".tsv", ".jsonl"])
def test_a_byte_order_mark_and_windows_line_ends_are_not_text(tmp_path: Path, kind: str) -> None:
    path = write(tmp_path / f"a{kind}", ["one", " two"])
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\r\n", b"\n").replace(b"\n", b"\r\n"))

    assert "".join(revgen.read(path)) == "one two"


@pytest.mark.parametrize("line", [1, 2, 3, 4, 5, 1 << 20])
def test_windows_line_ends_become_line_ends_and_other_carriage_returns_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: int
) -> None:
    small_pieces(monkeypatch, line, line)
    path = tmp_path / "a.txt"
    path.write_bytes(b"one\r\ntwo\rthree\r\r\n\r\n\r")

    assert list(revgen.read(path)) == ["one\ntwo\rthree\r\n\n\r"]


@pytest.mark.parametrize("block", [1, 2, 3, 5, 64])
@pytest.mark.parametrize("place", [0, 1, 4, 5, 9, 30, 44, 45, 46, 97])
def test_a_bad_byte_is_told_alike_wherever_the_file_is_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int, place: int
) -> None:
    content = "é漢\r\n🎸 one\n\ntwo".encode() * 5
    path = tmp_path / "a.txt"
    path.write_bytes(content[:place] + b"\xff" + content[place:])

    def told(documents: str) -> str:
        with pytest.raises(CorpusError) as caught:
            list(revgen.read(path, documents=documents))
        return str(caught.value)

    by_lines = told("line")
    small_pieces(monkeypatch, block, 1 << 20)
    assert told("file") == by_lines
    path.write_bytes(content)
    assert list(revgen.read(path)) == [content.decode().replace("\r\n", "\n")]


def test_a_last_line_without_an_end_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"one\ntwo")

    assert list(revgen.read(path)) == ["one\ntwo"]
    assert list(revgen.read(path, documents="line")) == ["one", "two"]


def test_blank_lines_between_rows_are_no_documents(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"id,text\n\n1,one\n\n\n2,two\n\n")
    (tmp_path / "b.jsonl").write_bytes(b'\n{"text": "three"}\n  \n\n{"text": "four"}\n\n')

    assert list(revgen.read(tmp_path)) == ["one", "two", "three", "four"]


# Several files ---------------------------------------------------------------------------


def test_a_directory_is_read_in_the_order_of_names(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    write(tmp_path / "c.txt", ["one"])
    write(tmp_path / "d.jsonl.gz", ["two", "three"])
    write(tmp_path / "inner" / "a.csv", ["four"])
    (tmp_path / "e.png").write_bytes(b"\x89PNG")

    assert list(revgen.read(tmp_path)) == ["one", "two", "three", "four"]
    assert list(revgen.read(str(tmp_path))) == ["one", "two", "three", "four"]


def test_a_list_of_paths_is_read_in_its_order(tmp_path: Path) -> None:
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
def test_a_list_in_which_only_some_paths_exist_names_a_missing_one(tmp_path: Path, as_path: Any) -> None:
    there = write(tmp_path / "a.txt", ["one"])

    with pytest.raises(CorpusError, match=r"nothing\.txt: there is no such file"):
        revgen.read(paths=[as_path(there), as_path(tmp_path / "nothing.txt")])


@pytest.mark.parametrize("text", ["", "a review", "a long review. " * 1000, "with\0zero"])
def test_a_text_in_place_of_a_path_is_told_what_to_do(text: str) -> None:
    with pytest.raises(CorpusError, match="put it in a list"):
        revgen.read(text)

    assert "".join(revgen.read([text])) == text


# Memory ----------------------------------------------------------------------------------


def texts_once() -> Iterator[str]:
    yield from DOCUMENTS
    yield ""
    yield "\ud800 alone"


def test_a_list_of_texts_is_a_corpus() -> None:
    assert list(revgen.read([*DOCUMENTS, ""])) == DOCUMENTS
    assert list(revgen.read(tuple(DOCUMENTS))) == DOCUMENTS
    assert list(revgen.read([])) == []


def test_a_generator_can_be_read_twice() -> None:
    corpus = revgen.read(texts_once())

    assert list(corpus) == [*DOCUMENTS, "\ud800 alone"]
    assert list(corpus) == [*DOCUMENTS, "\ud800 alone"]


def test_columns_and_tables_of_pandas_are_corpora() -> None:
    table = pandas.DataFrame({"id": range(len(DOCUMENTS)), "text": DOCUMENTS, "title": ["a", "b", "c", "d"]})

    assert list(revgen.read(table)) == DOCUMENTS
    assert list(revgen.read(table["text"])) == DOCUMENTS
    assert list(revgen.read(table, field="title")) == ["a", "b", "c", "d"]
    with pytest.raises(CorpusError, match="no column 'body'; it has id, text, title"):
        revgen.read(table, field="body")


def test_a_corpus_is_itself_a_corpus() -> None:
    corpus = revgen.read(DOCUMENTS)

    assert revgen.read(corpus) is corpus


@pytest.mark.parametrize("once", [False, True])
@pytest.mark.parametrize("wrong", [3, None, b"bytes", ["list"], float("nan")])
def test_a_text_that_is_no_string_is_counted_from_one(wrong: Any, once: bool) -> None:
    texts = ["one", wrong, "two"]

    with pytest.raises(CorpusError, match="text 2 "):
        list(revgen.read(iter(texts) if once else texts))

    corpus = revgen.read(iter(texts) if once else texts, errors="skip")
    assert list(corpus) == ["one", "two"]
    assert corpus.skipped == 1


@pytest.mark.parametrize("source", [None, 3, b"bytes", {"text": "a"}, object()])
def test_what_holds_no_text_is_an_error_that_names_its_type(source: Any) -> None:
    with pytest.raises(CorpusError, match=type(source).__name__):
        revgen.read(source)


@pytest.mark.parametrize("option", ["documents", "errors"])
def test_a_bad_option_is_named(option: str) -> None:
    with pytest.raises(OptionError, match=option):
        revgen.read(DOCUMENTS, **{option: "ignore"})


# Bad lines -------------------------------------------------------------------------------

BAD: list[tuple[str, bytes, int, list[str]]] = [  # name, content, the bad line, what else there is to read
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
    ("behind.csv", b'id,text\n1,"a\n\nb"\n2\n3,three\n', 5, ["a\n\nb", "three"]),
    ("quote.csv", b'id,text\n1,"one" more\n2,two\n', 2, ["two"]),
    ("unclosed.csv", b'id,text\n1,one\n2,"two\n3,three\n', 4, ["one"]),
    ("return.csv", b"id,text\n1,one\n2,t\rwo\n3,three\n", 3, ["one", "three"]),
    ("utf8.csv", b"id,text\n1,one\n2,t\xffwo\n3,three\n", 3, ["one", "three"]),
]


@pytest.mark.parametrize(("name", "content", "line", "rest"), BAD, ids=[case[0] for case in BAD])
@pytest.mark.parametrize("packed", ["", ".gz"])
def test_a_bad_line_names_the_file_and_the_line(
    tmp_path: Path, name: str, content: bytes, line: int, rest: list[str], packed: str
) -> None:
    path = tmp_path / f"{name}{packed}"
    path.write_bytes(gzip.compress(content) if packed else content)

    with pytest.raises(CorpusError) as caught:
        list(revgen.read(path))

    assert (caught.value.path, caught.value.line) == (path, line)
    assert str(caught.value).startswith(f"{path}, line {line}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("name", "content", "line", "rest"), BAD, ids=[case[0] for case in BAD])
def test_a_bad_line_can_be_skipped_and_is_counted(
    tmp_path: Path, name: str, content: bytes, line: int, rest: list[str]
) -> None:
    (tmp_path / name).write_bytes(content)
    corpus = revgen.read(tmp_path / name, errors="skip")

    assert list(corpus) == rest
    assert corpus.skipped == 1
    list(corpus)
    assert corpus.skipped == 1, "each reading counts anew"


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
def test_a_table_without_the_column_names_the_first_line(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)

    with pytest.raises(CorpusError, match=r", line 1: .*column"):
        list(revgen.read(tmp_path / name, errors="skip"))


def test_a_row_of_a_parquet_file_without_text_is_named_and_can_be_skipped(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.table({"text": ["one", None, "three"]}), path)

    with pytest.raises(CorpusError, match=r"a\.parquet, line 2: "):
        list(revgen.read(path))

    corpus = revgen.read(path, errors="skip")
    assert list(corpus) == ["one", "three"]
    assert corpus.skipped == 1


def test_a_parquet_file_without_the_column_says_which_it_has(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", ["one"], field="body")

    with pytest.raises(CorpusError, match=r"a\.parquet: no column 'text'; it has id, body"):
        list(revgen.read(path))


@pytest.mark.parametrize("packed", ["", ".gz"])
@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1 something else PAR1", b"text" * 100])
def test_what_is_no_parquet_file_is_an_error_that_names_it(tmp_path: Path, content: bytes, packed: str) -> None:
    path = tmp_path / f"a.parquet{packed}"
    path.write_bytes(gzip.compress(content) if packed else content)

    with pytest.raises(CorpusError, match=r"a\.parquet"):
        list(revgen.read(path))


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_gzip_file_is_an_error_that_names_it(tmp_path: Path, kind: str, reviews: list[str]) -> None:
    path = write(tmp_path / f"a{kind}.gz", reviews)
    whole = path.read_bytes()
    middle = len(whole) // 2
    flipped = [whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :] for at in (*range(20, 40), middle)]

    for damaged in (b"no gzip at all", whole[:5], whole[:middle], whole[:-4], *flipped):
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
def test_a_long_document_gives_the_same_tokens_in_blocks_as_in_one_piece(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reviews: list[str], level: str, block: int, line: int
) -> None:
    path = tmp_path / "a.txt"
    text = LONG + " ".join(reviews[:40])
    path.write_bytes(text.encode())
    whole = text.removeprefix("\ufeff").replace("\r\n", "\n")
    tokenizer = tokenizers.get(level).train([whole])
    small_pieces(monkeypatch, block, line)

    corpus = revgen.read(path)
    blocks = list(corpus.blocks())
    tokens = tokenize(corpus, tokenizer)

    assert "".join(text for text, _ in blocks) == whole
    assert [last for _, last in blocks] == [False] * (len(blocks) - 1) + [True]
    assert len(blocks) > 5 or block > 256
    assert tokens.ids.tolist() == [tokenizer.bos_id, *tokenizer.encode(whole).tolist(), tokenizer.eos_id]


def test_a_document_without_white_space_is_read_in_blocks_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.txt", ["漢字" * 1000])
    small_pieces(monkeypatch, 256, 64)

    corpus = revgen.read(path)

    assert list(corpus) == ["漢字" * 1000]
    assert max(len(text) for text, _ in corpus.blocks()) < 512


@pytest.mark.parametrize("kind", [".csv", ".jsonl"])
def test_a_row_longer_than_a_piece_of_a_line_is_one_document(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    texts = ["é" * 500, "short", "two\nlines " * 100]
    path = write(tmp_path / f"a{kind}", texts)
    small_pieces(monkeypatch, 256, 7)

    assert list(revgen.read(path)) == texts


@pytest.mark.parametrize("documents", ["file", "line"])
def test_an_error_in_a_long_line_names_the_line_and_the_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, documents: str
) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"one\n" + "é".encode() * 50 + b"\xff" + "é".encode() * 50 + b"\nthree\n")
    small_pieces(monkeypatch, 256, 7)

    with pytest.raises(CorpusError, match=r"a\.txt, line 2: not valid UTF-8: .* at byte 101 of the line"):
        list(revgen.read(path, documents=documents))

    corpus = revgen.read(path, documents=documents, errors="skip")
    text = "\n".join(corpus).strip()
    assert corpus.skipped == 1
    assert text.startswith("one\n")
    assert text.endswith("three")
    assert text.count("é") <= 50, "nothing of the line is read behind the error"


# Token ids -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def chars(reviews: list[str]) -> Tokenizer:
    tokenizer: Tokenizer = tokenizers.get("char").train(reviews, min_count=1)
    return tokenizer


@pytest.mark.parametrize("level", LEVELS)
def test_documents_keep_their_borders(level: str, reviews: list[str]) -> None:
    tokenizer = tokenizers.get(level).train(reviews * 3)

    tokens = tokenize(revgen.read(reviews), tokenizer)

    documents = list(tokens.documents())
    assert [tokenizer.decode(ids) for ids in documents] == reviews
    assert all(ids[0] == tokenizer.bos_id and ids[-1] == tokenizer.eos_id for ids in documents)
    assert len(tokens) == len(tokens.ids) == sum(map(len, documents))
    assert tokens.ids.dtype == tokenizer.dtype


def test_token_ids_lie_in_a_file_that_is_mapped(chars: Tokenizer, reviews: list[str]) -> None:
    tokens = tokenize(revgen.read(reviews), chars)

    assert isinstance(tokens.ids, np.memmap)
    assert not tokens.ids.flags.writeable


@pytest.mark.parametrize("texts", [[], ["", ""]])
def test_a_corpus_without_text_is_an_error(chars: Tokenizer, texts: list[str]) -> None:
    with pytest.raises(CorpusError, match="empty"):
        tokenize(revgen.read(texts), chars)


@pytest.mark.parametrize("share", [0.05, 0.1, 0.3, 0.5])
@pytest.mark.parametrize("count", [1, 2, 19, 20, 166])
def test_a_split_is_disjoint_covers_everything_and_has_its_share(
    chars: Tokenizer, reviews: list[str], share: float, count: int
) -> None:
    tokens = tokenize(revgen.read(reviews[:count]), chars)

    train, valid = tokens.split(share, seed=0)

    assert places(train).isdisjoint(places(valid))
    assert places(train) | places(valid) == set(range(len(tokens)))
    assert len(train) + len(valid) == len(tokens)
    longest = max(map(len, reviews)) + 2
    assert 0 < len(valid) <= share * len(tokens) + longest
    assert len(valid) >= share * len(tokens) - longest
    if count > 1:
        assert {tuple(span) for span in tokens.spans} == {tuple(span) for part in (train, valid) for span in part.spans}


def places(tokens: Tokens) -> set[int]:
    return {place for start, end in tokens.spans.tolist() for place in range(start, end)}


def test_a_split_of_many_documents_is_one_of_whole_documents_drawn_by_the_seed(
    chars: Tokenizer, reviews: list[str]
) -> None:
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


def test_one_long_document_among_short_ones_is_not_held_out(chars: Tokenizer, reviews: list[str]) -> None:
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
# Of this program alone: what getrusage tells is as large as the process was that started it.
peak = re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())
print(len(tokens), int(peak[1]) * 1024)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="it reads the peak from /proc")
def test_a_file_larger_than_the_memory_of_the_process_is_read(tmp_path: Path, reviews: list[str]) -> None:
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


def test_a_corpus_shows_what_it_was_told() -> None:
    corpus = Corpus(DOCUMENTS, field="body", documents="line", errors="skip")

    assert (corpus.field, corpus.documents, corpus.errors) == ("body", "line", "skip")
