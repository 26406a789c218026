"""The precision of matrix products in training is measured once for each machine, and the result is cached."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import revgen
from revgen.networks import precision
from revgen.networks.precision import MIN_SPEEDUP, bf16_matmul_is_fast, measure_bf16_speedup

CPU = torch.device("cpu")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty cache directory, and a process that has measured nothing yet."""
    monkeypatch.setenv("REVGEN_CACHE", str(tmp_path / "cache"))
    restart()
    yield tmp_path / "cache"
    restart()


def restart() -> None:
    """Forget what this process has measured, as if a new process had started."""
    precision.cached_speedup.cache_clear()


def refuse() -> float:
    raise AssertionError("measured again")


def test_next_process_makes_the_same_choice_without_measuring(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    choice = bf16_matmul_is_fast(CPU)
    (entry,) = cache.iterdir()
    assert choice == (json.loads(entry.read_text())["bf16_speedup"] >= MIN_SPEEDUP)

    restart()
    monkeypatch.setattr(precision, "measure_bf16_speedup", refuse)
    assert bf16_matmul_is_fast(CPU) == choice


@pytest.mark.parametrize(
    "damaged", ["", "[1]", "{", '{"machine": "another", "bf16_speedup": 9}', '{"bf16_speedup": 9}']
)
def test_damaged_entry_is_measured_again_and_replaced(damaged: str, cache: Path) -> None:
    bf16_matmul_is_fast(CPU)
    (entry,) = cache.iterdir()
    machine = json.loads(entry.read_text())["machine"]
    entry.write_text(damaged)

    restart()
    bf16_matmul_is_fast(CPU)
    assert json.loads(entry.read_text())["machine"] == machine


@pytest.mark.parametrize("kind", ["pipe", "directory", "link", "[" * 60_000])
def test_special_entry_is_not_read(kind: str, cache: Path) -> None:
    choice = bf16_matmul_is_fast(CPU)
    (entry,) = cache.iterdir()
    entry.rename(cache / "copy")
    if kind == "pipe":
        os.mkfifo(entry)
    elif kind == "directory":
        entry.mkdir()
    elif kind == "link":
        entry.symlink_to(cache / "copy")
    else:
        entry.write_text(kind)

    restart()
    assert bf16_matmul_is_fast(CPU) in (choice, not choice)
    assert not entry.is_symlink() and (entry.is_file() or kind == "directory")


def test_choice_needs_no_cache(cache: Path) -> None:
    cache.write_text("a file where the directory should be")
    assert bf16_matmul_is_fast(CPU) in (True, False)


def test_each_number_of_threads_has_its_own_measurement(cache: Path) -> None:
    bf16_matmul_is_fast(CPU)
    torch.set_num_threads(2)
    try:
        bf16_matmul_is_fast(CPU)
    finally:
        torch.set_num_threads(1)
    assert sorted(json.loads(path.read_text())["machine"]["threads"] for path in cache.iterdir()) == [1, 2]


def test_bfloat16_needs_onednn(cache: Path) -> None:
    with torch.backends.mkldnn.flags(enabled=False):
        assert not bf16_matmul_is_fast(CPU)
    assert not cache.exists()


def test_measurement_works_within_inference_and_leaves_random_numbers_alone() -> None:
    state = torch.get_rng_state()
    with torch.inference_mode():
        assert measure_bf16_speedup() > 0
    assert torch.equal(torch.get_rng_state(), state)


def test_logits_in_training_are_computed_from_the_features() -> None:
    model: Any = revgen.load("transformer-subword")
    network = model.make_network().train()
    network.bf16_matmul, network.definition.config = True, replace(model.config, dropout=0.0)
    tokens = torch.arange(12).reshape(6, 2)

    logits, _ = network(tokens)
    features, _ = network.features(tokens)

    torch.testing.assert_close(network.logits(features), logits)
