"""Options that are invalid, unknown or do not combine."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from toys import Silent, chars, table

from revgen import LanguageModel, OptionError, Tokenizer

NAN, INF = float("nan"), float("inf")
BAD: list[tuple[str, Any]] = [
    *(("temperature", value) for value in (-1, -1e-9, NAN, INF, "hot", None, [], [1, -1], [1, "x"], lambda i: 1 - i)),
    *(("top_k", value) for value in (0, -1, 1.5, "3", True, NAN)),
    *(("top_p", value) for value in (0, -0.1, 1.1, NAN, "x")),
    *(("min_p", value) for value in (-0.1, 1.1, NAN, "x")),
    *(("typical_p", value) for value in (0, -0.1, 1.1, NAN, "x")),
    *(("repetition_penalty", value) for value in (0, -1, NAN, INF, None, "x")),
    *(("frequency_penalty", value) for value in (NAN, INF, None, "x")),
    *(("presence_penalty", value) for value in (NAN, INF, None, "x")),
    *(("logit_bias", value) for value in ("a", ["a"], {"a": "x"}, {"a": INF}, {"ab": 1}, {9: 1}, {-1: 1}, {1.5: 1})),
    *(("banned_tokens", value) for value in ("a", 3, ["ab"], ["漢"], [""], [99], [True])),
    *(
        ("forced_tokens", value)
        for value in ("a", ["a"], {-1: "a"}, {"a": 1}, {300: "a"}, {0: "ab"}, {0: 99}, {0: None})
    ),
    *(("max_tokens", value) for value in (-1, 1.5, None, "3", True)),
    *(("min_tokens", value) for value in (-1, 1.5, None, "3", True, 301)),
    *(("num_beams", value) for value in (0, -1, 1.5, "2", True)),
    *(("length_penalty", value) for value in (NAN, INF, None, "x")),
    *(("regex", value) for value in (3, b"a", "(", "[b-a]")),
    *(("choices", value) for value in ("ab", [], [1], 3)),
    *(("max_copied_chars", value) for value in (0, -1, 1.5, "3", True)),
    *(("stop", value) for value in ("", [""], ["a", ""], [1], 5, b"a", [None])),
    *(("seed", value) for value in (-1, 1.5, "x", True)),
    *(("n", value) for value in (0, -1, 1.5, "2", True)),
]


@pytest.mark.parametrize(("name", "value"), BAD)
def test_an_invalid_option_is_an_error_before_anything_is_sampled(name: str, value: Any) -> None:
    model = table(chars("ab"), kind=Silent)
    options: dict[str, Any] = {name: value}

    with pytest.raises(OptionError, match=rf"^{name}(\[0\]|\[1\])? must "):
        model.generate("a", **options)
    if name != "n":
        with pytest.raises(OptionError, match=rf"^{name}(\[0\]|\[1\])? must "):
            model.stream("a", **options)


COMBINATIONS: list[tuple[dict[str, Any], str]] = [
    ({"regex": "a*", "stop": "b"}, "stop does not combine with regex: a text that is cut"),
    ({"regex": "a*", "min_tokens": 3}, "min_tokens does not combine with regex"),
    ({"regex": "a*", "forced_tokens": {0: "a"}}, "forced_tokens does not combine with regex"),
    ({"regex": "a*", "max_copied_chars": 9}, "max_copied_chars does not combine with regex"),
    (
        {"max_copied_chars": 9, "forced_tokens": {0: "a"}},
        "forced_tokens does not combine with max_copied_chars: forced tokens may be copies",
    ),
    ({"regex": "a*", "choices": ["a"]}, "choices does not combine with regex"),
    ({"choices": ["a"], "stop": ["b"]}, "stop does not combine with choices"),
    *(
        ({"num_beams": 2, name: value}, f"{name} does not combine with num_beams")
        for name, value in {"temperature": 0.5, "top_k": 3, "top_p": 0.5, "min_p": 0.1, "typical_p": 0.5}.items()
    ),
    ({"banned_tokens": ["a"], "forced_tokens": {0: "a"}}, "forced_tokens has a banned token: 'a'"),
    ({"min_tokens": 3, "forced_tokens": {1: Tokenizer.eos_id}}, "forced_tokens ends the text at 1, before min_tokens"),
    ({"banned_tokens": [Tokenizer.bos_id]}, "banned_tokens names <s>, which is never sampled"),
    ({"logit_bias": {Tokenizer.unk_id: 1}}, "logit_bias names <unk>, which is never sampled"),
    ({"num_beams": 2, "n": 3}, "n must be at most num_beams, 2"),
]


@pytest.mark.parametrize(("options", "message"), COMBINATIONS, ids=str)
def test_options_that_do_not_combine_are_errors_with_a_reason(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=re.escape(message)):
        table(chars("ab"), kind=Silent).generate("a", **options)


@pytest.mark.parametrize("name", ["temp", "topk", "beams", "stream"])
def test_an_unknown_option_is_an_error_with_suggestions(name: str) -> None:
    options: Any = {name: 1}
    with pytest.raises(OptionError, match=f"there is no option of generate '{name}'"):
        table(chars("ab"), kind=Silent).generate("a", **options)
    with pytest.raises(OptionError, match=f"there is no option of stream '{name}'"):
        table(chars("ab"), kind=Silent).stream("a", **options)


@pytest.mark.parametrize("text", [["a"], None, 3, b"a"])
def test_only_strings_can_be_scored(text: Any) -> None:
    with pytest.raises(OptionError, match=r"^text must be a string, not "):
        table(chars("ab"), kind=Silent).score(text)


@pytest.mark.parametrize("prompt", [3, b"a", [], [3], ["a", None]])
def test_a_prompt_that_is_not_a_string_is_an_error(prompt: Any) -> None:
    with pytest.raises(OptionError, match="prompt"):
        table(chars("ab"), kind=Silent).generate(prompt)


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": np.float32(0.5)},
        {"top_k": np.int64(3)},
        {"top_p": np.float64(1)},
        {"seed": np.int64(1), "max_tokens": np.int32(3), "n": np.int8(2)},
        {"seed": 2**100},
        {"stop": ()},
    ],
)
def test_options_may_be_numpy_scalars(small_model: LanguageModel, options: dict[str, Any]) -> None:
    assert small_model.generate("a", **{"max_tokens": 3, **options})
