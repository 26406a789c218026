"""The training loop: truncated backpropagation through time over a stream of documents.

Each step reads one chunk of every row, starts from the state behind the chunk before, and does not reach
back into it. Training goes on from the last good weights where the loss leaves them, and ends with the best.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from revgen.corpus import Corpus
from revgen.corpus.batches import Batches
from revgen.corpus.tokens import Tokens, tokenize_parts
from revgen.errors import OptionError, TrainingError
from revgen.evaluation.likelihood import Evaluation, logprobs, measure
from revgen.networks.network import network_forward
from revgen.networks.neural import NeuralModel
from revgen.ops import map_state
from revgen.training.averaging import Average
from revgen.training.checkpoint import Checkpoint
from revgen.training.history import Epoch, History
from revgen.training.progress import Progress
from revgen.training.recipe import Recipe, one_cycle

ROLLBACKS = 3
SNAPSHOT = 200
"""Steps between two looks at whether the weights are worth returning to."""
SAMPLE_TOKENS = 80

Callback = Callable[[Any, Epoch], None]


def fit(
    model: NeuralModel,
    texts: Corpus,
    valid: Corpus | float | None,
    recipe: Recipe,
    *,
    extend_vocabulary: bool,
    checkpoint: str | Path | None,
    resume: bool,
    callbacks: Sequence[Callback],
    progress: bool,
    sample: str,
) -> History:
    """See ``NeuralModel.fit``. The model is not touched before all text is read."""
    if resume and checkpoint is None:
        raise OptionError("resume needs the directory to go on from: checkpoint=…")
    tokenizer = model.tokenizer_for(texts, extend_vocabulary, progress)
    labels = tuple(dict.fromkeys([*model.labels, *texts.label_names()])) if model.takes_labels else ()
    train, held_out = tokenize_parts(texts, valid, tokenizer, recipe.seed, labels, progress)
    recipe = recipe.settled(len(train), model.learning_rate, model.fitted)
    make_batches(train, recipe, 0)  # raises where the text is too short

    with torch.random.fork_rng():
        torch.manual_seed(recipe.seed)
        model.prepare(tokenizer, recipe.seed, labels)
        training = Training(model, train, held_out, recipe, progress)
        training.callbacks = callbacks
        training.sample = sample
        if checkpoint is not None:
            training.checkpoint = Checkpoint(Path(checkpoint))
            if resume:
                training.checkpoint.restore(training)
        with flushed_denormals():
            return training.run()


@contextmanager
def flushed_denormals() -> Iterator[None]:
    """Within, numbers too small to be normal are zero: memories that fade away, as those of ReLU cells do, pass through
    them, and a processor computes with them several times as slowly."""
    already = float(torch.tensor(1e-39) * 1) == 0
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(already)


def make_batches(tokens: Tokens, recipe: Recipe, epoch: int) -> Batches:
    """The batches of one epoch by a settled recipe."""
    assert recipe.batch_size is not None
    return Batches(tokens, recipe.batch_size, recipe.sequence_length, recipe.seed, epoch)


class Training:
    """The state of one run: the network, its optimizer, and the weights to return to."""

    callbacks: Sequence[Callback] = ()
    sample = ""
    checkpoint: Checkpoint | None = None

    def __init__(self, model: NeuralModel, train: Tokens, valid: Tokens | None, recipe: Recipe, progress: bool) -> None:
        self.model = model
        self.train = train
        self.valid = valid
        self.recipe = recipe
        self.network = model.make_network().to(model.device)
        self.weights = list(self.network.values)
        self.rate = recipe.learning_rate or 0.0  # halved at each return to earlier weights
        self.optimizer = self._make_optimizer()
        self.history = History(settings=dataclasses.asdict(recipe) | {"tokens": len(train), "device": model.device})
        self.epochs_done = 0
        self.earlier_seconds = 0.0  # of the run that this one resumes
        self.rollbacks = 0
        self.steps = 0
        self.loss: float | None = None  # smoothed over some 20 steps
        self.lowest = math.inf
        self.good = self._copy()
        self.best: list[Tensor] | None = None
        self.average = Average(self.weights, recipe.averaging)
        self.progress = Progress(progress)
        self.began = time.perf_counter()
        self.validation_seconds = 0.0

    def run(self) -> History:
        """Train to the end of the recipe, an early stop or an interruption; the model gets the best weights."""
        self.began = time.perf_counter()
        try:
            while self._share(self.epochs_done) < 1 and not self._no_longer_improves():
                self._epoch()
        except KeyboardInterrupt:
            some = "the best weights so far are kept"
            self._note(f"interrupted: {some if self.history.epochs else 'no epoch is complete, little is learnt'}")
        finally:
            self.progress.close()
            last = self.average.mean or self._copy()
            self._put(self.best or (self.good if self.rollbacks > ROLLBACKS else last))
            self.model.weights = self.network.arrays()
            self._describe()
        return self.history

    @property
    def seconds(self) -> float:
        """Since the start of training, that of the run before among them."""
        return self.earlier_seconds + time.perf_counter() - self.began

    def _epoch(self) -> None:
        batches = make_batches(self.train, self.recipe, self.epochs_done)
        self.network.train()
        state: Any = None
        total, tokens, began = 0.0, 0, time.perf_counter()
        for i, (inputs, targets) in enumerate(batches):
            share = self._share(self.epochs_done + i / len(batches))
            if share >= 1:
                break
            loss, state = self._step(torch.from_numpy(inputs), torch.from_numpy(targets), state, share)
            if not self._watch(loss):
                state = None
                continue
            self.average.add(share)
            total += loss * targets.size
            tokens += targets.size
            self.progress.step(share, self.loss or loss, tokens / (time.perf_counter() - began))
        if tokens:
            self.epochs_done += 1
            self._end_epoch(total / tokens, tokens / (time.perf_counter() - began))

    def _step(self, inputs: Tensor, targets: Tensor, state: Any, share: float) -> tuple[float, Any]:
        """One step of the optimizer on one chunk, (time, batch): the loss in nats per token, and the state behind it.

        What follows a document's end is its neighbour's start, which is nothing to learn.
        """
        start = self.model.tokenizer.start
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate * one_cycle(share)
        inputs, targets = inputs.to(self.model.device), targets.to(self.model.device)
        logits, state = self.network(inputs, state)
        loss = cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), ignore_index=start, reduction="sum")
        loss = loss / (targets != start).sum().clamp(min=1)
        self.optimizer.zero_grad()
        (loss + self.network.penalty).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.weights, self.recipe.clip)
        self.optimizer.step()
        return loss.item(), map_state(lambda array: array.detach(), state)

    def _watch(self, loss: float) -> bool:
        """Whether training goes well; where the loss is lost, return to the last good weights."""
        if math.isfinite(loss):
            self.loss = loss if self.loss is None else 0.95 * self.loss + 0.05 * loss
            if self.loss <= self.lowest + max(1.0, self.lowest):
                self.lowest = min(self.lowest, self.loss)
                self.steps += 1
                if self.steps % SNAPSHOT == 0 and self.loss < 1.1 * self.lowest:
                    self.good = self._copy()
                return True
        self.rollbacks += 1
        if self.rollbacks > ROLLBACKS:
            raise TrainingError(
                f"the loss diverged {self.rollbacks} times, the last time at a peak learning rate of {self.rate:g}; "
                "the model keeps the last good weights. Try a smaller learning_rate"
            )
        self.rate /= 2
        self._note(
            f"the loss diverged in epoch {self.epochs_done + 1}: back to the last good weights, "
            f"with a peak learning rate of {self.rate:g}"
        )
        self._put(self.good)
        self.average.clear()
        self.optimizer = self._make_optimizer()
        self.loss = None
        return False

    def _end_epoch(self, train_loss: float, tokens_per_second: float) -> None:
        """Validate, compare, show, and keep."""
        began = time.perf_counter()
        with self.average.in_place():
            evaluation = self._validate()
            candidate = self._copy()
            self.model.weights = self.network.arrays()
        figures = {}
        if evaluation is not None:
            figures = {name: getattr(evaluation, name) for name in ("nats_per_char", "bits_per_char", "perplexity")}
        earlier = self.history.best
        is_best = evaluation is None or (
            math.isfinite(evaluation.nats_per_char)
            and (earlier is None or evaluation.nats_per_char < (earlier.nats_per_char or math.inf))
        )
        if is_best and evaluation is not None:
            self.best = candidate
        text = self.model.generate(self.sample, max_tokens=SAMPLE_TOKENS, seed=self.recipe.seed)
        self.validation_seconds = time.perf_counter() - began
        epoch = Epoch(
            self.epochs_done,
            train_loss,
            self.optimizer.param_groups[0]["lr"],
            tokens_per_second,
            self.seconds,
            **figures,
            best=is_best,
            sample=text,
        )
        self.history.epochs.append(epoch)
        self.progress.epoch(epoch)
        for callback in self.callbacks:
            callback(self.model, epoch)
        if self.checkpoint is not None:
            self.checkpoint.save(self)

    def _validate(self) -> Evaluation | None:
        if self.valid is None:
            return None
        given = partial(logprobs, network_forward(self.network.eval()), lambda batch: None)
        return measure(given, self.model.tokenizer, self.valid.documents())

    def _share(self, epochs: float) -> float:
        """How much of the run is done after so many epochs, 0 to 1: by epochs or by seconds, whichever is more."""
        share = epochs / self.recipe.planned_epochs
        if self.recipe.max_seconds is not None:
            share = max(share, self.seconds / max(self.recipe.max_seconds - self.validation_seconds, 1e-9))
        return share

    def _no_longer_improves(self) -> bool:
        patience, best = self.recipe.patience, self.history.best
        if patience is None or self.valid is None or best is None or self.epochs_done - best.epoch < patience:
            return False
        self._note(f"stopped early: no better epoch than {best.epoch} among the last {patience}")
        return True

    def _make_optimizer(self) -> torch.optim.Optimizer:
        """AdamW (Loshchilov & Hutter 2019); the matrices decay, but for those that stand for tokens."""
        decayed: list[Tensor] = []
        others: list[Tensor] = []
        for name, weight in self.network.named_weights().items():
            (decayed if weight.ndim > 1 and name not in ("embedding", "labels", "head") else others).append(weight)
        groups = [
            {"params": decayed, "weight_decay": self.recipe.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ]
        return torch.optim.AdamW(groups, lr=self.rate, betas=(0.9, 0.99), fused=True)

    def _copy(self) -> list[Tensor]:
        return [weight.detach().clone() for weight in self.weights]

    def _put(self, weights: list[Tensor]) -> None:
        with torch.no_grad():
            for weight, value in zip(self.weights, weights, strict=True):
                weight.copy_(value)

    def _note(self, note: str) -> None:
        self.history.notes.append(note)
        self.progress.say(note)

    def _describe(self) -> None:
        """What the model tells of its training."""
        metadata, best = self.model.metadata, self.history.best
        metadata["training"] = self.history.settings | {
            "epochs": self.epochs_done,
            "seconds": round(self.seconds, 1),
            "notes": self.history.notes,
        }
        if best is not None and best.nats_per_char is not None:
            metadata["evaluation"] = {"nats_per_char": best.nats_per_char, "bits_per_char": best.bits_per_char}
