"""One step of a network as an ONNX graph: a token and a state in, logits and the new state out.

The state is part of the graph's inputs and outputs, so that whatever runs ONNX can write text token by token, with
neither PyTorch nor this library.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from revgen.architectures.functional_model import FunctionalModel
from revgen.errors import CheckpointError, MissingExtraError, OptionError
from revgen.files import to_json, write_atomically
from revgen.language_model import LanguageModel
from revgen.networks.functional import FunctionalNetwork, unflatten

GRAPH = "model.onnx"
BATCH = 2  # of the example; any other runs


def export(model: LanguageModel, directory: str | Path) -> Path:
    """Write ``model.onnx`` and the tokenizer's file into a directory; the path of the graph.

    Inputs are ``tokens``, (batch,), and ``state.0``, ``state.1``, …, each (batch, …); outputs ``logits``, (batch,
    vocab), and ``next.0``, ``next.1``, …, which are the states of the next step. A document begins with token 0 and the
    states filled with the values ``begin`` of the metadata ``revgen``, which is JSON; it has their shapes too.

    Raises OptionError for a model that is no such network, MissingExtraError without the packages for ONNX.
    """
    if not isinstance(model, FunctionalModel) or not model.definition.supports_numpy:
        raise OptionError(f"{model.name} cannot be exported: it is no network that is written as an equation")
    try:
        import onnxscript  # noqa: F401  the exporter needs it
    except ImportError:
        raise MissingExtraError("export needs packages for ONNX: pip install 'revgen[onnx]'") from None
    step = Step(model)
    names = [str(i) for i in range(len(step.begin))]
    state = [torch.stack([leaf] * BATCH) for leaf in step.begin]
    try:
        with _quiet():
            program: Any = torch.onnx.export(
                step.eval(),
                (torch.zeros(BATCH, dtype=torch.int64), *state),
                dynamo=True,
                verbose=False,
                input_names=["tokens", *(f"state.{name}" for name in names)],
                output_names=["logits", *(f"next.{name}" for name in names)],
                dynamic_shapes=({0: DYNAMIC}, tuple({0: DYNAMIC} for _ in state)),
            )
    except torch.onnx.OnnxExporterError as error:
        why = str(error.__cause__ or error).splitlines()[0]
        raise OptionError(f"{model.name} cannot be exported: {why}") from error
    program.model.metadata_props["revgen"] = to_json(
        {
            "name": model.name,
            "tokenizer": model.tokenizer.file,
            "state": [{"begin": _number(leaf.flatten()[0]), "shape": list(leaf.shape)} for leaf in step.begin],
        }
    )
    directory = Path(directory)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory() as temporary:
            program.save(Path(temporary) / GRAPH)
            write_atomically(directory / GRAPH, (Path(temporary) / GRAPH).read_bytes())
        write_atomically(directory / model.tokenizer.file, model.tokenizer.to_bytes())
    except OSError as error:
        raise CheckpointError(f"{directory}: could not export: {error.strerror or error}") from error
    return directory / GRAPH


def _number(value: Tensor) -> float | str:
    """A number as JSON can hold it: "-inf" is a string that NumPy and Python read as the number."""
    return float(value) if torch.isfinite(value) else str(float(value))


DYNAMIC = torch.export.Dim("batch")


class Step(nn.Module):
    """tokens (batch,), the arrays of a state -> logits (batch, vocab), the arrays of the new state."""

    def __init__(self, model: FunctionalModel) -> None:
        super().__init__()
        self.equation = model.definition
        self.names = list(model.weights)
        self.values = nn.ParameterList(torch.as_tensor(model.weights[name]) for name in self.names)
        self.values.requires_grad_(False)
        state, filled = _first_state(self.equation, self.weights())
        leaves, self.form = pytree.tree_flatten(state)
        self.begin = [leaf[0] if filled else torch.zeros_like(leaf[0]) for leaf in leaves]

    def weights(self) -> Any:
        """The weights, nested by their names."""
        return unflatten(dict(zip(self.names, self.values, strict=True)))

    def forward(self, tokens: Tensor, *leaves: Tensor) -> tuple[Tensor, ...]:
        state = pytree.tree_unflatten(list(leaves), self.form)
        logits, state = self.equation.forward(self.weights(), tokens[None], state)
        return logits[0], *pytree.tree_leaves(state)


def _first_state(equation: FunctionalNetwork, p: Any) -> tuple[Any, bool]:
    """The state of one document at its start, and whether its values are those to begin with.

    An equation that begins without one remembers a window of the text: that of the state it reaches by reading as much
    has its last shape, and nothing but zeros before the document: the start token, and keys that are behind the mask.
    """
    state = equation.initial_state(1, torch.zeros)
    if state is not None:
        return state, True
    tokens = torch.zeros(equation.config.context, 1, dtype=torch.int64)
    return equation.forward(p, tokens, None)[1], False


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's notes to its own developers."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
