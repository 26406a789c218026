"""The hyperparameters of a training run: their ranges, their defaults, and the schedule of the learning rate."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from revgen.options import as_float, check, convert_fields, is_int

WARM_UP_FRACTION = 0.1
"""The fraction of a run in which the learning rate rises to its peak."""
FINE_TUNING_FACTOR = 1 / 5
"""The learning rate for fine-tuning, relative to the architecture's default for new weights."""
MAX_EPOCHS, MAX_FINE_TUNING_EPOCHS = 40, 10
"""The largest default numbers of epochs."""
MIN_BATCH_SIZE, MAX_BATCH_SIZE = 16, 64
"""The limits of the default batch size; a tiny corpus gets a smaller one."""
TOKENS_PER_ROW = 8_000
"""The number of tokens of the corpus for each row of a batch, by default."""
DROPOUT_PER_DOUBLING = 0.075
"""The dropout that each doubling of the epochs adds by default: 0.25 for 10 epochs, 0.35 for 25."""
MAX_DROPOUT = 0.5
CPU_TOKENS_PER_SECOND = 75_000
"""About how fast a recurrent network with two layers of 256 units trains on two CPU cores."""
GPU_TOKENS_FACTOR, GPU_WIDTH_FACTOR = 4, 2
"""The factors by which a GPU increases the tokens of a preset and the width of a new network."""
SEED_LIMIT = 1 << 63
"""PyTorch takes seeds below this."""
OPTIMIZERS = "adamw", "muon"
BUDGET_FIELDS = ("epochs", "max_seconds", "token_budget")
DEFAULT_FIELDS = (*BUDGET_FIELDS, "batch_size", "learning_rate", "optimizer")
"""The fields for which ``Recipe.resolve`` chooses a value if they are None."""


@dataclass(frozen=True)
class Preset:
    """The default amount of training and the default width of a network, on a CPU."""

    tokens: float
    """The number of tokens to read in total, over all epochs."""
    hidden_size: int


PRESETS = {
    "quick": Preset(tokens=4e6, hidden_size=128),
    "balanced": Preset(tokens=12e6, hidden_size=256),
    "best": Preset(tokens=27e6, hidden_size=256),
}


