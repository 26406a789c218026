"""Calls with many texts, long prompts and large patterns: bounded memory and time, or a clear error."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from toys import chars, table

import revgen
from revgen import OptionError
from revgen.generation import decoding


def test_many_texts_are_generated_in_several_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    model = revgen.load("gru-char")
    batches: list[int] = []
    decode_batch = decoding._decode_batch

    def record(model: Any, batch: Any) -> Any:
        batches.append(len(batch.rows))
        return decode_batch(model, batch)

    monkeypatch.setattr(decoding, "_decode_batch", record)
    monkeypatch.setattr(decoding, "MAX_BATCH_BYTES", 1)
    texts = model.generate(["the ", "a "], n=100, max_tokens=3, seed=1)

    assert batches == [64, 36] * 2
    assert all(text.startswith("the ") for text in texts[0])
    assert all(text.startswith("a ") for text in texts[1])
    assert len({*texts[0]}) > 20
    assert texts == model.generate(["the ", "a "], n=100, max_tokens=3, seed=1)
    batches.clear()
    assert len(model.generate(["the "] * 100, max_tokens=3)) == 100
    assert batches == [64, 36]


def test_the_texts_of_a_small_call_do_not_depend_on_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    model = revgen.load("gru-char")
    texts = model.generate("the ", n=64, max_tokens=5, seed=1)

    monkeypatch.setattr(decoding, "MAX_BATCH_BYTES", 1)

    assert model.generate("the ", n=64, max_tokens=5, seed=1) == texts
    assert model.generate("the ", n=70, max_tokens=5, seed=1)[:64] == texts


@pytest.mark.parametrize(
    "pattern",
    [
        "(){100000000}",
        "(?:(?:(?:(?:){1000}){1000}){1000}){1000}",
        "(a?){5000}",
        "(.{0,100}){0,100}",
        "(a|" * 240 + "a" + ")" * 240,
        "a" * 1_000_000,
        "a{100000}",
        "(a?b?c?){2000}",
        "|".join(f"{i:05d}" for i in range(20_000)),
    ],
    ids=lambda pattern: pattern[:20],
)
def test_a_pattern_that_is_too_large_is_an_error_of_one_line(pattern: str) -> None:
    with pytest.raises(OptionError, match=r"^regex is too large: ") as caught:
        table(chars("abc0123456789")).generate("", regex=pattern)

    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("pattern", ["(?a)(?u)a", "(?L)a", "a{4294967295}", "(?P<1>a)", "(" * 1000])
def test_a_pattern_that_python_cannot_parse_is_an_error(pattern: str) -> None:
    with pytest.raises(OptionError, match=r"^regex (must be a regular expression|is too large)"):
        table(chars("abc")).generate("", regex=pattern)


@pytest.mark.parametrize("name", ["gru-char", "gru-subword", "lstm-word"])
@pytest.mark.parametrize(
    "pattern", [r"[a-z0-9._]{1,64}@[a-z0-9.-]{1,255}\.[a-z]{2,10}", "[a-z ]{1,2000}", "(a|b)*a(a|b){9}"]
)
def test_large_but_plausible_patterns_are_followed(name: str, pattern: str) -> None:
    import re

    text = revgen.load(name).generate("the ", regex=pattern, max_tokens=40, seed=1)

    assert re.fullmatch(pattern, text.removeprefix("the "))


def test_penalties_and_biases_of_any_size_can_be_combined() -> None:
    model = table(chars("abc"))
    rng = np.random.default_rng(0)
    values = [1e-320, 1e-38, 0.5, 1, 1e38, 1e308]
    for _ in range(50):
        text = model.generate(
            "ab",
            max_tokens=8,
            repetition_penalty=float(rng.choice(values)),
            frequency_penalty=float(rng.choice([*values, -1e38, -1e308])),
            logit_bias={"a": float(rng.choice([-1e308, 1e308])), "b": float(rng.choice([-1e38, 5]))},
            temperature=float(rng.choice([0, *values])),
            top_p=float(rng.choice([1e-320, 0.5, 1])),
            typical_p=float(rng.choice([1e-320, 0.5, 1])),
        )

        assert set(text) <= set("abc")


@pytest.mark.parametrize(("name", "options"), [("transformer-char", {"num_heads": 2}), ("mlp-char", {})])
def test_a_long_prompt_is_read_in_parts_with_the_same_result(
    name: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from revgen.architectures import mlp, transformer

    model = revgen.create(name, context=16, hidden_size=8, num_layers=2, tokenizer={"min_count": 1}, **options)
    model.fit(["the band of the song. "] * 4, epochs=1, batch_size=2, sequence_length=8, progress=False)
    tokens = np.array([[0], *([[int(i)] for i in model.tokenizer.encode("the song of the band, " * 4)])])
    logits, _ = model.forward(tokens, model.initial_state(1))

    monkeypatch.setattr(transformer, "MAX_SCORES", 100)
    monkeypatch.setattr(mlp, "MAX_INPUT_VALUES", 3000)

    parts, _ = model.forward(tokens, model.initial_state(1))
    np.testing.assert_allclose(parts, logits, atol=1e-5)
    if name == "transformer-char":
        weights = model.attention("the song of the band").weights
        np.testing.assert_allclose(weights.sum(-1), 1, atol=1e-5)


def test_a_context_that_would_take_too_much_memory_is_an_error() -> None:
    with pytest.raises(OptionError, match="context must be at most"):
        revgen.create("transformer-char", context=65_536, hidden_size=1024, num_layers=8)
    with pytest.raises(OptionError, match=r"context must be a whole number from 1 to 1,024"):
        revgen.create("mlp-char", context=65_536)


def test_texts_with_large_states_are_generated_one_after_another(monkeypatch: pytest.MonkeyPatch) -> None:
    from revgen.architectures import transformer

    model = revgen.load("transformer-subword")
    assert not model.has_large_states
    with_mixture = [model, revgen.mix([model])]
    for limit in (transformer, "LARGE_CACHE_VALUES"), (decoding, "MAX_BATCH_BYTES"), (decoding, "MAX_ROW_BYTES"):
        monkeypatch.setattr(*limit, 1)

    for model in with_mixture:
        texts = model.generate("the ", n=3, max_tokens=5, seed=1)

        assert len(texts) == 3 and texts[0] == model.generate("the ", max_tokens=5, seed=1)
        with pytest.raises(OptionError, match="num_beams must be at most 1: more would take too much memory, not 2"):
            model.generate("the ", num_beams=2, max_tokens=5)
