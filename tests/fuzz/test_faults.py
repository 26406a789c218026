"""Saves that fail, that are killed at any operation on files, or that end in a power loss.

The operations are recorded in the process itself. After a power loss, a file that was not flushed may be empty, and a
change of a name may be lost unless its directory was flushed after it.
"""

from __future__ import annotations

import errno
import itertools
import os
import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from fuzz_helpers import QUICK, SEED, TEXTS, call, leftovers, make_model, make_trained_model

import revgen
from revgen.language_model import LanguageModel
from revgen.training.checkpoint import CheckpointConfig

OPERATIONS = ((os, "open"), (os, "fsync"), (os, "write"), (Path, "replace"), (Path, "unlink"), (os, "mkdir"))
"""The functions that change files; the files themselves write their buffers below Python."""


@contextmanager
def hooked(before: Callable[[str, tuple[Any, ...]], None]) -> Iterator[None]:
    """Call ``before`` with the name and the arguments of each operation on files."""
    originals = [(owner, name, getattr(owner, name)) for owner, name in OPERATIONS]
    for owner, name, original in originals:

        def replacement(*args: Any, _name: str = name, _original: Any = original, **options: Any) -> Any:
            before(_name, args)
            return _original(*args, **options)

        setattr(owner, name, replacement)
    try:
        yield
    finally:
        for owner, name, original in originals:
            setattr(owner, name, original)


@pytest.fixture(scope="module")
def models() -> dict[str, LanguageModel]:
    models = {
        "gru": make_trained_model("gru-char"),
        "textgenrnn": make_trained_model("textgenrnn-char", labels=["song", "band"] * 4),
        "kneser-ney": make_trained_model("kneser-ney-char", index_texts=True),
    }
    models["textgenrnn"].generation_config = {"label": "song", "temperature": 0.5}
    models["kneser-ney"].generation_config = {"prompt": "the "}
    return models


def identity(model: LanguageModel) -> tuple[Any, ...]:
    """Return what a save must keep together."""
    return model.name, model.fingerprint, model.generation_config


def count_operations(save: Callable[[], object]) -> int:
    count = 0

    def before(name: str, args: tuple[Any, ...]) -> None:
        nonlocal count
        count += 1

    with hooked(before):
        save()
    return count


def save_with_fault(model: LanguageModel, target: Path, at: int, fault: int | None) -> None:
    """Save a model; operation ``at`` fails with this error number, or the process ends there if it is None."""
    count = 0

    def before(name: str, args: tuple[Any, ...]) -> None:
        nonlocal count
        count += 1
        if count == at:
            if fault is None:
                os._exit(9)
            raise OSError(fault, os.strerror(fault))

    with hooked(before):
        model.save(target, overwrite=True)


@pytest.mark.parametrize("fraction", [0.04, pytest.param(1.0, marks=pytest.mark.fuzz)])
def test_a_fault_at_any_operation_leaves_the_old_or_the_new_model(
    fraction: float, models: dict[str, LanguageModel], tmp_path: Path
) -> None:
    rng = random.Random(SEED)
    originals = {name: model.save(tmp_path / name) for name, model in models.items()}
    target = tmp_path / "target"
    for old, new in itertools.permutations(models, 2):
        shutil.copytree(originals[old], target)
        total = count_operations(lambda: models[new].save(target, overwrite=True))
        known = [identity(models[old]), identity(models[new])]
        for at, fault in itertools.product(range(1, total + 1), (None, errno.ENOSPC, errno.EIO, errno.EACCES)):
            if rng.random() > fraction:
                continue
            case = f"{old} -> {new}, operation {at} of {total}, {fault}"
            shutil.rmtree(target)
            shutil.copytree(originals[old], target)
            outcome = call(lambda: save_with_fault(models[new], target, at, fault))
            assert outcome in ("null", "killed") or outcome.startswith("RevgenError"), f"{case}: {outcome}"
            if fault is not None:
                assert leftovers(target) == [], case
            loaded = revgen.load(target)
            assert identity(loaded) in known, case
            loaded.save(target)
            assert identity(revgen.load(target)) == identity(loaded), case
            assert f"# {loaded.name}\n" in (target / "README.md").read_text(), case
            models[old].save(target, overwrite=True)
            assert identity(revgen.load(target)) == identity(models[old]), case
            assert leftovers(target) == [], case
        shutil.rmtree(target)


