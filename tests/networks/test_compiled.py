"""Tests of compiled generation: it computes the same logits and texts as NumPy."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import revgen
from revgen import LanguageModel, MissingExtraError, OptionError, ops
from revgen.networks import compiled
from revgen.registry import cells

MODELS: list[Any] = [
    ("lstm", {}),
    ("lstm", {"embedding_size": 24}),
    ("gru", {"residual": False}),
    ("gru", {"layer_norm": False, "tie_embeddings": False}),
    ("elman", {"embedding_size": 7, "tie_embeddings": False}),
    ("lstm", {"ngram_heads": (1, 3)}),
    ("lstm", {"num_layers": 3}),  # of other types, so it is compiled again
    ("rnn", {"nonlinearity": "relu"}),
    ("rnn", {"residual": False, "layer_norm": False}),
    ("mingru", {}),
    ("awd-lstm", {"embedding_size": 20}),
    *((name, {}) for name in ("slstm", "minlstm", "rglru", "relu-gru", "relu-lstm", "peephole-lstm", "graves-lstm")),
    ("mlp", {"context": 5}),
    ("mlp", {"context": 1}),
    ("textgenrnn", {}),
    ("textgenrnn", {"num_layers": 1, "embedding_size": None}),
    ("transformer", {"hidden_size": 32, "context": 24}),
    ("transformer", {"hidden_size": 32, "num_heads": 2, "context": 1}),
    ("ngram", {"order": 3}),
    ("ngram", {"order": 3, "unseen": "end"}),
    ("kneser-ney", {"order": 4}),
    ("kneser-ney", {"order": 1}),
    ("kneser-ney", {"order": 5, "max_bytes": 4000}),
]


TOKENIZER_OPTIONS = {"min_count": 1}
"""Tokenizer options with which every character of the few texts has a token."""


def model_of(architecture: str, texts: list[str], **options: Any) -> LanguageModel:
    """Return a small fitted model with noise on all weights, so that every weight matters."""
    if architecture in ("ngram", "kneser-ney"):
        model = revgen.create(f"{architecture}-char", tokenizer=TOKENIZER_OPTIONS, **options)
        model.fit(texts[:5], progress=False)
        return model
    model = revgen.create(
        f"{architecture}-char", tokenizer=TOKENIZER_OPTIONS, **{"hidden_size": 30, "num_layers": 2, **options}
    )
    model.fit(texts[:5], epochs=1, progress=False)
    random = np.random.default_rng(0)
    model.weights = {
        name: (array + random.normal(0, 0.2, array.shape)).astype(np.float32) for name, array in model.weights.items()
    }
    return model


def assert_same_logits(model: Any, steps: int = 60) -> None:
    """Compare compiled logits with the model's, token by token and across the start of a document."""
    state = other = model.initial_state(1)
    code = model.build_compiled()
    tokens = np.random.default_rng(1).integers(0, len(model.tokenizer), steps)
    tokens[steps // 2] = model.tokenizer.bos_id
    for token in tokens.tolist():
        logits, state = code.step(token, state)
        expected, other = model.forward(np.array([[token]]), other)
        assert logits.shape == expected.shape and logits.dtype == np.float32
        np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=2e-5)


@pytest.mark.slow  # a compiler runs
@pytest.mark.parametrize(("architecture", "options"), MODELS, ids=str)
def test_compiled_logits_equal_numpy_logits(architecture: str, options: dict[str, Any], reviews: list[str]) -> None:
    pytest.importorskip("numba")
    assert_same_logits(model_of(architecture, reviews, **options))


@pytest.mark.slow  # a compiler runs
@pytest.mark.parametrize("architecture", ["lstm", "textgenrnn", "transformer"])
def test_float16_weights_stay_in_float16(architecture: str, reviews: list[str]) -> None:
    pytest.importorskip("numba")
    model: Any = model_of(architecture, reviews, hidden_size=32)
    small = np.float32(2e-7)  # below the smallest normal number of float16
    model.weights = {
        name: np.where(np.abs(array) < 0.05, small, array).astype(np.float16).astype(np.float32)
        for name, array in model.weights.items()
    }
    code = model.build_compiled()
    weights = code.net if architecture == "transformer" else code.weights
    assert any(getattr(array, "dtype", None) == np.uint16 for array in weights)
    assert_same_logits(model)


