"""Drawing on a GPU: some tokens of all texts at once, so that neither waits for the other at each token."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

from numpy.typing import NDArray

from revgen.generation.sampler import Floats, Sampling, draw
from revgen.generation.settings import Rules

if TYPE_CHECKING:
    from torch import Tensor

    from revgen.language_model import LanguageModel
    from revgen.networks.network import Network

BLOCK = 16
"""Tokens of a text that are drawn before any is looked at: few, so that a stream flows."""

Write: TypeAlias = Callable[[NDArray[Any], Any, Floats, Any], tuple[NDArray[Any], Any]]


def block_writer(model: LanguageModel, rules: Rules, shift: int) -> Write | None:
    """What writes the next tokens of some texts: (drawn (rows,), state, uniforms (BLOCK, rows), temperatures (BLOCK,
    rows, 1)) -> tokens (BLOCK, rows), state. None on a CPU, and where a token depends on more than logits and place.

    Model and sampler are one CUDA graph, that is recorded for each number of rows and kept with the network.
    """
    if model.device == "cpu" or not rules.independent:
        return None
    from revgen.networks.neural import NeuralModel

    if not isinstance(model, NeuralModel):
        return None
    import torch

    from revgen.networks.recorded import Recorded

    network, device = model.network, torch.device(model.device)
    sampling = rules.sampling
    kind = (sampling.top_k, sampling.top_p, sampling.min_p, sampling.typical_p, rules.end, shift)
    if kind not in network.writers:
        network.writers.clear()  # a recording takes memory, and settings seldom change
        network.writers[kind] = Recorded(_block(network, sampling, rules.end, shift), device)
    block = network.writers[kind]
    biases = torch.as_tensor(rules.biases, device=device)

    @torch.inference_mode()
    def write(drawn: NDArray[Any], state: Any, uniforms: Floats, temperatures: Any) -> tuple[NDArray[Any], Any]:
        given = [torch.as_tensor(a, device=device) for a in (drawn, uniforms, temperatures)]
        tokens, state = block(network.equation.full(state), biases, *given)
        return tokens.cpu().numpy(), state

    return write


def _block(network: Network, sampling: Sampling, end: int, shift: int) -> Callable[..., tuple[Tensor, Any]]:
    """The function of tensors behind ``block_writer``."""
    import torch

    def block(state: Any, biases: Tensor, tokens: Tensor, uniforms: Tensor, temperatures: Tensor) -> tuple[Tensor, Any]:
        written = []
        for uniform, temperature in zip(uniforms, temperatures, strict=True):
            logits, state = network(tokens[None] + shift, state)
            x = logits[-1].float() + biases
            x[:, end] = torch.where(x.amax(-1) == -torch.inf, 0, x[:, end])  # nothing else may follow
            tokens = draw(sampling.kept(x, temperature), uniform)
            written.append(tokens)
        return torch.stack(written), state

    return block
