"""Sampling of blocks of tokens that are decoded together.

One text on a CPU is sampled in a short loop, with NumPy or with compiled code. On a GPU, model and filters are recorded
together, so the GPU does not wait for Python between two tokens.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from revgen.generation.constraints import Constraints
from revgen.generation.filters import (
    Filter,
    FilterContext,
    Floats,
    LogitBias,
    bounded_temperature,
    finite,
    is_immutable,
)
from revgen.generation.sampler import probabilities, sample
from revgen.ops import MAX_LOGIT
from revgen.sequences import SamplingRule

if TYPE_CHECKING:
    from torch import Tensor

    from revgen.model import Model
    from revgen.networks.network import Network

BLOCK_SIZE = 32
"""The number of tokens in a block: small enough that a stream appears smoothly."""
LARGE_BLOCK_SIZE = 256
"""The number of tokens in a block of a single text on the CPU that is not streamed, and that no stop string ends."""

SampleBlock: TypeAlias = Callable[[NDArray[Any], Any, Floats, NDArray[np.intp]], tuple[list[list[int]], Any]]
"""A function of the last token of each text (rows,), the state, random numbers in [0, 1) (block, rows), and how many
tokens have been sampled (rows,). It returns the next tokens of each text, at most ``block``, and the state."""


def block_sampler(model: Model, constraints: Constraints, label_offset: int, rows: int) -> SampleBlock | None:
    """Return a function that samples a block of tokens, or None if a token may depend on the text so far.

    A CPU has such a function for one text without filters only.
    """
    if constraints.is_context_free and (network := model.sampler_network()) is not None:
        return _network_sampler(model, network, constraints, label_offset)
    return _text_sampler(model, constraints, label_offset) if rows == 1 and constraints.is_unconstrained else None


def _text_sampler(model: Model, constraints: Constraints, label_offset: int) -> SampleBlock:
    """Return a sampler of one text, with NumPy or compiled code."""
    config, temperature, end = constraints.config, constraints.temperature, constraints.eos_id
    assert isinstance(temperature, float), "is_unconstrained"
    bounded = bounded_temperature(temperature) if temperature else 0.0
    log_min_p = math.log(config.min_p) if config.min_p else -math.inf
    rule = SamplingRule(bounded, log_min_p, constraints.biases, end, label_offset)
    early_biases = constraints.biases.copy()
    early_biases[end] = -np.inf
    early_rule = rule._replace(biases=early_biases)

    def sample_block(
        last: NDArray[Any], state: Any, uniforms: Floats, positions: NDArray[np.intp]
    ) -> tuple[list[list[int]], Any]:
        sample_tokens = partial(sample_with_numpy, model) if model.compiled is None else model.compiled.sample_tokens
        position = int(positions[0])
        block = uniforms[: config.max_tokens - position, 0]
        num_early = max(0, config.min_tokens - position)
        tokens = [int(last[0])]
        for part, rule_of_part in ((block[:num_early], early_rule), (block[num_early:], rule)):
            if len(part) and tokens[-1] != end:
                new, state = sample_tokens(tokens[-1], state, part, rule_of_part)
                tokens += new
        return [tokens[1:]], state

    return sample_block


def sample_with_numpy(
    model: Model, token: int, state: Any, uniforms: Floats, rule: SamplingRule
) -> tuple[list[int], Any]:
    """Sample one token for each of ``uniforms``, as ``sequences.CompiledStep.sample_tokens`` does, with any model.

    NumPy functions with an output array are used where they are faster.
    """
    temperature, log_min_p, biases, end, label_offset = rule
    tokens: list[int] = []
    reader = model.token_reader(state, len(uniforms))
    read, accumulate = reader.read, np.add.accumulate
    p, divisor = np.empty(len(biases)), np.array(temperature, np.float32)
    for uniform in uniforms.tolist():
        x = read(token + label_offset) + biases
        best = int(x.argmax())
        if not -MAX_LOGIT < x.item(best) < MAX_LOGIT:  # argmax returns a NaN before all numbers
            x = finite(x)
            best = int(x.argmax())
        if x[best] == -np.inf:
            token = end
        elif temperature == 0:
            token = best
        else:
            x -= x[best]
            if temperature != 1:
                x /= divisor
            if log_min_p > -np.inf:
                x[x < log_min_p] = -np.inf
            p[:] = x
            accumulate(np.exp(p, p), 0, None, p)
            token = int(p.searchsorted(uniform * p.item(-1), "right"))
            if token == len(p):  # the product was rounded up
                token = best
        tokens.append(token)
        if token == end:
            break
    return tokens, reader.state


def _network_sampler(model: Model, network: Network, constraints: Constraints, label_offset: int) -> SampleBlock:
    """Return a sampler on the network's device.

    Network and filters are recorded as one CUDA graph for each number of rows; the network keeps the recordings. Their
    key holds the filters themselves, so they must be immutable. A filter that is not is called for each token.
    """
    import torch

    from revgen.networks.cuda_graphs import CudaGraphCache

    device = torch.device(model.device)
    rules = constraints.filters, constraints.eos_id, label_offset, constraints.config.min_tokens
    block: Callable[..., Any] = tensor_block(network, *rules)
    if all(map(is_immutable, constraints.filters)):
        recording = network.gpu_samplers.get(rules)
        if recording is None:
            network.gpu_samplers.clear()  # a recording takes memory, and filters seldom change
            recording = network.gpu_samplers.setdefault(rules, CudaGraphCache(block, device))
        block = recording
    biases = torch.as_tensor(constraints.biases, device=device)

    @torch.inference_mode()
    def sample_block(
        last: NDArray[Any], state: Any, uniforms: Floats, positions: NDArray[np.intp]
    ) -> tuple[list[list[int]], Any]:
        steps = positions + np.arange(BLOCK_SIZE)[:, None]
        temperatures = np.empty((*uniforms.shape, 1), np.float32)
        temperatures[:] = constraints.temperature_at(steps)
        inputs = [torch.as_tensor(array, device=device) for array in (last, uniforms, steps, temperatures)]
        tokens, state = block(network.definition.pad_state(state), biases, *inputs)
        return tokens.T.tolist(), state

    return sample_block


def tensor_block(
    network: Network, filters: tuple[Filter, ...], end: int, label_offset: int, min_tokens: int
) -> Callable[..., tuple[Tensor, Any]]:
    """Return a function of tensors that samples a block of tokens, (time, rows), and returns the next state."""
    import torch

    def block(
        state: Any, biases: Tensor, tokens: Tensor, uniforms: Tensor, positions: Tensor, temperatures: Tensor
    ) -> tuple[Tensor, Any]:
        add_biases = LogitBias(biases)
        sampled = []
        for uniform, position, temperature in zip(uniforms, positions, temperatures, strict=True):
            context = FilterContext(position, temperature)
            logits, state = network(tokens[None] + label_offset, state)
            logits = add_biases(finite(logits[-1].float()), context)
            logits[:, end] = torch.where(position < min_tokens, -torch.inf, logits[:, end])
            logits[:, end] = torch.where(logits.amax(-1) == -torch.inf, 0, logits[:, end])  # no token is possible
            tokens = sample(probabilities(filters, logits, context), uniform)
            sampled.append(tokens)
        return torch.stack(sampled), state

    return block
