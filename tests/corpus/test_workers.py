"""Encoding in several processes: order, errors, and what happens to the workers."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import large_files
import pytest
from large_files import are_equal, entries, needs_fork

import revgen
from revgen import CorpusError, Tokenizer
from revgen.corpus import workers
from revgen.corpus.tokens import tokenize
from revgen.corpus.workers import parallel_map
from revgen.registry import tokenizers

LEVELS = tokenizers.names()


@pytest.fixture(autouse=True)
def treat_files_as_large(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    large_files.treat_as_large(monkeypatch, tmp_path / "cache")


@needs_fork
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("documents", ["file", "line"])
def test_several_processes_give_the_same_tokens_as_one(
    reviews_file: Path, reviews: list[str], level: str, documents: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = tokenizers.get(level).train(reviews * 3)

    by_two = tokenize(revgen.read(reviews_file, documents=documents), tokenizer)
    entries()[0].unlink()
    monkeypatch.setattr(workers, "available_cpus", lambda: 1)
    by_one = tokenize(revgen.read(reviews_file, documents=documents), tokenizer)

    assert are_equal(by_one, by_two)
    assert tokenizer.decode(by_two.ids) == reviews_file.read_text("utf-8").replace(
        "\n", "" if documents == "line" else "\n"
    )


@needs_fork
def test_labels_are_kept_with_several_processes(tmp_path: Path, char_tokenizer: Tokenizer, reviews: list[str]) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(json.dumps({"text": t, "label": "ab"[i % 2]}) for i, t in enumerate(reviews)), "utf-8")

    labeled = tokenize(revgen.read(path, labels="label"), char_tokenizer, ("a", "b"))

    for i, ids in enumerate(labeled.documents()):
        assert set(ids // len(char_tokenizer)) == {1 + i % 2}
        assert char_tokenizer.decode(ids % len(char_tokenizer)) == reviews[i]


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
def test_an_invalid_line_is_the_same_error_with_several_processes(
    reviews_file: Path, char_tokenizer: Tokenizer
) -> None:
    lines = reviews_file.read_bytes().splitlines(keepends=True)
    reviews_file.write_bytes(b"".join([*lines[:100], b"b\xffd\n", *lines[100:]]))

    with pytest.raises(CorpusError, match="line 101: not valid UTF-8") as caught:
        tokenize(revgen.read(reviews_file), char_tokenizer)

    assert (caught.value.path, caught.value.line) == (reviews_file, 101)
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

    result = subprocess.run([sys.executable, "-W", "error", script], capture_output=True, text=True, check=False)

    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.split()[0] == "started"
    assert len(result.stdout.split()) == 2


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
