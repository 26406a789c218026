"""The recurrent network in PyTorch: ``networks.stack`` with fused kernels and dropout."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from revgen.cells.cell import Cell, Parameters
from revgen.errors import NotTraceableError
from revgen.model import Weights
from revgen.networks.block import Block
from revgen.networks.module_cell import ModuleCell
from revgen.networks.network import FunctionalModule, dropout_mask
from revgen.networks.stack import Stack
from revgen.ops import tree_map

if TYPE_CHECKING:
    from revgen.networks.fused.layer import FusedLayer

FUSED_KERNELS: Mapping[str, Any] = {
    "lstm": torch.lstm,
    "gru": torch.gru,
    "rnn_tanh": torch.rnn_tanh,
    "rnn_relu": torch.rnn_relu,
}


class RecurrentModule(FunctionalModule):
    """A ``Stack`` as a module that can be trained, with dropout in training mode."""

    def __init__(self, stack: Stack, weights: Weights) -> None:
        super().__init__(stack, weights)
        self.stack = stack
        self.compiled_blocks: dict[Block, FusedLayer] = {}

    def compile_layers(self, before_compilation: Callable[[], None]) -> str | None:
        announce_once = cache(before_compilation)
        try:
            from revgen.networks.fused.layer import FusedLayer
            from revgen.networks.jit import HAS_BFLOAT16

            dtype = "bfloat16" if HAS_BFLOAT16 and self.uses_bf16_matmul(self.device) else "float32"
            for i, block in enumerate(self.stack.blocks):
                has_fast_kernel = isinstance(block.cell, ModuleCell) or block.cell.fused_kernel == "lstm"  # of oneDNN
                if not has_fast_kernel and self.can_compile_dropout(i + 1):
                    has_dropout = self.dropout_rate(i + 1) > 0
                    rounds_output = block.normalizes_output  # as the product of the output layer does
                    layer = FusedLayer(block, dtype, has_dropout, rounds_output, announce_once)
                    self.compiled_blocks[block] = layer
        except NotTraceableError as error:
            self.compiled_blocks = {}
            return f"the layers are trained by PyTorch's operations: {error}"
        except ImportError:
            return None
        return None

    def run_layer(self, cell: Cell, p: Parameters, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Run one layer over a sequence, with PyTorch's fused kernel if there is one.

        Some kernels, and products over all time steps, are faster in bfloat16; products of single steps are not.
        """
        if isinstance(cell, ModuleCell):
            with self.in_bfloat16(False, x.device):
                return cell.run(p, x, state, self.training)
        if cell.fused_kernel is None:
            dtype = self.params[0].dtype
            z = tree_map(lambda a: a.to(dtype), cell.project(p, x))
            is_stepwise = type(cell).sequence is Cell.sequence
            with self.in_bfloat16(not is_stepwise and self.uses_bf16_matmul(x.device), x.device):
                y, state = cell.sequence(p, z, state)
            return y.to(dtype), state
        is_fast, on_cpu = self.training and bf16_rnn_is_fast(cell, x.device), x.device.type == "cpu"
        with self.in_bfloat16(is_fast and on_cpu, x.device):
            y, state = run_kernel(cell, p, x, state, torch.bfloat16 if is_fast and not on_cpu else None)
        return y.to(x.dtype), state

    def run_block(self, block: Block, p: SimpleNamespace, x: Tensor, state: Any, index: int) -> tuple[Tensor, Any]:
        """Run a block over a sequence: in training with compiled code, if there is any."""
        if not self.training or block not in self.compiled_blocks:
            return super().run_block(block, p, x, state, index)
        mask = self.channel_mask(x, block.cell.output_size, index)
        return self.compiled_blocks[block](p, x, state, mask)

    def dropout(self, x: Tensor, index: int = 0) -> Tensor:
        """Return x (time, batch, size) after dropout of channels, with one mask for all time steps."""
        mask = self.channel_mask(x, x.shape[2], index)
        return x if mask is None else x * mask

    def can_compile_dropout(self, index: int) -> bool:
        """Return whether ``dropout`` of a layer's output only multiplies it with the channel mask."""
        return True

    def channel_mask(self, x: Tensor, size: int, index: int) -> Tensor | None:
        """Return the factor of dropout for channels, (batch, size), or None without dropout."""
        rate = self.dropout_rate(index)
        if not self.training or not rate:
            return None
        part, num_parts = self.batch_slice
        return dropout_mask(x, (x.shape[1] * num_parts, size), rate, self.generator).chunk(num_parts)[part]

    def dropout_rate(self, index: int) -> float:
        """Return the dropout rate for the output of layer i, whose index is i + 1.

        The embedding, index 0, has no dropout: residual connections carry it to all layers, and each layer would lose
        the same channels.
        """
        return float(self.stack.config.dropout or 0) if index else 0.0


def run_kernel(cell: Cell, p: Any, x: Tensor, state: Any, dtype: torch.dtype | None = None) -> tuple[Tensor, Any]:
    """Run one layer with the fused kernel of the cell: x (time, batch, input) -> (time, batch, hidden) and a state.

    ``dtype`` is for cuDNN: autocast would run it in float16, in which small gradients become 0.
    """
    assert cell.fused_kernel is not None
    layered_state = tree_map(lambda a: a[None], state)  # kernels have an axis for layers
    inputs = x, layered_state, cell.fused_kernel_weights(p)
    if dtype is not None:
        inputs = tree_map(lambda a: a.to(dtype), inputs)
    result = FUSED_KERNELS[cell.fused_kernel](*inputs, True, 1, 0.0, x.requires_grad, False, False)
    output, *last = (part if i == 0 else part[0] for i, part in enumerate(result))
    last = [part.to(x.dtype) for part in last] if dtype is not None else last
    return output, tuple(last) if isinstance(state, tuple) else last[0]


def bf16_rnn_is_fast(cell: Cell, device: torch.device) -> bool:
    """Return whether the fused kernel of a cell trains faster in bfloat16.

    On CPUs only oneDNN's LSTM does, and only if the processor supports bfloat16. The other kernels are sequences of
    single steps, which gain little and would round the state at each step. cuDNN needs version 9.13 or later.
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
