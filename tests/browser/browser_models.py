"""Small models for the tests of exported pages, and the engine of such a page."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from chromium import open_page
from numpy.typing import NDArray

import revgen
from revgen import LanguageModel
from revgen.registry import tokenizers
from revgen.tokenizers import Tokenizer

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

COUNTED = {"ngram": {"order": 3}, "kneser-ney": {"order": 4}}
"""The options of the architectures that count n-grams."""
TOKENIZER_OPTIONS = {"subword": {"vocab_size": 400}}


@cache
def texts() -> list[str]:
    """Return a few documents."""
    return list(revgen.datasets.load("reviews"))[:12]


@cache
def tokenizer_of(level: str) -> Tokenizer:
    """Return a tokenizer that is trained on ``texts``."""
    return tokenizers.get(level).train(texts(), **TOKENIZER_OPTIONS.get(level, {}))  # type: ignore[no-any-return]


def model_of(architecture: str, level: str, **options: Any) -> LanguageModel:
    """Return a small model: counted, or a network with noise on all weights, so that every weight matters."""
    sizes = COUNTED.get(architecture) or {"hidden_size": 24}
    model: Any = revgen.create(f"{architecture}-{level}", tokenizer=tokenizer_of(level), **{**sizes, **options})
    if architecture in COUNTED:
        model.fit(texts(), progress=False)
    else:
        model.prepare(model.tokenizer, 0)
        add_noise(model)
    return rounded(model)


def add_noise(model: LanguageModel) -> None:
    """Add noise to all weights."""
    rng = np.random.default_rng(0)
    model.weights = {name: array + rng.normal(0, 0.1, array.shape) for name, array in model.weights.items()}


def rounded(model: LanguageModel) -> LanguageModel:
    """Round the weights to float16, as in a page."""
    model.weights = {
        name: array.astype(np.float16).astype(np.float32) if array.dtype.kind == "f" else array
        for name, array in model.weights.items()
    }
    return model


class Engine:
    """The engine of the page of a model."""

    def __init__(self, browser: Chrome, model: LanguageModel, directory: Path) -> None:
        self.model = model
        self.browser = browser
        self.path = model.export(directory / "page.html")
        open_page(browser, self.path)

    def run(self, code: str, *arguments: Any) -> Any:
        """Run the code of a function, in which ``model`` is the model and ``a``, ``b``, ``c`` are the arguments."""
        return self.browser.execute_script(
            f"const {{ model }} = window.revgen, [a, b, c] = arguments; {code}", *arguments
        )

    def logits(self, ids: list[int]) -> NDArray[np.float64]:
        """Return the logits after each of these ids."""
        rows = self.run("return model.logits(a).map((row) => Array.from(row));", ids)  # JSON has null for -Infinity
        return np.array([[-np.inf if x is None else x for x in row] for row in rows])

    def generate(
        self, prompt: str = "", *, max_tokens: int = 100, label: Any = None, seed: int = 1, **options: Any
    ) -> str:
        """Return the prompt and its continuation; the options have the names of the engine."""
        text: str = self.run(
            """const session = model.start({ prompt: a, label: b.label, seed: b.seed });
               for (let i = 0; i < b.maxTokens && !session.done; i++) {
                 session.next({ ...c, remaining: b.maxTokens - i });
               }
               return session.text;""",
            prompt,
            {"label": label, "seed": seed, "maxTokens": max_tokens},
            options,
        )
        return prompt + text


def assert_same(engine: Engine, label: Any = None) -> None:
    """Compare the logits of 200 tokens, and the most likely text, with NumPy."""
    model, rng = engine.model, np.random.default_rng(0)
    ids = np.array([model.tokenizer.bos_id, *rng.integers(3, len(model.tokenizer), 199)]) + model.label_offset(label)
    expected = model.forward(ids[:, None], model.initial_state(1))[0][:, 0]
    np.testing.assert_allclose(engine.logits(ids.tolist()), expected, rtol=0, atol=1e-4)
    for prompt in ("", "the so"):
        text = model.generate(prompt, temperature=0, max_tokens=100, label=label)
        assert engine.generate(prompt, temperature=0, label=label) == text
