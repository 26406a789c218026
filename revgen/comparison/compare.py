"""Side by side: models trained on the same text under one budget, measured on the same held-out text.

Each is shown with its figures, a picture of its graph, and what it writes from the same prompt and seed.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np

from revgen.arguments import checked
from revgen.comparison.graph import Graph, graphs
from revgen.corpus import Corpus, read
from revgen.corpus.tokens import Tokens
from revgen.errors import CorpusError, OptionError, RevgenError
from revgen.files import to_json
from revgen.novelty import Span, SuffixIndex, find_copies
from revgen.options import ReadOptions, check, shown
from revgen.tables import to_frame, to_text

if TYPE_CHECKING:
    from revgen.language_model import LanguageModel

MODELS = ("ngram-char", "kneser-ney-char", "elman-char", "rnn-char", "gru-char", "lstm-char")
SMOOTHED = "kneser-ney-char"
MAX_ORDER = 20
COPY = 20
"""Characters from which on a span counts as copied: shorter ones are phrases that everybody uses."""


@dataclass(frozen=True)
class ModelResult:
    """What is known of one model; all figures are None where it failed with ``error``."""

    model: str
    parameters: int | None = None
    seconds: float | None = None
    """Of training, validation between the epochs included."""
    epochs: int | None = None
    seconds_per_epoch: float | None = None
    nats_per_char: float | None = None
    """On the held-out text, as are the next two; infinite where the model holds some of it to be impossible."""
    bits_per_char: float | None = None
    perplexity: float | None = None
    chars_per_second: float | None = None
    """Of generation, one text at a time."""
    longest_copy: int | None = None
    """Characters of the longest span of the sample that stands in the training text."""
    copied_fraction: float | None = None
    """The part of the sample in such spans of at least 20 characters."""
    sample: str | None = None
    error: str | None = None
    history: tuple[tuple[float, float], ...] = ()
    """After each epoch: seconds since the start, nats per character on the held-out text."""
    copies: tuple[Span, ...] = field(default=(), repr=False)
    graphs: dict[str, Graph] = field(default_factory=dict, repr=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """Every figure by name; the pictures are left out."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "graphs"}


@dataclass(frozen=True)
class OrderPoint:
    """How an n-gram model of one order predicts the text it was counted in, and the held-out text."""

    order: int
    train_nats_per_char: float
    valid_nats_per_char: float


@dataclass
class Comparison:
    """Rows of models side by side: prints as a table, iterates as ``Row``, plots, and saves as a report."""

    rows: list[ModelResult]
    orders: list[OrderPoint]
    """Of Kneser-Ney n-grams: with the order the loss on the training text falls, and on other text it stops falling."""
    settings: dict[str, Any]

    def __iter__(self) -> Iterator[ModelResult]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> ModelResult:
        return self.rows[i]

    def __str__(self) -> str:
        hidden = {"sample", "history", "copies", "graphs"}
        if all(row.error is None for row in self.rows):
            hidden.add("error")
        return to_text(self.to_dicts(), [f.name for f in dataclasses.fields(ModelResult) if f.name not in hidden])

    def to_dicts(self) -> list[dict[str, Any]]:
        """One dictionary a model."""
        return [row.to_dict() for row in self.rows]

    def to_frame(self) -> Any:
        """One row a model, as a pandas data frame."""
        return to_frame(self.to_dicts())

    def to_json(self) -> str:
        """Return everything but the pictures; what is infinite or not known is null (``revgen.files.to_json``)."""
        content = {
            "settings": self.settings,
            "models": self.to_dicts(),
            "orders": [dataclasses.asdict(point) for point in self.orders],
        }
        return to_json(content, indent=2, ensure_ascii=False)

    def plot(self) -> Any:
        """Loss against training time, and against the order of n-grams, as a matplotlib figure.

        Raises MissingExtraError without the extra ``plots``.
        """
        from revgen.comparison.charts import figure

        return figure(self)

    @checked
    def save(self, directory: str | Path) -> Path:
        """Write ``report.html`` (one self-contained file), ``report.md`` with its pictures, and ``report.json``.

        Without the extra ``plots`` the report has no charts, and says so.
        """
        from revgen.comparison.report import save

        return save(self, Path(directory))


