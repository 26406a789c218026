"""Guides of the user, and the checks for them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from toys import Silent, alphabet, chars, table

import revgen
from revgen import OptionError
from revgen.testing import check_guide


class Alternate:
    """Texts in which "a" and "b" alternate, four tokens long."""

    def __init__(self, tokenizer: revgen.Tokenizer, is_strict: bool = False) -> None:
        self.ids = [int(tokenizer.encode(letter)[0]) for letter in "ab"]
        self.size = len(tokenizer)
        self.is_strict = is_strict

    def initial_state(self, prompt: str) -> int:
        return 0

    def next_state(self, state: int, token: int) -> int:
        return state + 1

    def allowed_tokens(self, state: int, remaining: int) -> Any:
        return np.arange(self.size) == self.ids[state % 2]

    def is_done(self, state: int) -> bool:
        return state == 4


def test_a_guide_decides_which_tokens_follow() -> None:
    model = table(chars("abc"))
    guide = Alternate(model.tokenizer)

    check_guide(guide, model.tokenizer)
    assert model.generate("c", guide=guide, seed=0) == "cabab"
    assert model.generate(["c", "ccc"], n=2, guide=guide, seed=0) == [["cabab"] * 2, ["cccabab"] * 2]
    assert model.generate("c", guide=guide, num_beams=2) == "cabab"
    assert model.generate("c", guide=guide, stop="ba") == "ca"


def test_a_strict_guide_is_followed_where_the_model_gives_no_probability() -> None:
    model = table(chars("abc"))
    model.table[:, model.tokenizer.encode("b")] = -np.inf

    assert model.generate("", guide=Alternate(model.tokenizer), seed=0) == "a"
    assert model.generate("", guide=Alternate(model.tokenizer, is_strict=True), seed=0) == "abab"


def test_a_guide_of_tokens_does_not_heal_the_prompt() -> None:
    model = revgen.load("gru-subword")
    for prompt in ("the ", "I love the mus"):
        text = model.generate(prompt, guide=Alternate(model.tokenizer, is_strict=True), seed=0)
        assert text == f"{prompt}abab"


@pytest.mark.parametrize("option", [{"regex": "a*"}, {"choices": ["a"]}, {"max_copied_chars": 9}])
def test_a_text_has_one_guide(option: dict[str, Any]) -> None:
    model = table(chars("ab"), kind=Silent)
    with pytest.raises(OptionError, match="does not combine with guide"):
        model.generate("", guide=Alternate(model.tokenizer), **option)


def test_a_guide_has_four_methods() -> None:
    options: dict[str, Any] = {"guide": object()}
    with pytest.raises(OptionError, match=r"^guide must be a Guide or None"):
        alphabet().generate("", **options)


class ChangesState(Alternate):
    """A guide that changes the state it is given."""

    def initial_state(self, prompt: str) -> Any:
        return [0]

    def next_state(self, state: Any, token: int) -> Any:
        state[0] += 1
        return state

    def allowed_tokens(self, state: Any, remaining: int) -> Any:
        return super().allowed_tokens(state[0], remaining)

    def is_done(self, state: Any) -> bool:
        return False


class AllowsNothing(Alternate):
    """A guide that allows no token."""

    def allowed_tokens(self, state: int, remaining: int) -> Any:
        return np.zeros(self.size, bool)


def test_the_checks_say_what_is_wrong_with_a_guide() -> None:
    tokenizer = chars("ab")
    with pytest.raises(AssertionError, match="next_state changes the state"):
        check_guide(ChangesState(tokenizer), tokenizer)
    with pytest.raises(AssertionError, match="no token is allowed"):
        check_guide(AllowsNothing(tokenizer), tokenizer)
    with pytest.raises(AssertionError, match="a guide has initial_state"):
        check_guide(object(), tokenizer)  # type: ignore[arg-type]
