"""One token after the other, compiled: the step of a model as machine code, by Numba.

A step of a small network on NumPy is some fifty calls, each of which costs more than the arithmetic in it. Here the
step is one call. It computes what the equation does, in another order of summation: the numbers agree to float32. The
machine code is kept on disk, beside ``kernels.py`` or in Numba's own directory, where one of them can be written.

A net is the weights as the machine code reads them. Where all matrices hold numbers of float16, as those of a model
that was saved so, they are read as float16: the time of a larger network is that of reading it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from revgen.cells.cell import Cell
from revgen.cells.elman import Elman
from revgen.cells.gru import GRU
from revgen.cells.lstm import LSTM
from revgen.cells.minimal import MinGRU
from revgen.cells.rnn import RNN
from revgen.errors import MissingExtraError
from revgen.generation.sampler import Floats, bounded_temperature
from revgen.ops import tree_map

if TYPE_CHECKING:
    from revgen.generation.settings import Constraints
    from revgen.networks.stack import Stack

Matrix = NDArray[np.float32] | NDArray[np.uint16]
"""Numbers, or the bits of numbers in float16."""


class ElmanParams(NamedTuple):
    """h' = tanh(z + h U), where z = x W + b."""

    W: Matrix
    b: Floats
    U: Matrix


class ReluRNNParams(NamedTuple):
    """h' = relu(z + h U)."""

    W: Matrix
    b: Floats
    U: Matrix


class GRUParams(NamedTuple):
    """That of GRU."""

    W: Matrix
    b: Floats
    U: Matrix
    c: Floats


class LSTMParams(NamedTuple):
    """That of LSTM."""

    W: Matrix
    b: Floats
    U: Matrix


class MinGRUParams(NamedTuple):
    """That of MinGRU."""

    W: Matrix
    b: Floats
    V: Matrix
    c: Floats
    Y: Matrix


class StackNet(NamedTuple):
    """A stack of one cell; the vectors of what it does without are empty."""

    embedding: Matrix
    table: Floats
    """x W + b of the first layer for each token, (vocab, …)."""
    layers: tuple[Any, ...]
    scales: tuple[Floats, ...]
    shifts: tuple[Floats, ...]
    residual: bool
    projection: Matrix
    head: Matrix
    bias: Floats


class AttentiveNet(NamedTuple):
    """A stack whose features are averaged (``models.textgenrnn``)."""

    embedding: Matrix
    labels: Matrix
    layers: tuple[Any, ...]
    scales: tuple[Floats, ...]
    shifts: tuple[Floats, ...]
    attention: Floats
    head: Matrix
    bias: Floats


class Block(NamedTuple):
    """A layer of a transformer."""

    attention: Matrix
    output: Matrix
    up: Matrix
    bias: Floats
    down: Matrix


class TransformerNet(NamedTuple):
    """See ``models.transformer``."""

    embedding: Matrix
    layers: tuple[Any, ...]
    scales: tuple[Floats, ...]
    shifts: tuple[Floats, ...]
    head: Matrix
    bias: Floats
    context: int
    speeds: NDArray[np.int64]


class TrieNet(NamedTuple):
    """The arrays of ``ngrams.Trie``; ``ends`` tells whether a context that was never seen ends the document."""

    order: int
    begins: tuple[NDArray[np.int64], ...]
    words: tuple[NDArray[np.int64], ...]
    suffixes: tuple[NDArray[np.int64], ...]
    p: tuple[Floats, ...]
    backoff: tuple[Floats, ...]
    ends: bool
    end: int


def copy_array(state: Any, room: int) -> Any:
    """A state that may be written over."""
    return tree_map(np.copy, state)


def return_array(state: Any) -> Any:
    """What was written over is the state."""
    return state


