"""The training loop: truncated backpropagation through time over a stream of documents.

Each step reads one chunk of every row, starts from the state behind the chunk before, and does not reach
back into it. Training goes on from the last good weights where the loss leaves them, and ends with the best.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from revgen.architectures.neural import NeuralModel
from revgen.arguments import check_type
from revgen.corpus import Corpus
from revgen.corpus.batches import Batches
from revgen.corpus.summary import summarize
from revgen.corpus.tokens import Tokens, tokenize_train_valid
from revgen.errors import OptionError, RevgenError, TrainingError
from revgen.evaluation.likelihood import Evaluation, measure
from revgen.history import EpochMetrics, History
from revgen.model import score_sequences
from revgen.networks.network import network_forward
from revgen.networks.recorded import CudaGraphCache
from revgen.ops import tree_map
from revgen.options import as_float, at_least
from revgen.training.averaging import Average
from revgen.training.callbacks import Callback, StepMetrics, as_callback
from revgen.training.checkpoint import CheckpointConfig
from revgen.training.cpu import flush_denormals, keep_freed_memory
from revgen.training.device import fork_generator, get_random_states, set_random_states, to_device
from revgen.training.progress import Progress
from revgen.training.ranks import SINGLE_PROCESS, Ranks, init_distributed
from revgen.training.recipe import Recipe, one_cycle

ROLLBACKS = 3
SNAPSHOT = 200
"""Steps between two looks at whether the weights are worth returning to."""
SYNC_EVERY = 10
"""Steps after which the losses are looked at where a look has a price: a wait for the GPU, or for other processes."""
OVERFITTING_MARGIN = 1.02
"""How much worse than the best the last epoch is where a model has overfitted."""
SAMPLE_TOKENS = 80


def fit(
    model: NeuralModel,
    texts: Corpus,
    valid: Corpus | float | None,
    recipe: Recipe,
    *,
    extend_vocabulary: bool,
    gradient_accumulation_steps: int,
    checkpoint: str | Path | CheckpointConfig | None,
    resume: bool,
    callbacks: Sequence[Any],
    progress: bool,
    sample_prompt: str,
) -> History:
    """See ``NeuralModel.fit``. The model is not touched before all text is read."""
    if resume and checkpoint is None:
        raise OptionError("resume needs the directory to continue from: checkpoint=…")
    at_least("gradient_accumulation_steps", gradient_accumulation_steps, 1)
    check_type("checkpoint", checkpoint, str | Path | CheckpointConfig | None)
    checkpoints = CheckpointConfig(checkpoint) if isinstance(checkpoint, str | Path) else checkpoint
    ranks = init_distributed(model.device)
    shown = progress and ranks.first
    with ranks.rank_zero_first():
        tokenizer = model.tokenizer_for(texts, extend_vocabulary, shown)
        labels = model.labels_for(texts)
        train, held_out = tokenize_train_valid(texts, valid, tokenizer, recipe.seed, labels, shown)
    summary = summarize(texts, train, None if isinstance(valid, Corpus) else held_out, tokenizer)
    parts = ranks.size * gradient_accumulation_steps
    earlier = checkpoints.earlier() if checkpoints is not None and resume else {}
    fitted = bool(earlier.get("fine_tunes", model.is_fitted))
    recipe = recipe.resumed(earlier).resolve(len(train), model.learning_rate, fitted, model.device, parts)
    make_batches(train, recipe, 0)  # raises where the text is too short

    with torch.random.fork_rng():
        torch.manual_seed(recipe.seed)
        sizes = recipe.suggest_sizes(len(train), model.device, earlier.get("configuration"))
        model.prepare(tokenizer, recipe.seed, labels, sizes)
        training = Trainer(model, train, held_out, recipe, shown, ranks, gradient_accumulation_steps)
        training.callbacks = [as_callback(callback) for callback in callbacks]
        training.sample_prompt = sample_prompt
        training.fine_tunes = fitted
        training.progress.say(str(summary))
        if checkpoints is not None:
            checkpoints.begin(training, resume)
        if summary.note is not None and summary.note not in training.history.notes:
            training._add_note(summary.note)
        model.metadata["spelled"] = max(round(summary.spelled, 6), as_float(model.metadata.get("spelled", 0)))
        with flush_denormals(), keep_freed_memory(), share_seed(ranks):
            return training.run()


@contextmanager
def share_seed(ranks: Ranks) -> Iterator[None]:
    """Where one of several processes cannot go on, often as another is gone, it says so and does not wait."""
    try:
        yield
    except RuntimeError as error:
        if ranks.size == 1 or isinstance(error, RevgenError):
            raise
        reason = str(error).strip().splitlines()[0]
        raise TrainingError(f"process {ranks.rank} of {ranks.size} cannot go on: {reason}") from error


def make_batches(tokens: Tokens, recipe: Recipe, epoch: int) -> Batches:
    """The batches of one epoch by a settled recipe."""
    assert recipe.batch_size is not None
    return Batches(tokens, recipe.batch_size, recipe.sequence_length, recipe.seed, epoch)


@dataclass
class Cursor:
    """How far an epoch is."""

    chunk: int = 0
    """The next chunk of the epoch's batches."""
    loss: float = 0.0
    """Summed over ``tokens``."""
    tokens: int = 0
    seconds: float = 0.0


