"""The recurrent network around any cell, for NumPy and PyTorch.

x = E[token]
x = x + cell(norm(x))     for each layer; without the residual connection if the sizes differ
logits = norm(x) H + b    with H = E' if the embeddings are tied, or H = P E' if the sizes differ
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from revgen import ops
from revgen.cells.cell import Cell
from revgen.networks.block import Block
from revgen.networks.functional import Backend, FunctionalNetwork
from revgen.ops import Array
from revgen.options import check, check_flags, check_fractions, check_sizes, check_tuple, is_int
from revgen.registry import cells

MAX_TABLE_SIZE = 1 << 22
"""The largest number of values in ``Stack.table``."""
MAX_NGRAM = 32
"""The longest n-gram of an n-gram head."""


@dataclass(frozen=True)
class RecurrentConfig:
    """The sizes and options of a recurrent network.

    If ``hidden_size`` or ``dropout`` is None, ``fit`` chooses it by the size of the corpus. If ``embedding_size`` is
    None, it is ``hidden_size``. ``dropout`` is the dropout rate of each layer's output, with one mask for all time
    steps (Gal & Ghahramani 2016). ``cell_options`` are the options of the cell.

    ``ngram_heads`` are the lengths of n-grams that are looked up in the last 1,024 tokens of the document
    (``networks.ngram_heads``), such as (3, 4, 5, 7, 10) characters or (1, 2, 3) words. With them, the network repeats
    the names and phrases of a text more exactly.
    """

    hidden_size: int | None = None
    num_layers: int = 2
    embedding_size: int | None = None
    dropout: float | None = None
    residual: bool = True
    layer_norm: bool = True
    tie_embeddings: bool = True
    ngram_heads: Sequence[int] = ()
    cell_options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_sizes(self, "num_layers", optional=["hidden_size", "embedding_size"])
        check_tuple(self, "ngram_heads", are_increasing_lengths, f"a list of increasing lengths from 1 to {MAX_NGRAM}")
        check_fractions(self, *(["dropout"] if self.dropout is not None else []))
        check_flags(self, "residual", "layer_norm", "tie_embeddings")
        check("cell_options", self.cell_options, isinstance(self.cell_options, Mapping), "a mapping")


def are_increasing_lengths(lengths: Sequence[Any]) -> bool:
    """Return whether the values are lengths of n-grams, each longer than the one before."""
    return all(is_int(n, 1) and n <= MAX_NGRAM for n in lengths) and list(lengths) == sorted({*lengths})


class Stack(FunctionalNetwork):
    """An embedding, ``num_layers`` cells and an output layer.

    ``config`` is a RecurrentConfig, or has the same fields. A subclass may override ``input_size``, ``hidden_size`` and
    ``features`` to connect the layers differently. The index of ``Backend.dropout`` is 0 for the embedding and i + 1
    for the output of layer i.
    """

    row_block = 4  # products of 31 rows take OpenBLAS longer than those of 32

    table: Array | None = None
    """The results of the first layer's ``project`` for all tokens, (vocab, …), precomputed for generation."""

    def __init__(self, cell: str, config: Any, vocab: int) -> None:
        super().__init__(config, vocab)
        self.embedding_size: int = config.embedding_size or self.hidden_size(0)
        self.cell_class: type = cells.get(cell)
        self.cells: list[Cell] = []
        for i in range(config.num_layers):
            self.cells.append(make_cell(cell, self.input_size(i), self.hidden_size(i), config.cell_options))
        self.sizes = [self.input_size(i) for i in range(config.num_layers + 1)]
        self.blocks = [self.make_block(i) for i in range(config.num_layers)]

    def input_size(self, i: int) -> int:
        """Return the input size of layer i, or of the output layer, once the layers before it have been created."""
        return self.cells[i - 1].output_size if i else self.embedding_size

    def make_block(self, i: int) -> Block:
        """Return layer i with the operations around it; the last one normalizes its output for the output layer."""
        is_residual = self.config.residual and self.sizes[i] == self.sizes[i + 1]
        is_last = i == self.config.num_layers - 1
        return Block(self.cells[i], self.config.layer_norm, is_residual, self.config.layer_norm and is_last)

    def hidden_size(self, i: int) -> int:
        """Return the size of layer i, or 1 if ``fit`` has not chosen it yet."""
        return int(self.config.hidden_size or 1)

    def param_shapes(self) -> dict[str, tuple[int, ...]]:
        shapes: dict[str, tuple[int, ...]] = {"embedding": (self.vocab, self.embedding_size)}
        for i, cell in enumerate(self.cells):
            shapes |= {f"layers.{i}.{name}": tuple(shape) for name, shape in cell.param_shapes().items()}
        if self.config.layer_norm:
            for i, size in enumerate(self.sizes):
                shapes |= {f"norms.{i}.scale": (size,), f"norms.{i}.shift": (size,)}
        if not self.config.tie_embeddings:
            shapes["head"] = (self.vocab, self.sizes[-1])
        elif self.sizes[-1] != self.embedding_size:
            shapes["projection"] = (self.sizes[-1], self.embedding_size)
        return shapes | {"bias": (self.vocab,)}

    def init_weight(self, name: str, shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[Any]:
        group, _, rest = name.partition(".")
        if group == "layers":
            i, _, parameter = rest.partition(".")
            return self.cells[int(i)].init_param(parameter, shape, rng)
        if group == "embedding" and not self.config.layer_norm:
            return rng.normal(0, 1, shape)  # variance 1, as after a normalization
        return super().init_weight(name, shape, rng)

    def num_blocks(self, name: str) -> int:
        group, _, rest = name.partition(".")
        i, _, parameter = rest.partition(".")
        return self.cells[int(i)].num_blocks(self.cells[int(i)].param_shapes()[parameter]) if group == "layers" else 1

    @property
    def supports_numpy(self) -> bool:
        return all(cell.supports_numpy for cell in self.cells)

    @property
    def has_fading_memory(self) -> bool:
        return self.supports_numpy

    def initial_state(self, batch: int, zeros: Callable[[tuple[int, ...]], Array]) -> Any:
        return tuple(cell.initial_state(batch, zeros) for cell in self.cells)

    def features(self, p: SimpleNamespace, tokens: Array, state: Any, backend: Backend) -> tuple[Array, Any]:
        x = backend.dropout(ops.embedding(p.embedding, tokens), 0)  # (time, batch, embedding)
        return self.run_blocks(p, x, state, tokens, backend)

    def run_blocks(
        self, p: SimpleNamespace, x: Array, state: Any, tokens: Array, backend: Backend
    ) -> tuple[Array, Any]:
        """Run all layers: their input x (time, batch, embedding) -> (time, batch, features), and the next state."""
        states = []
        for i in range(len(self.cells)):
            x, layer_state = self.run_block(p, i, x, state[i], tokens, backend)  # (time, batch, hidden)
            states.append(layer_state)
        return x, tuple(states)

    def norm(self, p: SimpleNamespace, i: int, x: Array) -> Array:
        """Return the input x of layer i, normalized if ``layer_norm`` is set."""
        return ops.layer_norm(x, p.norms[i].scale, p.norms[i].shift) if self.config.layer_norm else x

    def run_block(
        self, p: SimpleNamespace, i: int, x: Array, state: Any, tokens: Array, backend: Backend
    ) -> tuple[Array, Any]:
        """Run block i over a sequence: (time, batch, input) and a state -> (time, batch, output) and a state."""
        norms = p.norms if self.config.layer_norm else [None] * len(self.sizes)
        weights = SimpleNamespace(layer=p.layers[i], norm=norms[i], output_norm=norms[i + 1])
        if i == 0 and self.table is not None:
            y, state = self.cells[0].sequence(p.layers[0], ops.embedding(self.table, tokens), state)
            return self.blocks[0].leave(weights, x, y), state
        return backend.run_block(self.blocks[i], weights, x, state, i + 1)

    def logits(self, p: SimpleNamespace, features: Array) -> Array:
        if hasattr(p, "projection"):
            features = features @ p.projection
        head = p.head if hasattr(p, "head") else p.embedding
        return features @ head.T + p.bias

    def precompute(self, p: SimpleNamespace) -> None:
        """Compute ``table``, unless it would be too large."""

        def project(embeddings: Array) -> Array:
            return self.cells[0].project(p.layers[0], self.norm(p, 0, embeddings[:, None]))[:, 0]

        if project(p.embedding[:1]).size * self.vocab <= MAX_TABLE_SIZE:
            self.table = project(p.embedding)


def make_cell(name: str, input_size: int, hidden_size: int, options: Mapping[str, Any]) -> Cell:
    """Create one layer of a registered cell; a ``torch.nn.Module`` is wrapped in a ``ModuleCell``."""
    cell_class = cells.get(name)
    if isinstance(cell_class, type) and issubclass(cell_class, Cell):
        return cell_class(input_size, hidden_size, **options)
    from revgen.networks.module_cell import ModuleCell

    return ModuleCell(cell_class, input_size, hidden_size, options)
