"""Texts that several models write together, word by word."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from toys import Silent, Table, chars, table

import revgen
from revgen import LanguageModel, OptionError
from revgen.registry import tokenizers


def only(letters: str, alphabet: str = "abc \n.") -> Table:
    """A model that draws these characters, all alike, and ends no document."""
    tokenizer = chars(alphabet)
    logits = np.full(len(tokenizer), -np.inf, np.float32)
    logits[tokenizer.encode(letters)] = 0
    return table(tokenizer, logits)


def test_models_take_turns_word_by_word() -> None:
    text = revgen.synthesize([only("a "), only("b \n"), only("c.\n")], max_tokens=300, seed=0)

    words = text.split()
    assert len(words) > 20
    assert [set(word) <= set(wanted) for word, wanted in zip(words, ["a", "b", "c."] * 99, strict=False)] == [
        True
    ] * len(words)
    assert len(text) == 300


def test_models_of_different_levels_continue_each_other(reviews: list[str]) -> None:
    models: list[LanguageModel] = []
    for level in tokenizers.names():
        model = revgen.create(f"kneser-ney-{level}", order=4)
        model.fit(reviews[:60], progress=False)
        models.append(model)

    texts = revgen.synthesize(models, "The ", n=3, seed=1, max_tokens=60, temperature=0.8, top_p=0.9)

    assert len(set(texts)) == 3 and all(text.startswith("The ") for text in texts)
    assert texts == revgen.synthesize(models, "The ", n=3, seed=1, max_tokens=60, temperature=0.8, top_p=0.9)
    assert texts[0] == revgen.synthesize(models, "The ", seed=1, max_tokens=60, temperature=0.8, top_p=0.9)


def test_each_model_continues_the_whole_text() -> None:
    tokenizer = chars("ab ")
    a, b, space = tokenizer.encode("ab ").tolist()
    read: list[list[int]] = [[], []]

    class Reading(Table):
        """A model that remembers what it read."""

        number: int

        def forward(self, tokens: Any, state: Any) -> Any:
            read[self.number].extend(tokens[:, 0].tolist())
            return super().forward(tokens, state)

    models = [table(tokenizer, -np.inf, Reading) for _ in range(2)]
    for number, (model, letter) in enumerate(zip(models, (a, b), strict=True)):
        assert isinstance(model, Reading)
        model.number = number
        model.table[[tokenizer.bos_id, space], letter] = 0
        model.table[[a, b], space] = 0

    text = revgen.synthesize(models, max_tokens=9)

    assert text == "a b a b a"
    for ids in read:
        assert text.startswith(tokenizer.decode(ids)) and len(ids) > 5


def test_one_model_can_take_all_turns(small_model: LanguageModel) -> None:
    alone = revgen.synthesize([small_model], "the ", temperature=0, max_tokens=30)

    assert alone == small_model.generate("the ", temperature=0, max_tokens=30)


def test_a_text_ends_where_a_model_ends_it_or_at_a_stop_string() -> None:
    ending = only("b ")
    ending.table[:, ending.tokenizer.eos_id] = 0

    assert len(revgen.synthesize([only("a "), ending], max_tokens=5000, seed=3)) < 1000
    text = revgen.synthesize([only("a "), only("b ")], max_tokens=200, seed=3)
    assert revgen.synthesize([only("a "), only("b ")], max_tokens=200, seed=3, stop="b a") == text.partition("b a")[0]
    assert revgen.synthesize([ending], "ab", max_tokens=0) == "ab"


def test_options_for_a_single_model_are_errors() -> None:
    models = [table(chars("ab"), kind=Silent)]
    for options in (
        {"regex": "a"},
        {"num_beams": 2},
        {"max_copied_chars": 3},
        {"check_novelty": True},
    ):
        with pytest.raises(OptionError, match=f"^{next(iter(options))} does not combine with taking turns"):
            revgen.synthesize(models, **options)
    wrong: Any
    for wrong in ([], None):
        with pytest.raises(OptionError, match=r"^models must be a list"):
            revgen.synthesize(wrong)
    with pytest.raises(OptionError, match=r"^temperature must be"):
        revgen.synthesize(models, temperature=-1)
    with pytest.raises(OptionError, match="there is no option of synthesize 'temp'"):
        revgen.synthesize(models, temp=1)  # type: ignore[call-overload]
    with pytest.raises(OptionError, match=r"^n must be"):
        revgen.synthesize(models, n=0)