class Disk:
    """Leave a part of the operations of a process in one directory, as a power loss may."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.durable = {path.name: path.read_bytes() for path in directory.iterdir()}
        self.pending: list[tuple[str, str | None, bytes | None]] = []
        """The changes of names that are not flushed: the new name, the old one, and the content that it gets."""
        self.flushed: dict[str, bytes] = {}
        self.states: list[dict[str, bytes]] = []

    def before(self, name: str, args: tuple[Any, ...]) -> None:
        """Record an operation, and the states of the disk if the power fails before it."""
        if name == "fsync":
            path = Path(f"/proc/self/fd/{args[0]}").readlink()
            if path == self.directory:
                self._add_states()
                for change in self.pending:
                    self._apply(self.durable, change)
                self.pending = []
            elif path.parent == self.directory:
                self.flushed[path.name] = path.read_bytes()
        elif name == "replace" and args[0].parent == self.directory:
            content = self.flushed.get(args[0].name, self.durable.get(args[0].name, b""))
            self.pending.append((Path(args[1]).name, args[0].name, content))
            self.flushed[Path(args[1]).name] = content
        elif name == "unlink" and args[0].parent == self.directory and args[0].exists():
            self.pending.append((args[0].name, None, None))

    def _add_states(self) -> None:
        for chosen in itertools.product([False, True], repeat=min(len(self.pending), 8)):
            state = dict(self.durable)
            for change in itertools.compress(self.pending, chosen):
                self._apply(state, change)
            self.states.append(state)

    @staticmethod
    def _apply(state: dict[str, bytes], change: tuple[str, str | None, bytes | None]) -> None:
        name, source, content = change
        if source is not None:
            state.pop(source, None)
        if content is None:
            state.pop(name, None)
        else:
            state[name] = content

    def possible_states(self) -> list[dict[str, bytes]]:
        """Return all states that a power loss at any moment may leave, each once."""
        self._add_states()
        unique = {tuple(sorted(state.items())): state for state in self.states}
        return list(unique.values())


@pytest.mark.parametrize(("old", "new"), [("gru", "textgenrnn"), ("kneser-ney", "gru"), ("textgenrnn", "kneser-ney")])
def test_a_power_loss_during_a_save_leaves_the_old_or_the_new_model(
    old: str, new: str, models: dict[str, LanguageModel], tmp_path: Path
) -> None:
    target = models[old].save(tmp_path / "target")
    disk = Disk(target)
    with hooked(disk.before):
        models[new].save(target, overwrite=True)
    states = disk.possible_states()
    assert len(states) > 8
    for i, state in enumerate(states):
        directory = tmp_path / f"state{i}"
        directory.mkdir()
        for name, content in state.items():
            (directory / name).write_bytes(content)
        assert identity(revgen.load(directory)) in (identity(models[old]), identity(models[new])), sorted(state)


def test_a_power_loss_during_training_leaves_a_checkpoint(tmp_path: Path) -> None:
    disk = Disk(tmp_path)
    with hooked(disk.before):
        make_model().fit(TEXTS, checkpoint=CheckpointConfig(tmp_path, steps=4), **QUICK)
    with_checkpoint = [state for state in disk.possible_states() if any(n.startswith("training-") for n in state)]
    assert len(with_checkpoint) > 5
    finished = revgen.load(tmp_path).fingerprint
    for i, state in enumerate(random.Random(SEED).sample(with_checkpoint, 3)):
        directory = tmp_path / f"state{i}"
        directory.mkdir()
        for name, content in state.items():
            (directory / name).write_bytes(content)
        resumed = make_model()
        resumed.fit(TEXTS, checkpoint=directory, resume=True, **QUICK)
        assert resumed.fingerprint == finished, sorted(state)
