"""Corpora that are damaged at random, or made to fill memory or disk: documents or a CorpusError, in bounded memory."""

from __future__ import annotations

import gzip
import json
import random
import resource
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fuzz_helpers import SEED, call

import revgen
from revgen.errors import escape_controls

LINE = "the song of the band"
FORMATS: dict[str, Callable[[int], str]] = {
    ".txt": lambda n: f"{LINE}\n" * n,
    ".csv": lambda n: "id,text\n" + f'1,"{LINE}"\n' * n,
    ".tsv": lambda n: "id\ttext\n" + f"1\t{LINE}\n" * n,
    ".jsonl": lambda n: f'{{"text": "{LINE}"}}\n' * n,
    ".json": lambda n: json.dumps([{"text": LINE}] * n, indent=1),
}
PIECES = [b'"', b'""', b"\n", b"\r", b"\r\n", b"\0", b"\xff", b"\xef\xbb\xbf", b",", b"\t", b"[", b"]", b"{", b"}"]
PIECES += [b"\\", b"\\ud800", b":", b"null", b"9" * 5000, b"'", "é".encode(), b"\xf0\x9f", b"sep=;\n", b"1e999", b"NaN"]
OPTIONS: dict[str, list[Any]] = {
    "documents": ["file", "line", "blank"],
    "errors": ["raise", "skip", "skip"],
    "quoting": [None, "minimal", "none"],
    "delimiter": [None, ";", "|"],
    "encoding": [None, "cp1252", "utf-16", "utf-8"],
    "max_document_bytes": [1, 30, 1000, 1 << 20],
}


def read(path: Path, options: dict[str, Any]) -> None:
    """Read a corpus in both ways. An error must be a CorpusError."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for by_blocks in (True, False):
            try:
                corpus = revgen.read(path, **options)
                for _ in corpus.blocks() if by_blocks else corpus:
                    pass
                assert (corpus.skipped > 0) == bool(corpus.first_skipped)
            except revgen.CorpusError as error:
                assert escape_controls(str(error)) == str(error) and len(str(error)) < 600


def attack(folder: Path, count: int) -> None:
    rng = random.Random(f"{SEED} {count}")
    for number in range(count):
        suffix = rng.choice(list(FORMATS))
        data = bytearray(FORMATS[suffix](rng.choice((1, 3, 50))).encode(rng.choice(("utf-8", "utf-8", "utf-16"))))
        for _ in range(rng.choice((0, 1, 3, 20))):
            at = rng.randrange(len(data) + 1)
            size = rng.choice((0, 0, 1, 30))
            data[at : at + size] = rng.choice(PIECES) * rng.choice((1, 1, 2, 300))
        packed = rng.random() < 0.2
        if packed:
            data = bytearray(gzip.compress(bytes(data)))
            if rng.random() < 0.5:
                data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        path = folder / f"{number}{suffix}{'.gz' if packed else ''}"
        path.write_bytes(data)
        options = {name: rng.choice(OPTIONS[name]) for name in rng.sample(list(OPTIONS), rng.choice((0, 1, 2, 4)))}
        try:
            read(path, options)
        except Exception as error:
            raise AssertionError(f"{path} with {options}: {type(error).__name__}: {error}") from error


def test_damaged_corpora_are_read_or_refused(tmp_path: Path) -> None:
    attack(tmp_path, 300)


@pytest.mark.fuzz
def test_many_damaged_corpora_are_read_or_refused(tmp_path: Path) -> None:
    attack(tmp_path, 30_000)


BOMBS: dict[str, tuple[bytes, bytes, bytes]] = {  # start, repeated part, end
    "line.txt": (b"", b"a", b""),
    "lines.txt": (b"", b"the song\n", b""),
    "returns.txt": (b"a\n", b"\r", b""),
    "blank.txt": (b"", b"\n", b"a"),
    "line.jsonl": (b'{"text": "', b"a", b'"}'),
    "nested.jsonl": (b'{"text": "a", "x": [', b"[],", b"1]}"),
    "rows.jsonl": (b"", b'{"text": "a"}\n', b""),
    "line.csv": (b"text\n", b"a", b""),
    "header.csv": (b"", b"a,", b"text"),
    "quote.csv": (b'text\n"', b"the song\n", b""),
    "quotes.csv": (b"text\n", b'"', b""),
    "quote of a row.csv": (b'id,text\n1,"', b"a,b\n", b""),
    "delimiters.csv": (b"id,text\n", b",", b""),
    "quote.tsv": (b'id\ttext\n1\t"', b"the song\n", b""),
    "string.json": (b'["', b"a", b'"]'),
    "items.json": (b"[", b'"a",', b'"b"]'),
    "lists.json": (b"[[", b"[],", b"1]]"),
    "depth.json": (b"", b"[", b""),
    "spaces.json": (b"[", b" ", b"]"),
}


def make_bomb(path: Path, megabytes: int) -> None:
    """Write a gzip file of several members, which unpacks to this size."""
    start, part, end = BOMBS[path.name.removesuffix(".gz")]
    block = gzip.compress(part * ((1 << 20) // len(part)), 9)
    path.write_bytes(gzip.compress(start) + block * megabytes + gzip.compress(end))


def peak_memory(path: Path, options: dict[str, Any]) -> int:
    """Read a corpus, and return the peak of the memory in MB. Runs in a process of its own."""
    read(path, options)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


SHORT_BOMBS = ("line.txt", "line.jsonl", "string.json")
SLOW_BOMBS = {"quote.tsv": 8, "items.json": 8}
"""The sizes in MB of files that take seconds for each megabyte, because they have millions of items or errors."""

MANY_DOCUMENTS = {"lines.txt": 128, "blank.txt": 32, "rows.jsonl": 128, "quote of a row.csv": 128, "items.json": 8}
"""The sizes in MB of files of small documents: reading more of them takes more time, but not more memory."""


@pytest.mark.parametrize("name", [n if n in SHORT_BOMBS else pytest.param(n, marks=pytest.mark.fuzz) for n in BOMBS])
def test_a_file_that_unpacks_to_far_more_takes_little_memory(name: str, tmp_path: Path) -> None:
    path = tmp_path / f"{name}.gz"
    make_bomb(path, SLOW_BOMBS.get(name, 150 if b"\n" not in BOMBS[name][1] else 24))
    small = tmp_path / "small.txt"
    small.write_text(LINE)
    used = int(call(lambda: peak_memory(small, {})))

    for errors in ("raise", "skip"):
        options = {"errors": errors, "max_document_bytes": 1 << 20}
        assert int(call(lambda: peak_memory(path, options))) < used + 100


@pytest.mark.fuzz
@pytest.mark.parametrize("name", BOMBS)
def test_a_file_that_unpacks_to_a_gigabyte_is_read_or_refused_with_the_default_limit(name: str, tmp_path: Path) -> None:
    path = tmp_path / f"{name}.gz"
    make_bomb(path, MANY_DOCUMENTS.get(name, 1024))
    for options in ({}, {"documents": "line"}):
        outcome = call(lambda: peak_memory(path, options))

        assert outcome.isdigit(), outcome
