"""Messages of errors: one line of limited length, without characters that control a terminal."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

import revgen
from revgen.errors import MAX_MESSAGE_CHARS, CorpusError, OptionError, RevgenError, escape_controls


@pytest.mark.parametrize("text", ["\x1b[31mred", "a\x00b", "a\rb", "\x9b31m", "\u202eevil", "\ud800", "a\x07", "a\nb"])
def test_a_message_has_no_character_that_controls_a_terminal(text: str) -> None:
    message = str(CorpusError(f"wrong: {text}", Path(text)))

    assert message.isprintable()
    message.encode()


def test_a_message_of_any_length_is_cut_and_keeps_its_start_and_its_end() -> None:
    message = str(OptionError("prompt must be a string, not " + "x" * 10**6 + ": shorten it", command="y" * 10**6))

    assert len(message) <= MAX_MESSAGE_CHARS + 3
    assert message.startswith("prompt must be a string")
    assert message.endswith("shorten it")


def test_the_message_for_the_command_line_is_cut_too() -> None:
    assert len(RevgenError("", command="y\n" * 10**6).command) <= MAX_MESSAGE_CHARS + 3


def test_lines_of_a_message_are_joined() -> None:
    assert str(RevgenError("one\n  two\r\nthree")) == "one two three"


def test_letters_of_all_alphabets_and_emoji_are_kept() -> None:
    text = "日本語 Ελληνικά עִבְרִית 👩‍👩‍👧 naïve"

    assert escape_controls(text) == str(RevgenError(text)) == text


def test_line_ends_and_tabs_of_a_text_can_be_kept() -> None:
    assert escape_controls("a\n\tb\x1b", keep="\n\t") == "a\n\tb\\x1b"


def test_an_error_survives_pickling() -> None:
    error = pickle.loads(pickle.dumps(revgen.OptionError("seed must be 1")))

    assert str(error) == "seed must be 1"
