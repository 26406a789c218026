"""Tests of how objects look in a notebook: they show what they should, and no text becomes markup."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import revgen
from revgen.comparison.compare import Comparison
from revgen.comparison.results import ModelResult
from revgen.display.html_tables import html_facts, html_table, to_html
from revgen.evaluation.attention import Attention
from revgen.history import EpochMetrics, History
from revgen.zoo import ModelInfo, ModelTable

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>&lt;$\\href{javascript:alert(1)}{x}$"
SVG_TAGS = {"svg", "g", "path", "rect", "text", "tspan", "title", "style", "defs", "use", "polygon", "polyline"}
SVG_TAGS |= {"clippath", "circle", "tspan"}
TAGS = {"div", "p", "span", "strong", "table", "thead", "tbody", "tr", "th", "td", "blockquote", "details", "summary"}
TAGS |= {"mark"} | SVG_TAGS


class Markup(HTMLParser):
    """The tags, the attributes and the text of some HTML."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def text_of(shown: Any) -> str:
    """Return the text of an object's HTML, after checking that it has only harmless markup and no formulas."""
    html = shown._repr_html_()
    html.encode("utf-8")
    markup = Markup(html)
    tags = {tag for tag, _ in markup.elements}
    attributes = {name for _, attributes in markup.elements for name in attributes}
    assert tags <= TAGS
    assert not [name for name in attributes if name.startswith("on") or name in ("href", "src", "action")]
    assert "mathjax_ignore" in str(markup.elements[0][1]["class"])
    return markup.text


@pytest.fixture(scope="module")
def hostile_model() -> revgen.LanguageModel:
    """A small model whose vocabulary, labels and metadata come from a stranger."""
    model = revgen.create("textgenrnn-word", hidden_size=8, tokenizer={"min_count": 1})
    model.fit([f"{HOSTILE} the song", "the band"] * 10, labels=[HOSTILE, "b"] * 10, epochs=1, progress=False)
    model.metadata |= {
        "description": HOSTILE,
        "data": {"source": HOSTILE},
        "licence": [HOSTILE],
        "samples": [f"{HOSTILE}\ud800"],
        "evaluation": {HOSTILE: 1.25, "nats_per_char": 1.5},
    }
    return model


def test_a_model_shows_its_sizes_score_sample_and_graph(small_model: revgen.LanguageModel) -> None:
    text = text_of(small_model)

    assert small_model.name in text
    assert f"{small_model.num_parameters:,} parameters" in text
    assert f"{len(small_model.tokenizer):,} tokens" in text
    assert "network" in text and "one time step of a cell" in text and "logits" in text
    assert small_model.generate("", max_tokens=150, seed=0) in text


def test_a_pretrained_model_shows_its_score_and_its_own_sample() -> None:
    model = revgen.load("rnn-char")
    text = text_of(model)

    assert f"{model.metadata['evaluation']['nats_per_char']:.5g}" in text
    assert model.metadata["samples"][0] in text


@pytest.mark.parametrize("name", [name for name in revgen.list_models("*-char") if name != "transformer-char"])
def test_a_model_that_is_not_fitted_says_so(name: str) -> None:
    assert "not fitted" in text_of(revgen.create(name))


@pytest.mark.parametrize("name", ["kneser-ney-char", "mlp-char", "transformer-char"])
def test_every_kind_of_model_has_a_card(name: str, reviews: list[str]) -> None:
    options: dict[str, Any] = {} if name == "kneser-ney-char" else {"hidden_size": 16}
    budget: dict[str, Any] = {"epochs": 1} if options else {}
    model = revgen.create(name, **options)
    model.fit(reviews[:10], progress=False, **budget)

    assert "logits" in text_of(model)


def test_the_card_of_a_mixture_has_the_weights_of_its_models(reviews: list[str]) -> None:
    models = [revgen.create("kneser-ney-char", order=order) for order in (1, 2)]
    models[0].fit(reviews[:10])
    models[1] = revgen.create("kneser-ney-char", order=2, tokenizer=models[0].tokenizer)
    models[1].fit(reviews[:10])
    mixture = revgen.mix(models)
    mixture.fit(reviews[10:12])

    assert "mixture" in text_of(mixture)


