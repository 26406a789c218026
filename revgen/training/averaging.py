"""The average of the weights over the last part of a run, which often predicts better than any of them.

mean ← mean + (weights - mean) / n          after the n-th step of the last part

(Polyak & Juditsky 1992, *Acceleration of stochastic approximation by averaging*; Izmailov et al. 2018.)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor


class Average:
    """The mean of ``weights`` over the steps of the last ``part`` of a run, 0 to 1; with 0 there is none."""

    def __init__(self, weights: Sequence[Tensor], part: float) -> None:
        self.weights = weights
        self.part = part
        self.steps = 0
        self.mean: list[Tensor] = []

    def add(self, share: float) -> None:
        """Count the present weights in, if so much of the run is done that they belong to its last part."""
        if share < 1 - self.part:
            self.clear()  # of a run that was resumed with more epochs, after it had come to its last part
            return
        self.steps += 1
        values = [weight.detach() for weight in self.weights]
        if self.steps == 1:
            self.mean = [value.clone() for value in values]
        else:
            torch._foreach_lerp_(self.mean, values, 1 / self.steps)

    def clear(self) -> None:
        """Forget all steps, as where training goes back to earlier weights."""
        self.steps, self.mean = 0, []

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The mean in the place of the weights for a while, where there is one."""
        kept = [weight.detach().clone() for weight in self.weights] if self.mean else []
        try:
            self.load_into(self.mean)
            yield
        finally:
            self.load_into(kept)

    def load_into(self, values: Sequence[Tensor]) -> None:
        """These values as the weights; none leave them."""
        with torch.no_grad():
            for weight, value in zip(self.weights, values, strict=False):
                weight.copy_(value)
