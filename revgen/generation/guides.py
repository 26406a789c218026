"""Guides decide which tokens may follow a text: to match a pattern, or to be one of some choices."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from functools import lru_cache
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from revgen.errors import OptionError
from revgen.generation.automaton import DEAD, START, Automaton, Symbol, compile_pattern
from revgen.generation.healing import token_texts
from revgen.options import safe_repr
from revgen.tokenizers import Tokenizer

UNREACHABLE = 1 << 30
"""The distance of a state from which no match can be reached."""

MAX_FOLLOWED = 1 << 22
"""The number of pairs of a state and a group of tokens that are followed through an automaton at once."""


@runtime_checkable
class Guide(Protocol):
    """An object that decides which tokens may follow a text, from a state that only the guide looks into.

    States are values: ``next_state`` returns a new state and does not change the old one. If no allowed token has any
    probability, the document ends there. With the attribute ``is_strict = True``, an allowed token is sampled instead.
    """

    def initial_state(self, prompt: str) -> Any:
        """Return the state after a prompt."""

    def next_state(self, state: Any, token: int) -> Any:
        """Return the state after one more token."""

    def allowed_tokens(self, state: Any, remaining: int) -> NDArray[np.bool_]:
        """Return which tokens may follow if at most ``remaining`` do, (vocab,)."""

    def is_done(self, state: Any) -> bool:
        """Return whether the text has to end here."""


@runtime_checkable
class TextGuide(Guide, Protocol):
    """A guide that also follows the end of a token, so that the end of a prompt can be healed (``healing``)."""

    def next_state_for_text(self, state: Any, text: str) -> Any:
        """Return the state after these characters, which are the end of a token."""

    def allows_text(self, state: Any, text: str, remaining: int) -> bool:
        """Return whether a token that ends in these characters may follow if at most ``remaining`` tokens do."""


class Vocabulary:
    """The tokens of a tokenizer as strings of symbols, which are all followed through an automaton at once."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        strings: list[Sequence[Symbol]] = [
            (token,) if token in tokenizer.partial_char_ids else text
            for token, text in enumerate(token_texts(tokenizer).texts)
        ]
        self.symbols: list[Symbol] = sorted({symbol for string in strings for symbol in string}, key=str)
        self.index = {symbol: i for i, symbol in enumerate(self.symbols)}
        lengths = np.array([len(string) for string in strings])
        self.order = np.argsort(-lengths, kind="stable")  # tokens, the longest first
        self.empty = np.flatnonzero(lengths == 0).tolist()
        self.columns: list[NDArray[np.intp]] = []  # the i-th symbol of each token that has one, in this order
        for i in range(lengths.max(initial=0)):
            tokens = self.order[: np.count_nonzero(lengths > i)]
            self.columns.append(np.array([self.index[strings[token][i]] for token in tokens.tolist()], np.intp))


vocabulary = lru_cache(maxsize=8)(Vocabulary)


class TokenGroups:
    """The tokens of a vocabulary in groups. An automaton does not distinguish the tokens of a group.

    There are far fewer groups than tokens: all words of five lower-case letters may be one.
    """

    def __init__(self, vocabulary: Vocabulary, automaton: Automaton, banned: Collection[int]) -> None:
        self.table = automaton.table
        columns = [automaton.classes[symbols] for symbols in vocabulary.columns]
        codes = np.zeros(len(vocabulary.order), np.int64)  # equal for tokens with the same classes so far
        num_codes = 1
        for classes in columns:
            distinct, inverse = np.unique(codes[: len(classes)] * self.table.shape[1] + classes, return_inverse=True)
            codes[: len(classes)] = num_codes + inverse.reshape(-1)
            num_codes += len(distinct)
        _, first, inverse = np.unique(codes, return_index=True, return_inverse=True)
        ranks = np.argsort(np.argsort(first))
        first.sort()  # the longest first, as in the vocabulary
        self.columns = [classes[first[first < len(classes)]] for classes in columns]
        self.group_of_token = np.empty(len(codes), np.intp)
        self.group_of_token[vocabulary.order] = ranks[inverse.reshape(-1)]
        self.dead = [*vocabulary.empty, *banned]
        is_allowed = np.ones(len(codes), bool)
        is_allowed[self.dead] = False
        self.allowed_groups = np.unique(self.group_of_token[is_allowed])

    def __len__(self) -> int:
        return int(self.group_of_token.max()) + 1

    def follow(self, states: Sequence[int]) -> NDArray[np.int32]:
        """Return the state that each group leads to from each of these states, (states, groups)."""
        targets = np.repeat(np.array(states, np.int32)[:, None], len(self), 1)
        for classes in self.columns:
            targets[:, : len(classes)] = self.table[targets[:, : len(classes)], classes]
        return targets

    def follow_tokens(self, state: int) -> NDArray[np.int32]:
        """Return the state that each token leads to from a state, (vocab,)."""
        targets: NDArray[np.int32] = self.follow([state])[0, self.group_of_token]
        targets[self.dead] = DEAD
        return targets


