"""Train models on the same text with the same budget, and measure them on the same held-out text."""

from __future__ import annotations

import inspect
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from revgen.arguments import validate_call
from revgen.comparison import charts, report
from revgen.comparison.results import ModelResult, OrderPoint, Results
from revgen.corpus import Corpus, read
from revgen.corpus.tokens import Tokens
from revgen.display.progress import progress_stream
from revgen.errors import CorpusError, OptionError, RevgenError
from revgen.graphs.builder import build_graphs
from revgen.language_model import LanguageModel
from revgen.novelty import SuffixIndex, find_copies
from revgen.options import ReadOptions, check, parse_assignment, safe_repr
from revgen.zoo import create

DEFAULT_MODELS = ("ngram-char", "kneser-ney-char", "elman-char", "rnn-char", "gru-char", "lstm-char")
ORDER_CURVE_MODEL = "kneser-ney-char"
MAX_ORDER = 20
MIN_COPIED_CHARS = 20
"""Shorter spans do not count as copied: they are common phrases."""
SPEED_TEST_SECONDS, SPEED_TEST_CHARS = 0.5, 2000


class Comparison(Results):
    """The results of ``compare``. Prints as a table, iterates over ``ModelResult``, and can be plotted and saved."""

    def plot(self) -> Any:
        """Plot the loss against training time and against n-gram order, and return a matplotlib figure.

        Raises MissingExtraError without the extra ``plots``.
        """
        return charts.plot(self)

    def _repr_html_(self) -> str:
        return report.to_notebook(self)

    @validate_call
    def save(self, directory: str | Path) -> Path:
        """Write ``report.html`` (one self-contained file), ``report.md`` with its images, and ``report.json``.

        Without the extra ``plots`` the report has no charts and says so.
        """
        return report.save(self, Path(directory))


@validate_call
def compare(
    corpus: Any,
    models: Iterable[str | LanguageModel] = DEFAULT_MODELS,
    *,
    valid: Any = 0.1,
    prompt: str = "the ",
    epochs: int | None = None,
    max_seconds: float | None = None,
    max_tokens: int = 300,
    temperature: float = 1.0,
    max_order: int = 10,
    adaptive: bool = False,
    seed: int = 0,
    progress: bool = True,
    **reading: Unpack[ReadOptions],
) -> Comparison:
    """Train models on the same text with the same budget, and compare them.

    If training a model fails, its row shows the error, and the other models are still compared. An unknown name or
    option raises UnknownNameError or OptionError before anything is trained. Ctrl-C raises KeyboardInterrupt.

    Args:
        corpus: the text, in any form that ``revgen.read`` accepts.
        models: models from ``revgen.create``, or names. A name can have options of ``revgen.create``, as in
            ``"kneser-ney-char:order=8"`` and ``"lstm-char:hidden_size=128,num_layers=1"``.
        valid: the fraction of the text to hold out, in whole documents and the same for every model; or the held-out
            text, in any form that ``revgen.read`` accepts.
        prompt: the beginning of every sample. Every sample also uses ``max_tokens``, ``temperature`` and ``seed``.
        epochs: the number of epochs for each model. N-gram models need neither ``epochs`` nor ``max_seconds``.
        max_seconds: the training time for each model.
        max_order: the highest order in the curve of loss against n-gram order; 0 for no curve.
        adaptive: also measure each model when it learns from each held-out document, as ``model.adaptive`` describes,
            in columns of its own. For networks, this takes much longer.
        seed: the seed of the held-out split, of training and of the samples.
        progress: show which model is being trained.
        reading: options of ``revgen.read`` for ``corpus`` and ``valid``.
    """
    named_models = [(spec, parse_spec(spec)) if isinstance(spec, str) else (spec.name, spec) for spec in models]
    check("max_order", max_order, 0 <= max_order <= MAX_ORDER, f"a whole number from 0 to {MAX_ORDER}")
    train, held_out = split(read(corpus, **reading), valid, seed, reading)
    index = SuffixIndex(train)
    budget = {"epochs": epochs, "max_seconds": max_seconds, "seed": seed, "progress": progress}
    sampling = {"prompt": prompt, "max_tokens": max_tokens, "temperature": temperature, "seed": seed}
    rows = []
    for number, (name, model) in enumerate(named_models, 1):
        if progress:
            print(f"[{number}/{len(named_models)}] {name}", file=progress_stream())
        try:
            rows.append(measure(name, model, train, held_out, index, budget, sampling, adaptive))
        except Exception as error:  # the failure of one model must not stop the comparison
            prefix = "" if isinstance(error, RevgenError) else f"{type(error).__name__}: "
            rows.append(ModelResult(name, error=f"{prefix}{' '.join(str(error).split())}"))
    settings = {
        "training": {"documents": len(train), "characters": sum(map(len, train))},
        "validation": {"documents": len(held_out), "characters": sum(map(len, held_out))},
        "epochs": epochs,
        "max_seconds": max_seconds,
        **sampling,
    }
    return Comparison(rows, order_curve(train, held_out, max_order), settings)


