"""The output of commands: tables and Markdown that fit the terminal, JSON, and notes on standard error.

On a terminal, rich lays them out in color; it respects ``NO_COLOR``, ``TERM=dumb`` and terminals that cannot show
Unicode. In a pipe or a file, and without rich, they are plain text.
"""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from revgen.display.formatting import format_cell
from revgen.display.tables import has_numbers, to_text
from revgen.errors import escape_controls
from revgen.files import to_readable_json

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

logger = logging.getLogger("revgen")
MAX_PROSE_WIDTH, MIN_CUT_WIDTH, UNLIMITED = 100, 20, 10_000


@contextmanager
def notes_on_stderr(quiet: bool, verbose: bool) -> Iterator[None]:
    """Print the library's log and Python's warnings on standard error: errors, notes or details."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_NoteFormatter())
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.ERROR if quiet else logging.DEBUG if verbose else logging.INFO)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *_, **__: logger.warning("%s", message)
            yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


class _NoteFormatter(logging.Formatter):
    """The text of a note unchanged, and the text of a warning or a detail after the name of the command."""

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        return text if record.levelno == logging.INFO else f"revgen: {text}"


def note(text: object) -> None:
    """Print what happened, on standard error, unless the command is quiet."""
    logger.info("%s", text)


def print_error(message: str) -> None:
    """Print an error as one line on standard error; on a terminal, the name of the command is red."""
    console = find_console(sys.stderr)
    if console is None:
        print(f"revgen: {message}", file=sys.stderr)
        return
    console.print("revgen:", style="bold red", end=" ")
    console.print(message, markup=False, soft_wrap=True)


def print_text(text: str, end: str = "\n") -> None:
    """Print a text at once. On a terminal, control characters are escaped."""
    print(escape_controls(text, keep="\n\t") if sys.stdout.isatty() else text, end=end, flush=True)


def print_json(value: Any, **options: Any) -> None:
    """Print JSON. Characters outside ASCII are escaped only if the terminal or the pipe cannot represent them."""
    print(to_readable_json(value, getattr(sys.stdout, "encoding", None) or "utf-8", **options))


def print_table(
    rows: Sequence[Mapping[str, Any]],
    columns: Sequence[str],
    *,
    cut: Collection[str] = (),
    optional: Collection[str] = (),
) -> None:
    """Print a table. On a terminal that is too narrow for it, print the rows one below the other.

    The columns ``cut`` have one line for each row, and lose the ends of texts that are too long. A terminal that is too
    narrow does not show the columns ``optional``.
    """
    console = find_console(sys.stdout)
    if console is None:
        print(to_text(rows, columns))
        return
    for shown in (columns, [name for name in columns if name not in optional]):
        table = _make_table(rows, shown, cut)
        if console.measure(table, options=console.options.update(max_width=UNLIMITED)).minimum <= console.width:
            console.print(table)
            return
    for row in rows:
        console.print(_make_record(row, columns))


def print_sections(sections: Mapping[str, Mapping[str, str]]) -> None:
    """Print names and values under headings. On a terminal, long values are wrapped."""
    console = find_console(sys.stdout)
    width = max(len(name) for section in sections.values() for name in section) + 2
    for title, section in sections.items():
        if console is None:
            print(f"{title}\n" + "\n".join(f"  {name:<{width}}{value}" for name, value in section.items()))
        else:
            console.print(title, style="bold", markup=False)
            console.print(_make_record(section, list(section), width))


def print_markdown(text: str) -> None:
    """Print Markdown; on a terminal, rendered, and without its metadata."""
    console = find_console(sys.stdout)
    if console is None:
        print(text, end="")
        return
    from rich.markdown import Markdown

    if text.startswith("---\n"):
        _, _, text = text.removeprefix("---\n").partition("\n---\n")
    console.print(Markdown(escape_controls(text, keep="\n\t")), width=min(console.width, MAX_PROSE_WIDTH))


def print_ansi(text: str) -> None:
    """Print text with escape sequences for colors in the colors that the terminal has; nothing elsewhere."""
    console = find_console(sys.stdout)
    if console is not None and console.color_system is not None and not console.no_color:
        from rich.text import Text

        console.print(Text.from_ansi(text), soft_wrap=True, end="\n\n")


def find_console(stream: Any) -> Console | None:
    """Return rich's console for a stream, or None if the stream is no terminal or rich is not installed."""
    if stream is None or not stream.isatty():
        return None
    try:
        from rich.console import Console
    except ImportError:
        return None
    return Console(file=stream, highlight=False, emoji=False)


def _make_table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], cut: Collection[str]) -> Table:
    from rich import box
    from rich.cells import cell_len
    from rich.table import Table
    from rich.text import Text

    cells = {name: [_cell_text(row, name) for row in rows] for name in columns}
    table = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False, show_edge=False)
    for i, name in enumerate(columns):
        is_numeric = has_numbers(rows, name)
        is_whole = is_numeric or i == 0
        width = max(map(cell_len, cells[name]), default=0) if is_whole else MIN_CUT_WIDTH if name in cut else None
        table.add_column(
            Text(name.replace("_", " "), no_wrap=False),
            justify="right" if is_numeric else "left",
            style="cyan" if i == 0 else None,
            overflow="ellipsis" if name in cut else "fold",
            no_wrap=is_whole,
            min_width=width,
        )
    for i in range(len(rows)):
        table.add_row(
            *(
                Text(cells[name][i], no_wrap=True, overflow="ellipsis") if name in cut else Text(cells[name][i])
                for name in columns
            )
        )
    return table


def _cell_text(row: Mapping[str, Any], name: str) -> str:
    return escape_controls(format_cell(row.get(name), name))


def _make_record(row: Mapping[str, Any], columns: Sequence[str], width: int = 0) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="cyan", no_wrap=True, min_width=width)
    table.add_column(overflow="fold")
    for name in columns:
        if text := _cell_text(row, name):
            table.add_row(name.replace("_", " "), Text(text))
    table.add_row()
    return table
