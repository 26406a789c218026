"""Train the models that ship in the package.

    python examples/pretrain.py train path/to/data --out runs --models "*.names" "lstm-char.*"
    python examples/pretrain.py publish path/to/data --out runs
    python examples/pretrain.py table
    python examples/pretrain.py push organization

``examples/pretrain.toml`` lists the corpora and the models with all their options. ``train`` trains each model that
``--out`` does not have yet. ``publish`` measures the models in ``--out``, and writes them with their cards to
``revgen/pretrained``; losses are measured again only for other weights. ``table`` updates the tables and the samples in
``docs``. ``push`` pushes the published models to the Hub.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import tempfile
import time
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pretrain_corpora import Split, read_split
from pretrain_pages import write_pages
from pretrain_teacher import make_teacher

import revgen
from revgen import pretrained
from revgen.architectures.neural import NeuralModel
from revgen.card import describe
from revgen.evaluation.text_quality import text_quality
from revgen.generation.defaults import INDEX
from revgen.generation_file import OPTIONS
from revgen.hub import push_all
from revgen.novelty import SuffixIndex
from revgen.registry import filter_names
from revgen.tokenizers.subword import SPACE
from revgen.tokenizers.word import WordTokenizer

RECIPE = tomllib.loads(Path(__file__).with_suffix(".toml").read_text("utf-8"))
CORPORA: dict[str, dict[str, Any]] = RECIPE["corpora"]
MODELS: dict[str, dict[str, Any]] = RECIPE["models"]
TEACHERS: dict[str, dict[str, Any]] = RECIPE["teachers"]
TEXTS = 60
"""The number of texts of each model that are measured."""
SAMPLES = 5
"""The number of samples on the pages: those with the seeds 0, 1, 2, …"""
TEMPERATURES = {"char": 0.6, "subword": 0.7, "word": 0.8}
MIN_P = 0.05
WORDS_OF_ONE_LETTER = "aAI"
"""Other letters begin words that a word model spells, and spells wrongly; they are banned by default.

So is the space of a subword model of prose, after which it spells rare words. Together, they are likely, and a
temperature below 1 prefers a likely token.
"""
MIN_LENGTH = 0.2
"""A text ends with the first sentence after this fraction of its largest length."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one of the commands."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for command in (train, publish):
        subparser = commands.add_parser(command.__name__, help=command.__doc__)
        subparser.add_argument("data", type=Path, help="the folder with the corpora")
        subparser.add_argument("--out", type=Path, required=True, help="the folder of the trained models")
        subparser.add_argument("--models", nargs="+", default=["*"], help="names or wildcard patterns")
        subparser.set_defaults(function=command)
    commands.add_parser("push", help="push the published models").add_argument("organization")
    commands.add_parser("table", help="update the pages about the models")
    options = parser.parse_args(arguments)
    if options.command == "table":
        write_pages()
        return
    if options.command == "push":
        print("\n".join(push_all([pretrained.DIRECTORY / name for name in pretrained.names()], options.organization)))
        return
    for name in filter_names(list(MODELS), options.models):
        options.function(name, options.data, options.out)


def train(name: str, data: Path, out: Path) -> None:
    """Train one model by its recipe, and save it to ``out`` unless it is there."""
    if (out / name / "config.json").exists():
        return
    corpus = CORPORA[name.partition(".")[2]]
    split = read_split(corpus, data)
    recipe = MODELS[name]
    start = time.process_time()
    if "start" in recipe:
        model = start_from(revgen.load(out / recipe["start"]), split)
    elif "first" in recipe:
        model = cut_vocabulary(train_first(name, data, out), recipe.get("tokens"))
    else:
        model = revgen.create(name.partition(".")[0], **recipe["create"])
    if "fit" in recipe or not model.is_fitted:
        model.fit(split.train, split.valid, seed=1, progress=False, **recipe.get("fit", {}))
    model.save(out / name)
    loss = model.evaluate(split.valid, labels=split.valid.labels).nats_per_char
    print(f"{name}: {loss:.4f} nats per character, {time.process_time() - start:.0f} s", flush=True)


def train_first(name: str, data: Path, out: Path) -> revgen.LanguageModel:
    """Return a model that is trained on the corpus before it is cleaned. It is kept in ``out``."""
    directory = out / "first" / name
    if not directory.exists():
        corpus, recipe = name.partition(".")[2], MODELS[name]
        split = read_split(CORPORA[corpus] | {"clean": None}, data)
        model = revgen.create(name.partition(".")[0], **recipe["create"])
        teacher = None
        if recipe.get("distill"):
            teacher = make_teacher(TEACHERS[corpus], split.train, out, out / "teacher" / corpus)
        model.fit(split.train, split.valid, seed=1, progress=False, teacher=teacher, **recipe["first"])
        model.save(directory)
    return revgen.load(directory)


def start_from(model: revgen.LanguageModel, split: Split) -> revgen.LanguageModel:
    """Return a model with the weights of another one, and embeddings for the labels of a corpus."""
    if not (labels := split.train.label_names()):
        return model
    labeled = revgen.create(model.name, tokenizer=model.tokenizer, **vars(model.config) | {"labels": labels})
    assert isinstance(labeled, NeuralModel)
    labeled.weights = labeled.init_params(np.random.default_rng(1)) | model.weights
    return labeled


def cut_vocabulary(model: revgen.LanguageModel, tokens: int | None) -> revgen.LanguageModel:
    """Return a word model with the first tokens of its vocabulary, which are the most frequent ones."""
    if tokens is None or not isinstance(model.tokenizer, WordTokenizer):
        return model
    size = len(model.tokenizer)
    tokenizer = WordTokenizer(model.tokenizer.vocabulary[:tokens], model.tokenizer.min_count, tokens)
    smaller = revgen.create(model.name, tokenizer=tokenizer)
    smaller.config = model.config
    smaller.weights = {n: a[:tokens] if len(a) == size else a for n, a in model.weights.items()}
    return smaller


