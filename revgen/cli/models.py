"""``revgen list`` and ``revgen info``."""

from __future__ import annotations

import argparse

from revgen.card import make_card
from revgen.cli.console import print_json, print_markdown, print_table
from revgen.cli.options import add_model
from revgen.cli.parser import Command
from revgen.zoo import load, models


def add_list_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``revgen list``."""
    parser.add_argument("pattern", nargs="?", default="*", help='a name with wildcards, such as "lstm-*"')
    parser.add_argument("--pretrained", action="store_true", help="list only models with weights")


def run_list(options: argparse.Namespace) -> None:
    """Print the table of models."""
    table = models(options.pattern, pretrained=options.pretrained)
    if options.json:
        print_json(table.to_dicts(), indent=2)
    else:
        print_table(*table.to_rows(), cut=["description"], optional=["pretrained", "licence", "source"])


def run_info(options: argparse.Namespace) -> None:
    """Print the card of a model."""
    model = load(options.model, revision=options.revision)
    if options.json:
        print_json(model.info(), indent=2)
    else:
        print_markdown(make_card(model, load_as=options.model))


COMMANDS = {
    "list": Command(
        add_list_arguments,
        run_list,
        """\
  revgen list
  revgen list "gru-*" --pretrained --json""",
    ),
    "info": Command(
        add_model,
        run_info,
        """\
  revgen info lstm-char
  revgen info my-model --json""",
    ),
}