class PatternGuide:
    """A guide to texts that match a regular expression as a whole, by the states of its automaton.

    A token is allowed if a match can be completed after it, with the tokens of the vocabulary, within the remaining
    number of tokens. So every text matches. Raises OptionError if none can.
    """

    is_strict = True

    def __init__(
        self, tokenizer: Tokenizer, pattern: str, max_tokens: int, banned: Collection[int] = (), name: str = "regex"
    ) -> None:
        self.eos_id = tokenizer.eos_id
        self.vocabulary = vocabulary(tokenizer)
        self.automaton = compile_pattern(pattern, self.vocabulary.symbols, tokenizer.spell, name)
        self.groups = TokenGroups(self.vocabulary, self.automaton, banned)
        self.distances = self._distances()
        self.targets = lru_cache(maxsize=512)(self.groups.follow_tokens)
        minimum = int(self.distances[START])
        if minimum == UNREACHABLE:
            raise OptionError(f"{name} {safe_repr(pattern)} can never match: {self._explain(pattern)}")
        if minimum > max_tokens:
            raise OptionError(f"max_tokens must be at least {minimum} for a text that matches {name}, not {max_tokens}")

    def _explain(self, pattern: str) -> str:
        known = set(self.vocabulary.symbols)
        unknown = sorted({c for c in pattern if c not in known and not c.isspace() and re.escape(c) == c})
        if unknown:
            return f"no token of the vocabulary contains {' '.join(unknown)}"
        return "the tokens of the vocabulary cannot form a match"

    def _distances(self) -> NDArray[np.int64]:
        """Return the minimum number of tokens from each state to a match, (states,)."""
        sources: dict[int, set[int]] = {}  # by state, the states from which one token leads to it
        count = len(self.automaton.accepts)
        step = max(1, MAX_FOLLOWED // len(self.groups))
        is_target = np.zeros(count, bool)
        for first in range(1, count, step):
            states = range(first, min(first + step, count))
            for state, row in zip(states, self.groups.follow(states), strict=True):
                is_target[:] = False
                is_target[row[self.groups.allowed_groups]] = True
                for target in np.flatnonzero(is_target).tolist():
                    sources.setdefault(target, set()).add(state)
        distances = np.full(count, UNREACHABLE, np.int64)
        distance, front = 0, set(np.flatnonzero(self.automaton.accepts).tolist())
        while front:
            distances[list(front)] = distance
            distance += 1
            closer = set().union(*(sources.get(state, set()) for state in front))
            front = {state for state in closer if distances[state] == UNREACHABLE}
        return distances

    def initial_state(self, prompt: str) -> int:
        return START

    def next_state(self, state: int, token: int) -> int:
        return int(self.targets(state)[token])

    def next_state_for_text(self, state: int, text: str) -> int:
        for character in text:
            state = int(self.automaton.table[state, self.automaton.classes[self.vocabulary.index[character]]])
        return state

    def allows_text(self, state: int, text: str, remaining: int) -> bool:
        return bool(self.distances[self.next_state_for_text(state, text)] < remaining)

    def allowed_tokens(self, state: int, remaining: int) -> NDArray[np.bool_]:
        allowed: NDArray[np.bool_] = self.distances[self.targets(state)] < remaining
        allowed[self.eos_id] = self.automaton.accepts[state]
        return allowed

    def is_done(self, state: int) -> bool:
        return bool(self.automaton.accepts[state]) and not (self.distances[self.targets(state)] < UNREACHABLE).any()


def choices_guide(
    tokenizer: Tokenizer, choices: Sequence[str], max_tokens: int, banned: Collection[int] = ()
) -> PatternGuide:
    """Return the guide to texts that are one of these choices.

    Raises OptionError for a choice that the vocabulary cannot form, or not within ``max_tokens``.
    """
    allowed = [token for token in range(len(tokenizer)) if token not in banned]
    parts = tokenizer.partial_char_ids.intersection(allowed)
    tokens = {token_texts(tokenizer).texts[token] for token in allowed} - {""}

    def count_parts(character: str) -> int:
        ids = tokenizer.spell(character)
        return len(ids) if parts.issuperset(ids) else UNREACHABLE

    for choice in choices:
        minimum = _min_tokens(choice, tokens, count_parts)
        if minimum == UNREACHABLE:
            raise OptionError(f"choices holds {choice!r}, which the tokens of the vocabulary cannot form")
        if minimum > max_tokens:
            raise OptionError(f"max_tokens must be at least {minimum} for the choice {choice!r}, not {max_tokens}")
    return PatternGuide(tokenizer, "|".join(map(re.escape, choices)), max_tokens, banned, "choices")


def _min_tokens(text: str, tokens: Collection[str], count_parts: Callable[[str], int]) -> int:
    """Return the minimum number of tokens for a text; ``count_parts`` is used for characters without a token."""
    longest = max(map(len, tokens), default=0)
    minimum = [0]
    for end in range(1, len(text) + 1):
        starts = range(max(0, end - longest), end)
        counts = (minimum[start] + 1 for start in starts if text[start:end] in tokens)
        minimum.append(min([*counts, UNREACHABLE]))
        if minimum[end] >= UNREACHABLE:
            minimum[end] = min(minimum[end - 1] + count_parts(text[end - 1]), UNREACHABLE)
    return minimum[-1]
