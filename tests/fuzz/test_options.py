"""Random combinations of extreme options, and random patterns: a text, or an OptionError in one line."""

from __future__ import annotations

import random
import re
import warnings
from typing import Any

import numpy as np
import pytest
from fuzz_helpers import SEED, make_trained_model

import revgen
from revgen.errors import escape_controls
from revgen.language_model import LanguageModel

OPTIONS: dict[str, list[Any]] = {
    "prompt": ["", "the ", "é\ud800\0", "the " * 300, ["a", "the song", ""]],
    "n": [1, 2, 7, 33],
    "temperature": [
        0,
        1e-320,
        1e-30,
        0.1,
        5,
        1e30,
        1e39,
        1e308,
        [0.0, 1.0],
        [1e-45, 1e38, 2],
        lambda i: 1e308 / (i + 1),
    ],
    "top_k": [1, 2, 10**9, 10**30],
    "top_p": [1e-320, 0.5, 1 - 1e-16, 1],
    "min_p": [0, 1e-320, 0.5, 1],
    "typical_p": [1e-320, 0.5, 1],
    "repetition_penalty": [1e-320, 1e-38, 0.5, 1.3, 1e38, 1e308],
    "frequency_penalty": [-1e308, -1e38, -1, 0.5, 1e38, 1e308, 10**12],
    "logit_bias": [{"a": 1e308}, {"a": -1e308}, {3: 1e38, 4: -1e38}, {1: 1e30}, {1: -1e30}, {}],
    "banned_tokens": [["a"], [1], [1, "a", "e"], list(range(3, 12)), []],
    "max_tokens": [0, 1, 2, 31, 33, 100],
    "min_tokens": [0, 1, 5, 32, 100],
    "stop": ["a", ["a", "th"], "\n", ["x" * 1000]],
    "forced_tokens": [{0: "a"}, {0: 1}, {5: "t", 31: "h"}, {}],
    "regex": ["a*", "(the|a) .*", "[a-z ]{5,40}", ".", "", r"\w+"],
    "choices": [["a", "the"], [""], ["the song"] * 3],
    "max_copied_chars": [1, 3, 10**9],
    "check_novelty": [True, False],
    "num_beams": [1, 2, 9],
    "length_penalty": [-1e308, -5, 0, 0.5, 30, 300, 1e308],
    "seed": [0, 2**63, 10**38],
    "label": [None, "pos"],
}
PARTS = ["a", "b", "the", ".", "(", ")", "[", "]", "*", "+", "?", "|", "{2}", "{1,300}", "{50}", "{0,}", "{99999}"]
PARTS += [r"\w", r"\d", "^", "$", "\\", "(?:", "[^a]", "(?i)", "é", "\U0001f600", " ", "\n", ",", "-", "(?a)", "(?="]
PARTS += [r"\1", "{9}"]


@pytest.fixture(scope="module")
def models() -> list[LanguageModel]:
    """Small models: recurrent, with an index; of n-grams; and a mixture."""
    counts = make_trained_model("kneser-ney-char")
    return [make_trained_model(index_texts=True), counts, revgen.mix([counts, counts])]


def generate(model: LanguageModel, options: dict[str, Any]) -> str | None:
    """Return generated text, or None if the options are refused in one line."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        try:
            call: Any = model.generate
            result = call(**{"prompt": "the ", "max_tokens": 6, "seed": 1} | options)
        except revgen.RevgenError as error:
            assert escape_controls(str(error)) == str(error) and len(str(error)) < 600
            return None
    return result if isinstance(result, str) else repr(result)


def combine(models: list[LanguageModel], count: int) -> None:
    rng = random.Random(f"{SEED} {count}")
    for _ in range(count):
        names = rng.sample(list(OPTIONS), rng.choice((2, 2, 3, 4, 6)))
        options = {name: rng.choice(OPTIONS[name]) for name in names}
        try:
            generate(rng.choice(models), options)
        except Exception as error:
            raise AssertionError(f"generate({options}): {type(error).__name__}: {error}") from error


def match(models: list[LanguageModel], count: int) -> None:
    rng = random.Random(f"{SEED} {count}")
    for _ in range(count):
        pattern = "".join(rng.choice(PARTS) for _ in range(rng.choice((2, 4, 8, 20, 60))))
        try:
            text = generate(models[0], {"regex": pattern, "max_tokens": 20})
        except Exception as error:
            raise AssertionError(f"regex {pattern!r}: {type(error).__name__}: {error}") from error
        if text is not None:
            assert re.fullmatch(pattern, text.removeprefix("the ")), pattern


def test_random_options_and_patterns(models: list[LanguageModel]) -> None:
    combine(models, 60)
    match(models, 60)


@pytest.mark.fuzz
def test_many_random_options_and_patterns(models: list[LanguageModel]) -> None:
    combine(models, 10_000)
    match(models, 10_000)
