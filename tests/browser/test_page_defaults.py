"""Defaults of a model and ends of sentences in its page, compared with Python."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from browser_models import Engine
from chromium import Page

import revgen
from revgen.generation.sentences import find_sentence_end

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

DOCUMENTS = [
    "It rained. « Non ! » dit-il. Mr. Fox left at 3.5 miles an hour. He said “Go!” and ran… Then J. K. came. I. No?",
    "床前明月光，疑是地上霜。他说：「去！」然后走了。« Oui. » Fin. e.g. this. So... it ended.\nAnd a line",
]
WRITE = """
const version = { request: { prompt: a, label: null, seed: 1 }, tokens: [], target: b.target, minimum: b.minimum };
const request = { temperature: 0, topP: 1, isSentence: true };
for (const token of revgen.app.writer.write(version, () => request)) if (token) version.tokens.push(token);
return a + version.tokens.map(({ text }) => text).join("");
"""


def model_of_sentences(level: str) -> Any:
    """Return a model that knows ``DOCUMENTS`` by heart."""
    model = revgen.create(f"ngram-{level}", order=7, tokenizer={"vocab_size": 400} if level == "subword" else {})
    model.fit([*DOCUMENTS] * 20, progress=False)
    return model


@pytest.mark.parametrize("level", ["char", "word", "subword"])
def test_the_page_ends_a_text_where_python_does(level: str, browser: Chrome, tmp_path: Path) -> None:
    engine = Engine(browser, model_of_sentences(level), tmp_path)

    for prompt in ("It", "« N", "Mr.", "床前", "Fin.", "So"):
        for minimum, target in ((0, 100), (3, 40), (8, 12), (11, 30), (25, 300), (7, 7)):
            options: dict[str, Any] = {"min_tokens": minimum, "max_tokens": target}
            text = engine.model.generate(prompt, temperature=0, stop_at_sentence=True, **options)
            assert engine.run(WRITE, prompt, {"target": target, "minimum": minimum}) == text, options


def test_sentences_end_in_javascript_where_they_do_in_python(browser: Chrome, tmp_path: Path) -> None:
    engine = Engine(browser, model_of_sentences("char"), tmp_path)
    texts = [text[:end] for text in DOCUMENTS for end in range(1, len(text))]

    for is_final in (False, True):
        code = f"return a.map((text) => findSentenceEnd(text, 0, {json.dumps(is_final)}));"
        assert engine.run(code, texts) == [find_sentence_end(text, is_final=is_final) for text in texts]


def test_the_page_begins_with_the_defaults_of_the_model(browser: Chrome, tmp_path: Path) -> None:
    model = model_of_sentences("char")
    model.generation_config = {
        "prompt": "It ",
        "temperature": 0.0,
        "top_p": 0.9,
        "min_tokens": 12,
        "max_tokens": 120,
        "stop_at_sentence": True,
    }
    page = Page(browser, model.export(tmp_path / "page.html"))

    values = {name: page[name].get_property("value") for name in ("prompt", "temperature", "top-p", "length", "ending")}
    assert values == {
        "prompt": "It ",
        "temperature": "0",
        "top-p": "0.9",
        "length": "120",
        "ending": "at a sentence",
    }
    page.click("generate")
    assert page.text == model.generate()
    page.click("continue")
    assert page.text == model.generate() + model.generate(model.generate())[len(model.generate()) :]
    page.fill(ending="anywhere", length=90)
    page.click("generate")
    assert page.text == model.generate(max_tokens=90, stop_at_sentence=False)


def test_the_page_filters_like_the_model(browser: Chrome, tmp_path: Path) -> None:
    model = model_of_sentences("char")
    model.generation_config = {"min_p": 1.0, "temperature": 1.5, "top_k": 3}
    page = Page(browser, model.export(tmp_path / "page.html"))

    assert page.generate("It r", length=30) == model.generate("It r", max_tokens=30, temperature=0)


def test_the_page_bans_the_tokens_that_the_model_bans_by_default(browser: Chrome, tmp_path: Path) -> None:
    model = model_of_sentences("char")
    assert "r" in model.generate("It ", max_tokens=30, temperature=0)
    model.generation_config = {"temperature": 0.0, "banned_tokens": ["r"]}
    page = Page(browser, model.export(tmp_path / "page.html"))

    text = page.generate("It ", length=30)

    assert text == model.generate("It ", max_tokens=30)
    assert "r" not in text
