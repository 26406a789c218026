"""Regular expressions as finite automata over the symbols that the tokens of a vocabulary consist of.

Python's own parser reads the expression, and Python's matcher finds the characters of each set, so an expression means
the same as in ``re.fullmatch``. The parser, ``re._parser``, is a private module of the standard library: a parser of
our own would have to follow every detail of Python's syntax. Expressions that need more than a finite automaton are
errors: backreferences, lookahead and lookbehind, anchors in the middle, atomic groups and possessive repeats.
(Construction from the expression: Thompson 1968; subset construction: Rabin & Scott 1959.)
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from revgen.errors import OptionError

MAX_STATES = 10_000
"""The largest number of states of an automaton."""

DEAD, START = 0, 1

_parser: Any = re._parser  # type: ignore[attr-defined]
_CATEGORIES = {"DIGIT": r"\d", "NOT_DIGIT": r"\D", "SPACE": r"\s", "NOT_SPACE": r"\S", "WORD": r"\w", "NOT_WORD": r"\W"}
_BEGINNINGS, _ENDS = ("AT_BEGINNING", "AT_BEGINNING_STRING"), ("AT_END", "AT_END_STRING")
_UNSUPPORTED = {
    "ASSERT": "look ahead or back",
    "ASSERT_NOT": "look ahead or back",
    "GROUPREF": "refer back to a group",
    "GROUPREF_EXISTS": "depend on a group",
    "POSSESSIVE_REPEAT": "have possessive repeats",
    "ATOMIC_GROUP": "have atomic groups",
    "AT": "have ^, $ or \\b in the middle: it always matches the whole text",
}

Symbol = str | int
"""A character, or the id of a token that is a part of a character."""


@dataclass(frozen=True)
class Automaton:
    """A deterministic automaton. State 0 means that no match is possible; state 1 is the initial state."""

    table: NDArray[np.int32]
    """The next state for each state and symbol class, (states, classes)."""
    classes: NDArray[np.intp]
    """The class of each symbol, (symbols,). The expression treats all symbols of a class alike."""
    accepts: NDArray[np.bool_]
    """Whether a text that ends in a state matches, (states,)."""


def compile_pattern(
    pattern: str,
    symbols: Sequence[Symbol],
    spell: Callable[[str], Sequence[int]] = lambda character: (),
    name: str = "regex",
) -> Automaton:
    """Compile a regular expression to an automaton.

    ``spell`` returns the parts of a character that is not a symbol. Raises OptionError, which calls the expression
    ``name``, if the expression is invalid or needs more than a finite automaton.
    """
    try:
        parsed = _parser.parse(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise OptionError(f"{name} must be a regular expression: {pattern!r} is not valid ({error})") from None
    known = set(symbols)
    spelled = {character: spell(character) for character in sorted(_literals(parsed) - known)}
    spellings = {character: parts for character, parts in spelled.items() if parts and known.issuperset(parts)}
    builder = _Builder(symbols, spellings, name)
    items = list(parsed)
    if items and _is_at(items[0], _BEGINNINGS):  # the automaton always matches the whole text
        del items[0]
    if items and _is_at(items[-1], _ENDS):
        del items[-1]
    begin = builder.add_state()
    return builder.to_dfa(begin, builder.build(items, begin, parsed.state.flags))


def _literals(part: Any) -> set[str]:
    """Return the characters that a parsed expression contains literally."""
    if isinstance(part, tuple) and len(part) == 2 and str(part[0]) in ("LITERAL", "NOT_LITERAL"):
        return {chr(part[1])}
    if isinstance(part, tuple | list | _parser.SubPattern):
        return set().union(*map(_literals, part))
    return set()


def _is_at(item: Any, anchors: tuple[str, ...]) -> bool:
    return str(item[0]) == "AT" and str(item[1]) in anchors


class _Builder:
    """Builds a nondeterministic automaton: each state has epsilon moves, and moves for sets of symbols."""

    def __init__(self, symbols: Sequence[Symbol], spellings: Mapping[str, Sequence[int]], name: str) -> None:
        self.symbols = symbols
        self.rare = spellings
        self.name = name
        self.epsilon: list[list[int]] = []
        self.moves: list[list[tuple[int, int]]] = []  # (set, state)
        self.sets: list[NDArray[np.bool_]] = []  # masks of symbols, (symbols,)
        self.set_numbers: dict[object, int] = {}

    def add_state(self) -> int:
        if len(self.epsilon) >= 20 * MAX_STATES:
            raise OptionError(f"{self.name} is too large: it repeats too much")
        self.epsilon.append([])
        self.moves.append([])
        return len(self.epsilon) - 1

    def build(self, items: Any, begin: int, flags: int) -> int:
        """Add consecutive items that start in a state, and return the state after them."""
        for item in items:
            begin = self.node(str(item[0]), item[1], begin, flags)
        return begin

    def node(self, kind: str, value: Any, begin: int, flags: int) -> int:
        if kind == "SUBPATTERN":
            _, more, fewer, inner = value
            return self.build(inner, begin, (flags | more) & ~fewer)
        if kind == "BRANCH":
            end = self.add_state()
            for branch in value[1]:
                self.epsilon[self.build(branch, begin, flags)].append(end)
            return end
        if kind in ("MAX_REPEAT", "MIN_REPEAT"):  # greedy or not, the same texts match
            return self.repeat(value, begin, flags)
        if kind in ("LITERAL", "NOT_LITERAL", "ANY", "IN"):
            return self.char(_set_pattern(kind, value), begin, flags)
        raise OptionError(f"{self.name} cannot {_UNSUPPORTED.get(kind, 'have ' + kind)}")

    def repeat(self, value: tuple[int, Any, Any], begin: int, flags: int) -> int:
        least, most, inner = value
        for _ in range(least):
            begin = self.build(inner, begin, flags)
        if most is _parser.MAXREPEAT:
            again = self.add_state()
            self.epsilon[begin].append(again)
            self.epsilon[self.build(inner, again, flags)].append(again)
            return again
        end = self.add_state()
        self.epsilon[begin].append(end)
        for _ in range(most - least):
            begin = self.build(inner, begin, flags)
            self.epsilon[begin].append(end)
        return end

    def char(self, text: str, begin: int, flags: int) -> int:
        """Add one character of a set, as a symbol or spelled by its parts."""
        matches = re.compile(text, flags & (re.ASCII | re.IGNORECASE | re.DOTALL)).fullmatch
        end = self.add_state()
        if (text, flags) not in self.set_numbers:
            members = [isinstance(symbol, str) and matches(symbol) is not None for symbol in self.symbols]
            self.set_numbers[text, flags] = self.add_set(members)
        self.moves[begin].append((self.set_numbers[text, flags], end))
        for character in filter(matches, self.rare):
            state = begin
            parts = self.rare[character]
            for i, part in enumerate(parts, 1):
                if part not in self.set_numbers:
                    self.set_numbers[part] = self.add_set([symbol == part for symbol in self.symbols])
                following = end if i == len(parts) else self.add_state()
                self.moves[state].append((self.set_numbers[part], following))
                state = following
        return end

    def add_set(self, members: Sequence[bool]) -> int:
        self.sets.append(np.array(members, bool))
        return len(self.sets) - 1

    def epsilon_closure(self, states: Iterable[int]) -> frozenset[int]:
        """Return these states and all that epsilon moves lead to."""
        closure, waiting = set(states), list(states)
        while waiting:
            for state in self.epsilon[waiting.pop()]:
                if state not in closure:
                    closure.add(state)
                    waiting.append(state)
        return frozenset(closure)

    def to_dfa(self, begin: int, end: int) -> Automaton:
        """Return the deterministic automaton that matches the same texts."""
        sets = np.array(self.sets, bool).reshape(len(self.sets), len(self.symbols))
        columns, classes = np.unique(sets, axis=1, return_inverse=True)
        members = [np.flatnonzero(row).tolist() for row in columns]
        numbers = {frozenset[int](): DEAD, self.epsilon_closure([begin]): START}
        subsets = list(numbers)
        rows = [[DEAD] * columns.shape[1]]
        while len(rows) < len(subsets):
            targets: list[set[int]] = [set() for _ in range(columns.shape[1])]
            for state in subsets[len(rows)]:
                for number, following in self.moves[state]:
                    for member in members[number]:
                        targets[member].add(following)
            row = []
            for target in targets:
                subset = self.epsilon_closure(target)
                if subset not in numbers:
                    numbers[subset] = len(subsets)
                    subsets.append(subset)
                row.append(numbers[subset])
            rows.append(row)
            if len(subsets) > MAX_STATES:
                raise OptionError(f"{self.name} is too large: its automaton has more than {MAX_STATES:,} states")
        accepts = np.array([end in subset for subset in subsets])
        return Automaton(np.array(rows, np.int32), classes.reshape(-1), accepts)


def _set_pattern(kind: str, value: Any) -> str:
    """Return the regular expression of one set of characters."""
    if kind == "ANY":
        return "."
    if kind == "LITERAL":
        return re.escape(chr(value))
    if kind == "NOT_LITERAL":
        return f"[^{re.escape(chr(value))}]"
    return f"[{''.join(map(_member_pattern, value))}]"


def _member_pattern(item: tuple[Any, Any]) -> str:
    kind, value = str(item[0]), item[1]
    if kind == "NEGATE":
        return "^"
    if kind == "RANGE":
        return f"{re.escape(chr(value[0]))}-{re.escape(chr(value[1]))}"
    if kind == "CATEGORY":
        return _CATEGORIES[str(value).removeprefix("CATEGORY_")]
    return re.escape(chr(value))
