"""In a browser, every architecture computes the same logits as NumPy, and generates the same text."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from browser_models import Engine, assert_same, model_of

import revgen
from revgen import ops
from revgen.registry import architecture_names, cells

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

LEVELS = ("char", "word", "subword")
REPRESENTATIVE: list[tuple[str, str, dict[str, Any]]] = [
    ("graves-lstm", "word", {}),
    ("textgenrnn", "char", {"labels": ("good", "</script>")}),
    ("mlp", "subword", {}),
    ("transformer", "subword", {"context": 24}),
    ("kneser-ney", "word", {}),
    ("ngram", "char", {"unseen": "end"}),
    ("rglru", "char", {"embedding_size": 7}),
    ("lstm", "char", {"ngram_heads": (1, 3)}),
    ("gru", "char", {"layer_norm": False, "tie_embeddings": False, "residual": False}),
]
WITHOUT_PAGE = (
    *("cm", "gated-mixture", "residual", "skip-ngram"),
    *("document-cache", "neural-cache", "dynamic-evaluation"),
)
ALL: list[tuple[str, str, dict[str, Any]]] = [
    (name, level, {})
    for name in architecture_names()
    if name not in WITHOUT_PAGE and name != "mixture"  # which has a test of its own
    for level in LEVELS
]
ALL += [("kneser-ney", "char", {"order": 1}), ("transformer", "char", {"context": 1}), ("mlp", "char", {"context": 1})]


@pytest.mark.parametrize(
    ("architecture", "level", "options"),
    [*REPRESENTATIVE, *(pytest.param(*spec, marks=pytest.mark.slow) for spec in ALL)],
)
def test_logits_and_the_most_likely_text_are_those_of_numpy(
    browser: Chrome, tmp_path: Path, architecture: str, level: str, options: dict[str, Any]
) -> None:
    engine = Engine(browser, model_of(architecture, level, **options), tmp_path)

    assert_same(engine)
    for label in engine.model.labels:
        assert_same(engine, label)


@pytest.fixture
def registered() -> Iterator[Callable[[str, type], None]]:
    """A function that registers a cell for one test."""
    names: list[str] = []

    def register(name: str, cell: type) -> None:
        names.append(name)
        revgen.register_cell(name)(cell)

    yield register
    for name in names:
        cells.unregister(name)


def test_custom_cell_runs_in_a_browser(
    browser: Chrome, tmp_path: Path, registered: Callable[[str, type], None]
) -> None:
    class Counting(revgen.Cell):
        """A cell whose state does not start at zero, and has integers, truth values and scalars."""

        def param_shapes(self) -> dict[str, tuple[int, ...]]:
            return {"W": (self.input_size, self.hidden_size), "decay": (self.hidden_size,)}

        def initial_state(self, batch: int, zeros: Any) -> Any:
            return {"h": ops.cumsum(zeros((batch, self.hidden_size)) + 1) * 0.1, "n": zeros((batch,))}

        def step(self, p: Any, z: Any, state: Any) -> Any:
            h = ops.softplus(p.decay) ** 0.5 * state["h"] + z
            is_even = state["n"] - state["n"] // 2 * 2 == 0
            h = ops.where(is_even[:, None] & (h > -1), ops.tanh(h), -h)
            h = ops.softmax(h) * ops.cummax(h) + ops.log_softmax(h) * 0.1
            return h, {"h": h, "n": (state["n"] + 1) % 7}

        def project(self, p: Any, x: Any) -> Any:
            return x @ p.W

    registered("counting", Counting)

    assert_same(Engine(browser, model_of("counting", "char"), tmp_path))


def test_mixture_runs_in_a_browser(browser: Chrome, tmp_path: Path) -> None:
    parts = [model_of(name, "word") for name in ("kneser-ney", "elman", "ngram")]
    nested = revgen.mix(parts[1:], weights=[0.75, 0.25])

    assert_same(Engine(browser, revgen.mix([parts[0], nested], weights=[0.5, 0.5]), tmp_path))


def test_without_webassembly_the_logits_are_the_same(browser: Chrome, tmp_path: Path) -> None:
    engine = Engine(browser, model_of("lstm", "char"), tmp_path)
    ids = [0, *engine.model.tokenizer.encode("the band").tolist()]
    expected = engine.logits(ids)

    engine.run("delete window.WebAssembly; window.revgen.model = createModel(MODEL);")

    np.testing.assert_allclose(engine.logits(ids), expected, rtol=0, atol=1e-5)


def test_trained_model_generates_the_text_that_python_generates(browser: Chrome, tmp_path: Path) -> None:
    engine = Engine(browser, revgen.load("rnn-char"), tmp_path)

    text = engine.generate("The band ", temperature=0, max_tokens=200)

    assert text == engine.model.generate("The band ", temperature=0, max_tokens=200)


@pytest.mark.slow
@pytest.mark.parametrize("name", revgen.list_models(pretrained=True))
def test_shipped_models_agree_with_numpy(browser: Chrome, tmp_path: Path, name: str) -> None:
    model = revgen.load(name)
    model.generation_config = {}
    engine = Engine(browser, model, tmp_path)

    assert_same(engine)
    arrays = engine.model.weights.values()
    weights = sum(array.size * (2 if array.dtype.kind == "f" else array.itemsize) for array in arrays)
    assert engine.path.stat().st_size <= 1.4 * weights + 200_000
