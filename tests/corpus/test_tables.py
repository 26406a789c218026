"""Tables in text: delimiters, quotes, headers, and data frames of pandas and polars."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any, Literal

import pandas
import polars
import pytest

import revgen
from revgen import CorpusError, OptionError

QUOTED = ['He said "hi"', '"quoted"', "tab\there", "new\nline", '"', '""', "plain", '"Yes," he', "a, b", "c; d"]
PLAIN = ['"Yes," he said.', "OK", '"No', 'the last "word"', 'He said "yes."', '"', '5" disk', '"Yes."', '""', 'a "" b']


def read(path: Path, content: str, **options: Any) -> list[str]:
    path.write_bytes(content.encode())
    return list(revgen.read(path, **options))


@pytest.mark.parametrize(("name", "delimiter"), [("a.csv", ","), ("a.csv", ";"), ("a.csv", "\t"), ("a.tsv", "\t")])
@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC])
@pytest.mark.parametrize("columns", [["text"], ["id", "text"], ["text", "id"]])
def test_tables_written_by_pandas_are_read_back(
    tmp_path: Path, name: str, delimiter: str, quoting: Literal[0, 1, 2], columns: list[str]
) -> None:
    table = pandas.DataFrame({"id": range(len(QUOTED)), "text": QUOTED})[columns]
    table.to_csv(tmp_path / name, sep=delimiter, quoting=quoting, index=False)

    assert list(revgen.read(tmp_path / name)) == QUOTED


@pytest.mark.parametrize("options", [{}, {"quoting": "none"}])
@pytest.mark.parametrize("row", ["text", "id\ttext", "text\tid"])
def test_quotes_in_a_tsv_file_without_quoting_are_text(tmp_path: Path, row: str, options: dict[str, Any]) -> None:
    rows = [row.replace("id", str(i)).replace("text", text) for i, text in enumerate(PLAIN)]

    assert read(tmp_path / "a.tsv", "\n".join([row, *rows]), **options) == PLAIN


def test_an_opening_quote_followed_by_complete_rows_of_a_tsv_file_is_text(tmp_path: Path) -> None:
    texts = ['"No', "last", 'I said so."']

    assert read(tmp_path / "a.tsv", 'id\ttext\n1\t"No\n2\tlast\n3\tI said so."\n') == texts


def test_a_quote_after_the_sample_of_a_tsv_file_is_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("revgen.corpus.quoting.QUOTING_SAMPLE_SIZE", 20)
    texts = ["one", "two", "three", *PLAIN, '"never closed', "four"]

    assert read(tmp_path / "a.tsv", "id\ttext\n" + "".join(f"{i}\t{text}\n" for i, text in enumerate(texts))) == texts


def test_doubled_quotes_are_unescaped_in_a_lenient_tsv_file(tmp_path: Path) -> None:
    content = 'id\ttext\n1\t"He said ""hi"" to me"\n2\t"No\n3\t"a"\n'

    assert read(tmp_path / "a.tsv", content) == ['He said "hi" to me', '"No', '"a"']
    assert read(tmp_path / "a.tsv", content, quoting="none")[0] == '"He said ""hi"" to me"'


def test_the_option_quoting_overrides_detection(tmp_path: Path) -> None:
    assert read(tmp_path / "a.csv", 'id,text\n1,"Yes" he said\n2,"a"\n', quoting="none") == ['"Yes" he said', '"a"']
    with pytest.raises(CorpusError, match="quoting='none'"):
        read(tmp_path / "a.csv", 'id,text\n1,"Yes" he said\n2,"a"\n')
    with pytest.raises(CorpusError, match=r"a\.tsv, line 2: .*quoting='none'"):
        read(tmp_path / "a.tsv", 'id\ttext\n1\t"Yes" he said\n', quoting="minimal")
    with pytest.raises(CorpusError, match=r"never closed.*quoting='none'"):
        read(tmp_path / "a.csv", 'id,text\n1,"never closed\n2,b\n')


@pytest.mark.parametrize(("name", "delimiter"), [("a.csv", ","), ("a.csv", ";"), ("a.tsv", "\t")])
def test_a_row_with_too_many_fields_is_an_error_with_advice(tmp_path: Path, name: str, delimiter: str) -> None:
    content = "id,text\n1,Hello, world\n2,two\n".replace(",", delimiter)

    with pytest.raises(CorpusError, match=r"line 2: the row has 3 fields.* 2.*delimiter= or quoting="):
        read(tmp_path / name, content)

    assert read(tmp_path / name, content, errors="skip") == ["two"]


@pytest.mark.parametrize("name", ["a.csv", "a.tsv"])
def test_delimiters_in_a_table_with_one_column_are_text(tmp_path: Path, name: str) -> None:
    content = 'text\nHello, world: a post\n"Hello," she said, "go"\nSalt; pepper, and\teggs\n"a, ""b"""\n'

    texts = read(tmp_path / name, content)

    assert texts == ["Hello, world: a post", '"Hello," she said, "go"', "Salt; pepper, and\teggs", 'a, "b"']


