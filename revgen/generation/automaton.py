"""Regular expressions as finite automata. Their symbols are characters, and tokens that are parts of a character.

Python's own parser reads the expression, and Python's matcher finds the characters of each set, so an expression means
the same as in ``re.fullmatch``. The parser is a private module of the standard library, ``re._parser``, because a
parser of our own would have to follow every detail of Python's syntax. Some expressions need more than a finite
automaton and raise an error: backreferences, lookahead and lookbehind, anchors in the middle, atomic groups and
possessive repeats. The construction is by Thompson (1968), and the subset construction by Rabin & Scott (1959).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from revgen.errors import OptionError
from revgen.options import safe_repr

MAX_STATES = 10_000
"""The largest number of states that an automaton may have."""
MAX_PATTERN_CHARS = 100_000
"""The largest length of an expression. Python parses this many characters in about 0.2 s."""
MAX_STEPS = 1_500_000
"""The largest number of steps that build an automaton; they take less than half a second. Because steps are counted and
not time, the same expressions are accepted on every machine."""

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
    """The class of each symbol, (symbols,). The expression does not distinguish the symbols of a class."""
    accepts: NDArray[np.bool_]
    """Whether a text that leads to a state matches, (states,)."""


def compile_pattern(
    pattern: str,
    symbols: Sequence[Symbol],
    spell: Callable[[str], Sequence[int]] = lambda character: (),
    name: str = "regex",
) -> Automaton:
    """Compile a regular expression to an automaton.

    ``spell`` returns the parts of a character that is not a symbol. Raises OptionError if the expression is invalid, is
    too large, or needs more than a finite automaton; the message calls the expression ``name``.
    """
    if len(pattern) > MAX_PATTERN_CHARS:
        raise OptionError(f"{name} is too large: it has {len(pattern):,} characters, more than {MAX_PATTERN_CHARS:,}")
    try:
        parsed = _parser.parse(pattern)
        return _build(parsed, symbols, spell, name)
    except RecursionError:
        raise OptionError(f"{name} is too large: its groups are nested too deeply") from None
    except (re.error, OverflowError, ValueError) as error:
        if isinstance(error, OptionError):
            raise
        shown = safe_repr(pattern)
        raise OptionError(f"{name} must be a regular expression: {shown} is not valid ({error})") from None


def _build(parsed: Any, symbols: Sequence[Symbol], spell: Callable[[str], Sequence[int]], name: str) -> Automaton:
    """Build the automaton of a parsed expression."""
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
    return builder.to_dfa(begin, builder.add_sequence(items, begin, parsed.state.flags))


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
    """A nondeterministic automaton under construction. Its states have epsilon transitions and symbol transitions."""

    def __init__(self, symbols: Sequence[Symbol], spellings: Mapping[str, Sequence[int]], name: str) -> None:
        self.symbols = symbols
        self.spellings = spellings
        self.name = name
        self.epsilon: list[list[int]] = []  # for each state, the states that follow without a symbol
        self.transitions: list[list[tuple[int, int]]] = []  # for each state: (index of a symbol set, next state)
        self.sets: list[NDArray[np.bool_]] = []  # masks of symbols, (symbols,)
        self.set_indices: dict[object, int] = {}
        self.steps = 0

    def count_steps(self, steps: int) -> None:
        """Count steps of the construction. Raises OptionError if there are more than ``MAX_STEPS``."""
        self.steps += steps
        if self.steps > MAX_STEPS:
            raise OptionError(f"{self.name} is too large: it repeats too much, or has too many alternatives")

    def add_state(self) -> int:
        """Add a state and return its index."""
        if len(self.epsilon) >= 10 * MAX_STATES:
            raise OptionError(f"{self.name} is too large: it repeats too much")
        self.epsilon.append([])
        self.transitions.append([])
        return len(self.epsilon) - 1

    def add_sequence(self, items: Any, begin: int, flags: int) -> int:
        """Add consecutive items of a parsed expression after the state ``begin``, and return the state after them."""
        for item in items:
            begin = self.add_item(str(item[0]), item[1], begin, flags)
        return begin

    def add_item(self, kind: str, value: Any, begin: int, flags: int) -> int:
        """Add one item of a parsed expression after the state ``begin``, and return the state after it."""
        self.count_steps(1)
        if kind == "SUBPATTERN":
            _, added_flags, removed_flags, inner = value
            return self.add_sequence(inner, begin, (flags | added_flags) & ~removed_flags)
        if kind == "BRANCH":
            end = self.add_state()
            for branch in value[1]:
                self.epsilon[self.add_sequence(branch, begin, flags)].append(end)
            return end
        if kind in ("MAX_REPEAT", "MIN_REPEAT"):  # greedy or not, the same texts match
            return self.add_repeat(value, begin, flags)
        if kind in ("LITERAL", "NOT_LITERAL", "ANY", "IN"):
            return self.add_char(_set_pattern(kind, value), begin, flags)
        raise OptionError(f"{self.name} cannot {_UNSUPPORTED.get(kind, 'have ' + kind)}")

    def add_repeat(self, value: tuple[int, Any, Any], begin: int, flags: int) -> int:
        """Add a repeated expression after the state ``begin``, and return the state after it."""
        min_count, max_count, inner = value
        for _ in range(min_count):
            self.count_steps(1)
            begin = self.add_sequence(inner, begin, flags)
        if max_count is _parser.MAXREPEAT:
            loop = self.add_state()
            self.epsilon[begin].append(loop)
            self.epsilon[self.add_sequence(inner, loop, flags)].append(loop)
            return loop
        end = self.add_state()
        self.epsilon[begin].append(end)
        for _ in range(max_count - min_count):
            self.count_steps(1)
            begin = self.add_sequence(inner, begin, flags)
            self.epsilon[begin].append(end)
        return end

    def add_char(self, pattern: str, begin: int, flags: int) -> int:
        """Add one character that matches a pattern, as a symbol or spelled by its parts."""
        matches = re.compile(pattern, flags & (re.ASCII | re.IGNORECASE | re.DOTALL)).fullmatch
        end = self.add_state()
        self.count_steps(len(self.spellings))
        if (pattern, flags) not in self.set_indices:
            self.count_steps(len(self.symbols))
            members = [isinstance(symbol, str) and matches(symbol) is not None for symbol in self.symbols]
            self.set_indices[pattern, flags] = self.add_set(members)
        self.transitions[begin].append((self.set_indices[pattern, flags], end))
        for character in filter(matches, self.spellings):
            state = begin
            parts = self.spellings[character]
            for i, part in enumerate(parts, 1):
                if part not in self.set_indices:
                    self.set_indices[part] = self.add_set([symbol == part for symbol in self.symbols])
                next_state = end if i == len(parts) else self.add_state()
                self.transitions[state].append((self.set_indices[part], next_state))
                state = next_state
        return end

    def add_set(self, members: Sequence[bool]) -> int:
        """Add a set of symbols, given as a mask, and return its index."""
        self.sets.append(np.array(members, bool))
        return len(self.sets) - 1

    def epsilon_closure(self, states: Iterable[int]) -> frozenset[int]:
        """Return these states and all states that epsilon transitions reach from them."""
        closure, stack = set(states), list(states)
        while stack:
            self.count_steps(1)
            for state in self.epsilon[stack.pop()]:
                if state not in closure:
                    closure.add(state)
                    stack.append(state)
        return frozenset(closure)

    def to_dfa(self, begin: int, end: int) -> Automaton:
        """Return the deterministic automaton that matches the same texts."""
        sets = np.array(self.sets, bool).reshape(len(self.sets), len(self.symbols))
        columns, classes = np.unique(sets, axis=1, return_inverse=True)
        classes_of_set = [np.flatnonzero(row).tolist() for row in columns]
        subset_indices = {frozenset[int](): DEAD, self.epsilon_closure([begin]): START}
        subsets = list(subset_indices)
        rows = [[DEAD] * columns.shape[1]]
        while len(rows) < len(subsets):
            targets: list[set[int]] = [set() for _ in range(columns.shape[1])]  # for each class of symbols
            for state in subsets[len(rows)]:
                for set_index, next_state in self.transitions[state]:
                    self.count_steps(len(classes_of_set[set_index]))
                    for symbol_class in classes_of_set[set_index]:
                        targets[symbol_class].add(next_state)
            row = []
            for target in targets:
                subset = self.epsilon_closure(target)
                if subset not in subset_indices:
                    subset_indices[subset] = len(subsets)
                    subsets.append(subset)
                row.append(subset_indices[subset])
            rows.append(row)
            if len(subsets) > MAX_STATES:
                raise OptionError(f"{self.name} is too large: its automaton has more than {MAX_STATES:,} states")
        accepts = np.array([end in subset for subset in subsets])
        return Automaton(np.array(rows, np.int32), classes.reshape(-1), accepts)


def _set_pattern(kind: str, value: Any) -> str:
    """Return the regular expression of a parsed set of characters."""
    if kind == "ANY":
        return "."
    if kind == "LITERAL":
        return re.escape(chr(value))
    if kind == "NOT_LITERAL":
        return f"[^{re.escape(chr(value))}]"
    return f"[{''.join(map(_member_pattern, value))}]"


def _member_pattern(item: tuple[Any, Any]) -> str:
    """Return the regular expression of one item between the brackets of a set."""
    kind, value = str(item[0]), item[1]
    if kind == "NEGATE":
        return "^"
    if kind == "RANGE":
        return f"{re.escape(chr(value[0]))}-{re.escape(chr(value[1]))}"
    if kind == "CATEGORY":
        return _CATEGORIES[str(value).removeprefix("CATEGORY_")]
    return re.escape(chr(value))
