"""The cache: when an entry is used, rebuilt or left out, and errors of the disk."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import tempfile
import zlib
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


@pytest.mark.parametrize("level", LEVELS)
def test_the_second_run_reads_the_tokens_from_the_cache(
    reviews_file: Path, reviews: list[str], level: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = tokenizers.get(level).train(reviews)
    first = tokenize(revgen.read(reviews_file, documents="line"), tokenizer)
    parts = record_calls(monkeypatch, tokens.Encoder, "__call__")

    second = tokenize(revgen.read(reviews_file, documents="line"), tokenizer)

    assert are_equal(first, second)
    assert isinstance(second.ids, np.memmap)
    assert not second.ids.flags.writeable
    assert len(parts) == 1, "only the first part is encoded again, to check the entry"
    assert len(entries()) == 1


def test_a_cache_entry_depends_on_content_options_and_tokenizer(
    reviews_file: Path, char_tokenizer: Tokenizer, tmp_path: Path
) -> None:
    def count_entries(path: Path = reviews_file, tokenizer: Tokenizer = char_tokenizer, **options: Any) -> int:
        tokenize(revgen.read(path, **options), tokenizer)
        return len(entries())

    copy = tmp_path / "copy.txt"
    copy.write_bytes(reviews_file.read_bytes())

    assert count_entries() == 1
    assert count_entries(copy) == 1
    assert count_entries(documents="line") == 2
    assert count_entries(tokenizer=tokenizers.get("char").train(["abc" * 9])) == 3
    copy.write_bytes(reviews_file.read_bytes() + b".")
    assert count_entries(copy) == 4
    copy.write_bytes(reviews_file.read_bytes())
    assert count_entries(copy) == 4


def test_a_changed_file_of_the_same_size_is_read_again(reviews_file: Path, char_tokenizer: Tokenizer) -> None:
    corpus = revgen.read(reviews_file)
    tokenize(corpus, char_tokenizer)
    content = reviews_file.read_text("utf-8")
    reviews_file.write_text(content.swapcase(), "utf-8")

    assert char_tokenizer.decode(tokenize(corpus, char_tokenizer).ids) == revgen.tokenizers.CharTokenizer.decode(
        char_tokenizer, char_tokenizer.encode(content.swapcase())
    )


@pytest.mark.parametrize("damage", ["empty", "cut", "cut at the end", "flipped", "flipped at the end", "longer"])
def test_a_damaged_entry_is_rebuilt(reviews_file: Path, char_tokenizer: Tokenizer, damage: str) -> None:
    expected = tokenize(revgen.read(reviews_file), char_tokenizer)
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

    assert are_equal(tokenize(revgen.read(reviews_file), char_tokenizer), expected)
    assert entry.read_bytes() == good


def test_an_entry_is_rebuilt_when_the_code_of_the_tokenizer_changes(
    reviews_file: Path, char_tokenizer: Tokenizer
) -> None:
    class Changed(revgen.tokenizers.CharTokenizer):
        def encode(self, text: str) -> Any:
            return super().encode(text.swapcase())

    Changed.__qualname__ = type(char_tokenizer).__qualname__
    before = tokenize(revgen.read(reviews_file), char_tokenizer)

    after = tokenize(revgen.read(reviews_file), Changed.from_bytes(char_tokenizer.to_bytes()))

    assert len(entries()) == 1
    assert not are_equal(before, after)


@pytest.mark.parametrize("level", LEVELS)
def test_a_vocabulary_is_built_once(reviews_file: Path, level: str, monkeypatch: pytest.MonkeyPatch) -> None:
    first = revgen.create(f"kneser-ney-{level}").tokenizer_for(revgen.read(reviews_file))
    (entry,) = entries()
    good = entry.read_bytes()
    other = revgen.create(f"kneser-ney-{level}", tokenizer={"vocab_size": 400} if level != "char" else {"min_count": 9})
    other.tokenizer_for(revgen.read(reviews_file))
    assert len(entries()) == 2, "other options have another entry"

    entry.write_bytes(good[:-1] + b"x")
    assert revgen.create(f"kneser-ney-{level}").tokenizer_for(revgen.read(reviews_file)) == first
    assert entry.read_bytes() == good, "a damaged entry is rebuilt"
    monkeypatch.delattr(tokenizers.get(level), "train")
    assert revgen.create(f"kneser-ney-{level}").tokenizer_for(revgen.read(reviews_file)) == first


def test_training_with_and_without_the_cache_gives_the_same_loss(reviews_file: Path) -> None:
    settings: dict[str, Any] = {"valid": 0.1, "token_budget": 5_000, "progress": False}
    histories = [revgen.create("gru-char", hidden_size=8).fit(reviews_file, **settings) for _ in range(2)]

    assert histories[0][0].nats_per_char == histories[1][0].nats_per_char
    assert len(entries()) == 2, "the vocabulary and the ids"


def test_an_unwritable_cache_causes_one_warning(
    reviews_file: Path, char_tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = tokenize(revgen.read(reviews_file), char_tokenizer)
    (tmp_path / "file").touch()
    monkeypatch.setenv("REVGEN_CACHE", str(tmp_path / "file" / "cache"))

    with pytest.warns(UserWarning, match="REVGEN_CACHE") as caught:
        runs = [tokenize(revgen.read(reviews_file), char_tokenizer) for _ in range(2)]

    assert len(caught) == 1
    assert all(are_equal(tokens, expected) for tokens in runs)


@pytest.mark.skipif(sys.platform == "win32", reason="a user without an entry exists only on POSIX")
def test_training_without_a_home_directory_warns_that_there_is_no_cache(
    reviews_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pwd

    def unknown(uid: int) -> None:
        raise KeyError(uid)

    for name in ("REVGEN_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    cache.warn_unusable.cache_clear()

    with pytest.warns(UserWarning, match="REVGEN_CACHE"):
        revgen.create("ngram-char", order=2).fit(reviews_file, progress=False)


def test_a_full_disk_leaves_no_entry_and_the_run_continues(
    reviews_file: Path, char_tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = tokenize(revgen.read(reviews_file), char_tokenizer)
    entries()[0].unlink()

    def fail(file: Any) -> None:
        raise OSError(errno.ENOSPC, f"No space left on {cache.cache_directory()}")

    monkeypatch.setattr(cache, "write_checksum", fail)

    with pytest.warns(UserWarning, match="No space left"):
        token_ids = tokenize(revgen.read(reviews_file), char_tokenizer)

    assert are_equal(token_ids, expected)
    assert entries() == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_for_the_temporary_file_is_an_error_with_advice(
    char_tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "TemporaryFile", partial(open, "/dev/full", "wb"))

    with pytest.raises(CorpusError, match="No space left on device; free some disk space, or set TMPDIR"):
        tokenize(revgen.read(["a text" * 100]), char_tokenizer)


def test_temporary_files_of_killed_processes_are_deleted(reviews_file: Path, char_tokenizer: Tokenizer) -> None:
    directory = cache.cache_directory()
    directory.mkdir()
    for name in ("old.part", f".{'0' * 40}.5f.part"):
        (directory / name).touch()

    with cache.create_entry("a" * 40) as file:
        file.write(b"a text")
        tokenize(revgen.read(reviews_file), char_tokenizer)
        assert len(list(directory.glob(".*.part"))) == 1, "the file that is being written stays"

    assert not list(directory.glob("*.part")) + list(directory.glob(".*.part"))
    assert (directory / ("a" * 40)).read_bytes() == b"a text"


@pytest.mark.parametrize("kind", ["pipe", "directory", "link", "device"])
def test_an_entry_that_is_no_regular_file_is_not_read(
    kind: str, reviews_file: Path, char_tokenizer: Tokenizer, recwarn: pytest.WarningsRecorder
) -> None:
    expected = tokenize(revgen.read(reviews_file), char_tokenizer)
    (entry,) = entries()
    good = entry.read_bytes()
    copy = reviews_file.with_name("copy")
    entry.rename(copy)
    if kind == "pipe":
        os.mkfifo(entry)
    elif kind == "directory":
        entry.mkdir()
    else:
        entry.symlink_to(copy if kind == "link" else "/dev/zero")

    assert are_equal(tokenize(revgen.read(reviews_file), char_tokenizer), expected)

    assert entry.is_file() and not entry.is_symlink() and entry.read_bytes() == good
    assert not recwarn.list


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can give files away")
def test_entries_and_directories_of_another_user_are_not_used(reviews_file: Path, char_tokenizer: Tokenizer) -> None:
    expected = tokenize(revgen.read(reviews_file), char_tokenizer)
    (entry,) = entries()
    os.chown(entry, 12345, 12345)
    assert are_equal(tokenize(revgen.read(reviews_file), char_tokenizer), expected)
    assert entry.stat().st_uid == 0, "the entry was written again"
    os.chown(entry.parent, 12345, 12345)
    cache.warn_unusable.cache_clear()
    with pytest.warns(UserWarning, match="it belongs to another user"):
        assert are_equal(tokenize(revgen.read(reviews_file), char_tokenizer), expected)


@pytest.mark.parametrize(
    "footer",
    [
        b"",
        b"{}",
        b"[" * 5000,
        b'{"documents": 99999999999, "skipped": 0, "first_skipped": ""}',
        b'{"documents": -1, "skipped": 0, "first_skipped": ""}',
        b'{"documents": "1", "skipped": 0, "first_skipped": ""}',
        b'{"documents": 1, "skipped": "3", "first_skipped": ""}',
        b'{"documents": 1, "skipped": 0, "first_skipped": 5}',
        b'{"documents": 2, "skipped": 0, "first_skipped": null}',
        (10**12).to_bytes(8, "little") + b'{"documents": 1, "skipped": 0, "first_skipped": null}',
    ],
)
@pytest.mark.parametrize("length", [None, 0, 1 << 63])
def test_a_forged_entry_with_the_right_checksum_is_rebuilt(
    footer: bytes, length: int | None, reviews_file: Path, char_tokenizer: Tokenizer
) -> None:
    expected = tokenize(revgen.read(reviews_file), char_tokenizer)
    (entry,) = entries()
    good = entry.read_bytes()
    json_length = len(footer) - footer.find(b"{") if b"{" in footer else len(footer)
    forged = good[: expected.ids.nbytes] + footer + (json_length if length is None else length).to_bytes(8, "little")
    entry.unlink()
    entry.write_bytes(forged + zlib.crc32(forged).to_bytes(4, "little"))

    assert are_equal(tokenize(revgen.read(reviews_file), char_tokenizer), expected)
    assert entry.read_bytes() == good


def test_an_entry_with_ids_outside_the_vocabulary_is_rebuilt(reviews_file: Path, char_tokenizer: Tokenizer) -> None:
    reviews_file.write_text(reviews_file.read_text("utf-8") * 50, "utf-8")
    expected = tokenize(revgen.read(reviews_file), char_tokenizer)
    (entry,) = entries()
    good = entry.read_bytes()
    position = expected.ids.nbytes - 2 * expected.ids.itemsize
    forged = good[:position] + b"\xff" * expected.ids.itemsize + good[position + expected.ids.itemsize : -4]
    entry.unlink()
    entry.write_bytes(forged + zlib.crc32(forged).to_bytes(4, "little"))

    assert are_equal(tokenize(revgen.read(reviews_file), char_tokenizer), expected)


def test_the_entries_that_were_used_last_are_kept_within_the_limit(
    reviews_file: Path, char_tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []
    for i in range(4):
        reviews_file.write_text(reviews_file.read_text("utf-8") + str(i), "utf-8")
        tokenize(revgen.read(reviews_file), char_tokenizer)
        sizes.append(sum(entry.stat().st_size for entry in entries()))
        for age, entry in enumerate(entries()):
            os.utime(entry, (0, 10**6 - age)) if i < 3 else None
    used = entries()[1]
    os.utime(used)
    monkeypatch.setenv("REVGEN_CACHE_BYTES", str(sizes[1] + 100))

    reviews_file.write_text("another text", "utf-8")
    tokenize(revgen.read(reviews_file), char_tokenizer)

    assert len(entries()) == 2 and used in entries()
    assert cache.prune() > 0 and entries() == []


@pytest.mark.parametrize("home", ["", "relative"])
def test_a_home_that_is_no_absolute_path_is_not_used(home: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("REVGEN_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", home)
    with pytest.raises(OSError, match=r"no home directory|not an absolute path"):
        cache.cache_directory()


def test_two_processes_can_write_the_same_entry(reviews_file: Path, char_tokenizer: Tokenizer) -> None:
    code = (
        "import sys, revgen\n"
        "from revgen.corpus import readers\n"
        "readers.LARGE_CORPUS_SIZE = 1\n"
        "model = revgen.create('kneser-ney-char', order=2)\n"
        "print(model.fit(sys.argv[1], progress=False)[0].train_loss)\n"
    )
    runs = [subprocess.Popen([sys.executable, "-c", code, str(reviews_file)], stdout=subprocess.PIPE) for _ in range(2)]

    outputs = [run.communicate()[0] for run in runs]

    assert outputs[0] == outputs[1] != b""
    assert len(entries()) == 2
    assert not any(entry.suffix for entry in entries())


def test_a_file_that_changes_while_it_is_read_is_not_cached(
    reviews_file: Path, char_tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_checksum = cache.write_checksum

    def change(file: Any) -> None:
        reviews_file.write_text("another text", "utf-8")
        write_checksum(file)

    monkeypatch.setattr(cache, "write_checksum", change)

    assert len(tokenize(revgen.read(reviews_file), char_tokenizer)) > 1000
    assert entries() == []


def test_small_files_and_texts_in_memory_are_not_cached(
    reviews_file: Path, char_tokenizer: Tokenizer, reviews: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenize(revgen.read(reviews), char_tokenizer)
    monkeypatch.setattr(readers, "LARGE_CORPUS_SIZE", 10**9)
    revgen.create("kneser-ney-char").fit(reviews_file, progress=False)

    assert not cache.cache_directory().exists()


def test_environment_variables_set_the_cache_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert cache.cache_directory() == tmp_path / "cache"
    monkeypatch.delenv("REVGEN_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache.cache_directory() == tmp_path / "revgen" / "tokens"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache.cache_directory() == Path.home() / ".cache" / "revgen" / "tokens"