@pytest.mark.slow  # a compiler runs
@pytest.mark.parametrize("cell", ["lstm", "elman", "mingru", "textgenrnn", "transformer", "kneser-ney"])
def test_compiled_model_generates_the_same_text(cell: str, reviews: list[str], tmp_path: Path) -> None:
    pytest.importorskip("numba")
    model = model_of(cell, reviews, **({"hidden_size": 32, "context": 20} if cell == "transformer" else {}))
    options: dict[str, Any] = {"max_tokens": 80, "seed": 1}
    before = model.generate("the ", **options), model.generate("the ", n=3, **options), model.score("a text").total
    vectors = model.embed(["", "a"]) if cell != "kneser-ney" else None

    assert model.compile() is model
    assert (model.generate("the ", **options), model.generate("the ", n=3, **options)) == before[:2]
    if vectors is not None:
        np.testing.assert_allclose(model.embed(["", "a"]), vectors, atol=1e-5)
    assert model.score("a text").total == pytest.approx(before[2], abs=1e-3)
    assert "the " + "".join(model.stream("the ", **options)) == before[0]
    assert revgen.load(model.save(tmp_path / "model")).compile().generate("the ", **options) == before[0]


SAMPLINGS: list[dict[str, Any]] = [
    {},
    {"temperature": 0},
    {"temperature": 1e-50},
    {"temperature": 0.5, "stop": ["e ", "s"]},
    {"temperature": 1.7, "banned_tokens": ["e", " "], "logit_bias": {"a": 3}},
    {"banned_tokens": [1]},
    {"max_tokens": 17},
    {"max_tokens": 1},
    {"top_k": 5, "top_p": 0.8},
    {"min_p": 0.1, "repetition_penalty": 1.3},
    {"temperature": [0.5, 1.5]},
    {"min_tokens": 20},
    {"forced_tokens": {3: "a"}},
    {"regex": "[a-z ]{20,30}"},
    {"num_beams": 3, "max_tokens": 12},
]


@pytest.mark.slow  # a compiler runs
@pytest.mark.parametrize("options", SAMPLINGS, ids=str)
def test_compiled_model_samples_the_same_tokens(options: dict[str, Any], small_model: LanguageModel) -> None:
    pytest.importorskip("numba")
    model: Any = small_model
    before = [model.generate("the ", **{"seed": seed, "max_tokens": 60, **options}) for seed in range(5)]
    model.compile()
    try:
        texts = [model.generate("the ", **{"seed": seed, "max_tokens": 60, **options}) for seed in range(5)]
        streams = ["".join(model.stream("the ", **{"seed": s, "max_tokens": 60, **options})) for s in range(5)]
    finally:
        model._compile_requested = False
        model._clear_caches()

    assert texts == before == [f"the {text}" for text in streams]


@pytest.mark.slow  # a compiler runs
def test_compiled_sampling_follows_the_distribution(reviews: list[str]) -> None:
    pytest.importorskip("numba")
    from revgen.networks.kernels import sample

    logits = np.random.default_rng(0).normal(0, 1, 10).astype(np.float32)
    biases = np.where(np.arange(10) == 4, -np.inf, 0).astype(np.float32)
    expected = np.exp((logits.astype(float) + biases) / 0.7)
    expected *= 20_000 / expected.sum()

    samples = [
        sample(logits, biases, np.float32(0.7), np.float32(-np.inf), 1, u)
        for u in np.random.default_rng(1).random(20_000)
    ]

    counts, is_possible = np.bincount(samples, minlength=10), expected > 0
    assert counts[4] == 0
    # 8 degrees of freedom: above 31.8 by chance once in 10,000 times.
    assert ((counts[is_possible] - expected[is_possible]) ** 2 / expected[is_possible]).sum() < 31.8
    assert sample(logits, np.full(10, -np.inf, np.float32), np.float32(1), np.float32(-np.inf), 1, 0.5) == 1


@pytest.mark.slow  # a compiler runs
def test_new_weights_are_compiled_again(reviews: list[str]) -> None:
    pytest.importorskip("numba")
    model = model_of("gru", reviews).compile()
    model.generate("a", max_tokens=5)

    model.weights = {name: array * 0.5 for name, array in model.weights.items()}

    other = model_of("gru", reviews)
    other.weights = model.weights
    assert model.generate("a", seed=1, max_tokens=60) == other.generate("a", seed=1, max_tokens=60)


@pytest.mark.slow  # a compiler runs
def test_a_label_is_read_with_every_token(reviews: list[str]) -> None:
    pytest.importorskip("numba")
    model = revgen.create("textgenrnn-char", hidden_size=24)
    model.fit(reviews[:6], labels=["a", "b"] * 3, epochs=1, progress=False)
    random = np.random.default_rng(0)
    model.weights = {
        name: (array + random.normal(0, 0.3, array.shape)).astype(np.float32) for name, array in model.weights.items()
    }
    before = [model.generate("the ", label=label, max_tokens=60, seed=1) for label in "ab"]
    assert before[0] != before[1]

    model.compile()

    assert [model.generate("the ", label=label, max_tokens=60, seed=1) for label in "ab"] == before


