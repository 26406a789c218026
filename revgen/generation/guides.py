"""Guides: what may follow a text, for texts that must match a pattern, and for texts that must not be copied."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from revgen.errors import OptionError
from revgen.generation.automaton import DEAD, START, Automaton, Symbol, compile_pattern
from revgen.generation.healing import token_texts
from revgen.tokenizers import Tokenizer

FORBIDDEN = 1 << 30
CELLS = 1 << 22
"""Tokens times states that are followed at once."""


class Guide(Protocol):
    """What a text may go on with, by a state of the text that is opaque to all but the guide."""

    binding: bool
    """Whether the text must go on so even where the model gives that no probability; else the document ends there."""

    def initial_state(self, prompt: str) -> Any:
        """The state behind a prompt."""

    def next_state(self, state: Any, token: int) -> Any:
        """The state behind one more token."""

    def next_state_for_text(self, state: Any, text: str) -> Any:
        """Return the state after the characters of a token's end."""

    def allows_text(self, state: Any, text: str, left: int) -> bool:
        """Return whether a token may follow that ends in these characters, where at most ``left`` tokens do."""

    def allowed_tokens(self, state: Any, left: int) -> NDArray[np.bool_]:
        """Which tokens may follow where at most ``left`` of them do, (vocab,)."""

    def is_done(self, state: Any) -> bool:
        """Whether nothing but the end can follow."""


