"""The exported file: what it contains is data, it is small, and a model that cannot be exported says why."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from browser_models import Engine, model_of
from chromium import read_log
from torch import nn
from toys import alphabet, chars

import revgen
from revgen import OptionError, RevgenError
from revgen.registry import cells
from revgen.tokenizers import CharTokenizer, WordTokenizer

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

ATTACK = "</script></title><script>window.attacked = 1</script><img src=x onerror='window.attacked = 1'>"


def test_names_and_texts_of_a_model_cannot_run_as_code(browser: Chrome, tmp_path: Path) -> None:
    vocabulary = (*chars("ab ").vocabulary, "<!--", ATTACK)
    model: Any = revgen.create("ngram-word", tokenizer=WordTokenizer(vocabulary))
    model.fit(["a b a"], progress=False)
    model.architecture = ATTACK
    model.metadata = dict.fromkeys(("description", "data", "licence"), ATTACK) | {"samples": [ATTACK]}
    model.metadata["training"] = {"epochs": ATTACK}

    engine = Engine(browser, model, tmp_path)

    assert engine.run("return window.attacked ?? null;") is None
    assert engine.run("return model.name;") == f"{ATTACK}-word"
    assert engine.run("return model.tokenizer.texts;")[-1] == ATTACK
    assert engine.run("return document.querySelectorAll('script, img').length;") == 2


def test_security_policy_allows_only_the_scripts_of_the_page(browser: Chrome, tmp_path: Path) -> None:
    engine = Engine(browser, model_of("ngram", "char", order=2), tmp_path)
    text = engine.path.read_text("utf-8")

    attacked = engine.run(
        """const script = document.createElement("script");
           script.textContent = "window.attacked = 1";
           document.body.append(script);
           return window.attacked ?? null;"""
    )

    assert attacked is None
    assert "unsafe-inline" not in text
    assert not re.search(r"""(src|href)=["']?(https?:|//)""", text)
    assert any("Content Security Policy" in entry["message"] for entry in read_log(browser, "browser"))


def test_file_holds_the_weights_in_float16_and_little_else(tmp_path: Path) -> None:
    model = revgen.load("lstm-char")

    path = model.export(tmp_path / "page.html")

    assert path == tmp_path / "page.html"
    assert path.stat().st_size < 1.4 * 2 * model.num_parameters + 200_000
    assert [file.name for file in tmp_path.iterdir()] == ["page.html"]


def test_title_may_be_any_text(tmp_path: Path) -> None:
    text = revgen.load("rnn-char").export(tmp_path / "page.html", title="\ud800</title>").read_text("utf-8")

    assert "<title>?&lt;/title&gt;</title>" in text


class Module(nn.Module):
    """A cell that needs PyTorch."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.linear = nn.Linear(input_size, hidden_size)

    def forward(self, x: Any, state: Any) -> Any:
        return self.linear(x), state


class Branching(revgen.Cell):
    """A cell that looks at a value."""

    def param_shapes(self) -> dict[str, tuple[int, ...]]:
        return {"W": (self.input_size, self.hidden_size)}

    def initial_state(self, batch: int, zeros: Any) -> Any:
        return zeros((batch, self.hidden_size))

    def step(self, p: Any, z: Any, h: Any) -> Any:
        return (z, h) if z[0, 0] > 0 else (h, z)

    def project(self, p: Any, x: Any) -> Any:
        return x @ p.W


@pytest.mark.parametrize(
    ("cell", "reason"), [(Module, "PyTorch only"), (Branching, "depends on the value of an array")]
)
def test_cell_that_cannot_be_traced_says_why(tmp_path: Path, cell: type, reason: str) -> None:
    revgen.register_cell("opaque")(cell)
    try:
        model: Any = revgen.create("opaque-char", hidden_size=8, tokenizer=chars("ab"))
        model.prepare(model.tokenizer, 0)
        with pytest.raises(OptionError, match=f"opaque-char cannot be exported.*{reason}"):
            model.export(tmp_path / "page.html")
    finally:
        cells.unregister("opaque")
    assert not list(tmp_path.iterdir())


def test_model_whose_logits_are_changed_in_python_is_not_exported(tmp_path: Path) -> None:
    kind = type(model_of("mlp", "char"))

    class Sharper(kind):  # type: ignore[misc, valid-type]
        def forward(self, tokens: Any, state: Any) -> Any:
            logits, state = super().forward(tokens, state)
            return logits * 2, state

    model = model_of("mlp", "char")
    sharper = Sharper(model.architecture, model.level, model.config, model.tokenizer)
    sharper.weights = model.weights

    with pytest.raises(OptionError, match="not those of its network alone"):
        sharper.export(tmp_path / "page.html")


def test_architecture_and_tokenizer_of_your_own_say_that_they_cannot_be_exported(tmp_path: Path) -> None:
    class Custom(CharTokenizer):
        level = "custom"

    model = model_of("ngram", "char", order=2)
    custom = type(model)("ngram", "custom", dataclasses.replace(model.config), Custom(model.tokenizer.vocabulary))
    custom.weights = model.weights

    with pytest.raises(OptionError, match="the tokenizer custom has no version in JavaScript"):
        custom.export(tmp_path / "page.html")
    with pytest.raises(OptionError, match="table-char cannot be exported"):
        alphabet().export(tmp_path / "page.html")


def test_weights_that_float16_cannot_hold_are_not_exported(tmp_path: Path) -> None:
    model = model_of("elman", "char")
    model.weights = model.weights | {"bias": np.full(len(model.tokenizer), 1e5, np.float32)}

    with pytest.raises(OptionError, match="not finite numbers as float16"):
        model.export(tmp_path / "page.html")


def test_page_that_cannot_be_written_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(RevgenError, match=r"missing.*page\.html: could not write the page"):
        model_of("ngram", "char", order=2).export(tmp_path / "missing" / "page.html")
