"""PyTorch networks: modules whose parameters have the names of the weights in a model directory."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
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
from revgen.networks.precision import bf16_matmul_is_fast
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

    is_validating: bool = False
    """True within ``validation``."""

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
        enabled = (self.training or self.is_validating) and is_fast and self.params[0].dtype == torch.float32
        return torch.autocast(device.type, torch.bfloat16, enabled=enabled)

    def uses_bf16_matmul(self, device: torch.device) -> bool:
        """Return whether products of large matrices are in bfloat16: in training, unless ``bf16_matmul`` is False."""
        if not (self.training or self.is_validating):
            return False
        return bf16_matmul_is_fast(device) if self.bf16_matmul is None else self.bf16_matmul

    @contextmanager
    def validation(self) -> Iterator[None]:
        """Compute without dropout within the context.

        Networks that train in bfloat16 as a whole are validated in it too: it is several times as fast, and changes
        the loss by less than 0.001.
        """
        self.eval()
        self.is_validating = self.definition.trains_in_bf16
        try:
            yield
        finally:
            self.is_validating = False

    def compile_layers(self, before_compilation: Callable[[], None]) -> str | None:
        """Compile the training of layers, on a CPU. Return a note if this is not possible.

        ``before_compilation`` is called if it takes seconds, because the machine code is not in the cache.
        """
        return None

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
        p = self.training_weights()
        features, state = self.features_with(p, tokens, state)
        return self.logits_with(p, features), state

    def training_weights(self) -> SimpleNamespace:
        """Return the weights as attributes; those of the layers are in bfloat16 if the layers are computed in it."""
        weights: dict[str, Tensor] = {**self.named_weights()}
        if self.computes_in_bf16:
            names = [name for name in weights if "." in name]  # of layers; embeddings accumulate gradients in float32
            rounded = CastToBf16.apply(*(weights[name] for name in names))  # type: ignore[no-untyped-call]
            weights |= zip(names, rounded, strict=True)
        return unflatten(weights)

    @property
    def computes_in_bf16(self) -> bool:
        """True if whole layers are computed in bfloat16: on CPUs, where conversions take long."""
        is_supported = self.definition.trains_in_bf16 and self.device.type == "cpu"
        return is_supported and self.params[0].dtype == torch.float32 and self.uses_bf16_matmul(self.device)

    def cast(self, x: Tensor) -> Tensor:
        """Return ``x`` in the precision of the layers; a mask becomes 0 for true and -∞ for false."""
        if not self.computes_in_bf16:
            return x
        if x.dtype != torch.bool:
            return x.bfloat16()
        return torch.zeros_like(x, dtype=torch.bfloat16).masked_fill_(~x, -torch.inf)

    def features(self, tokens: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """Compute the vectors that the logits are computed from, (time, batch, features), and the next state."""
        return self.features_with(self.training_weights(), tokens, state)

    def logits(self, features: Tensor) -> Tensor:
        """Compute logits: (time, batch, features) -> (time, batch, vocab)."""
        return self.logits_with(unflatten(self.named_weights()), features)

    def features_with(
        self, p: SimpleNamespace, tokens: Tensor, state: Any, backend: Backend | None = None
    ) -> tuple[Tensor, Any]:
        """Compute ``features`` with the weights ``p`` and a backend, by default this module."""
        if state is None:
            state = self.definition.initial_state(tokens.shape[1], self.params[0].new_zeros)
        is_partial = self.uses_bf16_matmul(tokens.device) and not self.computes_in_bf16
        with self.in_bfloat16(is_partial, tokens.device):
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


class CastToBf16(torch.autograd.Function):
    """Convert many float32 tensors to bfloat16, and their gradients back, in one operation for PyTorch's autograd."""

    @staticmethod
    def forward(ctx: Any, *tensors: Tensor) -> tuple[Tensor, ...]:
        return tuple(tensor.bfloat16() for tensor in tensors)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, ...]:
        return tuple(gradient.float() for gradient in gradients)


def dropout_mask(x: Tensor, shape: Sequence[int], rate: float, generator: torch.Generator | None = None) -> Tensor:
    """Return a factor for ``x``: 0 with probability ``rate``, and 1 / (1 - rate) otherwise.

    A random byte decides for each element, so the rate is rounded to a multiple of 1 / 256. This takes a fifth of the
    time of random floats.
    """
    size, threshold = math.prod(shape), min(round(rate * 256), 255)
    words = torch.empty((size + 7) // 8, dtype=torch.int64, device=x.device)
    draws = words.random_(-(1 << 63), None, generator=generator).view(torch.uint8)[:size].view(*shape)
    return draws.to(x.dtype).ge_(threshold).mul_(256 / (256 - threshold))


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
