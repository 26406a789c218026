"""Parsers of the command line, and error messages that name its options."""

from __future__ import annotations

import argparse
import importlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn


@dataclass(frozen=True)
class Command:
    """A command: a function that adds its arguments to a parser, a function that runs it, and examples for its help.

    ``run`` returns an exit status; None is 0.
    """

    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int | None]
    examples: str


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


class CommandParser(Parser):
    """The parser of one command.

    It imports the module of the command when it parses, so that ``revgen --help`` does not wait for other libraries.
    """

    def __init__(self, *, command: str, module: str, summary: str, **options: Any) -> None:
        super().__init__(
            description=f"{summary[0].upper()}{summary[1:]}.",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            **options,
        )
        self.command, self.module = command, module

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        self.load()
        return super().parse_known_args(args, namespace)

    def load(self) -> None:
        """Add the arguments of the command, unless they have been added."""
        if self.epilog is not None:
            return
        command: Command = importlib.import_module(f"revgen.cli.{self.module}").COMMANDS[self.command]
        command.add_arguments(self)
        self.add_argument("--json", action="store_true", help="print JSON")
        self.epilog = f"examples:\n{command.examples}"
        self.set_defaults(run=command.run)


def replace_parameters(message: str, command: str, parsers: Mapping[str, CommandParser]) -> str:
    """Replace the Python parameters that a message names by the options of the command line.

    ``resume=True`` becomes ``--resume``, and ``max_tokens must be …`` becomes ``--max-tokens must be …``. An option of
    ``command`` has precedence over an option of another command. A parameter of one word, such as ``seed``, is replaced
    only where the sentence shows that it is a parameter.
    """
    actions: dict[str, argparse.Action] = {}
    for parser in (parsers[command], *parsers.values()):
        parser.load()
        for action in parser._actions:
            if action.option_strings:
                actions.setdefault(action.dest, action)
    names = sorted(actions, key=len, reverse=True)
    name = rf"(?P<name>{'|'.join(names)})"
    long_name = rf"(?P<name>{'|'.join(name for name in names if '_' in name)})"

    def flag(match: re.Match[str]) -> str:
        action = actions[match["name"]]
        value = match.groupdict().get("value")
        option = action.option_strings[-1]
        return option if value is None or action.nargs == 0 else f"{option} {value}"

    value = r"(?P<value>\"[^\"]*\"|'[^']*'|[\w.…-]+)"
    for pattern in (
        rf"(?<![\w.-]){name}={value}",
        rf"^{name}(?= (must|cannot|needs|names|has|ends|does not) )",
        rf"(?<=combine with ){name}(?=:)",
        rf"(?<![\w.'/-]){long_name}(?![\w'(=./])",
    ):
        message = re.sub(pattern, flag, message)
    return message
