"""``trace``: record the operations of a function by calling it with traced arrays.

A ``TracedArray`` has the methods of a tensor that ``revgen.ops`` uses, and its ``library`` has the functions of PyTorch
that ``revgen.ops`` uses. So an equation that is written in these operators runs on traced arrays unchanged.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from revgen.compiler.primitives import PRIMITIVES
from revgen.compiler.program import Operation, Program
from revgen.errors import NotTraceableError
from revgen.ops import MAX_LOGIT, attention_weights, tree_map


class Recorder:
    """The operations that have been recorded so far. Equal operations are recorded once."""

    def __init__(self) -> None:
        self.operations: list[Operation] = []
        self.composite = ""
        self._index: dict[Any, int] = {}

    def input(self, name: str, example: NDArray[Any]) -> TracedArray:
        """Add an input of the shape and type of ``example``."""
        return self.add("input", (), np.zeros_like(example), {"name": name})

    def constant(self, value: Any, like: np.dtype[Any] | None = None) -> TracedArray:
        """Add a constant. A Python number gets a type that suits an array of the type ``like``."""
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        value = np.asarray(value, None if like is None or not is_number else _number_dtype(value, like))
        return self.add("constant", (), value, {"value": value})

    def record(self, name: str, *arguments: TracedArray, **attributes: Any) -> TracedArray:
        """Add an operation, or find an equal one. Running the primitive on examples gives the shape and type."""
        with np.errstate(all="ignore"):
            example = PRIMITIVES[name](*(a.example for a in arguments), **attributes)
        if all(self.operations[a.index].name == "constant" for a in arguments):
            return self.constant(example)
        return self.add(name, tuple(a.index for a in arguments), np.asarray(example), attributes)

    def replay(self, operation: Operation, values: Mapping[int, TracedArray]) -> TracedArray:
        """Add an operation of another program, whose inputs have been recorded as ``values``."""
        if operation.name == "input":
            return self.input(operation.attributes["name"], np.zeros(operation.shape, operation.dtype))
        if operation.name == "constant":
            return self.constant(operation.attributes["value"])
        return self.record(operation.name, *(values[j] for j in operation.inputs), **operation.attributes)

    def add(self, name: str, inputs: tuple[int, ...], example: NDArray[Any], attributes: dict[str, Any]) -> TracedArray:
        """Add an operation, or find an equal one; ``example`` has the shape and type of its result."""
        key = (name, inputs, tuple((k, _hashable(v)) for k, v in sorted(attributes.items())))
        if key not in self._index:
            self._index[key] = len(self.operations)
            self.operations.append(Operation(name, inputs, example.shape, example.dtype, attributes, self.composite))
        # Only constants keep their values: any other example represents all arrays of its shape.
        return TracedArray(self, self._index[key], example if name == "constant" else np.zeros_like(example))


def _composite(function: Callable[..., Any]) -> Callable[..., Any]:
    """Mark the operations that a function of a traced array records as parts of one operator."""
    name = function.__name__.strip("_").replace("_", " ")

    def apply(x: TracedArray, *arguments: Any, **options: Any) -> Any:
        recorder, outer = x.recorder, x.recorder.composite
        recorder.composite = outer or f"{name} {len(recorder.operations)}"
        try:
            return function(x, *arguments, **options)
        finally:
            recorder.composite = outer

    return apply


def _number_dtype(value: object, like: np.dtype[Any]) -> np.dtype[Any]:
    """Return the type of a Python number next to an array of the type ``like``, as in NumPy and PyTorch."""
    if like.kind == "f":
        return like
    if isinstance(value, float):
        return np.dtype(np.float32)
    return like if like.kind in "iu" else np.dtype(np.int64)


def _hashable(value: Any) -> Any:
    return (value.dtype.str, value.shape, value.tobytes()) if isinstance(value, np.ndarray) else value


def _binary(name: str, swapped: bool = False) -> Callable[[Any, Any], Any]:
    """Return a method for an operator between a traced array and an array or a number."""

    def apply(x: TracedArray, y: Any) -> TracedArray:
        other = x._traced(y)
        return other._record(name, x) if swapped else x._record(name, other)

    return apply


def _unary(name: str, **attributes: Any) -> Callable[[Any], Any]:
    """Return a method for an operation on one traced array."""
    return lambda x: x._record(name, **attributes)


class TracedArray:
    """An array whose shape and type are known, but whose values are not."""

    __array_ufunc__ = None  # so that NumPy leaves operators between its arrays and traced arrays to this class
    device = None

    def __init__(self, recorder: Recorder, index: int, example: NDArray[Any]) -> None:
        self.recorder = recorder
        self.index = index
        self.example = example

    @property
    def library(self) -> SimpleNamespace:
        """The functions of PyTorch that ``revgen.ops`` calls, for traced arrays."""
        return LIBRARY

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape."""
        return self.example.shape

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return self.example.ndim

    @property
    def dtype(self) -> np.dtype[Any]:
        """The NumPy type of the elements."""
        return self.example.dtype

    def __len__(self) -> int:
        return len(self.example)

    def __iter__(self) -> Iterator[TracedArray]:
        return (self[i] for i in range(len(self)))

    def _unknown(self, *_: Any) -> NoReturn:
        raise NotTraceableError("the equation depends on the value of an array, which is unknown during tracing")

    __bool__ = __int__ = __float__ = __index__ = item = tolist = __contains__ = _unknown

    def _record(self, name: str, *others: Any, **attributes: Any) -> TracedArray:
        return self.recorder.record(name, self, *(self._traced(other) for other in others), **attributes)

    def _traced(self, value: Any) -> TracedArray:
        return value if isinstance(value, TracedArray) else self.recorder.constant(value, self.dtype)

    # Shapes

    def __getitem__(self, index: Any) -> TracedArray:
        index = index if isinstance(index, tuple) else (index,)
        if any(not isinstance(part, int | np.integer | slice | None | type(...)) for part in index):
            raise NotTraceableError("indexing by an array cannot be traced: use ops.embedding")
        missing = self.ndim - sum(part is not None and part is not ... for part in index)
        if ... in index:
            position = index.index(...)
            index = index[:position] + (slice(None),) * missing + index[position + 1 :]
        else:
            index = index + (slice(None),) * missing
        bounds, shape = [], []
        sizes = iter(self.shape)
        for part in index:
            if part is None:
                shape.append(1)
                continue
            size = next(sizes)
            if isinstance(part, slice):
                bounds.append(part.indices(size))
                shape.append(len(range(*bounds[-1])))
            else:
                start = operator.index(part) % size
                bounds.append((start, start + 1, 1))
        selects_all = all(part == (0, size, 1) for part, size in zip(bounds, self.shape, strict=True))
        selected = self if selects_all else self._record("slice", index=tuple(bounds))
        return selected.reshape(tuple(shape))

    def reshape(self, *shape: Any) -> TracedArray:
        """Return the same elements in another shape."""
        sizes = tuple(shape[0]) if len(shape) == 1 and isinstance(shape[0], tuple | list) else shape
        sizes = self.example.reshape(sizes).shape
        return self if sizes == self.shape else self._record("reshape", shape=sizes)

    def swapaxes(self, first: int, second: int) -> TracedArray:
        """Return the array with two axes exchanged."""
        axes = list(range(self.ndim))
        axes[first], axes[second] = axes[second], axes[first]
        return self if axes == sorted(axes) else self._record("transpose", axes=tuple(axes))

    @property
    def T(self) -> TracedArray:  # noqa: N802  NumPy's name
        """The array with its axes reversed."""
        return self._record("transpose", axes=tuple(reversed(range(self.ndim)))) if self.ndim > 1 else self

    def t(self) -> TracedArray:
        """Return the transposed matrix."""
        return self.T

    def chunk(self, parts: int, axis: int) -> list[TracedArray]:
        """Return ``parts`` equal parts along the last axis."""
        size = self.shape[axis] // parts
        return [self[..., i * size : (i + 1) * size] for i in range(parts)]

    # Operators

    __add__, __radd__ = _binary("add"), _binary("add", swapped=True)
    __sub__, __rsub__ = _binary("subtract"), _binary("subtract", swapped=True)
    __mul__, __rmul__ = _binary("multiply"), _binary("multiply", swapped=True)
    __truediv__, __rtruediv__ = _binary("divide"), _binary("divide", swapped=True)
    __floordiv__, __rfloordiv__ = _binary("floor_divide"), _binary("floor_divide", swapped=True)
    __mod__, __rmod__ = _binary("remainder"), _binary("remainder", swapped=True)
    __rpow__ = _binary("power", swapped=True)
    __matmul__, __rmatmul__ = _binary("matmul"), _binary("matmul", swapped=True)
    __and__, __rand__ = _binary("logical_and"), _binary("logical_and", swapped=True)
    __or__, __ror__ = _binary("logical_or"), _binary("logical_or", swapped=True)
    __lt__ = _binary("less")
    __le__ = _binary("less_equal")
    __gt__ = _binary("greater")
    __ge__ = _binary("greater_equal")
    __eq__, __ne__ = _binary("equal"), _binary("not_equal")
    __hash__ = None  # type: ignore[assignment]
    __neg__, __invert__ = _unary("negative"), _unary("logical_not")

    def __pow__(self, exponent: Any) -> Any:
        """Return the power; simple exponents become simpler operations, as in NumPy."""
        if isinstance(exponent, int | float) and exponent in (2, 0.5, -1):
            return self * self if exponent == 2 else 1 / self if exponent == -1 else self._record("sqrt")
        return self._record("power", exponent)

    # Elements

    sigmoid, tanh, exp, log = _unary("sigmoid"), _unary("tanh"), _unary("exp"), _unary("log")
    cos, sin = _unary("cos"), _unary("sin")
    float = _unary("cast", dtype=np.dtype(np.float32))

    def type_as(self, other: TracedArray) -> TracedArray:
        """Return the array with the type of the elements of another one."""
        return self._record("cast", dtype=other.dtype)

    def relu(self) -> TracedArray:
        """Return max(x, 0)."""
        return self._record("maximum", 0)

    # Along an axis

    def amax(self, axis: int, keepdim: bool = True) -> TracedArray:
        """Return the largest value along an axis, which is kept with size 1."""
        return self._record("amax", axis=axis % self.ndim)

    def sum(self, axis: int) -> TracedArray:
        """Return the sum along an axis, which is kept with size 1."""
        return self._record("sum", axis=axis % self.ndim)

    @_composite
    def softmax(self, axis: int) -> Any:
        """Return exp(x) divided by its sum along an axis."""
        weights: Any = (self - self.amax(axis)).exp()
        return weights / weights.sum(axis)

    @_composite
    def log_softmax(self, axis: int) -> Any:
        """Return the logarithm of ``softmax``."""
        x: Any = self - self.amax(axis)
        return x - x.exp().sum(axis).log()

    @_composite
    def logsumexp(self, axis: int) -> Any:
        """Return log Σ exp(x) along the last axis."""
        largest: Any = self.amax(axis)._record("maximum", -MAX_LOGIT)
        return ((self - largest).exp().sum(axis).log() + largest).reshape(self.shape[:-1])

    def cumsum(self, axis: int, dtype: Any = None) -> TracedArray:
        """Return the cumulative sums along an axis, computed in this type."""
        x = self if dtype is None else self._record("cast", dtype=np.dtype(dtype))
        return x._record("cumsum", axis=axis % self.ndim)

    def cummax(self, axis: int) -> SimpleNamespace:
        """Return the cumulative maxima along an axis, as the attribute ``values``."""
        return SimpleNamespace(values=self._record("cummax", axis=axis % self.ndim))

    def tril(self, diagonal: int = 0) -> TracedArray:
        """Return the matrices in the last two axes with 0 above a diagonal."""
        mask = self.recorder.constant(np.tril(np.ones(self.shape[-2:], bool), diagonal))
        return mask._record("where", self, np.zeros((), self.dtype))

    def _not_traceable(self, *_: Any, **__: Any) -> NoReturn:
        raise NotTraceableError("sorting, and indexing along an axis, cannot be traced")

    argsort = gather = topk = _not_traceable


