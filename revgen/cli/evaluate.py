"""``revgen evaluate``, ``revgen explain`` and ``revgen novelty``."""

from __future__ import annotations

import argparse

from revgen.cli.console import print_ansi, print_json, print_table
from revgen.cli.options import LABELS, MODEL, add_device, add_model, add_read_options, as_paths, get_read_options
from revgen.cli.parser import Command
from revgen.corpus import read
from revgen.errors import OptionError
from revgen.files import expand_user, write_atomically
from revgen.zoo import load

TEXTS = "files or directories, as for fit"


def add_evaluate_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``revgen evaluate``."""
    add_model(parser)
    parser.add_argument("texts", nargs="+", help=TEXTS)
    parser.add_argument("--labels", metavar="FIELD", help=LABELS)
    parser.add_argument(
        "--adaptive", action="store_true", help="also measure the model when it learns from each document it reads"
    )
    add_device(parser)
    add_read_options(parser)


def run_evaluate(options: argparse.Namespace) -> None:
    """Print nats and bits per character, and perplexity per token."""
    model = load(options.model, device=options.device, revision=options.revision)
    evaluation = model.evaluate(
        as_paths(options.texts), labels=options.labels, adaptive=options.adaptive, **get_read_options(options)
    )
    if options.json:
        print_json(evaluation.to_dict(), indent=2)
    else:
        print(evaluation)


def add_explain_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``revgen explain``."""
    parser.add_argument("model", help=MODEL)
    parser.add_argument("text", help="the text to explain")
    parser.add_argument("--top", type=int, default=5, help="the number of alternatives to show (default: 5)")
    parser.add_argument("--html", metavar="FILE", help="write the colored text as HTML")
    parser.add_argument("--attention", metavar="FILE", help="write a figure of the attention weights (.png, .svg, …)")
    parser.add_argument("--label", help="the label of the text")


def run_explain(options: argparse.Namespace) -> None:
    """Print each token with its log-probability and alternatives."""
    model = load(options.model)
    explanation = model.explain(options.text, top=options.top, label=options.label)
    if options.attention:
        model.attention(options.text, label=options.label).save(options.attention)
    if options.html:
        page = f'<!doctype html><meta charset="utf-8"><title>{model.name}</title>{explanation.to_html()}\n'
        try:
            write_atomically(expand_user(options.html), page.encode("utf-8", "replace"))
        except OSError as error:
            raise OptionError(f"--html {options.html}: {error.strerror or error}") from None
    if options.json:
        print_json(explanation.to_dicts(), indent=2)
        return
    print_ansi(explanation.to_terminal())
    print_table(*explanation.to_rows())


def add_novelty_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``revgen novelty``."""
    parser.add_argument("model", help=MODEL)
    parser.add_argument("texts", nargs="+", help=TEXTS)
    parser.add_argument(
        "--training", nargs="+", metavar="FILE", help="the training text, for a model that was saved without it"
    )
    parser.add_argument(
        "--minimum", type=int, default=20, help="the shortest span to report, in characters (default: 20)"
    )
    add_read_options(parser)


def run_novelty(options: argparse.Namespace) -> None:
    """Print the copied spans of each text."""
    model = load(options.model)
    if options.training:
        model.index_texts(as_paths(options.training), **get_read_options(options))
    rows = []
    for i, text in enumerate(read(as_paths(options.texts), **get_read_options(options)), 1):
        report = model.novelty(text, options.minimum)
        row = {"text": i, "characters": len(text)} | report.to_dict()
        if options.json:
            print_json(row)
        start, end = max(report.spans, key=lambda span: span.end - span.start, default=(0, 0))
        rows.append(row | {"spans": len(report.spans), "longest span": " ".join(text[start:end].split())})
    if not options.json:
        columns = ("text", "characters", "fraction", "spans", "longest", "longest span")
        print_table(rows, columns, cut=["longest span"])


COMMANDS = {
    "evaluate": Command(
        add_evaluate_arguments,
        run_evaluate,
        """\
  revgen evaluate lstm-char held_out.txt
  revgen evaluate lstm-char held_out.txt --adaptive
  revgen evaluate my-model posts.csv --field body --json""",
    ),
    "explain": Command(
        add_explain_arguments,
        run_explain,
        """\
  revgen explain lstm-char "the song is over"
  revgen explain my-model "the song is over" --html explained.html --attention attention.png""",
    ),
    "novelty": Command(
        add_novelty_arguments,
        run_novelty,
        """\
  revgen novelty my-model samples.jsonl
  revgen novelty lstm-char sample.txt --training reviews.txt --minimum 30 --json""",
    ),
}
