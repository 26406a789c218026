"""The recurrent network in PyTorch: the equation of ``stack`` with fused kernels and dropout."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from revgen.cells.cell import Cell, Parameters
from revgen.model import Weights
from revgen.networks.module_cell import ModuleCell
from revgen.networks.network import FunctionalModule, bf16_matmul_is_fast, dropout_mask
from revgen.networks.stack import Stack
from revgen.ops import tree_map

KERNELS: Mapping[str, Any] = {
    "lstm": torch.lstm,
    "gru": torch.gru,
    "rnn_tanh": torch.rnn_tanh,
    "rnn_relu": torch.rnn_relu,
}


class RecurrentModule(FunctionalModule):
    """A stack of any cell, ready to train; ``dropout`` works in training mode."""

    def __init__(self, stack: Stack, weights: Weights) -> None:
        super().__init__(stack, weights)
        self.stack = stack

    def run_layer(self, cell: Cell, p: Parameters, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        """One layer: by PyTorch's sequence kernel where the cell names one.

        In bfloat16 is what gains from it: some kernels, and products over all time steps; not those of single steps.
        """
        if isinstance(cell, ModuleCell):
            with self.in_bfloat16(False, x.device):
                return cell.run(p, x, state, self.training)
        if cell.fused_kernel is None:
            dtype = self.params[0].dtype
            z = tree_map(lambda a: a.to(dtype), cell.project(p, x))
            steps = type(cell).sequence is Cell.sequence
            with self.in_bfloat16(not steps and bf16_matmul_is_fast(x.device), x.device):
                y, state = cell.sequence(p, z, state)
            return y.to(dtype), state
        fast, on_cpu = self.training and bf16_rnn_is_fast(cell, x.device), x.device.type == "cpu"
        with self.in_bfloat16(fast and on_cpu, x.device):
            y, state = run_kernel(cell, p, x, state, torch.bfloat16 if fast and not on_cpu else None)
        return y.to(x.dtype), state

    def dropout(self, x: Tensor, index: int = 0) -> Tensor:
        """Leave out channels, the same at every time step (Gal & Ghahramani 2016): x (time, batch, size)."""
        rate = self.dropout_rate(index)
        if not self.training or not rate:
            return x
        part, parts = self.batch_slice
        return x * dropout_mask(x, (x.shape[1] * parts, x.shape[2]), rate, self.generator).chunk(parts)[part]

    def dropout_rate(self, index: int) -> float:
        """The share that is left out behind layer i, site i + 1. The embedding, site 0, stays whole: what residual
        connections carry past all layers would be lost to each of them."""
        return float(self.stack.config.dropout or 0) if index else 0.0


def run_kernel(cell: Cell, p: Any, x: Tensor, state: Any, dtype: torch.dtype | None = None) -> tuple[Tensor, Any]:
    """One layer by the fused kernel of the cell: x (time, batch, input) -> (time, batch, hidden), state.

    ``dtype`` is for cuDNN, which autocast would run in float16: small gradients are 0 there.
    """
    assert cell.fused_kernel is not None
    first = tree_map(lambda a: a[None], state)  # kernels have an axis for layers
    given = x, first, cell.fused_kernel_weights(p)
    if dtype is not None:
        given = tree_map(lambda a: a.to(dtype), given)
    result = KERNELS[cell.fused_kernel](*given, True, 1, 0.0, x.requires_grad, False, False)
    output, *last = (part if i == 0 else part[0] for i, part in enumerate(result))
    last = [part.to(x.dtype) for part in last] if dtype is not None else last
    return output, tuple(last) if isinstance(state, tuple) else last[0]


def bf16_rnn_is_fast(cell: Cell, device: torch.device) -> bool:
    """Whether the sequence kernel trains faster in bfloat16.

    On a CPU only oneDNN's LSTM does, and without the processor's support it is many times slower; the other
    kernels are put together from single steps, which gain little and round the state at each. cuDNN has it since 9.13.
    """
    if device.type == "cuda":
        version = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
        return bool(torch.cuda.is_bf16_supported()) and (version or 0) >= 91300
    return (
        device.type == "cpu"
        and cell.fused_kernel == "lstm"
        and bool(torch.backends.mkldnn.enabled)
        and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    )
