"""A ``torch.nn.Module`` dressed as a cell."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from revgen.cells.cell import Cell, Parameters
from revgen.errors import OptionError, RegistrationError
from revgen.ops import Array, tree_map


class ModuleCell(Cell):
    """``kind(input_size, hidden_size, **options)`` is a module whose ``forward(x, state)`` reads a whole sequence.

    x is (time, batch, input), the state None at the start of a document; it returns the output, (time, batch,
    hidden or its attribute ``output_size``), and the new state, (batch, …). PyTorch's own ``RNN``, ``GRU`` and ``LSTM``
    are such modules as they are. It has no equation for NumPy.
    """

    supports_numpy = False

    def __init__(self, kind: type[nn.Module], input_size: int, hidden_size: int, options: Mapping[str, Any]) -> None:
        super().__init__(input_size, hidden_size)
        self.make: Callable[[], nn.Module] = lambda: kind(input_size, hidden_size, **options)
        try:
            self.outline = self.sketch()
        except TypeError as error:
            raise OptionError(f"the cell {kind.__name__}(input_size, hidden_size, **options): {error}") from None
        persistent = self.outline.state_dict().keys() - dict(self.outline.named_parameters()).keys()
        if persistent:
            raise RegistrationError(
                f"the cell {kind.__name__} keeps the buffers {sorted(persistent)}, which a model does not save: "
                "register them with persistent=False"
            )
        self._fresh: dict[str, NDArray[Any]] = {}
        self._idle: list[nn.Module] = []

    def sketch(self) -> nn.Module:
        """The module with shapes and without values, so that a configuration from elsewhere takes no memory before its
        weights are seen to fit; one that looks into its values as it is made is made with them."""
        try:
            with torch.device("meta"):
                return self.make()
        except Exception:  # whatever its author does there
            return self.make()

    @property
    def output_size(self) -> int:
        return int(getattr(self.outline, "output_size", self.hidden_size))

    def param_shapes(self) -> Mapping[str, tuple[int, ...]]:
        return {name: tuple(value.shape) for name, value in self.outline.named_parameters()}

    def initial_state(self, batch: int, zeros: Callable[[tuple[int, ...]], Array]) -> Any:
        return None

    def init_param(self, name: str, shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[Any]:
        """What the module itself puts there, from a seed that is drawn once."""
        if name not in self._fresh:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(int(rng.integers(1 << 31)))
                module = self.make()
            self._fresh = {key: value.detach().numpy() for key, value in module.named_parameters()}
        return self._fresh.pop(name)

    def run(self, p: Parameters, x: Array, state: Any, training: bool) -> tuple[Array, Any]:
        """Run the module over a sequence with the parameters ``p``.

        A call puts parameters into the module for as long as it takes, so that each thread needs one of its own.
        """
        try:
            module = self._idle.pop()
        except IndexError:
            module = self.make()
        module.to(x.device, x.dtype).train(training)
        layers_first = isinstance(module, nn.RNNBase)  # in a state of PyTorch's own
        if layers_first:
            state = tree_map(lambda a: a.transpose(0, 1).contiguous(), state)
        output, state = torch.func.functional_call(module, vars(p), (x, state))
        self._idle.append(module)
        return output, tree_map(lambda a: a.transpose(0, 1), state) if layers_first else state
