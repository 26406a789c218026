"""The state of a training run, and one step of its optimizer.

Checkpoints save and restore a ``TrainingRun``; the loop and the learning-rate finder train with it.
"""

from __future__ import annotations

import dataclasses
import math
import time
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from revgen.corpus.batches import Batches
from revgen.corpus.tokens import Tokens
from revgen.history import History
from revgen.networks.cuda_graphs import CudaGraphCache
from revgen.networks.precision import bf16_matmul_is_fast
from revgen.ops import tree_map
from revgen.training.averaging import WeightAverage
from revgen.training.device import fork_generator, get_random_states, set_random_states
from revgen.training.muon import Muon
from revgen.training.ranks import SINGLE_PROCESS, Ranks
from revgen.training.recipe import Recipe
from revgen.training.trainable import TrainableModel

SNAPSHOT_EVERY = 200
"""The number of steps between snapshots of the weights, to which training returns if the loss diverges."""
SNAPSHOT_MAX_LOSS = 1.1
"""No snapshot is taken while the loss is higher than this many times the lowest loss so far."""
SYNC_EVERY = 10
"""On a GPU or with several processes, losses are read after this many steps, because a read makes the CPU wait."""
MIN_COMPILED_SECONDS, MIN_COMPILED_FLOP = 20.0, 2e11
"""Layers are compiled for a run of at least this many seconds, or floating-point operations in matrix products."""
SMOOTHING = 0.95
"""The weight of the earlier losses in the smoothed loss, an average over about 20 steps."""


def make_batches(tokens: Tokens, recipe: Recipe, epoch: int) -> Batches:
    """Return the batches of an epoch, counted from 0. Raises CorpusError if the text is shorter than a batch."""
    assert recipe.batch_size is not None
    return Batches(tokens, recipe.batch_size, recipe.sequence_length, recipe.seed, epoch)


@dataclass
class EpochProgress:
    """The position in the current epoch, and its totals so far."""

    chunk: int = 0
    """The index of the next chunk."""
    loss: float = 0.0
    """The sum of the loss over ``tokens`` tokens."""
    tokens: int = 0
    seconds: float = 0.0