class Vocabulary:
    """The tokens of a tokenizer as strings of symbols, all of them followed through an automaton at once."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        strings: list[Sequence[Symbol]] = [
            (token,) if token in tokenizer.partial_char_ids else text
            for token, text in enumerate(token_texts(tokenizer).texts)
        ]
        self.symbols: list[Symbol] = sorted({symbol for string in strings for symbol in string}, key=str)
        places = {symbol: place for place, symbol in enumerate(self.symbols)}
        lengths = np.array([len(string) for string in strings])
        self.order = np.argsort(-lengths, kind="stable")
        self.nothing = np.flatnonzero(lengths == 0)
        self.places = places
        self.columns: list[NDArray[np.intp]] = []  # the i-th symbols of the tokens that have one, the longest first
        for i in range(lengths.max(initial=0)):
            some = self.order[: np.count_nonzero(lengths > i)]
            self.columns.append(np.array([places[strings[token][i]] for token in some.tolist()], np.intp))

    def follow(self, automaton: Automaton, states: Sequence[int]) -> NDArray[np.int32]:
        """Where each token leads from each state, (states, vocab)."""
        reached = np.repeat(np.array(states, np.int32)[:, None], len(self.order), 1)
        for symbols in self.columns:
            reached[:, : len(symbols)] = automaton.table[reached[:, : len(symbols)], automaton.classes[symbols]]
        found = np.empty_like(reached)
        found[:, self.order] = reached
        found[:, self.nothing] = DEAD
        return found


vocabulary = lru_cache(maxsize=8)(Vocabulary)


class PatternGuide:
    """Texts that match a regular expression as a whole: the states of its automaton, masked token by token.

    A token stays where the expression can still be matched behind it, with the tokens that there are, and within the
    tokens that are left; so every text that is written matches. Raises OptionError where none can.
    """

    binding = True

    def __init__(
        self, tokenizer: Tokenizer, pattern: str, most: int, banned: Collection[int] = (), name: str = "regex"
    ) -> None:
        self.end = tokenizer.eos_id
        self.vocabulary = vocabulary(tokenizer)
        self.banned = list(banned)
        self.automaton = compile_pattern(pattern, self.vocabulary.symbols, tokenizer.spell, name)
        self.distances = self._distances()
        self.row = lru_cache(maxsize=512)(lambda state: self._follow([state])[0])
        fewest = int(self.distances[START])
        if fewest == FORBIDDEN:
            raise OptionError(f"{name} {pattern!r} can never match: {self._why(pattern)}")
        if fewest > most:
            raise OptionError(f"max_tokens must be at least {fewest} for a text that matches {name}, not {most}")

    def _why(self, pattern: str) -> str:
        known = set(self.vocabulary.symbols)
        strange = sorted({c for c in pattern if c not in known and not c.isspace() and re.escape(c) == c})
        return f"no token of the vocabulary writes {' '.join(strange)}" if strange else "the vocabulary cannot write it"

    def _follow(self, states: Sequence[int]) -> NDArray[np.int32]:
        found = self.vocabulary.follow(self.automaton, states)
        found[:, self.banned] = DEAD
        return found

    def _distances(self) -> NDArray[np.int64]:
        """The fewest tokens from each state to a match, (states,)."""
        before: dict[int, set[int]] = {}  # the states that one token leads from
        count = len(self.automaton.accepts)
        step = max(1, CELLS // len(self.vocabulary.order))
        for first in range(1, count, step):
            states = range(first, min(first + step, count))
            for state, row in zip(states, self._follow(states), strict=True):
                for behind in np.unique(row).tolist():
                    before.setdefault(behind, set()).add(state)
        distances = np.full(count, FORBIDDEN, np.int64)
        distance, front = 0, set(np.flatnonzero(self.automaton.accepts).tolist())
        while front:
            distances[list(front)] = distance
            distance += 1
            nearer = set().union(*(before.get(state, set()) for state in front))
            front = {state for state in nearer if distances[state] == FORBIDDEN}
        return distances

    def initial_state(self, prompt: str) -> int:
        return START

    def next_state(self, state: int, token: int) -> int:
        return int(self.row(state)[token])

    def next_state_for_text(self, state: int, text: str) -> int:
        for character in text:
            state = int(self.automaton.table[state, self.automaton.classes[self.vocabulary.places[character]]])
        return state

    def allows_text(self, state: int, text: str, left: int) -> bool:
        return bool(self.distances[self.next_state_for_text(state, text)] < left)

    def allowed_tokens(self, state: int, left: int) -> NDArray[np.bool_]:
        allowed: NDArray[np.bool_] = self.distances[self.row(state)] < left
        allowed[self.end] = self.automaton.accepts[state]
        return allowed

    def is_done(self, state: int) -> bool:
        return bool(self.automaton.accepts[state]) and not (self.distances[self.row(state)] < FORBIDDEN).any()


def choices_guide(
    tokenizer: Tokenizer, choices: Sequence[str], most: int, banned: Collection[int] = ()
) -> PatternGuide:
    """The guide of texts that are one of some. Raises OptionError for one that cannot be written."""
    allowed = [token for token in range(len(tokenizer)) if token not in banned]
    parts = tokenizer.partial_char_ids.intersection(allowed)
    tokens = {token_texts(tokenizer).texts[token] for token in allowed} - {""}
    for choice in choices:
        fewest = _fewest(
            choice, tokens, lambda c: len(ids) if parts.issuperset(ids := tokenizer.spell(c)) else FORBIDDEN
        )
        if fewest == FORBIDDEN:
            raise OptionError(f"choices holds {choice!r}, which the vocabulary cannot write")
        if fewest > most:
            raise OptionError(f"max_tokens must be at least {fewest} for the choice {choice!r}, not {most}")
    return PatternGuide(tokenizer, "|".join(map(re.escape, choices)), most, banned, "choices")


def _fewest(text: str, tokens: Collection[str], count_parts: Callable[[str], int]) -> int:
    """Return the fewest tokens that write a text; ``count_parts`` gives those of a character that is no token."""
    longest = max(map(len, tokens), default=0)
    fewest = [0]
    for end in range(1, len(text) + 1):
        starts = range(max(0, end - longest), end)
        whole = (fewest[start] + 1 for start in starts if text[start:end] in tokens)
        fewest.append(min([*whole, FORBIDDEN]))
        if fewest[end] >= FORBIDDEN:
            fewest[end] = min(fewest[end - 1] + count_parts(text[end - 1]), FORBIDDEN)
    return fewest[-1]


class Copies(Protocol):
    """Training text that strings are looked up in."""

    def __contains__(self, string: str) -> bool: ...


@dataclass(frozen=True)
class TextEnd:
    """The end of a text: its whole characters, and the parts of a character that is not complete yet."""

    text: str
    parts: tuple[int, ...] = ()


class CopyGuide:
    """Texts that have no more than ``most`` consecutive characters from training text."""

    binding = False

    def __init__(self, tokenizer: Tokenizer, training: Copies, most: int) -> None:
        self.training = training
        self.most = most
        self.tokenizer = tokenizer
        self.nothing_refused = np.ones(len(tokenizer), bool)
        self.root = _Node()
        self.texts = token_texts(tokenizer).texts
        for token, text in enumerate(self.texts):
            if token not in tokenizer.partial_char_ids:
                self.root.add(text, token)

    def initial_state(self, prompt: str) -> TextEnd:
        return self._end(prompt)

    def next_state(self, state: TextEnd, token: int) -> TextEnd:
        if token not in self.tokenizer.partial_char_ids:
            return self._end(state.text + self.texts[token])
        parts = (*state.parts, token)
        character = self.tokenizer.spelled_character(parts)
        return TextEnd(state.text, parts) if character is None else self._end(state.text + character)

    def next_state_for_text(self, state: TextEnd, text: str) -> TextEnd:
        return self._end(state.text + text)

    def allows_text(self, state: TextEnd, text: str, left: int) -> bool:
        return not any(self._might_copy(state.text + text[:end], 0) for end in range(1, len(text) + 1))

    def _end(self, text: str) -> TextEnd:
        return TextEnd(text[-(self.most + 1) :])

    def allowed_tokens(self, state: TextEnd, left: int) -> NDArray[np.bool_]:
        if not self._might_copy(state.text, self.root.height):
            return self.nothing_refused
        allowed = self.nothing_refused.copy()
        allowed[list(self._refused(self.root, state.text))] = False
        for token in self.tokenizer.partial_char_ids:
            after = self.next_state(state, token)
            allowed[token] = bool(after.parts) or not self._might_copy(after.text, 0)
        return allowed

    def _refused(self, node: _Node, text: str) -> Iterable[int]:
        """The tokens below a node that copy too much, where ``text`` is the text up to the node."""
        for character, child in node.children.items():
            longer = text + character
            if self._might_copy(longer, 0):
                yield from child.all_tokens()
            elif self._might_copy(longer, child.height):
                yield from self._refused(child, longer)

    def _might_copy(self, text: str, more: int) -> bool:
        """Whether with ``more`` characters a text's end may be too long a copy: it is one up to here."""
        needed = self.most + 1 - more
        return needed <= 0 or (len(text) >= needed and text[-needed:] in self.training)

    def is_done(self, state: TextEnd) -> bool:
        return False


class _Node:
    """A node of the tree of all tokens, character by character."""

    def __init__(self) -> None:
        self.children: dict[str, _Node] = {}
        self.tokens: list[int] = []
        self.height = 0  # characters of the longest token below

    def add(self, text: str, token: int) -> None:
        node = self
        node.height = max(node.height, len(text))
        for i, character in enumerate(text, 1):
            node = node.children.setdefault(character, _Node())
            node.height = max(node.height, len(text) - i)
        node.tokens.append(token)

    def all_tokens(self) -> Iterable[int]:
        yield from self.tokens
        for child in self.children.values():
            yield from child.all_tokens()
