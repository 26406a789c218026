"""Rows of the benchmark table, and tasks whose speed is measured."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

import revgen

Row = dict[str, Any]
Task = Callable[[], float]
"""A task that returns its speed, in tokens per second."""
NUM_ROUNDS = 5


def row(what: str, measured: float, unit: str, against: str, reference: float, goal: str, met: bool) -> Row:
    ratio = measured / reference if reference else None
    columns = ("what", "measured", "unit", "against", "reference", "ratio", "goal", "met")
    values = (what, measured, unit, against, reference, ratio, goal, ("yes" if met else "NO") if goal else "")
    return dict(zip(columns, values, strict=True))


def medians(*tasks: Callable[[], float]) -> list[float]:
    """Run the tasks in turn, for several rounds after one to warm up, and return the median result of each."""
    rounds = [[task() for task in tasks] for _ in range(NUM_ROUNDS + 1)][1:]
    return [statistics.median(column) for column in zip(*rounds, strict=True)]


def generating(model: revgen.LanguageModel, steps: int, n: int = 1) -> Task:
    """Return the task of generating ``n`` texts of ``steps`` tokens."""

    def run() -> float:
        start = time.perf_counter()
        texts = model.generate([""], n=n, max_tokens=steps, seed=0, banned_tokens=[model.tokenizer.eos_id])
        assert len("".join(np.ravel(texts))) == n * steps
        return n * steps / (time.perf_counter() - start)

    return run


def synchronize(device: str) -> None:
    """Wait for the operations of a GPU."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()
