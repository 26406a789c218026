"""Tests of reads, writes and locks of files."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from revgen import files
from revgen.files import is_rank_zero, lock, open_file, read_file, replace_file, write_atomically


def try_lock_in_thread(path: Path) -> bool:
    """Return whether another thread can lock a path."""
    outcomes: list[bool] = []

    def run() -> None:
        try:
            with lock(path):
                outcomes.append(True)
        except BlockingIOError:
            outcomes.append(False)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return outcomes[0]


@pytest.mark.parametrize("has_fcntl", [True, False])
def test_a_lock_excludes_other_threads_but_not_its_own(
    has_fcntl: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not has_fcntl:  # as on Windows
        monkeypatch.setattr(files, "fcntl", None)
    with lock(tmp_path):
        with lock(tmp_path):
            assert not try_lock_in_thread(tmp_path)
        assert not try_lock_in_thread(tmp_path)
    assert try_lock_in_thread(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_lock_ends_with_its_process_even_if_a_child_lives_on(tmp_path: Path) -> None:
    code = """if True:
        import os, signal, sys, time
        from pathlib import Path
        from revgen.files import lock
        with lock(Path(sys.argv[1])):
            child = os.fork()
            if child == 0:
                os.close(1)
                os.close(2)
                time.sleep(60)
                os._exit(0)
            print(child, flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
    """
    result = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=False)
    child = int(result.stdout)
    try:
        with lock(tmp_path, 1.0):
            pass
    finally:
        os.kill(child, 9)


def test_a_new_file_replaces_the_old_one_only_if_the_block_succeeds(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"old")
    with pytest.raises(ZeroDivisionError), replace_file(path) as file:
        file.write(b"new")
        assert path.read_bytes() == b"old"
        raise ZeroDivisionError
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]
    with replace_file(path) as file:
        file.write(b"new")
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == 0o666 & ~_umask()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_temporary_files_of_killed_processes_are_deleted_by_the_next_write(tmp_path: Path) -> None:
    path = tmp_path / "file"
    (tmp_path / ".file.part").touch()
    (tmp_path / ".file.0123.part").touch()
    (tmp_path / ".other.0123.part").touch()
    with replace_file(path):
        write_atomically(path, b"content")
        assert len(list(tmp_path.glob(".file.*part"))) == 1, "the file that is being written stays"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [".other.0123.part", "file"]


def test_only_regular_files_within_the_limit_are_read(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    assert read_file(path, 5) == b"12345"
    with pytest.raises(OSError, match="it has 5 bytes, more than 4"):
        read_file(path, 4)
    os.mkfifo(tmp_path / "pipe")
    for special in (tmp_path, tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(OSError, match="it is not a regular file"):
            read_file(special)
    (tmp_path / "link").symlink_to(path)
    assert read_file(tmp_path / "link") == b"12345"
    with pytest.raises(OSError, match="symbolic links"):
        open_file(tmp_path / "link", own=True)


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, True),
        ({"RANK": "1"}, True),
        ({"RANK": "1", "WORLD_SIZE": "1"}, True),
        ({"RANK": "1", "WORLD_SIZE": "many"}, True),
        ({"WORLD_SIZE": "2"}, True),
        ({"RANK": "1", "WORLD_SIZE": "2"}, False),
        ({"RANK": "0", "WORLD_SIZE": "2"}, True),
    ],
)
def test_only_a_process_among_several_may_not_save(
    environment: dict[str, str], expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert is_rank_zero() is expected


@pytest.mark.skipif(not Path("/dev/null").is_char_device(), reason="needs a device")
def test_a_file_never_replaces_a_device() -> None:
    with pytest.raises(OSError, match="a device cannot be replaced by a file"):
        write_atomically(Path("/dev/null"), b"text")

    assert Path("/dev/null").is_char_device() and not [*Path("/dev").glob(".null*")]
