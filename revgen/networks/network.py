"""What every PyTorch network of the zoo is: weights by the names that the model directory gives them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from revgen.language_model import Weights

if TYPE_CHECKING:
    from revgen.evaluation.likelihood import Forward


class Network(nn.Module):
    """Subclasses give ``forward(tokens, state)``: ids (time, batch) -> logits (time, batch, vocab), new state.

    ``state`` None is the start of a document.
    """

    def __init__(self, weights: Weights) -> None:
        super().__init__()
        self.names = list(weights)
        self.values = nn.ParameterList(torch.tensor(np.asarray(array, np.float32)) for array in weights.values())

    def named_weights(self) -> dict[str, nn.Parameter]:
        """The parameters by the names of the weights."""
        return dict(zip(self.names, self.values, strict=True))

    def arrays(self) -> Weights:
        """A copy of the weights as NumPy arrays."""
        return {name: value.detach().cpu().numpy().copy() for name, value in self.named_weights().items()}

    def forward(self, tokens: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """See the class."""
        raise NotImplementedError


def network_forward(network: Network) -> Forward:
    """The network as a function of NumPy arrays, without gradients."""

    device = network.values[0].device

    @torch.inference_mode()
    def forward(tokens: NDArray[Any], state: Any) -> tuple[NDArray[np.floating[Any]], Any]:
        logits, state = network(torch.as_tensor(tokens, device=device), state)
        return logits.float().cpu().numpy(), state

    return forward
