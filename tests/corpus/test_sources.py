"""Sources: texts, paths, globs, directories, archives, standard input, pipes and open files."""

from __future__ import annotations

import gzip
import io
import os
import re
import subprocess
import sys
import threading
import warnings
import zipfile
from pathlib import Path
from typing import Any

import pandas
import pytest

import revgen
from revgen import Corpus, CorpusError, OptionError


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the current directory, with files in several formats."""
    monkeypatch.chdir(tmp_path)
    contents = {
        "a.txt": "one",
        "B.TXT": "two",
        "c.md": "three",
        "d.json": '["four", {"text": "five"}]',
        "e.ndjson": '{"text": "six"}',
        "sub/f.jsonl": '{"text": "seven"}',
        "cover.PNG": "no text",
        "letter.docx": "no text",
        "Makefile": "no text",
        "._a.txt": "hidden",
        ".DS_Store": "hidden",
        ".ipynb_checkpoints/a-checkpoint.txt": "hidden",
        "sub/.git/x.txt": "hidden",
        "__MACOSX/a.txt": "hidden",
    }
    for name, content in contents.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    (tmp_path / "g.CSV.GZ").write_bytes(gzip.compress(b"text\neight\n"))
    return tmp_path


# Texts or paths --------------------------------------------------------------------------


@pytest.mark.parametrize("texts", [["hello there", ".", "ok"], ["and/or", "/"], ["sub", "a.txt", "-"], ["*", "~", "."]])
@pytest.mark.parametrize("as_list", [list, tuple, iter])
def test_strings_in_a_list_are_texts_even_if_files_have_these_names(
    folder: Path, texts: list[str], as_list: Any
) -> None:
    assert list(revgen.read(as_list(texts))) == texts


def test_a_list_of_file_names_is_read_as_texts_with_a_warning(folder: Path) -> None:
    with pytest.warns(UserWarning, match="paths="):
        assert list(revgen.read(["a.txt", "c.md"])) == ["a.txt", "c.md"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert list(revgen.read(["a.txt", "a text"])) == ["a.txt", "a text"]


@pytest.mark.parametrize(
    "paths", ["a.txt", Path("a.txt"), ["a.txt"], [Path("a.txt")], ("a.txt",), "[a]*.txt", Path("[a]*.txt"), ["?.txt"]]
)
def test_paths_can_be_strings_path_objects_or_lists(folder: Path, paths: Any) -> None:
    assert list(revgen.read(paths=paths)) == ["one"]


def test_strings_and_path_objects_can_be_mixed_only_in_paths(folder: Path) -> None:
    assert list(revgen.read(paths=["c.md", Path("a.txt")])) == ["three", "one"]
    assert list(revgen.read(paths=(path for path in [Path("c.md"), Path("a.txt")]))) == ["three", "one"]
    with pytest.raises(CorpusError, match="not both: item 2 is of type str"):
        revgen.read([Path("a.txt"), "c.md"])


@pytest.mark.parametrize("paths", [3, [3], [], "nothing.txt", "*.nothing", ["a.txt", "nothing.txt"]])
def test_invalid_or_missing_paths_are_errors(folder: Path, paths: Any) -> None:
    with pytest.raises(CorpusError):
        revgen.read(paths=paths)


def test_giving_both_texts_and_paths_is_an_error(folder: Path) -> None:
    with pytest.raises(OptionError, match="paths="):
        revgen.read(["a text"], paths="a.txt")


def test_path_objects_in_an_iterator_are_an_error_with_advice(folder: Path) -> None:
    with pytest.raises(CorpusError, match="paths="):
        list(revgen.read(folder.glob("*.txt")))


def test_the_home_directory_is_expanded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("USERPROFILE", str(folder))

    assert list(revgen.read("~/a.txt")) == ["one"]
    assert list(revgen.read(paths=["~/?.md"])) == ["three"]


def test_an_unknown_option_is_an_error_with_similar_names(folder: Path) -> None:
    options: dict[str, Any] = {"encodng": "utf-8"}
    with pytest.raises(OptionError, match="did you mean encoding"):
        revgen.read("a.txt", **options)
    with pytest.raises(OptionError, match="did you mean encoding"):
        Corpus(["a text"], **options)


def test_corpus_options_returns_all_options_of_read() -> None:
    corpus = revgen.read(["a text"], field="body", documents="line", quoting="none", delimiter=";", encoding="cp1252")

    assert corpus.options == {
        "field": "body",
        "documents": "line",
        "errors": "raise",
        "encoding": "cp1252",
        "delimiter": ";",
        "quoting": "none",
        "max_document_bytes": 256 << 20,
    }


# Directories, globs, archives ------------------------------------------------------------


def test_a_directory_is_read_without_hidden_files_and_counts_skipped_files(folder: Path) -> None:
    corpus = revgen.read(folder)

    assert list(corpus) == ["two", "one", "three", "four", "five", "six", "eight", "seven"]
    assert corpus.sources == "7 files; 3 files skipped (without a suffix, .png, .docx)"
    assert revgen.read(["a text"]).sources == ""


def test_a_hidden_file_or_directory_is_read_if_named(folder: Path) -> None:
    assert list(revgen.read(".ipynb_checkpoints")) == ["hidden"]
    assert list(revgen.read("._a.txt")) == ["hidden"]


def test_a_directory_with_only_hidden_files_is_an_error(folder: Path) -> None:
    (folder / "sub" / "f.jsonl").unlink()

    with pytest.raises(CorpusError, match="no file in a supported format"):
        revgen.read("sub")


def test_a_directory_of_code_is_an_error_that_names_a_glob_for_it(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    for name in ("a.py", "sub/b.py", "c.toml"):
        (tmp_path / name).write_text(name)

    with pytest.raises(CorpusError, match=r"a glob such as (.+) reads other files as text") as caught:
        revgen.read(tmp_path)

    pattern = str(caught.value).rpartition("such as ")[2].partition(" reads")[0]
    assert list(revgen.read(pattern)) == ["a.py", "sub/b.py"]


@pytest.mark.parametrize(
    ("pattern", "texts"),
    [("*.txt", ["one"]), ("*.[tT][xX][tT]", ["two", "one"]), ("**/*.jsonl", ["seven"]), ("[cl]*", ["three"])],
)
def test_matches_of_a_glob_are_read_in_name_order(folder: Path, pattern: str, texts: list[str]) -> None:
    assert list(revgen.read(pattern)) == texts
    assert list(revgen.read(paths=str(folder / pattern))) == texts


def test_members_of_an_archive_are_read_in_name_order(folder: Path) -> None:
    with zipfile.ZipFile("all.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("sub/f.jsonl", "c.md", "a.txt", "g.CSV.GZ", "__MACOSX/a.txt", "._a.txt", "cover.PNG"):
            archive.write(name)
        pandas.DataFrame({"text": ["nine"]}).to_parquet("h.parquet")
        archive.write("h.parquet")

    corpus = revgen.read("all.zip")

    assert list(corpus) == ["one", "three", "eight", "nine", "seven"]
    assert list(corpus) == ["one", "three", "eight", "nine", "seven"], "it can be read again"
    assert corpus.sources == "5 files; 1 file skipped (.png)"
    assert corpus.files == [Path("all.zip")]
    assert corpus.size == Path("all.zip").stat().st_size
    twice = revgen.read(paths=["all.zip", "all.zip", "a.txt", "a.txt"])
    assert twice.files == [Path("all.zip"), Path("all.zip"), Path("a.txt"), Path("a.txt")]


def test_errors_in_an_archive_name_the_member(folder: Path) -> None:
    with zipfile.ZipFile("a.zip", "w") as archive:
        archive.writestr("in/x.jsonl", '{"text": "one"}\n{"text": 2}\n')

    with pytest.raises(CorpusError, match=r"a\.zip.in.x\.jsonl, line 2: "):
        list(revgen.read("a.zip"))


def test_a_damaged_archive_is_an_error_that_names_it(folder: Path) -> None:
    with zipfile.ZipFile("a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.txt", "some text " * 1000)
        archive.writestr("y.txt", "more")
    intact = Path("a.zip").read_bytes()
    for damaged in (b"", b"no archive", intact[:-10], intact[:50], intact[:45] + b"\xff\x00\xff" + intact[48:]):
        Path("b.zip").write_bytes(damaged)
        with pytest.raises(CorpusError, match=r"b\.zip"):
            list(revgen.read("b.zip"))
    corpus = revgen.read("b.zip", errors="skip")
    assert list(corpus)[-1] == "more"
    assert corpus.skipped == 1


# Streams ---------------------------------------------------------------------------------


@pytest.mark.skipif(os.name != "posix", reason="named pipes")
def test_a_pipe_can_be_read_twice(folder: Path) -> None:
    os.mkfifo("pipe.jsonl")
    writer = threading.Thread(target=lambda: Path("pipe.jsonl").write_text('{"text": "piped"}\n', encoding="utf-8"))
    writer.start()
    corpus = revgen.read("pipe.jsonl")

    assert list(corpus) == ["piped"]
    assert list(corpus) == ["piped"]
    assert (corpus.files, corpus.size, corpus.bytes_read, corpus.is_large) == ([], 0, 0, False)
    writer.join()


@pytest.mark.skipif(os.name != "posix", reason="named pipes")
def test_a_pipe_without_a_writer_is_an_error_and_a_slow_writer_is_waited_for(folder: Path) -> None:
    os.mkfifo("pipe.txt")
    for errors in ("raise", "skip"):
        with pytest.raises(CorpusError, match=r"pipe\.txt: cannot be read: .* a pipe to which no process writes"):
            list(revgen.read("pipe.txt", errors=errors))

    writer = subprocess.Popen("exec >pipe.txt; sleep 1.3; echo late", shell=True)
    assert list(revgen.read("pipe.txt")) == ["late\n"]
    assert writer.wait() == 0


@pytest.mark.parametrize("source", ["'-'", "paths=['-']", "Path('-')", "sys.stdin", "paths='/dev/stdin'"])
@pytest.mark.parametrize("packed", [False, True])
def test_standard_input_can_be_read_twice_and_leaves_no_temporary_file(
    tmp_path: Path, source: str, packed: bool
) -> None:
    script = (
        f"import revgen, sys; from pathlib import Path; corpus = revgen.read({source});"
        f"print(ascii([*corpus, *corpus, *revgen.read({source}), corpus.sources]))"
    )
    text = "hé\nthere".encode()

    result = subprocess.run(
        [sys.executable, "-c", script],
        input=gzip.compress(text) if packed else text,
        capture_output=True,
        check=True,
        env=os.environ | {"TMPDIR": str(tmp_path)},
    )

    assert result.stdout.decode().strip() == ascii([*["hé\nthere"] * 3, "standard input"])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("mode", ["r", "rb"])
def test_the_name_of_an_open_file_determines_its_format(folder: Path, mode: str) -> None:
    for name, texts in {"a.txt": ["one"], "d.json": ["four", "five"], "sub/f.jsonl": ["seven"]}.items():
        with Path(name).open(mode) as file:
            corpus = revgen.read(file)
            assert list(corpus) == texts
            assert list(corpus) == texts
    with gzip.open("g.CSV.GZ", mode + "t" * (mode == "r")) as packed:
        assert list(revgen.read(packed)) == ["eight"]


def test_file_objects_in_memory_are_read() -> None:
    assert list(revgen.read(io.StringIO("one\ntwo\n"), documents="line")) == ["one", "two"]
    assert list(revgen.read(io.StringIO("café"), encoding="utf-16")) == ["café"], "strings are decoded already"
    assert list(revgen.read(io.BytesIO("café".encode("cp1252")), encoding="cp1252")) == ["café"]


def test_an_unreadable_open_file_is_an_error(folder: Path) -> None:
    closed = Path("a.txt").open(encoding="utf-8")  # noqa: SIM115
    closed.close()
    Path("latin.txt").write_bytes(b"caf\xe9")
    with Path("new.txt").open("w", encoding="utf-8") as new, Path("latin.txt").open(encoding="utf-8") as latin:
        for file in (closed, new, latin):
            with pytest.raises(CorpusError, match="open file cannot be read"):
                list(revgen.read(file))


@pytest.mark.parametrize("value", [1.5, b"bytes", None, {"text": "a"}, Path("a.txt"), ["a"]])
def test_an_item_that_is_not_a_string_is_an_error_that_names_its_type(value: object) -> None:
    name = "Path" if isinstance(value, Path) else type(value).__name__
    with pytest.raises(CorpusError, match=f"text 2 is of type {name}, not a string"):
        list(revgen.read(iter(["one", value])))


# Formats ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('["one", 2]', "item 2"),
        ('[{"body": "one"}]', "item 1 has no field 'text'"),
        ('{"data": ["one"]}', "array"),
        ("3", "array"),
        ('["one"', "line 1: not valid JSON"),
        ('[\n"one",\n]', "line 3: not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ('["one"] x', "line 1: not valid JSON"),
    ],
)
def test_an_invalid_json_file_is_an_error_that_says_why(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(content, encoding="utf-8")

    with pytest.raises(CorpusError, match=rf"a\.json.*{message}"):
        list(revgen.read(path))


def test_invalid_json_items_can_be_skipped_and_json_lines_are_detected(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('["one", 2, {"text": "three"}]', encoding="utf-8")
    corpus = revgen.read(path, errors="skip")
    assert (list(corpus), corpus.skipped) == (["one", "three"], 1)

    path.write_text('{"text": "one"}\n{"text": "two"}\n', encoding="utf-8")
    assert list(revgen.read(path)) == ["one", "two"]
    path.write_text("", encoding="utf-8")
    assert list(revgen.read(path)) == []


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("name", ["a.txt", "a.md"])
def test_documents_blank_splits_at_blank_lines(tmp_path: Path, name: str, end: str) -> None:
    path = tmp_path / name
    path.write_bytes("\n\n  one\ntwo\n \t\n\nthree\n\n\nfour".replace("\n", end).encode())

    assert list(revgen.read(path, documents="blank")) == ["  one\ntwo", "three", "four"]


def test_a_long_paragraph_is_read_in_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("revgen.corpus.text.BLOCK_SIZE", 256)
    texts = ["some words \n" * 200 + "end", "short"]
    path = tmp_path / "a.txt"
    path.write_text("\n\n".join(texts), encoding="utf-8")

    corpus = revgen.read(path, documents="blank")

    assert list(corpus) == texts
    assert max(len(text) for text, _ in corpus.blocks()) < 512


@pytest.mark.skipif(sys.platform == "win32", reason="links to names of any length need POSIX")
def test_a_directory_with_an_invalid_link_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "link.txt").symlink_to("x" * 300)

    with pytest.raises(CorpusError, match=re.escape(str(tmp_path))):
        revgen.read(tmp_path)


def test_a_trailing_delimiter_in_the_first_line_does_not_hide_text(tmp_path: Path) -> None:
    table = tmp_path / "corpus.csv"
    table.write_text("id,text,\n1,a,\n2,b\n")
    assert list(revgen.read(table)) == ["a", "b"]

    table.write_text("id,text,\n1,a, b\n")
    with pytest.raises(CorpusError, match=r"line 2: the row has 3 fields, but the first line names 2"):
        list(revgen.read(table))


def test_a_recursive_glob_reads_each_file_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "g" / "h").mkdir(parents=True)
    for name in ("g/1.txt", "g/h/2.txt", "g/h/3.txt"):
        (tmp_path / name).write_text(name)
    monkeypatch.chdir(tmp_path)

    assert list(revgen.read("g/**")) == list(revgen.read("g/**/*.txt")) == ["g/1.txt", "g/h/2.txt", "g/h/3.txt"]


def test_an_open_archive_or_a_class_is_an_error(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.txt", "text")
    with (tmp_path / "a.zip").open("rb") as file, pytest.raises(CorpusError, match=r"open .zip file.* give its path"):
        revgen.read(file)
    with pytest.raises(CorpusError, match="of type type"):
        revgen.read(io.BytesIO)
