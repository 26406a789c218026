"""Files of tokenizers: what is saved is loaded again, and a damaged or foreign file is rejected."""

from __future__ import annotations

import numpy as np
import pytest
from test_tokenizers import LEVELS, round_trip_runs, train_level

from revgen import CheckpointError
from revgen.registry import tokenizers


@pytest.mark.parametrize("level", LEVELS)
def test_saved_tokenizer_is_equal_and_extends_equally(level: str) -> None:
    tokenizer = train_level(level)

    loaded = type(tokenizer).from_bytes(tokenizer.to_bytes())

    assert loaded == tokenizer
    assert loaded.vocabulary == tokenizer.vocabulary
    new = ["ñandú über\n"] * 2
    assert loaded.unknown_characters(new) == tokenizer.unknown_characters(new)
    assert loaded.extend(new) == tokenizer.extend(new)


@pytest.mark.parametrize("level", LEVELS)
def test_truncated_file_is_rejected(level: str) -> None:
    data = train_level(level).to_bytes()
    lengths = {*range(0, len(data), max(1, len(data) // 300)), *range(max(0, len(data) - 100), len(data))}

    for length in sorted(lengths):
        with pytest.raises(CheckpointError, match=r"tokenizer\.model|vocabulary\.json"):
            type(train_level(level)).from_bytes(data[:length])


@pytest.mark.parametrize("level", LEVELS)
def test_file_with_a_flipped_bit_is_rejected_or_works(level: str) -> None:
    data = train_level(level).to_bytes()
    rng = np.random.default_rng(0)

    for _ in range(300):
        damaged = bytearray(data)
        damaged[rng.integers(len(data))] ^= 1 << int(rng.integers(8))
        try:
            tokenizer = type(train_level(level)).from_bytes(bytes(damaged))
        except CheckpointError:
            continue
        assert round_trip_runs(tokenizer)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("other", LEVELS)
def test_file_of_another_level_is_rejected(level: str, other: str) -> None:
    if level == other:
        return
    with pytest.raises(CheckpointError, match=r"tokenizer\.model|vocabulary\.json"):
        type(train_level(level)).from_bytes(train_level(other).to_bytes())


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0",
        b"{}",
        b"[]",
        b"null",
        b"3",
        b'"text"',
        b"\xff\xfe\x00",
        b"[" * 100_000,
        b'{"level": "LEVEL"}',
        b'{"level": "LEVEL", "tokens": null}',
        b'{"level": "LEVEL", "tokens": "abc"}',
        b'{"level": "LEVEL", "tokens": {"a": 1}}',
        b'{"level": "LEVEL", "tokens": []}',
        b'{"level": "LEVEL", "tokens": ["a", "b", "c"]}',
        b'{"level": "LEVEL", "tokens": ["<s>", "</s>", "<unk>", 1]}',
        b'{"level": "LEVEL", "tokens": ["<s>", "</s>", "<unk>", ""]}',
        b'{"level": "LEVEL", "tokens": ["<s>", "</s>", "<unk>", ["a"]]}',
        b'{"level": "LEVEL", "tokens": ["<s>", "</s>", "<unk>", "a", "a"]}',
        b'{"level": "LEVEL", "tokens": ["<s>", "</s>", "<unk>", "a"], "min_count": "3"}',
    ],
)
def test_malformed_file_is_rejected(level: str, data: bytes) -> None:
    with pytest.raises(CheckpointError, match=r"tokenizer\.model|vocabulary\.json"):
        tokenizers.get(level).from_bytes(data.replace(b"LEVEL", level.encode()))


def test_character_tokenizer_rejects_a_token_of_two_characters() -> None:
    with pytest.raises(CheckpointError, match=r"vocabulary\.json"):
        tokenizers.get("char").from_bytes(b'{"level": "char", "tokens": ["<s>", "</s>", "<unk>", "ab"]}')
