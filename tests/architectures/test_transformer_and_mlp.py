"""Tests of the transformer and the MLP: NumPy and PyTorch, context, and documents in one row."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

import revgen
from revgen import ops
from revgen.architectures.neural import NeuralModel
from revgen.architectures.transformer import split_evenly
from revgen.networks.network import network_forward
from revgen.testing import check_model
from revgen.tokenizers import Tokenizer
from revgen.tokenizers.char import CharTokenizer
from revgen.training.recipe import Recipe

TRANSFORMER: dict[str, Any] = {"hidden_size": 16, "num_layers": 2, "num_heads": 2, "context": 6}
MLP: dict[str, Any] = {"hidden_size": 12, "embedding_size": 5, "num_layers": 2, "context": 4}
BOTH = pytest.mark.parametrize(("name", "options"), [("transformer", TRANSFORMER), ("mlp", MLP)])
NAMES = revgen.list_models(["transformer-*", "mlp-*"])
TIME, BATCH = 20, 3


def random_model(name: str, **options: Any) -> Any:
    """Return a model with noise on all weights, including those that start at 0 or 1."""
    tokenizer = CharTokenizer.train(["aabbccddee"], min_count=1)
    model = revgen.create(f"{name}-char", tokenizer=tokenizer, **options)
    assert isinstance(model, NeuralModel)
    model.prepare(tokenizer, 0)
    random = np.random.default_rng(1)
    model.weights = {
        name: array + random.normal(0, 0.1, array.shape).astype(np.float32) for name, array in model.weights.items()
    }
    return model


def stream(model: Any) -> Any:
    """Return rows of consecutive documents, (time, batch), which start at different positions."""
    tokens = np.random.default_rng(2).integers(3, len(model.tokenizer), (TIME, BATCH))
    tokens[[0, 0, 11], [0, 1, 1]] = Tokenizer.bos_id
    tokens[[5, 6], 2] = Tokenizer.bos_id  # a document that is empty before the next
    return tokens


def in_parts(forward: Any, tokens: Any, *lengths: int) -> Any:
    """Return the logits of a text that is read in parts, from the state None."""
    logits, state = [], None
    for part in np.split(tokens, np.cumsum(lengths)):
        given, state = forward(part, state)
        logits.append(given)
    return np.concatenate(logits)


@pytest.mark.parametrize("name", NAMES)
def test_model_passes_check_model(name: str) -> None:
    sizes = TRANSFORMER if name.startswith("transformer") else MLP
    check_model(name, **sizes | {"hidden_size": 32, "context": 16})


@BOTH
@pytest.mark.parametrize("lengths", [(), (7, 1, 5), (1,) * (TIME - 1)], ids=["at once", "in parts", "step by step"])
def test_numpy_and_torch_agree_at_once_and_in_parts(
    name: str, options: dict[str, Any], lengths: tuple[int, ...]
) -> None:
    model = random_model(name, **options)
    tokens = stream(model)
    expected, _ = network_forward(model.network)(tokens, None)

    on_numpy = in_parts(model.forward, tokens, *lengths)
    on_torch = in_parts(network_forward(model.network), tokens, *lengths)

    assert on_numpy.dtype == np.float32 and on_numpy.shape == (TIME, BATCH, len(model.tokenizer))
    np.testing.assert_allclose(on_numpy, expected, atol=1e-5, rtol=0)
    np.testing.assert_allclose(on_torch, expected, atol=1e-5, rtol=0)


@BOTH
def test_rows_of_a_batch_are_independent(name: str, options: dict[str, Any]) -> None:
    model = random_model(name, **options)
    tokens = stream(model)
    whole, _ = model.forward(tokens, None)
    _, state = model.forward(tokens[:9], model.initial_state(BATCH))
    ops.tree_map(lambda array: np.testing.assert_equal(len(array), BATCH), state)

    kept = np.array([2, 0])
    rest, _ = model.forward(tokens[9:, kept], ops.tree_map(lambda array: array[kept], state))

    np.testing.assert_allclose(rest, whole[9:, kept], atol=1e-5, rtol=0)


@BOTH
def test_predictions_do_not_depend_on_later_tokens_or_other_documents(name: str, options: dict[str, Any]) -> None:
    model = random_model(name, **options)
    tokens = stream(model)
    whole, _ = model.forward(tokens, None)

    other = tokens.copy()
    other[14:] = 3
    np.testing.assert_allclose(model.forward(other, None)[0][:14], whole[:14], atol=1e-6, rtol=0)
    alone, _ = model.forward(tokens[11:, 1:2], None)
    np.testing.assert_allclose(alone, whole[11:, 1:2], atol=1e-5, rtol=0)


@BOTH
def test_layer_reads_exactly_the_tokens_of_the_context(name: str, options: dict[str, Any]) -> None:
    model = random_model(name, **options | {"num_layers": 1})
    tokens = np.full((TIME, 1), 4)
    other = tokens.copy()
    other[2] = 5

    changed = np.abs(model.forward(tokens, None)[0] - model.forward(other, None)[0]).max((1, 2)) > 1e-6

    assert changed.nonzero()[0].tolist() == list(range(2, 2 + options["context"]))


@BOTH
def test_every_weight_gets_a_gradient_and_dropout_is_only_in_training(name: str, options: dict[str, Any]) -> None:
    model = random_model(name, **options | {"dropout": 0.5})
    network, tokens = model.make_network(), torch.as_tensor(stream(model))

    network.train()(tokens)[0].logsumexp(-1).sum().backward()

    assert all(weight.grad is not None and weight.grad.abs().sum() > 0 for weight in network.named_weights().values())
    assert not torch.equal(network(tokens)[0], network(tokens)[0])
    assert torch.equal(network.eval()(tokens)[0], network(tokens)[0])


@BOTH
def test_default_learning_rate_reduces_the_loss(name: str, options: dict[str, Any], reviews: list[str]) -> None:
    model = revgen.create(f"{name}-char", **options | {"hidden_size": 32, "context": 16})
    assert isinstance(model, NeuralModel)

    history = model.fit(reviews[:20], epochs=3, batch_size=4, progress=False)
    again = model.fit(reviews[:5], epochs=1, progress=False)

    assert history.settings["learning_rate"] == type(model).learning_rate < NeuralModel.learning_rate
    assert again.settings["learning_rate"] == pytest.approx(type(model).learning_rate / 5)
    assert history[-1].train_loss < history[0].train_loss - 0.1


# The transformer


def test_transformer_equals_its_definition() -> None:
    model = random_model("transformer", **TRANSFORMER)
    tokens = stream(model)[:, 1]
    w = {name: array.astype(float) for name, array in model.weights.items()}
    hidden, size, context = 16, 8, 6

    def norm(i: int, x: Any) -> Any:
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
        return x * w[f"norms.{i}.scale"] + w[f"norms.{i}.shift"]

    def rotate(x: Any, position: int) -> Any:  # pairs of channels as complex numbers
        angles = position * 10_000.0 ** (-np.arange(size // 2) / (size // 2))
        return (x[: size // 2] + 1j * x[size // 2 :]) * np.exp(1j * angles)

    x = w["embedding"][tokens] * math.sqrt(hidden)
    for i in range(2):
        q, k, v = np.split(norm(2 * i, x) @ w[f"layers.{i}.attention"], 3, -1)
        y = np.zeros_like(x)
        for t in range(TIME):
            first = max(0, t - context + 1, 11 if t >= 11 else 0)  # the second document begins at 11
            for head in (slice(0, size), slice(size, hidden)):
                products = [
                    (rotate(q[t, head], t).conj() * rotate(k[s, head], s)).sum().real for s in range(first, t + 1)
                ]
                weights = np.exp(np.array(products) / math.sqrt(size))
                y[t, head] = weights / weights.sum() @ v[first : t + 1, head]
        x = x + y @ w[f"layers.{i}.output"]
        h = norm(2 * i + 1, x) @ w[f"layers.{i}.up"] + w[f"layers.{i}.bias"]
        gelu = h * 0.5 * (1 + np.vectorize(math.erf)(h / math.sqrt(2)))
        x = x + gelu @ w[f"layers.{i}.down"]
    expected = norm(4, x) @ w["embedding"].T + w["bias"]

    logits, _ = model.forward(tokens[:, None], None)

    np.testing.assert_allclose(logits[:, 0], expected, atol=1e-3, rtol=0)  # gelu is approximated


def test_cache_is_no_longer_than_the_context() -> None:
    model = random_model("transformer", **TRANSFORMER)

    _, (read, caches) = model.forward(stream(model), None)

    assert read.tolist() == [TIME, TIME - 11, TIME - 6]
    assert {array.shape for cache in caches for array in cache} == {(BATCH, 2, 5, 8)}


def test_gradients_cross_the_parts_of_a_long_text() -> None:
    network = random_model("transformer", **TRANSFORMER | {"num_layers": 1, "dropout": 0.0}).make_network()
    embedding = network.named_weights()["embedding"]
    tokens = torch.full((8, 1), 4)
    tokens[5] = 5

    network(tokens)[0][7, 0, 3].backward()  # a part has 6 tokens

    assert embedding.grad is not None and embedding.grad[5].abs().sum() > 0


def test_rotary_angles_are_exact_at_large_positions() -> None:
    random = np.random.default_rng(0)
    a, b = random.normal(size=(2, 8)).astype(np.float32)

    def product(position: int) -> Any:
        cos, sin = ops.rotary_angles(np.array([position, position + 3]), 8)
        x, y = ((v[:4] + 1j * v[4:]) * (cos[i] + 1j * sin[i]) for i, v in enumerate((a, b)))
        return (x.conj() * y).sum().real

    assert product(10**9) == pytest.approx(product(0), abs=1e-5)


def test_attention_in_bfloat16_is_close_to_float32() -> None:
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 2, 2, 5, 8).unbind()
    mask = torch.ones(5, 5, dtype=torch.bool).tril()
    expected = ops.attention(q, k, v, mask)

    with torch.autocast("cpu", torch.bfloat16):
        rounded = ops.attention(q, k, v, mask)

        bias = torch.zeros(5, 5, dtype=torch.bfloat16).masked_fill(~mask, -torch.inf)
        again = ops.attention(q, k, v, bias)

    assert rounded.dtype == torch.bfloat16
    assert torch.equal(rounded, again)
    torch.testing.assert_close(rounded.float(), expected, atol=0.05, rtol=0)
    np.testing.assert_allclose(ops.attention(*(x.numpy() for x in (q, k, v, mask))), expected, atol=1e-6)


@BOTH
def test_training_in_bfloat16_gives_nearly_the_gradients_of_float32(name: str, options: dict[str, Any]) -> None:
    model = random_model(name, **options | {"hidden_size": 32, "dropout": 0.0})
    tokens = torch.as_tensor(stream(model))

    def gradients(bf16: bool) -> dict[str, torch.Tensor]:
        network = model.make_network().train()
        network.bf16_matmul = bf16
        _, state = network(tokens[:8])
        network(tokens[8:], state)[0].log_softmax(-1)[..., 0].sum().backward()
        return {name: weight.grad for name, weight in network.named_weights().items()}

    exact, rounded = gradients(False), gradients(True)

    for name, gradient in exact.items():
        assert rounded[name].dtype == torch.float32
        assert not torch.equal(rounded[name], gradient)
        assert (rounded[name] - gradient).norm() < 0.1 * gradient.norm(), name


def test_width_and_dropout_follow_the_amount_of_training(reviews: list[str]) -> None:
    model: Any = revgen.create("transformer-char", num_heads=6)

    def sizes(**options: Any) -> dict[str, Any]:
        recipe = Recipe(**options).resolve(1_000_000, 8e-3, fine_tunes=False)
        suggestion: dict[str, Any] = model.suggest_sizes(recipe, 1_000_000)
        return suggestion

    small, medium, large = (sizes(preset=preset) for preset in ("quick", "balanced", "best"))
    assert small["hidden_size"] < medium["hidden_size"] < large["hidden_size"]
    assert small["dropout"] < medium["dropout"] < large["dropout"]
    assert all(size["hidden_size"] % 12 == 0 for size in (small, medium, large))
    assert sizes(max_seconds=30)["hidden_size"] < sizes(max_seconds=1000)["hidden_size"]

    model.fit(reviews[:3], epochs=1, progress=False)
    assert model.config.hidden_size % 12 == 0 and model.config.dropout == 0


@pytest.mark.parametrize("length", [4, 5, 12])
def test_only_short_sequences_read_the_cache_in_training(length: int) -> None:
    model = random_model("transformer", **TRANSFORMER | {"context": 6})
    network, tokens = model.make_network().eval(), torch.as_tensor(stream(model))
    network.bf16_matmul = False
    _, state = network(tokens[:3])
    alone, continued = network(tokens[3 : 3 + length]), network(tokens[3 : 3 + length], state)

    network.train()
    trained = network(tokens[3 : 3 + length], state)

    torch.testing.assert_close(trained[0], (continued if length < 4.5 else alone)[0], atol=1e-5, rtol=0)
    assert not torch.allclose(alone[0], continued[0], atol=1e-3)


def test_long_sequence_is_split_into_equal_parts() -> None:
    assert split_evenly(5, 8) == [(0, 5)]
    assert split_evenly(11, 8) == [(0, 11)]
    assert split_evenly(13, 8) == [(0, 6), (6, 13)]
    assert split_evenly(24, 8) == [(0, 8), (8, 16), (16, 24)]


# The MLP


def test_mlp_equals_its_definition() -> None:
    model = random_model("mlp", **MLP)
    w = model.weights
    tokens = stream(model)[:, 1]
    expected = []
    for t in range(TIME):
        first = max(t - 3, 11 if t >= 11 else 0)
        window = [Tokenizer.bos_id] * (4 - (t + 1 - first)) + tokens[first : t + 1].tolist()
        h = w["embedding"][window].ravel()
        for i in range(2):
            h = np.maximum(h @ w[f"layers.{i}.W"] + w[f"layers.{i}.b"], 0)
        expected.append(w["head"] @ h + w["bias"])

    logits, state = model.forward(tokens[:, None], None)

    np.testing.assert_allclose(logits[:, 0], expected, atol=1e-5, rtol=0)
    assert state.tolist() == [tokens[-3:].tolist()]


def test_mlp_with_a_context_of_one_token_is_a_bigram_model() -> None:
    model = random_model("mlp", **MLP | {"context": 1})

    logits, _ = model.forward(np.array([[3], [5], [4], [5]]), None)

    np.testing.assert_allclose(logits[1], logits[3], atol=1e-6)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "transformer-char",
            {"hidden_size": 20, "num_heads": 4},
            "hidden_size must be a multiple of 2 × num_heads",
        ),
        ("transformer-char", {"num_heads": 0}, "num_heads must be a whole number from 1"),
        ("transformer-char", {"context": 1.5}, "context must be a whole number from 1"),
        ("transformer-char", {"dropout": 1.0}, "dropout must be in the range 0 ≤ dropout < 1"),
        ("mlp-char", {"context": 0}, "context must be a whole number from 1"),
        ("mlp-char", {"embedding_size": True}, "embedding_size must be a whole number from 1"),
        ("mlp-char", {"num_layers": -1}, "num_layers must be a whole number from 1"),
        ("mlp-char", {"dropout": "much"}, "dropout must be in the range 0 ≤ dropout < 1"),
    ],
)
def test_error_for_a_value_out_of_range_names_the_option(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(revgen.OptionError, match=message):
        revgen.create(name, **options)
