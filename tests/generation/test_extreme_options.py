"""Options at the ends of their ranges and logits that are no numbers: a text, or an error that names the option."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from toys import chars, probabilities, table

import revgen
from revgen import LanguageModel, OptionError
from revgen.architectures.neural import NeuralModel
from revgen.generation.blocks import BLOCK_SIZE, tensor_block
from revgen.generation.sampler import sample

HUGE: tuple[Any, ...] = (1e-320, 1e-300, 1e30, 1e39, 1e308, 10**30, 10**400, 10**5000)
PENALTIES = ("frequency_penalty", "presence_penalty", "length_penalty")
EXTREMES: list[dict[str, Any]] = [
    *({name: value} for name in ("temperature", "repetition_penalty") for value in HUGE),
    *({name: sign * value} for name in PENALTIES for value in HUGE for sign in (1, -1)),
    *({"logit_bias": {"a": sign * value}} for value in HUGE for sign in (1, -1)),
    *(
        {name: value}
        for name in ("top_k", "max_copied_chars", "seed", "num_beams", "n", "min_tokens")
        for value in HUGE[5:]
    ),
    *({name: value} for name in ("top_p", "min_p", "typical_p") for value in (1e-320, 1e-300, 1 - 1e-16)),
    *({"temperature": value, "top_k": 3} for value in ([1e39, 1e-320], [1e308, 0.0], lambda i: 1e39)),
    {"logit_bias": {"a": 1e308, "e": -1e308}, "repetition_penalty": 1e308, "frequency_penalty": 1e308},
    {"forced_tokens": {10**400: "a"}},
    {"num_beams": 2, "length_penalty": 1e308},
    {"num_beams": 2, "length_penalty": -1e308, "frequency_penalty": -1e308},
]


@pytest.fixture(scope="module")
def models() -> dict[str, LanguageModel]:
    """One that NumPy computes, one that is compiled, and one that counts."""
    found = {"numpy": revgen.load("gru-char"), "compiled": revgen.load("gru-char").compile()}
    counting = revgen.create("kneser-ney-char", order=3)
    counting.fit(["the band of the song"] * 3, progress=False)
    return found | {"counting": counting}


@pytest.mark.parametrize("backend", ["numpy", "compiled", "counting"])
@pytest.mark.parametrize("options", EXTREMES, ids=lambda options: str(list(options)))
def test_extreme_values_generate_text_or_name_the_option_in_an_error(
    options: dict[str, Any], backend: str, models: dict[str, LanguageModel]
) -> None:
    given = {"seed": 1, "max_tokens": 20} | options
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        try:
            text = models[backend].generate("the ", **given)
        except OptionError as error:
            assert any(str(error).startswith(name) for name in options)
        except revgen.NotFittedError:
            assert "max_copied_chars" in options
        else:
            assert all(one.startswith("the ") for one in ([text] if isinstance(text, str) else text))


def test_the_highest_temperatures_make_all_tokens_equally_likely() -> None:
    logits = np.array([[0, 5, -np.inf, -30]], np.float32)
    for temperature in (1e39, 1e308):
        for option in (temperature, [temperature]):
            p = probabilities(logits, temperature=option)
            np.testing.assert_allclose(p, [[1 / 3, 1 / 3, 0, 1 / 3]], rtol=1e-6)


def test_every_backend_samples_the_same_at_the_highest_temperature(models: dict[str, LanguageModel]) -> None:
    options: Any = {"temperature": 1e39, "seed": 3, "max_tokens": 40}
    assert models["numpy"].generate("the ", **options) == models["compiled"].generate("the ", **options)


NOT_FINITE = [np.nan, np.inf, -np.inf]


@pytest.mark.parametrize("value", NOT_FINITE)
@pytest.mark.parametrize(
    "options", [{}, {"n": 3}, {"top_k": 2}, {"num_beams": 2}, {"temperature": 0}, {"min_tokens": 3}]
)
def test_logits_that_are_not_finite_give_a_text(value: float, options: dict[str, Any]) -> None:
    model = table(chars("ab"), value)
    assert model.generate("a", max_tokens=5, seed=1, **options)
    model.table[:, model.tokenizer.encode("b")] = 0  # and the others are not finite
    text = model.generate("a", max_tokens=5, seed=1, **options)
    if np.isnan(value) or value < 0:
        first = text if isinstance(text, str) else text[0]
        assert set(first) == {"a", "b"} and first.count("a") == 1, "only what has a number is drawn"


@pytest.mark.parametrize("name", ["gru-char", "transformer-subword", "textgenrnn-char"])
@pytest.mark.parametrize("value", NOT_FINITE)
def test_weights_that_are_not_finite_give_a_text(name: str, value: float) -> None:
    for compiled in (False, True):
        model = revgen.load(name)
        model.weights = {key: np.full_like(array, value) for key, array in model.weights.items()}
        model = model.compile() if compiled else model
        with np.errstate(all="ignore"):
            for options in ({}, {"temperature": 0}, {"temperature": 1e39}):
                assert model.generate("the ", seed=1, max_tokens=20, **options).startswith("the ")


@pytest.mark.parametrize("value", NOT_FINITE)
def test_a_block_of_tensors_samples_tokens_of_the_vocabulary(value: float) -> None:
    model = revgen.load("gru-char")
    assert isinstance(model, NeuralModel)
    vocab = len(model.tokenizer)
    network: Any = lambda tokens, state: (torch.full((1, 2, vocab), value), state)  # noqa: E731
    for temperature in (0.0, 1.0, 1e39):
        options: list[dict[str, Any]] = [{}, {"top_p": 1e-300, "typical_p": 1e-300}, {"top_k": 10**30}]
        for option in options:
            filters = revgen.GenerationConfig(**option).build_filters()
            block = tensor_block(network, filters, model.tokenizer.eos_id, 0, 0)
            uniforms = torch.full((BLOCK_SIZE, 2), 1 - 2**-53, dtype=torch.float64)
            positions = torch.zeros((BLOCK_SIZE, 2), dtype=torch.int64)
            temperatures = torch.full((BLOCK_SIZE, 2, 1), min(temperature, 1e30), dtype=torch.float32)
            tokens, _ = block(None, torch.zeros(vocab), positions[0], uniforms, positions, temperatures)
            assert ((tokens >= 0) & (tokens < vocab)).all()


def test_sampling_never_goes_beyond_the_last_possible_token() -> None:
    for size in range(2, 60):
        p = np.random.default_rng(size).dirichlet(np.ones(size), 50).astype(np.float32)
        p[:, -1] = 0
        assert (sample(p, np.full(50, np.nextafter(1, 0))) < size - 1).all()
        assert (sample(torch.tensor(p), torch.full((50,), 1 - 2**-53, dtype=torch.float64)) < size - 1).all()