@_composite
def _layer_norm(x: Any, shape: Any, scale: Any, shift: Any, epsilon: float) -> Any:
    centered = x - x.sum(-1) / x.shape[-1]
    variance = (centered * centered).sum(-1) / x.shape[-1]
    return centered / (variance + epsilon)._record("sqrt") * scale + shift


@_composite
def _gelu(x: Any, approximate: str) -> Any:
    inner = (x * x * 0.044715 + 1) * x * (2 / np.pi) ** 0.5
    return (inner.tanh() + 1) * x * 0.5


@_composite
def _attention(query: Any, key: Any, value: Any, mask: Any) -> Any:
    return attention_weights(query, key, mask) @ value


def _concatenate(arrays: Sequence[TracedArray], axis: int = 0) -> TracedArray:
    return arrays[0]._record("concatenate", *arrays[1:], axis=axis % arrays[0].ndim)


def _pad(x: Any, widths: Sequence[int]) -> Any:
    """Insert zeros before and after each axis, from the last axis to the first."""
    for i in range(0, len(widths), 2):
        axis = x.ndim - 1 - i // 2
        shapes = ((*x.shape[:axis], width, *x.shape[axis + 1 :]) for width in widths[i : i + 2])
        before, after = (x._traced(np.zeros(shape, x.dtype)) for shape in shapes)
        x = _concatenate([part for part in (before, x, after) if part.shape[axis]], axis)
    return x


