"""Large corpora: the progress bar, the memory map, and skipped errors."""

from __future__ import annotations

import gzip
import io
import json
import sys
import tracemalloc
import warnings
import zlib
from pathlib import Path

import large_files
import numpy as np
import pyarrow
import pytest
from large_files import record_calls
from pyarrow import parquet

import revgen
from revgen import CorpusError, Tokenizer
from revgen.corpus import batches, progress, readers, tokens
from revgen.corpus.batches import Batches
from revgen.corpus.tokens import Tokens, tokenize, tokenize_train_valid
from revgen.evaluation.likelihood import measure


@pytest.fixture(autouse=True)
def treat_files_as_large(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    large_files.treat_as_large(monkeypatch, tmp_path / "cache")


# The progress bar ------------------------------------------------------------------------


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("progress", "is_terminal", "is_large"), [(1, 1, 1), (0, 1, 1), (1, 0, 1), (1, 1, 0)])
def test_a_progress_bar_is_shown_on_a_terminal_for_a_large_corpus(
    reviews_file: Path, progress: int, is_terminal: int, is_large: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = Terminal() if is_terminal else io.StringIO()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setattr(readers, "LARGE_CORPUS_SIZE", 1 if is_large else 10**9)

    revgen.create("ngram-char", order=2).fit(reviews_file, progress=bool(progress))

    for description in ("vocabulary", "tokens"):
        assert (f"{description}:" in screen.getvalue()) == bool(progress and is_terminal and is_large)


@pytest.mark.parametrize("file_format", [".txt", ".txt.gz", ".jsonl", ".jsonl.gz", ".parquet"])
def test_bytes_read_grows_to_the_size_of_the_files(tmp_path: Path, reviews: list[str], file_format: str) -> None:
    for name in ("a", "b"):
        content = "\n".join(json.dumps({"text": t}) if "json" in file_format else t for t in reviews).encode()
        if file_format == ".parquet":
            parquet.write_table(pyarrow.table({"text": reviews}), tmp_path / f"{name}{file_format}")
        else:
            (tmp_path / f"{name}{file_format}").write_bytes(gzip.compress(content) if ".gz" in file_format else content)
    corpus = revgen.read(tmp_path)

    bytes_read = [corpus.bytes_read for _ in corpus.blocks()]

    assert corpus.size == sum(path.stat().st_size for path in tmp_path.glob(f"*{file_format}"))
    assert bytes_read == sorted(bytes_read) or file_format == ".parquet"
    assert 0 < bytes_read[0] <= bytes_read[-1] <= corpus.bytes_read == corpus.size


def test_with_progress_yields_all_items(reviews_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal())
    corpus = revgen.read(reviews_file)

    assert list(progress.with_progress(corpus.pieces(), corpus, "tokens", True)) == list(corpus.pieces())


# Memory ----------------------------------------------------------------------------------


def test_the_memory_map_is_released_and_read_again(
    reviews_file: Path, char_tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    mapped = tokenize(revgen.read(reviews_file, documents="line"), char_tokenizer)
    documents = [ids.tolist() for ids in mapped.documents()]
    chunks = [inputs.tolist() for inputs, _ in Batches(mapped, 4, 20, 0, 0)]
    checksum = zlib.crc32(mapped.spans.tobytes(), zlib.crc32(mapped.ids.tobytes()))
    released = record_calls(monkeypatch, Tokens, "release")
    for module in (tokens, batches):
        monkeypatch.setattr(module, "MAX_MAPPED_BYTES", 1000)

    assert [ids.tolist() for ids in mapped.documents()] == documents
    assert [inputs.tolist() for inputs, _ in Batches(mapped, 4, 20, 0, 0)] == chunks
    assert mapped.checksum == checksum
    assert len(released) > 100


def test_tokens_in_memory_have_a_checksum() -> None:
    small = Tokens(np.arange(10, dtype=np.uint16), np.array([[0, 10]]))

    assert small.checksum == zlib.crc32(small.spans.tobytes(), zlib.crc32(small.ids.tobytes()))


# Skipped errors --------------------------------------------------------------------------


def test_skipped_errors_are_a_warning_with_and_without_the_cache(reviews_file: Path, char_tokenizer: Tokenizer) -> None:
    lines = reviews_file.read_bytes().splitlines(keepends=True)
    reviews_file.write_bytes(b"".join([*lines[:40], b"b\xffd\n", *lines[40:90], b"w\xffrse\n", *lines[90:]]))
    expected = r"2 errors in the text were skipped; the first is .*a\.txt, line 41: not valid UTF-8"

    for _ in range(2):
        with pytest.warns(UserWarning, match=expected):
            tokenize(revgen.read(reviews_file, errors="skip"), char_tokenizer)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tokenize(revgen.read([*map(str, range(100))], errors="skip"), char_tokenizer)


@pytest.mark.parametrize("file_format", [".txt", ".csv", ".jsonl", ".parquet"])
def test_the_rest_of_a_damaged_file_can_be_skipped(tmp_path: Path, reviews: list[str], file_format: str) -> None:
    path, plain = tmp_path / f"a{file_format}.gz", tmp_path / f"plain{file_format}"
    if file_format == ".parquet":
        parquet.write_table(pyarrow.table({"text": reviews}), plain)
    else:
        lines = [
            json.dumps({"text": t}) if file_format == ".jsonl" else t.replace('"', "").replace(",", "") for t in reviews
        ]
        plain.write_text("\n".join(["text", *lines] if file_format == ".csv" else lines), "utf-8")
    packed = gzip.compress(plain.read_bytes())
    plain.unlink()
    (tmp_path / "b.txt").write_text("the next file", "utf-8")

    for damaged in (b"no gzip at all", packed[:5], packed[: len(packed) // 2]):
        path.write_bytes(damaged)
        corpus = revgen.read(tmp_path, errors="skip")
        documents = list(corpus)
        assert documents[-1] == "the next file"
        assert corpus.skipped == 1
        assert corpus.first_skipped.startswith(f"{path}: the rest cannot be read, because the file is damaged: ")
    path.write_bytes(packed[:-4])
    assert len(list(revgen.read(tmp_path, errors="skip"))) > (file_format in (".csv", ".jsonl")) * 100


def test_an_unreadable_file_is_an_error_even_if_errors_are_skipped(
    reviews_file: Path, char_tokenizer: Tokenizer
) -> None:
    corpus = revgen.read(reviews_file, errors="skip")
    reviews_file.unlink()

    with pytest.raises(CorpusError, match=r"a\.txt: cannot be read"):
        tokenize(corpus, char_tokenizer)
    with pytest.raises(CorpusError, match=r"a\.txt: cannot be read"):
        list(corpus)


def test_an_unclosed_quote_is_an_error_that_says_where_it_was_opened(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b'id,text\n1,one\n2,"two\n3,three\n')

    with pytest.raises(CorpusError, match="the row after line 2: it opens a quote that is never closed"):
        list(revgen.read(path))


def test_a_document_of_millions_of_tokens_is_counted_in_little_memory(
    char_tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = np.full(20_000_000, char_tokenizer.encode("a")[0], char_tokenizer.dtype)
    monkeypatch.setattr(tokens, "tokenize", lambda *_: Tokens(ids, np.array([[0, len(ids)]])))
    tracemalloc.start()
    try:
        train, _ = tokenize_train_valid(revgen.read(["a"]), None, char_tokenizer, seed=0)
        measure(
            lambda windows: ((i, np.zeros(len(window) - 1)) for i, window in enumerate(windows)),
            char_tokenizer,
            train.documents(),
        )
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < ids.nbytes
