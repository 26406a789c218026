"""The report of a comparison: one HTML file that needs no other, Markdown with its pictures beside it, and JSON."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any

from revgen.comparison.charts import charts
from revgen.errors import MissingExtraError, RevgenError
from revgen.files import write_atomically
from revgen.novelty import Span
from revgen.version import __version__

if TYPE_CHECKING:
    from revgen.comparison.compare import Comparison, ModelResult

TEMPLATE = Path(__file__).with_suffix(".html")
LEGEND = (
    "Nats and bits per character are counted on the held-out text and can be compared between all models; perplexity "
    "only between models of one kind of token. ∞: the model holds something in that text to be impossible. Speed is "
    "that of writing one text. Copied: the part of the sample in spans of at least 20 characters that stand in the "
    "training text as they are."
)
COPIES = 0.2
"""The copied share of a sample from which on the table warns."""
ALONE = "svg{color:#1d2530}@media(prefers-color-scheme:dark){svg{color:#e4e8ee}}"
"""The colour of text in a chart that stands in a file of its own."""


def count(value: float) -> str:
    """A whole number."""
    return f"{value:,.0f}"


def loss(value: float) -> str:
    """Four digits behind the point."""
    return f"{value:.4f}"


def figures(value: float) -> str:
    """Three digits."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def duration(value: float) -> str:
    """Seconds, or minutes and seconds."""
    return f"{figures(value)} s" if value < 100 else f"{value // 60:.0f} min {value % 60:02.0f} s"


def percent(value: float) -> str:
    """A share."""
    return f"{value:.0%}"


@dataclass(frozen=True)
class Column:
    """A column of the table: the figure of a row, its title, its unit, how it is written, and which is the best."""

    name: str
    title: str
    unit: str
    shown: Callable[[float], str]
    best: Callable[[Sequence[float]], float] | None = None

    @property
    def heading(self) -> str:
        """Title and unit in one line."""
        return f"{self.title}, {self.unit}" if self.unit else self.title


COLUMNS = (
    Column("parameters", "Parameters", "", count),
    Column("seconds", "Training", "in all", duration),
    Column("seconds_per_epoch", "Training", "an epoch", duration),
    Column("nats_per_char", "Nats", "per character", loss, min),
    Column("bits_per_char", "Bits", "per character", loss, min),
    Column("perplexity", "Perplexity", "per token", figures),
    Column("chars_per_second", "Speed", "characters/s", count, max),
    Column("longest_copy", "Longest copy", "characters", count),
    Column("copied_fraction", "Copied", "of the sample", percent),
)


def save(comparison: Comparison, directory: Path) -> Path:
    """See ``Comparison.save``."""
    try:
        drawn, missing = charts(comparison), ""
    except MissingExtraError as error:
        drawn, missing = {}, str(error)
    title = "Language models side by side"
    files = {
        "report.html": html(comparison, title, drawn, missing),
        "report.md": markdown(comparison, title, drawn, missing),
        "report.json": comparison.to_json() + "\n",
    }
    for name, svg in drawn.items():
        files[f"charts/{slug(name)}.svg"] = svg.replace("<defs>", f"<style>{ALONE}</style><defs>", 1)
    for row in comparison:
        for name, graph in row.graphs.items():
            files[picture(row, name)] = graph.to_svg()
    try:
        for file, text in files.items():
            (directory / file).parent.mkdir(parents=True, exist_ok=True)
            write_atomically(directory / file, text.encode())
    except OSError as error:
        raise RevgenError(f"{directory}: could not save the report: {error.strerror or error}") from error
    return directory


def html(comparison: Comparison, title: str, drawn: dict[str, str], missing: str) -> str:
    """The page."""
    return Template(TEMPLATE.read_text("utf-8")).substitute(
        title=escape(title),
        summary=escape(summary(comparison)),
        head="<tr><th>Model</th>"
        + "".join(f"<th>{column.title}<small>{column.unit}</small></th>" for column in COLUMNS)
        + "</tr>",
        rows="\n".join(_table_row(comparison, row) for row in comparison),
        legend=LEGEND,
        charts=_charts(drawn, missing),
        cards_note=f"{escape(cards_note(comparison))} What is <mark>marked</mark> in a sample is copied.",
        cards="\n".join(map(_card, comparison)),
        version=__version__,
    )


def summary(comparison: Comparison) -> str:
    """One sentence on the text and the budget."""
    settings = comparison.settings
    train, held_out = settings["training"], settings["validation"]
    budget = []
    if epochs := settings["epochs"]:
        budget.append(f"{epochs} epoch{'s' * (epochs > 1)}")
    if seconds := settings["max_seconds"]:
        budget.append(f"{duration(seconds)} at most")
    return (
        f"{len(comparison)} models, trained on the same {train['characters']:,} characters "
        f"({train['documents']:,} documents) under one budget ({', '.join(budget) or 'the default'}), and measured on "
        f"{held_out['characters']:,} characters ({held_out['documents']:,} documents) that none of them has seen."
    )


def cards_note(comparison: Comparison) -> str:
    """What the samples have in common."""
    settings = comparison.settings
    return (
        f"Every sample goes on from {settings['prompt']!r} at temperature {settings['temperature']:g} with the seed "
        f"{settings['seed']}. The graphs are taken from the models as they compute; blue "
        "boxes hold weights, under their sizes."
    )


