"""Tests of long prompts: memory is bounded, and reading in parts gives the same as reading at once."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import revgen
from revgen import LanguageModel, OptionError
from revgen.architectures.functional_model import FunctionalModel
from revgen.architectures.neural import NeuralModel
from revgen.networks import reading
from revgen.ops import log_softmax
from revgen.registry import architecture_class, tokenizers

NAMES = [f"{name}-char" for name in dict.fromkeys(n.rpartition("-")[0] for n in revgen.list_models("*-char"))]


def small(name: str, texts: list[str], **options: Any) -> LanguageModel:
    sizes = {"hidden_size": 8} if name == "mlp-char" else {"hidden_size": 16, "num_layers": 2}
    is_network = issubclass(architecture_class(name.removesuffix("-char")), NeuralModel)
    model = revgen.create(name, **(sizes | options if is_network else {}))
    if isinstance(model, NeuralModel):
        model.prepare(tokenizers.get("char").train(texts), seed=1)
        model.weights["bias"] += np.random.default_rng(0).normal(size=len(model.tokenizer)).astype(np.float32)
    else:
        model.fit(texts, progress=False)
    return model


def ids_of(model: LanguageModel, text: str, rows: int = 1) -> NDArray[Any]:
    """Return ids (time, rows); each row starts at another position of the text."""
    ids = model.tokenizer.encode(text).astype(np.int64)
    columns = [np.roll(ids, -7 * row) for row in range(rows)]
    return np.concatenate([np.zeros((1, rows), np.int64), np.stack(columns, 1)])


@pytest.mark.parametrize("min_torch_tokens", [20_000, 1])  # on NumPy, on PyTorch
@pytest.mark.parametrize("name", NAMES)
def test_next_logits_equals_forward(
    name: str, min_torch_tokens: int, reviews: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("revgen.architectures.neural.MIN_TORCH_TOKENS", min_torch_tokens)
    monkeypatch.setattr("revgen.sequences.READ_BLOCK_SIZE", 60)
    monkeypatch.setattr(reading, "BLOCK_SIZE", 60)
    model = small(name, reviews[:4])
    ids = ids_of(model, reviews[0][:250], rows=2)
    prompt_state = model.next_logits(ids[:40], model.initial_state(2))[1]

    logits, state = model.next_logits(ids[40:], prompt_state)
    expected, expected_state = model.forward(ids, model.initial_state(2))

    np.testing.assert_allclose(log_softmax(logits), log_softmax(expected[-1]), atol=1e-4)
    following = ids[-5:-4]
    next_logits, expected_next = (log_softmax(model.forward(following, s)[0]) for s in (state, expected_state))
    np.testing.assert_allclose(next_logits, expected_next, atol=1e-4)


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("name", ["lstm-char", "gru-char", "minlstm-char", "rglru-char", "slstm-char", "awd-lstm-char"])
def test_reading_in_parallel_windows_equals_reading_in_order(
    name: str, rows: int, reviews: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "MIN_WINDOW_SIZE", 128)
    monkeypatch.setattr(reading, "MAX_WINDOW_SIZE", 256)
    monkeypatch.setattr(reading, "COMPARE_EVERY", 32)
    model = small(name, reviews[:4])
    assert isinstance(model, FunctionalModel)
    ids = ids_of(model, "".join(reviews)[:5000], rows)
    agreed: list[bool] = []
    read_windows = reading.read_windows

    def read_and_record(*arguments: Any) -> Any:
        agreed.append((result := read_windows(*arguments))[-1])
        return result

    monkeypatch.setattr(reading, "read_windows", read_and_record)
    logits, state = model.to("cpu:0").next_logits(ids, None)
    with torch.inference_mode():
        features, wanted = reading.read_in_order(model.network, torch.as_tensor(ids), None)
        expected = model.network.logits(features)[-1]

    assert agreed and all(agreed)
    np.testing.assert_allclose(logits, expected, atol=1e-4)
    torch.testing.assert_close(state, wanted, atol=1e-4, rtol=1e-4)


def test_network_that_does_not_forget_is_read_in_order(reviews: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MIN_WINDOW_SIZE", 128)
    model = small("lstm-char", reviews[:4])
    assert isinstance(model, NeuralModel)
    for name, array in model.weights.items():
        if name.endswith(".b"):
            array[16:32] = 30.0  # the forget gate is open
    model.weights = dict(model.weights)
    ids = ids_of(model, "".join(reviews)[:3000])

    logits, _ = model.to("cpu:0").next_logits(ids, None)
    wanted, _ = model.to("cpu").forward(ids, model.initial_state(1))

    np.testing.assert_allclose(logits, wanted[-1], atol=1e-3)


@pytest.mark.parametrize("name", ["gru-char", "textgenrnn-char", "transformer-char", "mlp-char", "kneser-ney-char"])
def test_memory_does_not_grow_with_the_prompt(name: str, reviews: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("revgen.sequences.READ_BLOCK_SIZE", 500)
    options = {"context": 64} if name == "transformer-char" else {}
    model = small(name, reviews[:4], **options)
    text = model.tokenizer.decode(model.tokenizer.encode("".join(reviews)[:12_000])).replace("�", " ")
    peaks = []
    for length in (3_000, 12_000):
        prompt = text[:length]
        model.generate(prompt[:10], max_tokens=1, seed=0)
        tracemalloc.start()
        model.generate(prompt, max_tokens=1, seed=0)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] - peaks[0] < 100 * 9_000  # less than the memory for logits of all tokens


@pytest.mark.parametrize("name", ["textgenrnn-char", "transformer-char"])
def test_attention_of_a_too_long_text_raises(name: str, reviews: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    model = small(name, reviews[:4])
    with pytest.raises(OptionError, match=r"text has 50,001 tokens: the attention weights of more than [\d,]+ take"):
        model.attention("a" * 50_000)


def test_prompts_of_different_lengths_are_read_in_one_batch(
    reviews: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("revgen.sequences.READ_BLOCK_SIZE", 50)
    model = small("lstm-char", reviews[:4])
    prompts = [reviews[0][:200].lower(), "a", reviews[1][:120].lower()]
    together = model.generate(prompts, temperature=0, max_tokens=20)
    assert together == [model.generate(prompt, temperature=0, max_tokens=20) for prompt in prompts]
