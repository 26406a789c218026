"""The report of a comparison: one self-contained HTML file, Markdown with image files, and JSON."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any

from revgen.comparison.charts import svg_charts
from revgen.comparison.results import ModelResult, Results
from revgen.display.formatting import format_count, format_duration, format_measurement, format_percent, pluralize
from revgen.display.html_tables import escape_text, html_block, html_details, html_table
from revgen.errors import MissingExtraError, RevgenError
from revgen.files import write_atomically
from revgen.graphs.drawing import draw
from revgen.novelty import Span
from revgen.version import __version__

TITLE = "Comparison of language models"
SAMPLES_TITLE = "Samples and computational graphs"
TEMPLATE = Path(__file__).with_suffix(".html")
LEGEND = (
    "Nats and bits per character are measured on the held-out text and can be compared between all models that adapt "
    "alike. With fixed weights, a model learns nothing from a document; with a document state, it remembers the text; "
    "with adapted weights, it changes inside the document. Perplexity can be compared only between models with the "
    "same tokenizer. ∞: the model gives some of the held-out text probability zero. Speed: generating one text at a "
    "time. Copied: the fraction of the sample in spans of at least 20 characters that also occur in the training text."
)
MIN_HIGHLIGHTED_FRACTION = 0.2
"""The smallest copied fraction that the table highlights."""
CHART_FILE_STYLE = "svg{color:#1d2530}@media(prefers-color-scheme:dark){svg{color:#e4e8ee}}"
"""The text color of a chart in its own file. In the HTML report, charts take the text color of the page."""


@dataclass(frozen=True)
class Column:
    """A column of the table: a field of ``ModelResult`` and its format."""

    field: str
    title: str
    unit: str
    format: Callable[[Any], str]
    best: Callable[[Sequence[float]], float] | None = None
    """``min`` or ``max`` if the best value is highlighted."""

    @property
    def heading(self) -> str:
        """The title and the unit on one line."""
        return f"{self.title}, {self.unit}" if self.unit else self.title


COLUMNS = (
    Column("parameters", "Parameters", "", format_count),
    Column("seconds", "Training", "total", format_duration),
    Column("seconds_per_epoch", "Training", "per epoch", format_duration),
    Column("nats_per_char", "Nats", "per character", "{:.4f}".format, min),
    Column("nats_with_document_state", "Nats", "with document state", "{:.4f}".format, min),
    Column("nats_with_adapted_weights", "Nats", "with adapted weights", "{:.4f}".format, min),
    Column("adaptation", "Adaptation", "of the model itself", str),
    Column("bits_per_char", "Bits", "per character", "{:.4f}".format, min),
    Column("perplexity", "Perplexity", "per token", format_measurement),
    Column("chars_per_second", "Speed", "characters/s", format_count, max),
    Column("longest_copy", "Longest copy", "characters", format_count),
    Column("copied_fraction", "Copied", "of the sample", format_percent),
)


def save(results: Results, directory: Path) -> Path:
    """Write the report into a directory and return its path. Raises RevgenError if a file cannot be written."""
    try:
        charts, charts_error = svg_charts(results), ""
    except MissingExtraError as error:
        charts, charts_error = {}, str(error)
    files = {
        "report.html": to_html(results, charts, charts_error),
        "report.md": to_markdown(results, charts, charts_error),
        "report.json": results.to_json() + "\n",
    }
    for title, svg in charts.items():
        files[chart_file(title)] = svg.replace("<defs>", f"<style>{CHART_FILE_STYLE}</style><defs>", 1)
    for row in results:
        for title, graph in row.graphs.items():
            files[graph_file(row, title)] = draw(graph)
    try:
        for file, text in files.items():
            (directory / file).parent.mkdir(parents=True, exist_ok=True)
            write_atomically(directory / file, text.encode("utf-8", "replace"))  # lone surrogates become "?"
    except OSError as error:
        raise RevgenError(f"{directory}: could not save the report: {error.strerror or error}") from error
    return directory


# Text for both HTML and Markdown


def summary(results: Results) -> str:
    """Return one sentence about the text and the budget."""
    settings = results.settings
    train, held_out = settings["training"], settings["validation"]
    budget = []
    if epochs := settings["epochs"]:
        budget.append(pluralize(epochs, "epoch"))
    if seconds := settings["max_seconds"]:
        budget.append(f"at most {format_duration(seconds)}")
    return (
        f"{len(results)} models, trained on the same {train['characters']:,} characters "
        f"({train['documents']:,} documents) with the same budget ({', '.join(budget) or 'the default'}), and "
        f"evaluated on {held_out['characters']:,} held-out characters ({held_out['documents']:,} documents)."
    )


def samples_note(results: Results) -> str:
    """Return sentences that explain how the samples were generated and how to read the graphs."""
    settings = results.settings
    return (
        f"Every sample continues {settings['prompt']!r} at temperature {settings['temperature']:g} with seed "
        f"{settings['seed']}. Each graph shows the operations that the model runs. Blue boxes are operations with "
        "weights, and show their shapes."
    )


def columns_of(results: Results) -> list[Column]:
    """Return the columns of the table."""
    return [column for column in COLUMNS if column.field in results.columns]


def format_value(column: Column, row: ModelResult) -> str:
    """Return the text of one table cell."""
    value = getattr(row, column.field)
    is_infinite = isinstance(value, float) and math.isinf(value)
    return "–" if value is None else "∞" if is_infinite else column.format(value)


def is_best(results: Results, column: Column, row: ModelResult) -> bool:
    """Return whether no other model has a better value in this column."""
    values = [value for other in results if (value := getattr(other, column.field)) is not None]
    value = getattr(row, column.field)
    return column.best is not None and len(values) > 1 and value is not None and value == column.best(values)


def slug(text: str) -> str:
    """Return a text for file names and HTML ids: lower-case letters, digits and dots, and hyphens for all else."""
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-")


def chart_file(title: str) -> str:
    """Return the file name of a chart."""
    return f"charts/{slug(title)}.svg"


def graph_file(row: ModelResult, title: str) -> str:
    """Return the file name of one graph of a model."""
    return f"graphs/{slug(row.model)}-{slug(title)}.svg"


# HTML


def to_html(results: Results, charts: dict[str, str], charts_error: str) -> str:
    """Return the HTML page."""
    columns = columns_of(results)
    headings = "".join(f"<th>{column.title}<small>{column.unit}</small></th>" for column in columns)
    return Template(TEMPLATE.read_text("utf-8")).substitute(
        title=TITLE,
        summary=escape_text(summary(results)),
        head=f"<tr><th>Model</th>{headings}</tr>",
        rows="\n".join(_html_row(results, row) for row in results),
        legend=LEGEND,
        charts=_html_charts(charts, charts_error),
        samples_title=SAMPLES_TITLE,
        samples_note=f"{escape_text(samples_note(results))} Copied text in a sample is <mark>marked</mark>.",
        samples="\n".join(map(_html_sample, results)),
        version=__version__,
    )


def _html_row(results: Results, row: ModelResult) -> str:
    columns = columns_of(results)
    model, _, options = row.model.partition(":")
    subtitle = f"<small>{escape_text(options.replace(',', ', '))}</small>" if options else ""
    name = f'<td><a href="#{slug(row.model)}">{escape_text(model)}</a>{subtitle}</td>'
    if row.error is not None:
        return f'<tr>{name}<td class="error" colspan="{len(columns)}">{escape_text(row.error)}</td></tr>'
    finite = [nats for other in results if (nats := other.nats_per_char) is not None and math.isfinite(nats)]
    cells = []
    for column in columns:
        is_highlighted = column.field == "copied_fraction" and (row.copied_fraction or 0) >= MIN_HIGHLIGHTED_FRACTION
        css_class = ' class="best"' if is_best(results, column, row) else ' class="copies"' if is_highlighted else ""
        bar = ""
        if column.field == "nats_per_char" and row.nats_per_char in finite:
            bar = f'<span class="bar"><i style="width:{100 * row.nats_per_char / (max(finite) or 1):.0f}%"></i></span>'
        value = format_value(column, row)
        cells.append(f'<td data-label="{column.heading}"{css_class}><span>{value}</span>{bar}</td>')
    return f"<tr>{name}{''.join(cells)}</tr>"


def _html_charts(charts: dict[str, str], charts_error: str) -> str:
    if charts_error:
        return f'<p class="quiet">{escape_text(charts_error)}</p>'
    if not charts:
        return ""
    figures = [
        f'<figure class="card"><figcaption>{escape_text(title)}</figcaption>{svg}</figure>'
        for title, svg in charts.items()
    ]
    return f'<h2>Charts</h2><div class="charts">{"".join(figures)}</div>'


def _html_sample(row: ModelResult) -> str:
    opening = f'<section class="card model" id="{slug(row.model)}"><header><h3>{escape_text(row.model)}</h3>'
    if row.sample is None:
        return f'{opening}<span style="color:var(--bad)">{escape_text(row.error or "")}</span></header></section>'
    units = {"parameters": "parameters", "seconds": "of training", "nats_per_char": "nats per character"}
    facts = " · ".join(f"{format_value(c, row)} {units[c.field]}" for c in COLUMNS if c.field in units)
    graphs = "".join(
        f"<figure><figcaption>{escape_text(title)}</figcaption>{draw(graph)}</figure>"
        for title, graph in row.graphs.items()
    )
    return (
        f'{opening}<span class="quiet">{facts}</span></header><div class="body">'
        f'<p class="sample">{mark_spans(row.sample, row.copies)}</p><div class="graphs">{graphs}</div></div></section>'
    )


def to_notebook(results: Results) -> str:
    """Return the table, the charts if matplotlib is installed, and the samples with the graphs as one HTML element."""
    charts: dict[str, str] = {}
    with suppress(MissingExtraError):
        charts = svg_charts(results)
    samples = [
        html_details(
            row.model,
            f'<blockquote style="white-space:pre-wrap">{mark_spans(row.sample, row.copies)}</blockquote>'
            + "".join(map(draw, row.graphs.values())),
        )
        for row in results
        if row.sample is not None
    ]
    return html_block(html_table(results.to_dicts(), results.columns), *charts.values(), *samples)


def mark_spans(text: str, spans: Sequence[Span]) -> str:
    """Return a text as HTML with ``<mark>`` around each span. Overlapping spans are merged."""
    merged: list[Span] = []
    for span in spans:
        if merged and span.start < merged[-1].end:
            merged[-1] = Span(merged[-1].start, span.end)
        else:
            merged.append(span)
    parts, position = [], 0
    for start, end in merged:
        parts += [escape_text(text[position:start]), f"<mark>{escape_text(text[start:end])}</mark>"]
        position = end
    return "".join([*parts, escape_text(text[position:])])


# Markdown


def to_markdown(results: Results, charts: dict[str, str], charts_error: str) -> str:
    """Return the Markdown page, which links to the files of the charts and graphs."""
    columns = columns_of(results)
    headings = ["Model", *(column.heading for column in columns)]
    lines = [f"# {TITLE}", "", summary(results), ""]
    lines += [_markdown_row(headings), _markdown_row(["---", *["---:"] * len(columns)])]
    for row in results:
        if row.error is not None:
            cells = [row.error.replace("|", "\\|"), *[""] * (len(columns) - 1)]
        else:
            cells = [format_value(column, row) for column in columns]
            bold = [is_best(results, column, row) for column in columns]
            cells = [f"**{cell}**" if best else cell for cell, best in zip(cells, bold, strict=True)]
        lines.append(_markdown_row([f"`{row.model}`", *cells]))
    lines += ["", LEGEND, ""]
    lines += [f"![{title}]({chart_file(title)})" for title in charts] or [charts_error]
    lines += ["", f"## {SAMPLES_TITLE}", "", samples_note(results), ""]
    for row in results:
        lines += [f"### {row.model}", ""]
        if row.sample is None:
            lines += [row.error or "", ""]
            continue
        fence = "`" * max(3, 1 + max(map(len, re.findall("`+", row.sample)), default=0))
        lines += [f"{fence}text", row.sample, fence, ""]
        lines += [" ".join(f"![{row.model}, {title}]({graph_file(row, title)})" for title in row.graphs), ""]
    return "\n".join(lines)


def _markdown_row(cells: Sequence[Any]) -> str:
    return f"| {' | '.join(map(str, cells))} |"
