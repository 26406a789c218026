"""``FusedLayer``: a recurrent layer whose training runs as compiled code, made from the equation of its cell."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from operator import attrgetter
from types import ModuleType, SimpleNamespace
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
from revgen.networks.fused.matmul_kernels import pack, products_source, to_bits, transposed_products
from revgen.networks.fused.sequence_code import Key, SequenceWriter
from revgen.ops import tree_map


class FusedLayer:
    """The compiled training of a layer.

    ``dtype`` is the type of the products: "bfloat16", "float32" or "float64"; everything else is in float32 or float64.
    With ``has_dropout``, each call takes the mask of dropout. ``before_compilation`` is called if no machine code is in
    the cache. Raises NotTraceableError for a cell that has no compiled form. Needs Numba.
    """

    def __init__(
        self,
        block: Block,
        dtype: str,
        has_dropout: bool = False,
        before_compilation: Callable[[], None] | None = None,
    ) -> None:
        self.code = LayerCode(block, dtype, has_dropout)
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


class _Pass:
    """The arrays of one pass over a sequence, forward or backward."""

    def __init__(self, writer: SequenceWriter, inputs: Mapping[str, NDArray[Any]], time: int, batch: int) -> None:
        self.writer = writer
        self.inputs = inputs
        self.time, self.batch = time, batch
        self.number = torch.float64 if writer.dtype == "float64" else torch.float32
        self.arrays: dict[Key, Tensor] = {}

    def run(self, module: ModuleType, states: Mapping[int, Tensor]) -> None:
        """Run the compiled code from the initial states, each (batch, …)."""
        writer = self.writer
        for i, state in states.items():
            for key in (("state", i), ("state operand", i)):
                if key in writer.arrays or key[0] == "state":
                    self.array(key)[0][:, : writer.operations[i].size] = state.reshape(self.batch, -1)
        fixed = writer.schedule.program.compute(writer.schedule.fixed, self.inputs)
        buffers = [to_bits(self.array(key)) for key in writer.arrays]
        buffers += [np.ascontiguousarray(fixed[i]) for i, _ in writer.weights]
        buffers += [pack(fixed[i], writer.dtype) for i in writer.matrices]
        parallel.run(module.run, self.batch, self.time, [buffer.ctypes.data for buffer in buffers])

    def array(self, key: Key) -> Tensor:
        """Return an array, which is created if it is missing."""
        if key not in self.arrays:
            self.arrays[key] = self._create(key)
        return self.arrays[key]

    def _create(self, key: Key) -> Tensor:
        (kind, i), writer = key, self.writer
        width = writer.width(key)
        if kind == "sum":
            return torch.zeros(torch.get_num_threads(), width, dtype=self.number)
        dtype = torch.bfloat16 if writer.is_bfloat16(key) else self.number
        if kind == "value":
            dtype = dtype if writer.is_bfloat16(key) else getattr(torch, str(writer.operations[i].dtype))
        if kind == "operand" and ("value", i) in self.arrays and i not in writer.schedule.positions:  # an input
            return torch.nn.functional.pad(self.arrays["value", i].to(dtype), (0, width - writer.operations[i].size))
        depth = self.time if "state" not in kind else self.time + 1 if writer.keeps_states else 2
        is_padded = width > writer.operations[i].size
        return (torch.zeros if is_padded else torch.empty)(depth, self.batch, width, dtype=dtype)

    def sequence(self, key: Key, time: str) -> Tensor:
        """Return the values of an array at all time steps: (time, batch, size)."""
        array = self.array(key)
        return array[:-1] if time == "old" else array[1:] if time == "new" else array

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
        code = layer.code
        states, weights = tensors[:num_states], tensors[num_states:]
        inputs = {f"p.{name}": weight.detach().numpy() for name, weight in zip(code.params, weights, strict=True)}
        run = _Pass(code.forward, inputs, *x.shape[:2])
        run.arrays["value", code.x] = x.detach().to(run.number).contiguous()
        if mask is not None:
            run.arrays.update({("row", i): mask.to(run.number).contiguous() for i in code.mask})
        run.run(layer.forward, dict(zip(code.states, states, strict=True)))
        ctx.layer, ctx.run = layer, run
        y = run.sequence(*code.forward.source_of(code.y)).view(*x.shape[:2], *code.operations[code.y].shape[1:])
        return y, *(run.last_state(i, state) for i, state in zip(code.states, states, strict=True))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor, *d_states: Tensor) -> tuple[Any, ...]:
        code, forward = ctx.layer.code, ctx.run
        run = _Pass(code.backward, forward.inputs, forward.time, forward.batch)
        for name, i in code.sequences.items():
            run.arrays["value", i] = _saved(code, forward, name, dy)
        for mask, i in zip(code.mask, code.backward.rows, strict=True):
            run.arrays["row", i] = forward.arrays["row", mask]
        run.run(ctx.layer.backward, dict(zip(code.d_states, d_states, strict=True)))
        gradients: dict[int, Any] = {}
        for i, g in code.results["sums"].items():
            gradients[i] = run.array(("sum", code.backward.schedule.without_reshapes(g))).sum(0).numpy()
        matrices, pairs = [], []
        for i, right in code.results["products"].items():
            for (x, _), g in zip(code.gradient.products[i], right, strict=True):
                a = forward.sequence(*code.forward.operand(code.gradient.sources[x]))
                b = run.sequence(*code.backward.operand(g))
                matrices.append(i)
                pairs.append((a.flatten(0, 1), b.flatten(0, 1)))
        for i, product in zip(matrices, transposed_products(ctx.layer.products, pairs, code.dtype), strict=True):
            rows, columns = code.operations[i].shape
            gradients[i] = gradients.get(i, 0) + product[:rows, :columns].numpy()
        weights = code.weight_gradients(forward.inputs, gradients)
        dx = run.sequence(*code.backward.source_of(code.results["x"]))
        return (
            None,
            None,
            None,
            dx,
            *(run.last_state(i, d) for i, d in zip(code.d_states, d_states, strict=True)),
            *(
                torch.from_numpy(np.ascontiguousarray(weights[name])) if name in weights else None
                for name in code.params
            ),
        )


def _saved(code: LayerCode, forward: _Pass, name: str, dy: Tensor) -> Tensor:
    """Return an input of the backward pass, by its name."""
    if name == "d.0":
        return dy.to(forward.number).contiguous()
    group, _, number = name.partition(".")
    if group == "saved":
        return forward.sequence(*code.forward.source_of(int(number)))
    return forward.sequence(*code.forward.source_of(code.inputs[name]))
