"""Train each architecture on one corpus with the same time budget, for the table in docs/zoo.md.

    python examples/zoo_table.py path/to/corpus --seconds 150 --out figures.jsonl
    python examples/zoo_table.py path/to/corpus --seconds 150 --busy --out figures.jsonl
    python examples/zoo_table.py --show figures.jsonl

With ``--busy``, a network reads as many tokens as it reads in this time on an idle machine with two cores, at the rates
in ``TOKENS_PER_SECOND``. Then the figures do not depend on what else the machine does.

The corpus is a directory with train.jsonl, valid.jsonl and valid_clean.jsonl, with one JSON object ``{"text": …}`` per
line. The text is converted to lower case. Models that are already in the output file are skipped, so an interrupted run
can be resumed.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import revgen
from revgen.training.recipe import Recipe

COUNTS: dict[str, dict[str, Any]] = {"ngram-char": {"order": 6}, "kneser-ney-char": {"order": 10}}
"""The options of the models that count. Networks have their defaults."""

TOKENS_PER_SECOND = {
    "mlp-char": 176_000,
    "elman-char": 187_000,
    "rnn-char": 188_000,
    "lstm-char": 60_300,
    "gru-char": 80_700,
    "relu-gru-char": 66_700,
    "relu-lstm-char": 62_100,
    "peephole-lstm-char": 57_200,
    "graves-lstm-char": 50_300,
    "awd-lstm-char": 43_000,
    "textgenrnn-char": 105_000,
    "mingru-char": 73_200,
    "minlstm-char": 50_600,
    "rglru-char": 80_700,
    "slstm-char": 55_300,
    "transformer-char": 51_900,
}
"""How fast ``fit`` trains with its defaults on 2 cores of an AMD EPYC that have nothing else to do."""


def main() -> None:
    """Train and evaluate models and write one line for each, or print the lines of a file as a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", nargs="?", type=Path)
    parser.add_argument("--models", nargs="+", default=[*COUNTS, *TOKENS_PER_SECOND])
    parser.add_argument("--seconds", type=float, default=150)
    parser.add_argument("--busy", action="store_true", help="count the seconds in tokens")
    parser.add_argument("--out", type=Path, default=Path("figures.jsonl"))
    parser.add_argument("--show", type=Path)
    options = parser.parse_args()
    if options.show:
        print_table(options.show)
        return
    train, valid, clean = (lowercased(options.corpus / f"{n}.jsonl") for n in ("train", "valid", "valid_clean"))
    for name in options.models:
        if name not in [row["name"] for row in read_rows(options.out)]:
            seconds = None if name in COUNTS else options.seconds
            row = measure(name, train, valid, clean, seconds, options.busy)
            with options.out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")


def measure(
    name: str, train: list[str], valid: list[str], clean: list[str], seconds: float | None, is_busy: bool
) -> dict[str, Any]:
    """Train one model and return its row of the table. ``seconds`` is None for a model that counts."""
    model: Any = revgen.create(name, **COUNTS.get(name, {}))
    budget: dict[str, Any] = {"max_seconds": seconds} if seconds else {}
    num_tokens = sum(map(len, train))
    if seconds and is_busy:
        sizes = model.suggest_sizes(Recipe(max_seconds=seconds), num_tokens)  # those of a run of as many seconds
        missing = {option: size for option, size in sizes.items() if getattr(model.config, option) is None}
        model = revgen.create(name, **missing)
        budget = {"token_budget": round(seconds * TOKENS_PER_SECOND[name])}
    start = time.perf_counter()
    history = model.fit(train, **budget)
    epochs = budget["token_budget"] / num_tokens if seconds and is_busy else len(history)
    return {
        "name": name,
        "parameters": model.num_parameters,
        "seconds": seconds if seconds and is_busy else time.perf_counter() - start,
        "epochs": round(epochs, 1),
        "all": model.evaluate(valid).nats_per_char,
        "clean": model.evaluate(clean).nats_per_char,
        "sample": model.generate("the ", temperature=0.7, max_tokens=200, seed=1),
    }


def print_table(path: Path) -> None:
    """Print the rows in a file as a Markdown table, with the best model first."""
    print("| model | parameters | seconds | epochs | nats/char, all | clean |\n|---|--:|--:|--:|--:|--:|")
    for row in sorted(read_rows(path), key=lambda row: float(row["all"])):
        print(
            f"| `{row['name']}` | {row['parameters']:,} | {row['seconds']:.0f} | {row['epochs']} "
            f"| {row['all']:.4f} | {row['clean']:.4f} |"
        )


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Return the rows in a file, or an empty list if the file does not exist."""
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.exists() else []


def lowercased(path: Path) -> list[str]:
    """Return the texts of a file in lower case."""
    return [text.lower() for text in revgen.read(path)]


if __name__ == "__main__":
    main()
