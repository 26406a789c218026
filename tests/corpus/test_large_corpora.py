"""Large corpora: encoded in several processes, kept in a cache for the next run, with a bar, in little memory."""

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
forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here: one process does everything")


@pytest.fixture(autouse=True)
def everything_is_large(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Files of a few kilobytes are treated as those of gigabytes are, by two processes."""
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


def same(a: Tokens, b: Tokens) -> bool:
    return np.array_equal(a.ids, b.ids) and np.array_equal(a.spans, b.spans) and a.vocab == b.vocab


def counted(monkeypatch: pytest.MonkeyPatch, owner: type, name: str) -> list[tuple[Any, ...]]:
    """The arguments of each call of a method from now on."""
    calls: list[tuple[Any, ...]] = []
    method = getattr(owner, name)

    def call(*arguments: Any) -> Any:
        calls.append(arguments)
        return method(*arguments)

    monkeypatch.setattr(owner, name, call)
    return calls


# Several processes -----------------------------------------------------------------------


@forks
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("documents", ["file", "line"])
def test_several_processes_give_the_tokens_of_one(
    text: Path, reviews: list[str], level: str, documents: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = tokenizers.get(level).train(reviews * 3)

    by_two = tokenize(revgen.read(text, documents=documents), tokenizer)
    entries()[0].unlink()
    monkeypatch.setattr(workers, "available_cpus", lambda: 1)
    by_one = tokenize(revgen.read(text, documents=documents), tokenizer)

    assert same(by_one, by_two)
    assert tokenizer.decode(by_two.ids) == text.read_text("utf-8").replace("\n", "" if documents == "line" else "\n")


@forks
def test_labels_survive_several_processes(tmp_path: Path, chars: Tokenizer, reviews: list[str]) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(json.dumps({"text": t, "of": "ab"[i % 2]}) for i, t in enumerate(reviews)), "utf-8")

    found = tokenize(revgen.read(path, labels="of"), chars, ("a", "b"))

    for i, ids in enumerate(found.documents()):
        assert set(ids // len(chars)) == {1 + i % 2}
        assert chars.decode(ids % len(chars)) == reviews[i]


def process(item: int) -> tuple[int, int]:
    time.sleep(0.01 * (item % 3))
    return item, os.getpid()


@forks
def test_results_come_in_order_and_few_items_wait() -> None:
    drawn, ahead = 0, []

    def items() -> Iterator[int]:
        nonlocal drawn
        while drawn < 40:
            drawn += 1
            yield drawn - 1

    found = []
    for number, by in parallel_map(process, items(), num_serial=3):
        found.append((number, by))
        ahead.append(drawn - number)

    assert [number for number, _ in found] == list(range(40))
    assert {by for _, by in found[:3]} == {os.getpid()}
    assert os.getpid() not in {by for _, by in found[3:]}
    assert max(ahead) <= workers.ITEMS_PER_WORKER * 2 + 1


def test_few_items_or_quick_ones_start_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    assert {by for _, by in parallel_map(process, range(5), num_serial=5)} == {os.getpid()}
    monkeypatch.setattr(workers, "MIN_SECONDS_PER_ITEM", 1.0)
    assert {by for _, by in parallel_map(process, range(10), num_serial=5)} == {os.getpid()}


@pytest.mark.parametrize("why", [OSError(errno.EAGAIN, "no more processes"), NotImplementedError("no semaphores")])
def test_where_no_process_can_be_started_this_one_does_everything(
    monkeypatch: pytest.MonkeyPatch, why: Exception
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise why

    monkeypatch.setattr(workers, "ProcessPoolExecutor", fail)

    assert list(parallel_map(process, range(5), num_serial=1)) == [(i, os.getpid()) for i in range(5)]


@forks
def test_an_error_in_a_worker_is_raised_as_it_is() -> None:
    def fail(item: int) -> int:
        if item == 7:
            raise CorpusError("bad", "a.txt", 3)
        return item

    found = []
    with pytest.raises(CorpusError, match=r"^a\.txt, line 3: bad$") as caught:
        for item in parallel_map(fail, range(20), num_serial=1):
            found.append(item)

    assert found == list(range(7))
    assert (caught.value.path, caught.value.line) == ("a.txt", 3)


@forks
def test_a_worker_that_is_killed_is_an_error_and_not_a_hang() -> None:
    parent = os.getpid()

    def die(item: int) -> int:
        if os.getpid() != parent and item == 5:
            os.kill(os.getpid(), signal.SIGKILL)
        return item

    with pytest.raises(CorpusError, match="memory"):
        list(parallel_map(die, range(20), num_serial=1))


@forks
def test_a_bad_line_is_the_same_error_with_several_processes(text: Path, chars: Tokenizer) -> None:
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


@forks
def test_a_script_without_a_guard_runs_once_and_sees_no_warning(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)

    result = subprocess.run([sys.executable, "-W", "error", script], capture_output=True, text=True, check=True)

    assert result.stdout.split()[0] == "started"
    assert len(result.stdout.split()) == 2
    assert result.stderr == ""


@forks
@pytest.mark.skipif(not Path("/proc").exists(), reason="looks processes up in /proc")
def test_workers_end_with_a_process_that_is_killed() -> None:
    running = subprocess.Popen([sys.executable, "-c", SCRIPT, "slow"], stdout=subprocess.PIPE, text=True)
    assert running.stdout is not None
    seen = {running.stdout.readline().strip() for _ in range(15)}
    children = seen - {"started", str(running.pid)}
    assert len(children) == 2

    running.kill()
    running.wait()

    deadline = time.monotonic() + 20
    while any(alive(pid) for pid in children) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(alive(pid) for pid in children)


@forks
def test_ctrl_c_ends_everything_with_one_traceback() -> None:
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


def alive(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


# The cache -------------------------------------------------------------------------------


@pytest.mark.parametrize("level", LEVELS)
def test_a_second_run_reads_the_tokens_from_the_cache(
    text: Path, reviews: list[str], level: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = tokenizers.get(level).train(reviews)
    first = tokenize(revgen.read(text, documents="line"), tokenizer)
    parts = counted(monkeypatch, tokens.Encoder, "__call__")

    second = tokenize(revgen.read(text, documents="line"), tokenizer)

    assert same(first, second)
    assert isinstance(second.ids, np.memmap)
    assert not second.ids.flags.writeable
    assert len(parts) == 1, "no more than the beginning is encoded again, to see that it is the same"
    assert len(entries()) == 1


def test_a_copy_of_the_file_has_the_same_entry_and_anything_else_another(
    text: Path, chars: Tokenizer, tmp_path: Path
) -> None:
    def count(path: Path = text, tokenizer: Tokenizer = chars, **options: Any) -> int:
        tokenize(revgen.read(path, **options), tokenizer)
        return len(entries())

    copy = tmp_path / "copy.txt"
    copy.write_bytes(text.read_bytes())

    assert count() == 1
    assert count(copy) == 1
    assert count(documents="line") == 2
    assert count(tokenizer=tokenizers.get("char").train(["abc" * 9])) == 3
    copy.write_bytes(text.read_bytes() + b".")
    assert count(copy) == 4
    copy.write_bytes(text.read_bytes())
    assert count(copy) == 4


def test_a_file_rewritten_in_the_same_size_is_read_anew(text: Path, chars: Tokenizer) -> None:
    corpus = revgen.read(text)
    tokenize(corpus, chars)
    content = text.read_text("utf-8")
    text.write_text(content.swapcase(), "utf-8")

    assert chars.decode(tokenize(corpus, chars).ids) == revgen.tokenizers.CharTokenizer.decode(
        chars, chars.encode(content.swapcase())
    )


@pytest.mark.parametrize("damage", ["empty", "cut", "cut at the end", "flipped", "flipped at the end", "longer"])
def test_a_damaged_entry_is_made_again(text: Path, chars: Tokenizer, damage: str) -> None:
    whole = tokenize(revgen.read(text), chars)
    (entry,) = entries()
    good = entry.read_bytes()
    entry.unlink()  # what is mapped stays as it is
    flip = len(good) // 2 if damage == "flipped" else len(good) - 6
    entry.write_bytes(
        {
            "empty": b"",
            "cut": good[: len(good) // 2],
            "cut at the end": good[:-1],
            "longer": good + b"x",
        }.get(damage, good[:flip] + bytes([good[flip] ^ 1]) + good[flip + 1 :])
    )

    assert same(tokenize(revgen.read(text), chars), whole)
    assert entry.read_bytes() == good


def test_an_entry_of_a_tokenizer_whose_code_has_changed_is_made_again(text: Path, chars: Tokenizer) -> None:
    class Changed(revgen.tokenizers.CharTokenizer):
        def encode(self, text: str) -> Any:
            return super().encode(text.swapcase())

    Changed.__qualname__ = type(chars).__qualname__
    before = tokenize(revgen.read(text), chars)

    after = tokenize(revgen.read(text), Changed.from_bytes(chars.to_bytes()))

    assert len(entries()) == 1
    assert not same(before, after)


@pytest.mark.parametrize("level", LEVELS)
def test_a_vocabulary_is_learnt_once(text: Path, level: str, monkeypatch: pytest.MonkeyPatch) -> None:
    first = revgen.create(f"kneser-ney-{level}").tokenizer_for(revgen.read(text))
    (entry,) = entries()
    good = entry.read_bytes()
    other = revgen.create(f"kneser-ney-{level}", tokenizer={"vocab_size": 400} if level != "char" else {"min_count": 9})
    other.tokenizer_for(revgen.read(text))
    assert len(entries()) == 2, "other options, another vocabulary"

    entry.write_bytes(good[:-1] + b"x")
    assert revgen.create(f"kneser-ney-{level}").tokenizer_for(revgen.read(text)) == first
    assert entry.read_bytes() == good, "a damaged entry is made again"
    monkeypatch.delattr(tokenizers.get(level), "train")
    assert revgen.create(f"kneser-ney-{level}").tokenizer_for(revgen.read(text)) == first


def test_training_uses_the_cache_and_comes_to_the_same_end(text: Path) -> None:
    losses = [
        revgen.create("gru-char", hidden_size=8).fit(text, valid=0.1, epochs=1, progress=False)[0].nats_per_char
        for _ in range(2)
    ]

    assert losses[0] == losses[1]
    assert len(entries()) == 2, "the vocabulary and the ids"


def test_a_cache_that_cannot_be_written_is_one_warning(
    text: Path, chars: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = tokenize(revgen.read(text), chars)
    (tmp_path / "file").touch()
    monkeypatch.setenv("REVGEN_CACHE", str(tmp_path / "file" / "cache"))

    with pytest.warns(UserWarning, match="REVGEN_CACHE") as caught:
        found = [tokenize(revgen.read(text), chars) for _ in range(2)]

    assert len(caught) == 1
    assert all(same(tokens, expected) for tokens in found)


@pytest.mark.skipif(sys.platform == "win32", reason="a user without an entry is one of POSIX")
def test_without_a_home_directory_there_is_no_cache(text: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pwd

    def unknown(uid: int) -> None:
        raise KeyError(uid)

    for name in ("REVGEN_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    cache.warn_unusable.cache_clear()

    with pytest.warns(UserWarning, match="REVGEN_CACHE"):
        revgen.create("ngram-char", order=2).fit(text, progress=False)


def test_a_full_disk_leaves_no_entry_and_costs_no_run(
    text: Path, chars: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = tokenize(revgen.read(text), chars)
    entries()[0].unlink()

    def full(file: Any) -> None:
        raise OSError(errno.ENOSPC, f"No space left on {cache.cache_directory()}")

    monkeypatch.setattr(cache, "write_checksum", full)

    with pytest.warns(UserWarning, match="No space left"):
        found = tokenize(revgen.read(text), chars)

    assert same(found, expected)
    assert entries() == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_no_room_for_a_temporary_file_says_what_to_do(chars: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "TemporaryFile", partial(open, "/dev/full", "wb"))

    with pytest.raises(CorpusError, match="No space left on device; free some disk space, or set TMPDIR"):
        tokenize(revgen.read(["a text" * 100]), chars)


def test_what_killed_processes_left_is_removed_after_a_day(text: Path, chars: Tokenizer) -> None:
    cache.cache_directory().mkdir()
    old, new = cache.cache_directory() / "old.part", cache.cache_directory() / "new.part"
    old.touch()
    new.touch()
    os.utime(old, (0, time.time() - 2 * 24 * 60 * 60))

    tokenize(revgen.read(text), chars)

    assert not old.exists()
    assert new.exists()


def test_two_processes_at_once_do_no_harm(text: Path, chars: Tokenizer) -> None:
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


def test_a_file_that_changes_while_it_is_read_is_not_kept(
    text: Path, chars: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    sealed = cache.write_checksum

    def change(file: Any) -> None:
        text.write_text("another text", "utf-8")
        sealed(file)

    monkeypatch.setattr(cache, "write_checksum", change)

    assert len(tokenize(revgen.read(text), chars)) > 1000
    assert entries() == []


def test_small_files_and_texts_in_memory_leave_no_trace(
    text: Path, chars: Tokenizer, reviews: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenize(revgen.read(reviews), chars)
    monkeypatch.setattr(readers, "LARGE_CORPUS_SIZE", 10**9)
    revgen.create("kneser-ney-char").fit(text, progress=False)

    assert not cache.cache_directory().exists()


def test_the_directory_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert cache.cache_directory() == tmp_path / "cache"
    monkeypatch.delenv("REVGEN_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache.cache_directory() == tmp_path / "revgen" / "tokens"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache.cache_directory() == Path.home() / ".cache" / "revgen" / "tokens"


# The bar ---------------------------------------------------------------------------------


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("shown", "terminal", "large"), [(1, 1, 1), (0, 1, 1), (1, 0, 1), (1, 1, 0)])
def test_a_bar_is_shown_on_a_terminal_for_a_large_corpus(
    text: Path, shown: int, terminal: int, large: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = Terminal() if terminal else io.StringIO()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setattr(readers, "LARGE_CORPUS_SIZE", 1 if large else 10**9)

    revgen.create("ngram-char", order=2).fit(text, progress=bool(shown))

    for what in ("vocabulary", "tokens"):
        assert (f"{what}:" in screen.getvalue()) == bool(shown and terminal and large)


@pytest.mark.parametrize("kind", [".txt", ".txt.gz", ".jsonl", ".jsonl.gz", ".parquet"])
def test_the_place_of_reading_grows_to_the_size_of_the_files(tmp_path: Path, reviews: list[str], kind: str) -> None:
    for name in ("a", "b"):
        content = "\n".join(json.dumps({"text": t}) if "json" in kind else t for t in reviews).encode()
        if kind == ".parquet":
            parquet.write_table(pyarrow.table({"text": reviews}), tmp_path / f"{name}{kind}")
        else:
            (tmp_path / f"{name}{kind}").write_bytes(gzip.compress(content) if ".gz" in kind else content)
    corpus = revgen.read(tmp_path)

    places = [corpus.bytes_read for _ in corpus.blocks()]

    assert corpus.size == sum(path.stat().st_size for path in tmp_path.glob(f"*{kind}"))
    assert places == sorted(places) or kind == ".parquet"
    assert 0 < places[0] <= places[-1] <= corpus.bytes_read == corpus.size


def test_watched_items_are_the_same(text: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal())
    corpus = revgen.read(text)

    assert list(progress.with_progress(corpus.pieces(), corpus, "tokens", True)) == list(corpus.pieces())


# Memory ----------------------------------------------------------------------------------


def test_the_map_is_let_go_of_and_read_again(text: Path, chars: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = tokenize(revgen.read(text, documents="line"), chars)
    documents = [ids.tolist() for ids in whole.documents()]
    chunks = [inputs.tolist() for inputs, _ in Batches(whole, 4, 20, 0, 0)]
    plain = zlib.crc32(whole.spans.tobytes(), zlib.crc32(whole.ids.tobytes()))
    released = counted(monkeypatch, Tokens, "release")
    for module in (tokens, batches):
        monkeypatch.setattr(module, "MAX_MAPPED_BYTES", 1000)

    assert [ids.tolist() for ids in whole.documents()] == documents
    assert [inputs.tolist() for inputs, _ in Batches(whole, 4, 20, 0, 0)] == chunks
    assert whole.checksum == plain
    assert len(released) > 100


def test_tokens_in_memory_have_a_checksum_too() -> None:
    small = Tokens(np.arange(10, dtype=np.uint16), np.array([[0, 10]]))

    assert small.checksum == zlib.crc32(small.spans.tobytes(), zlib.crc32(small.ids.tobytes()))


# What is skipped -------------------------------------------------------------------------


def test_what_is_skipped_is_told_with_the_first_place_from_the_cache_too(text: Path, chars: Tokenizer) -> None:
    lines = text.read_bytes().splitlines(keepends=True)
    text.write_bytes(b"".join([*lines[:40], b"b\xffd\n", *lines[40:90], b"w\xffrse\n", *lines[90:]]))
    expected = r"2 errors in the text were skipped; the first is .*a\.txt, line 41: not valid UTF-8"

    for _ in range(2):
        with pytest.warns(UserWarning, match=expected):
            tokenize(revgen.read(text, errors="skip"), chars)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tokenize(revgen.read([*map(str, range(100))], errors="skip"), chars)


@pytest.mark.parametrize("kind", [".txt", ".csv", ".jsonl", ".parquet"])
def test_the_rest_of_a_damaged_file_can_be_skipped(tmp_path: Path, reviews: list[str], kind: str) -> None:
    path, plain = tmp_path / f"a{kind}.gz", tmp_path / f"plain{kind}"
    if kind == ".parquet":
        parquet.write_table(pyarrow.table({"text": reviews}), plain)
    else:
        lines = [json.dumps({"text": t}) if kind == ".jsonl" else t.replace('"', "").replace(",", "") for t in reviews]
        plain.write_text("\n".join(["text", *lines] if kind == ".csv" else lines), "utf-8")
    packed = gzip.compress(plain.read_bytes())
    plain.unlink()
    (tmp_path / "b.txt").write_text("the next file", "utf-8")

    for damaged in (b"no gzip at all", packed[:5], packed[: len(packed) // 2]):
        path.write_bytes(damaged)
        corpus = revgen.read(tmp_path, errors="skip")
        found = list(corpus)
        assert found[-1] == "the next file"
        assert corpus.skipped == 1
        assert corpus.first_skipped.startswith(f"{path}: the rest cannot be read, because the file is damaged: ")
    path.write_bytes(packed[:-4])
    assert len(list(revgen.read(tmp_path, errors="skip"))) > (kind in (".csv", ".jsonl")) * 100


def test_a_file_that_the_system_does_not_give_is_an_error_all_the_same(text: Path, chars: Tokenizer) -> None:
    corpus = revgen.read(text, errors="skip")
    text.unlink()

    with pytest.raises(CorpusError, match=r"a\.txt: cannot be read"):
        tokenize(corpus, chars)
    with pytest.raises(CorpusError, match=r"a\.txt: cannot be read"):
        list(corpus)


def test_a_quote_that_is_not_closed_says_where_it_was_opened(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b'id,text\n1,one\n2,"two\n3,three\n')

    with pytest.raises(CorpusError, match="the row after line 2: it opens a quote that is never closed"):
        list(revgen.read(path))
