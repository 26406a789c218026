"""Train each architecture on one corpus with the same time budget, for the tables in docs/zoo.md.

    python examples/zoo_table.py path/to/corpus --seconds 60 --busy --out figures.jsonl
    python examples/zoo_table.py input.txt dropout=0.1 --models transformer-char --seconds 180 --out figures.jsonl
    python examples/zoo_table.py --show figures.jsonl

With ``--busy``, a network reads as many tokens as it reads in this time on an idle machine with two cores: at the rates
in ``TOKENS_PER_SECOND``, or at ``--rate`` tokens per second. Then the figures do not depend on what else the machine
does.

The corpus is a text file, of which the last tenth is held out, or a directory with train.jsonl, valid.jsonl and
valid_clean.jsonl, with one JSON object ``{"text": …}`` per line. The texts of a directory are converted to lower case.
Networks have their defaults, except for options of ``create`` and ``fit`` in the form name=value. Runs that are already
in the output file are skipped, so an interrupted series can be resumed.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import revgen
from revgen.options import parse_assignment
from revgen.training.options import FitOptions
from revgen.training.recipe import Recipe

COUNTS: dict[str, dict[str, Any]] = {"ngram-char": {"order": 6}, "kneser-ney-char": {"order": 10}}
"""The options of the models that count."""

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
    parser.add_argument("options", nargs="*", help="options of create and fit for networks, as name=value")
    parser.add_argument("--models", nargs="+", default=[*COUNTS, *TOKENS_PER_SECOND])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--busy", action="store_true", help="count the seconds in tokens")
    parser.add_argument("--rate", type=float, help="with --busy, tokens per second of networks with these options")
    parser.add_argument("--out", type=Path, default=Path("figures.jsonl"))
    parser.add_argument("--show", type=Path)
    arguments = parser.parse_args()
    if arguments.show:
        print_table(arguments.show)
        return
    train, held_out = read_splits(arguments.corpus)
    for name in arguments.models:
        options = COUNTS.get(name) or dict(parse_assignment(option, "option") for option in arguments.options)
        seconds = None if name in COUNTS else arguments.seconds
        rate = arguments.rate or TOKENS_PER_SECOND.get(name)
        tokens = round(seconds * rate) if arguments.busy and seconds and rate else None
        done = [(row["name"], row["options"], row["budget"]) for row in read_rows(arguments.out)]
        if (name, options, seconds) not in done:
            row = measure(name, options, train, held_out, seconds, tokens)
            with arguments.out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")


def measure(
    name: str,
    options: dict[str, Any],
    train: list[str],
    held_out: dict[str, list[str]],
    seconds: float | None,
    tokens: int | None,
) -> dict[str, Any]:
    """Train one model and return its row of the table.

    ``seconds`` is None for a model that counts. If ``tokens`` is given, the network has the sizes of a run of as many
    seconds, but reads this number of tokens.
    """
    of_fit = {key: value for key, value in options.items() if key in FitOptions.__annotations__}
    of_model = {key: value for key, value in options.items() if key not in of_fit}
    model: Any = revgen.create(name, **of_model)
    num_tokens = sum(map(len, train))
    if tokens:
        sizes = model.suggest_sizes(Recipe(max_seconds=seconds), num_tokens)
        missing = {key: size for key, size in sizes.items() if getattr(model.config, key) is None}
        model = revgen.create(name, **of_model, **missing)
    budget = {"token_budget": tokens} if tokens else {"max_seconds": seconds} if seconds else {}
    start = time.perf_counter()
    history = model.fit(train, **budget, **of_fit)
    duration = time.perf_counter() - start
    return {
        "name": name,
        "options": options,
        "budget": seconds,
        "parameters": model.num_parameters,
        "seconds": seconds if tokens else duration,
        "epochs": round(tokens / num_tokens if tokens else len(history), 1),
        **{split: model.evaluate(texts).nats_per_char for split, texts in held_out.items()},
        "sample": model.generate("the ", temperature=0.7, max_tokens=200, seed=1),
    }


def print_table(path: Path) -> None:
    """Print the rows in a file as a Markdown table, with the best model first."""
    rows = read_rows(path)
    splits = [key for key in rows[0] if key in ("all", "clean", "last tenth")]
    print(f"| model | seconds | epochs | nats/char, {' | '.join(splits)} | parameters |")
    print("|---|" + "--:|" * (len(splits) + 3))
    for row in sorted(rows, key=lambda row: float(row[splits[0]])):
        name = " ".join([f"`{row['name']}`", *(f"`{key}={value}`" for key, value in row["options"].items())])
        nats = " | ".join(f"{row[split]:.4f}" for split in splits)
        print(f"| {name} | {row['seconds']:.0f} | {row['epochs']} | {nats} | {row['parameters']:,} |")


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Return the rows in a file, or an empty list if the file does not exist."""
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.exists() else []


def read_splits(corpus: Path) -> tuple[list[str], dict[str, list[str]]]:
    """Return the training texts, and the held-out texts by the names of the table's columns."""
    if corpus.is_dir():
        train, valid, clean = (
            [text.lower() for text in revgen.read(corpus / f"{name}.jsonl")]
            for name in ("train", "valid", "valid_clean")
        )
        return train, {"all": valid, "clean": clean}
    text = corpus.read_text("utf-8")
    boundary = len(text) * 9 // 10
    return [text[:boundary]], {"last tenth": [text[boundary:]]}


if __name__ == "__main__":
    main()
