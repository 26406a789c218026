"""Checkpoints: all that a training run needs to go on as if nothing had happened."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor
from torch.utils import _pytree as pytree

from revgen.arguments import check_type
from revgen.errors import CheckpointError
from revgen.files import write_atomically
from revgen.history import EpochMetrics
from revgen.ops import tree_map
from revgen.options import as_float, at_least, check, is_int, make_plain, plain
from revgen.training.device import get_random_states, set_random_states

if TYPE_CHECKING:
    from revgen.training.loop import Trainer

NAME = "training-{:09d}.safetensors"
KEPT = ("fine_tunes", "epochs_done", "rate", "rollbacks", "steps", "loss", "lowest")
"""What else of a run there is to know, under the names that it has there."""


@dataclass
class CheckpointConfig:
    """A directory with the state of a run, written after each epoch, and within one every ``steps`` steps of the
    optimizer or every ``seconds`` seconds; the last ``keep`` are kept. Beside them stands the model after each epoch.

    A state holds weights, optimizer, random state, the place in the text and the history; the order of the text is a
    function of seed and epoch. It names the tokenizer, the text and the recipe, which must be the same when the run is
    resumed, but for the number of epochs or seconds. A process killed while it writes leaves the state before. Raises
    CheckpointError, with the model as good as it was.
    """

    directory: str | Path
    steps: int | None = None
    seconds: float | None = 60.0
    keep: int = 2

    def __post_init__(self) -> None:
        make_plain(self)
        check("steps", self.steps, self.steps is None or is_int(self.steps, 1), "a whole number of at least 1")
        check("seconds", self.seconds, self.seconds is None or 0 <= as_float(self.seconds) < math.inf, "0 or more")
        at_least("keep", self.keep, 1)
        self.directory = Path(check_type("directory", self.directory, str | Path))
        self._saved = 0.0  # the seconds of the run

    @property
    def paths(self) -> list[Path]:
        """The states that there are, the oldest first."""
        try:
            return sorted(Path(self.directory).glob("training-*.safetensors"))
        except OSError as error:
            raise CheckpointError(f"{self.directory} cannot be read: {error.strerror or error}") from None

    def earlier(self) -> dict[str, Any]:
        """Return the plain values of the last state; none where there is no state."""
        return self._read(self.paths[-1], tensors=False)[0] if self.paths else {}

    def begin(self, training: Trainer, resume: bool) -> None:
        """Keep the states of this run from now on; with ``resume``, put it where the last one left it first."""
        if self.paths and not resume:
            raise CheckpointError(
                f"{self.directory} has checkpoints of a run: continue it with resume=True, or name another directory"
            )
        if self.paths:
            self._restore(training, self.paths[-1])
        training.checkpoints = self
        if not self.paths or training.ranks.size > 1:
            self.save(training)  # so that a place that cannot be written to is found before the work

    def is_due(self, training: Trainer) -> bool:
        """Whether it is time for the next one."""
        by_steps = self.steps is not None and training.steps % self.steps < training.look
        return by_steps or (self.seconds is not None and training.seconds - self._saved >= self.seconds)

    def save(self, training: Trainer) -> None:
        """Write the state, and remove the oldest."""
        tensors = get_random_states(training.model.device, training.network.generator)
        kinds = {"network": training.weights, "good": training.good, "best": training.best or []}
        for kind, weights in (kinds | {"average": training.average.mean}).items():
            tensors |= {f"{kind}.{i}": weight.detach().clone() for i, weight in enumerate(weights)}
        for i, values in training.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{i}.{name}": value for name, value in values.items()}
        parts = training.ranks.gather([tree_map(Tensor.cpu, state) for state in training.states])
        self._saved = training.seconds
        if not training.ranks.first:
            return
        state = self._identity(training) | {
            "budget": training.recipe.budget(),
            **{name: getattr(training, name) for name in KEPT},
            "cursor": dataclasses.asdict(training.cursor),
            "states": _names(parts, "state", tensors),
            "seconds": training.seconds,
            "averaged": training.average.steps,
            "notes": training.history.notes,
            "history": training.history.to_dicts(),
        }
        path = Path(self.directory) / NAME.format(training.steps)
        try:
            if training.cursor.chunk == 0:
                training.model.save(self.directory)
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, save(tensors, {"state": json.dumps(plain(state))}))
            for old in self.paths[: -self.keep]:
                old.unlink()
        except OSError as error:
            raise CheckpointError(f"{path} cannot be written: {error.strerror or error}") from error

    def _restore(self, training: Trainer, path: Path) -> None:
        state, tensors = self._read(path)
        for what, value in self._identity(training).items():
            if state.get(what) != value:
                raise CheckpointError(f"{path} belongs to another run: {_difference(what, state.get(what), value)}")

        device = training.model.device

        def of(kind: str) -> list[Tensor]:
            there = (f"{kind}.{i}" for i in range(len(training.weights)))
            return [tensors[name].to(device) for name in there if name in tensors]

        optimizer = training.optimizer.state_dict()
        for name, value in tensors.items():
            kind, _, rest = name.partition(".")
            if kind == "optimizer":
                i, _, key = rest.partition(".")
                optimizer["state"].setdefault(int(i), {})[key] = value
        training._load_weights(of("network"))
        training.good, training.best = of("good"), of("best") or None
        training.average.mean, training.average.steps = of("average"), state["averaged"]
        training.optimizer.load_state_dict(optimizer)
        set_random_states(device, tensors, training.network.generator)
        for name in KEPT:
            setattr(training, name, state[name])
        training.cursor = type(training.cursor)(**state["cursor"])
        parts = _shared_out(_tensors(state["states"], tensors), training.parts)
        own = parts[training.ranks.rank * training.accumulate :][: training.accumulate]
        training.states = [tree_map(lambda tensor: tensor.to(device), part) for part in own]
        training.earlier_seconds = self._saved = state["seconds"]
        training.history.notes = state["notes"]
        training.history.epochs = [EpochMetrics(**epoch) for epoch in state["history"]]

    def _read(self, path: Path, tensors: bool = True) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """A state and, on request, its tensors. Raises CheckpointError for a damaged one."""
        try:
            with safe_open(path, "pt") as file:
                names = file.keys() if tensors else []
                state = json.loads(file.metadata()["state"])
                if not isinstance(state, dict):
                    raise TypeError(f"its state is a {type(state).__name__}")
                return state, {name: file.get_tensor(name) for name in names}
        except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
            earlier = "; without it, the run goes on from the one before" if len(self.paths) > 1 else ""
            raise CheckpointError(f"{path} is damaged: {error}{earlier}") from None

    def _identity(self, training: Trainer) -> dict[str, Any]:
        """What a run is known by; on how many processes it runs is not of it."""
        return {
            "model": training.model.name,
            "configuration": json.loads(json.dumps(dataclasses.asdict(training.model.config))),
            "tokenizer": training.model.tokenizer.fingerprint,
            "text": training.train.checksum,
            "recipe": training.recipe.identity(),
        }


def _difference(what: str, then: Any, now: Any) -> str:
    if isinstance(then, dict) and isinstance(now, dict):
        changed = [f"{name} {then.get(name)!r}, now {now[name]!r}" for name in now if then.get(name) != now[name]]
        return f"its {what} had {'; '.join(changed)}"
    if what == "model":
        return f"it trained {then}, not {now}"
    return f"its {what} was not the present one" + (": the corpus has changed since" if what == "text" else "")


def _names(state: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """A state with the names of its tensors in their places, as JSON can hold it; they go into ``tensors``."""
    if isinstance(state, Tensor):
        tensors[name] = state.contiguous()
        return name
    if isinstance(state, dict):
        return {key: _names(part, f"{name}.{key}", tensors) for key, part in state.items()}
    if isinstance(state, tuple | list):
        return [_names(part, f"{name}.{i}", tensors) for i, part in enumerate(state)]
    return None


def _tensors(names: Any, tensors: dict[str, Tensor]) -> Any:
    """The state again, with tuples for lists."""
    if isinstance(names, str):
        return tensors[names]
    if isinstance(names, dict):
        return {key: _tensors(part, tensors) for key, part in names.items()}
    return None if names is None else tuple(_tensors(part, tensors) for part in names)


def _shared_out(states: tuple[Any, ...], parts: int) -> list[Any]:
    """The states of a batch's parts as those of ``parts`` others: the rows are the first axis of each tensor."""
    if len(states) == parts or any(state is None for state in states):
        return list(states) if len(states) == parts else [None] * parts

    def share(i: int) -> Any:
        return tree_map(lambda tensor: tensor.chunk(parts)[i], whole)

    whole = pytree.tree_map(lambda *pieces: None if pieces[0] is None else torch.cat(pieces), *states)
    return [share(i) for i in range(parts)]