@checked
def compare(
    corpus: Any,
    models: Iterable[str | LanguageModel] = MODELS,
    *,
    valid: Any = 0.1,
    prompt: str = "the ",
    epochs: int | None = None,
    max_seconds: float | None = None,
    max_tokens: int = 300,
    temperature: float = 1.0,
    max_order: int = 10,
    seed: int = 0,
    progress: bool = True,
    **reading: Unpack[ReadOptions],
) -> Comparison:
    """Train models on the same text under one budget and put them side by side.

    Args:
        corpus: the text, as ``revgen.read`` takes it.
        models: names, with options of ``revgen.create`` where wanted (``"kneser-ney-char:order=8"``,
            ``"lstm-char:hidden_size=128,num_layers=1"``), or models made by it.
        valid: the share of whole documents to hold out, the same ones for every model, or text in the forms of
            ``corpus``.
        prompt: what all samples begin with; ``max_tokens``, ``temperature`` and ``seed`` are theirs too.
        epochs: the budget, with ``max_seconds``; models that count need neither.
        max_order: the highest order in the curve of n-gram order against loss; 0: no curve.
        seed: of the held-out documents, of training and of the samples.
        progress: show what is being trained.
        reading: how ``corpus`` and ``valid`` are read; ``revgen.read`` describes these options.

    A model that fails in training has its error in its row, and the others go on. A name or an option that there is
    not raises UnknownNameError or OptionError before anything is trained.
    """
    made = [(name, parse_spec(name)) if isinstance(name, str) else (name.name, name) for name in models]
    check("max_order", max_order, 0 <= max_order <= MAX_ORDER, f"a whole number from 0 to {MAX_ORDER}")
    train, held_out = split(read(corpus, **reading), valid, seed, reading)
    index = SuffixIndex(train)
    budget = {"epochs": epochs, "max_seconds": max_seconds, "seed": seed, "progress": progress}
    writing = {"prompt": prompt, "max_tokens": max_tokens, "temperature": temperature, "seed": seed}
    rows = []
    for number, (name, model) in enumerate(made, 1):
        if progress:
            print(f"[{number}/{len(made)}] {name}", file=sys.stderr)
        try:
            rows.append(measure(name, model, train, held_out, index, budget, writing))
        except Exception as error:  # whatever a model may do, the others are still to be compared
            kind = "" if isinstance(error, RevgenError) else f"{type(error).__name__}: "
            rows.append(ModelResult(name, error=f"{kind}{' '.join(str(error).split())}"))
    settings = {
        "training": {"documents": len(train), "characters": sum(map(len, train))},
        "validation": {"documents": len(held_out), "characters": sum(map(len, held_out))},
        "epochs": epochs,
        "max_seconds": max_seconds,
        **writing,
    }
    return Comparison(rows, order_curve(train, held_out, max_order), settings)


def parse_spec(text: str) -> LanguageModel:
    """A new model by a name with options: ``name:option=value,option=value``, the values as JSON where they are any."""
    from revgen.zoo import create

    name, _, rest = text.partition(":")
    options: dict[str, Any] = {}
    for setting in filter(None, rest.split(",")):
        key, sign, value = setting.partition("=")
        if not sign:
            raise OptionError(f"the options of a model are option=value,option=value, not {rest!r}")
        try:
            options[key.strip()] = json.loads(value)
        except ValueError:
            options[key.strip()] = value
    return create(name, **options)


def split(corpus: Corpus, valid: Any, seed: int, reading: ReadOptions) -> tuple[list[str], list[str]]:
    """The training and the held-out documents, whatever the tokenizers of the models."""
    texts = list(corpus)
    if not isinstance(valid, int | float):
        train, held_out = texts, list(read(valid, **reading))
    elif not 0 < valid < 1:
        raise OptionError(f"valid must be text, or a share in 0 < valid < 1, not {shown(valid)}")
    else:
        ends = np.cumsum([0, *map(len, texts)])
        characters = Tokens(np.zeros(0, np.uint8), np.stack([ends[:-1], ends[1:]], 1))  # each counts as a token
        whole = "".join(texts)
        parts = characters.split(valid, seed) if texts else ()
        train, held_out = ([whole[start:end] for start, end in part.spans] for part in parts or (characters,) * 2)
    for documents, what in ((train, "train"), (held_out, "validate")):
        if not any(documents):
            raise CorpusError(f"there is no character to {what} on: give more text, or validation text of its own")
    return train, held_out


def measure(
    name: str,
    model: LanguageModel,
    train: Sequence[str],
    held_out: Sequence[str],
    index: SuffixIndex,
    budget: dict[str, Any],
    writing: dict[str, Any],
) -> ModelResult:
    """Train one model and measure everything."""
    known = inspect.signature(model.fit).parameters
    given = {key: value for key, value in budget.items() if key in known and value is not None}
    history = model.fit(iter(train), iter(held_out), **given)  # an iterator: strings of a list might name files
    evaluation = model.evaluate(iter(held_out))
    sample = model.generate(**writing)
    found = find_copies(sample, index, COPY)
    return ModelResult(
        name,
        model.num_parameters,
        history.seconds,
        len(history),
        history.seconds / max(len(history), 1),
        evaluation.nats_per_char,
        evaluation.bits_per_char,
        evaluation.perplexity,
        chars_per_second(model, writing["prompt"], writing["temperature"], writing["seed"]),
        found.longest,
        found.fraction,
        sample,
        history=tuple((e.seconds, e.nats_per_char) for e in history if e.nats_per_char is not None),
        copies=found.spans,
        graphs=graphs(model),
    )


def chars_per_second(model: LanguageModel, prompt: str, temperature: float, seed: int) -> float:
    """Characters a second that a model writes after its first text, over half a second or 2,000 characters."""
    characters, began = 0, time.perf_counter()
    while characters < 2000 and time.perf_counter() < began + 0.5:
        seed += 1
        characters += len(model.generate(prompt, max_tokens=300, temperature=temperature, seed=seed)) - len(prompt)
    return characters / (time.perf_counter() - began)


def order_curve(train: Sequence[str], held_out: Sequence[str], max_order: int) -> list[OrderPoint]:
    """The loss of n-gram models of every order up to ``max_order``."""
    from revgen.zoo import create

    points = []
    for order in range(1, max_order + 1):
        model = create(SMOOTHED, order=order)
        model.fit(iter(train), progress=False)
        losses = [model.evaluate(iter(texts)).nats_per_char for texts in (train, held_out)]
        points.append(OrderPoint(order, *losses))
    return points
