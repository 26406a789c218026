"""Constraints: texts that match a pattern, or are one of some choices, whatever the tokenizer."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from toys import Silent, Table, chars, table

from revgen import LanguageModel, OptionError, Tokenizer
from revgen.generation.automaton import START, compile_pattern
from revgen.registry import tokenizers

PATTERNS = [
    r"\d{4}-\d\d-\d\d",
    r"[A-Z][a-z]+( [a-z]+){2,5}[.!?]",
    r"(the|a) (song|album)s?",
    r"\w+, \w+ and \w+",
    r"[^aeiou\s]{3,9}",
    r"(?i)the [a-c]*",
    r"x*",
    r"(a|ab)(c|bcd)(d*)",
    r"^the .{0,20}\.$",
    r"\"[^\"\n]*\"",
    r"(?s).{5,12}",
    r"-?\d+(\.\d+)?",
    r"",
]


@pytest.fixture(scope="module", params=["char", "word", "subword"])
def model(request: pytest.FixtureRequest, reviews: list[str]) -> Table:
    """A model of each level that draws any token after any other."""
    texts = [*reviews, "0123456789 " * 9]
    tokenizer = tokenizers.get(request.param).train(texts)
    return table(tokenizer, np.random.default_rng(0).normal(0, 1, (len(tokenizer), len(tokenizer))))


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("most", [25, 60])
def test_every_text_matches_the_pattern(model: Table, pattern: str, most: int) -> None:
    texts = model.generate("Hm: ", n=20, regex=pattern, max_tokens=most, seed=0)

    assert all(re.fullmatch(pattern, text.removeprefix("Hm: ")) for text in texts)


@pytest.mark.parametrize(
    "options", [{"temperature": 0}, {"top_k": 1}, {"temperature": 3, "top_p": 0.5}, {"num_beams": 3}]
)
def test_patterns_combine_with_sampling_options_and_beams(model: Table, options: dict[str, Any]) -> None:
    text = model.generate("", regex=r"[a-z ]{10,20}(end|stop)", seed=0, max_tokens=40, **options)

    assert re.fullmatch(r"[a-z ]{10,20}(end|stop)", text)


def test_a_text_matches_within_the_minimum_number_of_tokens(model: Table) -> None:
    pattern = r"[a-z]{5,50}\d"
    with pytest.raises(OptionError, match=r"^max_tokens must be at least (\d+) for a text that matches regex, not 1"):
        model.generate("", regex=pattern, max_tokens=1)
    for most in range(2, 9):
        try:
            texts = model.generate("", n=10, regex=pattern, max_tokens=most, seed=1)
        except OptionError:
            continue
        assert all(re.fullmatch(pattern, text) for text in texts)


def test_a_pattern_with_one_match_generates_it(model: Table) -> None:
    assert model.generate("I ", regex=re.escape("like this song."), seed=0) == "I like this song."
    assert "".join(model.stream("I ", regex="like this song[.]", seed=0)) == "like this song."


def test_a_text_ends_where_the_pattern_allows_no_more() -> None:
    model = table(chars("ab"), np.array([0, -np.inf, 0, 1, 1]))  # it never ends a document itself

    assert {len(text) for text in model.generate("", n=9, regex="(a|b){3}", seed=0)} == {3}
    assert max(len(text) for text in model.generate("", n=9, regex="a*", seed=0, max_tokens=5)) == 5


def test_banned_tokens_stay_banned_in_a_pattern() -> None:
    model = table(chars("abc"))

    assert "b" not in "".join(model.generate("", n=50, regex="[abc]{5}", banned_tokens=["b"], seed=0))
    with pytest.raises(OptionError, match="can never match"):
        model.generate("", regex="abc", banned_tokens=["b"])


def test_a_pattern_holds_where_the_model_gives_no_probability_to_it() -> None:
    model = table(chars("abc"))
    model.table[:, model.tokenizer.encode("b")] = -np.inf

    assert model.generate("", regex="a?b{4}c", seed=0) in ("abbbbc", "bbbbc")


def test_a_model_without_smoothing_follows_a_pattern(reviews: list[str]) -> None:
    import revgen

    model = revgen.create("ngram-char", order=6)
    model.fit(reviews[:40], progress=False)

    for text in model.generate("", n=20, regex=r"[xq]{4} [a-z]{8}\.", seed=0):
        assert re.fullmatch(r"[xq]{4} [a-z]{8}\.", text)


def test_each_row_of_a_batch_has_its_own_position_in_the_pattern(model: Table) -> None:
    prompts = ["the ", "a much longer prompt than that: ", ""]

    texts = model.generate(prompts, n=4, regex=r"[a-z]+( [a-z]+)*\.", max_tokens=30, seed=0)

    assert all(
        re.fullmatch(r"[a-z]+( [a-z]+)*\.", text.removeprefix(prompt))
        for prompt, some in zip(prompts, texts, strict=True)
        for text in some
    )


def test_tokens_of_a_pattern_follow_the_probabilities_of_the_model() -> None:
    tokenizer = chars("abcdef")
    logits = np.random.default_rng(0).normal(0, 1, len(tokenizer)).astype(np.float32)
    draws = 20_000

    texts = table(tokenizer, logits).generate("", n=draws, regex="[bdf]", seed=0)

    powers = np.exp(logits.astype(float)[tokenizer.encode("bdf")])
    counts, expected = Counter(texts), powers / powers.sum() * draws
    # 2 degrees of freedom: above 18.4 by chance once in 10,000 times.
    assert sum((counts[c] - e) ** 2 / e for c, e in zip("bdf", expected, strict=True)) < 18.4


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("(", r"^regex must be a regular expression: '\(' is not valid"),
        ("a(?=b)", "^regex cannot look ahead or back"),
        ("(?<!a)b", "^regex cannot look ahead or back"),
        (r"(a)\1", "^regex cannot refer back to a group"),
        (r"(a)?(?(1)b|c)", "^regex cannot depend on a group"),
        (r"a\bb", r"^regex cannot have \^, \$ or \\b in the middle"),
        ("a$b", "^regex cannot have"),
        ("a*+b", "^regex cannot have possessive repeats"),
        ("(?>a)b", "^regex cannot have atomic groups"),
        ("漢", "^regex '漢' can never match: no token of the vocabulary contains 漢"),
        ("ab漢?c{3}ü", "can never match: no token of the vocabulary contains .*ü"),
        ("[漢字]+", "can never match"),
        ("((a{100}){100}){100}", "^regex is too large"),
        ("(a|b)*a(a|b){14}", "^regex is too large"),
    ],
)
def test_an_impossible_pattern_is_an_error_before_anything_is_sampled(pattern: str, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        table(chars("abc"), kind=Silent).generate("", regex=pattern, max_tokens=10**7)


@pytest.mark.parametrize("level", tokenizers.names())
def test_patterns_may_contain_characters_outside_the_vocabulary(level: str, reviews: list[str]) -> None:
    tokenizer = tokenizers.get(level).train(reviews)
    model = table(tokenizer)
    assert not any("漢" in piece or "🎸" in piece for piece in tokenizer.vocabulary)

    assert model.generate("", regex="the 漢(🎸| song)漢", seed=0) in ("the 漢🎸漢", "the 漢 song漢")
    assert model.generate("", choices=["漢字🎸"], seed=0) == "漢字🎸"
    fewest = len(tokenizer.encode("漢🎸"))
    with pytest.raises(OptionError, match=f"max_tokens must be at least {fewest} for the choice"):
        model.generate("", choices=["漢🎸"], max_tokens=fewest - 1)


# The automaton ---------------------------------------------------------------------------

ATOMS = st.sampled_from(["a", "b", "ab", ".", "[ab]", "[^a]", r"\d", r"\w", "(a|b1)", "(?i:A)", "(?:b|)", "1"])
EXPRESSIONS = st.recursive(
    ATOMS,
    lambda inner: st.one_of(
        st.tuples(inner, inner).map("".join),
        st.tuples(inner, inner).map("|".join).map("({})".format),
        st.tuples(inner, st.sampled_from(["*", "+", "?", "{2}", "{1,3}", "{,2}", "*?", "{2,}"])).map(
            lambda pair: f"({pair[0]}){pair[1]}"
        ),
    ),
    max_leaves=6,
)


@settings(max_examples=150, deadline=None)
@given(EXPRESSIONS, st.lists(st.text("abA1\n", max_size=7), min_size=5, max_size=20))
def test_the_automaton_matches_as_python_does(pattern: str, texts: list[str]) -> None:
    symbols = list("abA1\n")
    automaton = compile_pattern(pattern, symbols)

    for text in texts:
        state = START
        for character in text:
            state = automaton.table[state, automaton.classes[symbols.index(character)]]
        assert automaton.accepts[state] == (re.fullmatch(pattern, text) is not None), text


# Choices ---------------------------------------------------------------------------------


def test_a_text_is_one_of_the_choices(model: Table) -> None:
    choices = ["guitar", "guitars", "the drums.", "a (b)"]

    texts = model.generate("I play ", n=200, choices=choices, seed=0)

    assert {text.removeprefix("I play ") for text in texts} == set(choices)


def test_temperature_zero_takes_the_most_likely_choice(small_model: LanguageModel) -> None:
    assert small_model.generate("th", choices=["e song", "qx"], temperature=0) == "the song"


def test_impossible_choices_are_errors() -> None:
    model = table(chars("abc"), kind=Silent)

    with pytest.raises(OptionError, match="choices holds '漢', which the tokens of the vocabulary cannot form"):
        model.generate("", choices=["a", "漢"])
    with pytest.raises(OptionError, match="max_tokens must be at least 5 for the choice 'abcab', not 4"):
        model.generate("", choices=["a", "abcab"], max_tokens=4)
    with pytest.raises(OptionError, match="choices holds 'ab'"):
        model.generate("", choices=["c", "ab"], banned_tokens=["b"])


def test_max_tokens_counts_the_tokens_of_a_choice_not_its_characters(reviews: list[str]) -> None:
    tokenizer: Tokenizer = tokenizers.get("word").train(reviews)

    assert table(tokenizer).generate("", choices=["the song"], max_tokens=3) == "the song"
