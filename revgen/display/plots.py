"""The creation and the style of matplotlib figures."""

from __future__ import annotations

import base64
import io
from functools import partial
from typing import Any

from revgen.errors import MissingExtraError

COLORS = ("#4c82e6", "#e0683c", "#3a9d6d", "#a868d8", "#c99a1d", "#26a0b4", "#d95590", "#86909c", "#8a6d4b", "#6f9a2a")
WIDTH, HEIGHT = 6.2, 4.0
"""The size of a figure with one pair of axes, in inches."""


def new_figure(width: float = WIDTH, height: float = HEIGHT) -> Any:
    """Create an empty matplotlib figure of this size in inches, which pyplot does not know.

    Raises MissingExtraError without matplotlib.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtraError("figures need matplotlib: pip install 'revgen[plots]'") from None
    return Figure(figsize=(width, height), layout="constrained")


def pyplot_figure(width: float = WIDTH, height: float = HEIGHT) -> Any:
    """Create an empty figure of pyplot: ``plt.show()`` shows it, and a notebook shows it at the end of the cell.

    Raises MissingExtraError without matplotlib.
    """
    new_figure()  # raises the error
    from matplotlib import pyplot

    figure: Any = pyplot.figure(figsize=(width, height), layout="constrained")
    figure._ipython_display_ = partial(_show_once, figure)
    return figure


def _show_once(figure: Any) -> None:
    """Let IPython show a figure as the value of a cell, unless pyplot shows it anyway.

    Without a window, pyplot shows the figures that are open at the end of the cell, so this one is closed before.
    """
    from matplotlib import get_backend, pyplot

    if "inline" in get_backend():
        pyplot.close(figure)
    if not pyplot.fignum_exists(figure.number):
        raise NotImplementedError  # IPython then shows the image


def png_image(figure: Any, description: str) -> str:
    """Return a figure as an HTML image that contains its data."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=100)
    return f'<img alt="{description}" src="data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}">'


def style_axes(axes: Any, text_color: str = "black") -> None:
    """Draw the grid and the axes in light lines, remove the top and right lines, and set the color of all text."""
    axes.patch.set_alpha(0)
    axes.spines[["top", "right"]].set_visible(False)
    for spine in axes.spines.values():
        spine.set_color(text_color)
        spine.set_alpha(0.35)
    axes.grid(color=text_color, alpha=0.12, linewidth=0.7)
    axes.tick_params(which="both", color=text_color, labelcolor=text_color, labelsize=9)
    axes.xaxis.label.set_color(text_color)
    axes.yaxis.label.set_color(text_color)
