"""Search for the options with which an architecture learns most from a number of tokens.

    python examples/search.py path/to/corpus gru-char learning_rate=0.005,0.01,0.02 batch_size=16,32 --tokens 1e6
    python examples/search.py path/to/corpus gru-char rglru-char optimizer=adamw,muon --random 10 --seed 1
    python examples/search.py --show search.jsonl

An option of ``create`` or ``fit`` has one or several values. All combinations are tried, or ``--random`` of them. Each
run reads the same number of tokens, so results do not depend on the speed of the machine; the last column is the
processor time. The documents on which runs are compared are held out from the training text. Of a directory, only
train.jsonl is read, so that validation text stays unseen until the choice is made. Runs that are already in the output
file are skipped, so an interrupted search can be resumed.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import revgen
from revgen.display.tables import to_text
from revgen.options import parse_assignment
from revgen.training.options import FitOptions

COLUMNS = "model", "options", "tokens", "held out", "parameters", "cpu seconds"


def main() -> None:
    """Train a model with each combination of options, write one line for each, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", nargs="?", type=Path, help="a text file, or a directory with train.jsonl")
    parser.add_argument("arguments", nargs="*", help="names of models, and options as name=value,value,…")
    parser.add_argument("--tokens", type=float, default=1e6, help="the number of tokens that each run reads")
    parser.add_argument("--held-out", type=float, default=0.05, help="the fraction of documents to compare runs on")
    parser.add_argument("--random", type=int, help="the number of combinations to try, sampled at random")
    parser.add_argument("--seed", type=int, default=0, help="the seed of the sampled combinations")
    parser.add_argument("--out", type=Path, default=Path("search.jsonl"))
    parser.add_argument("--show", type=Path, help="print the table of this file")
    options = parser.parse_args()
    if not options.show:
        names = [argument for argument in options.arguments if "=" not in argument]
        runs = [(name, values) for name in names for values in combinations(options.arguments)]
        if options.random is not None:
            runs = random.Random(options.seed).sample(runs, min(options.random, len(runs)))
        search(options.corpus, runs, int(options.tokens), options.held_out, options.out)
    print_table(options.show or options.out)


def combinations(arguments: list[str]) -> Iterator[dict[str, Any]]:
    """Yield a dictionary of options for each combination of the values in ``arguments``."""
    choices: dict[str, list[Any]] = {}
    for argument in arguments:
        if "=" in argument:
            name, values = argument.split("=", 1)
            choices[name] = [parse_assignment(f"{name}={value}", "option")[1] for value in values.split(",")]
    for combination in itertools.product(*choices.values()):
        yield dict(zip(choices, combination, strict=True))


def search(corpus: Path, runs: list[tuple[str, dict[str, Any]]], tokens: int, held_out: float, out: Path) -> None:
    """Train and score each model that is not in the file ``out`` yet, and add a line to the file."""
    path = corpus / "train.jsonl" if corpus.is_dir() else corpus
    texts = [text.lower() for text in revgen.read(path)]
    random.Random(0).shuffle(texts)
    size = max(1, round(held_out * len(texts)))
    for name, values in runs:
        done = [(row["model"], row["options"], row["tokens"]) for row in read_rows(out)]
        if (name, values, tokens) not in done:
            row = measure(name, values, texts[size:], texts[:size], tokens)
            with out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")


def measure(name: str, values: dict[str, Any], train: list[str], held_out: list[str], tokens: int) -> dict[str, Any]:
    """Train one model and return its row of the table."""
    of_fit = {key: value for key, value in values.items() if key in FitOptions.__annotations__}
    model: Any = revgen.create(name, **{key: value for key, value in values.items() if key not in of_fit})
    start = time.process_time()
    model.fit(train, token_budget=tokens, progress=False, **of_fit)
    seconds = time.process_time() - start
    nats = model.evaluate(held_out).nats_per_char
    row = {"model": name, "options": values, "tokens": tokens, "held out": round(nats, 4)}
    return row | {"parameters": model.num_parameters, "cpu seconds": round(seconds, 1)}


def print_table(path: Path) -> None:
    """Print the rows in a file as a table, the best first."""
    rows = sorted(read_rows(path), key=lambda row: (row["tokens"], row["held out"]))
    shown = [row | {"options": " ".join(f"{k}={v}" for k, v in row["options"].items())} for row in rows]
    print(to_text(shown, list(COLUMNS)))


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Return the rows in a file, or an empty list if the file does not exist."""
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.exists() else []


if __name__ == "__main__":
    main()