class Trainer:
    """The state of one run: the network, its optimizer, and the weights to return to."""

    callbacks: Sequence[Callback] = ()
    sample_prompt = ""
    fine_tunes = False
    checkpoints: CheckpointConfig | None = None

    def __init__(
        self,
        model: NeuralModel,
        train: Tokens,
        valid: Tokens | None,
        recipe: Recipe,
        progress: bool,
        ranks: Ranks = SINGLE_PROCESS,
        accumulate: int = 1,
    ) -> None:
        self.model = model
        self.train = train
        self.valid = valid
        self.recipe = recipe
        self.ranks = ranks
        self.accumulate = accumulate
        self.parts = ranks.size * accumulate  # of each batch, some of its rows each
        self.network = model.make_network().to(model.device)
        self.network.generator = fork_generator(self.network, model.device, recipe.seed)
        self.wrapped = ranks.wrap(self.network)
        self.weights = list(self.network.params)
        self.rate = recipe.learning_rate or 0.0  # halved at each return to earlier weights
        self.step_rate = self.rate
        self._start_optimizer()
        settings = {"tokens": len(train), "device": model.device, "processes": ranks.size, "accumulate": accumulate}
        self.history = History(settings=dataclasses.asdict(recipe) | settings)
        self.epochs_done = 0
        self.cursor = Cursor()
        self.states: list[Any] = [None] * accumulate  # behind the last chunk, of each part that is this process's
        self.earlier_seconds = 0.0  # of the run that this one resumes
        self.rollbacks = 0
        self.steps = 0
        self.look = 1 if ranks.size == 1 and model.device == "cpu" else SYNC_EVERY
        self.loss: float | None = None  # smoothed over some 20 steps
        self.lowest = math.inf
        self.good = self._copy()
        self.best: list[Tensor] | None = None
        self.average = Average(self.weights, recipe.weight_averaging)
        self.progress = Progress(progress)
        self.began = time.perf_counter()
        self.agreed_seconds = 0.0
        self.validation_seconds = 0.0

    def run(self) -> History:
        """Train to the end of the recipe, an early stop or an interruption; the model gets the best weights."""
        self.began = time.perf_counter()
        for callback in self._callbacks():
            callback.on_train_begin(self.model, self.history)
        try:
            while self._fraction_done(self.epochs_done) < 1 and not self._no_longer_improves():
                self._epoch()
        except KeyboardInterrupt:
            some = "the best weights so far are kept"
            self._add_note(f"interrupted: {some if self.history.epochs else 'no epoch is complete, little is learnt'}")
        finally:
            self.progress.close()
            last = self.average.mean or self._copy()
            self._load_weights(self.best or (self.good if self.rollbacks > ROLLBACKS else last))
            self.model.weights = self.network.to_numpy()
            self._describe()
        self._warn_of_overfitting()
        for callback in self._callbacks():
            callback.on_train_end(self.model, self.history)
        return self.history

    @property
    def seconds(self) -> float:
        """Since the start of training, that of the run before among them; of several processes, those of the first."""
        if self.ranks.size > 1:
            return self.agreed_seconds
        return self.earlier_seconds + time.perf_counter() - self.began

    def _sync_clock(self) -> None:
        if self.ranks.size > 1:
            self.agreed_seconds = self.ranks.broadcast(self.earlier_seconds + time.perf_counter() - self.began)

    def _epoch(self) -> None:
        batches = make_batches(self.train, self.recipe, self.epochs_done)
        self.network.train()
        began = time.perf_counter() - self.cursor.seconds
        waiting: list[tuple[Tensor, int]] = []
        share = 0.0
        for inputs, targets in to_device(batches.chunks(self.cursor.chunk), self.model.device):
            share = self._fraction_done(self.epochs_done + self.cursor.chunk / len(batches))
            if share >= 1:
                break
            waiting.append((self._step(inputs, targets, self.rate * one_cycle(share)), targets.numel()))
            self.average.add(share)
            self.cursor.chunk += 1
            if self.cursor.chunk % self.look == 0:
                self._log_losses(waiting, share, began)
                waiting = []
                if self.checkpoints is not None and self.checkpoints.is_due(self):
                    self.checkpoints.save(self)
        if waiting:
            self._log_losses(waiting, share, began)
        done, self.cursor, self.states = self.cursor, Cursor(), [None] * self.accumulate
        if done.tokens:
            self.epochs_done += 1
            self._end_epoch(done.loss / done.tokens, done.tokens / done.seconds)

    def _step(self, inputs: Tensor, targets: Tensor, rate: float) -> Tensor:
        """One step of the optimizer on one chunk, (time, batch): what its own rows add to the loss, nats per token."""
        self.step_rate = rate
        for group in self.optimizer.param_groups:
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate
        loss, self.states = self.update(inputs, targets, self.states)
        return loss

    def _update(self, inputs: Tensor, targets: Tensor, states: list[Any]) -> tuple[Tensor, list[Any]]:
        """``_step`` for tensors: the loss, and the states behind the chunk.

        What follows a document's end is its neighbour's start, which is nothing to learn.
        """
        start, batch = self.model.tokenizer.bos_id, inputs.shape[1]
        predicted = (targets != start).sum().clamp(min=1)
        self.optimizer.zero_grad()
        random = get_random_states(self.model.device, self.network.generator) if self.parts > 1 else None
        losses, after = [], []
        for i, before in enumerate(states):
            if i and random is not None:
                set_random_states(
                    self.model.device, random, self.network.generator
                )  # all parts leave out the same channels
            part = self.ranks.rank * self.accumulate + i
            rows = slice(part * batch // self.parts, (part + 1) * batch // self.parts)
            self.network.batch_slice = part, self.parts
            with nullcontext() if i == self.accumulate - 1 else self.ranks.no_sync(self.wrapped):
                logits, state = self.wrapped(inputs[:, rows], before)
                wanted = targets[:, rows].flatten()
                loss = cross_entropy(logits.flatten(0, 1).float(), wanted, ignore_index=start, reduction="sum")
                loss = loss / predicted
                # The mean over processes is what comes of these gradients.
                (loss * self.ranks.size + self.network.penalty / self.accumulate).backward()  # type: ignore[no-untyped-call]
            after.append(tree_map(Tensor.detach, state))
            losses.append(loss.detach())
        torch.nn.utils.clip_grad_norm_(self.weights, self.recipe.clip)
        self.optimizer.step()
        return losses[0] if len(losses) == 1 else torch.stack(losses).sum(), after

    def _log_losses(self, waiting: list[tuple[Tensor, int]], share: float, began: float) -> None:
        """Look at the losses of the last steps, and count them in if all is well."""
        self._sync_clock()
        losses = self.ranks.all_reduce(torch.stack([loss for loss, _ in waiting])).tolist()
        cursor = self.cursor
        cursor.seconds = time.perf_counter() - began
        for loss, (_, tokens) in zip(losses, waiting, strict=True):
            if not self._check_divergence(loss):
                self.states = [None] * self.accumulate
                return
            cursor.loss += loss * tokens
            cursor.tokens += tokens
            speed = cursor.tokens / cursor.seconds
            self.progress.on_step_end(share, self.loss or loss, speed)
            for callback in self._callbacks():
                callback.on_step_end(
                    self.model, StepMetrics(self.steps, self.epochs_done + 1, share, loss, self.step_rate, speed)
                )

    def _check_divergence(self, loss: float) -> bool:
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
        self._add_note(
            f"the loss diverged in epoch {self.epochs_done + 1}: back to the last good weights, "
            f"with a peak learning rate of {self.rate:g}"
        )
        self._load_weights(self.good)
        self.average.clear()
        self._start_optimizer()
        self.loss = None
        return False

    def _end_epoch(self, train_loss: float, tokens_per_second: float) -> None:
        """Validate, compare, show, and keep."""
        self._sync_clock()
        began = self.seconds
        with self.average.in_place():
            evaluation = self.ranks.broadcast(self._validate() if self.ranks.first else None)
            candidate = self._copy()
            self.model.weights = self.network.to_numpy()
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
        text = ""
        if self.ranks.first:
            text = self.model.generate(self.sample_prompt, max_tokens=SAMPLE_TOKENS, seed=self.recipe.seed)
        self._sync_clock()
        self.validation_seconds = self.seconds - began
        epoch = EpochMetrics(
            self.epochs_done,
            train_loss,
            self.step_rate,
            tokens_per_second,
            self.seconds,
            **figures,
            best=is_best,
            sample=text,
        )
        self.history.epochs.append(epoch)
        self.progress.on_epoch_end(epoch)
        for callback in self._callbacks():
            callback.on_epoch_end(self.model, epoch)
        if self.checkpoints is not None:
            self.checkpoints.save(self)

    def _callbacks(self) -> Sequence[Callback]:
        return self.callbacks if self.ranks.first else ()

    def _validate(self) -> Evaluation | None:
        if self.valid is None:
            return None
        given = partial(score_sequences, network_forward(self.network.eval()), lambda batch: None)
        return measure(given, self.model.tokenizer, self.valid.documents())

    def _fraction_done(self, epochs: float) -> float:
        """How much of the run is done after so many epochs, 0 to 1: by epochs or by seconds, whichever is more."""
        share = epochs / self.recipe.planned_epochs
        if self.recipe.max_seconds is not None:
            share = max(share, self.seconds / max(self.recipe.max_seconds - self.validation_seconds, 1e-9))
        return share

    def _no_longer_improves(self) -> bool:
        patience, best = self.recipe.patience, self.history.best
        if patience is None or self.valid is None or best is None or self.epochs_done - best.epoch < patience:
            return False
        self._add_note(f"stopped early: no better epoch than {best.epoch} among the last {patience}")
        return True

    def _warn_of_overfitting(self) -> None:
        best, last = self.history.best, self.history.epochs[-1] if self.history.epochs else None
        if best is None or last is None or best.nats_per_char is None or last.nats_per_char is None:
            return
        if last.nats_per_char > OVERFITTING_MARGIN * best.nats_per_char and last.train_loss < best.train_loss:
            self._add_note(
                f"the model overfits: behind epoch {best.epoch}, training loss falls from {best.train_loss:.3f} to "
                f"{last.train_loss:.3f} nats/token while validation rises from {best.nats_per_char:.3f} to "
                f"{last.nats_per_char:.3f} nats/char. More text, more dropout, a smaller network or fewer epochs help"
            )

    def _start_optimizer(self) -> None:
        """AdamW (Loshchilov & Hutter 2019); the matrices decay, but for those that stand for tokens.

        One GPU has its steps recorded.
        """
        decayed: list[Tensor] = []
        others: list[Tensor] = []
        for name, weight in self.network.named_weights().items():
            (decayed if weight.ndim > 1 and name not in ("embedding", "labels", "head") else others).append(weight)
        groups = [
            {"params": decayed, "weight_decay": self.recipe.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ]
        device = torch.device(self.model.device)
        on_gpu = device.type == "cuda"
        rate: Any = torch.tensor(self.rate, device=device) if on_gpu else self.rate
        self.optimizer = torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.99), fused=True, capturable=on_gpu)
        self.update = CudaGraphCache(self._update, device) if self.parts == 1 else self._update

    def _copy(self) -> list[Tensor]:
        return [weight.detach().clone() for weight in self.weights]

    def _load_weights(self, weights: list[Tensor]) -> None:
        with torch.no_grad():
            for weight, value in zip(self.weights, weights, strict=True):
                weight.copy_(value)

    def _add_note(self, note: str) -> None:
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
