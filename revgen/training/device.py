"""The training device: copies of batches, and random number generators."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from revgen.networks.network import FunctionalModule, Network

PREFETCH_TOKENS = 1 << 20
"""The number of tokens that are copied to a GPU at once: a whole small corpus, or many steps of a large one."""

Chunk: TypeAlias = tuple[NDArray[Any], NDArray[Any]]
"""Inputs and targets, each (time, batch)."""


def to_device(chunks: Iterable[Chunk], device: str) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the inputs and targets of each chunk, (time, batch), as tensors on the device.

    Training steps never wait for a copy: a CPU needs no copies, and a GPU gets the chunks of many steps in advance.
    """
    if device == "cpu":
        for inputs, targets in chunks:
            yield torch.from_numpy(inputs), torch.from_numpy(targets)
        return
    pending: list[Chunk] = []
    tokens = 0
    for inputs, targets in chunks:
        pending.append((inputs, targets))
        tokens += inputs.size
        if tokens >= PREFETCH_TOKENS:
            yield from _copy_together(pending, device)
            pending, tokens = [], 0
    if pending:
        yield from _copy_together(pending, device)


def _copy_together(chunks: list[Chunk], device: str) -> Iterator[tuple[Tensor, Tensor]]:
    """Copy chunks to the device as one tensor, and yield them one by one."""
    lengths = [len(inputs) for inputs, _ in chunks]
    joined = torch.from_numpy(np.stack([np.concatenate(arrays) for arrays in zip(*chunks, strict=True)]))
    if torch.device(device).type == "cuda":
        joined = joined.pin_memory()
    inputs, targets = joined.to(device, non_blocking=True)
    yield from zip(inputs.split(lengths), targets.split(lengths), strict=True)


def fork_generator(network: Network, device: str, seed: int) -> torch.Generator | None:
    """Return a random number generator for one run, so that other threads do not change its numbers.

    Returns None if PyTorch's global generator must be used: on a GPU, where steps are recorded, and for networks that
    do not take a generator.
    """
    takes_generator = isinstance(network, FunctionalModule) and network.definition.supports_numpy
    if torch.device(device).type != "cpu" or not takes_generator:
        return None
    return torch.Generator().manual_seed(seed)


def get_random_states(device: str, generator: torch.Generator | None) -> dict[str, Tensor]:
    """Return the states, by name, of the random number generators that a training step on this device uses."""
    states = {"random": torch.get_rng_state() if generator is None else generator.get_state()}
    if torch.device(device).type == "cuda":
        states["cuda_random"] = torch.cuda.get_rng_state()
    return states


def set_random_states(device: str, states: Mapping[str, Tensor], generator: torch.Generator | None) -> None:
    """Set the states that ``get_random_states`` returned. The states of other devices are ignored."""
    if generator is None:
        torch.set_rng_state(states["random"])
    else:
        generator.set_state(states["random"])
    if torch.device(device).type == "cuda" and "cuda_random" in states:
        torch.cuda.set_rng_state(states["cuda_random"])
