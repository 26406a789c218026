"""The average of the weights over the last part of a run, which often predicts better than the final weights.

mean ← mean + (weights - mean) / n          after the n-th step of the last part

(Polyak & Juditsky 1992, *Acceleration of stochastic approximation by averaging*; Izmailov et al. 2018, *Averaging
weights leads to wider optima and better generalization*.)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor


class WeightAverage:
    """The mean of ``weights`` over the steps in the last ``fraction`` of a run; it stays empty if ``fraction`` is 0."""

    def __init__(self, weights: Sequence[Tensor], fraction: float) -> None:
        self.weights = weights
        self.fraction = fraction
        self.steps = 0
        self.mean: list[Tensor] = []

    def add(self, progress: float) -> None:
        """Add the current weights to the average if ``progress``, 0 to 1, is in the last part of the run."""
        if progress < 1 - self.fraction:
            self.clear()  # if a run resumes with more epochs, its last part begins again later
            return
        self.steps += 1
        weights = [weight.detach() for weight in self.weights]
        if self.steps == 1:
            self.mean = [weight.clone() for weight in weights]
        else:
            torch._foreach_lerp_(self.mean, weights, 1 / self.steps)

    def clear(self) -> None:
        """Make the average empty."""
        self.steps, self.mean = 0, []

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Replace the weights by their mean within the context; do nothing if the average is empty."""
        saved = [weight.detach().clone() for weight in self.weights] if self.mean else []
        try:
            self._load(self.mean)
            yield
        finally:
            self._load(saved)

    def _load(self, values: Sequence[Tensor]) -> None:
        with torch.no_grad():
            for weight, value in zip(self.weights, values, strict=False):  # an empty list changes nothing
                weight.copy_(value)
