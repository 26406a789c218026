"""Guides by the training text: the next token must not extend a copy of it, or must not form a word that it lacks."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from revgen.compact_index import WINDOW, WORD_START, CompactIndex, TextIndex
from revgen.errors import OptionError
from revgen.generation.guides import TextGuide
from revgen.generation.healing import token_texts
from revgen.novelty import LETTER, SuffixIndex
from revgen.tokenizers import Tokenizer

MAX_WORD_CHARS = 100
"""A longer word is not checked."""
JOINERS = "'’-"
WORD_CHARACTER = re.compile(LETTER)
LAST_WORD = re.compile(rf"{LETTER}+(?:[{JOINERS}]{LETTER}+)*[{JOINERS}]?\Z")


@dataclass(frozen=True)
class TextEnd:
    """The end of a text: complete characters, and the parts of an incomplete one."""

    text: str
    parts: tuple[int, ...] = ()


class TextEndGuide:
    """The base of guides that look at the last characters of a text, at most ``num_chars``."""

    is_strict = False

    def __init__(self, tokenizer: Tokenizer, num_chars: int) -> None:
        self.tokenizer = tokenizer
        self.num_chars = num_chars
        self.all_allowed = np.ones(len(tokenizer), bool)
        self.texts = token_texts(tokenizer).texts

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

    def _end(self, text: str) -> TextEnd:
        return TextEnd(text[-self.num_chars :])

    def is_done(self, state: TextEnd) -> bool:
        return False


class CopyGuide(TextEndGuide):
    """A guide to texts that copy at most ``max_chars`` consecutive characters of the training text."""

    def __init__(self, tokenizer: Tokenizer, training: SuffixIndex, max_chars: int) -> None:
        super().__init__(tokenizer, max_chars + 1)
        self.training = training
        self.root = token_tree(tokenizer)

    def allows_text(self, state: TextEnd, text: str, remaining: int) -> bool:
        return not any(self._may_copy(state.text + text[:end], 0) for end in range(1, len(text) + 1))

    def allowed_tokens(self, state: TextEnd, remaining: int) -> NDArray[np.bool_]:
        if not self._may_copy(state.text, self.root.height):
            return self.all_allowed
        allowed = self.all_allowed.copy()
        allowed[list(self._refused(self.root, state.text))] = False
        for token in self.tokenizer.partial_char_ids:
            after = self.next_state(state, token)
            allowed[token] = bool(after.parts) or not self._may_copy(after.text, 0)
        return allowed

    def _refused(self, node: _Node, text: str) -> Iterable[int]:
        """Yield the tokens below a node that copy too much; ``text`` is the text up to the node."""
        for character, child in node.children.items():
            longer = text + character
            if self._may_copy(longer, 0):
                yield from child.all_tokens()
            elif self._may_copy(longer, child.height):
                yield from self._refused(child, longer)

    def _may_copy(self, text: str, more: int) -> bool:
        """Return whether the end of a text copies too much, or may do so after ``more`` characters."""
        length = self.num_chars - more
        return length <= 0 or (len(text) >= length and text[-length:] in self.training)


class WordStartGuide(TextEndGuide):
    """A guide to texts in which no word begins after a copy of ``max_chars`` characters of a compact index.

    So a text copies at most ``max_chars`` consecutive characters, and then the rest of a word, which stays complete.
    Raises OptionError if the windows of the index are longer.
    """

    def __init__(self, tokenizer: Tokenizer, training: CompactIndex, max_chars: int) -> None:
        check_max_copied_chars(training, max_chars)
        super().__init__(tokenizer, max_chars + 2)  # with the character before, since it may be in the same word
        self.training = training
        self.max_chars = max_chars
        self.tokens_of_start: dict[str, list[int]] = {}
        for token, text in enumerate(self.texts):
            for match in WORD_START.finditer(text):
                self.tokens_of_start.setdefault(text[: match.end()], []).append(token)

    def allows_text(self, state: TextEnd, text: str, remaining: int) -> bool:
        return not any(self._is_copied(state.text, text[: match.end()]) for match in WORD_START.finditer(text))

    def allowed_tokens(self, state: TextEnd, remaining: int) -> NDArray[np.bool_]:
        if state.parts:
            return self.all_allowed
        allowed = self.all_allowed.copy()
        for start, tokens in self.tokens_of_start.items():
            if self._is_copied(state.text, start):
                allowed[tokens] = False
        return allowed

    def _is_copied(self, text: str, start: str) -> bool:
        """Return whether a word that begins at the end of ``start`` would extend a copy."""
        text += start
        return self.training.is_copied(text, self.max_chars) and WORD_START.match(text, len(text) - 1) is not None


def check_max_copied_chars(index: TextIndex, max_chars: int | None) -> None:
    """Raise OptionError if the windows of a compact index are longer than the copies that are allowed."""
    if isinstance(index, CompactIndex) and max_chars is not None and max_chars < WINDOW - 1:
        raise OptionError(f"max_copied_chars must be at least {WINDOW - 1} with a compact index, not {max_chars}")


class WordGuide(TextEndGuide):
    """A guide to texts of known words, whatever their case.

    A character that has no token is not generated. After the beginning of an unknown word in the prompt, all other
    tokens are allowed up to the end of that word.
    """

    def __init__(self, tokenizer: Tokenizer, words: Sequence[str]) -> None:
        super().__init__(tokenizer, MAX_WORD_CHARS)
        self.root = token_tree(tokenizer)
        characters = {*"".join(self.texts).casefold()}
        self.words = [word for word in words if characters.issuperset(word)]
        self.has_whole_characters = self.all_allowed.copy()
        self.has_whole_characters[[*tokenizer.partial_char_ids]] = False
        self.allowed_after = lru_cache(maxsize=1024)(self._allowed_after)

    def allows_text(self, state: TextEnd, text: str, remaining: int) -> bool:
        word = self._last_word(state.text)
        if not self._is_known(word):
            return True
        for character in text:
            if (longer := self._extend(word, character)) is None:
                return False
            word = longer
        return True

    def allowed_tokens(self, state: TextEnd, remaining: int) -> NDArray[np.bool_]:
        return self.allowed_after(self._last_word(state.text))

    def _allowed_after(self, word: str) -> NDArray[np.bool_]:
        """Return which tokens may follow the beginning of a word."""
        if not self._is_known(word):
            return self.has_whole_characters
        allowed = np.zeros(len(self.tokenizer), bool)
        allowed[list(self._allowed_below(self.root, word))] = True
        allowed[self.tokenizer.eos_id] = self._is_complete(word)
        return allowed

    def _allowed_below(self, node: _Node, word: str) -> Iterable[int]:
        """Yield the tokens below a node that form no unknown word; ``word`` is the incomplete word up to the node."""
        for character, child in node.children.items():
            if (longer := self._extend(word, character)) is not None:
                yield from child.tokens
                yield from self._allowed_below(child, longer)

    def _extend(self, word: str, character: str) -> str | None:
        """Return the incomplete word at the end of a text after one more character, or None if it is unknown."""
        if WORD_CHARACTER.match(character) or (character in JOINERS and word and word[-1] not in JOINERS):
            longer = word + character.casefold()
            return longer if self._is_known(longer) else None
        return "" if self._is_complete(word) else None

    def _is_complete(self, word: str) -> bool:
        """Return whether a text may end after a word."""
        word = word.rstrip(JOINERS)
        position = bisect_left(self.words, word)
        return not word or (position < len(self.words) and self.words[position] == word)

    def _is_known(self, word: str) -> bool:
        """Return whether a known word begins like this, or is followed by a hyphen or an apostrophe."""
        position = bisect_left(self.words, word)
        is_prefix = position < len(self.words) and self.words[position].startswith(word)
        return is_prefix or not word or (word[-1] in JOINERS and self._is_complete(word))

    def _last_word(self, text: str) -> str:
        match = LAST_WORD.search(text)
        return match[0].casefold() if match else ""


class CombinedGuide:
    """A guide to texts that follow several guides."""

    is_strict = False

    def __init__(self, guides: Sequence[TextGuide]) -> None:
        self.guides = guides

    def initial_state(self, prompt: str) -> tuple[TextEnd, ...]:
        return tuple(guide.initial_state(prompt) for guide in self.guides)

    def next_state(self, state: tuple[TextEnd, ...], token: int) -> tuple[TextEnd, ...]:
        return tuple(guide.next_state(part, token) for guide, part in zip(self.guides, state, strict=True))

    def next_state_for_text(self, state: tuple[TextEnd, ...], text: str) -> tuple[TextEnd, ...]:
        return tuple(guide.next_state_for_text(part, text) for guide, part in zip(self.guides, state, strict=True))

    def allows_text(self, state: tuple[TextEnd, ...], text: str, remaining: int) -> bool:
        return all(guide.allows_text(part, text, remaining) for guide, part in zip(self.guides, state, strict=True))

    def allowed_tokens(self, state: tuple[TextEnd, ...], remaining: int) -> NDArray[np.bool_]:
        masks = [guide.allowed_tokens(part, remaining) for guide, part in zip(self.guides, state, strict=True)]
        allowed: NDArray[np.bool_] = np.logical_and.reduce(masks)
        return allowed

    def is_done(self, state: tuple[TextEnd, ...]) -> bool:
        return False


class _Node:
    """A node in the tree of all tokens, character by character."""

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


@lru_cache(maxsize=8)
def token_tree(tokenizer: Tokenizer) -> _Node:
    """Return the root of the tree of a tokenizer's tokens, without the parts of characters."""
    root = _Node()
    for token, text in enumerate(token_texts(tokenizer).texts):
        if token not in tokenizer.partial_char_ids:
            root.add(text, token)
    return root
