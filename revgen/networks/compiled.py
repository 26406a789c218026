"""One token after the other, compiled: the step of a recurrent stack as machine code, by Numba.

A step of a small network on NumPy is some fifty calls, each of which costs more than the arithmetic in it. Here the
step is one call. It computes what the equation does, in another order of summation: the numbers agree to float32. The
machine code is kept on disk, beside ``kernels.py`` or in Numba's own directory.

To import Numba takes longer than to write a page on NumPy, so it is not done unasked.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from revgen.cells.elman import Elman
from revgen.cells.gru import GRU
from revgen.cells.lstm import LSTM
from revgen.cells.rnn import RNN
from revgen.errors import MissingExtraError
from revgen.generation.sampler import COLDEST, Floats
from revgen.networks.equation import Equation
from revgen.networks.stack import Stack
from revgen.ops import EPSILON


@dataclass(frozen=True)
class Compiled:
    """An equation for one row, compiled."""

    step: Callable[[int, Any], tuple[NDArray[np.float32], Any]]
    """A token and a state -> logits (1, 1, vocab) and the new state."""
    write: Callable[[int, Any, Floats, float, int, Floats], tuple[list[int], Any]]
    """A token, a state, numbers in [0, 1), the temperature, the end token, and what is added to logits, (vocab,) -> as
    many tokens, or fewer up to the end, drawn one after the other, and the new state."""


TANH, RELU, GATED, MEMORY = range(4)
"""Kinds of recurrences: h' = tanh(…), h' = relu(…), that of GRU, and that of LSTM."""


def compiled(equation: Equation, p: SimpleNamespace) -> Compiled | None:
    """An equation with the weights ``p``, compiled; None for what is no plain stack of one of the cells.

    Raises MissingExtraError without Numba.
    """
    if type(equation) is not Stack or (kind := _kind(equation)) is None:
        return None
    try:
        from revgen.networks.kernels import token_step, write_tokens
    except (ImportError, RuntimeError) as error:  # RuntimeError: it finds no place on disk
        raise MissingExtraError(f"a compiled step needs Numba: pip install 'revgen[fast]' ({error})") from None
    config, layers = equation.config, p.layers
    nothing = np.zeros((0, 0), np.float32)

    def plain(array: Any) -> NDArray[np.float32]:
        return np.ascontiguousarray(array, np.float32)

    norms = [(plain(norm.scale), plain(norm.shift)) for norm in getattr(p, "norms", [])]
    empty = (plain(np.zeros(0)),) * (len(layers) + 1)
    table = equation.table
    fixed = (
        kind,
        plain(p.embedding),
        nothing if table is None else plain(table),
        tuple(plain(layer.W) for layer in layers),
        tuple(plain(layer.b) for layer in layers),
        tuple(plain(layer.U) for layer in layers),
        tuple(plain(getattr(layer, "c", layer.b)) for layer in layers),
        tuple(scale for scale, _ in norms) or empty,
        tuple(shift for _, shift in norms) or empty,
        bool(config.residual),
        plain(getattr(p, "projection", nothing)),
        plain((p.head if hasattr(p, "head") else p.embedding).T),
        plain(p.bias),
        np.float32(EPSILON),
    )

    def apart(state: Any) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        """The outputs and the memories of the layers; where there is no memory, the outputs twice."""
        return tuple(zip(*state, strict=True)) if kind == MEMORY else (tuple(state), tuple(state))  # type: ignore[return-value]

    def together(hs: tuple[Any, ...], cs: tuple[Any, ...]) -> Any:
        return tuple(zip(hs, cs, strict=True)) if kind == MEMORY else hs

    def step(token: int, state: Any) -> tuple[NDArray[np.float32], Any]:
        hs, cs = apart(state)
        new_hs, new_cs = tuple(map(np.empty_like, hs)), tuple(map(np.empty_like, cs))
        return token_step(token, hs, cs, new_hs, new_cs, *fixed), together(new_hs, new_cs)

    def write(
        token: int, state: Any, uniforms: Floats, temperature: float, end: int, biases: Floats
    ) -> tuple[list[int], Any]:
        hs, cs = (tuple(map(np.copy, part)) for part in apart(state))
        tokens = np.empty(len(uniforms), np.int64)
        divisor = np.float32(max(temperature, COLDEST) if temperature else 0)
        count = write_tokens(token, hs, cs, uniforms, tokens, divisor, end, biases, *fixed)
        return tokens[:count].tolist(), together(hs, cs)

    return Compiled(step, write)


def _kind(stack: Stack) -> int | None:
    """The recurrence of a stack's cells: that of a subclass may be anything."""
    kinds = {Elman: TANH, GRU: GATED, LSTM: MEMORY}
    cell = stack.cells[0]
    if type(cell) is RNN:
        return TANH if cell.nonlinearity == "tanh" else RELU
    return kinds.get(type(cell))
