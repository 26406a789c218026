"""Tools for tests of compiled layers: gradients of a layer, and generated code that Python runs without Numba."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from revgen.networks.block import Block
from revgen.networks.fused.layer_code import nest
from revgen.ops import tree_map

Layer = Callable[[Any, Tensor, Any, Tensor | None], tuple[Tensor, Any]]
"""A function of the parameters, x (time, batch, input), a state, and the mask of dropout."""


@dataclass
class Sequence:
    """The arguments of a layer, and the gradients of its results."""

    params: dict[str, Tensor]
    x: Tensor
    state: Any
    d_output: Tensor
    d_state: list[Tensor]
    mask: Tensor | None = None

    def run(self, layer: Layer) -> dict[str, Tensor]:
        """Return the output, the last state, and the gradients of all arguments, by name."""
        x = self.x.detach().requires_grad_()
        state = tree_map(lambda a: a.detach().clone().requires_grad_(), self.state)
        params = {name: value.detach().clone().requires_grad_() for name, value in self.params.items()}
        y, last = layer(nest(params), x, state, self.mask)
        outputs = [y, *leaves(last)]
        arguments = {"dx": x, **{f"d_state.{i}": a for i, a in enumerate(leaves(state))}}
        arguments |= {f"dp.{name}": value for name, value in params.items()}
        loss = sum((a * b).sum() for a, b in zip(outputs, [self.d_output, *self.d_state], strict=True))
        gradients = torch.autograd.grad(loss, list(arguments.values()), allow_unused=True)
        results = {"y": y} | {f"last.{i}": array for i, array in enumerate(outputs[1:])}
        for (name, argument), gradient in zip(arguments.items(), gradients, strict=True):
            results[name] = torch.zeros_like(argument) if gradient is None else gradient
        return {name: array.detach() for name, array in results.items()}


def leaves(tree: Any) -> list[Any]:
    """Return the arrays of a nested state."""
    arrays: list[Any] = []
    tree_map(arrays.append, tree)
    return arrays


def reference(block: Block) -> Layer:
    """Return the layer in PyTorch's operations."""

    def run(p: Any, x: Tensor, state: Any, mask: Tensor | None) -> tuple[Tensor, Any]:
        y, state = block.cell.sequence(p.layer, block.cell.project(p.layer, block.enter(p, x)), state)
        return block.leave(p, x, y if mask is None else y * mask), state

    return run


def random_sequence(
    block: Block,
    dtype: torch.dtype = torch.float64,
    time: int = 6,
    batch: int = 5,
    seed: int = 0,
    scale: float = 0.5,
    has_dropout: bool = False,
) -> Sequence:
    """Return random arguments for a layer; ``scale`` is the standard deviation of parameters and states."""
    cell = block.cell
    generator = torch.Generator().manual_seed(seed)

    def normal(shape: tuple[int, ...], scale: float = 1.0) -> Tensor:
        return (scale * torch.randn(shape, generator=generator, dtype=torch.float64)).to(dtype)

    params = {name: normal(shape, scale) for name, shape in block.param_shapes().items()}
    x = normal((time, batch, cell.input_size))
    state = cell.initial_state(batch, lambda shape: normal(shape, scale))
    mask = normal((batch, cell.output_size)) if has_dropout else None
    y, last = reference(block)(nest(params), x, state, mask)
    d_state = [normal(tuple(array.shape)) for array in leaves(last)]
    return Sequence(params, x, state, normal(tuple(y.shape)), d_state, mask)


def compare_with_pytorch(layer: Layer, block: Block, tolerance: float, **options: Any) -> None:
    """Check that results and gradients agree with PyTorch's in float64, relative to the largest element of each."""
    sequence, exact = random_sequence(block, **options), random_sequence(block, **options | {"dtype": torch.float64})
    actual, expected = sequence.run(layer), exact.run(reference(block))
    for name, array in expected.items():
        assert actual[name].shape == array.shape, name
        assert actual[name].dtype == (sequence.x.dtype if array.is_floating_point() else array.dtype), name
        scale = float(array.abs().max()) or 1.0
        np.testing.assert_allclose(actual[name] / scale, array / scale, rtol=0, atol=tolerance, err_msg=name)


