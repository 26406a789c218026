"""The attention weights of a text, and their figure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from revgen.arguments import validate_call
from revgen.display.plots import new_figure, png_image, pyplot_figure
from revgen.errors import MissingExtraError, OptionError
from revgen.model import Model
from revgen.options import check

MAX_LABELED_TOKENS = 60
"""The figure of a longer text has no labels for its tokens."""
MAX_ATTENTION_WEIGHTS = 1 << 28
"""The largest number of attention weights of one text, over all layers and heads. They take 1 GiB."""


@dataclass(frozen=True)
class Attention:
    """The attention weights of one text."""

    tokens: tuple[str, ...]
    """The start token, and the tokens of the text."""
    weights: NDArray[np.floating[Any]]
    """(layers, heads, tokens, tokens): how much each token (row) attends to each token (column). Each row sums to 1."""

    def plot(self) -> Any:
        """Return a matplotlib figure with a row for each layer and a column for each head.

        Raises MissingExtraError without the extra ``plots``.
        """
        return self._draw(pyplot_figure)

    def _repr_html_(self) -> str | None:
        try:
            return png_image(self._draw(new_figure), "attention weights")
        except MissingExtraError:
            return None

    def _draw(self, make_figure: Callable[[float, float], Any]) -> Any:
        layers, heads, size, _ = self.weights.shape
        side = min(max(size * 0.16, 2.4), 8.0)
        figure = make_figure(side * heads + 0.6, side * layers + 0.6)
        labels = [" ".join(token.split()) or repr(token)[1:-1] for token in self.tokens]
        for layer in range(layers):
            for head in range(heads):
                axes = figure.add_subplot(layers, heads, layer * heads + head + 1)
                axes.imshow(self.weights[layer, head], cmap="magma", vmin=0, interpolation="nearest")
                axes.set_title(f"layer {layer + 1}, head {head + 1}" if layers * heads > 1 else "attention", fontsize=8)
                if size <= MAX_LABELED_TOKENS:
                    axes.set_xticks(range(size), labels, rotation=90, fontsize=6, parse_math=False)
                    axes.set_yticks(range(size), labels, fontsize=6, parse_math=False)
                axes.tick_params(length=0)
        return figure

    @validate_call
    def save(self, path: str | Path) -> Path:
        """Save the figure and return its path. The suffix determines the format (``.png``, ``.svg``, ``.pdf``, …).

        Raises OptionError if the format is unknown or the file cannot be written.
        """
        path = Path(path)
        try:
            self._draw(new_figure).savefig(path, dpi=150)
        except (OSError, ValueError) as error:
            raise OptionError(f"{path}: could not save the figure: {error}") from None
        return path


def attention(model: Model, text: str, label: str | float | bool | None = None) -> Attention:
    """Return the attention weights of a model on a text. Raises OptionError for a model without attention."""
    check("text", text, isinstance(text, str), "a string")
    ids = np.array([model.tokenizer.bos_id, *model.tokenizer.encode(text)])
    weights = model.attention_weights(ids + model.label_offset(label))
    return Attention(tuple(model.tokenizer.vocabulary[i] for i in ids), weights)


def check_attention_size(time: int, maps: int) -> None:
    """Raise OptionError if ``maps`` matrices of (time, time) attention weights would take too much memory."""
    max_time = int((MAX_ATTENTION_WEIGHTS / maps) ** 0.5)
    if time > max_time:
        raise OptionError(
            f"text has {time:,} tokens: the attention weights of more than {max_time:,} take too much memory"
        )
