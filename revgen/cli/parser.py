"""Parsers of the command line, and error messages that name its options."""

from __future__ import annotations

import argparse
import difflib
import importlib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn


@dataclass(frozen=True)
class Command:
    """A command: a function that adds its arguments to a parser, a function that runs it, and examples for its help.

    ``run`` returns an exit status; None is 0. ``explain_option`` returns what to do instead for the name of an option
    that the command does not have, or None.
    """

    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int | None]
    examples: str
    explain_option: Callable[[str], str | None] = lambda name: None


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, and suggest similar names."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            choices = list(map(str, action.choices))
            hint = suggest(str(value), choices) or f"; choose from {', '.join(choices)}"
            raise argparse.ArgumentError(action, f"invalid choice: {value!r}{hint}")


def suggest(name: str, known: Iterable[str]) -> str:
    """Return the end of a message that suggests similar names, or an empty string if no name is similar."""
    similar = difflib.get_close_matches(name, list(known), n=3, cutoff=0.6)
    return f"; did you mean {', '.join(similar)}?" if similar else ""


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
        command = self.load()
        if any(action.dest == "config" for action in self._actions):
            self._use_config(args)
        options, unknown = super().parse_known_args(args, namespace)
        for argument in unknown:
            if argument.startswith("-"):
                flag = argument.partition("=")[0]
                hint = command.explain_option(flag.lstrip("-").replace("-", "_"))
                known = [flag for action in self._actions for flag in action.option_strings]
                self.error(f"unrecognized option {flag}{f': {hint}' if hint else suggest(flag, known)}")
        return options, unknown

    def _use_config(self, arguments: Iterable[str]) -> None:
        """Make the values in the file that ``--config`` names the defaults, so that the command line has precedence."""
        from revgen.cli.config_file import find_config, read_config
        from revgen.errors import RevgenError

        path = find_config(arguments)
        if path is None:
            return
        try:
            values = read_config(path, self._actions)
        except RevgenError as error:
            self.error(str(error))
        self.set_defaults(**values)
        for action in self._actions:
            if action.dest in values:
                action.required = False
                if not action.option_strings:
                    action.nargs = "*" if action.nargs == "+" else "?"

    def load(self) -> Command:
        """Return the command. Add its arguments, unless they have been added."""
        command: Command = importlib.import_module(f"revgen.cli.{self.module}").COMMANDS[self.command]
        if self.epilog is None:
            command.add_arguments(self)
            self.add_argument("--json", action="store_true", help="print JSON")
            verbosity = self.add_mutually_exclusive_group()
            verbosity.add_argument("-q", "--quiet", action="store_true", help="print only results and errors")
            verbosity.add_argument(
                "-v",
                "--verbose",
                action="store_true",
                help="print details, and the traceback of an error",
            )
            self.epilog = f"examples:\n{command.examples}"
            self.set_defaults(run=command.run)
        return command


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
        option = action.option_strings[0 if isinstance(action, argparse.BooleanOptionalAction) else -1]
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
