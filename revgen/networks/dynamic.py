"""A network whose weights change while it reads a text: the computation of ``architectures.dynamic_evaluation``."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import cross_entropy

from revgen.networks.functional import unflatten
from revgen.networks.network import FunctionalModule
from revgen.ops import tree_map


class Row(NamedTuple):
    """The state of one text. It is never changed in place, so copies of a state share its tensors.

    ``ids`` (n,) are the tokens of the present segment so far, ``offsets`` (n, vocab) are added to their logits, and
    ``start`` is the state of the network before them. ``state`` is the state after them, and ``weights`` are the
    weights for this segment, in one vector.
    """

    weights: Tensor
    state: Any
    start: Any
    ids: Tensor
    offsets: Tensor | None

    @property
    def nbytes(self) -> int:
        """The size of the weights in bytes."""
        return self.weights.nbytes


class DynamicNetwork:
    """A network, a factor of its logits, and the settings of ``architectures.dynamic_evaluation``."""

    def __init__(
        self, network: FunctionalModule, factor: float, segment_size: int, max_norm: float, decay: float
    ) -> None:
        self.network = network
        self.factor = factor
        self.segment_size = segment_size
        self.max_norm = max_norm
        self.decay = decay
        params = network.named_weights()
        self.names, self.shapes = [*params], [param.shape for param in params.values()]
        self.trained = torch.cat([param.detach().reshape(-1) for param in params.values()])
        self.rates = torch.zeros(())
        """The learning rate of each weight, (weights,). If it is 0, the weights do not change."""

    def initial_row(self) -> Row:
        """Return the state at the start of a document."""
        none = torch.zeros(0, dtype=torch.int64, device=self.trained.device)
        return Row(self.trained, None, None, none, None)

    def set_rates(
        self, learning_rate: float, floor: float, ids: NDArray[Any], offsets: NDArray[np.floating[Any]] | None
    ) -> None:
        """Set the learning rates by the root mean square of the gradients of texts, ids (time, batch).

        ``floor`` is added to the root mean squares, as a fraction of their mean. ``offsets`` (time - 1, batch, vocab)
        are added to the logits.
        """
        squares, count = torch.zeros_like(self.trained), 0
        for i, row in enumerate(self._to_tensor(ids.T)):
            state = None
            for begin in range(0, len(row) - self.segment_size, self.segment_size):
                segment = slice(begin, begin + self.segment_size)
                weights = self.trained.detach().requires_grad_()
                part = None if offsets is None else self._to_tensor(offsets[segment, i])
                logits, state = self._logits(weights, row[segment], state, part)
                squares += gradient(weights, logits, row[begin + 1 : segment.stop + 1]).square()
                count += 1
        scale = (squares / max(1, count)).sqrt()
        self.rates = learning_rate / (scale + floor * scale.mean() + torch.finfo(scale.dtype).tiny)

    def read(
        self, row: Row, tokens: NDArray[Any], offsets: NDArray[np.floating[Any]] | None
    ) -> tuple[NDArray[np.float32], Row]:
        """Read ids (time,) of one text; return logits (time, vocab) and the next state.

        ``offsets`` (time, vocab) are added to the logits.
        """
        ids, logits, begin = self._to_tensor(tokens), [], 0
        segment: tuple[Tensor, Tensor] | None = None  # the weights and logits of a segment that was read at once
        while begin < len(ids):
            if len(row.ids) == self.segment_size:
                row, segment = self._learn(row, ids[begin], segment), None
            taken = slice(begin, begin + self.segment_size - len(row.ids))
            begin, part = taken.stop, None if offsets is None else self._to_tensor(offsets[taken])
            is_whole = len(ids[taken]) == self.segment_size
            weights = row.weights.detach().requires_grad_(is_whole)
            with torch.set_grad_enabled(is_whole):
                output, state = self._logits(weights, ids[taken], row.state, part)
            if is_whole:
                segment = weights, output
            logits.append(output.detach().float().cpu().numpy())
            joined = part if row.offsets is None or part is None else torch.cat([row.offsets, part])
            row = row._replace(state=state, ids=torch.cat([row.ids, ids[taken]]), offsets=joined)
        return np.concatenate(logits), row

    def _to_tensor(self, array: NDArray[Any]) -> Tensor:
        return torch.as_tensor(array, device=self.trained.device)

    def _learn(self, row: Row, next_id: Tensor, segment: tuple[Tensor, Tensor] | None) -> Row:
        """Take one step of gradient descent on a complete segment, and start the next one, with the token after it.

        ``segment`` has the weights and the logits of the segment if they have been computed with gradients.
        """
        if segment is None:
            weights = row.weights.detach().requires_grad_()
            segment = weights, self._logits(weights, row.ids, row.start, row.offsets)[0]
        g = gradient(*segment, torch.cat([row.ids[1:], next_id[None]]))
        norm = float(g.norm())
        step = min(1.0, self.max_norm / norm) if norm > 0 else 0.0
        weights = row.weights.detach()
        if math.isfinite(norm):
            weights = weights.addcmul(g, self.rates, value=-step).lerp_(self.trained, self.decay)
        return Row(weights, row.state, row.state, row.ids[:0], None)

    def _logits(self, weights: Tensor, ids: Tensor, state: Any, offsets: Tensor | None) -> tuple[Tensor, Any]:
        """Compute logits (time, vocab) and the next state, without its gradients, from ids (time,)."""
        parts = torch.split(weights, [shape.numel() for shape in self.shapes])
        p = unflatten({n: part.view(s) for n, part, s in zip(self.names, parts, self.shapes, strict=True)})
        features, state = self.network.features_with(p, ids[:, None], state)
        logits = self.factor * self.network.logits_with(p, features)[:, 0]
        return logits if offsets is None else logits + offsets, tree_map(torch.detach, state)


def gradient(weights: Tensor, logits: Tensor, targets: Tensor) -> Tensor:
    """Return the gradient of the mean loss by the weights. The targets (time,) may carry labels."""
    loss = cross_entropy(logits, targets % logits.shape[1])
    return torch.autograd.grad(loss, weights)[0]
