"""Where a text ends, and the prompts that it continues."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from toys import Floats, Table, alphabet, chars, table

from revgen import LanguageModel
from revgen.registry import tokenizers


@pytest.mark.parametrize(
    ("stop", "text"),
    [
        ("d", "abc"),
        ("def", "abc"),
        (["def"], "abc"),
        (("gh", "de", "z"), "abc"),
        (["f", "cdef"], "ab"),
        (["b"], "a"),
        (["bx", "dex", "zz"], "abcdefghijk"),
        (["kl"], "abcdefghijk"),
        (["ab"], "abcdefghijk"),
        ([], "abcdefghijk"),
        (None, "abcdefghijk"),
    ],
)
def test_a_text_ends_before_the_first_stop_string(stop: str | Sequence[str] | None, text: str) -> None:
    model = alphabet()

    assert model.generate("a", temperature=0, max_tokens=10, stop=stop) == text
    assert "a" + "".join(model.stream("a", temperature=0, max_tokens=10, stop=stop)) == text
    assert model.generate("a", n=2, temperature=0, max_tokens=10, stop=stop) == [text, text]


def test_a_stop_string_that_overlaps_itself_is_found() -> None:
    tokenizer = chars("abx")
    script = "aabaabaabx"

    class Scripted(Table):
        """A model that writes one text; its state is the position in it."""

        def initial_state(self, batch: int) -> Any:
            return np.zeros((batch, 1), np.int64)

        def forward(self, tokens: NDArray[Any], state: Any) -> tuple[Floats, Any]:
            ids = tokenizer.encode(script)
            rows = np.eye(len(tokenizer), dtype=np.float32)[ids[state[:, 0] % len(ids)]]
            return rows[None], state + 1

    scripted = table(tokenizer, kind=Scripted)

    assert scripted.generate("", temperature=0, max_tokens=10) == script
    assert scripted.generate("", temperature=0, max_tokens=10, stop="aabx") == "aabaab"
    assert scripted.generate("", temperature=0, max_tokens=10, stop=["aabaabx", "bx"]) == "aab"
    assert list(scripted.stream("", temperature=0, max_tokens=10, stop="aabx")) == ["aab", "aab"]


@pytest.mark.parametrize("level", tokenizers.names())
def test_a_stop_string_across_tokens_is_found(level: str, reviews: list[str]) -> None:
    tokenizer = tokenizers.get(level).train(reviews)
    model = table(tokenizer, np.random.default_rng(0).normal(0, 3, (len(tokenizer), len(tokenizer))))
    model.table[:, tokenizer.eos_id] = -np.inf
    whole = model.generate("", seed=0, max_tokens=60)
    stop = whole[20:26]

    text = model.generate("", seed=0, max_tokens=60, stop=stop)

    assert text == whole.partition(stop)[0]
    assert "".join(model.stream("", seed=0, max_tokens=60, stop=stop)) == text


def test_a_stop_string_in_the_prompt_does_not_count() -> None:
    assert alphabet().generate("ab", temperature=0, max_tokens=3, stop=["ab", "bc"]) == "abcde"


@pytest.mark.parametrize("prompt", ["", "a", "xyz"])
def test_max_tokens_is_the_number_of_sampled_tokens(prompt: str) -> None:
    model = alphabet()

    assert model.generate(prompt, max_tokens=0) == prompt
    assert model.generate(prompt, n=2, max_tokens=0) == [prompt, prompt]
    assert list(model.stream(prompt, max_tokens=0)) == []
    assert len(model.generate(prompt, temperature=0, max_tokens=7)) == len(prompt) + 7


def test_an_empty_prompt_begins_a_document() -> None:
    assert alphabet().generate(temperature=0, max_tokens=4) == "abcd"


def test_unknown_characters_of_a_prompt_warn_once() -> None:
    model = table(chars("a song"))

    with pytest.warns(UserWarning, match="does not know '漢', '🎸'") as caught:
        text = model.generate("a 漢🎸 song ", seed=0, max_tokens=10)

    assert text.startswith("a 漢🎸 song ")
    assert [Path(warning.filename).name for warning in caught] == [Path(__file__).name]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert model.generate("a 漢🎸 song ", seed=0, max_tokens=10) == text
        assert "a 漢🎸 song " + "".join(model.stream("a 漢🎸 song ", seed=0, max_tokens=10)) == text


def test_characters_outside_the_vocabulary_can_be_in_a_prompt(small_model: LanguageModel) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert small_model.generate("a 漢🎸 song ", seed=0, max_tokens=10).startswith("a 漢🎸 song ")
