"""The processes that train one model together, as ``torchrun`` starts them; one alone is the usual case.

Each computes its own rows of every batch, and PyTorch's DistributedDataParallel makes the mean of their gradients, so
that all take the same step. The first one validates, prints and writes.
"""

from __future__ import annotations

import atexit
import gc
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, distributed, nn

T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    """Which of how many processes this one is."""

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this process is the one that validates, prints and writes."""
        return self.rank == 0

    def wrap(self, network: nn.Module) -> nn.Module:
        """The network, whose gradients become those of the whole batch."""
        return nn.parallel.DistributedDataParallel(network) if self.size > 1 else network

    def no_sync(self, wrapped: nn.Module) -> AbstractContextManager[None]:
        """Within, gradients add up in this process alone."""
        if isinstance(wrapped, nn.parallel.DistributedDataParallel):
            return cast(AbstractContextManager[None], wrapped.no_sync())
        return nullcontext()

    @contextmanager
    def rank_zero_first(self) -> Iterator[None]:
        """The first process goes through before the others, which find in the cache what it put there."""
        if self.size > 1 and not self.first:
            distributed.barrier()
        try:
            yield
        finally:
            if self.size > 1 and self.first:
                distributed.barrier()

    def all_reduce(self, values: Tensor) -> Tensor:
        """The sum over all processes."""
        if self.size > 1:
            distributed.all_reduce(values)
        return values

    def broadcast(self, value: T) -> T:
        """What the first process has."""
        if self.size == 1:
            return value
        box = [value]
        distributed.broadcast_object_list(box)
        return box[0]

    def gather(self, values: list[T]) -> list[T]:
        """The values of all processes, those of the first one first; in the others nothing that matters."""
        if self.size == 1:
            return values
        boxes: list[Any] | None = [None] * self.size if self.first else None
        distributed.gather_object(values, boxes)
        return [value for box in boxes or [] for value in box]


SINGLE_PROCESS = Ranks()


def _leave() -> None:
    """Join the threads of the process group: one that still runs as Python exits would abort the process."""
    gc.collect()  # what holds on to the group
    if distributed.is_initialized():
        distributed.destroy_process_group()


def init_distributed(device: str) -> Ranks:
    """The processes that were started together; each has a GPU of its own where ``device`` is "cuda"."""
    if not distributed.is_available():
        return SINGLE_PROCESS
    if not distributed.is_initialized():
        if int(os.environ.get("WORLD_SIZE", "1")) == 1:
            return SINGLE_PROCESS
        distributed.init_process_group("nccl" if device.startswith("cuda") else "gloo")
        atexit.register(_leave)
    ranks = Ranks(distributed.get_rank(), distributed.get_world_size())
    if device == "cuda":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", ranks.rank % torch.cuda.device_count())))
    return ranks
