"""Token ids on disk: documents, splits, and memory."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import revgen
from revgen import CorpusError, Tokenizer
from revgen.corpus.tokens import Tokens, tokenize
from revgen.registry import tokenizers

LEVELS = tokenizers.names()


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
