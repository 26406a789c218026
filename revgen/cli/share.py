"""``revgen push``, ``revgen pull``, ``revgen export`` and ``revgen cache``."""

from __future__ import annotations

import argparse
from pathlib import Path

from revgen.browser.page import make_page
from revgen.cli.console import print_json, print_table
from revgen.cli.options import add_model
from revgen.cli.parser import Command
from revgen.corpus.cache import prune
from revgen.display.formatting import format_size
from revgen.errors import OptionError
from revgen.hub import list_cached, pull, push, remove_cached, resolve_repo_id
from revgen.language_model import LanguageModel
from revgen.space import push_space
from revgen.zoo import load


def add_push_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``revgen push``."""
    parser.add_argument(
        "models", nargs="+", metavar="MODEL", help="the directory of a saved model, followed by the repository"
    )
    parser.add_argument("--organization", help="push several directories to this owner, each under its own name")
    parser.add_argument("--private", action="store_true", default=None, help="make a new repository private")
    parser.add_argument("--revision", help="the branch, which is created if it does not exist")
    parser.add_argument("--message", help="the commit message")
    parser.add_argument("--overwrite-card", action="store_true", help="write a new card even if there is one")
    parser.add_argument("--space", action="store_true", help="push the page of each model to a Space of the same name")
    parser.add_argument("--no-samples", action="store_true", help="leave generated texts out of a new card")


def run_push(options: argparse.Namespace) -> None:
    """Push models, and print the address of each commit and of each Space."""
    settings = {name: getattr(options, name) for name in ("private", "overwrite_card")}
    settings["commit_message"] = options.message
    if options.organization:
        names = {path: f"{options.organization}/{Path(path).resolve().name}" for path in options.models}
    elif len(options.models) == 2:
        names = dict([options.models])
    else:
        raise OptionError("push takes a directory and a repository, or directories and --organization")
    models = {path: LanguageModel.from_directory(path) for path in names}  # check all before the first is pushed
    pages = {path: make_page(model, model.browser_network()) for path, model in models.items() if options.space}
    addresses = [
        push(Path(path), name, revision=options.revision, samples=not options.no_samples, **settings)
        for path, name in names.items()
    ]
    addresses += [push_space(models[path], page, names[path], **settings) for path, page in pages.items()]
    if options.json:
        print_json(addresses)
    else:
        print("\n".join(addresses))


def run_pull(options: argparse.Namespace) -> None:
    """Download a model, and print its directory in the cache."""
    directory = pull(resolve_repo_id(options.model), revision=options.revision)
    if options.json:
        print_json({"directory": str(directory)})
    else:
        print(directory)


def add_export_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``revgen export``."""
    add_model(parser)
    parser.add_argument(
        "out", nargs="?", help="a page, such as page.html; or an ONNX graph, such as model.onnx, or its directory"
    )
    parser.add_argument("--out", dest="out_option", metavar="OUT", help="the same as OUT")
    parser.add_argument("--title", help="the title of the page (default: the name of the model or its directory)")


def run_export(options: argparse.Namespace) -> None:
    """Export a model as a page or as an ONNX graph, and print the path."""
    out = options.out_option or options.out
    if not out or (options.out and options.out_option):
        raise OptionError("export takes a model and one path, such as page.html or model.onnx")
    model = load(options.model, revision=options.revision)
    if Path(out).suffix.lower() in (".html", ".htm"):
        directory = Path(options.model)
        title = options.title or (directory.resolve().name if directory.is_dir() else None)
        kind, path = "page", model.export(out, title=title)
    else:
        from revgen.interop.onnx import export  # imports PyTorch

        kind, path = "graph", export(model, out)
    if options.json:
        print_json({kind: str(path)})
    else:
        print(path)


def add_cache_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``revgen cache``."""
    parser.add_argument("--remove", metavar="MODEL", help="remove this model from the cache")
    parser.add_argument("--prune", action="store_true", help="delete token ids, vocabularies and compiled code")


def run_cache(options: argparse.Namespace) -> None:
    """Print the models in the cache, remove one, or delete what can be computed again."""
    if options.prune:
        try:
            print(f"{prune():,} bytes of token ids, vocabularies and compiled code freed")
        except OSError as error:
            raise OptionError(f"the cache of token ids cannot be used: {error}") from None
        return
    if options.remove:
        size = remove_cached(options.remove)
        if options.json:
            print_json({"removed": options.remove, "size": size})
        else:
            print(f"{options.remove}: removed, {format_size(size)} freed")
        return
    rows = [model.to_dict() for model in list_cached()]
    if options.json:
        print_json(rows, indent=2)
    else:
        rows = [row | {"revisions": ", ".join(row["revisions"])} for row in rows]
        print_table(rows, ("name", "revisions", "commit", "size"))


COMMANDS = {
    "push": Command(
        add_push_arguments,
        run_push,
        """\
  revgen push my-model me/my-model --private
  revgen push my-model me/my-model --revision v2 --message "Train for longer"
  revgen push my-model me/my-model --space
  revgen push zoo/* --organization my-organization""",
    ),
    "pull": Command(
        add_model,
        run_pull,
        """\
  revgen pull me/my-model
  revgen pull me/my-model --revision v1""",
    ),
    "export": Command(
        add_export_arguments,
        run_export,
        """\
  revgen export lstm-char page.html
  revgen export my-model page.html --title "Names of dinosaurs"
  revgen export me/my-model my-graph/model.onnx --revision v1 --json""",
    ),
    "cache": Command(
        add_cache_arguments,
        run_cache,
        """\
  revgen cache
  revgen cache --remove me/my-model
  revgen cache --prune""",
    ),
}
