"""The results of a comparison: one row for each model, and the losses of n-gram models by order."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from revgen.display.tables import to_frame, to_text
from revgen.files import to_json
from revgen.graphs.graph import Graph
from revgen.novelty import Span


@dataclass(frozen=True)
class ModelResult:
    """The measurements of one model. If training failed, ``error`` has the message, and there are no measurements."""

    model: str
    parameters: int | None = None
    seconds: float | None = None
    """Training time, including validation between epochs."""
    epochs: int | None = None
    seconds_per_epoch: float | None = None
    nats_per_char: float | None = None
    """Loss on the held-out text; infinite if the model gives some of it probability zero."""
    nats_with_document_state: float | None = None
    """The same loss when the model remembers the text of the document, as the cache of ``adaptive`` does."""
    nats_with_adapted_weights: float | None = None
    """The same loss when the model also changes its weights inside the document, by dynamic evaluation."""
    adaptation: str | None = None
    """How the model itself adapts to a document, which is what ``nats_per_char`` shows: "fixed weights", or more."""
    bits_per_char: float | None = None
    perplexity: float | None = None
    """Perplexity per token on the held-out text."""
    chars_per_second: float | None = None
    """Generation speed, one text at a time."""
    longest_copy: int | None = None
    """Length in characters of the longest span of the sample that is copied from the training text."""
    copied_fraction: float | None = None
    """Fraction of the sample's characters that are in copied spans of at least 20 characters."""
    sample: str | None = None
    error: str | None = None
    history: tuple[tuple[float, float], ...] = ()
    """For each epoch: seconds since the start of training, and nats per character on the held-out text."""
    copies: tuple[Span, ...] = field(default=(), repr=False)
    graphs: dict[str, Graph] = field(default_factory=dict, repr=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """Return all fields except the graphs."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "graphs"}


@dataclass(frozen=True)
class OrderPoint:
    """The loss of an n-gram model of one order, on the training text and on the held-out text."""

    order: int
    train_nats_per_char: float
    valid_nats_per_char: float


@dataclass
class Results:
    """The results of all models. Prints as a table and iterates over ``ModelResult``."""

    rows: list[ModelResult]
    orders: list[OrderPoint]
    """The losses of Kneser-Ney n-grams by order. The training loss keeps falling; the held-out loss does not."""
    settings: dict[str, Any]

    def __iter__(self) -> Iterator[ModelResult]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> ModelResult:
        return self.rows[i]

    def __str__(self) -> str:
        return to_text(self.to_dicts(), self.columns)

    @property
    def columns(self) -> list[str]:
        """The columns of the table: the measurements, and errors and figures of adaptive models if there are any."""
        hidden = {"sample", "history", "copies", "graphs"}
        optional = ("nats_with_document_state", "nats_with_adapted_weights", "error")
        hidden |= {name for name in optional if all(getattr(row, name) is None for row in self.rows)}
        if all(row.adaptation in (None, "fixed weights") for row in self.rows):
            hidden.add("adaptation")
        return [f.name for f in dataclasses.fields(ModelResult) if f.name not in hidden]

    def to_dicts(self) -> list[dict[str, Any]]:
        """Return one dictionary for each model."""
        return [row.to_dict() for row in self.rows]

    def to_frame(self) -> Any:
        """Return a pandas data frame with one row for each model. Raises MissingExtraError without pandas."""
        return to_frame(self.to_dicts())

    def to_json(self) -> str:
        """Return everything except the graphs as JSON. Infinite and missing numbers are null."""
        content = {
            "settings": self.settings,
            "models": self.to_dicts(),
            "orders": [dataclasses.asdict(point) for point in self.orders],
        }
        return to_json(content, indent=2, ensure_ascii=False)