def load_in_python(source: str, *imported: ModuleType) -> Any:
    """Return the generated module as Python runs it: the same results as compiled code, for a few elements only.

    A function of ``revgen.networks.fused.layer``, which tests replace.
    """
    scope: dict[str, Any] = {
        "np": np,
        "as_pointer": lambda address: address,
        "carray": _array_at,
        "compiled": lambda function: function,
        "rows": lambda function: function,
        "thread_rows": lambda table: (0, table[2], 0),
        "multiply": multiply_in_python,
        "add_transposed": add_transposed_in_python,
        "from_bfloat16": lambda bits: from_bfloat16(np.asarray(bits)).reshape(())[()],
        "to_bfloat16": lambda x: to_bfloat16(np.asarray(x)).reshape(())[()],
        "round_row": round_in_python,
        "exp": np.exp,
        "log": np.log,
        "tanh": np.tanh,
        "sigmoid": lambda x: x.dtype.type(0.5) + x.dtype.type(0.5) * np.tanh(x.dtype.type(0.5) * x),
        "softplus": lambda x: np.logaddexp(x, x.dtype.type(0)),
    }
    code = "\n".join(line for line in source.splitlines() if not line.startswith(("import", "from")))
    exec(code, scope)

    def call(pointer: Any) -> None:
        length = scope["run"].__code__.co_nlocals + 64
        with np.errstate(all="ignore"):
            scope["run"](np.ctypeslib.as_array(pointer, (length,)))

    return SimpleNamespace(run=SimpleNamespace(ctypes=call))


def _array_at(address: int, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
    dtype = np.dtype(dtype)
    size = int(np.prod(shape)) * dtype.itemsize
    return np.frombuffer((ctypes.c_char * size).from_address(int(address)), dtype).reshape(shape)


def multiply_in_python(a: NDArray[Any], packed: NDArray[Any], c: NDArray[Any]) -> None:
    """Compute C = A B as ``networks.fused.matmul_kernels`` does, from a packed matrix."""
    is_bfloat16 = packed.dtype in (np.uint16, np.uint32)
    panels, rows, width = packed.shape[:3]
    numbers = (packed.view(np.uint16) if is_bfloat16 else packed).reshape(panels, rows, width, -1)
    pair = numbers.shape[-1]
    matrix = numbers.transpose(1, 3, 0, 2).reshape(rows * pair, panels * width)
    if is_bfloat16:
        a, matrix = from_bfloat16(a), from_bfloat16(matrix)
    c[:, : panels * width] = a[:, : rows * pair] @ matrix


def round_in_python(x: NDArray[Any], i: int, out: NDArray[Any], j: int, size: int) -> None:
    """Round elements of a row as ``networks.jit.round_row`` does."""
    out[j : j + size] = to_bfloat16(x[i : i + size])


def add_transposed_in_python(a: NDArray[Any], b: NDArray[Any], c: NDArray[Any], begin: int, end: int) -> None:
    """Add A' B to C for some rows as ``networks.fused.matmul_kernels`` does."""
    a, b = (array[:, begin:end].reshape(-1, array.shape[2]) for array in (a, b))
    if a.dtype == np.uint16:
        a, b = from_bfloat16(a), from_bfloat16(b)
    c[: a.shape[1], : b.shape[1]] += a.T @ b


def from_bfloat16(bits: NDArray[Any]) -> NDArray[np.float32]:
    """Return bfloat16 numbers, given as their bits, in float32."""
    return (np.atleast_1d(bits).astype(np.uint32) << 16).view(np.float32)


def to_bfloat16(x: NDArray[Any]) -> NDArray[np.uint16]:
    """Round float32 numbers to bfloat16 and return their bits."""
    rounded = torch.from_numpy(np.atleast_1d(x).astype(np.float32)).bfloat16()
    return rounded.view(torch.int16).numpy().view(np.uint16)
