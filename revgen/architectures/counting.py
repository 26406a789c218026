"""``CountingModel``: the ``fit`` of models that count, which reads the texts and measures what was counted."""

from __future__ import annotations

import copy
import time
from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, Unpack

from revgen.arguments import validate_call
from revgen.corpus import Corpus, read
from revgen.corpus.summary import CorpusSummary, summarize
from revgen.corpus.tokens import Tokens, tokenize_train_valid
from revgen.errors import OptionError
from revgen.evaluation.likelihood import measure
from revgen.history import EpochMetrics, History
from revgen.language_model import LanguageModel
from revgen.model import Model, Weights
from revgen.options import ReadOptions
from revgen.tokenizers import Tokenizer

if TYPE_CHECKING:
    from revgen.training.progress import Progress

M = TypeVar("M", bound=Model)


class CountingModel(LanguageModel):
    """A model that counts its training text. A subclass defines ``count_texts``."""

    @abstractmethod
    def count_texts(self, tokens: Tokens, tokenizer: Tokenizer) -> Callable[[], float]:
        """Count documents of ids instead of the earlier ones; return a function that computes the nats per token."""

    @validate_call
    def fit(  # type: ignore[override]  # counting has only some of the options
        self,
        texts: Any,
        valid: Any = None,
        *,
        labels: Any = None,
        seed: int = 0,
        extend_vocabulary: bool = False,
        progress: bool = True,
        index_texts: bool = False,
        **reading: Unpack[ReadOptions],
    ) -> History:
        """Count texts, and discard earlier counts.

        An existing tokenizer is kept; ``extend_vocabulary`` adds tokens for new characters and words to it. ``texts``,
        ``valid`` and ``reading`` are as in the ``fit`` of a network. ``seed`` chooses the documents to hold out if
        ``valid`` is a fraction, and ``index_texts`` keeps an index of the texts with the model. The history has one
        epoch.
        """
        start_time = time.perf_counter()
        prepared = read_texts(
            self,
            texts,
            valid,
            labels=labels,
            seed=seed,
            extend_vocabulary=extend_vocabulary,
            progress=progress,
            reading=reading,
        )
        train_loss = self.count_texts(prepared.train, prepared.tokenizer)
        seconds = time.perf_counter() - start_time
        self.forget_index()
        if index_texts:
            self.index_texts(prepared.corpus)
        metrics = measure_held_out(self, prepared.held_out)
        record_texts(self, prepared.corpus, prepared.summary)
        size, sample = len(prepared.train), self.generate("", max_tokens=80, seed=seed)
        epoch = EpochMetrics(1, train_loss(), 0.0, size / seconds, seconds, **metrics, best=True, sample=sample)
        history = History([epoch], settings={"tokens": size, "seed": seed}, notes=prepared.summary.hints)
        self.metadata["training"] = history.settings | {"seconds": round(seconds, 2)}
        prepared.bar.on_epoch_end(epoch)
        prepared.bar.close()
        return history


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
