"""Tests of surprisal and attention weights: their values, text, HTML and figures."""

from __future__ import annotations

import json
import re
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import revgen
from revgen import LanguageModel, OptionError
from revgen.cli import main
from revgen.evaluation.coloring import FULL_COLOR, surprisal_color
from revgen.ops import log_softmax, softmax

TEXT = "the song,\nis <b>over & out"


@pytest.fixture(scope="module", params=["lstm-char", "kneser-ney-word", "gru-subword"])
def model(request: pytest.FixtureRequest, reviews: list[str]) -> LanguageModel:
    """A model of each tokenizer level."""
    options: dict[str, Any] = {} if "kneser" in request.param else {"hidden_size": 16, "num_layers": 1}
    model = revgen.create(request.param, **options)
    epochs: dict[str, Any] = {"epochs": 1} if options else {}
    model.fit([*reviews[:40], "<b> & " * 9], progress=False, **epochs)
    return model


def test_surprisal_is_computed_from_the_predicted_distribution(model: LanguageModel) -> None:
    explanation = model.explain(TEXT, top=3)

    tokenizer = model.tokenizer
    ids = np.array([tokenizer.bos_id, *tokenizer.encode(TEXT), tokenizer.eos_id])
    logprobs = log_softmax(model.forward(ids[:-1, None], model.initial_state(1))[0][:, 0].astype(float))
    assert len(explanation) == len(ids) - 1
    np.testing.assert_allclose([t.logprob for t in explanation], model.score(TEXT).logprobs, atol=1e-4)
    for row, target, token in zip(logprobs, ids[1:], explanation, strict=True):
        assert token.token == tokenizer.vocabulary[target]
        finite = row[np.isfinite(row)]
        assert token.entropy == pytest.approx(-(np.exp(finite) * finite).sum(), abs=1e-4)
        assert token.rank == 1 + (row > row[target]).sum()
        assert [p for _, p in token.alternatives] == pytest.approx(sorted(np.exp(row))[::-1][:3], abs=1e-6)
        assert token.alternatives[0][0] == tokenizer.vocabulary[int(row.argmax())]
    assert "".join(token.text for token in explanation) == TEXT


def test_the_data_frame_has_one_row_for_each_token(model: LanguageModel) -> None:
    frame = model.explain(TEXT, top=2).to_frame()

    assert list(frame.columns) == ["token", "logprob", "entropy", "rank", "alternatives"]
    assert frame["logprob"].sum() == pytest.approx(model.score(TEXT).total, abs=1e-3)
    assert len(str(model.explain(TEXT)).splitlines()) == len(frame) + 2


def test_the_terminal_text_is_the_same_text_with_colors(model: LanguageModel) -> None:
    text = model.explain(TEXT).to_terminal()

    assert re.sub("\x1b\\[[0-9;]*m", "", text) == TEXT
    assert "\x1b[" in text.splitlines()[1], "each line has its own colors"


def test_html_has_tooltips_and_escapes_tags_in_the_text(model: LanguageModel) -> None:
    explanation = model.explain(TEXT)
    page = explanation.to_html()

    assert "<b>" not in page
    assert unescape(re.sub("<[^>]*>", "", page)) == TEXT + "⏹"
    assert page.count("<span") == len(explanation) == page.count("title=")
    assert explanation._repr_html_() == page


def test_a_more_surprising_token_has_a_stronger_color(small_model: LanguageModel) -> None:
    blues = [int(b) for b in re.findall(r"rgb\(\d+ \d+ (\d+)\)", small_model.explain("the thX").to_html())]

    assert blues[-2] < blues[1]


def test_unknown_and_impossible_tokens_are_explained(reviews: list[str]) -> None:
    model = revgen.create("ngram-char", order=4)
    model.fit(reviews[:20], progress=False)

    explanation = model.explain("the qqqq 漢")

    assert -np.inf in [token.logprob for token in explanation]
    assert all(np.isfinite(token.entropy) for token in explanation)
    assert "rank" in str(explanation) and explanation.to_html() and explanation.to_terminal()


def test_a_long_text_has_the_same_logprobs_as_score(small_model: LanguageModel, reviews: list[str]) -> None:
    text = " ".join(reviews)[:6000]

    logprobs = [token.logprob for token in small_model.explain(text, top=1)]

    np.testing.assert_allclose(logprobs, small_model.score(text).logprobs, atol=1e-3)


@pytest.mark.parametrize(
    ("text", "top", "name"), [(3, 1, "text"), ("a", -1, "top"), ("a", 0, "top"), ("a", "x", "top")]
)
def test_an_invalid_argument_is_named_in_the_error(small_model: LanguageModel, text: Any, top: Any, name: str) -> None:
    with pytest.raises(OptionError, match=f"^{name} must be"):
        small_model.explain(text, top=top)


