"""The colors of surprisal: the less a model expected a token, the stronger its color."""

from __future__ import annotations

from collections.abc import Iterable
from math import log

from revgen.display.html_tables import NO_FORMULAS, escape_text

FULL_COLOR_BITS = 8
"""Tokens with at least this surprisal have the full color."""
FULL_COLOR = (255, 140, 60)
STYLE = "font-family: monospace; white-space: pre-wrap; overflow-wrap: anywhere; line-height: 1.6"
END_SIGN = "⏹"


def to_bits(logprob: float) -> float:
    """Return the surprisal -log2 p of a token, given the natural logarithm of its probability."""
    return max(-logprob / log(2), 0.0)


def surprisal_color(bits: float) -> tuple[int, int, int]:
    """Return the color of a surprisal, (red, green, blue), between white and the full color."""
    strength = bits / FULL_COLOR_BITS if bits < FULL_COLOR_BITS else 1  # also for NaN
    red, green, blue = (round(255 + (full - 255) * strength) for full in FULL_COLOR)
    return red, green, blue


def colored_html(tokens: Iterable[tuple[str, float, str]]) -> str:
    """Return a text as an HTML element, given the text, the surprisal in bits and the tooltip of each token.

    An empty text is the end of the document, and is shown as a sign.
    """
    spans = []
    for text, bits, tooltip in tokens:
        red, green, blue = surprisal_color(bits)
        style = f"background: rgb({red} {green} {blue}); color: black"
        spans.append(f'<span style="{style}" title="{escape_text(tooltip)}">{escape_text(text) or END_SIGN}</span>')
    return f'<div {NO_FORMULAS} style="{STYLE}">{"".join(spans)}</div>'