@dataclass(frozen=True)
class Compiled:
    """A model for one row, compiled. Raises MissingExtraError without Numba."""

    net: Any
    begin: Callable[[Any, int], Any] = copy_array
    """A state -> arrays for the machine code to write over, with room for as many tokens."""
    end: Callable[[Any], Any] = return_array
    """Those arrays -> a state."""

    def __post_init__(self) -> None:
        try:
            import revgen.networks.kernels  # noqa: F401
        except Exception as error:  # whatever an installation that does not fit together raises
            raise MissingExtraError(_why_no_numba(error)) from error

    def step(self, token: int, state: Any) -> tuple[NDArray[np.float32], Any]:
        """A token and a state -> logits (1, 1, vocab) and the new state."""
        from revgen.networks.kernels import read_token

        arrays = self.begin(state, 1)
        return read_token(self.net, token, arrays)[None, None], self.end(arrays)

    def write(
        self, token: int, state: Any, uniforms: Floats, rules: Constraints, shift: int = 0
    ) -> tuple[list[int], Any]:
        """A token, a state, numbers in [0, 1), rules that are ``plain``, and what is added to tokens before they are
        read -> as many tokens, or fewer up to the end, drawn one after the other, and the new state."""
        from revgen.networks.kernels import write_tokens

        arrays = self.begin(state, len(uniforms))
        tokens = np.empty(len(uniforms), np.int64)
        temperature: Any = rules.sampling.temperature
        divisor = np.float32(bounded_temperature(temperature) if temperature else 0)
        count = write_tokens(self.net, token, arrays, uniforms, tokens, divisor, rules.end, rules.biases, shift)
        return tokens[:count].tolist(), self.end(arrays)


def _why_no_numba(error: Exception) -> str:
    """The message for a failed import of the kernels: Numba is missing, or there is another reason."""
    if isinstance(error, ModuleNotFoundError) and error.name in ("numba", "llvmlite"):
        return "a compiled step needs Numba: pip install 'revgen[fast]'"
    return f"a compiled step cannot be made, as Numba cannot be imported: {error}"


class ParamPacker:
    """How the weights of one network are laid out: ``p`` as ``equation.nest`` gives them."""

    def __init__(self, p: SimpleNamespace) -> None:
        self.p = p
        with np.errstate(over="ignore"):
            self.half = all((array.astype(np.float16) == array).all() for array in matrices(p))

    def matrix(self, array: Any) -> Matrix:
        """All matrices of a network are of one type."""
        return np.ascontiguousarray(array, np.float16).view(np.uint16) if self.half else self.vector(array)

    @staticmethod
    def vector(array: Any) -> NDArray[np.float32]:
        """What is not worth less room."""
        return np.ascontiguousarray(array, np.float32)

    def layers(self, kind: Any) -> tuple[Any, ...]:
        """The layers, each a ``kind``, whose fields are names of weights."""
        return tuple(kind(*(self.pack(getattr(layer, name)) for name in kind._fields)) for layer in self.p.layers)

    def pack(self, array: Any) -> Any:
        """A matrix or a vector."""
        return self.matrix(array) if array.ndim > 1 else self.vector(array)

    def norms(self) -> dict[str, tuple[Floats, ...]]:
        """The scales and shifts of normalizations, empty where there are none."""
        nothing = SimpleNamespace(scale=[], shift=[])
        there = getattr(self.p, "norms", [nothing] * (len(self.p.layers) + 1))
        return {name: tuple(self.vector(getattr(norm, name[:-1])) for norm in there) for name in ("scales", "shifts")}


def matrices(p: SimpleNamespace) -> Iterator[NDArray[Any]]:
    """The weights that are no vectors."""
    for value in vars(p).values():
        if isinstance(value, list):
            for part in value:
                yield from matrices(part)
        elif value.ndim > 1:
            yield value


def stack_code(stack: Stack, p: SimpleNamespace) -> Compiled | None:
    """A recurrent stack; None where its cell has no machine code."""
    kind = _kind(stack.cells[0])
    if kind is None:
        return None
    layout, first, nothing = ParamPacker(p), p.layers[0], np.zeros((0, 0), np.float32)
    table = nothing if stack.table is None else stack.norm(p, 0, p.embedding) @ first.W + first.b
    net = StackNet(
        embedding=layout.matrix(p.embedding),
        table=layout.vector(table),
        layers=layout.layers(kind),
        **layout.norms(),
        residual=bool(stack.config.residual),
        projection=layout.matrix(getattr(p, "projection", nothing)),
        head=layout.matrix((p.head if hasattr(p, "head") else p.embedding).T),
        bias=layout.vector(p.bias),
    )
    if kind is LSTMParams:
        return Compiled(net)
    # The state of a layer is one array, which the machine code knows as the first of several.
    return Compiled(
        net,
        lambda state, room: tuple((array.copy(),) for array in state),
        lambda arrays: tuple(array for (array,) in arrays),
    )


def _kind(cell: Cell) -> type | None:
    """What the recurrence of a cell is called here: that of a subclass may be anything."""
    kinds: dict[type, type] = {Elman: ElmanParams, GRU: GRUParams, LSTM: LSTMParams, MinGRU: MinGRUParams}
    if type(cell) is RNN:
        return ElmanParams if cell.nonlinearity == "tanh" else ReluRNNParams
    return kinds.get(type(cell))
