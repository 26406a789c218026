"""The base class of models whose network is a ``FunctionalNetwork``, which runs on NumPy and PyTorch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from operator import itemgetter
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from revgen.architectures.neural import NeuralModel, prefers_torch
from revgen.compiler import Program, trace
from revgen.derived import derived
from revgen.errors import NotTraceableError, OptionError
from revgen.language_model import LanguageModel
from revgen.model import Weights
from revgen.networks.functional import PLAIN, Backend, FunctionalNetwork, unflatten
from revgen.ops import Array, tree_map
from revgen.sequences import CompiledStep, TokenReader, iter_blocks
from revgen.tokenizers import Tokenizer

if TYPE_CHECKING:
    from revgen.browser.network import BrowserNetwork
    from revgen.networks.network import FunctionalModule
    from revgen.networks.numpy_code import NumpyProgram


MIN_TOKENS = 512
"""The number of generated tokens from which preparing the program for NumPy costs less than it saves."""


class FunctionalModel(NeuralModel):
    """A model whose network is a ``FunctionalNetwork``.

    A subclass defines its ``network_class`` and its ``Config``, a frozen dataclass with a field ``dropout``.
    """

    network_class: ClassVar[type[FunctionalNetwork]]
    network: derived[FunctionalModule]
    _num_tokens = 0  # generated so far

    def make_definition(self, vocab: int) -> FunctionalNetwork:
        """Return the network's definition for this configuration and a vocabulary of ``vocab`` tokens."""
        return self.network_class(self.config, vocab)

    @property
    def definition(self) -> FunctionalNetwork:
        """The network's definition for this configuration and tokenizer."""
        return self.make_definition(len(self.tokenizer))

    def validate_config(self) -> None:
        self.make_definition(1)

    def weight_shapes(self) -> dict[str, tuple[int, ...]]:
        return self.definition.param_shapes()

    def init_params(self, rng: np.random.Generator) -> Weights:
        definition = self.definition
        shapes = definition.param_shapes()
        return {n: np.asarray(definition.init_weight(n, shape, rng), np.float32) for n, shape in shapes.items()}

    def make_network(self) -> FunctionalModule:
        from revgen.networks.network import FunctionalModule

        return FunctionalModule(self.definition, self.weights)

    @derived
    def numpy_network(self) -> tuple[FunctionalNetwork, SimpleNamespace] | None:
        """The definition and its weights on NumPy; None on another device, and for a network that needs PyTorch."""
        definition, p = self.definition, unflatten(self.weights)
        if self.device != "cpu" or not definition.supports_numpy:
            return None
        definition.precompute(p)
        return definition, p

    def initial_state(self, batch: int) -> Any:
        if self.numpy_network is None:
            return None
        return self.numpy_network[0].initial_state(batch, lambda shape: np.zeros(shape, np.float32))

    def forward(self, tokens: NDArray[Any], state: Any) -> tuple[NDArray[np.floating[Any]], Any]:
        if self.numpy_network is None:
            return super().forward(tokens, state)
        if tokens.shape == (1, 1) and self.compiled is not None:
            return self.compiled.step(int(tokens[0, 0]), state)
        definition, p = self.numpy_network
        batch = tokens.shape[1]
        if batch == 1 or batch % definition.row_block == 0 or state is None:
            return definition.forward(p, tokens, state)
        rows = np.append(np.arange(batch), np.zeros(-batch % definition.row_block, np.intp))  # copies of the first row
        logits, state = definition.forward(p, tokens[:, rows], tree_map(itemgetter(rows), state))
        return logits[:, :batch], tree_map(itemgetter(slice(batch)), state)

    def next_logits(self, tokens: NDArray[Any], state: Any) -> tuple[NDArray[np.floating[Any]], Any]:
        if len(tokens) == 1 or type(self).forward is not FunctionalModel.forward:  # a subclass may change the logits
            return super().next_logits(tokens, state)
        if self.numpy_network is None:
            from revgen.networks.reading import read

            return read(self.network, tokens, state)
        if prefers_torch(tokens.size):
            from revgen.networks.reading import read

            logits, state = read(self.network, tokens, tree_map(to_tensor, state))
            return logits, tree_map(np.ascontiguousarray, state)
        definition, p = self.numpy_network
        for block in iter_blocks(tokens):
            features, state = definition.features(p, block, state, PLAIN)
        last: NDArray[np.floating[Any]] = definition.logits(p, features[-1:])[-1]
        return last, state

    def join_states(self, states: Sequence[Any]) -> Any:
        definition = self.network.definition if self.numpy_network is None else self.numpy_network[0]
        return super().join_states([definition.pad_state(state) for state in states])

    def token_reader(self, state: Any, num_tokens: int) -> TokenReader:
        """Return a reader, of the program of a token if this model has generated much text."""
        reader: TokenReader | None = None
        if type(self).forward is FunctionalModel.forward:  # otherwise, a subclass may change the logits
            self._num_tokens += num_tokens
            program = self.numpy_program if self._num_tokens > MIN_TOKENS else None
            reader = None if program is None else program.reader(state)
        return super().token_reader(state, num_tokens) if reader is None else reader

    def network_parts(self) -> tuple[None, FunctionalModule, tuple[float, float]]:
        """Return base, network and their exponents, as a residual model does; a network alone has no base."""
        return None, self.network, (0.0, 1.0)

    def with_dynamic_evaluation(self, settings: Mapping[str, Any]) -> LanguageModel | None:
        return self.wrapped("dynamic-evaluation", settings)

    def program(self) -> Program:
        """Record the computation of one token as a program, for a batch of 1.

        The token is the second of a document, because some networks have no state before the first. The inputs are
        ``tokens`` (1, 1), the state and the weights; the results are logits (1, 1, vocab) and the next state. Raises
        NotTraceableError for a network that cannot be traced.
        """
        return trace_token(self.definition, self.weights, self.name)

    @derived
    def token_program(self) -> Program:
        """``program`` with tables of the values that depend on the token alone."""
        from revgen.networks.token_tables import with_token_tables

        definition = self.definition if self.numpy_network is None else self.numpy_network[0]
        num_tokens = len(self.tokenizer) * (1 + len(self.labels))  # each label has its own ids
        program = trace_token(definition, self.weights, self.name)
        return with_token_tables(program, program_inputs(self.weights), num_tokens)

    @derived
    def numpy_program(self) -> NumpyProgram | None:
        """``token_program``, prepared for NumPy; None if it has no such form."""
        if self.numpy_network is None:
            return None
        from revgen.networks.numpy_code import NumpyProgram

        try:
            return NumpyProgram(self.token_program, program_inputs(self.weights))
        except NotTraceableError:
            return None

    def info(self) -> dict[str, Any]:
        info = super().info()
        with suppress(NotTraceableError):
            cost = self.program().cost()
            info |= {"flop_per_token": cost.flop, "bytes_per_token": cost.bytes}
        return info

    def build_compiled(self) -> CompiledStep | None:
        if self.numpy_network is None:
            return None
        from revgen.networks.compiled import CompiledProgram

        definition, p = self.numpy_network
        if (step := definition.build_compiled(p)) is not None:
            return step
        return CompiledProgram(self.token_program, program_inputs(self.weights), partial(definition.forward, p))

    def browser_network(self) -> BrowserNetwork:
        from revgen.browser.network import network_of_program

        definition, p = self.definition, unflatten(self.weights)
        if not definition.supports_numpy:
            raise OptionError(f"{self.name} cannot be exported: it is written for PyTorch only")
        state, start = full_state(definition, p), np.array([[self.tokenizer.bos_id]])
        try:
            program = trace_token(definition, self.weights, self.name, state)
            network = network_of_program(program, self.weights, state)
        except NotTraceableError as error:
            raise OptionError(f"{self.name} cannot be exported: {error}") from error
        logits, _ = self.forward(start, self.initial_state(1))
        if not np.allclose(definition.forward(p, start, state)[0], logits, rtol=1e-3, atol=1e-3):
            raise OptionError(f"{self.name} cannot be exported: its logits are not those of its network alone")
        return network

    def features(self, tokens: NDArray[Any], state: Any) -> tuple[NDArray[np.floating[Any]], Any]:
        if self.numpy_network is not None:
            definition, p = self.numpy_network
            return definition.features(p, tokens, state, PLAIN)
        from revgen.networks.network import on_arrays

        return on_arrays(self.network.features, self.network.device)(tokens, state)

    def run_with_backend(self, backend: Backend, tokens: NDArray[Any]) -> None:
        """Read documents (time, batch) from their start, with a backend that records what it computes."""
        if self.numpy_network is not None:
            definition, p = self.numpy_network
            definition.features(p, tokens, self.initial_state(tokens.shape[1]), backend)
            return
        from revgen.networks.network import on_arrays

        network = self.network
        p = unflatten(network.named_weights())
        on_arrays(lambda tokens, state: network.features_with(p, tokens, state, backend), network.device)(tokens, None)