# Attention


@pytest.fixture(scope="module")
def transformer(reviews: list[str]) -> LanguageModel:
    """A small transformer with a context of 16 tokens."""
    model = revgen.create("transformer-char", hidden_size=16, num_layers=2, num_heads=2, context=16)
    model.fit(reviews[:8], epochs=1, progress=False)
    return model


@pytest.fixture(scope="module")
def textgenrnn(reviews: list[str]) -> LanguageModel:
    """A small textgenrnn with attention weights that are not zero."""
    model = revgen.create("textgenrnn-char", hidden_size=12, num_layers=1)
    model.fit(reviews[:8], labels=["a", "b"] * 4, epochs=1, progress=False)
    model.weights["attention"] = np.random.default_rng(0).normal(0, 1, model.weights["attention"].shape).astype("f")
    model._clear_caches()
    return model


def test_transformer_attention_covers_exactly_its_context(transformer: LanguageModel) -> None:
    text = "the song is over and the band goes home"

    attention = transformer.attention(text)

    size = len(text) + 1
    assert attention.tokens == ("<s>", *text)
    assert attention.weights.shape == (2, 2, size, size)
    np.testing.assert_allclose(attention.weights.sum(-1), 1, atol=1e-5)
    distance = np.arange(size)[:, None] - np.arange(size)
    in_context = (distance >= 0) & (distance < 16)
    assert (attention.weights[:, :, ~in_context] == 0).all() and (attention.weights[:, :, in_context] > 0).all()
    before = transformer.score(text).total
    transformer._derived["numpy_network"] = None  # as on a device other than the CPU
    np.testing.assert_allclose(transformer.attention(text).weights, attention.weights, atol=1e-5)
    transformer._clear_caches()
    assert transformer.score(text).total == before


def test_textgenrnn_averages_its_features_with_its_attention_weights(textgenrnn: LanguageModel) -> None:
    text = "the song is over"
    tokenizer = textgenrnn.tokenizer

    attention = textgenrnn.attention(text, label="b")

    assert attention.weights.shape == (1, 1, len(text) + 1, len(text) + 1)
    ids = np.array([tokenizer.bos_id, *tokenizer.encode(text)])[:, None] + textgenrnn.label_offset("b")
    features, _ = textgenrnn.features(ids, textgenrnn.initial_state(1))
    averages, x = np.split(features[:, 0], 2, -1)
    np.testing.assert_allclose(attention.weights[0, 0] @ x, averages, atol=1e-5)
    np.testing.assert_allclose(attention.weights[0, 0, -1], softmax(x @ textgenrnn.weights["attention"]), atol=1e-5)


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_attention_is_saved_as_a_figure(
    transformer: LanguageModel, textgenrnn: LanguageModel, tmp_path: Path, suffix: str
) -> None:
    for model, count in ((transformer, 4), (textgenrnn, 1)):
        attention = model.attention("the $x$ song\n")
        path = attention.save(tmp_path / f"attention.{suffix}")
        assert path.stat().st_size > 1000
        assert len(attention.plot().axes) == count


def test_an_unknown_file_format_is_an_error(transformer: LanguageModel, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"attention\.nothing: could not save the figure"):
        transformer.attention("a").save(tmp_path / "attention.nothing")


def test_a_model_without_attention_raises_an_error(small_model: LanguageModel) -> None:
    with pytest.raises(OptionError, match="lstm-char has no attention weights"):
        small_model.attention("a text")


# The command line


def test_the_explain_command_prints_and_saves_the_explanation(
    transformer: LanguageModel, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = str(transformer.save(tmp_path / "model"))
    page, figure = tmp_path / "page.html", tmp_path / "attention.png"
    explanation = transformer.explain("the song", top=2)
    arguments = ["explain", directory, "the song", "--top", "2"]

    assert main([*arguments, "--html", str(page), "--attention", str(figure)]) == 0
    assert capsys.readouterr().out == f"{explanation}\n"
    assert explanation.to_html() in page.read_text("utf-8") and figure.stat().st_size > 1000
    assert main([*arguments, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["token"] for row in rows] == [*"the song", "</s>"]
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert main(arguments) == 0
    plain, colored = (
        re.sub(r"\x1b\[[\d;]*m", "", text) for text in (explanation.to_terminal(), capsys.readouterr().out)
    )
    assert colored.startswith(plain) and "alternatives" in colored


def test_a_surprisal_that_is_no_number_has_the_full_color() -> None:
    assert surprisal_color(float("nan")) == surprisal_color(float("inf")) == FULL_COLOR
