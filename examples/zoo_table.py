"""Measure what each architecture reaches on one corpus within a budget, as docs/zoo.md shows it.

    python examples/zoo_table.py path/to/corpus --max-seconds 300 --out figures.jsonl
    python examples/zoo_table.py --show figures.jsonl

The corpus is a directory with train.jsonl, valid.jsonl and valid_clean.jsonl, one JSON object ``{"text": …}`` a line;
text is lowercased. Models that are in the file already are left out, so that several runs can share the work.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import revgen

# What is not named has revgen's defaults. Cells without a fused kernel take fewer steps in the same time: they are
# smaller here, and less is left out of each step.
SETTINGS: dict[str, dict[str, Any]] = {
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
    "transformer-char": {"hidden_size": 160, "num_layers": 3, "context": 128},
}


def main() -> None:
    """Train, evaluate and write one line a model; or show the lines as a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", nargs="?", type=Path)
    parser.add_argument("--models", nargs="+", default=list(SETTINGS))
    parser.add_argument("--max-seconds", type=float, default=300)
    parser.add_argument("--out", type=Path, default=Path("figures.jsonl"))
    parser.add_argument("--show", type=Path)
    options = parser.parse_args()
    if options.show:
        show(options.show)
        return
    train, valid, clean = (lowercased(options.corpus / f"{n}.jsonl") for n in ("train", "valid", "valid_clean"))
    for name in options.models:
        if name not in [line["name"] for line in lines(options.out)]:
            line = measure(name, train, valid, clean, options.max_seconds)
            with options.out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")


def measure(name: str, train: list[str], valid: list[str], clean: list[str], seconds: float) -> dict[str, Any]:
    """The figures of one model."""
    model = revgen.create(name, **SETTINGS.get(name, {}))
    budget: dict[str, Any] = {"max_seconds": seconds} if hasattr(model, "make_network") else {}
    began = time.perf_counter()
    history = model.fit(train, valid, **budget)
    return {
        "name": name,
        "parameters": model.num_parameters,
        "seconds": time.perf_counter() - began,
        "epochs": len(history),
        "all": model.evaluate(valid).nats_per_char,
        "clean": model.evaluate(clean).nats_per_char,
        "sample": model.generate("the ", temperature=0.7, max_tokens=200, seed=1),
    }


def show(path: Path) -> None:
    """Markdown, the best first."""
    print("| model | parameters | seconds | epochs | nats/char, all | clean |\n|---|--:|--:|--:|--:|--:|")
    for line in sorted(lines(path), key=lambda line: float(line["all"])):
        print(
            f"| `{line['name']}` | {line['parameters']:,} | {line['seconds']:.0f} | {line['epochs']} "
            f"| {line['all']:.4f} | {line['clean']:.4f} |"
        )


def lines(path: Path) -> list[dict[str, Any]]:
    """What was measured so far."""
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.exists() else []


def lowercased(path: Path) -> list[str]:
    """The texts of a file."""
    return [text.lower() for text in revgen.read(path)]


if __name__ == "__main__":
    main()
