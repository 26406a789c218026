"""Train the models that ship in the package.

    python examples/pretrain.py path/to/train.jsonl path/to/valid.jsonl --models lstm-char

The corpus is a file of texts, one JSON object ``{"text": …}`` a line, and so is the validation text. Each model is
written with its card to ``--out``, half precision, and can be loaded from there or from the package.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import revgen

# How each model is made and trained; what is not named has revgen's default.
RECIPES: dict[str, dict[str, Any]] = {
    "lstm-char": {
        "create": {"hidden_size": 384, "num_layers": 2, "dropout": 0.4},
        "fit": {"epochs": 20, "batch_size": 64, "seed": 1},
    },
    "gru-char": {"create": {"hidden_size": 256, "dropout": 0.3}, "fit": {"epochs": 12, "seed": 1}},
    "rnn-char": {"create": {"hidden_size": 256, "dropout": 0.2}, "fit": {"epochs": 14, "seed": 1}},
    "textgenrnn-char": {"create": {"hidden_size": 128, "dropout": 0.1}, "fit": {"epochs": 12, "seed": 1}},
    "lstm-word": {
        "create": {"hidden_size": 256, "dropout": 0.5, "tokenizer": {"vocab_size": 6000}},
        "fit": {"epochs": 14, "batch_size": 32, "sequence_length": 70, "seed": 1},
    },
    "gru-subword": {
        "create": {"hidden_size": 256, "dropout": 0.45, "tokenizer": {"vocab_size": 2000}},
        "fit": {"epochs": 14, "batch_size": 32, "sequence_length": 70, "seed": 1},
    },
    "transformer-subword": {
        "create": {
            "hidden_size": 192,
            "num_layers": 3,
            "context": 96,
            "dropout": 0.2,
            "tokenizer": {"vocab_size": 2000},
        },
        "fit": {"epochs": 14, "batch_size": 32, "sequence_length": 96, "seed": 1},
    },
}
PROMPTS = ["the ", "The band ", "I first heard "]


def main() -> None:
    """Train, evaluate, describe and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("train", help="the text to train on")
    parser.add_argument("valid", help="the text to validate on")
    parser.add_argument("--also", action="append", default=[], help="another text to evaluate on, for the card")
    parser.add_argument("--models", nargs="+", default=list(RECIPES), choices=list(RECIPES))
    parser.add_argument("--out", type=Path, default=Path(revgen.__file__).parent / "pretrained")
    parser.add_argument("--data", default="", help="what the card says of the data and its licence")
    parser.add_argument("--max-seconds", type=float, help="a budget for each model, instead of the recipe's epochs")
    options = parser.parse_args()
    for name in options.models:
        train(name, options)


def train(name: str, options: argparse.Namespace) -> None:
    """Train one model by its recipe and write it with its card."""
    recipe = RECIPES[name]
    settings = dict(recipe["fit"])
    if options.max_seconds:
        settings |= {"epochs": None, "max_seconds": options.max_seconds}
    model = revgen.create(name, **recipe["create"])
    print(model.fit(options.train, options.valid, sample="the ", **settings))

    first = model.evaluate(options.valid)
    model.metadata |= {
        "licence": "MIT",
        "language": "en",
        "load_as": name,
        "description": f"A {model.level}-level {model.architecture} language model of music reviews, in natural case: "
        "it ships with revgen, to play with and to fine-tune.",
        "data": options.data,
        "evaluation": {"nats_per_char": first.nats_per_char, "bits_per_char": first.bits_per_char}
        | {f"nats_per_char on {Path(path).stem}": model.evaluate(path).nats_per_char for path in options.also},
        "samples": [model.generate(p, temperature=0.7, max_tokens=300, seed=1) for p in PROMPTS],
    }
    directory = options.out / name
    (directory / "README.md").unlink(missing_ok=True)  # the card is written anew
    model.save(directory, dtype="float16")
    print(f"{directory}: {sum(f.stat().st_size for f in directory.iterdir()) / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
