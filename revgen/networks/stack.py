"""The recurrent network as an equation over any cell, for NumPy and PyTorch alike.

x = E[tokens]                          embedding
x = x + cell(norm(x))                  for each layer, where sizes allow the residual connection
logits = norm(x) [P] E' + b            the output shares the embedding matrix where it is tied
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np

from revgen import ops
from revgen.cells.cell import Cell
from revgen.errors import OptionError
from revgen.language_model import Weights
from revgen.ops import Array
from revgen.registry import cells

TABLE = 1 << 22  # values


@dataclass(frozen=True)
class RecurrentConfig:
    """The sizes and options of a recurrent network.

    ``embedding_size`` None means ``hidden_size``; ``dropout`` is the share of each layer's input and output
    channels that are left out of a training step, the same ones at every time step (Gal & Ghahramani 2016);
    ``cell_options`` are the options of the cell.
    """

    hidden_size: int = 256
    num_layers: int = 2
    embedding_size: int | None = None
    dropout: float = 0.3
    residual: bool = True
    layer_norm: bool = True
    tie_embeddings: bool = True
    cell_options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("hidden_size", "num_layers", "embedding_size"):
            value = getattr(self, name)
            if not (value is None and name == "embedding_size") and (type(value) is not int or value < 1):
                raise OptionError(f"{name} must be a whole number of at least 1, not {value!r}")
        if not isinstance(self.dropout, int | float) or not 0 <= self.dropout < 1:
            raise OptionError(f"dropout must lie in 0 ≤ dropout < 1, not {self.dropout!r}")
        for name in ("residual", "layer_norm", "tie_embeddings"):
            if type(getattr(self, name)) is not bool:
                raise OptionError(f"{name} must be True or False, not {getattr(self, name)!r}")
        if not isinstance(self.cell_options, Mapping):
            raise OptionError(f"cell_options must be a mapping, not {self.cell_options!r}")


class Stack:
    """Embedding, ``num_layers`` cells and output: the shapes, the first values and the equation."""

    def __init__(self, cell: str, config: RecurrentConfig, vocab: int) -> None:
        self.config = config
        self.vocab = vocab
        self.embedding_size = config.embedding_size or config.hidden_size
        self.cells: list[Cell] = []
        self.sizes = [self.embedding_size]  # what enters each layer, then the output
        for _ in range(config.num_layers):
            self.cells.append(make_cell(cell, self.sizes[-1], config.hidden_size, config.cell_options))
            self.sizes.append(self.cells[-1].output_size)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each weight, by its dotted name."""
        shapes: dict[str, tuple[int, ...]] = {"embedding": (self.vocab, self.embedding_size)}
        for i, cell in enumerate(self.cells):
            shapes |= {f"layers.{i}.{name}": tuple(shape) for name, shape in cell.shapes().items()}
        if self.config.layer_norm:
            for i, size in enumerate(self.sizes):
                shapes |= {f"norms.{i}.scale": (size,), f"norms.{i}.shift": (size,)}
        if not self.config.tie_embeddings:
            shapes["head"] = (self.vocab, self.sizes[-1])
        elif self.sizes[-1] != self.embedding_size:
            shapes["projection"] = (self.sizes[-1], self.embedding_size)
        return shapes | {"bias": (self.vocab,)}

    def initialize(self, random: np.random.Generator) -> Weights:
        """The weights before training."""
        weights: Weights = {}
        for name, shape in self.shapes().items():
            kind, _, rest = name.partition(".")
            if kind == "layers":
                i, _, parameter = rest.partition(".")
                value = self.cells[int(i)].initialize(parameter, shape, random)
            elif kind == "norms":
                value = np.full(shape, float(rest.endswith("scale")))
            elif kind == "bias":
                value = np.zeros(shape)
            else:
                value = random.normal(0, shape[-1] ** -0.5, shape)
            weights[name] = np.asarray(value, np.float32)
        return weights

    def initial_state(self, batch: int, zeros: Callable[[tuple[int, ...]], Array]) -> Any:
        """The state of all layers at the start of a document."""
        return tuple(cell.initial_state(batch, zeros) for cell in self.cells)

    def forward(self, p: SimpleNamespace, tokens: Array, state: Any) -> tuple[Array, Any]:
        """Tokens (time, batch) -> logits (time, batch, vocab), the new state; ``p`` as ``nest`` gives it."""
        x = self.drop(p.embedding[tokens])  # (time, batch, embedding)
        states = []
        for i in range(len(self.cells)):
            y, layer_state = self.run(p, i, x, state[i], tokens)  # (time, batch, hidden)
            y = self.drop(y)
            x = x + y if self.config.residual and self.sizes[i] == self.sizes[i + 1] else y
            states.append(layer_state)
        x = self.norm(p, len(self.cells), x)
        if hasattr(p, "projection"):
            x = x @ p.projection
        head = p.embedding if self.config.tie_embeddings else p.head
        return x @ head.T + p.bias, tuple(states)

    def norm(self, p: SimpleNamespace, i: int, x: Array) -> Array:
        """What enters layer i, normalized where the configuration says so."""
        return ops.layer_norm(x, p.norms[i].scale, p.norms[i].shift) if self.config.layer_norm else x

    def run(self, p: SimpleNamespace, i: int, x: Array, state: Any, tokens: Array) -> tuple[Array, Any]:
        """Layer i over a sequence: (time, batch, input), state -> (time, batch, output), state."""
        cell, q = self.cells[i], p.layers[i]
        return cell.sequence(q, cell.project(q, self.norm(p, i, x)), state)

    def drop(self, x: Array) -> Array:
        """Where training leaves out channels; nothing elsewhere."""
        return x