@pytest.mark.parametrize(
    ("header", "delimiter"),
    [("id;text", ";"), ("text;title, with a comma", ";"), ("id\ttext", "\t"), ("id,text", ","), ("text,a;b", ",")],
)
def test_the_delimiter_is_detected_from_the_first_line(tmp_path: Path, header: str, delimiter: str) -> None:
    row = delimiter.join("the text" if name == "text" else "x" for name in header.split(delimiter))

    assert read(tmp_path / "a.csv", f"{header}\n{row}\n") == ["the text"]


@pytest.mark.parametrize(("option", "delimiter"), [("|", "|"), (":", ":"), ("\\t", "\t"), ("tab", "\t"), (" ", " ")])
@pytest.mark.parametrize("name", ["a.csv", "a.tsv"])
def test_the_option_delimiter_sets_the_delimiter(tmp_path: Path, name: str, option: str, delimiter: str) -> None:
    assert read(tmp_path / name, f"id{delimiter}text\n1{delimiter}a,b;c\n", delimiter=option) == ["a,b;c"]


@pytest.mark.parametrize(
    "option", [{"delimiter": "||"}, {"delimiter": ""}, {"delimiter": 3}, {"delimiter": '"'}, {"quoting": "all"}]
)
def test_an_invalid_table_option_is_an_error_that_names_it(option: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match=next(iter(option))):
        revgen.read(["a text"], **option)


@pytest.mark.parametrize("delimiter", [",", "\t"])
def test_two_columns_with_the_same_name_are_an_error(tmp_path: Path, delimiter: str) -> None:
    path = tmp_path / ("a.csv" if delimiter == "," else "a.tsv")
    for header in ("text,text", "text,id,id"):
        with pytest.raises(CorpusError, match=r"line 1: .*more than once"):
            read(path, f"{header}\na,b,c\n".replace(",", delimiter))
    assert read(path, "text,,\na,,\n".replace(",", delimiter)) == ["a"], "columns without a name may repeat"


@pytest.mark.parametrize(
    ("content", "texts"),
    [
        ("id,text", []),
        ("id,text\n", []),
        ("\n\nid,text\n\n1,a", ["a"]),
        ("\ufeffid,text\n1,a\n", ["a"]),
        ('\ufeff"id","text"\r\n1,a\r\n', ["a"]),
        ('id,text\r1,"a\rb"\r2,c\r', ["a\nb", "c"]),
        ("id,text\r1,a\r2,b", ["a", "b"]),
        ("id,text\n1,a\0b\n", ["a\0b"]),
    ],
)
@pytest.mark.parametrize("delimiter", [",", "\t"])
def test_blank_lines_line_endings_and_byte_order_marks_are_handled(
    tmp_path: Path, content: str, texts: list[str], delimiter: str
) -> None:
    name = "a.csv" if delimiter == "," else "a.tsv"

    assert read(tmp_path / name, content.replace(",", delimiter)) == texts


@pytest.mark.parametrize("end", ["\r", "\r\n", "\n"])
def test_all_line_endings_are_supported(tmp_path: Path, end: str) -> None:
    assert read(tmp_path / "a.txt", f"one{end}two{end}three", documents="line") == ["one", "two", "three"]
    assert read(tmp_path / "a.txt", f"one{end}two{end}") == ["one\ntwo\n"]
    assert read(tmp_path / "a.jsonl", f'{{"text": "one"}}{end}{{"text": "two"}}') == ["one", "two"]


def test_line_numbers_include_skipped_lines(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"id,text\n1,b\xffd\n2,two\n3\n")
    corpus = revgen.read(tmp_path / "a.csv", errors="skip")

    assert list(corpus) == ["two"]
    assert corpus.skipped == 2
    assert "line 2" in corpus.first_skipped


# Data frames -----------------------------------------------------------------------------


def test_polars_frames_and_series_are_corpora() -> None:
    table = polars.DataFrame({"id": [1, 2], "text": ["one", "two"], "title": ["a", "b"]})

    assert list(revgen.read(table)) == ["one", "two"]
    assert list(revgen.read(table, field="title")) == ["a", "b"]
    assert list(revgen.read(table["text"])) == ["one", "two"]
    assert revgen.read(table, labels="title").label_names() == ["a", "b"]
    with pytest.raises(CorpusError, match="no column 'body'; it has id, text, title"):
        revgen.read(table, field="body")
    with pytest.raises(CorpusError, match="collect"):
        revgen.read(table.lazy())


def test_a_data_frame_with_a_repeated_column_name_is_an_error() -> None:
    table = pandas.DataFrame({"text": ["one", "two"]})

    with pytest.raises(CorpusError, match="more than once"):
        revgen.read(pandas.concat([table, table], axis=1))