def cell(column: Column, row: ModelResult) -> str:
    """The text of one figure."""
    value = getattr(row, column.name)
    return "–" if value is None else "∞" if math.isinf(value) else column.shown(value)


def is_best(comparison: Comparison, column: Column, row: ModelResult) -> bool:
    """Whether no other model has a better figure."""
    values = [v for other in comparison if (v := getattr(other, column.name)) is not None]
    value = getattr(row, column.name)
    return column.best is not None and len(values) > 1 and value is not None and value == column.best(values)


def _table_row(comparison: Comparison, row: ModelResult) -> str:
    model, _, options = row.model.partition(":")
    small = f"<small>{escape(options.replace(',', ', '))}</small>" if options else ""
    name = f'<td><a href="#{slug(row.model)}">{escape(model)}</a>{small}</td>'
    if row.error is not None:
        return f'<tr>{name}<td class="error" colspan="{len(COLUMNS)}">{escape(row.error)}</td></tr>'
    finite = [v for other in comparison if (v := other.nats_per_char) is not None and math.isfinite(v)]
    cells = []
    for column in COLUMNS:
        copies = column.name == "copied_fraction" and (row.copied_fraction or 0) >= COPIES
        kind = ' class="best"' if is_best(comparison, column, row) else ' class="copies"' if copies else ""
        bar = ""
        if column.name == "nats_per_char" and row.nats_per_char in finite:
            bar = f'<span class="bar"><i style="width:{100 * row.nats_per_char / max(finite):.0f}%"></i></span>'
        label = column.heading
        cells.append(f'<td data-label="{label}"{kind}><span>{cell(column, row)}</span>{bar}</td>')
    return f"<tr>{name}{''.join(cells)}</tr>"


def _charts(drawn: dict[str, str], missing: str) -> str:
    if missing:
        return f'<p class="quiet">{escape(missing)}</p>'
    if not drawn:
        return ""
    parts = [
        f'<figure class="card"><figcaption>{escape(name)}</figcaption>{svg}</figure>' for name, svg in drawn.items()
    ]
    return f'<h2>Charts</h2><div class="charts">{"".join(parts)}</div>'


def _card(row: ModelResult) -> str:
    begin = f'<section class="card model" id="{slug(row.model)}"><header><h3>{escape(row.model)}</h3>'
    if row.sample is None:
        return f'{begin}<span style="color:var(--bad)">{escape(row.error or "")}</span></header></section>'
    shown = [c for c in COLUMNS if c.name in ("nats_per_char", "parameters", "seconds")]
    facts = " · ".join(f"{cell(c, row)} {_fact(c)}" for c in shown)
    pictures = "".join(
        f"<figure><figcaption>{escape(name)}</figcaption>{graph.to_svg()}</figure>"
        for name, graph in row.graphs.items()
    )
    return (
        f'{begin}<span class="quiet">{facts}</span></header><div class="body">'
        f'<p class="sample">{marked(row.sample, row.copies)}</p><div class="graphs">{pictures}</div></div></section>'
    )


def _fact(column: Column) -> str:
    return {"seconds": "of training", "parameters": "parameters"}.get(column.name, "nats per character")


def marked(text: str, spans: Sequence[Span]) -> str:
    """A text as HTML with what is copied in it marked; spans that overlap are one."""
    joined: list[Span] = []
    for span in spans:
        if joined and span.start < joined[-1].end:
            joined[-1] = Span(joined[-1].start, span.end)
        else:
            joined.append(span)
    parts, place = [], 0
    for start, end in joined:
        parts += [escape(text[place:start]), f"<mark>{escape(text[start:end])}</mark>"]
        place = end
    return "".join([*parts, escape(text[place:])])


def markdown(comparison: Comparison, title: str, drawn: dict[str, str], missing: str) -> str:
    """The same as Markdown; the pictures are files beside it."""
    titles = ["Model", *(column.heading for column in COLUMNS)]
    lines = [f"# {title}", "", summary(comparison), "", _line(titles), _line(["---", *["---:"] * len(COLUMNS)])]
    for row in comparison:
        if row.error is not None:
            lines.append(_line([f"`{row.model}`", row.error.replace("|", "\\|"), *[""] * (len(COLUMNS) - 1)]))
            continue
        shown = [cell(c, row) if not is_best(comparison, c, row) else f"**{cell(c, row)}**" for c in COLUMNS]
        lines.append(_line([f"`{row.model}`", *shown]))
    lines += ["", LEGEND, ""]
    lines += [f"![{name}](charts/{slug(name)}.svg)" for name in drawn] or [missing]
    lines += ["", "## What each writes, and how it computes", "", cards_note(comparison), ""]
    for row in comparison:
        lines += [f"### {row.model}", ""]
        if row.sample is None:
            lines += [row.error or "", ""]
            continue
        fence = "`" * max(3, 1 + max(map(len, re.findall("`+", row.sample)), default=0))
        lines += [f"{fence}text", row.sample, fence, ""]
        lines += [" ".join(f"![{row.model}, {name}]({picture(row, name)})" for name in row.graphs), ""]
    return "\n".join(lines)


def _line(cells: Sequence[Any]) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def slug(text: str) -> str:
    """A name as part of the name of a file, or of a link."""
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-")


def picture(row: ModelResult, name: str) -> str:
    """The file of a picture of a model."""
    return f"graphs/{slug(row.model)}-{slug(name)}.svg"
