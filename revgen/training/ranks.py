"""The processes that train one model together. ``torchrun`` starts them; otherwise there is only one.

Each process computes its own rows of every batch. PyTorch's DistributedDataParallel averages the gradients, so all
processes take the same step. Only the first process validates, prints and writes files.
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

from revgen.files import num_processes

T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    """The rank of this process, counted from 0, among ``size`` processes."""

    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process is the one that validates, prints and writes files."""
        return self.rank == 0

    def wrap(self, network: nn.Module) -> nn.Module:
        """Return the network with gradients that are averaged over all processes."""
        return nn.parallel.DistributedDataParallel(network) if self.size > 1 else network

    def no_sync(self, wrapped: nn.Module) -> AbstractContextManager[None]:
        """Return a context in which the gradients of a wrapped network are not averaged over the processes."""
        if isinstance(wrapped, nn.parallel.DistributedDataParallel):
            return cast(AbstractContextManager[None], wrapped.no_sync())
        return nullcontext()

    @contextmanager
    def rank_zero_first(self) -> Iterator[None]:
        """Run the context in the first process before the others, which then find its results in the cache."""
        if self.size > 1 and not self.is_first:
            distributed.barrier()
        try:
            yield
        finally:
            if self.size > 1 and self.is_first:
                distributed.barrier()

    def all_reduce(self, values: Tensor) -> Tensor:
        """Replace ``values`` by their sum over all processes, and return them."""
        if self.size > 1:
            distributed.all_reduce(values)
        return values

    def broadcast(self, value: T) -> T:
        """Return the value of the first process."""
        if self.size == 1:
            return value
        values = [value]
        distributed.broadcast_object_list(values)
        return values[0]

    def gather(self, values: list[T]) -> list[T]:
        """Return the values of all processes in the order of their ranks; in all but the first, an empty list."""
        if self.size == 1:
            return values
        gathered: list[Any] | None = [None] * self.size if self.is_first else None
        distributed.gather_object(values, gathered)
        return [value for process_values in gathered or [] for value in process_values]


SINGLE_PROCESS = Ranks()


def init_distributed(device: str) -> Ranks:
    """Connect to the processes that ``torchrun`` started; with ``device`` "cuda", each gets its own GPU."""
    if not distributed.is_available():
        return SINGLE_PROCESS
    if not distributed.is_initialized():
        if num_processes() == 1:
            return SINGLE_PROCESS
        distributed.init_process_group("nccl" if device.startswith("cuda") else "gloo")
        atexit.register(_destroy_process_group)
    ranks = Ranks(distributed.get_rank(), distributed.get_world_size())
    if device == "cuda":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", ranks.rank % torch.cuda.device_count())))
    return ranks


def _destroy_process_group() -> None:
    """End the threads of the process group: a thread that still runs when Python exits would abort the process."""
    gc.collect()  # networks that were wrapped still refer to the group
    if distributed.is_initialized():
        distributed.destroy_process_group()
