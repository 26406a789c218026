"""Checkpoints: everything that a training run needs to continue as if it had not been interrupted."""

from __future__ import annotations

import dataclasses
import math
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from revgen.arguments import check_type
from revgen.errors import CheckpointError, RevgenError
from revgen.files import delete_abandoned, lock, make_directory
from revgen.history import EpochMetrics
from revgen.networks.precision import describe_machine
from revgen.ops import tree_map
from revgen.options import as_float, check, check_at_least, config_values, convert_fields, is_int, safe_repr
from revgen.training.checkpoint_file import FORMAT_VERSION, read_checkpoint, write_checkpoint
from revgen.training.device import get_random_states, set_random_states
from revgen.training.run import EpochProgress, TrainingRun

FILE_NAME = "training-{:09d}.safetensors"
"""The name of a checkpoint's file, with the number of steps; in alphabetical order, the latest comes last."""
OPTIMIZERS = {"optimizer": {"step", "exp_avg", "exp_avg_sq"}, "muon": {"momentum"}}
"""For AdamW and Muon, the first word in the names of their tensors, and the last words."""
CLAIM_SECONDS = 0.5
"""How long a run waits for a process that saves a model into its directory."""
SAVED_ATTRIBUTES = {
    "fine_tunes": "fine_tunes",
    "epochs_done": "epochs_done",
    "rate": "peak_rate",
    "rollbacks": "num_rollbacks",
    "steps": "steps",
    "loss": "smoothed_loss",
    "lowest": "lowest_loss",
}
"""The attributes of a run that are saved unchanged, by their names in the file."""


@dataclass
class CheckpointConfig:
    """The directory and the schedule of the checkpoints of a training run.

    - ``directory``: where to save checkpoints. After each epoch, the model is saved there as well.
    - ``steps``, ``seconds``: how many steps of the optimizer, or how many seconds, to train between checkpoints within
      an epoch. With None, this interval is not used. There is always a checkpoint after each epoch.
    - ``keep``: how many checkpoints to keep; older ones are deleted.

    A checkpoint holds weights, optimizer, random states, the position in the text, and the history. It also identifies
    the tokenizer, the text and the recipe. All of these must be the same when the run is resumed; only the number of
    epochs, seconds or tokens may change. A process that is killed while it saves leaves the previous checkpoint intact.
    """

    directory: str | Path
    steps: int | None = None
    seconds: float | None = 60.0
    keep: int = 2

    def __post_init__(self) -> None:
        convert_fields(self)
        check("steps", self.steps, self.steps is None or is_int(self.steps, 1), "a whole number of at least 1")
        check("seconds", self.seconds, self.seconds is None or 0 <= as_float(self.seconds) < math.inf, "0 or more")
        check_at_least("keep", self.keep, 1)
        self.directory = Path(check_type("directory", self.directory, str | Path))

    @property
    def paths(self) -> list[Path]:
        """The checkpoints in the directory, from the oldest to the latest."""
        try:
            return sorted(path for path in Path(self.directory).glob("training-*.safetensors") if path.is_file())
        except OSError as error:
            raise CheckpointError(f"{self.directory} cannot be read: {error.strerror or error}") from None


