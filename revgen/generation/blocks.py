"""Drawing some tokens of a text before any is looked at: one text in a short loop, or all of them on a GPU, which then
does not wait for Python at each token."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from revgen.generation.constraints import Constraints
from revgen.generation.sampler import Floats, Sampling, bounded_temperature, finite, sample

if TYPE_CHECKING:
    from torch import Tensor

    from revgen.architectures.neural import NeuralModel
    from revgen.model import Model
    from revgen.networks.network import Network

BLOCK = 32
"""Tokens of a text that are drawn before any is looked at: few, so that a stream flows."""

Write: TypeAlias = Callable[[NDArray[Any], Any, Floats, NDArray[np.intp]], tuple[list[list[int]], Any]]
"""The last tokens (rows,), the state, numbers in [0, 1) (BLOCK, rows), how many tokens each text has (rows,) ->
the next BLOCK tokens of each text, or fewer where it has no more, and the state."""


def block_writer(model: Model, rules: Constraints, shift: int, rows: int) -> Write | None:
    """What writes the next tokens of so many texts where the text before does not decide which: of one text on a CPU,
    and of any number on a GPU. None elsewhere."""
    if model.device != "cpu" and rules.is_context_free:
        from revgen.architectures.neural import NeuralModel

        if isinstance(model, NeuralModel):
            return _on_gpu(model, rules, shift)
    return _one_text(model, rules, shift) if rows == 1 and rules.is_unconstrained else None


def _one_text(model: Model, rules: Constraints, shift: int) -> Write:
    """Generate with NumPy, or with compiled code."""
    most, temperature = rules.settings.max_tokens, rules.sampling.temperature
    assert isinstance(temperature, float | int)  # ``is_unconstrained``
    bounded = bounded_temperature(temperature) if temperature else 0.0

    def write(
        drawn: NDArray[Any], state: Any, uniforms: Floats, places: NDArray[np.intp]
    ) -> tuple[list[list[int]], Any]:
        sample_tokens = partial(sample_with_numpy, model) if model.compiled is None else model.compiled.sample_tokens
        block = uniforms[: most - places[0], 0]
        tokens, state = sample_tokens(int(drawn[0]), state, block, bounded, rules.biases, rules.end, shift)
        return [tokens], state

    return write


def sample_with_numpy(
    model: Model,
    token: int,
    state: Any,
    uniforms: Floats,
    temperature: float,
    biases: Floats,
    end: int,
    label_offset: int,
) -> tuple[list[int], Any]:
    """Sample one token for each of ``uniforms``, as ``model.CompiledStep.sample_tokens`` does, with any model."""
    tokens: list[int] = []
    divisor = np.float32(temperature)
    for uniform in uniforms.tolist():
        logits, state = model.forward(np.array([[token + label_offset]]), state)
        x = logits[0, 0] + biases
        best = int(x.argmax())
        if not np.isfinite(x[best]):  # argmax finds a NaN before all numbers
            x = finite(x)
            best = int(x.argmax())
        if x[best] == -np.inf:
            token = end
        elif temperature == 0:
            token = best
        else:
            x -= x[best]
            x /= divisor
            cumulative = np.exp(x, dtype=np.float64).cumsum()
            token = int(cumulative.searchsorted(uniform * cumulative[-1], "right"))
            if token == len(x):  # the product was rounded up
                token = best
        tokens.append(token)
        if token == end:
            break
    return tokens, state


def _on_gpu(model: NeuralModel, rules: Constraints, shift: int) -> Write:
    """Model and sampler as one CUDA graph, that is recorded for each number of rows and kept with the network."""
    import torch

    from revgen.networks.cuda_graphs import CudaGraphCache

    network, device = model.network, torch.device(model.device)
    sampling = rules.sampling
    kind = (sampling.top_k, sampling.top_p, sampling.min_p, sampling.typical_p, rules.end, shift)
    block = network.gpu_samplers.get(kind)
    if block is None:
        network.gpu_samplers.clear()  # a recording takes memory, and settings seldom change
        block = network.gpu_samplers.setdefault(
            kind, CudaGraphCache(_block(network, sampling, rules.end, shift), device)
        )
    biases = torch.as_tensor(rules.biases, device=device)

    @torch.inference_mode()
    def write(
        drawn: NDArray[Any], state: Any, uniforms: Floats, places: NDArray[np.intp]
    ) -> tuple[list[list[int]], Any]:
        temperatures = np.empty((*uniforms.shape, 1), np.float32)
        temperatures[:] = sampling.temperatures(places + np.arange(BLOCK)[:, None])
        given = [torch.as_tensor(a, device=device) for a in (drawn, uniforms, temperatures)]
        tokens, state = block(network.definition.pad_state(state), biases, *given)
        return tokens.T.tolist(), state

    return write


def _block(network: Network, sampling: Sampling, end: int, shift: int) -> Callable[..., tuple[Tensor, Any]]:
    """The function of tensors behind it."""
    import torch

    def block(state: Any, biases: Tensor, tokens: Tensor, uniforms: Tensor, temperatures: Tensor) -> tuple[Tensor, Any]:
        written = []
        for uniform, temperature in zip(uniforms, temperatures, strict=True):
            logits, state = network(tokens[None] + shift, state)
            x = finite(logits[-1].float() + biases)
            x[:, end] = torch.where(x.amax(-1) == -torch.inf, 0, x[:, end])  # nothing else may follow
            tokens = sample(sampling.apply_filters(x, temperature), uniform)
            written.append(tokens)
        return torch.stack(written), state

    return block
