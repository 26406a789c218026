"""Measure the speed and quality of revgen, and compare them with other libraries in the same run.

    python tests/benchmarks/run.py                          all benchmarks that need no corpus
    python tests/benchmarks/run.py startup generation       only the named benchmarks
    python tests/benchmarks/run.py quality --corpus DIR     DIR holds train.jsonl, valid.jsonl, valid_clean.jsonl
    python tests/benchmarks/run.py quality --corpus FILE --seconds 180 --limit 1.6
    python tests/benchmarks/run.py gpu                      training and generation on a GPU
    python tests/benchmarks/run.py browser                  exported pages; needs Chromium and its driver

Each figure is the median of several runs. The two sides of a ratio are measured alternately. Use an idle machine.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from browser_speed import browser
from generation_speed import generation
from measure import Row, Task, medians, row
from serving_speed import serve
from training_speed import arithmetic, cells, gpu, learner, training
from transformer_speed import transformer

import revgen
from revgen.display.tables import to_text


def seconds(command: list[str]) -> Task:
    """Return a function that runs a command and returns the seconds that it took."""

    def run() -> float:
        start = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - start

    return run


def startup(_: argparse.Namespace) -> Iterator[Row]:
    """Measure the start and the run of whole processes."""
    python = sys.executable
    generate, torch_alone, imported, bare = medians(
        seconds([python, "-m", "revgen", "generate", "lstm-char", "--prompt", "the ", "--seed", "1"]),
        seconds([python, "-c", "import torch"]),
        seconds([python, "-c", "import revgen"]),
        seconds([python, "-c", "pass"]),
    )
    goal = "< 0.5 of it"
    yield row("revgen generate lstm-char", generate, "s", "import torch", torch_alone, goal, generate < torch_alone / 2)
    extra = imported - bare
    yield row("import revgen, without Python's own start", extra, "s", "limit", 0.15, "< the limit", extra < 0.15)


def encoding(_: argparse.Namespace) -> Iterator[Row]:
    """Measure the tokenizers on the corpus in the package, repeated 50 times."""
    reviews = list(revgen.datasets.load("reviews"))
    text = "\n".join(reviews) * 50
    size = len(text.encode()) / 1e6
    for level, limit in (("char", 50.0), ("word", 3.0), ("subword", 1.0)):
        tokenizer = revgen.registry.tokenizers.get(level).train(reviews)

        def rate(tokenizer: Any = tokenizer) -> float:
            start = time.perf_counter()
            tokenizer.encode(text)
            return size / (time.perf_counter() - start)

        (measured,) = medians(rate)
        yield row(f"encode {level}", measured, "MB/s", "limit", limit, "≥ the limit", measured >= limit)


def quality(options: argparse.Namespace) -> Iterator[Row]:
    """Train ``--model`` with default options for ``--seconds``, and measure nats per character on held-out text.

    The texts of a directory are lowercased and evaluated on all validation texts and on the clean ones. A single text
    is evaluated on its last tenth.
    """
    corpus = Path(options.corpus)
    if corpus.is_file():
        text = corpus.read_text("utf-8")
        boundary = len(text) * 9 // 10
        train, held_out = [text[:boundary]], {"the last tenth": [text[boundary:]]}
    else:
        train, valid, clean = (
            [json.loads(line)["text"].lower() for line in (corpus / f"{name}.jsonl").read_text("utf-8").splitlines()]
            for name in ("train", "valid", "valid_clean")
        )
        held_out = {"all": valid, "clean": clean}
    model: Any = revgen.create(options.model).to(options.device)
    history = model.fit(train, next(iter(held_out.values())), max_seconds=options.seconds)
    print(history)
    duration, limit = history.seconds, options.seconds
    yield row("training time", duration, "s", "limit", limit, "≤ the limit", duration <= 1.02 * limit)
    for name, texts in held_out.items():
        nats = model.evaluate(texts).nats_per_char
        yield row(
            f"validation, {name}", nats, "nats/char", "limit", options.limit, "≤ the limit", nats <= options.limit
        )


BENCHMARKS = {"startup": startup, "encoding": encoding, "generation": generation, "training": training}
BENCHMARKS |= {"transformer": transformer, "learner": learner, "arithmetic": arithmetic, "cells": cells}
BENCHMARKS |= {"serve": serve}
ONLY_BY_NAME = {"quality": quality, "gpu": gpu, "browser": browser}


def main() -> None:
    """Run benchmarks and print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help=f"any of {', '.join([*BENCHMARKS, *ONLY_BY_NAME])}")
    parser.add_argument("--corpus", help="for quality: the directory of a corpus, or a text file")
    parser.add_argument("--model", default="lstm-char", help="for quality: the model to train")
    parser.add_argument("--seconds", type=float, default=150, help="for quality: the time budget of training")
    parser.add_argument("--limit", type=float, default=1.5516, help="for quality: the nats per character to reach")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="for gpu and quality")
    parser.add_argument("--textgenrnn", help="for generation: a Python with textgenrnn and TensorFlow 2.15")
    parser.add_argument("--nanogpt", help="for transformer: the directory of a checkout of nanoGPT")
    options = parser.parse_args()
    benchmarks = BENCHMARKS | ONLY_BY_NAME
    rows: list[Row] = []
    for name in options.names or BENCHMARKS:
        rows += benchmarks[name](options)
    machine = f"{platform.machine()}, {os.cpu_count()} processors, Python {platform.python_version()}"
    print(f"revgen {revgen.__version__}, torch {torch.__version__}, numpy {np.__version__}; {machine}\n")
    print(to_text(rows, list(dict.fromkeys(column for row in rows for column in row))))


if __name__ == "__main__":
    main()
