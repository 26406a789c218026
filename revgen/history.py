"""The history of a training run: the metrics of every epoch."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from revgen.display.html_tables import html_block, html_table, to_html
from revgen.display.plots import COLORS, pyplot_figure, style_axes
from revgen.display.tables import to_frame, to_text


@dataclass(frozen=True)
class EpochMetrics:
    """The metrics of one epoch. The validation metrics are None if there is no validation text."""

    epoch: int
    train_loss: float
    """The mean loss over the epoch in nats per token, with dropout."""
    learning_rate: float
    """The learning rate at the end of the epoch."""
    tokens_per_second: float
    """Training speed, without validation."""
    seconds: float
    """Time since the start of training, including validation."""
    nats_per_char: float | None = None
    """Loss on the validation text."""
    bits_per_char: float | None = None
    perplexity: float | None = None
    """Perplexity per token on the validation text."""
    best: bool = False
    """Whether no earlier epoch is better."""
    sample: str = ""
    """A text generated at the end of the epoch."""


@dataclass(repr=False)
class History:
    """The epochs of one call of ``fit``. Prints as a table and iterates over ``EpochMetrics``."""

    epochs: list[EpochMetrics] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """Unplanned events: an interruption, early stopping, a return to earlier weights."""
    settings: dict[str, Any] = field(default_factory=dict)
    """The settings of the run, including the defaults that ``fit`` chose."""
    is_interrupted: bool = False
    """Whether Ctrl-C ended the run."""

    @property
    def best(self) -> EpochMetrics | None:
        """The epoch whose weights the model has: the best on the validation text, or without one, the last."""
        best = [epoch for epoch in self.epochs if epoch.best]
        return best[-1] if best else None

    @property
    def seconds(self) -> float:
        """The duration of training in seconds."""
        return self.epochs[-1].seconds if self.epochs else 0.0

    def __len__(self) -> int:
        return len(self.epochs)

    def __iter__(self) -> Iterator[EpochMetrics]:
        return iter(self.epochs)

    def __getitem__(self, i: int) -> EpochMetrics:
        return self.epochs[i]

    def __str__(self) -> str:
        return "\n".join([to_text(*self.to_rows()), *self.notes])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return html_block(html_table(*self.to_rows()), *(f"<p>{to_html(note)}</p>" for note in self.notes))

    def to_rows(self) -> tuple[list[dict[str, Any]], list[str]]:
        """Return the rows and the columns to show."""
        hidden = {"sample"}
        if all(epoch.nats_per_char is None for epoch in self.epochs):
            hidden |= {"nats_per_char", "bits_per_char", "perplexity"}
        columns = [column.name for column in dataclasses.fields(EpochMetrics) if column.name not in hidden]
        return [row | {"best": "*" if row["best"] else ""} for row in self.to_dicts()], columns

    def to_dicts(self) -> list[dict[str, Any]]:
        """Return one dictionary for each epoch."""
        return [dataclasses.asdict(epoch) for epoch in self.epochs]

    def to_frame(self) -> Any:
        """Return a pandas data frame with one row for each epoch. Raises MissingExtraError without pandas."""
        return to_frame(self.to_dicts())

    def plot(self) -> Any:
        """Plot the training and validation loss of each epoch, and return a matplotlib figure.

        Raises MissingExtraError without the extra ``plots``.
        """
        figure = pyplot_figure()
        axes = figure.add_subplot()
        style = {"marker": "o", "markersize": 4}
        axes.plot([e.epoch for e in self], [e.train_loss for e in self], color=COLORS[0], label="training", **style)
        validated = [(epoch.epoch, math.log(epoch.perplexity)) for epoch in self if epoch.perplexity]
        if validated:
            axes.plot(*zip(*validated, strict=True), color=COLORS[1], label="validation", **style)
        if self.best is not None and self.best.perplexity:
            best_point = self.best.epoch, math.log(self.best.perplexity)
            axes.plot(*best_point, marker="o", markersize=11, fillstyle="none", color=COLORS[1])
        axes.set_xlabel("epoch")
        axes.set_ylabel("nats per token")
        axes.legend(frameon=False, fontsize=9)
        style_axes(axes)
        return figure
