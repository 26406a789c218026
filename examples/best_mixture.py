"""Measure how well counts, networks, context mixing and their mixtures predict a text.

    python examples/best_mixture.py train.jsonl valid.jsonl --clean valid_clean.jsonl --out models

A part of the training documents is held out to validate the networks and to fit the gates of the mixtures with
networks. After that, the counts of the last mixtures count these documents too. The gates of counts are fitted on
folds of the other documents. Each model is saved in a directory of ``--out``; a later run loads the models that are
there. Each row of the table says what changes while the model reads a document. The texts are lowercased.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import revgen

ORDERS = 5, 8, 14
"""The orders of Kneser-Ney."""
WORD = "order 1", "order 2", "order 3", "word"
"""The contexts with which most chains begin."""
CHAINS = (
    (*WORD, "1 word and word", "2 words and word"),
    (*WORD, "word before and word"),
    (*WORD, "third word before and word"),
    (*WORD, "ending before and word", "stem before and word", "2 stems and word"),
    (*WORD, "long word before and word", "long word, ending before and word"),
    (*WORD, "start of sentence and word"),
    ("order 1", "skip the second, 2 tokens", "skip the second, 3 tokens", "skip the third, 4 tokens"),
    ("skip 1, 2 tokens", "skip 1, 3 tokens"),
    ("order 1", "classes", "classes and word"),
)
"""The chains of contexts of n-grams that skip tokens and words."""
NGRAM_HEADS = 3, 4, 5, 7, 10
"""The lengths of the n-grams that the LSTM looks up in the document."""


class Recipe:
    """The models, which are trained when they are needed, and the table of their losses."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.texts = texts = [text.lower() for text in revgen.read(arguments.train)]
        order = np.random.default_rng(arguments.seed).permutation(len(texts))
        self.held_out, self.train = (
            [texts[i] for i in np.sort(part)] for part in (order[: arguments.held_out], order[arguments.held_out :])
        )
        self.clean = [text.lower() for text in revgen.read(arguments.clean)] if arguments.clean else []
        self.rest = [text.lower() for text in revgen.read(arguments.valid)]
        self.rest = [text for text in self.rest if text not in set(self.clean)]
        self.directory = Path(arguments.out)
        self.epochs, self.transformer_epochs = arguments.epochs, arguments.transformer_epochs
        self.residual_epochs, self.is_wide = arguments.residual_epochs, arguments.wide

    def obtain(self, name: str, create: Callable[[], revgen.LanguageModel]) -> revgen.LanguageModel:
        """Load the model with this name, or create it and save it; print its loss."""
        directory, start = self.directory / name, time.process_time()
        if (directory / "config.json").exists():
            model, seconds = revgen.load(directory), "loaded"
        else:
            model = create()
            seconds = f"{time.process_time() - start:.0f} s"
            model.save(directory)
        self.report(name, model, seconds)
        return model

    def report(self, name: str, model: revgen.LanguageModel, seconds: str = "") -> None:
        """Print a row of the table: the nats per character on all and on the clean texts, and the CPU seconds."""
        parts = [model.evaluate(texts) for texts in (self.rest, self.clean) if texts]
        characters = sum(part.characters for part in parts)
        total = sum(part.nats_per_char * part.characters for part in parts) / characters
        clean = f"{parts[-1].nats_per_char:.4f}" if self.clean else ""
        print(name, model.adaptation, f"{total:.4f}", clean, seconds, sep=" | ", flush=True)

    def kneser_ney(self) -> revgen.LanguageModel:
        """Return Kneser-Ney of several orders, with a gate that is fitted on folds of the training text."""
        first = revgen.create("kneser-ney-char", order=ORDERS[0])
        first.fit(self.train, progress=False)
        models = [first, *(revgen.create("kneser-ney-char", order=n, tokenizer=first.tokenizer) for n in ORDERS[1:])]
        for model in models[1:]:
            model.fit(self.train, progress=False)
        return self.gated_counts(*models)

    def counts(self, orders: Any, mixing: revgen.LanguageModel) -> revgen.LanguageModel:
        """Return Kneser-Ney of several orders, n-grams that skip tokens and words, and context mixing, with a gate."""
        chains = [revgen.create("skip-ngram-char", contexts=chain, tokenizer=orders.tokenizer) for chain in CHAINS]
        for model in chains:
            model.fit(self.train, progress=False)
        return self.gated_counts(*orders.models, *chains, mixing)

    def gated_counts(self, *models: revgen.LanguageModel) -> revgen.LanguageModel:
        """Return a mixture of models of counts, whose gate is fitted on folds of the training text."""
        mixture = revgen.mix(models, gated=True)
        mixture.fit(self.train, folds=8, epochs=3, progress=False)
        return mixture

    def lstm(self, counts: revgen.LanguageModel) -> revgen.LanguageModel:
        """Return an LSTM that looks up n-grams in the document."""
        model = revgen.create("lstm-char", tokenizer=counts.tokenizer, ngram_heads=NGRAM_HEADS)
        model.fit(self.train, self.held_out, preset="best", epochs=self.epochs, checkpoint=self.directory / "run-lstm")
        return model

    def transformer(self, counts: revgen.LanguageModel) -> revgen.LanguageModel:
        """Return a transformer; the wide one has much dropout and a longer context than the default one."""
        sizes: Any = {"hidden_size": 192, "dropout": 0.12}
        options: Any = {"epochs": self.transformer_epochs, "checkpoint": self.directory / "run-transformer"}
        if self.is_wide:
            sizes = {"hidden_size": 256, "num_layers": 5, "context": 256, "dropout": 0.18}
            options |= {"sequence_length": 256, "batch_size": 16}
        model = revgen.create("transformer-char", tokenizer=counts.tokenizer, **sizes)
        model.fit(self.train, self.held_out, **options)
        return model

    def context_mixing(self, counts: revgen.LanguageModel, adapt: bool = True) -> revgen.LanguageModel:
        """Return context mixing."""
        model = revgen.create("cm-char", tokenizer=counts.tokenizer, adapt=adapt)
        model.fit(self.train, progress=False)
        return model

    def residual(self, network: str, base: str) -> revgen.LanguageModel:
        """Return the network with this name after more training on top of a model of counts."""
        model = revgen.load(self.directory / network)
        options: dict[str, Any] = {"base": revgen.load(self.directory / base), "epochs": self.residual_epochs}
        model.fit(self.train, self.held_out, checkpoint=self.directory / f"run-{network}-on-{base}", **options)
        return model

    def gated(self, *models: revgen.LanguageModel) -> Any:
        """Return a mixture whose gate is fitted on the texts that were held out."""
        mixture = revgen.mix(models, gated=True)
        mixture.fit(self.held_out, progress=False)
        return mixture

    def run(self) -> None:
        """Print the table."""
        print("model", "changes while it reads", "all", "clean", "CPU time of the training", sep=" | ")
        orders: Any = self.obtain("kneser-ney", self.kneser_ney)
        fixed = self.obtain("fixed context mixing", lambda: self.context_mixing(orders, adapt=False))
        counts = self.obtain("counts", lambda: self.counts(orders, fixed))
        mixing = self.obtain("context mixing", lambda: self.context_mixing(orders))
        lstm = self.obtain("lstm", lambda: self.lstm(counts))
        transformer = self.obtain("transformer", lambda: self.transformer(counts))
        self.obtain("counts and lstm", lambda: self.gated(counts, lstm))
        on_counts, on_mixing = (
            [self.obtain(f"{n} on {base}", partial(self.residual, n, base)) for n in ("lstm", "transformer")]
            for base in ("counts", "context mixing")
        )
        members = counts, fixed, lstm, transformer, *on_counts
        self.obtain("all with fixed weights", lambda: self.gated(*members).with_counts(self.texts))
        cached = orders.models[-1].adaptive(dynamic=False)
        self.obtain("all with fixed weights and a cache", lambda: self.gated(*members, cached).with_counts(self.texts))
        dynamic = [network.adaptive(cache=False) for network in (lstm, transformer)]
        members = counts, cached, mixing, *dynamic, *on_counts, *on_mixing
        self.obtain("everything", lambda: self.gated(*members).with_counts(self.texts))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("train")
    parser.add_argument("valid")
    parser.add_argument("--clean", help="the part of the validation text without copies of the training text")
    parser.add_argument("--out", default="best-mixture", help="the directory of the models")
    parser.add_argument("--held-out", type=int, default=64, help="the number of documents that fit the gates")
    parser.add_argument("--epochs", type=int, default=14, help="of the LSTM alone")
    parser.add_argument("--transformer-epochs", type=int, default=11, help="of the transformer alone")
    parser.add_argument("--wide", action="store_true", help="train a wide transformer, for example for 22 epochs")
    parser.add_argument("--residual-epochs", type=int, default=2, help="of the networks on top of other models")
    parser.add_argument("--seed", type=int, default=7)
    Recipe(parser.parse_args()).run()


if __name__ == "__main__":
    main()
