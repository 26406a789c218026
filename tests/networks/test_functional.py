"""Tests of custom networks, and of the mistakes that ``check_model`` finds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import revgen
from revgen.ops import concatenate, embedding, relu, tanh, tree_map
from revgen.registry import architectures
from revgen.testing import check_model


@dataclass(frozen=True)
class SmallConfig:
    hidden_size: int = 8


class Small(revgen.FunctionalNetwork):
    """h' = tanh(E[token] + h U), written without a cell; its configuration has no dropout."""

    def param_shapes(self) -> dict[str, tuple[int, ...]]:
        size = self.config.hidden_size
        return {"embedding": (self.vocab, size), "layers.0.U": (size, size), "bias": (self.vocab,)}

    def initial_state(self, batch: int, zeros: Any) -> Any:
        return zeros((batch, self.config.hidden_size))

    def features(self, p: Any, tokens: Any, state: Any, backend: Any) -> tuple[Any, Any]:
        steps = []
        for x in backend.dropout(embedding(p.embedding, tokens)):
            state = self.step(p, x, state)
            steps.append(state[None])
        return concatenate(steps, 0), state

    def step(self, p: Any, x: Any, h: Any) -> Any:
        return tanh(x + h @ p.layers[0].U)

    def logits(self, p: Any, features: Any) -> Any:
        return features @ p.embedding.T + p.bias


def register(network: type[Small]) -> None:
    class SmallModel(revgen.FunctionalModel):
        Config = SmallConfig
        network_class = network

    revgen.register_model("small", replace=True)(SmallModel)


@pytest.fixture(autouse=True)
def unregister_small() -> Iterator[None]:
    yield
    architectures.unregister("small")


def test_network_with_a_state_and_without_dropout_passes() -> None:
    register(Small)

    check_model("small-char")
    check_model("small-word", hidden_size=5)


def test_custom_network_trains_generates_saves_and_loads(reviews: list[str], tmp_path: Path) -> None:
    register(Small)
    model = revgen.create("small-char", hidden_size=16)

    history = model.fit(reviews[:20], valid=0.1, epochs=2, progress=False)
    loaded = revgen.load(model.save(tmp_path / "model"))

    assert history[-1].train_loss < history[0].train_loss
    assert loaded.generate("the ", seed=1, max_tokens=20) == model.generate("the ", seed=1, max_tokens=20)


def assert_found(network: type[Small], message: str) -> None:
    register(network)
    with pytest.raises(AssertionError, match=message):
        check_model("small-char")


def test_weights_of_another_shape_than_declared_are_found() -> None:
    class Misshapen(Small):
        def init_weight(self, name: str, shape: tuple[int, ...], rng: np.random.Generator) -> Any:
            return super().init_weight(name, shape, rng)[..., None]

    assert_found(Misshapen, r"small-char: init_weight\('embedding'\) returned the shape \(\d+, 8, 1\), not \(\d+, 8\)")


def test_weights_that_are_not_finite_are_found() -> None:
    class Infinite(Small):
        def init_weight(self, name: str, shape: tuple[int, ...], rng: np.random.Generator) -> Any:
            return np.full(shape, np.nan)

    assert_found(Infinite, r"init_weight\('embedding'\) returned values that are not finite")


def test_logits_of_the_wrong_shape_are_found() -> None:
    class Narrow(Small):
        def logits(self, p: Any, features: Any) -> Any:
            return super().logits(p, features)[..., 1:]

    assert_found(Narrow, r"the logits have the shape \(7, 3, \d+\), not \(time, batch, vocab\)")


def test_state_whose_first_axis_is_not_the_batch_is_found() -> None:
    class Turned(Small):
        def initial_state(self, batch: int, zeros: Any) -> Any:
            return super().initial_state(batch, zeros).T

        def features(self, p: Any, tokens: Any, state: Any, backend: Any) -> tuple[Any, Any]:
            features, state = super().features(p, tokens, state.T, backend)
            return features, state.T

    assert_found(Turned, r"an array of the state has the shape \(8, 3\), not \(batch, …\) with batch = 3")


def test_state_that_is_not_returned_is_found() -> None:
    class Forgetful(Small):
        def features(self, p: Any, tokens: Any, state: Any, backend: Any) -> tuple[Any, Any]:
            features, _ = super().features(p, tokens, state, backend)
            return features, state

    assert_found(Forgetful, "reading in two parts and at once gives different logits.*returned state must hold all")


def test_state_kept_on_the_network_is_found() -> None:
    class Secretive(Small):
        last: Any = 0.0

        def step(self, p: Any, x: Any, h: Any) -> Any:
            h = super().step(p, x, h) + self.last
            self.last = h.mean()
            return h

    assert_found(
        Secretive, "reading a sequence twice gives different logits; a call may change nothing but the returned state"
    )


def test_logits_that_depend_on_later_tokens_are_found() -> None:
    class Prophetic(Small):
        def features(self, p: Any, tokens: Any, state: Any, backend: Any) -> tuple[Any, Any]:
            features, state = super().features(p, tokens, state, backend)
            return features + features.mean(0), state

    assert_found(Prophetic, "the logits of a step depend on later steps")


def test_rows_that_affect_each_other_are_found() -> None:
    class Mixing(Small):
        def step(self, p: Any, x: Any, h: Any) -> Any:
            return super().step(p, x, h) + h.mean(0)

    assert_found(Mixing, "a row alone and in a batch gives different logits; no row may affect another")


def test_unused_weight_is_found() -> None:
    class Idle(Small):
        def param_shapes(self) -> dict[str, tuple[int, ...]]:
            return super().param_shapes() | {"layers.0.V": (3, 3)}

    assert_found(Idle, r"the weight layers\.0\.V gets no gradient: is it used\?")


def test_numpy_and_pytorch_that_disagree_are_found() -> None:
    class TwoFaced(Small):
        def step(self, p: Any, x: Any, h: Any) -> Any:
            y = x + h @ p.layers[0].U
            return tanh(y) if isinstance(y, np.ndarray) else relu(y)

    assert_found(TwoFaced, r"NumPy and PyTorch give different outputs \(they differ by")


def test_double_precision_on_numpy_is_found() -> None:
    class Double(Small):
        def logits(self, p: Any, features: Any) -> Any:
            logits = super().logits(p, features)
            return logits.astype(np.float64) if isinstance(logits, np.ndarray) else logits

    assert_found(Double, "on NumPy the output is float64, not float32")


@pytest.mark.parametrize("name", ["lstm-char", "textgenrnn-char"])
@pytest.mark.parametrize("batch", [2, 5, 8])
def test_a_batch_of_any_size_has_the_logits_of_its_rows(name: str, batch: int) -> None:
    model = revgen.load(name)
    rng = np.random.default_rng(0)
    tokens = rng.integers(3, len(model.tokenizer), (2, batch))

    _, state = model.forward(tokens[:1], model.initial_state(batch))
    logits, state = model.forward(tokens[1:], state)

    assert logits.shape == (1, batch, len(model.tokenizer))
    for row in range(batch):
        _, alone = model.forward(tokens[:1, row : row + 1], model.initial_state(1))
        expected, alone = model.forward(tokens[1:, row : row + 1], alone)
        np.testing.assert_allclose(logits[0, row], expected[0, 0], atol=1e-4)
        tree_map(lambda both, one, row=row: np.testing.assert_allclose(both[row], one[0], atol=1e-4), state, alone)
