"""``FusedLayer``: a recurrent layer whose training runs as compiled code, made from the equation of its cell."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from math import prod
from operator import attrgetter
from types import MappingProxyType, ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import torch
from numba.core.errors import NumbaError
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.function import once_differentiable

from revgen.errors import NotTraceableError
from revgen.networks import jit
from revgen.networks.block import Block
from revgen.networks.compiled import is_cached, load_source
from revgen.networks.fused import element_kernels, matmul_kernels, parallel
from revgen.networks.fused.layer_code import LayerCode, leaves
from revgen.networks.fused.matmul_kernels import Sequence, pack, products_source, transposed_products
from revgen.networks.fused.sequence_code import Key, SequenceWriter
from revgen.ops import tree_map

ALIGNMENT = 64
"""The bytes of a vector: each array starts at a multiple of it."""
TYPES: dict[np.dtype[Any], torch.dtype] = {
    np.dtype(name): getattr(torch, name) for name in ("float32", "float64", "int64", "bool")
}


class FusedLayer:
    """The compiled training of a layer.

    ``dtype`` is the type of the products: "bfloat16", "float32" or "float64"; everything else is in float32 or float64.
    With ``has_dropout``, each call takes the mask of dropout. With ``rounds_output``, the output is in bfloat16 if the
    products are. ``before_compilation`` is called if no machine code is in the cache. Raises NotTraceableError for a
    cell that has no compiled form. Needs Numba.
    """

    def __init__(
        self,
        block: Block,
        dtype: str,
        has_dropout: bool = False,
        rounds_output: bool = False,
        before_compilation: Callable[[], None] | None = None,
    ) -> None:
        self.code = LayerCode(block, dtype, has_dropout, rounds_output)
        self.layouts: dict[Any, _Layout] = {}
        imported = element_kernels, jit, matmul_kernels, parallel
        sources = (
            self.code.forward.source(is_reversed=False),
            self.code.backward.source(is_reversed=True),
            products_source(dtype),
        )
        if before_compilation is not None and not all(is_cached(source, *imported) for source in sources):
            before_compilation()
        try:
            self.forward, self.backward, self.products = (load_source(source, *imported) for source in sources)
        except NumbaError as error:
            raise NotTraceableError(f"Numba cannot compile the cell: {str(error).strip().splitlines()[0]}") from error

    def __call__(self, p: SimpleNamespace, x: Tensor, state: Any, mask: Tensor | None = None) -> tuple[Tensor, Any]:
        """Run the layer over a sequence: (time, batch, input) and a state -> (time, batch, output) and a state.

        ``p`` is as in ``Block``, and ``mask`` (batch, output) is the factor of dropout.
        """
        arrays = leaves(state)
        weights = [attrgetter(name)(p) for name in self.code.params]
        y, *last = _Sequence.apply(self, mask, len(arrays), x, *arrays, *weights)  # type: ignore[no-untyped-call]
        return y, tree_map(lambda _: last.pop(0), state)


class _Layout:
    """The positions of the arrays of a pass in one block of memory. Arrays in ``given`` are outside of it."""

    def __init__(self, writer: SequenceWriter, time: int, batch: int, given: Collection[Key]) -> None:
        sizes = {"time": time, "time + 1": time + 1, "batch": batch, "threads": torch.get_num_threads()}
        self.shapes = {
            key: [sizes[size] if isinstance(size, str) else size for size in writer.shape(key)] for key in writer.arrays
        }
        self.types = {key: _type_of(writer, key) for key in writer.arrays}
        self.offsets: dict[Key, int] = {}
        self.strides: dict[Key, int] = {}
        """The bytes from one time step to the next."""
        self.size = 0
        for key, shape in self.shapes.items():
            num_bytes = prod(shape) * self.types[key].itemsize
            self.strides[key] = num_bytes // shape[0]
            if key not in given:
                self.offsets[key] = self.size
                self.size += -(-num_bytes // ALIGNMENT) * ALIGNMENT
        self.zeroed: list[Key] = []
        self.states: list[tuple[Key, int]] = []
        self.copied: list[tuple[Key, Key, int]] = []
        """The operands that are inputs in another type: the array, the input, and the size of a row."""
        for key in self.offsets:
            (kind, i), size = key, writer.operations[key[1]].size
            if kind == "sum" or writer.width(key) > size:
                self.zeroed.append(key)
            if kind in ("state", "state operand"):
                self.states.append((key, size))
            if kind == "operand" and ("value", i) in given:
                self.copied.append((key, ("value", i), size))


def _type_of(writer: SequenceWriter, key: Key) -> torch.dtype:
    """Return the type of the elements of an array."""
    if writer.is_bfloat16(key):
        return torch.bfloat16
    if key[0] == "value":
        return TYPES[writer.operations[key[1]].dtype]
    return TYPES[np.dtype("float64" if writer.dtype == "float64" else "float32")]


class _Pass:
    """The arrays of one pass over a sequence, forward or backward.

    ``inputs`` are arrays that are given, and ``saved`` those of another pass: its arrays and their times.
    """

    def __init__(
        self,
        layouts: dict[Any, _Layout],
        writer: SequenceWriter,
        time: int,
        batch: int,
        inputs: Mapping[Key, Tensor],
        saved: Mapping[Key, tuple[_Pass, Key, str]] = MappingProxyType({}),
    ) -> None:
        key = writer.keeps_states, time, batch, torch.get_num_threads()
        if key not in layouts:
            layouts[key] = _Layout(writer, time, batch, {*inputs, *saved})
        self.writer, self.layout = writer, layouts[key]
        self.time, self.batch = time, batch
        self.inputs, self.saved = inputs, saved
        self.memory = torch.empty(self.layout.size, dtype=torch.uint8)
        self.begin = self.memory.data_ptr()

    def array(self, key: Key) -> Tensor:
        """Return an array."""
        if key in self.inputs:
            return self.inputs[key]
        if key in self.saved:
            other, source, time = self.saved[key]
            return other.sequence(source, time)
        begin, layout = self.layout.offsets[key], self.layout
        end = begin + layout.strides[key] * layout.shapes[key][0]
        return self.memory[begin:end].view(layout.types[key]).view(layout.shapes[key])

    def address(self, key: Key, time: str = "t") -> int:
        """Return the address of the values of an array at all time steps."""
        if key in self.inputs:
            return self.inputs[key].data_ptr()
        if key in self.saved:
            other, source, time = self.saved[key]
            return other.address(source, time)
        return self.begin + self.layout.offsets[key] + (self.layout.strides[key] if time == "new" else 0)

    def sequence(self, key: Key, time: str) -> Tensor:
        """Return the values of an array at all time steps: (time, batch, size)."""
        array = self.array(key)
        return array[:-1] if time == "old" else array[1:] if time == "new" else array

    def operand(self, key: Key, time: str) -> Sequence:
        """Return the values of an array at all time steps by their address and size."""
        return self.address(key, time), self.writer.width(key)

    def run(self, module: ModuleType, weights: Mapping[str, NDArray[Any]], states: Mapping[int, Tensor]) -> None:
        """Run the compiled code from the initial states, each (batch, …)."""
        writer = self.writer
        for key in self.layout.zeroed:
            self.array(key).zero_()
        for key, source, size in self.layout.copied:
            self.array(key)[..., :size] = self.array(source)
        for key, size in self.layout.states:
            self.array(key)[0, :, :size] = states[key[1]].reshape(self.batch, -1)
        fixed = writer.schedule.program.compute(writer.schedule.fixed, weights)
        buffers = [np.ascontiguousarray(fixed[i]) for i, _ in writer.weights]
        buffers += [pack(fixed[i], writer.dtype) for i in writer.matrices]
        addresses = [self.address(key) for key in writer.arrays] + [buffer.ctypes.data for buffer in buffers]
        parallel.run(module.run, self.batch, self.time, addresses)

    def last_state(self, i: int, like: Tensor) -> Tensor:
        """Return the state after the last step, in the shape of ``like``."""
        array = self.array(("state", i))
        return array[self.time % len(array)].reshape(like.shape).clone()


class _Sequence(torch.autograd.Function):
    """A layer over a sequence.

    The arguments are the layer, the mask of dropout, the number of states, x, the states and the weights.
    """

    @staticmethod
    def forward(
        ctx: Any, layer: FusedLayer, mask: Tensor | None, num_states: int, x: Tensor, *tensors: Tensor
    ) -> tuple[Tensor, ...]:
        code, number = layer.code, torch.float64 if layer.code.dtype == "float64" else torch.float32
        states = tensors[:num_states]
        weights = zip(code.params, tensors[num_states:], strict=True)
        ctx.layer, ctx.number = layer, number
        ctx.weights = {f"p.{name}": weight.detach().numpy() for name, weight in weights}
        inputs: dict[Key, Tensor] = {("value", code.x): x.detach().to(number).contiguous()}
        if mask is not None:
            inputs |= {("row", i): mask.to(number).contiguous() for i in code.mask}
        ctx.run = run = _Pass(layer.layouts, code.forward, x.shape[0], x.shape[1], inputs)
        run.run(layer.forward, ctx.weights, dict(zip(code.states, states, strict=True)))
        y = run.sequence(*code.forward.source_of(code.y)).view(*x.shape[:2], *code.operations[code.y].shape[1:])
        return y, *(run.last_state(i, state) for i, state in zip(code.states, states, strict=True))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor, *d_states: Tensor) -> tuple[Any, ...]:
        code, forward = ctx.layer.code, ctx.run
        inputs: dict[Key, Tensor] = {
            ("value", code.dy): dy.to(torch.bfloat16 if code.rounds_output else ctx.number).contiguous()
        }
        saved = {key: (forward, *source) for key, source in code.sources.items()}
        run = _Pass(ctx.layer.layouts, code.backward, forward.time, forward.batch, inputs, saved)
        run.run(ctx.layer.backward, ctx.weights, dict(zip(code.d_states, d_states, strict=True)))
        gradients: dict[int, Any] = {}
        for i, g in code.results["sums"].items():
            gradients[i] = run.array(("sum", code.backward.schedule.without_reshapes(g))).sum(0).numpy()
        matrices, pairs = [], []
        for i, right in code.results["products"].items():
            for (x, _), g in zip(code.gradient.products[i], right, strict=True):
                matrices.append(i)
                a = forward.operand(*code.forward.operand(code.gradient.sources[x]))
                pairs.append((a, run.operand(*code.backward.operand(g))))
        products = transposed_products(ctx.layer.products, pairs, run.time, run.batch, code.dtype)
        for i, product in zip(matrices, products, strict=True):
            rows, columns = code.operations[i].shape
            gradients[i] = gradients.get(i, 0) + product[:rows, :columns].numpy()
        weights = code.weight_gradients(ctx.weights, gradients)
        return (
            None,
            None,
            None,
            run.sequence(*code.backward.source_of(code.results["x"])),
            *(run.last_state(i, d) for i, d in zip(code.d_states, d_states, strict=True)),
            *(
                torch.from_numpy(np.ascontiguousarray(weights[name])) if name in weights else None
                for name in code.params
            ),
        )