@dataclass(frozen=True)
class Recipe:
    """The hyperparameters of a training run. ``NeuralModel.fit`` describes them; ``clip`` is the largest gradient norm.

    Raises OptionError for a value outside its range.
    """

    epochs: int | None = None
    max_seconds: float | None = None
    batch_size: int | None = None
    sequence_length: int = 100
    optimizer: str | None = None
    learning_rate: float | None = None
    weight_decay: float = 0.2
    clip: float = 1.0
    weight_averaging: float = 0.0
    patience: int | None = None
    seed: int = 0
    preset: str = "balanced"
    token_budget: int | None = None

    def __post_init__(self) -> None:
        convert_fields(self)
        for name in ("epochs", "batch_size", "sequence_length", "patience", "token_budget"):
            value = getattr(self, name)
            is_optional = name != "sequence_length"
            check(name, value, is_int(value, 1) or (is_optional and value is None), "a whole number of at least 1")
        seconds = self.max_seconds
        check("max_seconds", seconds, seconds is None or 0 < as_float(seconds) < math.inf, "above 0")
        rate = self.learning_rate
        check("learning_rate", rate, rate is None or 0 < as_float(rate) < math.inf, "above 0")
        check("weight_decay", self.weight_decay, 0 <= as_float(self.weight_decay) < math.inf, "0 or more")
        averaging = self.weight_averaging
        check("weight_averaging", averaging, 0 <= as_float(averaging) <= 1, "in the range 0 ≤ weight_averaging ≤ 1")
        check("clip", self.clip, as_float(self.clip) > 0, "above 0")
        is_seed = is_int(self.seed, 0) and self.seed < SEED_LIMIT
        check("seed", self.seed, is_seed, "a whole number of at least 0 and below 2**63")
        check("optimizer", self.optimizer, self.optimizer in (*OPTIMIZERS, None), " or ".join(map(repr, OPTIMIZERS)))
        check("preset", self.preset, self.preset in PRESETS, " or ".join(map(repr, PRESETS)))

    def budget(self) -> dict[str, Any]:
        """Return the fields that say when the run ends. They may change when the run is resumed."""
        return {name: getattr(self, name) for name in BUDGET_FIELDS}

    def identity(self) -> dict[str, Any]:
        """Return the fields that must not change when the run is resumed."""
        return {name: value for name, value in asdict(self).items() if name not in BUDGET_FIELDS}

    def resumed(self, saved: Mapping[str, Any]) -> Recipe:
        """Return the recipe with the defaults that were chosen when the run began.

        ``saved`` has the values in a checkpoint (``Checkpointer.read_latest``). A new number of epochs, seconds or
        tokens replaces the saved one, and the learning-rate schedule is stretched to it.
        """
        chosen = {**(saved.get("recipe") or {})}
        if not self.has_budget:
            chosen |= saved.get("budget") or {}
        changes = {k: v for k, v in chosen.items() if k in DEFAULT_FIELDS and getattr(self, k) is None}
        return replace(self, **changes)

    @property
    def has_budget(self) -> bool:
        """Whether the recipe says when the run ends."""
        return any(value is not None for value in self.budget().values())

    def planned_epochs(self, tokens: int) -> float:
        """Return how often the run reads a corpus of ``tokens`` tokens; infinity if only the seconds end it."""
        return min(self.epochs or math.inf, (self.token_budget or math.inf) / tokens)

    def resolve(
        self,
        tokens: int,
        learning_rate: float,
        fine_tunes: bool,
        device: str = "cpu",
        num_parts: int = 1,
        max_batch_size: int = MAX_BATCH_SIZE,
        optimizer: str = "adamw",
    ) -> Recipe:
        """Return the recipe with values for all fields that are None.

        - ``epochs``: the tokens of the preset divided by ``tokens``, the tokens of the corpus, up to a maximum.
        - ``learning_rate``: the argument of this name, the architecture's default; a fifth of it for fine-tuning.
        - ``batch_size``: a power of 2 from 16 to ``max_batch_size``, smaller for a small corpus, so that there are
          enough steps. It is rounded up to a multiple of ``num_parts``, the number of parts of a batch.
        - ``optimizer``: the argument of this name, the architecture's default.
        """
        batch_size = self.batch_size
        is_multiple = batch_size is None or batch_size % num_parts == 0
        expected = f"a multiple of {num_parts} (processes × gradient_accumulation_steps)"
        check("batch_size", batch_size, is_multiple, expected)
        epochs = self.epochs
        if not self.has_budget:
            epochs = self._suggest_epochs(tokens, device, MAX_FINE_TUNING_EPOCHS if fine_tunes else MAX_EPOCHS)
        return replace(
            self,
            epochs=epochs,
            batch_size=batch_size or self._suggest_batch_size(tokens, num_parts, max_batch_size),
            learning_rate=self.learning_rate or learning_rate * (FINE_TUNING_FACTOR if fine_tunes else 1),
            optimizer=self.optimizer or optimizer,
        )

    def suggest_sizes(self, tokens: int, device: str = "cpu") -> dict[str, Any]:
        """Return ``hidden_size`` and ``dropout`` for a new network and a corpus with ``tokens`` tokens."""
        epochs = self.planned_epochs(tokens)
        if self.max_seconds is not None:
            epochs = min(epochs, CPU_TOKENS_PER_SECOND * self._scale(device) * self.max_seconds / tokens)
        if math.isinf(epochs):
            epochs = self._suggest_epochs(tokens, device, MAX_EPOCHS)
        return {
            "hidden_size": PRESETS[self.preset].hidden_size * (1 if device == "cpu" else GPU_WIDTH_FACTOR),
            "dropout": round(min(DROPOUT_PER_DOUBLING * math.log2(max(1.0, epochs)), MAX_DROPOUT), 2),
        }

    def _suggest_epochs(self, tokens: int, device: str, max_epochs: int) -> int:
        tokens_to_read = PRESETS[self.preset].tokens * self._scale(device)
        return max(1, min(round(tokens_to_read / tokens), max_epochs))

    def _scale(self, device: str) -> int:
        """Return the factor by which training on a device reads more tokens than training on a CPU."""
        return 1 if device == "cpu" else GPU_TOKENS_FACTOR

    def _suggest_batch_size(self, tokens: int, num_parts: int, max_batch_size: int) -> int:
        power: int = 2 ** math.floor(math.log2(max(tokens / TOKENS_PER_ROW, 1)))
        rows_of_two_chunks = tokens // (2 * self.sequence_length)
        size = max(1, min(max(MIN_BATCH_SIZE, power), max_batch_size, rows_of_two_chunks))
        return math.ceil(size / num_parts) * num_parts


def one_cycle(progress: float) -> float:
    """Return the learning rate, relative to its peak, after the fraction ``progress`` of a run (Smith & Topin 2018).

    It rises linearly over the first tenth of the run, then falls to 0 along half a cosine.
    """
    if progress < WARM_UP_FRACTION:
        return (progress + 0.01) / (WARM_UP_FRACTION + 0.01)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (progress - WARM_UP_FRACTION) / (1 - WARM_UP_FRACTION))))
