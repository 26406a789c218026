"""Muon: momentum for matrices, made orthogonal before each step, so that all directions are learned at the same speed.

    M = μ M + (1 - μ) G
    U = orthogonalize((1 - μ) G + μ M)                U' U ≈ 1, or U U' ≈ 1
    W = (1 - rate × decay) W - rate × 0.2 √max(rows, columns) U

The last factor gives an update the size that an update of AdamW has, so both take the same learning rate. Per token of
text, a transformer learns faster than with AdamW.

(Jordan et al. 2024, *Muon: an optimizer for hidden layers in neural networks*; Liu et al. 2025, *Muon is scalable for
LLM training*, for the factor and the weight decay.)
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

ITERATIONS = 5
COEFFICIENTS = 3.4445, -4.7750, 2.0315
"""Jordan's coefficients of the iteration: singular values quickly approach the range from 0.7 to 1.2."""
UPDATE_SIZE = 0.2
"""The root mean square of the elements of an update, relative to the learning rate."""


class Muon(torch.optim.Optimizer):
    """An optimizer for matrices.

    A group of parameters may have a number of ``blocks``: that many matrices, joined along their columns, are made
    orthogonal on their own. ``dtype`` is the precision in which they are made orthogonal.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float | Tensor,
        weight_decay: float,
        momentum: float = 0.95,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.dtype = dtype
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum, "blocks": 1})

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        """Update all matrices that have a gradient."""
        for group in self.param_groups:
            params = [param for param in group["params"] if param.grad is not None]
            momenta = [self._momentum(param) for param in params]
            gradients = [param.grad for param in params]
            torch._foreach_lerp_(momenta, gradients, 1 - group["momentum"])
            directions = torch._foreach_lerp(gradients, momenta, group["momentum"])
            rate, decay = group["lr"], 1 - group["lr"] * group["weight_decay"]
            torch._foreach_mul_(params, decay)
            blocks = [block for matrix in params for block in matrix.chunk(group["blocks"], 1)]
            updates = [block for matrix in directions for block in matrix.chunk(group["blocks"], 1)]
            for block, update in zip(blocks, self._orthogonalize_all(updates), strict=True):
                block.sub_(update.to(block.dtype) * (rate * UPDATE_SIZE * max(block.shape) ** 0.5))

    def _momentum(self, param: Tensor) -> Tensor:
        """Return the momentum of a parameter, which starts at 0."""
        state = self.state[param]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(param)
        momentum: Tensor = state["momentum"]
        return momentum

    def _orthogonalize_all(self, matrices: Iterable[Tensor]) -> list[Tensor]:
        """Return ``orthogonalize`` of each matrix; matrices of equal shapes are computed together."""
        wide = [matrix.mT if matrix.shape[0] > matrix.shape[1] else matrix for matrix in matrices]
        results = list(wide)
        for shape in dict.fromkeys(matrix.shape for matrix in wide):
            indices = [i for i, matrix in enumerate(wide) if matrix.shape == shape]
            updates = orthogonalize(torch.stack([wide[i] for i in indices]).to(self.dtype))
            for i, update in zip(indices, updates, strict=True):
                results[i] = update
        return [
            update.mT if matrix.shape != update.shape else update
            for matrix, update in zip(matrices, results, strict=True)
        ]


def orthogonalize(x: Tensor) -> Tensor:
    """Return matrices whose singular values are near 1, with the singular vectors of ``x``: (n, rows, columns).

    Each iteration applies an odd polynomial to the singular values (Newton-Schulz). ``rows`` is at most ``columns``.
    """
    a, b, c = COEFFICIENTS
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(ITERATIONS):
        square = x @ x.mT
        polynomial = torch.baddbmm(square, square, square, beta=b, alpha=c)
        x = torch.baddbmm(x, polynomial, x, beta=a)
    return x