def publish(name: str, data: Path, out: Path) -> None:
    """Measure a trained model, and write it with its card to the package."""
    corpus = CORPORA[name.partition(".")[2]]
    split = read_split(corpus, data)
    dtype = MODELS[name].get("dtype", "float16")
    trained = revgen.load(out / name)
    with tempfile.TemporaryDirectory() as temporary:
        model = revgen.load(trained.save(Path(temporary) / name, dtype=dtype))  # what users load is measured
    options = generation_defaults(model, split, corpus["generation"] | MODELS[name].get("generation", {}))
    training = training_texts(name, split, data)
    for each in (trained, model):
        each.generation_config = options
        if not options.keys().isdisjoint(INDEX):
            each.index_texts(training, compact=True)
    samples = [model.generate(seed=seed) for seed in range(SAMPLES)]
    texts = samples + model.generate(n=TEXTS - SAMPLES, seed=SAMPLES)
    directory = pretrained.DIRECTORY / name
    trained.metadata = {
        "training": trained.metadata.get("training", {}),
        "evaluation": published_evaluation(model, directory) or evaluate(model, split, corpus),
        "generated": measure_names(texts, split) if corpus.get("names") else measure_texts(texts, training),
        "licence": corpus["licence"],
        "language": corpus.get("language"),
        "load_as": name,
        "description": f"{describe(model)} It ships with revgen, ready to use or to fine-tune.",
        "data": " ".join([corpus["text"], *teacher_text(name), f"Source: {corpus['source']}"]),
        "samples": samples,
    }
    (directory / "README.md").unlink(missing_ok=True)  # so that ``save`` writes a new card
    trained.save(directory, dtype=dtype, overwrite=True)
    size = sum(path.stat().st_size for path in directory.iterdir())
    print(f"{name}: {size / 1e6:.2f} MB, {trained.metadata['evaluation']}, {trained.metadata['generated']}", flush=True)


def teacher_text(name: str) -> list[str]:
    """Return a sentence about the teacher of a model, if it has one."""
    return [TEACHERS[name.partition(".")[2]]["text"]] if MODELS[name].get("distill") else []


def training_texts(name: str, split: Split, data: Path) -> list[str]:
    """Return all texts that a model was trained on, also before the cleaning, and as the model that it began with."""
    recipe = MODELS[name]
    if "start" in recipe:
        return [*split.train, *read_split(CORPORA["music"] | {"clean": None}, data).train]
    if "first" in recipe:
        return [*split.train, *read_split(CORPORA[name.partition(".")[2]] | {"clean": None}, data).train]
    return [*split.train]


def published_evaluation(model: revgen.LanguageModel, directory: Path) -> dict[str, float] | None:
    """Return the losses of the model in a directory if it has the same weights, or else None."""
    if not (directory / "config.json").exists():
        return None
    content = json.loads((directory / "config.json").read_bytes())
    return content["metadata"]["evaluation"] if content["weights"]["sha256"] in model.saved_hashes else None


def is_list(corpus: dict[str, Any]) -> bool:
    """Return whether each line of a corpus is a document, such as a name."""
    return corpus["train"].endswith(".txt") and "split_at" not in corpus


def generation_defaults(model: revgen.LanguageModel, split: Split, options: dict[str, Any]) -> dict[str, Any]:
    """Return the defaults of ``generate``: the options of the recipe, with lengths in tokens."""
    defaults = {"temperature": TEMPERATURES[model.level], "min_p": MIN_P} | options
    if length := defaults.pop("length", None):
        text = next(iter(split.valid))[:10_000]
        tokens = round(length * len(model.tokenizer.encode(text)) / len(text))
        defaults = {"stop_at_sentence": True, "max_tokens": tokens, "min_tokens": int(MIN_LENGTH * tokens)} | defaults
    if defaults.get("stop_at_sentence") is False:
        del defaults["stop_at_sentence"], defaults["min_tokens"]
    if SPACE in model.tokenizer.vocabulary:
        defaults.setdefault("banned_tokens", [" "])
    if isinstance(tokenizer := model.tokenizer, WordTokenizer):
        letters = [token for token in tokenizer.vocabulary if len(token) == 1 and token.isalpha()]
        defaults.setdefault("banned_tokens", [letter for letter in letters if letter not in WORDS_OF_ONE_LETTER])
    return {name: defaults[name] for name in OPTIONS if name in defaults}


def evaluate(model: revgen.LanguageModel, split: Split, corpus: dict[str, Any]) -> dict[str, float]:
    """Return the loss of the held-out documents, and the one with a cache of the document."""
    static = model.evaluate(split.valid, labels=split.valid.labels)
    losses = {"nats_per_char": static.nats_per_char, "bits_per_char": static.bits_per_char}
    if not is_list(corpus) and "labels" not in corpus:
        losses["nats_per_char_adaptive"] = model.adaptive().evaluate(split.valid).nats_per_char
    return losses


def measure_texts(texts: list[str], training: list[str]) -> dict[str, Any]:
    """Return how generated texts read."""
    return {"texts": len(texts)} | dataclasses.asdict(text_quality(texts, SuffixIndex(training)))


def measure_names(texts: list[str], split: Split) -> dict[str, Any]:
    """Return the fractions of names that differ from each other, and that are not training names."""
    known = {*split.train}
    return {
        "texts": len(texts),
        "distinct_names": len({*texts}) / len(texts),
        "new_names": sum(text not in known for text in texts) / len(texts),
    }


if __name__ == "__main__":
    main()
