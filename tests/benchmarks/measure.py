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
"""A function that returns a measurement, such as the speed in tokens per second."""
NUM_ROUNDS = 5


def row(name: str, measured: float, unit: str, reference_name: str, reference: float, goal: str, is_met: bool) -> Row:
    """Return a row of the table by column; ``is_met`` is whether the goal is reached."""
    return {
        "benchmark": name,
        "measured": measured,
        "unit": unit,
        "compared with": reference_name,
        "reference": reference,
        "ratio": measured / reference if reference else None,
        "goal": goal,
        "met": ("yes" if is_met else "NO") if goal else "",
    }


def with_cost(row: Row, model: revgen.LanguageModel, rate: float) -> Row:
    """Add the arithmetic and the memory traffic of ``rate`` tokens per second, by the program of one token."""
    cost = model.info()
    units = {"GFLOP/s": "flop_per_token", "GB/s": "bytes_per_token"}
    return row | {unit: rate * cost[name] / 1e9 for unit, name in units.items() if name in cost}


def medians(*tasks: Callable[[], float]) -> list[float]:
    """Run the tasks alternately, for several rounds after a warm-up round, and return the median result of each."""
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
