"""Large corpora: several processes, the cache, the progress bar, and little memory."""

from __future__ import annotations

import errno
import gzip
import io
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import warnings
import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
from pyarrow import parquet

import revgen
from revgen import CorpusError, Tokenizer
from revgen.corpus import batches, cache, progress, readers, text as text_reader, tokens, workers
from revgen.corpus.batches import Batches
from revgen.corpus.tokens import Tokens, tokenize
from revgen.corpus.workers import parallel_map
from revgen.registry import tokenizers

LEVELS = tokenizers.names()
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="without fork, one process does everything")


@pytest.fixture(autouse=True)
def treat_files_as_large(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Treat files of a few kilobytes as large, and use two processes."""
    monkeypatch.setattr(readers, "LARGE_CORPUS_SIZE", 1)
    monkeypatch.setattr(text_reader, "BLOCK_SIZE", 3000)
    monkeypatch.setattr(tokens, "PART_SIZE", 2000)
    monkeypatch.setattr(tokens, "PARTS_BEFORE_WORKERS", 1)
    monkeypatch.setattr(workers, "MIN_SECONDS_PER_ITEM", 0.0)
    monkeypatch.setattr(workers, "available_cpus", lambda: 2)
    monkeypatch.setenv("REVGEN_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def text(tmp_path: Path, reviews: list[str]) -> Path:
    path = tmp_path / "a.txt"
    path.write_text("\n".join(reviews), "utf-8")
    return path


@pytest.fixture(scope="module")
def chars(reviews: list[str]) -> Tokenizer:
    tokenizer: Tokenizer = tokenizers.get("char").train(reviews, min_count=1)
    return tokenizer


def entries() -> list[Path]:
    return sorted(cache.cache_directory().glob("*")) if cache.cache_directory().exists() else []


def are_equal(a: Tokens, b: Tokens) -> bool:
    return np.array_equal(a.ids, b.ids) and np.array_equal(a.spans, b.spans) and a.vocab == b.vocab


def record_calls(monkeypatch: pytest.MonkeyPatch, owner: type, name: str) -> list[tuple[Any, ...]]:
    """Return a list to which the arguments of each later call of a method are appended."""
    calls: list[tuple[Any, ...]] = []
    method = getattr(owner, name)

    def call(*arguments: Any) -> Any:
        calls.append(arguments)
        return method(*arguments)

    monkeypatch.setattr(owner, name, call)
    return calls


# Several processes -----------------------------------------------------------------------


@needs_fork
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("documents", ["file", "line"])
def test_several_processes_give_the_same_tokens_as_one(
    text: Path, reviews: list[str], level: str, documents: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = tokenizers.get(level).train(reviews * 3)

    by_two = tokenize(revgen.read(text, documents=documents), tokenizer)
    entries()[0].unlink()
    monkeypatch.setattr(workers, "available_cpus", lambda: 1)
    by_one = tokenize(revgen.read(text, documents=documents), tokenizer)

    assert are_equal(by_one, by_two)
    assert tokenizer.decode(by_two.ids) == text.read_text("utf-8").replace("\n", "" if documents == "line" else "\n")


@needs_fork
def test_labels_are_kept_with_several_processes(tmp_path: Path, chars: Tokenizer, reviews: list[str]) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(json.dumps({"text": t, "label": "ab"[i % 2]}) for i, t in enumerate(reviews)), "utf-8")

    labeled = tokenize(revgen.read(path, labels="label"), chars, ("a", "b"))

    for i, ids in enumerate(labeled.documents()):
        assert set(ids // len(chars)) == {1 + i % 2}
        assert chars.decode(ids % len(chars)) == reviews[i]


def slow_pid(item: int) -> tuple[int, int]:
    time.sleep(0.01 * (item % 3))
    return item, os.getpid()


@needs_fork
def test_parallel_results_are_in_order_and_few_items_are_in_flight() -> None:
    num_taken, num_in_flight = 0, []

    def items() -> Iterator[int]:
        nonlocal num_taken
        while num_taken < 40:
            num_taken += 1
            yield num_taken - 1

    results = []
    for number, pid in parallel_map(slow_pid, items(), num_serial=3):
        results.append((number, pid))
        num_in_flight.append(num_taken - number)

    assert [number for number, _ in results] == list(range(40))
    assert {pid for _, pid in results[:3]} == {os.getpid()}
    assert os.getpid() not in {pid for _, pid in results[3:]}
    assert max(num_in_flight) <= workers.ITEMS_PER_WORKER * 2 + 1


def test_few_or_fast_items_start_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    assert {pid for _, pid in parallel_map(slow_pid, range(5), num_serial=5)} == {os.getpid()}
    monkeypatch.setattr(workers, "MIN_SECONDS_PER_ITEM", 1.0)
    assert {pid for _, pid in parallel_map(slow_pid, range(10), num_serial=5)} == {os.getpid()}


@pytest.mark.parametrize("error", [OSError(errno.EAGAIN, "no more processes"), NotImplementedError("no semaphores")])
def test_without_new_processes_this_one_computes_everything(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(workers, "ProcessPoolExecutor", fail)

    assert list(parallel_map(slow_pid, range(5), num_serial=1)) == [(i, os.getpid()) for i in range(5)]


@needs_fork
def test_an_error_in_a_worker_is_raised_unchanged() -> None:
    def fail(item: int) -> int:
        if item == 7:
            raise CorpusError("bad", "a.txt", 3)
        return item

    results = []
    with pytest.raises(CorpusError, match=r"^a\.txt, line 3: bad$") as caught:
        for item in parallel_map(fail, range(20), num_serial=1):
            results.append(item)

    assert results == list(range(7))
    assert (caught.value.path, caught.value.line) == ("a.txt", 3)


@needs_fork
def test_a_killed_worker_is_an_error() -> None:
    parent = os.getpid()

    def die(item: int) -> int:
        if os.getpid() != parent and item == 5:
            os.kill(os.getpid(), signal.SIGKILL)
        return item

    with pytest.raises(CorpusError, match="memory"):
        list(parallel_map(die, range(20), num_serial=1))


@needs_fork
def test_an_invalid_line_is_the_same_error_with_several_processes(text: Path, chars: Tokenizer) -> None:
    lines = text.read_bytes().splitlines(keepends=True)
    text.write_bytes(b"".join([*lines[:100], b"b\xffd\n", *lines[100:]]))

    with pytest.raises(CorpusError, match="line 101: not valid UTF-8") as caught:
        tokenize(revgen.read(text), chars)

    assert (caught.value.path, caught.value.line) == (text, 101)
    assert entries() == []


SCRIPT = """
import os, sys, threading, time
import revgen
from revgen.corpus import tokens, workers
from revgen.registry import tokenizers

print("started", flush=True)
threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
tokens.PART_SIZE, tokens.PARTS_BEFORE_WORKERS = 2000, 1
workers.MIN_SECONDS_PER_ITEM, workers.available_cpus = 0, lambda: 2
texts = list(revgen.datasets.load("reviews"))
class Slow(tokenizers.get("char")):
    def encode(self, text):
        if "slow" in sys.argv:
            os.write(1, b"%d\\n" % os.getpid())
            time.sleep(0.2)
        return super().encode(text)
print(len(tokens.tokenize(revgen.read(texts), Slow.train(texts))), flush=True)
"""


@needs_fork
def test_a_script_without_a_main_guard_runs_once_without_warnings(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)

    result = subprocess.run([sys.executable, "-W", "error", script], capture_output=True, text=True, check=True)

    assert result.stdout.split()[0] == "started"
    assert len(result.stdout.split()) == 2
    assert result.stderr == ""


@needs_fork
@pytest.mark.skipif(not Path("/proc").exists(), reason="looks up processes in /proc")
def test_workers_end_when_their_parent_is_killed() -> None:
    running = subprocess.Popen([sys.executable, "-c", SCRIPT, "slow"], stdout=subprocess.PIPE, text=True)
    assert running.stdout is not None
    seen = {running.stdout.readline().strip() for _ in range(15)}
    children = seen - {"started", str(running.pid)}
    assert len(children) == 2

    running.kill()
    running.wait()

    deadline = time.monotonic() + 20
    while any(is_alive(pid) for pid in children) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(is_alive(pid) for pid in children)


@needs_fork
def test_ctrl_c_ends_all_processes_with_one_traceback() -> None:
    running = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, "slow"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert running.stdout is not None
    for _ in range(15):
        running.stdout.readline()

    os.killpg(running.pid, signal.SIGINT)

    assert running.communicate(timeout=20)[1].count("Traceback") == 1


def is_alive(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


# The cache -------------------------------------------------------------------------------


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


# The progress bar ---------------------------------------------------------------------------


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("progress", "is_terminal", "is_large"), [(1, 1, 1), (0, 1, 1), (1, 0, 1), (1, 1, 0)])
def test_a_progress_bar_is_shown_on_a_terminal_for_a_large_corpus(
    text: Path, progress: int, is_terminal: int, is_large: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = Terminal() if is_terminal else io.StringIO()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setattr(readers, "LARGE_CORPUS_SIZE", 1 if is_large else 10**9)

    revgen.create("ngram-char", order=2).fit(text, progress=bool(progress))

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


def test_with_progress_yields_all_items(text: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal())
    corpus = revgen.read(text)

    assert list(progress.with_progress(corpus.pieces(), corpus, "tokens", True)) == list(corpus.pieces())


# Memory ----------------------------------------------------------------------------------


def test_the_memory_map_is_released_and_read_again(
    text: Path, chars: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    mapped = tokenize(revgen.read(text, documents="line"), chars)
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


def test_skipped_errors_are_a_warning_with_and_without_the_cache(text: Path, chars: Tokenizer) -> None:
    lines = text.read_bytes().splitlines(keepends=True)
    text.write_bytes(b"".join([*lines[:40], b"b\xffd\n", *lines[40:90], b"w\xffrse\n", *lines[90:]]))
    expected = r"2 errors in the text were skipped; the first is .*a\.txt, line 41: not valid UTF-8"

    for _ in range(2):
        with pytest.warns(UserWarning, match=expected):
            tokenize(revgen.read(text, errors="skip"), chars)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tokenize(revgen.read([*map(str, range(100))], errors="skip"), chars)


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


def test_an_unreadable_file_is_an_error_even_if_errors_are_skipped(text: Path, chars: Tokenizer) -> None:
    corpus = revgen.read(text, errors="skip")
    text.unlink()

    with pytest.raises(CorpusError, match=r"a\.txt: cannot be read"):
        tokenize(corpus, chars)
    with pytest.raises(CorpusError, match=r"a\.txt: cannot be read"):
        list(corpus)


def test_an_unclosed_quote_is_an_error_that_says_where_it_was_opened(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b'id,text\n1,one\n2,"two\n3,three\n')

    with pytest.raises(CorpusError, match="the row after line 2: it opens a quote that is never closed"):
        list(revgen.read(path))
