"""What every PyTorch network of the zoo is: weights by the names that the model directory gives them."""

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
from revgen.sequences import Forward

Penalty: TypeAlias = Tensor | float

if hasattr(os, "register_at_fork"):
    # A child has none of the threads that OpenMP started in its parent, and would wait for them without end.
    os.register_at_fork(after_in_child=partial(torch.set_num_threads, 1))


class Network(nn.Module):
    """Subclasses give ``forward(tokens, state)``: ids (time, batch) -> logits (time, batch, vocab), new state.

    ``state`` None is the start of a document.
    """

    equation: FunctionalNetwork
    """The equation that it computes."""

    penalty: Penalty = 0.0
    """What the last ``forward`` in training adds to the loss, for networks that are regularized so."""

    generator: torch.Generator | None = None
    """Where dropout takes its random numbers from; None: from the generator that all of PyTorch shares."""

    batch_slice: tuple[int, int] = (0, 1)
    """Which of how many equal parts of a batch ``forward`` reads: each leaves out what the whole batch would there."""

    def __init__(self, weights: Weights) -> None:
        super().__init__()
        self.names = list(weights)
        self.gpu_samplers: dict[Any, CudaGraphCache] = {}  # of ``generation.blocks``
        self.params = nn.ParameterList(torch.tensor(np.asarray(array, np.float32)) for array in weights.values())

    def named_weights(self) -> dict[str, nn.Parameter]:
        """The parameters by the names of the weights."""
        return dict(zip(self.names, self.params, strict=True))

    def to_numpy(self) -> Weights:
        """A copy of the weights as NumPy arrays."""
        return {name: value.detach().cpu().numpy().copy() for name, value in self.named_weights().items()}

    def in_bfloat16(self, fast: bool, device: torch.device) -> torch.autocast:
        """Compute matrix products in bfloat16 where that is fast: in training only, and of weights in float32."""
        enabled = self.training and fast and self.params[0].dtype == torch.float32
        return torch.autocast(device.type, torch.bfloat16, enabled=enabled)

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        device: torch.device = self.params[0].device
        return device

    def forward(self, tokens: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """See the class."""
        raise NotImplementedError


class FunctionalModule(Network, Backend):
    """An equation, ready to train; ``dropout`` works in training mode."""

    def __init__(self, equation: FunctionalNetwork, weights: Weights) -> None:
        super().__init__(weights)
        self.equation = equation

    def forward(self, tokens: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        p = unflatten(self.named_weights())
        features, state = self.features_with(p, tokens, state)
        return self.logits_with(p, features), state

    def features(self, tokens: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """Compute what the logits are computed from: ids (time, batch) -> (time, batch, features), the new state."""
        return self.features_with(unflatten(self.named_weights()), tokens, state)

    def logits(self, features: Tensor) -> Tensor:
        """Compute logits: (time, batch, features) -> (time, batch, vocab)."""
        return self.logits_with(unflatten(self.named_weights()), features)

    def features_with(
        self, p: SimpleNamespace, tokens: Tensor, state: Any, backend: Backend | None = None
    ) -> tuple[Tensor, Any]:
        """Compute ``features`` with the weights ``p`` and, where one is given, another backend than the network."""
        if state is None:
            state = self.equation.initial_state(tokens.shape[1], self.params[0].new_zeros)
        with self.in_bfloat16(bf16_matmul_is_fast(tokens.device), tokens.device):
            return self.equation.features(p, tokens, state, backend or self)

    def logits_with(self, p: SimpleNamespace, features: Tensor) -> Tensor:
        """Compute ``logits`` with the weights ``p``."""
        with self.in_bfloat16(bf16_matmul_is_fast(features.device), features.device):
            logits: Tensor = self.equation.logits(p, features)
        return logits

    def dropout(self, x: Tensor, index: int = 0) -> Tensor:
        """Leave values out in training."""
        rate = getattr(self.equation.config, "dropout", 0.0)
        (part, parts), axis = self.batch_slice, self.equation.batch_axis
        if not self.training or not rate:
            return x
        shape = [size * parts if i == axis else size for i, size in enumerate(x.shape)]
        return x * dropout_mask(x, shape, rate, self.generator).chunk(parts, axis)[part]


def dropout_mask(x: Tensor, shape: Sequence[int], rate: float, generator: torch.Generator | None = None) -> Tensor:
    """0 where something is left out, and elsewhere what keeps the mean: a factor for ``x``."""
    kept = 1 - rate
    return (torch.rand(shape, device=x.device, generator=generator) < kept).to(x.dtype).div_(kept)


def bf16_matmul_is_fast(device: torch.device) -> bool:
    """Whether matrix products are faster in bfloat16: on a CPU, where it has units for them."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    units = getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    return device.type == "cpu" and bool(torch.backends.mkldnn.enabled) and bool(units())


def network_forward(network: Network) -> Forward:
    """Return the network as a function of NumPy arrays, without gradients."""
    return on_arrays(network, network.device)


def on_arrays(function: Callable[[Tensor, Any], tuple[Tensor, Any]], device: torch.device) -> Forward:
    """Return a function of tokens and a state as one of NumPy arrays, without gradients; states stay tensors."""

    @torch.inference_mode()
    def on_arrays(tokens: NDArray[Any], state: Any) -> tuple[NDArray[np.floating[Any]], Any]:
        result, state = function(torch.as_tensor(tokens, device=device), state)
        return result.float().cpu().numpy(), state

    return on_arrays
