"""Tests of saves that fail or are interrupted: the directory always holds a complete model."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import same_model
from storage_helpers import FILES, run_python

import revgen
from revgen.errors import CheckpointError
from revgen.files import lock
from revgen.language_model import LanguageModel
from revgen.pending import settle

KILLED_SAVES_SCRIPT = """
import os, random, signal, sys, time
from pathlib import Path
import numpy as np
import revgen

one, other, target = (Path(path) for path in sys.argv[1:])
a, b = revgen.load(one), revgen.load(other)
random.seed(0)
start = time.monotonic()
b.save(target, overwrite=True)
a.save(target, overwrite=True)
seconds = time.monotonic() - start
seen = set()
for kill in range(25):
    child = os.fork()
    if child == 0:
        while True:
            b.save(target, overwrite=True)
            a.save(target, overwrite=True)
    time.sleep(random.uniform(0.0, 2 * seconds))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    loaded = revgen.load(target)
    expected = a if loaded.name == a.name else b
    assert loaded.name == expected.name and loaded.tokenizer == expected.tokenizer, kill
    assert loaded.weights.keys() == expected.weights.keys(), kill
    assert all(np.array_equal(loaded.weights[k], expected.weights[k]) for k in expected.weights), kill
    seen.add(loaded.name)
a.save(target, overwrite=True)
print(len(seen), len(list(target.iterdir())))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the test forks the process that it kills")
def test_a_process_killed_during_a_save_leaves_the_old_or_the_new_model(
    models_by_level: dict[str, LanguageModel], tmp_path: Path
) -> None:
    one, other = models_by_level["char"].save(tmp_path / "one"), models_by_level["word"].save(tmp_path / "other")

    result = run_python(KILLED_SAVES_SCRIPT, str(one), str(other), str(tmp_path / "target"))

    assert result.returncode == 0, result.stderr
    assert result.stdout == "2 4\n", "both models were loaded, and four files remain after the last save"


@pytest.mark.parametrize("failing", range(1, 8))
@pytest.mark.parametrize("step", ["replace", "write"])
def test_a_failure_at_any_step_of_a_save_leaves_the_old_or_the_new_model(
    step: str, failing: int, models_by_level: dict[str, LanguageModel], saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0
    module, name = (Path, "replace") if step == "replace" else (os, "fsync")
    original = getattr(module, name)

    def fail(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == failing:
            raise OSError(28, "No space left on device")
        return original(*arguments)

    (saved / "README.md").unlink()
    monkeypatch.setattr(module, name, fail)
    try:
        models_by_level["word"].save(saved, overwrite=True)
    except revgen.CheckpointError as error:
        assert "No space left" in str(error) and str(saved) in str(error)
    finally:
        monkeypatch.undo()

    loaded = revgen.load(saved)
    assert same_model(loaded, models_by_level["char"]) or same_model(loaded, models_by_level["word"])
    models_by_level["subword"].save(saved, overwrite=True)
    assert same_model(revgen.load(saved), models_by_level["subword"])


def test_a_save_interrupted_after_its_last_file_is_read_in_place_and_finished_by_the_next_save(
    models_by_level: dict[str, LanguageModel], saved: Path, tmp_path: Path
) -> None:
    other = models_by_level["word"].save(tmp_path / "other")
    for name in FILES:
        shutil.copy(other / name, saved / f"{name}.new")
    (saved / ".config.json.new.part").write_bytes(b"{")
    files = {path.name: path.read_bytes() for path in saved.iterdir()}

    assert same_model(revgen.load(saved), models_by_level["word"])
    assert {path.name: path.read_bytes() for path in saved.iterdir()} == files, "a reader changes nothing"
    with lock(saved):
        settle(saved)
    assert same_model(revgen.load(saved), models_by_level["word"])
    assert sorted(path.name for path in saved.iterdir()) == ["README.md", *sorted(FILES)]


def test_a_save_interrupted_before_its_last_file_is_ignored(
    models_by_level: dict[str, LanguageModel], saved: Path, tmp_path: Path
) -> None:
    other = models_by_level["word"].save(tmp_path / "other")
    for name in FILES[1:]:
        shutil.copy(other / name, saved / f"{name}.new")

    assert same_model(revgen.load(saved), models_by_level["char"])


def test_a_config_file_that_cannot_be_read_for_a_moment_is_not_taken_for_a_missing_model(
    models_by_level: dict[str, LanguageModel], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = models_by_level["char"].save(tmp_path / "model")
    content = (directory / "config.json").read_bytes()
    open_file = os.open

    def fail_once(path: Any, *args: Any, **options: Any) -> int:
        if Path(path).name == "config.json":
            monkeypatch.setattr(os, "open", open_file)
            raise OSError(errno.EMFILE, "Too many open files")
        return open_file(path, *args, **options)

    monkeypatch.setattr(os, "open", fail_once)
    with pytest.raises(revgen.CheckpointError, match="could not save the model: Too many open files"):
        models_by_level["word"].save(directory)

    assert (directory / "config.json").read_bytes() == content


@pytest.mark.parametrize("path", ["file", "file/below", "/dev/null", "/proc/nowhere/model", "x" * 5000])
def test_a_path_that_cannot_be_a_directory_is_an_error(path: str, small_model: LanguageModel, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a file", encoding="utf-8")

    with pytest.raises(revgen.CheckpointError, match="could not save the model"):
        small_model.save(tmp_path / path)

    assert (tmp_path / "file").read_text(encoding="utf-8") == "a file"


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root can write to any directory")
def test_a_directory_without_write_permission_is_an_error(small_model: LanguageModel, tmp_path: Path) -> None:
    tmp_path.chmod(0o555)

    with pytest.raises(revgen.CheckpointError, match="could not save the model: Permission denied"):
        small_model.save(tmp_path)


def test_a_model_whose_tokenizer_file_would_be_unreadable_is_not_saved(
    small_model: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = small_model.save(tmp_path / "model")
    files = {path.name: path.read_bytes() for path in directory.iterdir()}
    changed = revgen.load(directory)
    changed.weights = {name: array + 1 for name, array in changed.weights.items()}
    monkeypatch.setattr(type(changed.tokenizer), "to_bytes", lambda self: b'{"level": "char", "tokens": []}')

    with pytest.raises(CheckpointError, match=r"vocabulary\.json is damaged"):
        changed.save(directory)
    with pytest.raises(CheckpointError, match=r"vocabulary\.json is damaged"):
        changed.save(tmp_path / "new")

    assert {path.name: path.read_bytes() for path in directory.iterdir()} == files
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda model: model.metadata.update(notes="x" * (5 << 20)), "more than 4,194,304"),
        (lambda model: model.weights.update(more=np.zeros(3, np.float32)), r"unknown \['more'\]"),
        (lambda model: model.weights.update(bias=np.zeros(3, np.float32)), "the weight bias has the shape"),
    ],
)
def test_a_model_that_could_not_be_loaded_again_is_not_saved(
    small_model: LanguageModel, tmp_path: Path, change: Any, message: str
) -> None:
    model = revgen.load(small_model.save(tmp_path / "model"))
    change(model)

    with pytest.raises(CheckpointError, match=message):
        model.save(tmp_path / "new")

    assert not (tmp_path / "new").exists()
