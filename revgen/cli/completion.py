"""``revgen completion``."""

from __future__ import annotations

import argparse
import re
from typing import Any

from revgen import cli, datasets
from revgen.cli.parser import Command
from revgen.errors import MissingExtraError
from revgen.hub import list_cached
from revgen.hub_client import is_repository
from revgen.zoo import list_models

FILES = ("texts", "out", "out_option", "checkpoint", "config", "valid", "training", "html", "attention")
"""The arguments that are files or directories."""

PREAMBLES = {
    "bash": """\
_revgen_models() {{ compgen -W "{models}" -- "$1"; compgen -d -- "$1"; }}
_revgen_datasets() {{ compgen -W "{datasets}" -- "$1"; }}""",
    "zsh": """\
_revgen_models() {{ compadd -- {models}; _files -/ }}
_revgen_datasets() {{ compadd -- {datasets} }}""",
    "fish": """\
function _revgen_models; string split " " "{models}"; __fish_complete_directories; end
function _revgen_datasets; string split " " "{datasets}"; end""",
}
"""For each shell, the functions that print the names of models, with directories, and of data sets."""


def add_completion_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``revgen completion``."""
    parser.add_argument("shell", choices=list(PREAMBLES), help="the shell")


def run_completion(options: argparse.Namespace) -> None:
    """Print the script with which a shell completes commands, options, files and the names of models."""
    try:
        import shtab
    except ImportError:
        raise MissingExtraError("completion needs the package shtab: pip install shtab") from None
    parser, commands = cli.build_parser()
    functions: dict[str, Any] = dict.fromkeys(FILES, shtab.FILE)
    functions |= dict.fromkeys(("model", "models"), _call("_revgen_models"))
    functions["dataset"] = _call("_revgen_datasets")
    for command in commands.values():
        command.load()
        for action in command._actions:
            if action.dest in functions:
                action.complete = functions[action.dest]  # type: ignore[attr-defined]
            if isinstance(action.metavar, str):
                action.metavar = action.metavar.partition("[")[0]  # a colon has a meaning in zsh
            if options.shell == "zsh" and action.option_strings and action.nargs == "+":
                action.metavar = f"*-*:{action.metavar}"  # all words up to the next option
    models = [*list_models(), *(model.name for model in list_cached() if is_repository(model.name))]
    names = {"models": " ".join(models), "datasets": " ".join(datasets.names())}
    script = shtab.complete(parser, options.shell, preamble=PREAMBLES[options.shell].format(**names))
    if options.shell == "zsh":  # shtab completes only the first of several arguments
        script = re.sub(r'^  "\(\*\)::?', '  "*:', script, flags=re.MULTILINE)
    print(script)


def _call(function: str) -> dict[str, str]:
    """Return how each shell calls a function of its preamble."""
    return {"bash": function, "zsh": function, "fish": f"({function})"}


COMMANDS = {
    "completion": Command(
        add_completion_arguments,
        run_completion,
        """\
  revgen completion bash > ~/.local/share/bash-completion/completions/revgen
  revgen completion zsh > ~/.zfunc/_revgen
  revgen completion fish > ~/.config/fish/completions/revgen.fish""",
    ),
}
