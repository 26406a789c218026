"""What training has to do with the device: the way of batches to it, and its random numbers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from revgen.networks.network import FunctionalModule, Network

AHEAD = 1 << 20
"""Tokens that are sent to a GPU at once: all of a small corpus, and of a large one many steps of training."""

Chunk: TypeAlias = tuple[NDArray[Any], NDArray[Any]]


def to_device(chunks: Iterable[Chunk], device: str) -> Iterator[tuple[Tensor, Tensor]]:
    """Inputs and targets, each (time, batch), as tensors on the device. No step waits for a copy: on a CPU there is
    none, and what a GPU reads was sent many steps before."""
    if device == "cpu":
        for inputs, targets in chunks:
            yield torch.from_numpy(inputs), torch.from_numpy(targets)
        return
    waiting: list[Chunk] = []
    tokens = 0
    for inputs, targets in chunks:
        waiting.append((inputs, targets))
        tokens += inputs.size
        if tokens >= AHEAD:
            yield from _sent(waiting, device)
            waiting, tokens = [], 0
    if waiting:
        yield from _sent(waiting, device)


def _sent(chunks: list[Chunk], device: str) -> Iterator[tuple[Tensor, Tensor]]:
    """These chunks, sent as one."""
    lengths = [len(inputs) for inputs, _ in chunks]
    whole = torch.from_numpy(np.stack([np.concatenate(side) for side in zip(*chunks, strict=True)]))
    if torch.device(device).type == "cuda":
        whole = whole.pin_memory()
    inputs, targets = whole.to(device, non_blocking=True)
    yield from zip(inputs.split(lengths), targets.split(lengths), strict=True)


def fork_generator(network: Network, device: str, seed: int) -> torch.Generator | None:
    """Return a generator for one run, which no other thread draws from; None on a GPU, where recorded steps draw from
    the shared one, and where modules from elsewhere do."""
    ours = isinstance(network, FunctionalModule) and network.equation.supports_numpy
    if torch.device(device).type != "cpu" or not ours:
        return None
    return torch.Generator().manual_seed(seed)


def get_random_states(device: str, generator: torch.Generator | None) -> dict[str, Tensor]:
    """Return the states of the random numbers that a step of training on this device draws, by name."""
    states = {"random": torch.get_rng_state() if generator is None else generator.get_state()}
    if torch.device(device).type == "cuda":
        states["cuda_random"] = torch.cuda.get_rng_state()
    return states


def set_random_states(device: str, states: Mapping[str, Tensor], generator: torch.Generator | None) -> None:
    """Continue from ``random_states``; what they say of another device is left out."""
    if generator is None:
        torch.set_rng_state(states["random"])
    else:
        generator.set_state(states["random"])
    if torch.device(device).type == "cuda" and "cuda_random" in states:
        torch.cuda.set_rng_state(states["cuda_random"])
