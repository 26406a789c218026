"""The training loop: truncated backpropagation through time over a stream of documents.

Each step reads one chunk of every row of the stream. It starts from the state after the previous chunk, but gradients
do not reach back into that chunk. If the loss diverges, training returns to the last good weights; at the end, the
model gets the best weights.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from time import perf_counter
from typing import Literal, NoReturn

import torch
from torch import Tensor

from revgen.corpus.tokens import Tokens
from revgen.errors import TrainingError
from revgen.evaluation.likelihood import Evaluation, measure
from revgen.history import EpochMetrics, History
from revgen.networks.network import network_forward
from revgen.options import unwrap_scalar
from revgen.sequences import score_sequences
from revgen.training.callbacks import Callback, StepMetrics
from revgen.training.checkpoint import Checkpointer
from revgen.training.device import to_device
from revgen.training.progress import Progress
from revgen.training.recipe import one_cycle
from revgen.training.run import EpochProgress, TrainingRun, make_batches

MAX_ROLLBACKS = 3
"""How often training returns to the last good weights before it fails."""
MAX_WEIGHT = 1e10
"""Training has failed if a weight is larger in magnitude: most logits would not be finite numbers."""
OVERFITTING_RATIO = 1.02
"""A model has overfitted if the last validation loss is more than this many times the lowest one."""
SAMPLE_TOKENS = 80
"""The maximum length of the sample that is generated after each epoch."""


class Trainer:
    """The loop over epochs and steps. It checks the losses, validates, calls callbacks and saves checkpoints."""

    def __init__(
        self,
        run: TrainingRun,
        valid: Tokens | None,
        callbacks: Sequence[Callback],
        checkpointer: Checkpointer | None,
        progress: Progress,
        sample_prompt: str,
    ) -> None:
        self.run = run
        self.model = run.model
        self.recipe = run.recipe
        self.ranks = run.ranks
        self.history = run.history
        self.valid = valid
        self.callbacks = list(callbacks) if run.ranks.is_first else []
        self.has_callbacks = bool(callbacks)
        """Whether the first process has callbacks."""
        self.has_failed = False
        self.stop_requested = False
        """Whether a callback has returned True."""
        self.checkpointer = checkpointer
        self.progress = progress
        self.sample_prompt = sample_prompt
        self.validation_seconds = 0.0
        """The duration of the last validation. As much of the time budget is reserved for the final one."""

    def train(self) -> History:
        """Train to the end of the recipe, an early stop or Ctrl-C, and give the model the best weights."""
        self.run.start_clock()
        for callback in self.callbacks:
            callback.on_train_begin(self.model, self.history)
        try:
            while self._fraction_done(self.run.epochs_done) < 1 and not self._stops_early():
                self._train_epoch()
                if self.stop_requested:
                    self.add_note(f"a callback stopped training in epoch {self.run.epochs_done}")
                    break
        except KeyboardInterrupt:
            self.history.is_interrupted = True
            self.add_note(self._interruption_note())
        finally:
            self.progress.close()
            self.run.load_weights(self._final_weights())
            self.model.weights = self.run.network.to_numpy()
            self._update_metadata()
        if (note := self._overfitting_note()) is not None:
            self.add_note(note)
        for callback in self.callbacks:
            callback.on_train_end(self.model, self.history)
        return self.history

    def add_note(self, note: str) -> None:
        """Add a note to the history, and print it."""
        self.history.notes.append(note)
        self.progress.say(note)

    def _call_callbacks(
        self, method: Literal["on_step_end", "on_epoch_end"], *metrics: StepMetrics | EpochMetrics
    ) -> None:
        """Call the callbacks in the first process, and note in all processes whether one of them returns True."""
        for item in metrics:
            for callback in self.callbacks:
                if unwrap_scalar(getattr(callback, method)(self.model, item)) is True:
                    self.stop_requested = True
        if self.has_callbacks:
            self.stop_requested = self.ranks.broadcast(self.stop_requested)

    # Steps

    def _train_epoch(self) -> None:
        """Train on the remaining chunks of the current epoch, or until the run ends."""
        run, batches = self.run, make_batches(self.run.tokens, self.recipe, self.run.epochs_done)
        run.network.train()
        start = perf_counter() - run.current_epoch.seconds
        unread: list[tuple[Tensor, int]] = []  # losses that are still on the device, with their numbers of tokens
        fraction = 0.0
        for inputs, targets in to_device(batches.chunks(run.current_epoch.chunk), self.model.device):
            fraction = self._fraction_done(run.epochs_done + run.current_epoch.chunk / len(batches))
            if fraction >= 1 or self.stop_requested:
                break
            loss = run.step(inputs, targets, run.peak_rate * one_cycle(fraction))
            unread.append((loss, targets.numel()))
            run.average.add(fraction)
            run.current_epoch.chunk += 1
            if run.current_epoch.chunk % run.sync_every == 0:
                self._log_losses(unread, fraction, start)
                unread = []
                if self.checkpointer is not None and self.checkpointer.is_due(run):
                    self.checkpointer.save(run)
        if unread:
            self._log_losses(unread, fraction, start)
        finished = run.current_epoch
        run.current_epoch, run.states = EpochProgress(), run.initial_states()
        if finished.tokens:
            run.epochs_done += 1
            if not all(bool((param.abs() < MAX_WEIGHT).all()) for param in run.params):
                self._fail(f"the weights have grown beyond {MAX_WEIGHT:g} in epoch {run.epochs_done}")
            self._finish_epoch(finished.loss / finished.tokens, finished.tokens / finished.seconds)

    def _log_losses(self, unread: list[tuple[Tensor, int]], fraction: float, start: float) -> None:
        """Read the losses of the latest steps, and log them. If training has diverged, recover instead."""
        run, epoch = self.run, self.run.current_epoch
        run.sync_clock()
        losses = self.ranks.all_reduce(torch.stack([loss for loss, _ in unread])).tolist()
        epoch.seconds = perf_counter() - start
        steps, has_diverged = [], False
        for loss, (_, tokens) in zip(losses, unread, strict=True):
            if has_diverged := not run.record_loss(loss):
                break
            epoch.loss += loss * tokens
            epoch.tokens += tokens
            speed = epoch.tokens / epoch.seconds
            self.progress.on_step_end(fraction, run.smoothed_loss or loss, speed)
            steps.append(StepMetrics(run.steps, run.epochs_done + 1, fraction, loss, run.learning_rate, speed))
        self._call_callbacks("on_step_end", *steps)
        if has_diverged:
            self._recover()

    def _recover(self) -> None:
        """Return to the last good weights. Raises TrainingError if this has happened ``MAX_ROLLBACKS`` times before."""
        run = self.run
        run.num_rollbacks += 1
        if run.num_rollbacks > MAX_ROLLBACKS:
            self._fail(f"the loss diverged {run.num_rollbacks} times, most recently")
        run.roll_back()
        run.states = run.initial_states()
        self.add_note(
            f"the loss diverged in epoch {run.epochs_done + 1}: training continues from the last good weights with "
            f"half the learning rate, a peak of {run.peak_rate:g}"
        )

    def _fail(self, reason: str) -> NoReturn:
        """Raise TrainingError; the model gets the last good weights."""
        self.has_failed = True
        message = (
            f"{reason} at a peak learning rate of {self.run.peak_rate:g}. The model keeps the last good weights. Train "
            "again with a smaller learning_rate"
        )
        raise TrainingError(f"{message}; model.find_lr(texts) suggests one", command=message)

    # Epochs

    def _finish_epoch(self, train_loss: float, tokens_per_second: float) -> None:
        """Validate, keep the weights if they are the best, generate a sample, and report the metrics."""
        run = self.run
        run.sync_clock()
        start = run.seconds
        with run.average.applied():
            evaluation = self.ranks.broadcast(self._validate() if self.ranks.is_first else None)
            weights = run.copy_weights()
            self.model.weights = run.network.to_numpy()
        is_best = self._is_best(evaluation)
        if is_best and evaluation is not None:
            run.best_weights = weights
        sample = ""
        if self.ranks.is_first:
            sample = self.model.generate(self.sample_prompt, max_tokens=SAMPLE_TOKENS, seed=self.recipe.seed)
        run.sync_clock()
        self.validation_seconds = run.seconds - start
        metrics = EpochMetrics(
            run.epochs_done,
            train_loss,
            run.learning_rate,
            tokens_per_second,
            run.seconds,
            **(evaluation.metrics() if evaluation is not None else {}),
            best=is_best,
            sample=sample,
        )
        self.history.epochs.append(metrics)
        self.progress.on_epoch_end(metrics)
        self._call_callbacks("on_epoch_end", metrics)
        if self.checkpointer is not None:
            self.checkpointer.save(run)

    def _validate(self) -> Evaluation | None:
        if self.valid is None:
            return None
        logprobs = partial(score_sequences, network_forward(self.run.network), lambda batch: None)
        with self.run.network.validation():
            return measure(logprobs, self.model.tokenizer, self.valid.documents())

    def _is_best(self, evaluation: Evaluation | None) -> bool:
        """Return whether no earlier epoch had a lower validation loss; without validation, the last epoch is best."""
        if evaluation is None:
            return True
        best = self.history.best
        lowest = math.inf if best is None or best.nats_per_char is None else best.nats_per_char
        return evaluation.nats_per_char < lowest

    # The end of training

    def _fraction_done(self, epochs: float) -> float:
        """Return the fraction of the run that is done after ``epochs`` epochs; at 1 or more, the run ends.

        If the recipe has several limits, the largest fraction counts.
        """
        fraction = epochs / self.recipe.planned_epochs(len(self.run.tokens))
        if self.recipe.max_seconds is not None:
            seconds_before_last_validation = max(self.recipe.max_seconds - self.validation_seconds, 1e-9)
            fraction = max(fraction, self.run.seconds / seconds_before_last_validation)
        return fraction

    def _stops_early(self) -> bool:
        """Return whether validation has not improved for ``patience`` epochs; if so, add a note."""
        patience, best = self.recipe.patience, self.history.best
        if patience is None or self.valid is None or best is None or self.run.epochs_done - best.epoch < patience:
            return False
        self.add_note(f"stopped early: validation has not improved in the {patience} epochs after epoch {best.epoch}")
        return True

    def _final_weights(self) -> list[Tensor]:
        """Return the weights of the best epoch; without validation, the averaged weights or the last good ones."""
        run = self.run
        if run.best_weights is not None:
            return run.best_weights
        if self.has_failed:
            return run.snapshot
        return run.average.mean or run.copy_weights()

    def _interruption_note(self) -> str:
        epochs, best = self.run.epochs_done, self.history.best
        if epochs == 0:
            return "interrupted in the first epoch: the model keeps its current weights, which are hardly trained"
        validated = best is not None and best.nats_per_char is not None
        weights = f"the weights of epoch {best.epoch}, the best so far" if best and validated else "its current weights"
        return f"interrupted after {epochs} {'epoch' if epochs == 1 else 'epochs'}: the model keeps {weights}"

    def _overfitting_note(self) -> str | None:
        best, last = self.history.best, self.history.epochs[-1] if self.history.epochs else None
        if best is None or last is None or best.nats_per_char is None or last.nats_per_char is None:
            return None
        if last.nats_per_char <= OVERFITTING_RATIO * best.nats_per_char or last.train_loss >= best.train_loss:
            return None
        return (
            f"the model is overfitting: after epoch {best.epoch}, the training loss keeps falling (from "
            f"{best.train_loss:.3f} to {last.train_loss:.3f} nats/token), but the validation loss rises (from "
            f"{best.nats_per_char:.3f} to {last.nats_per_char:.3f} nats/char). The model keeps the weights of epoch "
            f"{best.epoch}. More text, more dropout, a smaller network or fewer epochs help against overfitting"
        )

    def _update_metadata(self) -> None:
        """Describe the training in the model's metadata."""
        metadata, best = self.model.metadata, self.history.best
        metadata["training"] = self.history.settings | {
            "epochs": self.run.epochs_done,
            "seconds": round(self.run.seconds, 1),
            "notes": self.history.notes,
        }
        if best is not None and best.nats_per_char is not None:
            metadata["evaluation"] = {"nats_per_char": best.nats_per_char, "bits_per_char": best.bits_per_char}
