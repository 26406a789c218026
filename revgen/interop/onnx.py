"""One step of a network as an ONNX graph: from a token and a state to logits and the next state.

The state is part of the graph's inputs and outputs, so any ONNX runtime can generate text token by token, without
PyTorch and without revgen.
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

GRAPH_FILE = "model.onnx"
EXAMPLE_BATCH = 2  # for tracing; the graph runs with any batch size
BATCH_DIM = torch.export.Dim("batch")


def export(model: LanguageModel, path: str | Path) -> Path:
    """Write a graph and the tokenizer's file into the same directory, and return the path of the graph.

    ``path`` is the graph's file, which ends in ``.onnx``, or a directory for the file ``model.onnx``.

    The inputs are ``tokens`` (batch,) and the arrays of the state, ``state.0``, ``state.1``, …, each (batch, …). The
    outputs are ``logits`` (batch, vocab) and the arrays of the next state, ``next.0``, ``next.1``, …. A document starts
    with token 0. The metadata entry ``revgen`` is JSON, with the shape and initial value of each array of the state.

    Raises OptionError for a model that cannot be exported, and MissingExtraError without the packages for ONNX.
    """
    if not isinstance(model, FunctionalModel) or not model.definition.supports_numpy:
        raise OptionError(f"{model.name} cannot be exported: it is not a network that runs on NumPy")
    try:
        import onnxscript  # noqa: F401  the exporter needs it
    except ImportError:
        raise MissingExtraError("export needs packages for ONNX: pip install 'revgen[onnx]'") from None
    step = StepModule(model)
    indices = range(len(step.initial))
    state = [torch.stack([leaf] * EXAMPLE_BATCH) for leaf in step.initial]
    try:
        with _quiet():
            program: Any = torch.onnx.export(
                step.eval(),
                (torch.zeros(EXAMPLE_BATCH, dtype=torch.int64), *state),
                dynamo=True,
                verbose=False,
                input_names=["tokens", *(f"state.{i}" for i in indices)],
                output_names=["logits", *(f"next.{i}" for i in indices)],
                dynamic_shapes=({0: BATCH_DIM}, tuple({0: BATCH_DIM} for _ in state)),
            )
    except torch.onnx.OnnxExporterError as error:
        reason = str(error.__cause__ or error).splitlines()[0]
        raise OptionError(f"{model.name} cannot be exported: {reason}") from error
    program.model.metadata_props["revgen"] = to_json(
        {
            "name": model.name,
            "tokenizer": model.tokenizer.file,
            "state": [
                {"begin": _to_json_number(leaf.flatten()[0]), "shape": list(leaf.shape)} for leaf in step.initial
            ],
        }
    )
    path = Path(path)
    if path.suffix.lower() != ".onnx":
        path /= GRAPH_FILE
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory() as temporary:
            program.save(Path(temporary) / GRAPH_FILE)
            write_atomically(path, (Path(temporary) / GRAPH_FILE).read_bytes())
        write_atomically(path.with_name(model.tokenizer.file), model.tokenizer.to_bytes())
    except OSError as error:
        raise CheckpointError(f"{path}: could not export: {error.strerror or error}") from error
    return path


def _to_json_number(value: Tensor) -> float | str:
    """Return the value as a number, or as a string such as "-inf" if JSON has no number for it."""
    return float(value) if torch.isfinite(value) else str(float(value))


class StepModule(nn.Module):
    """A module that maps tokens (batch,) and the arrays of a state to logits (batch, vocab) and the next state."""

    def __init__(self, model: FunctionalModel) -> None:
        super().__init__()
        self.definition = model.definition
        self.names = list(model.weights)
        self.params = nn.ParameterList(torch.as_tensor(model.weights[name]) for name in self.names)
        self.params.requires_grad_(False)
        state, is_initial = _example_state(self.definition, self.weights())
        leaves, self.structure = pytree.tree_flatten(state)
        self.initial = [leaf[0] if is_initial else torch.zeros_like(leaf[0]) for leaf in leaves]

    def weights(self) -> Any:
        """Return the weights, nested by their names."""
        return unflatten(dict(zip(self.names, self.params, strict=True)))

    def forward(self, tokens: Tensor, *leaves: Tensor) -> tuple[Tensor, ...]:
        state = pytree.tree_unflatten(list(leaves), self.structure)
        logits, state = self.definition.forward(self.weights(), tokens[None], state)
        return logits[0], *pytree.tree_leaves(state)


def _example_state(definition: FunctionalNetwork, p: Any) -> tuple[Any, bool]:
    """Return a state of one document, and whether it is the initial state.

    A network whose initial state is None remembers the last ``context`` tokens, so its state has its final shape after
    ``context`` tokens. Zeros are a valid start: they are start tokens, or keys that the mask excludes.
    """
    state = definition.initial_state(1, torch.zeros)
    if state is not None:
        return state, True
    tokens = torch.zeros(definition.config.context, 1, dtype=torch.int64)
    return definition.forward(p, tokens, None)[1], False


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the exporter's warnings and log messages, which are for its developers."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
