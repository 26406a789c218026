"""Regular expressions as finite automata over the symbols that the tokens of a vocabulary are made of.

Python's own parser reads the expression, and its own matcher tells which characters each set of it holds, so that an
expression means what it means to ``re.fullmatch``. What no finite automaton can do is refused: backreferences, looking
ahead or behind, anchors within, atomic groups and possessive repeats.
(The construction from the expression: Thompson 1968; sets of states as states: Rabin & Scott 1959.)
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
"""States of an automaton."""

DEAD, BEGIN = 0, 1

_parser: Any = re._parser  # type: ignore[attr-defined]
_CATEGORIES = {"DIGIT": r"\d", "NOT_DIGIT": r"\D", "SPACE": r"\s", "NOT_SPACE": r"\S", "WORD": r"\w", "NOT_WORD": r"\W"}
_BEGINNINGS, _ENDS = ("AT_BEGINNING", "AT_BEGINNING_STRING"), ("AT_END", "AT_END_STRING")
_REFUSED = {
    "ASSERT": "look ahead or behind",
    "ASSERT_NOT": "look ahead or behind",
    "GROUPREF": "refer back to a group",
    "GROUPREF_EXISTS": "depend on a group",
    "POSSESSIVE_REPEAT": "have possessive repeats",
    "ATOMIC_GROUP": "have atomic groups",
    "AT": "have ^, $ or \\b within: it matches the whole text in any case",
}

Symbol = str | int
"""A character, or the id of a token that is one of the parts of a character."""


@dataclass(frozen=True)
class Automaton:
    """Where each symbol leads, state by state; state 0 is that of no match any more, 1 the first."""

    table: NDArray[np.int32]
    """(states, classes)"""
    classes: NDArray[np.intp]
    """The class of each symbol, (symbols,): the expression does not tell the symbols of one class apart."""
    accepts: NDArray[np.bool_]
    """Whether the text up to here matches, (states,)."""


def compile_pattern(
    pattern: str,
    symbols: Sequence[Symbol],
    spell: Callable[[str], Sequence[int]] = lambda character: (),
    name: str = "regex",
) -> Automaton:
    """Compile a regular expression to an automaton.

    ``spell`` gives the parts of a character that is no symbol. Raises OptionError under ``name`` for an expression that
    no automaton matches.
    """
    try:
        parsed = _parser.parse(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise OptionError(f"{name} must be a regular expression: {pattern!r} is none ({error})") from None
    known = set(symbols)
    spelled = {character: spell(character) for character in sorted(_literals(parsed) - known)}
    rare = {character: parts for character, parts in spelled.items() if parts and known.issuperset(parts)}
    builder = _Builder(symbols, rare, name)
    items = list(parsed)
    if items and _is_at(items[0], _BEGINNINGS):  # the whole text matches in any case
        del items[0]
    if items and _is_at(items[-1], _ENDS):
        del items[-1]
    begin = builder.state()
    return builder.to_dfa(begin, builder.build(items, begin, parsed.state.flags))


def _literals(part: Any) -> set[str]:
    """The characters that a parsed expression names one by one."""
    if isinstance(part, tuple) and len(part) == 2 and str(part[0]) in ("LITERAL", "NOT_LITERAL"):
        return {chr(part[1])}
    if isinstance(part, tuple | list | _parser.SubPattern):
        return set().union(*map(_literals, part))
    return set()


def _is_at(item: Any, places: tuple[str, ...]) -> bool:
    return str(item[0]) == "AT" and str(item[1]) in places


class _Builder:
    """A nondeterministic automaton in the making: from each state free moves, and moves by sets of symbols."""

    def __init__(self, symbols: Sequence[Symbol], rare: Mapping[str, Sequence[int]], name: str) -> None:
        self.symbols = symbols
        self.rare = rare
        self.name = name
        self.epsilon: list[list[int]] = []
        self.moves: list[list[tuple[int, int]]] = []  # (set, state)
        self.sets: list[NDArray[np.bool_]] = []  # which symbols are in it, (symbols,)
        self.numbers: dict[object, int] = {}

    def state(self) -> int:
        if len(self.epsilon) >= 20 * MAX_STATES:
            raise OptionError(f"{self.name} is too large: it repeats too much")
        self.epsilon.append([])
        self.moves.append([])
        return len(self.epsilon) - 1

    def build(self, items: Any, begin: int, flags: int) -> int:
        """Parts one behind the other, from a state on; the state behind them."""
        for item in items:
            begin = self.node(str(item[0]), item[1], begin, flags)
        return begin

    def node(self, kind: str, value: Any, begin: int, flags: int) -> int:
        if kind == "SUBPATTERN":
            _, more, fewer, inner = value
            return self.build(inner, begin, (flags | more) & ~fewer)
        if kind == "BRANCH":
            end = self.state()
            for branch in value[1]:
                self.epsilon[self.build(branch, begin, flags)].append(end)
            return end
        if kind in ("MAX_REPEAT", "MIN_REPEAT"):  # greedy or not, it is the same text
            return self.repeat(value, begin, flags)
        if kind in ("LITERAL", "NOT_LITERAL", "ANY", "IN"):
            return self.char(_set(kind, value), begin, flags)
        raise OptionError(f"{self.name} cannot {_REFUSED.get(kind, 'have ' + kind)}")

    def repeat(self, value: tuple[int, Any, Any], begin: int, flags: int) -> int:
        least, most, inner = value
        for _ in range(least):
            begin = self.build(inner, begin, flags)
        if most is _parser.MAXREPEAT:
            again = self.state()
            self.epsilon[begin].append(again)
            self.epsilon[self.build(inner, again, flags)].append(again)
            return again
        end = self.state()
        self.epsilon[begin].append(end)
        for _ in range(most - least):
            begin = self.build(inner, begin, flags)
            self.epsilon[begin].append(end)
        return end

    def char(self, text: str, begin: int, flags: int) -> int:
        """One character of a set, as it is or by its parts."""
        matches = re.compile(text, flags & (re.ASCII | re.IGNORECASE | re.DOTALL)).fullmatch
        end = self.state()
        if (text, flags) not in self.numbers:
            members = [isinstance(symbol, str) and matches(symbol) is not None for symbol in self.symbols]
            self.numbers[text, flags] = self.set(members)
        self.moves[begin].append((self.numbers[text, flags], end))
        for character in filter(matches, self.rare):
            place = begin
            parts = self.rare[character]
            for i, part in enumerate(parts, 1):
                if part not in self.numbers:
                    self.numbers[part] = self.set([symbol == part for symbol in self.symbols])
                behind = end if i == len(parts) else self.state()
                self.moves[place].append((self.numbers[part], behind))
                place = behind
        return end

    def set(self, members: Sequence[bool]) -> int:
        self.sets.append(np.array(members, bool))
        return len(self.sets) - 1

    def epsilon_closure(self, states: Iterable[int]) -> frozenset[int]:
        """These states and those that free moves lead to."""
        found, waiting = set(states), list(states)
        while waiting:
            for state in self.epsilon[waiting.pop()]:
                if state not in found:
                    found.add(state)
                    waiting.append(state)
        return frozenset(found)

    def to_dfa(self, begin: int, end: int) -> Automaton:
        """The automaton that matches what this one does, one state at a time."""
        sets = np.array(self.sets, bool).reshape(len(self.sets), len(self.symbols))
        columns, classes = np.unique(sets, axis=1, return_inverse=True)
        members = [np.flatnonzero(row).tolist() for row in columns]
        numbers = {frozenset[int](): DEAD, self.epsilon_closure([begin]): BEGIN}
        subsets = list(numbers)
        rows = [[DEAD] * columns.shape[1]]
        while len(rows) < len(subsets):
            targets: list[set[int]] = [set() for _ in range(columns.shape[1])]
            for state in subsets[len(rows)]:
                for number, behind in self.moves[state]:
                    for member in members[number]:
                        targets[member].add(behind)
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


def _set(kind: str, value: Any) -> str:
    """A set of characters as an expression of its own."""
    if kind == "ANY":
        return "."
    if kind == "LITERAL":
        return re.escape(chr(value))
    if kind == "NOT_LITERAL":
        return f"[^{re.escape(chr(value))}]"
    return f"[{''.join(map(_member, value))}]"


def _member(item: tuple[Any, Any]) -> str:
    kind, value = str(item[0]), item[1]
    if kind == "NEGATE":
        return "^"
    if kind == "RANGE":
        return f"{re.escape(chr(value[0]))}-{re.escape(chr(value[1]))}"
    if kind == "CATEGORY":
        return _CATEGORIES[str(value).removeprefix("CATEGORY_")]
    return re.escape(chr(value))
