"""``Cell``: the parameters of one recurrent layer, and its equation for one time step."""

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
"""The parameters of one layer as attributes, by their names in ``param_shapes``."""


class Cell:
    """One recurrent layer, written once for NumPy and PyTorch in the operators of ``revgen.ops``.

    A subclass defines ``param_shapes`` and ``step``, and usually ``project``. Its options are annotated class
    attributes (``nonlinearity: str = "tanh"``), which keyword arguments set. The state is an array, or a tuple, list or
    dict of arrays, each with the batch as its first axis.
    """

    fused_kernel: ClassVar[str | None] = None
    """The fused kernel of PyTorch that computes a whole sequence: "lstm", "gru", "rnn_tanh", "rnn_relu" or None."""

    supports_numpy: ClassVar[bool] = True
    """True if the cell runs on NumPy; False if it needs operations that only PyTorch has."""

    def __init__(self, input_size: int, hidden_size: int, **options: Any) -> None:
        self.input_size = input_size
        self.hidden_size = hidden_size
        defaults = self.options()
        for name, value in options.items():
            if name not in defaults:
                hint = f"its options: {', '.join(defaults)}" if defaults else "it has no options"
                raise OptionError(f"the cell {type(self).__name__} has no option {name!r}; {hint}")
            unwrapped = unwrap_scalar(value)
            if not isinstance(unwrapped, type(defaults[name])):
                expected = type(defaults[name]).__name__
                raise OptionError(f"{name} of {type(self).__name__} must be of type {expected}, not {safe_repr(value)}")
            setattr(self, name, unwrapped)

    @classmethod
    def options(cls) -> dict[str, Any]:
        """Return the options with their defaults."""
        classes = [c for c in reversed(cls.__mro__) if issubclass(c, Cell) and c is not Cell]
        names = [name for c in classes for name in inspect.get_annotations(c)]
        return {name: getattr(cls, name) for name in names if hasattr(cls, name)}

    @property
    def output_size(self) -> int:
        """The size of the output at each time step."""
        return self.hidden_size

    def param_shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Return the shape of each parameter by name."""
        raise NotImplementedError

    def project(self, p: Parameters, x: Array) -> Array:
        """Compute what depends only on the input, for all time steps: (time, batch, input) -> (time, batch, …).

        Each time step of the result may depend only on the same time step of ``x``.
        """
        return x

    def step(self, p: Parameters, z: Array, state: Any) -> tuple[Array, Any]:
        """Compute one time step: z (batch, …) and the state -> the output (batch, output) and the next state."""
        raise NotImplementedError

    def sequence(self, p: Parameters, z: Array, state: Any) -> tuple[Array, Any]:
        """Compute all time steps: z (time, batch, …) and the state -> outputs (time, batch, output) and the last state.

        The default calls ``step`` in a loop. A cell that can compute all steps at once overrides it.
        """
        if len(z) == 1:  # as in generation, which needs no stacking
            output, state = self.step(p, z[0], state)
            return output[None], state
        outputs = []
        for z_t in z:
            output, state = self.step(p, z_t, state)
            outputs.append(output)
        return ops.stack(outputs), state

    def initial_state(self, batch: int, zeros: Callable[[tuple[int, ...]], Array]) -> Any:
        """Return the state before the first step. ``zeros(shape)`` creates an array for the backend and device."""
        return zeros((batch, self.hidden_size))

    def init_param(self, name: str, shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.floating[Any]]:
        """Return the initial value of a parameter: 0 for vectors, uniform within ±1/√hidden for matrices."""
        if len(shape) < 2:
            return np.zeros(shape)
        limit = self.hidden_size**-0.5
        return rng.uniform(-limit, limit, shape)

    def num_blocks(self, shape: tuple[int, ...]) -> int:
        """Return how many matrices, such as those of several gates, a matrix of this shape joins along its columns."""
        return max(1, shape[1] // self.hidden_size) if shape[1] % self.hidden_size == 0 else 1

    def fused_kernel_weights(self, p: Parameters) -> Sequence[Array]:
        """Return the weights for ``fused_kernel``: input matrix (gates, input), hidden matrix (gates, hidden), and the
        two biases, (gates,)."""
        return p.W.t(), p.U.t(), p.b, p.b.new_zeros(p.b.shape)
