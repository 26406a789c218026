"""The compiled step: the numbers of the equation, and the texts."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import revgen
from revgen import LanguageModel, MissingExtraError, OptionError

MODELS: list[Any] = [
    ("lstm", {}),
    ("lstm", {"embedding_size": 24}),
    ("gru", {"residual": False}),
    ("gru", {"layer_norm": False, "tie_embeddings": False}),
    ("elman", {"embedding_size": 7, "tie_embeddings": False}),
    ("lstm", {"num_layers": 3}),  # of other types, so compiled anew
    ("rnn", {"nonlinearity": "relu"}),
    ("rnn", {"residual": False, "layer_norm": False}),
]


def model_of(cell: str, texts: list[str], **options: Any) -> LanguageModel:
    """A model of some size whose every weight matters."""
    model = revgen.create(f"{cell}-char", **{"hidden_size": 30, "num_layers": 2, **options})
    model.fit(texts[:5], epochs=1, progress=False)
    random = np.random.default_rng(0)
    model.weights = {
        name: (array + random.normal(0, 0.2, array.shape)).astype(np.float32) for name, array in model.weights.items()
    }
    return model


@pytest.mark.slow  # a compiler runs
@pytest.mark.parametrize(("cell", "options"), MODELS, ids=str)
@pytest.mark.parametrize("tabulated", [True, False])
def test_the_compiled_step_gives_the_numbers_of_the_equation(
    cell: str, options: dict[str, Any], tabulated: bool, reviews: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("numba")
    if not tabulated:
        monkeypatch.setattr("revgen.networks.stack.TABLE", 0)
    model: Any = model_of(cell, reviews, **options).compile()
    equation, p = model.equation
    assert (equation.table is not None) == tabulated
    state = other = model.initial_state(1)

    for token in np.random.default_rng(1).integers(0, len(model.tokenizer), 60).tolist():
        logits, state = model.forward(np.array([[token]]), state)
        expected, other = equation.forward(p, np.array([[token]]), other)
        assert logits.shape == expected.shape and logits.dtype == np.float32
        np.testing.assert_allclose(logits, expected, atol=2e-5)


@pytest.mark.slow  # a compiler runs
@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn", "elman"])
def test_a_compiled_model_writes_what_it_wrote_before(cell: str, reviews: list[str], tmp_path: Path) -> None:
    pytest.importorskip("numba")
    model = model_of(cell, reviews)
    options: dict[str, Any] = {"max_tokens": 80, "seed": 1}
    before = model.generate("the ", **options), model.generate("the ", n=3, **options), model.score("a text").total
    vectors = model.embed(["", "a"])

    assert model.compile() is model
    assert (model.generate("the ", **options), model.generate("the ", n=3, **options)) == before[:2]
    np.testing.assert_allclose(model.embed(["", "a"]), vectors, atol=1e-5)
    assert model.score("a text").total == pytest.approx(before[2], abs=1e-3)
    assert "the " + "".join(model.stream("the ", **options)) == before[0]
    assert revgen.load(model.save(tmp_path / "model")).compile().generate("the ", **options) == before[0]


SAMPLINGS: list[dict[str, Any]] = [
    {},
    {"temperature": 0},
    {"temperature": 1e-50},
    {"temperature": 0.5, "stop": ["e ", "s"]},
    {"temperature": 1.7, "banned": ["e", " "], "logit_bias": {"a": 3}},
    {"banned": [1]},
    {"max_tokens": 17},
    {"max_tokens": 1},
    {"top_k": 5, "top_p": 0.8},
    {"min_p": 0.1, "repetition_penalty": 1.3},
    {"temperature": [0.5, 1.5]},
    {"min_tokens": 20},
    {"forced": {3: "a"}},
    {"pattern": "[a-z ]{20,30}"},
    {"beams": 3, "max_tokens": 12},
]


@pytest.mark.slow  # a compiler runs
@pytest.mark.parametrize("options", SAMPLINGS, ids=str)
def test_a_compiled_model_draws_what_it_drew_before(options: dict[str, Any], small_model: LanguageModel) -> None:
    pytest.importorskip("numba")
    model: Any = small_model
    before = [model.generate("the ", **{"seed": seed, "max_tokens": 60, **options}) for seed in range(5)]
    model.compile()
    try:
        texts = [model.generate("the ", **{"seed": seed, "max_tokens": 60, **options}) for seed in range(5)]
        streams = ["".join(model.stream("the ", **{"seed": s, "max_tokens": 60, **options})) for s in range(5)]
    finally:
        model.compiles = False
        model.forget()

    assert texts == before == [f"the {text}" for text in streams]


@pytest.mark.slow  # a compiler runs
def test_draws_of_machine_code_follow_the_distribution(reviews: list[str]) -> None:
    pytest.importorskip("numba")
    from revgen.networks.kernels import draw

    logits = np.random.default_rng(0).normal(0, 1, 10).astype(np.float32)
    biases = np.where(np.arange(10) == 4, -np.inf, 0).astype(np.float32)
    expected = np.exp((logits.astype(float) + biases) / 0.7)
    expected *= 20_000 / expected.sum()

    drawn = [draw(logits, biases, np.float32(0.7), 1, u) for u in np.random.default_rng(1).random(20_000)]

    counts, there = np.bincount(drawn, minlength=10), expected > 0
    assert counts[4] == 0
    # 8 degrees of freedom: above 31.8 by chance once in 10,000 times.
    assert ((counts[there] - expected[there]) ** 2 / expected[there]).sum() < 31.8
    assert draw(logits, np.full(10, -np.inf, np.float32), np.float32(1), 1, 0.5) == 1


@pytest.mark.slow  # a compiler runs
def test_new_weights_are_compiled_anew(reviews: list[str]) -> None:
    pytest.importorskip("numba")
    model = model_of("gru", reviews).compile()
    model.generate("a", max_tokens=5)

    model.weights = {name: array * 0.5 for name, array in model.weights.items()}

    other = model_of("gru", reviews)
    other.weights = model.weights
    assert model.generate("a", seed=1, max_tokens=60) == other.generate("a", seed=1, max_tokens=60)


@pytest.mark.parametrize("name", ["mingru-char", "transformer-char", "awd-lstm-char", "textgenrnn-char", "mlp-char"])
def test_what_has_no_compiled_step_says_so(name: str, reviews: list[str]) -> None:
    model = revgen.create(name, hidden_size=16)
    model.fit(reviews[:4], epochs=1, progress=False)

    with pytest.raises(OptionError, match=f"{name} has no compiled step"):
        model.compile()

    assert model.generate("a", max_tokens=3, seed=1)


def test_counts_have_none_either(reviews: list[str]) -> None:
    model = revgen.create("kneser-ney-char", order=3)
    model.fit(reviews[:4], progress=False)

    with pytest.raises(OptionError, match="kneser-ney-char has no compiled step"):
        model.compile()


def test_without_numba_the_error_says_how_to_get_it(reviews: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of("lstm", reviews)
    monkeypatch.setitem(sys.modules, "numba", None)
    monkeypatch.delitem(sys.modules, "revgen.networks.kernels", raising=False)

    with pytest.raises(MissingExtraError, match=r"pip install 'revgen\[fast\]'"):
        model.compile()

    assert model.generate("a", max_tokens=3)