@pytest.mark.slow  # a compiler runs
def test_custom_cell_is_compiled(reviews: list[str]) -> None:
    pytest.importorskip("numba")

    @revgen.register_cell("mixed")
    class Mixed(revgen.Cell):
        """A cell with two states of different sizes, and operators that no built-in cell has."""

        def param_shapes(self) -> dict[str, tuple[int, ...]]:
            return {"W": (self.input_size, 3 * self.hidden_size), "U": (5, self.hidden_size), "v": (self.hidden_size,)}

        def project(self, p: Any, x: Any) -> Any:
            return x @ p.W

        def step(self, p: Any, z: Any, state: Any) -> tuple[Any, Any]:
            h, short = state["h"], state["short"]
            a, b, c = ops.split(z, 3)
            weights = ops.softmax(ops.concatenate([(h * p.v), short]))[..., : self.hidden_size]
            h = ops.where(a > 0, weights * b, -0.5) + ops.gelu(c) * ops.exp(-ops.softplus(b)) + short @ p.U
            h = h / (1 + ops.maximum(h, -h))
            return h, {"h": h, "short": h[..., 2:7] ** 2}

        def initial_state(self, batch: int, zeros: Any) -> Any:
            return {"h": zeros((batch, self.hidden_size)), "short": zeros((batch, 5))}

    try:
        assert_same_logits(model_of("mixed", reviews))
    finally:
        cells.unregister("mixed")


def test_programs_that_were_not_used_for_long_leave_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("numba")
    monkeypatch.setenv("REVGEN_CACHE", str(tmp_path))
    monkeypatch.setattr(compiled, "MAX_PROGRAMS", 2)
    sources = [f"number = {i}\n" for i in range(4)]
    for source in sources:
        code_file = tmp_path / "programs" / "__pycache__" / f"{compiled.load_source(source).__name__}.sample.nbc"
        code_file.parent.mkdir(exist_ok=True)
        code_file.write_bytes(b"machine code")

    programs = sorted((tmp_path / "programs").glob("*.py"), key=lambda path: path.read_text("utf-8"))
    assert [path.read_text("utf-8") for path in programs] == sources[2:]
    machine_code = (tmp_path / "programs" / "__pycache__").glob("*.nbc")
    assert {path.name.partition(".")[0] for path in machine_code} == {path.stem for path in programs}


def test_compiling_an_unsupported_model_raises(reviews: list[str]) -> None:
    pytest.importorskip("numba")
    first = revgen.create("ngram-char", order=1)
    first.fit(reviews[:3], progress=False)
    second = revgen.create("ngram-char", order=2, tokenizer=first.tokenizer)
    second.fit(reviews[:3], progress=False)
    mixture = revgen.mix([first, second])

    with pytest.raises(OptionError, match="mixture-char cannot be compiled"):
        mixture.compile()

    assert mixture.generate("a", max_tokens=3, seed=1)


def test_error_without_numba_says_how_to_install_it(reviews: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of("lstm", reviews)
    monkeypatch.setitem(sys.modules, "numba", None)
    monkeypatch.delitem(sys.modules, "revgen.networks.kernels", raising=False)

    with pytest.raises(MissingExtraError, match="needs Numba, which is not installed: pip install numba"):
        model.compile()

    assert model.generate("a", max_tokens=3)


def run_python(code: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        check=False,
        text=True,
        env=os.environ | {"PYTHONPATH": str(Path(revgen.__file__).parents[1])} | environment,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_compiling_works_without_a_writable_cache_directory() -> None:
    pytest.importorskip("numba")
    code = """
import revgen
from numba.core import caching
for kind in vars(caching).values():
    if isinstance(kind, type) and issubclass(kind, caching.CacheImpl):
        kind._locator_classes = []  # as if neither the package nor the home directory were writable
model = revgen.create("ngram-char", order=3)
model.fit(["the song of the band. " * 40], progress=False)
print(model.compile().generate("the ", seed=1, max_tokens=5))
"""
    assert run_python(code).startswith("the ")


def test_error_for_a_broken_numba_does_not_say_that_it_is_missing(tmp_path: Path) -> None:
    (tmp_path / "numba.py").write_text('raise ImportError("Numba needs another NumPy")\n')
    code = f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
import revgen
try:
    revgen.load("gru-char").compile()
except revgen.MissingExtraError as error:
    print(error)
assert revgen.load("gru-char").generate("the ", max_tokens=3)
"""
    shown = run_python(code)
    assert "Numba needs another NumPy" in shown and "pip install" not in shown
