"""The cache: when an entry is used, rebuilt or left out, and errors of the disk."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import large_files
import numpy as np
import pytest
from large_files import are_equal, entries, record_calls

import revgen
from revgen import CorpusError, Tokenizer
from revgen.corpus import cache, readers, tokens
from revgen.corpus.tokens import tokenize
from revgen.registry import tokenizers

LEVELS = tokenizers.names()


@pytest.fixture(autouse=True)
def treat_files_as_large(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    large_files.treat_as_large(monkeypatch, tmp_path / "cache")


@pytest.fixture
def text(tmp_path: Path, reviews: list[str]) -> Path:
    path = tmp_path / "a.txt"
    path.write_text("\n".join(reviews), "utf-8")
    return path


@pytest.fixture(scope="module")
def chars(reviews: list[str]) -> Tokenizer:
    tokenizer: Tokenizer = tokenizers.get("char").train(reviews, min_count=1)
    return tokenizer


@pytest.mark.parametrize("level", LEVELS)
def test_the_second_run_reads_the_tokens_from_the_cache(
    text: Path, reviews: list[str], level: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = tokenizers.get(level).train(reviews)
    first = tokenize(revgen.read(text, documents="line"), tokenizer)
    parts = record_calls(monkeypatch, tokens.Encoder, "__call__")

    second = tokenize(revgen.read(text, documents="line"), tokenizer)

    assert are_equal(first, second)
    assert isinstance(second.ids, np.memmap)
    assert not second.ids.flags.writeable
    assert len(parts) == 1, "only the first part is encoded again, to check the entry"
    assert len(entries()) == 1


def test_a_cache_entry_depends_on_content_options_and_tokenizer(text: Path, chars: Tokenizer, tmp_path: Path) -> None:
    def count_entries(path: Path = text, tokenizer: Tokenizer = chars, **options: Any) -> int:
        tokenize(revgen.read(path, **options), tokenizer)
        return len(entries())

    copy = tmp_path / "copy.txt"
    copy.write_bytes(text.read_bytes())

    assert count_entries() == 1
    assert count_entries(copy) == 1
    assert count_entries(documents="line") == 2
    assert count_entries(tokenizer=tokenizers.get("char").train(["abc" * 9])) == 3
    copy.write_bytes(text.read_bytes() + b".")
    assert count_entries(copy) == 4
    copy.write_bytes(text.read_bytes())
    assert count_entries(copy) == 4


def test_a_changed_file_of_the_same_size_is_read_again(text: Path, chars: Tokenizer) -> None:
    corpus = revgen.read(text)
    tokenize(corpus, chars)
    content = text.read_text("utf-8")
    text.write_text(content.swapcase(), "utf-8")

    assert chars.decode(tokenize(corpus, chars).ids) == revgen.tokenizers.CharTokenizer.decode(
        chars, chars.encode(content.swapcase())
    )


@pytest.mark.parametrize("damage", ["empty", "cut", "cut at the end", "flipped", "flipped at the end", "longer"])
def test_a_damaged_entry_is_rebuilt(text: Path, chars: Tokenizer, damage: str) -> None:
    expected = tokenize(revgen.read(text), chars)
    (entry,) = entries()
    good = entry.read_bytes()
    entry.unlink()  # the memory map keeps the old file
    flip = len(good) // 2 if damage == "flipped" else len(good) - 6
    entry.write_bytes(
        {
            "empty": b"",
            "cut": good[: len(good) // 2],
            "cut at the end": good[:-1],
            "longer": good + b"x",
        }.get(damage, good[:flip] + bytes([good[flip] ^ 1]) + good[flip + 1 :])
    )

    assert are_equal(tokenize(revgen.read(text), chars), expected)
    assert entry.read_bytes() == good


def test_an_entry_is_rebuilt_when_the_code_of_the_tokenizer_changes(text: Path, chars: Tokenizer) -> None:
    class Changed(revgen.tokenizers.CharTokenizer):
        def encode(self, text: str) -> Any:
            return super().encode(text.swapcase())

    Changed.__qualname__ = type(chars).__qualname__
    before = tokenize(revgen.read(text), chars)

    after = tokenize(revgen.read(text), Changed.from_bytes(chars.to_bytes()))

    assert len(entries()) == 1
    assert not are_equal(before, after)


@pytest.mark.parametrize("level", LEVELS)
def test_a_vocabulary_is_built_once(text: Path, level: str, monkeypatch: pytest.MonkeyPatch) -> None:
    first = revgen.create(f"kneser-ney-{level}").tokenizer_for(revgen.read(text))
    (entry,) = entries()
    good = entry.read_bytes()
    other = revgen.create(f"kneser-ney-{level}", tokenizer={"vocab_size": 400} if level != "char" else {"min_count": 9})
    other.tokenizer_for(revgen.read(text))
    assert len(entries()) == 2, "other options have another entry"

    entry.write_bytes(good[:-1] + b"x")
    assert revgen.create(f"kneser-ney-{level}").tokenizer_for(revgen.read(text)) == first
    assert entry.read_bytes() == good, "a damaged entry is rebuilt"
    monkeypatch.delattr(tokenizers.get(level), "train")
    assert revgen.create(f"kneser-ney-{level}").tokenizer_for(revgen.read(text)) == first


def test_training_with_and_without_the_cache_gives_the_same_loss(text: Path) -> None:
    losses = [
        revgen.create("gru-char", hidden_size=8).fit(text, valid=0.1, epochs=1, progress=False)[0].nats_per_char
        for _ in range(2)
    ]

    assert losses[0] == losses[1]
    assert len(entries()) == 2, "the vocabulary and the ids"


def test_an_unwritable_cache_causes_one_warning(
    text: Path, chars: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = tokenize(revgen.read(text), chars)
    (tmp_path / "file").touch()
    monkeypatch.setenv("REVGEN_CACHE", str(tmp_path / "file" / "cache"))

    with pytest.warns(UserWarning, match="REVGEN_CACHE") as caught:
        runs = [tokenize(revgen.read(text), chars) for _ in range(2)]

    assert len(caught) == 1
    assert all(are_equal(tokens, expected) for tokens in runs)


@pytest.mark.skipif(sys.platform == "win32", reason="a user without an entry exists only on POSIX")
def test_training_without_a_home_directory_warns_that_there_is_no_cache(
    text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pwd

    def unknown(uid: int) -> None:
        raise KeyError(uid)

    for name in ("REVGEN_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    cache.warn_unusable.cache_clear()

    with pytest.warns(UserWarning, match="REVGEN_CACHE"):
        revgen.create("ngram-char", order=2).fit(text, progress=False)


def test_a_full_disk_leaves_no_entry_and_the_run_continues(
    text: Path, chars: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = tokenize(revgen.read(text), chars)
    entries()[0].unlink()

    def fail(file: Any) -> None:
        raise OSError(errno.ENOSPC, f"No space left on {cache.cache_directory()}")

    monkeypatch.setattr(cache, "write_checksum", fail)

    with pytest.warns(UserWarning, match="No space left"):
        token_ids = tokenize(revgen.read(text), chars)

    assert are_equal(token_ids, expected)
    assert entries() == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_for_the_temporary_file_is_an_error_with_advice(
    chars: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "TemporaryFile", partial(open, "/dev/full", "wb"))

    with pytest.raises(CorpusError, match="No space left on device; free some disk space, or set TMPDIR"):
        tokenize(revgen.read(["a text" * 100]), chars)


def test_old_temporary_files_are_deleted_after_a_day(text: Path, chars: Tokenizer) -> None:
    cache.cache_directory().mkdir()
    old, new = cache.cache_directory() / "old.part", cache.cache_directory() / "new.part"
    old.touch()
    new.touch()
    os.utime(old, (0, time.time() - 2 * 24 * 60 * 60))

    tokenize(revgen.read(text), chars)

    assert not old.exists()
    assert new.exists()


def test_two_processes_can_write_the_same_entry(text: Path, chars: Tokenizer) -> None:
    code = (
        "import sys, revgen\n"
        "from revgen.corpus import readers\n"
        "readers.LARGE_CORPUS_SIZE = 1\n"
        "model = revgen.create('kneser-ney-char', order=2)\n"
        "print(model.fit(sys.argv[1], progress=False)[0].train_loss)\n"
    )
    runs = [subprocess.Popen([sys.executable, "-c", code, str(text)], stdout=subprocess.PIPE) for _ in range(2)]

    outputs = [run.communicate()[0] for run in runs]

    assert outputs[0] == outputs[1] != b""
    assert len(entries()) == 2
    assert not any(entry.suffix for entry in entries())


def test_a_file_that_changes_while_it_is_read_is_not_cached(
    text: Path, chars: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_checksum = cache.write_checksum

    def change(file: Any) -> None:
        text.write_text("another text", "utf-8")
        write_checksum(file)

    monkeypatch.setattr(cache, "write_checksum", change)

    assert len(tokenize(revgen.read(text), chars)) > 1000
    assert entries() == []


def test_small_files_and_texts_in_memory_are_not_cached(
    text: Path, chars: Tokenizer, reviews: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenize(revgen.read(reviews), chars)
    monkeypatch.setattr(readers, "LARGE_CORPUS_SIZE", 10**9)
    revgen.create("kneser-ney-char").fit(text, progress=False)

    assert not cache.cache_directory().exists()


def test_environment_variables_set_the_cache_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert cache.cache_directory() == tmp_path / "cache"
    monkeypatch.delenv("REVGEN_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache.cache_directory() == tmp_path / "revgen" / "tokens"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache.cache_directory() == Path.home() / ".cache" / "revgen" / "tokens"
