"""Measure what models gain if they learn from each document that they read, for the table in docs/adaptation.md.

    python examples/adaptation.py train.jsonl valid.jsonl --clean valid_clean.jsonl

It counts n-grams and trains a network on all training texts but 64, and fits a gated mixture of the two on these 64.
Then it prints the nats per character of each model with fixed weights, with a document cache, with dynamic
evaluation, with both, and a network with a neural cache. The texts are lowercased. ``--network`` takes a network that
was trained before.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

import revgen
from revgen.architectures.neural import NeuralModel

NUM_HELD_OUT = 64


def split(texts: list[str]) -> tuple[list[str], list[str]]:
    """Return the texts to train on, and the texts to fit the mixture on."""
    order = np.random.default_rng(7).permutation(len(texts))
    train, held_out = sorted(order[NUM_HELD_OUT:]), sorted(order[:NUM_HELD_OUT])
    return [texts[i] for i in train], [texts[i] for i in held_out]


def train_models(
    texts: list[str], network: str | None, epochs: int, out: str | None
) -> dict[str, revgen.LanguageModel]:
    """Return a model of counts, a network and their mixture, by name."""
    train, held_out = split(texts)
    if network is not None:
        recurrent = revgen.load(network)
    else:
        recurrent = revgen.create("lstm-char")
        recurrent.fit(train, held_out, epochs=epochs, preset="best", optimizer="adamw")
    if out is not None:
        recurrent.save(out)
    counts = revgen.create("kneser-ney-char", order=10, tokenizer=recurrent.tokenizer)
    counts.fit(train, progress=False)
    mixture = revgen.mix([counts, recurrent], gated=True)
    mixture.fit(held_out)
    return {"kneser-ney-char, order 10": counts, "lstm-char": recurrent, "gated mixture of the two": mixture}


def adaptations(model: revgen.LanguageModel) -> dict[str, revgen.LanguageModel]:
    """Return a model with fixed weights, and with each kind of adaptation that it supports, by name."""
    ways = {"fixed weights": model, "document cache": model.adaptive(dynamic=False)}
    if model.adaptive().adaptation == "adapted weights":
        ways |= {"dynamic evaluation": model.adaptive(cache=False), "both": model.adaptive()}
    if isinstance(model, NeuralModel):
        ways["neural cache"] = model.adaptive(cache="neural", dynamic=False)
    return ways


def main() -> None:
    """Print a line for each model and each way to adapt."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("train")
    parser.add_argument("valid")
    parser.add_argument("--clean", help="a part of the validation text without copies of the training text")
    parser.add_argument("--network", help="the directory of a network, instead of training one")
    parser.add_argument("--epochs", type=int, default=16, help="epochs of the network (default: 16)")
    parser.add_argument("--out", type=Path, help="the directory in which the network is saved")
    arguments = parser.parse_args()
    train, valid = ([text.lower() for text in revgen.read(path)] for path in (arguments.train, arguments.valid))
    clean = {text.lower() for text in revgen.read(arguments.clean)} if arguments.clean else set()
    parts = [[text for text in valid if (text in clean) is is_clean] for is_clean in (True, False)]
    for name, model in train_models(train, arguments.network, arguments.epochs, arguments.out).items():
        for way, version in adaptations(model).items():
            start = time.process_time()
            evaluations = [version.evaluate(part) for part in parts if part]
            characters = sum(evaluation.characters for evaluation in evaluations)
            nats = sum(evaluation.nats_per_char * evaluation.characters for evaluation in evaluations) / characters
            losses = f"{nats:.4f} all" + (f" | {evaluations[0].nats_per_char:.4f} clean" if clean else "")
            speed = characters / (time.process_time() - start)
            print(f"{name} | {way} | {losses} | {speed:,.0f} characters/s", flush=True)


if __name__ == "__main__":
    main()
