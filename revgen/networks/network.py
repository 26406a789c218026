"""PyTorch networks: modules whose parameters have the names of the weights in a model directory."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from revgen.model import Weights
from revgen.networks.cuda_graphs import CudaGraphCache
from revgen.networks.functional import Backend, FunctionalNetwork, unflatten
from revgen.networks.precision import bf16_matmul_is_fast as bf16_matmul_is_fast
from revgen.sequences import Forward

Penalty: TypeAlias = Tensor | float

if hasattr(os, "register_at_fork"):
    # A child process does not inherit the OpenMP threads of its parent, and would wait for them forever.
    os.register_at_fork(after_in_child=partial(torch.set_num_threads, 1))


class Network(nn.Module):
    """A network that training updates. A subclass defines ``forward``."""

    definition: FunctionalNetwork
    """The network as a function of its weights."""

    penalty: Penalty = 0.0
    """The regularization term of the last ``forward``, which training adds to the loss."""

    generator: torch.Generator | None = None
    """The source of random numbers for dropout; None for PyTorch's global generator."""

    batch_slice: tuple[int, int] = (0, 1)
    """``(i, n)``: ``forward`` reads the i-th of n equal parts of a batch, and uses that part of the dropout masks."""

    bf16_matmul: bool | None = None
    """Whether matrix products are in bfloat16 in training; None to use it where it is fast."""

    def __init__(self, weights: Weights) -> None:
        super().__init__()
        self.names = list(weights)
        self.gpu_samplers: dict[Any, CudaGraphCache] = {}  # used by ``generation.blocks``
        self.params = nn.ParameterList(torch.tensor(np.asarray(array, np.float32)) for array in weights.values())

    def named_weights(self) -> dict[str, nn.Parameter]:
        """Return the parameters by the names of the weights."""
        return dict(zip(self.names, self.params, strict=True))

    def to_numpy(self) -> Weights:
        """Return a copy of the weights as NumPy arrays."""
        return {name: value.detach().cpu().numpy().copy() for name, value in self.named_weights().items()}

    def in_bfloat16(self, is_fast: bool, device: torch.device) -> torch.autocast:
        """Return a context in which matrix products are in bfloat16, if this is training and bfloat16 is fast."""
        enabled = self.training and is_fast and self.params[0].dtype == torch.float32
        return torch.autocast(device.type, torch.bfloat16, enabled=enabled)

    def uses_bf16_matmul(self, device: torch.device) -> bool:
        """Return whether products of large matrices are in bfloat16: in training, unless ``bf16_matmul`` is False."""
        if not self.training or self.bf16_matmul is not None:
            return self.training and bool(self.bf16_matmul)
        return bf16_matmul_is_fast(device)

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        device: torch.device = self.params[0].device
        return device

    def forward(self, tokens: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """Compute logits (time, batch, vocab) and the next state from ids (time, batch).

        If ``state`` is None, documents start.
        """
        raise NotImplementedError


class FunctionalModule(Network, Backend):
    """A ``FunctionalNetwork`` as a module that can be trained, with dropout in training mode."""

    def __init__(self, definition: FunctionalNetwork, weights: Weights) -> None:
        super().__init__(weights)
        self.definition = definition

    def forward(self, tokens: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        p = unflatten(self.named_weights())
        features, state = self.features_with(p, tokens, state)
        return self.logits_with(p, features), state

    def features(self, tokens: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """Compute the vectors that the logits are computed from, (time, batch, features), and the next state."""
        return self.features_with(unflatten(self.named_weights()), tokens, state)

    def logits(self, features: Tensor) -> Tensor:
        """Compute logits: (time, batch, features) -> (time, batch, vocab)."""
        return self.logits_with(unflatten(self.named_weights()), features)

    def features_with(
        self, p: SimpleNamespace, tokens: Tensor, state: Any, backend: Backend | None = None
    ) -> tuple[Tensor, Any]:
        """Compute ``features`` with the weights ``p`` and a backend, by default this module."""
        if state is None:
            state = self.definition.initial_state(tokens.shape[1], self.params[0].new_zeros)
        with self.in_bfloat16(self.uses_bf16_matmul(tokens.device), tokens.device):
            return self.definition.features(p, tokens, state, backend or self)

    def logits_with(self, p: SimpleNamespace, features: Tensor) -> Tensor:
        """Compute ``logits`` with the weights ``p``."""
        with self.in_bfloat16(self.uses_bf16_matmul(features.device), features.device):
            logits: Tensor = self.definition.logits(p, features)
        return logits

    def dropout(self, x: Tensor, index: int = 0) -> Tensor:
        """Return ``x`` after dropout in training mode, and ``x`` itself otherwise."""
        rate = getattr(self.definition.config, "dropout", 0.0)
        (part, num_parts), axis = self.batch_slice, self.definition.batch_axis
        if not self.training or not rate:
            return x
        shape = [size * num_parts if i == axis else size for i, size in enumerate(x.shape)]
        return x * dropout_mask(x, shape, rate, self.generator).chunk(num_parts, axis)[part]


def dropout_mask(x: Tensor, shape: Sequence[int], rate: float, generator: torch.Generator | None = None) -> Tensor:
    """Return a factor for ``x``: 0 with probability ``rate``, and 1 / (1 - rate) otherwise."""
    keep_rate = 1 - rate
    return (torch.rand(shape, device=x.device, generator=generator) < keep_rate).to(x.dtype).div_(keep_rate)


def network_forward(network: Network) -> Forward:
    """Return the network as a function of NumPy arrays, without gradients."""
    return on_arrays(network, network.device)


def on_arrays(function: Callable[[Tensor, Any], tuple[Tensor, Any]], device: torch.device) -> Forward:
    """Return a function of NumPy token ids that computes with tensors, without gradients. States stay tensors."""

    @torch.inference_mode()
    def forward(tokens: NDArray[Any], state: Any) -> tuple[NDArray[np.floating[Any]], Any]:
        result, state = function(torch.as_tensor(tokens, device=device), state)
        return result.float().cpu().numpy(), state

    return forward
