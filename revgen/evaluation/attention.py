"""Where a network looks: the attention weights of each token of a text on those before it, and a picture of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from revgen.arguments import checked
from revgen.errors import OptionError
from revgen.model import Model
from revgen.options import check
from revgen.plots import new_figure

NAMED = 60
"""Tokens up to which a picture names each."""

MAX_ATTENTION_WEIGHTS = 1 << 28
"""Attention weights of one text, in all layers and heads: 1 GiB."""


@dataclass(frozen=True)
class Attention:
    """The attention weights of one text."""

    tokens: tuple[str, ...]
    """The start of the document and the tokens of the text."""
    weights: NDArray[np.floating[Any]]
    """(layers, heads, tokens, tokens): how much each token, a row, takes from each, a column; a row sums to 1."""

    def figure(self) -> Any:
        """A matplotlib figure: a row of pictures for each layer, one for each head."""
        layers, heads, size, _ = self.weights.shape
        side = min(max(size * 0.16, 2.4), 8.0)
        made = new_figure(side * heads + 0.6, side * layers + 0.6)
        names = [" ".join(token.split()) or repr(token)[1:-1] for token in self.tokens]
        for layer in range(layers):
            for head in range(heads):
                axes = made.add_subplot(layers, heads, layer * heads + head + 1)
                axes.imshow(self.weights[layer, head], cmap="magma", vmin=0, interpolation="nearest")
                axes.set_title(f"layer {layer + 1}, head {head + 1}" if layers * heads > 1 else "attention", fontsize=8)
                if size <= NAMED:
                    axes.set_xticks(range(size), names, rotation=90, fontsize=6, parse_math=False)
                    axes.set_yticks(range(size), names, fontsize=6, parse_math=False)
                axes.tick_params(length=0)
        return made

    @checked
    def save(self, path: str | Path) -> Path:
        """Write the picture, in the format of the name's ending (``.png``, ``.svg``, ``.pdf``, …)."""
        path = Path(path)
        try:
            self.figure().savefig(path, dpi=150)
        except (OSError, ValueError) as error:
            raise OptionError(f"{path}: the picture cannot be written: {error}") from None
        return path


def attention(model: Model, text: str, label: str | float | bool | None = None) -> Attention:
    """Return the attention weights of a model on a text. Raises OptionError for a model without attention."""
    check("text", text, isinstance(text, str), "a string")
    ids = np.array([model.tokenizer.bos_id, *model.tokenizer.encode(text)])
    weights = model.attention_weights(ids + model.label_offset(label))
    return Attention(tuple(model.tokenizer.vocabulary[i] for i in ids), weights)


def check_attention_size(time: int, maps: int) -> None:
    """Raise OptionError if ``maps`` matrices of (time, time) attention weights would take too much memory."""
    limit = int((MAX_ATTENTION_WEIGHTS / maps) ** 0.5)
    if time > limit:
        raise OptionError(
            f"text has {time:,} tokens: the attention weights of more than {limit:,} take too much memory"
        )
