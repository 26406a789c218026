"""``revgen datasets``."""

from __future__ import annotations

import argparse

from revgen import datasets
from revgen.cli.console import note, print_json, print_table
from revgen.cli.parser import Command
from revgen.display.formatting import format_size
from revgen.errors import OptionError
from revgen.files import expand_user, replace_file, to_readable_json


def add_datasets_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``revgen datasets``."""
    parser.add_argument(
        "dataset", nargs="?", help="a corpus in the package, or a data set of the Hub (owner/name); default: list them"
    )
    parser.add_argument("--out", metavar="FILE", help="write the texts to this file as JSON lines, for fit")
    parser.add_argument("--split", default="train", help='the part of a data set: "train" (default), "train[:1%%]", …')
    parser.add_argument("--subset", help="the configuration, for a data set that has several")
    parser.add_argument("--field", default="text", help="the column with the text (default: text)")
    parser.add_argument("--revision", help="the branch, tag or commit of a data set")
    parser.add_argument("--overwrite", action="store_true", help="replace the file of --out")


def run_datasets(options: argparse.Namespace) -> None:
    """Print the corpora in the package or one data set, or write its texts to a file."""
    if options.dataset is not None and options.out:
        _write_texts(options)
        return
    if options.out:
        raise OptionError("--out writes the texts of one data set: name it")
    chosen = datasets.names() if options.dataset is None else [options.dataset]
    rows = [datasets.info(name, revision=options.revision).to_dict() for name in chosen]
    if options.json:
        print_json(rows if options.dataset is None else rows[0], indent=2)
        return
    print_table(rows, [name for name in rows[0] if any(row[name] not in (None, "") for row in rows)])
    if options.dataset is None:
        note("the texts of any data set on the Hub: revgen datasets owner/name --out FILE.jsonl")


def _write_texts(options: argparse.Namespace) -> None:
    out = expand_user(options.out)
    if out.exists() and not options.overwrite:
        raise OptionError(f"{options.out} exists already: name another file, or add --overwrite")
    names = ("split", "subset", "field", "revision")
    corpus = datasets.load(
        options.dataset, progress=not options.quiet, **{name: getattr(options, name) for name in names}
    )
    try:
        with replace_file(out) as file:
            if options.dataset in datasets.names():
                file.write(datasets.path(options.dataset).read_bytes())  # with its other fields
            else:
                file.writelines(f"{to_readable_json({options.field: text})}\n".encode() for text in corpus)
    except OSError as error:
        raise OptionError(f"--out {options.out}: {error.strerror or error}") from None
    if options.json:
        print_json({"file": str(out), "size": out.stat().st_size})
    else:
        note(f"{out}: {format_size(out.stat().st_size)}")


COMMANDS = {
    "datasets": Command(
        add_datasets_arguments,
        run_datasets,
        """\
  revgen datasets
  revgen datasets reviews --out reviews.jsonl
  revgen datasets owner/name --split "train[:10000]" --field text --out texts.jsonl""",
    ),
}
