"""The learning-rate finder: a short run in which the learning rate grows from step to step.

(Smith 2017, *Cyclical learning rates for training neural networks*, arXiv 1506.01186: the learning rate range test.)
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Any

import torch

from revgen.corpus import Corpus
from revgen.corpus.tokens import tokenize_train_valid
from revgen.display.plots import COLORS, pyplot_figure, style_axes
from revgen.errors import OptionError
from revgen.options import as_float, check, check_at_least
from revgen.training.cpu import flush_denormals, keep_freed_memory
from revgen.training.device import to_device
from revgen.training.recipe import Recipe
from revgen.training.run import TrainingRun, make_batches
from revgen.training.trainable import TrainableModel

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

SMOOTHING = 0.9
"""The weight of the earlier losses in the smoothed loss."""
DIVERGENCE_RATIO = 1.5
"""The test ends when the smoothed loss is this many times the lowest one."""
SUGGESTION_MARGIN = 10.0
"""The suggestion is the rate with the lowest loss divided by this number: at that rate, training nearly diverges."""


@dataclass(frozen=True, repr=False)
class LRFinderResult:
    """The smoothed training losses, in nats per token, for a growing sequence of learning rates."""

    rates: list[float]
    losses: list[float]

    @property
    def suggestion(self) -> float:
        """A peak for the learning-rate schedule: a tenth of the rate with the lowest loss."""
        return self.rates[self.losses.index(min(self.losses))] / SUGGESTION_MARGIN

    def plot(self) -> Any:
        """Plot the loss against the learning rate and return a matplotlib figure (requires the extra ``plots``)."""
        figure = pyplot_figure()
        axes = figure.add_subplot()
        axes.plot(self.rates, self.losses, color=COLORS[0])
        axes.axvline(self.suggestion, color=COLORS[1], linewidth=1, label=f"suggestion: {self.suggestion:.2g}")
        axes.set_xscale("log")
        axes.set_xlabel("learning rate")
        axes.set_ylabel("nats per token, smoothed")
        axes.legend(frameon=False, fontsize=9)
        style_axes(axes)
        return figure

    def __str__(self) -> str:
        return (
            f"suggested learning rate: {self.suggestion:.2g}, a tenth of the rate with the lowest loss "
            f"({min(self.losses):.3f} nats/token)"
        )

    __repr__ = __str__


def find_lr(
    model: TrainableModel, texts: Corpus, recipe: Recipe, low: float, high: float, steps: int
) -> LRFinderResult:
    """Train a copy of the model with growing learning rates, as ``NeuralModel.find_lr`` describes."""
    check_at_least("steps", steps, 10)
    check("low", low, 1e-30 <= as_float(low) < math.inf, "at least 1e-30")
    check("high", high, as_float(low) < as_float(high) < math.inf, "above low")
    trial = copy.copy(model)
    tokenizer = trial.tokenizer_for(texts)
    labels = trial.labels_for(texts)
    tokens, _ = tokenize_train_valid(texts, None, tokenizer, recipe.seed, labels)
    recipe = recipe.resolve(
        len(tokens), learning_rate=low, fine_tunes=False, device=trial.device, max_batch_size=trial.max_batch_size
    )

    def chunks() -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
        for epoch in count():
            yield from make_batches(tokens, recipe, epoch)

    result = LRFinderResult([], [])
    smoothed = 0.0
    with torch.random.fork_rng(), flush_denormals(), keep_freed_memory():
        torch.manual_seed(recipe.seed)
        trial.prepare(tokenizer, recipe.seed, labels, trial.suggest_sizes(recipe, len(tokens)))
        run = TrainingRun(trial, tokens, recipe)
        run.network.train()
        for i, (inputs, targets) in zip(range(steps), to_device(chunks(), trial.device), strict=False):
            rate = low * (high / low) ** (i / (steps - 1))
            loss = run.step(inputs, targets, rate).item()
            smoothed = SMOOTHING * smoothed + (1 - SMOOTHING) * loss
            unbiased = smoothed / (1 - SMOOTHING ** (i + 1))
            if not math.isfinite(loss) or unbiased > DIVERGENCE_RATIO * min(result.losses, default=math.inf):
                break
            result.rates.append(rate)
            result.losses.append(unbiased)
    if not result.rates:
        raise OptionError(f"low must be smaller: the loss is not finite at a learning rate of {low:g}")
    return result
