"""The keyword arguments of ``fit``, for type checkers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from revgen.options import ReadOptions

if TYPE_CHECKING:
    from revgen.training.callbacks import Callback
    from revgen.training.checkpoint import CheckpointConfig


class FitOptions(ReadOptions, total=False):
    """The keyword arguments of ``NeuralModel.fit``, which describes them. Other models take some of them."""

    base: Any
    teacher: Any
    labels: Any
    epochs: int | None
    max_seconds: float | None
    token_budget: int | None
    batch_size: int | None
    sequence_length: int | None
    optimizer: str | None
    learning_rate: float | None
    weight_decay: float
    weight_averaging: float | None
    patience: int | None
    seed: int
    extend_vocabulary: bool
    gradient_accumulation_steps: int
    preset: str
    checkpoint: str | Path | CheckpointConfig | None
    resume: bool
    callbacks: Sequence[Callback | Callable[[Any, Any], None]]
    progress: bool
    sample_prompt: str
    index_texts: bool