class Tabulated(Stack):
    """The same with a table of what the first layer makes of each token before its recurrence: as it depends on
    the token alone, generation looks it up, (vocab, …)."""

    table: Array

    @classmethod
    def over(cls, stack: Stack, p: SimpleNamespace) -> Stack:
        """The stack with its table, or as it is where the table would be large."""

        def projected(rows: Array) -> Array:
            return stack.cells[0].project(p.layers[0], stack.norm(p, 0, rows[:, None]))[:, 0]

        if projected(p.embedding[:1]).size * stack.vocab > TABLE:
            return stack
        tabulated = copy(stack)
        tabulated.__class__ = cls
        tabulated.table = projected(p.embedding)  # type: ignore[attr-defined]
        return tabulated

    def run(self, p: SimpleNamespace, i: int, x: Array, state: Any, tokens: Array) -> tuple[Array, Any]:
        if i > 0:
            return super().run(p, i, x, state, tokens)
        return self.cells[0].sequence(p.layers[0], self.table[tokens], state)


def make_cell(name: str, input_size: int, hidden_size: int, options: Mapping[str, Any]) -> Cell:
    """A registered cell; a ``torch.nn.Module`` is dressed as one."""
    kind = cells.get(name)
    if isinstance(kind, type) and issubclass(kind, Cell):
        return kind(input_size, hidden_size, **options)
    from revgen.networks.module_cell import ModuleCell

    return ModuleCell(kind, input_size, hidden_size, options)


def nest(weights: Mapping[str, Array]) -> SimpleNamespace:
    """Weights by dotted names as attributes: ``layers.0.W`` is ``p.layers[0].W``."""
    nested: dict[str, Any] = {}
    for name, value in weights.items():
        kind, _, rest = name.partition(".")
        if not rest:
            nested[kind] = value
            continue
        i, _, leaf = rest.partition(".")
        parts = nested.setdefault(kind, [])
        while len(parts) <= int(i):
            parts.append(SimpleNamespace())
        setattr(parts[int(i)], leaf, value)
    return SimpleNamespace(**nested)
