"""The parts of ``fit`` that models of counts share: reading the texts, and measuring what was counted."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from revgen.corpus import Corpus, read
from revgen.corpus.summary import CorpusSummary, summarize
from revgen.corpus.tokens import Tokens, tokenize_train_valid
from revgen.errors import OptionError
from revgen.evaluation.likelihood import measure
from revgen.history import EpochMetrics, History
from revgen.language_model import LanguageModel
from revgen.model import Model, Weights
from revgen.tokenizers import Tokenizer

if TYPE_CHECKING:
    from revgen.training.progress import Progress

M = TypeVar("M", bound=Model)


class Texts(NamedTuple):
    """The texts of a call of ``fit`` as token ids."""

    corpus: Corpus
    tokenizer: Tokenizer
    train: Tokens
    held_out: Tokens | None
    summary: CorpusSummary
    bar: Progress


def read_texts(
    model: Model,
    texts: Any,
    valid: Any,
    *,
    labels: Any,
    seed: int,
    extend_vocabulary: bool,
    progress: bool,
    reading: Mapping[str, Any],
) -> Texts:
    """Read and tokenize texts, and print a summary; the parameters are those of ``fit``.

    Raises OptionError if there are labels.
    """
    from revgen.training.progress import Progress

    if labels is not None:
        raise OptionError(f"{model.name} cannot be conditioned on labels")
    corpus = read(texts, **reading)
    if not (valid is None or isinstance(valid, int | float)):
        valid = read(valid, **reading)
    tokenizer = model.tokenizer_for(corpus, extend_vocabulary, progress)
    train, held_out = tokenize_train_valid(corpus, valid, tokenizer, seed, progress=progress)
    summary = summarize(corpus, train, None if isinstance(valid, Corpus) else held_out, tokenizer)
    bar = Progress(progress)
    for line in (str(summary), *summary.hints):
        bar.say(line)
    return Texts(corpus, tokenizer, train, held_out, summary, bar)


def finish_counting(
    model: LanguageModel, texts: Texts, train_loss: Callable[[], float], seconds: float, seed: int
) -> History:
    """Measure a model after it has counted its texts, print its metrics, and return a history of one epoch.

    ``train_loss`` computes the nats per token of the training text, and ``seconds`` is the time that counting took.
    """
    metrics = measure_held_out(model, texts.held_out)
    record_texts(model, texts.corpus, texts.summary)
    sample = model.generate("", max_tokens=80, seed=seed)
    size = len(texts.train)
    epoch = EpochMetrics(1, train_loss(), 0.0, size / seconds, seconds, **metrics, best=True, sample=sample)
    history = History([epoch], settings={"tokens": size, "seed": seed}, notes=texts.summary.hints)
    model.metadata["training"] = history.settings | {"seconds": round(seconds, 2)}
    texts.bar.on_epoch_end(epoch)
    texts.bar.close()
    return history


def record_texts(model: Model, corpus: Corpus, summary: CorpusSummary) -> None:
    """Keep in the metadata how the texts were split into documents, and the fraction of spelled characters."""
    model.metadata["spelled"] = round(summary.unknown_fraction, 6)
    if corpus.sources:
        model.metadata["documents"] = corpus.documents


def recounted(model: M, tokenizer: Tokenizer, weights: Weights) -> M:
    """Return a copy of a model with other counts and another tokenizer, and without an index."""
    copied = copy.copy(model)
    copied.tokenizer, copied.weights = tokenizer, weights
    copied.forget_index()
    return copied


def measure_held_out(model: Model, held_out: Tokens | None) -> dict[str, Any]:
    """Return the metrics on held-out text, and keep the most important ones in the metadata."""
    if held_out is None:
        return {}
    metrics = measure(model.logprobs, model.tokenizer, held_out.documents(), model.adaptation).metrics()
    model.metadata["evaluation"] = {name: metrics[name] for name in ("nats_per_char", "bits_per_char")}
    return metrics
