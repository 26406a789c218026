"""Callbacks of a training run: the base class, and callbacks for TensorBoard and Weights & Biases."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from revgen.arguments import validate_call
from revgen.errors import MissingExtraError, OptionError
from revgen.registry import unknown_name_message

if TYPE_CHECKING:
    from revgen.history import EpochMetrics, History


@dataclass(frozen=True)
class StepMetrics:
    """The metrics of one step of the optimizer."""

    step: int
    """The number of the step in the whole run, counted from 1."""
    epoch: int
    """The number of the epoch, counted from 1."""
    progress: float
    """The fraction of the run that is done, 0 to 1."""
    loss: float
    """The training loss in nats per token, with dropout."""
    learning_rate: float
    tokens_per_second: float
    """The average speed in this epoch so far."""


class Callback:
    """The base class of callbacks: override the methods that you need.

    A plain function is a callback too: ``fit`` calls it like ``on_epoch_end``. Training stops if ``on_step_end`` or
    ``on_epoch_end`` returns True: the current epoch ends, and the model gets its best weights. The weights of ``model``
    are updated at the end of each epoch, not after each step. With several processes, only the first one calls
    callbacks. An exception ends training too, and is raised by ``fit``.
    """

    def on_train_begin(self, model: Any, history: History) -> None:
        """Called before the first step. ``history`` has the settings, and the epochs so far if a run is resumed."""

    def on_step_end(self, model: Any, step: StepMetrics) -> bool | None:
        """Called after each step of the optimizer; on a GPU, for several steps at once.

        Return True to stop training.
        """

    def on_epoch_end(self, model: Any, epoch: EpochMetrics) -> bool | None:
        """Called after each epoch and its validation. Return True to stop training."""

    def on_train_end(self, model: Any, history: History) -> None:
        """Called after training. ``model`` has its final weights."""


METHODS = [name for name in vars(Callback) if name.startswith("on_")]


def as_callback(callback: Any) -> Callback:
    """Return a callback unchanged, or wrap a function in one.

    Raises OptionError for anything else, and for a callback with a misspelled method.
    """
    if isinstance(callback, Callback):
        for name in dir(callback):
            if name.startswith("on_") and not hasattr(Callback, name):
                message = unknown_name_message("method of callbacks", name, METHODS)
                raise OptionError(f"callbacks: {type(callback).__name__} is never called: {message}")
        return callback
    if isinstance(callback, type) or not callable(callback):
        raise OptionError(f"callbacks must be revgen.Callback objects or functions of (model, epoch), not {callback!r}")
    wrapper = Callback()
    wrapper.on_epoch_end = callback  # type: ignore[method-assign]
    return wrapper


class TensorBoard(Callback):
    """Log to TensorBoard in ``directory`` (requires the extra ``tensorboard``).

    Logs the loss and the learning rate every ``every`` steps, and the metrics and the sample of each epoch.
    """

    @validate_call
    def __init__(self, directory: str | Path, every: int = 10) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise MissingExtraError(
                "revgen.TensorBoard needs the package tensorboard: pip install 'revgen[tensorboard]'"
            ) from None
        self.every = every
        self.writer: Any = SummaryWriter(str(directory))

    def on_step_end(self, model: Any, step: StepMetrics) -> None:
        if step.step % self.every == 0:
            for name, value in (("loss/training", step.loss), ("learning rate", step.learning_rate)):
                self.writer.add_scalar(name, value, step.step)

    def on_epoch_end(self, model: Any, epoch: EpochMetrics) -> None:
        for name, value in _metrics(epoch).items():
            self.writer.add_scalar(f"epoch/{name}", value, epoch.epoch)
        self.writer.add_text("sample", epoch.sample, epoch.epoch)
        self.writer.flush()

    def on_train_end(self, model: Any, history: History) -> None:
        self.writer.close()


class WandB(Callback):
    """Log to Weights & Biases (requires the extra ``wandb``).

    Logs the loss and the learning rate every ``every`` steps, and the metrics and the sample of each epoch.
    ``options`` are passed to ``wandb.init``: ``project``, ``name``, ``mode``, …
    """

    @validate_call
    def __init__(self, every: int = 10, **options: Any) -> None:
        try:
            import wandb
        except ImportError:
            raise MissingExtraError("Weights & Biases needs the package wandb: pip install 'revgen[wandb]'") from None
        self.every = every
        self.options = options
        self.wandb: Any = wandb

    def on_train_begin(self, model: Any, history: History) -> None:
        self.run = self.wandb.init(config={"model": model.name, **history.settings}, **self.options)

    def on_step_end(self, model: Any, step: StepMetrics) -> None:
        if step.step % self.every == 0:
            self.run.log({"loss": step.loss, "learning_rate": step.learning_rate, "step": step.step})

    def on_epoch_end(self, model: Any, epoch: EpochMetrics) -> None:
        self.run.log({f"epoch/{name}": value for name, value in _metrics(epoch).items()} | {"sample": epoch.sample})

    def on_train_end(self, model: Any, history: History) -> None:
        self.run.finish()


def _metrics(epoch: EpochMetrics) -> dict[str, float]:
    """Return the metrics of an epoch that are not None, by name."""
    names = ("train_loss", "nats_per_char", "bits_per_char", "perplexity", "tokens_per_second", "seconds")
    return {name: value for name in names if (value := getattr(epoch, name)) is not None}
