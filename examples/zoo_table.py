"""Train each architecture on one corpus with the same time budget, for the table in docs/zoo.md.

    python examples/zoo_table.py path/to/corpus --max-seconds 300 --out figures.jsonl
    python examples/zoo_table.py --show figures.jsonl

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

# The options of ``create``. Cells without a fused kernel train for fewer steps in the same time, so their models are
# smaller and have less dropout.
OPTIONS: dict[str, dict[str, Any]] = {
    "ngram-char": {"order": 6},
    "kneser-ney-char": {"order": 10},
    "mlp-char": {},
    "elman-char": {"hidden_size": 192, "dropout": 0.1},
    "rnn-char": {},
    "gru-char": {},
    "lstm-char": {},
    "relu-gru-char": {"hidden_size": 192, "dropout": 0.1},
    "relu-lstm-char": {"hidden_size": 192, "dropout": 0.1},
    "graves-lstm-char": {"hidden_size": 160, "num_layers": 2, "dropout": 0.1},
    "textgenrnn-char": {},
    "awd-lstm-char": {},
    "mingru-char": {},
    "minlstm-char": {},
    "rglru-char": {},
    "slstm-char": {"hidden_size": 160, "dropout": 0.1},
    "transformer-char": {},
}


def main() -> None:
    """Train and evaluate models and write one line for each, or print the lines of a file as a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", nargs="?", type=Path)
    parser.add_argument("--models", nargs="+", default=list(OPTIONS))
    parser.add_argument("--max-seconds", type=float, default=300)
    parser.add_argument("--out", type=Path, default=Path("figures.jsonl"))
    parser.add_argument("--show", type=Path)
    options = parser.parse_args()
    if options.show:
        print_table(options.show)
        return
    train, valid, clean = (lowercased(options.corpus / f"{n}.jsonl") for n in ("train", "valid", "valid_clean"))
    for name in options.models:
        if name not in [row["name"] for row in read_rows(options.out)]:
            row = measure(name, train, valid, clean, options.max_seconds)
            with options.out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")


def measure(name: str, train: list[str], valid: list[str], clean: list[str], seconds: float) -> dict[str, Any]:
    """Train one model and return its row of the table."""
    model = revgen.create(name, **OPTIONS.get(name, {}))
    budget: dict[str, Any] = {"max_seconds": seconds} if hasattr(model, "make_network") else {}
    start = time.perf_counter()
    history = model.fit(train, valid, **budget)
    return {
        "name": name,
        "parameters": model.num_parameters,
        "seconds": time.perf_counter() - start,
        "epochs": len(history),
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