def _stack(arrays: Sequence[TracedArray]) -> TracedArray:
    return _concatenate([array[None] for array in arrays])


LIBRARY = SimpleNamespace(
    maximum=lambda x, y: x._record("maximum", y),
    where=lambda condition, x, y: x._traced(condition)._record("where", x, x._traced(y)),
    stack=_stack,
    cat=_concatenate,
    arange=lambda size, device: np.arange(size),
    empty_like=lambda x: x._not_traceable(),
    float64=np.float64,
    as_tensor=lambda array, device: array,
    nn=SimpleNamespace(
        functional=SimpleNamespace(
            softplus=lambda x, threshold: x._record("softplus"),
            embedding=lambda tokens, table: tokens._traced(table)._record("take", tokens),
            layer_norm=_layer_norm,
            gelu=_gelu,
            pad=_pad,
            scaled_dot_product_attention=_attention,
        )
    ),
)


def trace(function: Callable[..., Any], **examples: Any) -> Program:
    """Record a function of arrays as a program.

    ``examples`` are the function's arguments, in order: arrays, or nested tuples, lists, dictionaries and namespaces of
    arrays. Only their shapes and types matter. Their keywords become the names of the program's inputs, such as
    ``p.layers.0.W`` for a nested array. The result may be nested too. Raises NotTraceableError if the function fails on
    traced arrays, because it branches on their values or uses functions that are not in ``revgen.ops``.
    """
    recorder = Recorder()
    arguments = {name: _to_inputs(recorder, name, example) for name, example in examples.items()}
    try:
        results = function(*arguments.values())
    except NotTraceableError:
        raise
    except Exception as error:
        raise NotTraceableError(f"the equation fails on traced arrays: {type(error).__name__}: {error}") from error
    outputs = tree_map(lambda x: (x if isinstance(x, TracedArray) else recorder.constant(x)).index, results)
    return Program(tuple(recorder.operations), outputs).without_unused()


def _to_inputs(recorder: Recorder, name: str, example: Any) -> Any:
    """Return the example with every array replaced by an input of the program."""
    if example is None:
        return None
    if isinstance(example, SimpleNamespace):
        return SimpleNamespace(**{k: _to_inputs(recorder, f"{name}.{k}", v) for k, v in vars(example).items()})
    if isinstance(example, dict):
        return {k: _to_inputs(recorder, f"{name}.{k}", v) for k, v in example.items()}
    if isinstance(example, tuple | list):
        parts = [_to_inputs(recorder, f"{name}.{i}", part) for i, part in enumerate(example)]
        return type(example)(*parts) if hasattr(example, "_fields") else type(example)(parts)
    return recorder.input(name, np.asarray(example))