def parse_spec(spec: str) -> LanguageModel:
    """Create a model from ``name:option=value,option=value``. A value that is not JSON is a string."""
    name, _, options = spec.partition(":")
    return create(name, **dict(parse_assignment(option, f"models: {spec}") for option in options.split(",") if option))


def split(corpus: Corpus, valid: Any, seed: int, reading: ReadOptions) -> tuple[list[str], list[str]]:
    """Return the training documents and the held-out documents. The split does not depend on a tokenizer."""
    texts = list(corpus)
    if not isinstance(valid, int | float):
        train, held_out = texts, list(read(valid, **reading))
    elif not 0 < valid < 1:
        raise OptionError(f"valid must be text, or a fraction in 0 < valid < 1, not {safe_repr(valid)}")
    else:
        ends = np.cumsum([0, *map(len, texts)])
        characters = Tokens(np.zeros(0, np.uint8), np.stack([ends[:-1], ends[1:]], 1))  # one token each
        text = "".join(texts)
        parts = characters.split(valid, seed) if texts else ()
        train, held_out = ([text[start:end] for start, end in part.spans] for part in parts or (characters,) * 2)
    for documents, verb in ((train, "train"), (held_out, "validate")):
        if not any(documents):
            raise CorpusError(f"there is no text to {verb} on: give more text, or separate validation text")
    return train, held_out


def measure(
    name: str,
    model: LanguageModel,
    train: Sequence[str],
    held_out: Sequence[str],
    index: SuffixIndex,
    budget: dict[str, Any],
    sampling: dict[str, Any],
    adaptive: bool = False,
) -> ModelResult:
    """Train one model, evaluate it, and generate a sample."""
    accepted = inspect.signature(model.fit).parameters
    options = {key: value for key, value in budget.items() if key in accepted and value is not None}
    # Unlike a list, an iterator gives no warning if all of its texts are names of files.
    history = model.fit(iter(train), iter(held_out), **options)
    if history.is_interrupted:
        raise KeyboardInterrupt  # not only this model, but the whole comparison
    evaluation = model.evaluate(iter(held_out), adaptive=adaptive)
    nats = {e.adaptation: e.nats_per_char for e in (evaluation, *evaluation.adaptive)}
    sample = model.generate(**sampling)
    copies = find_copies(sample, index, MIN_COPIED_CHARS)
    return ModelResult(
        name,
        parameters=model.num_parameters,
        seconds=history.seconds,
        epochs=len(history),
        seconds_per_epoch=history.seconds / max(len(history), 1),
        **evaluation.metrics(),
        nats_with_document_state=nats.get("document state"),
        nats_with_adapted_weights=nats.get("adapted weights"),
        adaptation=evaluation.adaptation,
        chars_per_second=chars_per_second(model, sampling["prompt"], sampling["temperature"], sampling["seed"]),
        longest_copy=copies.longest,
        copied_fraction=copies.fraction,
        sample=sample,
        history=tuple((e.seconds, e.nats_per_char) for e in history if e.nats_per_char is not None),
        copies=copies.spans,
        graphs=build_graphs(model),
    )


def chars_per_second(model: LanguageModel, prompt: str, temperature: float, seed: int) -> float:
    """Return the number of characters that a model generates per second, measured for at most half a second."""
    characters, start = 0, time.perf_counter()
    while characters < SPEED_TEST_CHARS and time.perf_counter() < start + SPEED_TEST_SECONDS:
        seed += 1
        characters += len(model.generate(prompt, max_tokens=300, temperature=temperature, seed=seed)) - len(prompt)
    return characters / (time.perf_counter() - start)


def order_curve(train: Sequence[str], held_out: Sequence[str], max_order: int) -> list[OrderPoint]:
    """Return the losses of n-gram models of every order from 1 to ``max_order``."""
    points = []
    for order in range(1, max_order + 1):
        model = create(ORDER_CURVE_MODEL, order=order)
        model.fit(iter(train), progress=False)
        losses = [model.evaluate(iter(texts)).nats_per_char for texts in (train, held_out)]
        points.append(OrderPoint(order, *losses))
    return points
