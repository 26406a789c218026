"""A ``torch.nn.Module`` as a cell."""

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
    """A cell around a module whose ``forward(x, state)`` reads a whole sequence, on PyTorch only.

    ``module_class(input_size, hidden_size, **options)`` creates the module. x is (time, batch, input), and the state is
    None at the start of a document. ``forward`` returns the output, (time, batch, hidden or the module's
    ``output_size``), and the next state, (batch, …). PyTorch's ``RNN``, ``GRU`` and ``LSTM`` can be used directly.
    """

    supports_numpy = False

    def __init__(
        self, module_class: type[nn.Module], input_size: int, hidden_size: int, options: Mapping[str, Any]
    ) -> None:
        super().__init__(input_size, hidden_size)
        self.make: Callable[[], nn.Module] = lambda: module_class(input_size, hidden_size, **options)
        try:
            self.template = self.make_template()
        except TypeError as error:
            raise OptionError(
                f"{module_class.__name__}(input_size, hidden_size, **options) cannot be created: {error}"
            ) from None
        persistent = self.template.state_dict().keys() - dict(self.template.named_parameters()).keys()
        if persistent:
            raise RegistrationError(
                f"the cell {module_class.__name__} has buffers {sorted(persistent)}, which a model does not save: "
                "register them with persistent=False"
            )
        self._initial: dict[str, NDArray[Any]] = {}
        self._idle: list[nn.Module] = []

    def make_template(self) -> nn.Module:
        """Return a module with shapes but no values, if it can be created on the meta device.

        A configuration from the Hub then takes no memory before its weights have been checked.
        """
        try:
            with torch.device("meta"):
                return self.make()
        except Exception:  # a module that reads its values in __init__ may raise anything
            return self.make()

    @property
    def output_size(self) -> int:
        return int(getattr(self.template, "output_size", self.hidden_size))

    def param_shapes(self) -> Mapping[str, tuple[int, ...]]:
        return {name: tuple(value.shape) for name, value in self.template.named_parameters()}

    def initial_state(self, batch: int, zeros: Callable[[tuple[int, ...]], Array]) -> Any:
        return None

    def init_param(self, name: str, shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[Any]:
        """Return the initial value that the module gives to a parameter, with one seed for all parameters."""
        if name not in self._initial:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(int(rng.integers(1 << 31)))
                module = self.make()
            self._initial = {key: value.detach().numpy() for key, value in module.named_parameters()}
        return self._initial.pop(name)

    def run(self, p: Parameters, x: Array, state: Any, training: bool) -> tuple[Array, Any]:
        """Run the module over a sequence with the parameters ``p``.

        ``functional_call`` replaces the parameters of a module while it runs, so each thread needs its own module.
        """
        try:
            module = self._idle.pop()
        except IndexError:
            module = self.make()
        module.to(x.device, x.dtype).train(training)
        layers_first = isinstance(module, nn.RNNBase)  # the first axis of its state is the layer, not the batch
        if layers_first:
            state = tree_map(lambda a: a.transpose(0, 1).contiguous(), state)
        output, state = torch.func.functional_call(module, vars(p), (x, state))
        self._idle.append(module)
        return output, tree_map(lambda a: a.transpose(0, 1), state) if layers_first else state
