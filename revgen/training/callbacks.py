"""What watches a training run: a small protocol, and two well-known tools that speak it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from revgen.arguments import checked
from revgen.errors import MissingExtraError, OptionError

if TYPE_CHECKING:
    from revgen.history import EpochMetrics, History


@dataclass(frozen=True)
class StepMetrics:
    """The figures of one step of the optimizer."""

    step: int
    """Counted from 1 over the whole run."""
    epoch: int
    progress: float
    """How much of the run is done, 0 to 1."""
    loss: float
    """Nats per token in training, with dropout."""
    learning_rate: float
    tokens_per_second: float
    """Over the epoch so far."""


class Callback:
    """Override what you need. ``model`` has the weights of the moment from ``epoch`` on, not within one.

    A plain function is a callback too: it is called as ``epoch`` is. Of several processes, only the first calls any. An
    exception ends the run; the model keeps its best weights.
    """

    def on_train_begin(self, model: Any, history: History) -> None:
        """Training begins, or goes on where ``history`` has epochs already; ``history.settings`` are its settings."""

    def on_step_end(self, model: Any, step: StepMetrics) -> None:
        """One step is done."""

    def on_epoch_end(self, model: Any, epoch: EpochMetrics) -> None:
        """One epoch is done and validated."""

    def on_train_end(self, model: Any, history: History) -> None:
        """Training is over; ``model`` has the weights that it keeps."""


def as_callback(given: Any) -> Callback:
    """A callback, or a plain function as one. Raises OptionError for anything else."""
    if isinstance(given, Callback):
        return given
    if isinstance(given, type) or not callable(given):
        raise OptionError(f"callbacks must be functions of (model, epoch) or revgen.Callback objects, not {given!r}")
    callback = Callback()
    callback.on_epoch_end = given  # type: ignore[method-assign]
    return callback


class TensorBoard(Callback):
    """Figures for TensorBoard (the extra ``tensorboard``) in ``directory``: loss and rate every ``every`` steps, and
    for each epoch validation, speed and the sample."""

    @checked
    def __init__(self, directory: str | Path, every: int = 10) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise MissingExtraError("TensorBoard needs the package: pip install 'revgen[tensorboard]'") from None
        self.every = every
        self.writer: Any = SummaryWriter(str(directory))

    def on_step_end(self, model: Any, step: StepMetrics) -> None:
        if step.step % self.every == 0:
            for name, value in (("loss/training", step.loss), ("learning rate", step.learning_rate)):
                self.writer.add_scalar(name, value, step.step)

    def on_epoch_end(self, model: Any, epoch: EpochMetrics) -> None:
        for name, value in figures(epoch).items():
            self.writer.add_scalar(f"epoch/{name}", value, epoch.epoch)
        self.writer.add_text("sample", epoch.sample, epoch.epoch)
        self.writer.flush()

    def on_train_end(self, model: Any, history: History) -> None:
        self.writer.close()


class WandB(Callback):
    """Figures for Weights & Biases (the extra ``wandb``): loss and rate every ``every`` steps, and for each epoch
    validation, speed and the sample. ``options`` are those of ``wandb.init``: ``project``, ``name``, ``mode``, …"""

    @checked
    def __init__(self, every: int = 10, **options: Any) -> None:
        try:
            import wandb
        except ImportError:
            raise MissingExtraError("Weights & Biases needs the package: pip install 'revgen[wandb]'") from None
        self.every = every
        self.options = options
        self.wandb: Any = wandb

    def on_train_begin(self, model: Any, history: History) -> None:
        self.run = self.wandb.init(config={"model": model.name, **history.settings}, **self.options)

    def on_step_end(self, model: Any, step: StepMetrics) -> None:
        if step.step % self.every == 0:
            self.run.log({"loss": step.loss, "learning_rate": step.learning_rate, "step": step.step})

    def on_epoch_end(self, model: Any, epoch: EpochMetrics) -> None:
        self.run.log({f"epoch/{name}": value for name, value in figures(epoch).items()} | {"sample": epoch.sample})

    def on_train_end(self, model: Any, history: History) -> None:
        self.run.finish()


def figures(epoch: EpochMetrics) -> dict[str, float]:
    """The numbers of an epoch that there are."""
    names = ("train_loss", "nats_per_char", "bits_per_char", "perplexity", "tokens_per_second", "seconds")
    return {name: value for name in names if (value := getattr(epoch, name)) is not None}