def test_the_metadata_of_a_strange_model_is_shown_as_text(hostile_model: revgen.LanguageModel) -> None:
    text = text_of(hostile_model)

    assert text.count(HOSTILE) >= 4  # description, licence, sample, name of a metric
    assert HOSTILE in text_of(hostile_model).replace("�", "?")


def test_scores_and_explanations_of_strange_tokens_are_shown_as_text(hostile_model: revgen.LanguageModel) -> None:
    assert "alert" in text_of(hostile_model.score(HOSTILE))
    assert "<script>" in text_of(hostile_model.explain(HOSTILE))


def test_a_corpus_shows_its_sources_and_how_its_documents_begin(tmp_path: Path) -> None:
    (tmp_path / "one.txt").write_text(f"{HOSTILE} and the rest", "utf-8")
    (tmp_path / "two.txt").write_text("x" * 1000, "utf-8")
    corpus = revgen.read(tmp_path)
    text = text_of(corpus)

    assert "2 files" in text and f"{HOSTILE} and the rest" in text
    assert "x" * 200 + "…" in text and "x" * 201 not in text


def test_showing_a_corpus_does_not_consume_an_iterator() -> None:
    corpus = revgen.read(iter(["one text", "another"]))

    assert "one text" not in text_of(corpus)
    assert list(corpus) == ["one text", "another"]


def test_a_corpus_that_cannot_be_read_shows_the_error(tmp_path: Path) -> None:
    (tmp_path / "damaged.jsonl").write_text("{<script>", "utf-8")

    assert "damaged.jsonl" in text_of(revgen.read(tmp_path / "damaged.jsonl"))


def test_a_history_shows_its_epochs_and_notes() -> None:
    epoch = EpochMetrics(1, 2.5, 0.01, 1000.0, 3.0, nats_per_char=1.25, best=True, sample=HOSTILE)
    text = text_of(History([epoch], notes=[HOSTILE]))

    assert "1.2500" in text and "nats per char" in text and HOSTILE in text


def test_an_evaluation_shows_nats_bits_and_perplexity(small_model: revgen.LanguageModel) -> None:
    evaluation = small_model.evaluate(["the song"])
    text = text_of(evaluation)

    assert "nats per character" in text and f"{evaluation.bits_per_char:.4f}" in text and "perplexity" in text


def test_a_score_shows_every_token_and_the_total(small_model: revgen.LanguageModel) -> None:
    score = small_model.score("the song")
    text = text_of(score)

    assert text.startswith("the song⏹") and f"{-score.total:.2f} nats" in text
    assert score._repr_html_().count("title=") == len(score.logprobs)


def test_the_table_of_models_leaves_out_empty_columns() -> None:
    assert "parameters" in text_of(revgen.models("lstm-char"))
    assert "parameters" not in text_of(revgen.models("elman-char"))
    assert HOSTILE in text_of(ModelTable([ModelInfo(HOSTILE, HOSTILE, pretrained=False)]))


def test_a_comparison_shows_its_table_charts_samples_and_errors() -> None:
    rows = [
        ModelResult(HOSTILE, parameters=12, nats_per_char=1.5, sample=HOSTILE, history=((1.0, 1.5),)),
        ModelResult("broken", error=HOSTILE),
    ]
    comparison = Comparison(rows, [], {})
    text = text_of(comparison)

    assert text.count(HOSTILE) >= 4  # the names in the table and above the sample, the sample, and the error
    assert "<svg" in comparison._repr_html_()


def test_attention_is_shown_as_an_image() -> None:
    html = Attention((HOSTILE, "b"), np.full((1, 1, 2, 2), 0.5))._repr_html_() or ""
    ((tag, attributes),) = Markup(html).elements

    assert tag == "img" and set(attributes) == {"alt", "src"}
    assert str(attributes["src"]).startswith("data:image/png;base64,")


def test_tables_align_numbers_and_escape_names() -> None:
    table = html_table([{"a<b": 1, "name": "x"}, {"a<b": 2.5, "name": None}], ["a<b", "name"])

    assert '<th style="text-align:right">a&lt;b</th>' in table
    assert '<td style="text-align:left">x</td>' in table
    assert "<script>" not in html_facts({HOSTILE: HOSTILE})
    assert to_html(True) == "yes" and to_html(False) == to_html(None) == ""
    assert len(to_html("&" * 100_000)) < 20_000
