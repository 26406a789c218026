"""Encodings: detection, error messages with a suggestion, line numbers, and reading in blocks."""

from __future__ import annotations

import gzip
import sys
from pathlib import Path
from typing import Any

import pytest

import revgen
from revgen import CorpusError, OptionError

TEXTS = {
    "English": "Hello there, this is text.\nA second line — with a dash.\n",
    "Russian": "Привет, мир и всё остальное!\nВторая строка.\n",
    "Greek": "Ελληνικά κείμενα εδώ.\nΔεύτερη γραμμή.\n",
    "Japanese": "漢字かな交じり文。\n二行目です。\n",
    "Korean": "한국어 문장입니다.\n두 번째 줄.\n",
    "emoji": "🎸🎸 and 🥁\nmore\n",
    "short": "ok",
}
UNICODE = ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("encoding", UNICODE)
@pytest.mark.parametrize("language", TEXTS)
def test_unicode_encodings_are_detected(tmp_path: Path, language: str, encoding: str, packed: bool) -> None:
    text = TEXTS[language]
    path = tmp_path / ("a.txt.gz" if packed else "a.txt")
    content = text.encode(encoding)
    path.write_bytes(gzip.compress(content) if packed else content)

    assert list(revgen.read(path)) == [text]
    assert list(revgen.read(path, documents="line")) == text.splitlines()


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_tables_and_json_are_read_in_every_encoding(tmp_path: Path, encoding: str, end: str) -> None:
    (tmp_path / "a.csv").write_bytes('id,text\n1,"à, ""b"""\n2,c\n'.replace("\n", end).encode(encoding))
    (tmp_path / "b.jsonl").write_bytes('{"text": "dé"}\n{"text": "漢"}\n'.replace("\n", end).encode(encoding))
    (tmp_path / "c.json").write_bytes('["e",\n"f"]'.replace("\n", end).encode(encoding))

    assert list(revgen.read(tmp_path)) == ['à, "b"', "c", "dé", "漢", "e", "f"]


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("cp1252", "It’s a café\nnaïve\n"),
        ("latin-1", "It's a café\nnaïve\n"),
        ("cp1251", "Привет\nмир\n"),
        ("shift_jis", "日本語\nテキスト\n"),
        ("gb18030", "中文\n文本\n"),
        ("cp500", "one\ntwo\n"),
        ("utf-16-le", "漢字\nかな\n"),
    ],
)
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_the_option_encoding_sets_the_encoding(tmp_path: Path, encoding: str, text: str, end: str) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(text.replace("\n", end).encode(encoding))

    assert list(revgen.read(path, encoding=encoding)) == [text]
    assert list(revgen.read(path, encoding=encoding, documents="line")) == text.splitlines()


@pytest.mark.parametrize("length", [1, 2, 3, 1 << 16, (1 << 16) - 1, (1 << 16) + 1, 3 << 16])
@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "cp1252", "shift_jis", "utf-32"])
def test_characters_across_block_boundaries_are_kept(tmp_path: Path, length: int, encoding: str) -> None:
    char = "é" if encoding == "cp1252" else "漢" if encoding == "shift_jis" else "🎸"
    text = "x" * length + f"{char}\r\n{char}" * 3
    path = tmp_path / "a.txt"
    path.write_bytes(text.encode(encoding))

    assert list(revgen.read(path, encoding=encoding)) == [text.replace("\r\n", "\n")]


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("cp1252", "It’s a café\nplain\n"),
        ("cp1251", "Это русский текст, который написан в старой кодировке.\n" * 20),
        ("cp932", "これは古い文字コードで書かれた日本語のテキストです。\n" * 20),
    ],
)
def test_the_error_for_an_undecodable_file_suggests_a_working_encoding(
    tmp_path: Path, encoding: str, text: str
) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(text.encode(encoding))

    with pytest.raises(CorpusError, match=r"a\.txt, line 1: not valid UTF-8: .*encoding='") as caught:
        list(revgen.read(path))

    suggested = str(caught.value).rpartition("encoding='")[2].removesuffix("'")
    assert list(revgen.read(path, encoding=suggested)) == [text]


def test_the_error_names_the_option_without_charset_normalizer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "charset_normalizer", None)
    (tmp_path / "a.txt").write_bytes("это текст".encode("cp1251"))

    with pytest.raises(CorpusError, match="encoding="):
        list(revgen.read(tmp_path / "a.txt"))


@pytest.mark.parametrize("encoding", ["foo", "rot13", "hex", "idna", "undefined", "", 3, "utf-8\0"])
def test_an_unknown_encoding_is_an_error(encoding: Any) -> None:
    with pytest.raises(OptionError, match="encoding"):
        revgen.read(["a text"], encoding=encoding)


@pytest.mark.parametrize(
    ("content", "encoding", "line", "rest"),
    [
        (b"\xff\xfea\0\n\0\x00\xd8b\0\n\0c\0", None, 2, ["a", "c"]),  # half a surrogate pair
        (b"\xff\xfea\0\n\0b\0\n\0c", None, 3, ["a", "b"]),  # half a character at the end
        (b"one\nt\xc3\xa9\nthree", "ascii", 2, ["one", "three"]),
        (b"one\rtwo\rt\xff\rfour", None, 3, ["one", "two", "four"]),
    ],
)
def test_the_error_for_an_undecodable_line_has_its_number(
    tmp_path: Path, content: bytes, encoding: str | None, line: int, rest: list[str]
) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(content)

    for documents in ("line", "file"):
        with pytest.raises(CorpusError, match="not valid") as caught:
            list(revgen.read(path, documents=documents, encoding=encoding))
        assert (caught.value.path, caught.value.line) == (path, line)
    corpus = revgen.read(path, documents="line", encoding=encoding, errors="skip")
    assert list(corpus) == rest
    assert corpus.skipped == 1


@pytest.mark.parametrize("text", ["hello\0there, my friend\n" * 4, "a\0b", "id\0" * 3 + "more text"])
def test_nuls_in_utf8_text_do_not_change_the_detected_encoding(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.txt").write_bytes(text.encode())

    assert list(revgen.read(tmp_path / "a.txt")) == [text]


def test_a_long_utf16_file_is_read_in_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("revgen.corpus.text.BLOCK_SIZE", 1 << 12)
    text = "слово " * 50_000
    path = tmp_path / "a.txt"
    path.write_bytes(text.encode("utf-16"))

    corpus = revgen.read(path)

    assert "".join(corpus) == text
    assert max(len(block) for block, _ in corpus.blocks()) < 1 << 17
