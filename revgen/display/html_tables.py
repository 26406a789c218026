"""Tables and text as HTML, for notebooks.

Whatever is shown may come from a stranger: a corpus, or the metadata of a model on the Hub. All text is escaped, and
notebooks are told not to read formulas in it, because a formula of MathJax may contain a link.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from revgen.display.formatting import format_cell
from revgen.display.tables import has_numbers

NO_FORMULAS = 'class="tex2jax_ignore mathjax_ignore"'
"""The classes of an element in which MathJax 2 and 3 leave the text as it is."""
LEFT, RIGHT = "text-align:left", "text-align:right"
MAX_TEXT_LENGTH = 2000


def escape_text(text: str) -> str:
    """Return a text with ``<``, ``>``, ``&`` and quotes escaped. Lone surrogates become question marks."""
    return escape(text.encode("utf-8", "replace").decode("utf-8"))


def to_html(value: object, column: str = "") -> str:
    """Return a value of a column as escaped text, cut after 2,000 characters."""
    text = format_cell(value, column) if not isinstance(value, bool) else "yes" if value else ""
    return escape_text(text if len(text) <= MAX_TEXT_LENGTH else f"{text[:MAX_TEXT_LENGTH]}…")


def html_table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> str:
    """Return rows as a table with a header. Columns of numbers are aligned to the right."""
    numbers = [name for name in columns if has_numbers(rows, name)]

    def html_row(tag: str, values: Sequence[object]) -> str:
        cells = [
            f'<{tag} style="{RIGHT if name in numbers else LEFT}">{to_html(value, name)}</{tag}>'
            for name, value in zip(columns, values, strict=True)
        ]
        return f"<tr>{''.join(cells)}</tr>"

    header = html_row("th", [name.replace("_", " ") for name in columns])
    body = "".join(html_row("td", [row.get(name) for name in columns]) for row in rows)
    return f"<table><thead>{header}</thead><tbody>{body}</tbody></table>"


def html_facts(facts: Mapping[str, Any]) -> str:
    """Return names and values as a table with two columns and without a header."""
    rows = "".join(
        f'<tr><th style="{LEFT}">{to_html(name)}</th><td style="{LEFT}">{to_html(value)}</td></tr>'
        for name, value in facts.items()
    )
    return f"<table><tbody>{rows}</tbody></table>"


def html_quote(text: object) -> str:
    """Return a text as a quotation that keeps its line breaks."""
    return f'<blockquote dir="auto" style="white-space:pre-wrap">{to_html(text)}</blockquote>'


def html_details(summary: str, content: str) -> str:
    """Return HTML ``content`` under a heading that opens it on a click."""
    return f"<details><summary>{to_html(summary)}</summary>{content}</details>"


def html_block(*parts: str) -> str:
    """Return the parts, which are HTML already, as one element for a notebook."""
    return f"<div {NO_FORMULAS}>{''.join(parts)}</div>"
