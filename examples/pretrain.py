"""Train the models that ship in the package.

    python examples/pretrain.py path/to/train.jsonl path/to/valid.jsonl --models lstm-char

    python examples/pretrain.py path/to/train.jsonl path/to/valid.jsonl --push organization
    python examples/pretrain.py --table docs/models.md

The training text and the validation text are files with one JSON object ``{"text": …}`` per line. Each model is saved
to ``--out`` in half precision, with its card. ``--push`` pushes the trained models to the Hub. ``--table`` updates the
table of pretrained models in Markdown pages that have one.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

import revgen
from revgen import pretrained
from revgen.hub import push_all

# The options of ``create`` and ``fit`` for each model. revgen's defaults apply to all others.
RECIPES: dict[str, dict[str, Any]] = {
    "lstm-char": {
        "create": {"hidden_size": 384, "num_layers": 2, "dropout": 0.4},
        "fit": {"epochs": 20, "batch_size": 64, "seed": 1},
    },
    "gru-char": {"create": {"hidden_size": 256, "dropout": 0.2}, "fit": {"max_seconds": 420, "seed": 1}},
    "rnn-char": {"create": {"hidden_size": 256, "dropout": 0.2}, "fit": {"epochs": 14, "seed": 1}},
    "textgenrnn-char": {"create": {"hidden_size": 128, "dropout": 0.1}, "fit": {"max_seconds": 480, "seed": 1}},
    "lstm-word": {
        "create": {"hidden_size": 256, "dropout": 0.3, "tokenizer": {"vocab_size": 6000}},
        "fit": {"max_seconds": 600, "batch_size": 32, "sequence_length": 70, "seed": 1},
    },
    "gru-subword": {
        "create": {"hidden_size": 256, "dropout": 0.3, "tokenizer": {"vocab_size": 2000}},
        "fit": {"max_seconds": 360, "batch_size": 32, "sequence_length": 70, "seed": 1},
    },
    "transformer-subword": {
        "create": {
            "hidden_size": 192,
            "num_layers": 3,
            "context": 96,
            "dropout": 0.1,
            "tokenizer": {"vocab_size": 2000},
        },
        "fit": {"max_seconds": 480, "batch_size": 32, "sequence_length": 96, "seed": 1},
    },
}
PROMPTS = ["the ", "The band ", "I first heard "]


def main() -> None:
    """Train, evaluate and save the models."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("train", nargs="?", help="the text to train on")
    parser.add_argument("valid", nargs="?", help="the text to validate on")
    parser.add_argument("--also", action="append", default=[], help="another text to evaluate on; can be given again")
    parser.add_argument("--models", nargs="+", default=list(RECIPES), choices=list(RECIPES))
    parser.add_argument("--out", type=Path, default=pretrained.DIRECTORY)
    parser.add_argument("--data", default="", help="the description of the data and its license, for the card")
    parser.add_argument(
        "--max-seconds", type=float, help="a time budget for each model, instead of the recipe's epochs"
    )
    parser.add_argument("--push", metavar="ORGANIZATION", help="push the models to this user or organization")
    parser.add_argument(
        "--table", nargs="+", type=Path, metavar="PAGE", help="update the table of pretrained models in these pages"
    )
    options = parser.parse_args()
    if options.table:
        for page in options.table:
            page.write_text(with_table(page.read_text("utf-8")), "utf-8")
        return
    if not options.train or not options.valid:
        parser.error("give the text to train on and the text to validate on")
    for name in options.models:
        train(name, options)
    if options.push:
        print("\n".join(push_all([options.out / pretrained.add_corpus(name) for name in options.models], options.push)))


def train(name: str, options: argparse.Namespace) -> None:
    """Train one model by its recipe, and save it with its card."""
    recipe = RECIPES[name]
    fit_options = dict(recipe["fit"])
    if options.max_seconds:
        fit_options |= {"epochs": None, "max_seconds": options.max_seconds}
    model = revgen.create(name, **recipe["create"])
    print(model.fit(options.train, options.valid, sample_prompt="the ", **fit_options))

    evaluation = model.evaluate(options.valid)
    model.metadata |= {
        "licence": "MIT",
        "language": "en",
        "load_as": name,
        "description": f"A {model.level}-level {model.architecture} language model, trained on music reviews. "
        "It ships with revgen, ready to use or to fine-tune.",
        "data": options.data,
        "evaluation": {"nats_per_char": evaluation.nats_per_char, "bits_per_char": evaluation.bits_per_char}
        | {f"nats_per_char on {Path(path).stem}": model.evaluate(path).nats_per_char for path in options.also},
        "samples": [model.generate(p, temperature=0.7, max_tokens=300, seed=1) for p in PROMPTS],
    }
    directory = options.out / pretrained.add_corpus(name)
    (directory / "README.md").unlink(missing_ok=True)  # so that ``save`` writes a new card
    model.save(directory, dtype="float16")
    print(f"{directory}: {sum(f.stat().st_size for f in directory.iterdir()) / 1e6:.2f} MB")


def with_table(page: str) -> str:
    """Return a Markdown page with an updated table of pretrained models, from the metadata of the models."""
    rows = ["| model | parameters | size | nats/char | bits/char | trained |", "|---|--:|--:|--:|--:|---|"]
    for info in revgen.models(pretrained=True):
        content = json.loads((pretrained.DIRECTORY / info.name / "config.json").read_bytes())
        evaluation, training = (content["metadata"][key] for key in ("evaluation", "training"))
        rows.append(
            f"| `{info.name}` | {info.parameters:,} | {(info.size or 0) / 1e6:.1f} MB "
            f"| {evaluation['nats_per_char']:.3f} "
            f"| {evaluation['bits_per_char']:.3f} | {training['epochs']} epochs, {training['seconds'] / 60:.0f} min |"
        )
    table = "\n".join(rows)
    return re.sub(r"(?s)(<!-- pretrained -->\n).*?(<!-- end -->)", rf"\g<1>\n{table}\n\n\g<2>", page)


if __name__ == "__main__":
    main()
