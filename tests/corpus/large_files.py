"""Helpers for tests that treat small files as large."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from revgen.corpus import cache, readers, text as text_reader, tokens, workers
from revgen.corpus.tokens import Tokens

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="without fork, one process does everything")


def treat_as_large(monkeypatch: pytest.MonkeyPatch, cache_directory: Path) -> None:
    """Treat files of a few kilobytes as large, use two processes, and set the directory of the cache."""
    monkeypatch.setattr(readers, "LARGE_CORPUS_SIZE", 1)
    monkeypatch.setattr(text_reader, "BLOCK_SIZE", 3000)
    monkeypatch.setattr(tokens, "PART_SIZE", 2000)
    monkeypatch.setattr(tokens, "PARTS_BEFORE_WORKERS", 1)
    monkeypatch.setattr(workers, "MIN_SECONDS_PER_ITEM", 0.0)
    monkeypatch.setattr(workers, "available_cpus", lambda: 2)
    monkeypatch.setenv("REVGEN_CACHE", str(cache_directory))


def entries() -> list[Path]:
    """Return the entries of texts in the cache, without the precision that was chosen for this processor."""
    directory = cache.cache_directory()
    return sorted(set(directory.glob("*")) - set(directory.glob("precision-*"))) if directory.exists() else []


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
