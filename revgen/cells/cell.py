"""What a cell is: the parameters of one recurrent layer, and its equation for one time step."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from revgen import ops
from revgen.errors import OptionError
from revgen.ops import Array
from revgen.options import safe_repr, unwrap_scalar

Parameters = SimpleNamespace | Any
"""The parameters of one layer as attributes, by the names that ``shapes`` gives them."""


class Cell:
    """One recurrent layer, written once for NumPy and PyTorch in the operators of ``revgen.ops``.

    A subclass gives ``shapes`` and ``step``, most give ``project``. Its options are its annotated
    class attributes (``nonlinearity: str = "tanh"``), set by keyword. The state may be an array, or
    a tuple, list or dict of arrays, each (batch, …); nothing but the cell looks into it.
    """

    fused_kernel: ClassVar[str | None] = None
    """The fused sequence kernel of PyTorch that computes the same ("lstm", "gru", "rnn_tanh", "rnn_relu")."""

    supports_numpy: ClassVar[bool] = True
    """Whether the equation runs on NumPy too; False where it needs what only PyTorch has."""

    def __init__(self, input_size: int, hidden_size: int, **options: Any) -> None:
        self.input_size = input_size
        self.hidden_size = hidden_size
        known = self.options()
        for name, value in options.items():
            if name not in known:
                offer = f"its options: {', '.join(known)}" if known else "it has no options"
                raise OptionError(f"the cell {type(self).__name__} has no option {name!r}; {offer}")
            plain = unwrap_scalar(value)
            if not isinstance(plain, type(known[name])):
                wanted = type(known[name]).__name__
                raise OptionError(
                    f"{name} of {type(self).__name__} must be of the type {wanted}, not {safe_repr(value)}"
                )
            setattr(self, name, plain)

    @classmethod
    def options(cls) -> dict[str, Any]:
        """The names of the options and their defaults."""
        classes = [c for c in reversed(cls.__mro__) if issubclass(c, Cell) and c is not Cell]
        names = [name for c in classes for name in inspect.get_annotations(c)]
        return {name: getattr(cls, name) for name in names if hasattr(cls, name)}

    @property
    def output_size(self) -> int:
        """The size of the output at each time step."""
        return self.hidden_size

    def param_shapes(self) -> Mapping[str, tuple[int, ...]]:
        """The shape of each parameter, by name."""
        raise NotImplementedError

    def project(self, p: Parameters, x: Array) -> Array:
        """What depends on the input alone, for all time steps at once: (time, batch, input) -> (time, batch, …).

        Each time step of the result depends on the same time step of ``x`` only.
        """
        return x

    def step(self, p: Parameters, z: Array, state: Any) -> tuple[Array, Any]:
        """One time step: z (batch, …) and the state -> output (batch, output), new state."""
        raise NotImplementedError

    def sequence(self, p: Parameters, z: Array, state: Any) -> tuple[Array, Any]:
        """All time steps: z (time, batch, …) and the state -> outputs (time, batch, output), the last state.

        The same as ``step`` by ``step``; a cell overrides it where all steps can be computed at once.
        """
        if len(z) == 1:  # one token after the other: nothing to stack
            output, state = self.step(p, z[0], state)
            return output[None], state
        outputs = []
        for now in z:
            output, state = self.step(p, now, state)
            outputs.append(output)
        return ops.stack(outputs), state

    def initial_state(self, batch: int, zeros: Callable[[tuple[int, ...]], Array]) -> Any:
        """The state before the first step; ``zeros(shape)`` makes an array of the right kind."""
        return zeros((batch, self.hidden_size))

    def init_param(self, name: str, shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.floating[Any]]:
        """The parameter ``name`` before training: vectors are zero, matrices uniform within ±1/√hidden."""
        if len(shape) < 2:
            return np.zeros(shape)
        limit = self.hidden_size**-0.5
        return rng.uniform(-limit, limit, shape)

    def fused_kernel_weights(self, p: Parameters) -> Sequence[Array]:
        """The weights as ``kernel`` takes them: input and hidden matrices, (gates, input) and (gates, hidden),
        then their two biases, (gates,)."""
        return p.W.t(), p.U.t(), p.b, p.b.new_zeros(p.b.shape)