def trace_token(definition: FunctionalNetwork, weights: Weights, name: str, state: Any = None) -> Program:
    """Return the program of one token, as ``FunctionalModel.program`` describes. ``name`` is for the error.

    ``state`` is an example of the state, by default the state after the first token.
    """
    if not definition.supports_numpy:
        raise NotTraceableError(f"{name} is written for PyTorch only, so it cannot be traced")
    p, tokens = unflatten(weights), np.zeros((1, 1), np.int64)
    if state is None:
        _, state = definition.forward(p, tokens, initial_state(definition))
    return trace(definition.forward, p=p, tokens=tokens, state=state)


def initial_state(definition: FunctionalNetwork) -> Any:
    """Return the state of one text before its first token; None if there is none."""
    return definition.initial_state(1, partial(np.zeros, dtype=np.float32))


def full_state(definition: FunctionalNetwork, p: SimpleNamespace) -> Any:
    """Return the state before the first token, in the shape that it has after a long text.

    A network that has no such state starts from zeros, because the start of a document makes any state irrelevant.
    """
    state = initial_state(definition)
    if state is None:
        _, state = definition.forward(p, np.full((1, 1), Tokenizer.bos_id), None)
        state = tree_map(np.zeros_like, state)
    return definition.pad_state(state)


def program_inputs(weights: Weights) -> Weights:
    """Return weights by the names of the program's inputs."""
    return {f"p.{name}": array for name, array in weights.items()}


def to_tensor(array: NDArray[Any]) -> Array:
    """Convert an array to a tensor."""
    import torch

    return torch.as_tensor(array)