class Checkpointer:
    """The checkpoints of a run. All methods may raise CheckpointError; the model remains usable after that."""

    def __init__(self, config: CheckpointConfig) -> None:
        self.config = config
        self.notes: list[str] = []
        """Why checkpoints could not be read."""
        self._saved_at = 0.0  # ``seconds`` of the run at the last save
        self._latest: tuple[Path, dict[str, Any], dict[str, Tensor]] | None = None
        self._damaged: list[Path] = []

    def claim(self) -> AbstractContextManager[Any]:
        """Return a context during which no other process can write into the directory.

        Raises CheckpointError at once if another process has claimed it, or if it cannot be written.
        """
        directory, claimed = Path(self.config.directory), ExitStack()
        try:
            make_directory(directory)
            claimed.enter_context(lock(directory, CLAIM_SECONDS))
        except BlockingIOError:
            raise CheckpointError(
                f"{directory}: another process writes its checkpoints here: wait until it ends, or name another one"
            ) from None
        except OSError as error:
            raise CheckpointError(f"{directory} cannot be written: {error.strerror or error}") from error
        return claimed

    def read_latest(self) -> dict[str, Any]:
        """Read the latest checkpoint that is not damaged, and return its values; an empty dictionary if there is none.

        Raises CheckpointError if all are damaged, or if one cannot be read.
        """
        paths = self.config.paths
        for path in reversed(paths):
            try:
                values, tensors = read_checkpoint(path)
            except ValueError as error:
                problem = f"{path} is damaged: {str(error)[:200]}"
                if path == paths[0]:
                    raise CheckpointError(problem) from None
                self._damaged.append(path)
                self.notes.append(f"{problem}. Training continues from the checkpoint before it")
                continue
            except OSError as error:
                raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from None
            if values["format_version"] > FORMAT_VERSION:
                raise CheckpointError(f"{path} was written by a newer version of revgen: upgrade to read it")
            self._latest = path, values, tensors
            return values
        return {}

    def begin(self, run: TrainingRun, resume: bool) -> None:
        """Restore the checkpoint that ``read_latest`` has read, if there is one; otherwise save a first one.

        Without ``resume``, raises CheckpointError if there are checkpoints.
        """
        if self.config.paths and not resume:
            raise CheckpointError(
                f"{self.config.directory} holds the checkpoints of another run: continue that run with resume=True, "
                "or use another directory"
            )
        if self._latest is not None:
            path, values, tensors = self._latest
            try:
                self._restore(run, path, values, tensors)
            except RevgenError:
                raise
            except (RuntimeError, LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
                raise CheckpointError(f"{path} is damaged: it does not fit the model: {str(error)[:200]}") from None
        if self._latest is None or run.ranks.size > 1:
            self.save(run)  # if the directory is not writable, this fails before training begins
        if run.ranks.is_first:
            for path in self._damaged:
                path.unlink(missing_ok=True)
        self._latest = None

    def is_due(self, run: TrainingRun) -> bool:
        """Return whether it is time to save a checkpoint within an epoch."""
        every_steps, every_seconds = self.config.steps, self.config.seconds
        due_by_steps = every_steps is not None and run.steps % every_steps < run.sync_every
        return due_by_steps or (every_seconds is not None and run.seconds - self._saved_at >= every_seconds)

    def save(self, run: TrainingRun) -> None:
        """Save a checkpoint and delete the oldest ones. At the end of an epoch, save the model too.

        With several processes, each must call this, but only the first one writes.
        """
        tensors = get_random_states(run.model.device, run.network.generator)
        weights = {"network": run.params, "good": run.snapshot, "best": run.best_weights or []}
        for kind, copies in (weights | {"average": run.average.mean}).items():
            tensors |= {f"{kind}.{i}": weight.detach().clone() for i, weight in enumerate(copies)}
        for kind, optimizer in zip(OPTIMIZERS, run.optimizers, strict=False):
            for i, moments in optimizer.state_dict()["state"].items():
                tensors |= {f"{kind}.{i}.{key}": tensor for key, tensor in moments.items()}
        parts = run.ranks.gather([tree_map(Tensor.cpu, state) for state in run.states])
        self._saved_at = run.seconds
        if not run.ranks.is_first:
            return
        values = _identity(run) | {
            "budget": run.recipe.budget(),
            **{key: getattr(run, attribute) for key, attribute in SAVED_ATTRIBUTES.items()},
            "cursor": dataclasses.asdict(run.current_epoch),
            "precision": _precision(run),
            "compiled": run.is_compiled,
            "states": _extract_tensors(parts, "state", tensors),
            "seconds": run.seconds,
            "averaged": run.average.steps,
            "notes": run.history.notes,
            "history": run.history.to_dicts(),
        }
        path = Path(self.config.directory) / FILE_NAME.format(run.steps)
        try:
            if run.current_epoch.chunk == 0:
                run.model.save(self.config.directory)
            delete_abandoned(path.parent, ".training-*.part")
            write_checkpoint(path, values, tensors)
            for old in self.config.paths[: -self.config.keep]:
                old.unlink()
        except OSError as error:
            raise CheckpointError(f"{path} cannot be written: {error.strerror or error}") from error

    def _restore(self, run: TrainingRun, path: Path, values: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        for key, value in _identity(run).items():
            if values.get(key) != value:
                raise CheckpointError(f"{path} belongs to another run: {_difference(key, values.get(key), value)}")
        device = run.model.device

        def get_weights(kind: str) -> list[Tensor]:
            names = [f"{kind}.{i}" for i in range(len(run.params)) if kind == "network" or f"{kind}.0" in tensors]
            weights = [tensors[name].to(device) for name in names]
            if any(weight.shape != param.shape for weight, param in zip(weights, run.params, strict=False)):
                raise ValueError(f"the tensors {kind} have other shapes")
            return weights

        run.load_weights(get_weights("network"))
        run.snapshot, run.best_weights = get_weights("good"), get_weights("best") or None
        run.average.mean, run.average.steps = get_weights("average"), values["averaged"]
        if (saved := values["precision"]) is not None and saved["machine"] == _precision(run)["machine"]:
            run.network.bf16_matmul = saved["bf16_matmul"]
            run.start_optimizer()
        for kind, optimizer in zip(OPTIMIZERS, run.optimizers, strict=False):
            optimizer.load_state_dict(_optimizer_state(kind, optimizer, tensors))
        for key, attribute in SAVED_ATTRIBUTES.items():
            setattr(run, attribute, values[key])
        run.is_compiled = values["compiled"]
        run.current_epoch = EpochProgress(**values["cursor"])
        parts = _repartition(_insert_tensors(values["states"], tensors), run.num_parts)
        first = run.ranks.rank * run.gradient_accumulation_steps
        own = parts[first : first + run.gradient_accumulation_steps]
        run.states = [tree_map(lambda tensor: tensor.to(device), part) for part in own]
        _check_states(run)
        set_random_states(device, tensors, run.network.generator)
        run.earlier_seconds = self._saved_at = values["seconds"]
        run.history.notes = values["notes"]
        run.history.epochs = [EpochMetrics(**epoch) for epoch in values["history"]]


def _identity(run: TrainingRun) -> dict[str, Any]:
    """Return the values that must be the same when a run is resumed. The number of processes may change."""
    return {
        "model": run.model.name,
        "configuration": config_values(run.model.config),
        "tokenizer": run.model.tokenizer.fingerprint,
        "text": run.tokens.checksum,
        "recipe": run.recipe.identity(),
    }


def _precision(run: TrainingRun) -> dict[str, Any]:
    """Return the precision of matrix products, and the machine for which it was chosen: another one chooses its own."""
    device = run.network.device
    machine = describe_machine(torch.get_num_threads()) if device.type == "cpu" else {"device": device.type}
    return {"machine": machine, "bf16_matmul": run.network.bf16_matmul}


def _difference(key: str, saved: Any, current: Any) -> str:
    """Return a clause for an error message that says how a value of ``_identity`` has changed."""
    if isinstance(saved, dict) and isinstance(current, dict):
        changed = [
            f"{k} {safe_repr(saved.get(k))}, now {safe_repr(value)}"
            for k, value in current.items()
            if saved.get(k) != value
        ]
        return f"its {key} had {'; '.join(changed)}"
    if key == "model":
        return f"it trained {safe_repr(saved)}, not {current}"
    if key == "text":
        return "it was trained on different text: the corpus has changed since"
    return f"its {key} was different"


def _optimizer_state(kind: str, optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> dict[str, Any]:
    """Return the ``state_dict`` of an optimizer with the tensors of a checkpoint. Raises ValueError."""
    state = optimizer.state_dict()
    params = [param for group in optimizer.param_groups for param in group["params"]]
    for name, tensor in tensors.items():
        prefix, _, rest = name.partition(".")
        if prefix == kind:
            i, _, key = rest.partition(".")
            if tensor.shape != (() if key == "step" else params[int(i)].shape):
                raise ValueError(f"the tensor {name} has another shape")
            state["state"].setdefault(int(i), {})[key] = tensor
    if any(moments.keys() != OPTIMIZERS[kind] for moments in state["state"].values()):
        raise ValueError(f"a tensor of the {kind} is missing")
    return state


def _check_states(run: TrainingRun) -> None:
    """Raise ValueError unless the network can continue from the recurrent states of a checkpoint."""
    rows = run.recipe.batch_size // run.num_parts if run.recipe.batch_size else 0
    tokens = torch.full((1, rows), run.model.tokenizer.bos_id, device=run.model.device)
    for state in run.states:
        _, next_state = run.network(tokens, state)
        if state is not None and _shapes(state) != _shapes(next_state):
            raise ValueError("the states have other shapes")


def _shapes(state: Any) -> list[Any]:
    """Return the shapes of the tensors in a state, without the lengths of texts, which grow."""
    tensors = [leaf for leaf in pytree.tree_leaves(state) if leaf is not None]
    return [(tensor.ndim, tensor.shape[:1], tensor.shape[-1:]) for tensor in tensors]


def _extract_tensors(state: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """Return a nested state with names instead of tensors, as JSON requires. Add the tensors to ``tensors``."""
    if isinstance(state, Tensor):
        tensors[name] = state.contiguous()
        return name
    if isinstance(state, dict):
        return {key: _extract_tensors(part, f"{name}.{key}", tensors) for key, part in state.items()}
    if isinstance(state, tuple | list):
        return [_extract_tensors(part, f"{name}.{i}", tensors) for i, part in enumerate(state)]
    return None


def _insert_tensors(state: Any, tensors: dict[str, Tensor]) -> Any:
    """Reverse ``_extract_tensors``; lists become tuples."""
    if isinstance(state, str):
        return tensors[state]
    if isinstance(state, dict):
        return {key: _insert_tensors(part, tensors) for key, part in state.items()}
    return None if state is None else tuple(_insert_tensors(part, tensors) for part in state)


def _repartition(states: tuple[Any, ...], num_parts: int) -> list[Any]:
    """Split the recurrent states of a batch into ``num_parts`` parts. Rows are the first axis of each tensor."""
    if len(states) == num_parts:
        return list(states)
    if any(state is None for state in states):
        return [None] * num_parts
    joined = pytree.tree_map(lambda *pieces: None if pieces[0] is None else torch.cat(pieces), *states)

    def part(i: int) -> Any:
        return tree_map(lambda tensor: tensor.chunk(num_parts)[i], joined)

    return [part(i) for i in range(num_parts)]
