"""Checkpoints: all that a training run needs to go on as if nothing had happened."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from revgen.errors import CheckpointError
from revgen.files import write_atomically
from revgen.training.history import Epoch

if TYPE_CHECKING:
    from revgen.training.loop import Training

FILE = "training.safetensors"


class Checkpoint:
    """A directory with the state of training in one file, and beside it the model as it was then.

    The state holds weights, optimizer, random state and history; the order of the text is a function of
    seed and epoch. It names the tokenizer, the text and the recipe, which must be the same on the way back.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.path = directory / FILE

    def save(self, training: Training) -> None:
        """Write the state at the end of an epoch; a process killed meanwhile leaves the state before."""
        training.model.save(self.directory)
        tensors = {"random": torch.get_rng_state()}
        kinds = {"network": training.weights, "good": training.good, "best": training.best or []}
        for kind, weights in (kinds | {"average": training.average.mean}).items():
            tensors |= {f"{kind}.{i}": weight.detach().clone() for i, weight in enumerate(weights)}
        for i, values in training.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{i}.{name}": value for name, value in values.items()}
        state = self._identity(training) | {
            "epochs_done": training.epochs_done,
            "seconds": training.seconds,
            "rate": training.rate,
            "rollbacks": training.rollbacks,
            "steps": training.steps,
            "averaged": training.average.steps,
            "loss": training.loss,
            "lowest": training.lowest,
            "notes": training.history.notes,
            "history": training.history.to_dicts(),
        }
        try:
            write_atomically(self.path, save(tensors, {"state": json.dumps(state, default=float)}))
        except OSError as error:
            raise CheckpointError(f"{self.path} cannot be written: {error.strerror or error}") from error

    def restore(self, training: Training) -> None:
        """Put a run where the checkpoint left it; where there is none, it begins from the start.

        Raises CheckpointError for a damaged file, and where tokenizer, text or recipe are other ones.
        """
        if not self.path.exists():
            return
        try:
            with safe_open(self.path, "pt") as file:
                state: dict[str, Any] = json.loads(file.metadata()["state"])
                tensors: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"{self.path} is damaged: {error}") from None
        for what, value in self._identity(training).items():
            if state.get(what) != value:
                raise CheckpointError(
                    f"{self.path} belongs to another run: its {what} was {state.get(what)!r}, it is {value!r} now"
                )

        def of(kind: str) -> list[Tensor]:
            there = (f"{kind}.{i}" for i in range(len(training.weights)))
            return [tensors[name].to(training.model.device) for name in there if name in tensors]

        optimizer = training.optimizer.state_dict()
        for name, value in tensors.items():
            kind, _, rest = name.partition(".")
            if kind == "optimizer":
                i, _, key = rest.partition(".")
                optimizer["state"].setdefault(int(i), {})[key] = value
        training._put(of("network"))
        training.good, training.best = of("good"), of("best") or None
        training.average.mean, training.average.steps = of("average"), state["averaged"]
        training.optimizer.load_state_dict(optimizer)
        torch.set_rng_state(tensors["random"])
        for name in ("epochs_done", "rate", "rollbacks", "steps", "loss", "lowest"):
            setattr(training, name, state[name])
        training.earlier_seconds = state["seconds"]
        training.history.notes = state["notes"]
        training.history.epochs = [Epoch(**epoch) for epoch in state["history"]]

    def _identity(self, training: Training) -> dict[str, Any]:
        """What a run is known by."""
        return {
            "model": training.model.name,
            "configuration": json.loads(json.dumps(dataclasses.asdict(training.model.config))),
            "tokenizer": training.model.tokenizer.fingerprint,
            "text": training.train.checksum,
            "recipe": dataclasses.asdict(training.recipe),
        }