class TrainingRun:
    """The network, its optimizer, the weights to return to, and the counters of one run.

    Each batch is split by rows into ``num_parts`` equal parts: ``gradient_accumulation_steps`` for each process.
    """

    def __init__(
        self,
        model: TrainableModel,
        tokens: Tokens,
        recipe: Recipe,
        ranks: Ranks = SINGLE_PROCESS,
        gradient_accumulation_steps: int = 1,
    ) -> None:
        self.model = model
        self.tokens = tokens
        self.recipe = recipe
        self.ranks = ranks
        self.gradient_accumulation_steps = gradient_accumulation_steps
        self.num_parts = ranks.size * gradient_accumulation_steps
        self.network = model.training_network().to(model.device)
        is_fast = ranks.is_first and bf16_matmul_is_fast(self.network.device)
        self.network.bf16_matmul = ranks.broadcast(is_fast)  # all processes round alike
        self.network.generator = fork_generator(self.network, model.device, recipe.seed)
        self.is_compiled = self._is_worth_compiling()
        self.parallel_network = ranks.wrap(self.network)
        self.params = list(self.network.params)
        self.peak_rate = recipe.learning_rate or 0.0  # halved each time the loss diverges
        self.learning_rate = self.peak_rate
        self.start_optimizer()
        self.history = History(settings=dataclasses.asdict(recipe) | self._settings())
        self.fine_tunes = False
        self.epochs_done = 0
        self.current_epoch = EpochProgress()
        self.states = self.initial_states()
        self.steps = 0
        self.sync_every = 1 if ranks.size == 1 and model.device == "cpu" else SYNC_EVERY
        self.smoothed_loss: float | None = None
        self.lowest_loss = math.inf
        self.num_rollbacks = 0
        self.snapshot = self.copy_weights()
        self.best_weights: list[Tensor] | None = None
        self.average = WeightAverage(self.params, recipe.weight_averaging)
        self.earlier_seconds = 0.0  # of training before the run was resumed
        self._synced_seconds = 0.0
        self.start_clock()

    def _settings(self) -> dict[str, Any]:
        return {
            "tokens": len(self.tokens),
            "device": self.model.device,
            "processes": self.ranks.size,
            "gradient_accumulation_steps": self.gradient_accumulation_steps,
        }

    def _is_worth_compiling(self) -> bool:
        """Return whether the run takes so long on a CPU that compiled layers save more time than their compilation."""
        if torch.device(self.model.device).type != "cpu":
            return False
        epochs = self.recipe.planned_epochs(len(self.tokens))
        if math.isinf(epochs):
            return (self.recipe.max_seconds or 0.0) >= MIN_COMPILED_SECONDS
        matrix_size = sum(weight.numel() for weight in self.network.params if weight.ndim > 1)
        return bool(6 * matrix_size * len(self.tokens) * epochs >= MIN_COMPILED_FLOP)

    # One step

    def step(self, inputs: Tensor, targets: Tensor, learning_rate: float) -> Tensor:
        """Take one step on a chunk, (time, batch), and return this process's part of the loss.

        The sum over all processes is the mean loss per predicted token, in nats.
        """
        self.learning_rate = learning_rate
        for group in (group for optimizer in self.optimizers for group in optimizer.param_groups):
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(learning_rate)
            else:
                group["lr"] = learning_rate
        loss, self.states = self._update(inputs, targets, self.states)
        return loss

    def initial_states(self) -> list[Any]:
        """Return the recurrent states at the start of an epoch, one for each part that this process computes."""
        return [None] * self.gradient_accumulation_steps

    def start_optimizer(self) -> None:
        """Create new optimizers: AdamW (Loshchilov & Hutter 2019), and Muon for the matrices if the recipe says so.

        Weight decay applies to the matrices of the layers. On a single GPU, whole steps are recorded as CUDA graphs.
        """
        decayed: list[Tensor] = []
        others: list[Tensor] = []
        matrices: dict[int, list[Tensor]] = {}  # by their number of blocks
        for name, weight in self.network.named_weights().items():
            if weight.ndim < 2 or name in ("embedding", "labels", "head") or name.startswith("heads."):
                others.append(weight)
            elif weight.ndim == 2 and self.recipe.optimizer == "muon":
                matrices.setdefault(self.network.definition.num_blocks(name), []).append(weight)
            else:
                decayed.append(weight)
        groups: list[dict[str, Any]] = [{"params": decayed}, {"params": others, "weight_decay": 0.0}]
        device, decay = torch.device(self.model.device), self.recipe.weight_decay
        on_gpu = device.type == "cuda"
        rate: Any = torch.tensor(self.peak_rate, device=device) if on_gpu else self.peak_rate
        options: dict[str, Any] = {"lr": rate, "betas": (0.9, 0.99), "fused": True, "capturable": on_gpu}
        self.optimizers: list[torch.optim.Optimizer] = [torch.optim.AdamW(groups, weight_decay=decay, **options)]
        if matrices:
            dtype = torch.bfloat16 if self.network.bf16_matmul else torch.float32
            blocks = [{"params": params, "blocks": number} for number, params in matrices.items()]
            self.optimizers.append(Muon(blocks, rate, decay, dtype=dtype))
        self._update = CudaGraphCache(self._compute_step, device) if self.num_parts == 1 else self._compute_step

    def _compute_step(self, inputs: Tensor, targets: Tensor, states: list[Any]) -> tuple[Tensor, list[Any]]:
        """Compute ``step`` with tensors only, so that it can be recorded. Return the loss and the next states.

        The loss does not include the start of a document, which cannot be predicted from the previous document.
        """
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        num_predicted = (targets != self.model.tokenizer.bos_id).sum().clamp(min=1)
        device, generator = self.model.device, self.network.generator
        random_states = get_random_states(device, generator) if self.num_parts > 1 else None
        losses, next_states = [], []
        for i, state in enumerate(states):
            if i and random_states is not None:
                set_random_states(device, random_states, generator)  # each part takes its rows of the same dropout mask
            with nullcontext() if i == len(states) - 1 else self.ranks.no_sync(self.parallel_network):
                loss, next_state = self._compute_part(i, inputs, targets, num_predicted, state)
            losses.append(loss)
            next_states.append(next_state)
        torch.nn.utils.clip_grad_norm_(self.params, self.recipe.clip)
        for optimizer in self.optimizers:
            optimizer.step()
        return losses[0] if len(losses) == 1 else torch.stack(losses).sum(), next_states

    def _compute_part(
        self, i: int, inputs: Tensor, targets: Tensor, num_predicted: Tensor, state: Any
    ) -> tuple[Tensor, Any]:
        """Add the gradients of part ``i`` of a chunk; return its part of the loss and its next state, detached."""
        part, batch = self.ranks.rank * self.gradient_accumulation_steps + i, inputs.shape[1]
        rows = slice(part * batch // self.num_parts, (part + 1) * batch // self.num_parts)
        self.network.batch_slice = part, self.num_parts
        logits, next_state = self.parallel_network(inputs[:, rows], state)
        loss = cross_entropy(
            logits.flatten(0, 1).float(),
            targets[:, rows].flatten(),
            ignore_index=self.model.tokenizer.bos_id,
            reduction="sum",
        )
        loss = loss / num_predicted
        # DistributedDataParallel averages the gradients over the processes, but they must be summed: hence the factor.
        objective = loss * self.ranks.size + self.network.penalty / self.gradient_accumulation_steps
        objective.backward()  # type: ignore[no-untyped-call]
        return loss.detach(), tree_map(Tensor.detach, next_state)

    # Divergence

    def record_loss(self, loss: float) -> bool:
        """Record the loss of a step. Return False if training has diverged, otherwise True."""
        if not math.isfinite(loss):
            return False
        smoothed = loss if self.smoothed_loss is None else SMOOTHING * self.smoothed_loss + (1 - SMOOTHING) * loss
        self.smoothed_loss = smoothed
        if smoothed > self.lowest_loss + max(1.0, self.lowest_loss):
            return False
        self.lowest_loss = min(self.lowest_loss, smoothed)
        self.steps += 1
        if self.steps % SNAPSHOT_EVERY == 0 and smoothed < SNAPSHOT_MAX_LOSS * self.lowest_loss:
            self.snapshot = self.copy_weights()
        return True

    def roll_back(self) -> None:
        """Return to the weights of the snapshot, with half the learning rate."""
        self.peak_rate /= 2
        self.load_weights(self.snapshot)
        self.average.clear()
        self.start_optimizer()
        self.smoothed_loss = None

    # Weights

    def copy_weights(self) -> list[Tensor]:
        """Return a copy of the current weights."""
        return [param.detach().clone() for param in self.params]

    def load_weights(self, weights: list[Tensor]) -> None:
        """Replace the current weights."""
        with torch.no_grad():
            for param, weight in zip(self.params, weights, strict=True):
                param.copy_(weight)

    # Time

    @property
    def seconds(self) -> float:
        """The seconds of training so far, including the time before the run was resumed.

        With several processes, this is the time of the first process at the last ``sync_clock``.
        """
        return self._synced_seconds if self.ranks.size > 1 else self._measure_seconds()

    def start_clock(self) -> None:
        """Start to measure ``seconds``."""
        self._start_time = time.perf_counter()

    def sync_clock(self) -> None:
        """Give all processes the time of the first, so that they stop at the same step."""
        if self.ranks.size > 1:
            self._synced_seconds = self.ranks.broadcast(self._measure_seconds())

    def _measure_seconds(self) -> float:
        return self.earlier_seconds + time.perf_counter() - self._start_time
