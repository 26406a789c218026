"""How to train: the numbers of a training run, checked, what is chosen where none is given, and the schedule of the
learning rate."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from revgen.options import as_float, check, is_int, make_plain

WARM_UP = 0.1
FINE_TUNING = 1 / 5
"""How much of an architecture's learning rate is right for weights that are fitted already."""
MOST_EPOCHS = 40
MOST_EPOCHS_FITTED = 10
DROPOUT_A_DOUBLING = 0.075
"""The more often a text is read, the more has to be left out: 0.25 for 10 epochs, 0.35 for 25."""
MOST_DROPOUT = 0.5
SEEDS = 1 << 63  # of PyTorch
BUDGET = ("epochs", "max_seconds")
OPEN = (*BUDGET, "batch_size", "learning_rate")
"""The fields that are chosen where they are None."""


@dataclass(frozen=True)
class Preset:
    """What is chosen where network or run leave it open, on a CPU; a GPU reads four times as much, twice as wide."""

    tokens: float
    """To be read in all."""
    hidden_size: int


PRESETS = {
    "quick": Preset(tokens=4e6, hidden_size=128),
    "balanced": Preset(tokens=12e6, hidden_size=256),
    "best": Preset(tokens=27e6, hidden_size=256),
}


@dataclass(frozen=True)
class Recipe:
    """The numbers of a training run; ``NeuralModel.fit`` says what each is for."""

    epochs: int | None = None
    max_seconds: float | None = None
    batch_size: int | None = None
    sequence_length: int = 100
    learning_rate: float | None = None
    weight_decay: float = 0.2
    clip: float = 1.0
    weight_averaging: float = 0.0
    patience: int | None = None
    seed: int = 0
    preset: str = "balanced"

    def __post_init__(self) -> None:
        make_plain(self)
        for name in ("epochs", "batch_size", "sequence_length", "patience"):
            value = getattr(self, name)
            optional = value is None and name != "sequence_length"
            check(name, value, optional or is_int(value, 1), "a whole number of at least 1")
        seconds = self.max_seconds
        check("max_seconds", seconds, seconds is None or 0 < as_float(seconds) < math.inf, "above 0")
        rate = self.learning_rate
        check("learning_rate", rate, rate is None or 0 < as_float(rate) < math.inf, "above 0")
        check("weight_decay", self.weight_decay, 0 <= as_float(self.weight_decay) < math.inf, "0 or more")
        check(
            "weight_averaging",
            self.weight_averaging,
            0 <= as_float(self.weight_averaging) <= 1,
            "in 0 ≤ weight_averaging ≤ 1",
        )
        check("clip", self.clip, as_float(self.clip) > 0, "above 0")
        check("seed", self.seed, is_int(self.seed, 0) and self.seed < SEEDS, "a whole number from 0 to below 2**63")
        check("preset", self.preset, self.preset in PRESETS, " or ".join(map(repr, PRESETS)))

    def budget(self) -> dict[str, Any]:
        """Return the fields that say when the run ends, which may differ when it is resumed."""
        return {name: getattr(self, name) for name in BUDGET}

    def identity(self) -> dict[str, Any]:
        """Return the fields that a run cannot change when it is resumed."""
        return {name: value for name, value in asdict(self).items() if name not in BUDGET}

    def resumed(self, earlier: Mapping[str, Any]) -> Recipe:
        """Return the recipe with the choices of an earlier state of the run (``Checkpoints.earlier``) where it is open.

        A new number of epochs or seconds takes the place of the earlier one; the schedule follows the progress.
        """
        chosen = {**(earlier.get("recipe") or {})}
        if self.epochs is None and self.max_seconds is None:
            chosen |= earlier.get("budget") or {}
        return replace(self, **{n: v for n, v in chosen.items() if n in OPEN and getattr(self, n) is None})

    @property
    def planned_epochs(self) -> float:
        """How many epochs end the run; without a number, the seconds alone do."""
        return self.epochs or math.inf

    def resolve(self, tokens: int, learning_rate: float, fitted: bool, device: str = "cpu", parts: int = 1) -> Recipe:
        """With what was left to choose: as many epochs as the preset reads tokens, the architecture's learning rate,
        less for fitted weights, and a batch size that gives a small corpus enough steps, a power of 2 from 16 to 64
        that ``parts`` divide."""
        power: int = 2 ** math.floor(math.log2(max(tokens / 8_000, 1)))
        chosen = max(1, min(max(16, power), 64, tokens // (2 * self.sequence_length)))
        chosen = math.ceil(chosen / parts) * parts
        check("batch_size", self.batch_size, (self.batch_size or 0) % parts == 0, f"a multiple of its {parts} parts")
        epochs = self.epochs
        if epochs is None and self.max_seconds is None:
            epochs = self._epochs(tokens, device, MOST_EPOCHS_FITTED if fitted else MOST_EPOCHS)
        return replace(
            self,
            epochs=epochs,
            batch_size=self.batch_size or chosen,
            learning_rate=self.learning_rate or learning_rate * (FINE_TUNING if fitted else 1),
        )

    def suggest_sizes(
        self, tokens: int, device: str = "cpu", earlier: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Return width and dropout for a network that reads a corpus of ``tokens`` by this recipe; those of an
        ``earlier`` configuration where the run is resumed."""
        epochs = self.epochs or self._epochs(tokens, device, MOST_EPOCHS)
        chosen = {
            "hidden_size": PRESETS[self.preset].hidden_size * (1 if device == "cpu" else 2),
            "dropout": round(min(DROPOUT_A_DOUBLING * math.log2(epochs), MOST_DROPOUT), 2),
        }
        return {name: (earlier or {}).get(name, size) for name, size in chosen.items()}

    def _epochs(self, tokens: int, device: str, most: int) -> int:
        reads = PRESETS[self.preset].tokens * (1 if device == "cpu" else 4)
        return max(1, min(round(reads / tokens), most))


def one_cycle(progress: float) -> float:
    """The share of the peak learning rate at ``progress`` (0 to 1) of the run: a linear warm-up over the first
    tenth, then half a cosine down to zero (after Smith & Topin 2018)."""
    if progress < WARM_UP:
        return (progress + 0.01) / (WARM_UP + 0.01)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (progress - WARM_UP) / (1 - WARM_UP))))
