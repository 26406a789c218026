"""Tests of the comparison: its numbers, its report, and its charts and graphs."""

from __future__ import annotations

import functools
import json
import signal
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, strategies as st

import revgen
from revgen.cli import main
from revgen.comparison.compare import Comparison, compare, parse_spec, split
from revgen.comparison.report import columns_of, mark_spans
from revgen.comparison.results import ModelResult
from revgen.display.formatting import format_duration
from revgen.errors import CorpusError, MissingExtraError, OptionError, TrainingError, UnknownNameError
from revgen.novelty import SuffixIndex, find_copies

NAMES = ["ngram-char:order=8", "kneser-ney-char:order=4", "elman-char:hidden_size=8", "gru-char:hidden_size=8"]
VOID_TAGS = {"meta", "br", "link", "img", "hr", "input"}
NAMESPACES = ("http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink")


@pytest.fixture(scope="module")
def texts() -> list[str]:
    return list(revgen.datasets.load("reviews"))[:30]


@pytest.fixture(scope="module")
def comparison(texts: list[str]) -> Comparison:
    return compare(texts, NAMES, epochs=1, max_tokens=120, max_order=4, progress=False)


@pytest.fixture(scope="module")
def report(comparison: Comparison, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return comparison.save(tmp_path_factory.mktemp("report"))


# The numbers


def test_each_row_has_the_numbers_of_a_model_trained_separately(
    texts: list[str], comparison: Comparison, report: Path
) -> None:
    content = json.loads((report / "report.json").read_text("utf-8"))
    train, held_out = split(revgen.read(texts), 0.1, 0, {})
    for name, result in zip(NAMES, content["models"], strict=True):
        model: Any = parse_spec(name)
        model.fit(train, held_out, seed=0, progress=False, **({"epochs": 1} if "hidden_size" in name else {}))
        evaluation = model.evaluate(held_out)
        sample = model.generate("the ", max_tokens=120, seed=0)
        copies = find_copies(sample, train)
        expected = [model.num_parameters, 1, sample, copies.longest, copies.fraction]
        assert [result[n] for n in ("parameters", "epochs", "sample", "longest_copy", "copied_fraction")] == expected
        if np.isfinite(evaluation.nats_per_char):
            assert result["nats_per_char"] == pytest.approx(evaluation.nats_per_char)
            assert result["perplexity"] == pytest.approx(evaluation.perplexity)
        else:
            assert result["nats_per_char"] is None  # JSON has no infinity
        assert result["seconds"] > 0 and result["chars_per_second"] > 0 and result["error"] is None
    assert content["settings"]["training"]["characters"] == sum(map(len, train))
    assert comparison.to_dicts()[0]["copied_fraction"] > 0.2, "n-grams of order 8 copy much of such a small text"


def test_the_split_depends_only_on_the_seed_and_holds_out_whole_documents(texts: list[str]) -> None:
    train, held_out = split(revgen.read(texts), 0.1, 3, {})
    assert sorted(train + held_out) == sorted(texts)
    assert 0.05 < sum(map(len, held_out)) / sum(map(len, texts)) < 0.15
    assert split(revgen.read(texts), 0.1, 3, {}) == (train, held_out) != split(revgen.read(texts), 0.1, 4, {})
    assert split(revgen.read(texts[:9]), texts[20:22], 0, {}) == (texts[:9], texts[20:22])
    train, held_out = split(revgen.read(iter(["a long text of one document " * 9])), 0.1, 0, {})
    assert train[0] + held_out[0] == "a long text of one document " * 9


def test_the_loss_on_the_training_text_falls_with_the_order(comparison: Comparison) -> None:
    assert [point.order for point in comparison.orders] == [1, 2, 3, 4]
    losses = [point.train_nats_per_char for point in comparison.orders]
    assert losses == sorted(losses, reverse=True)
    kneser_ney = comparison[1]
    assert comparison.orders[3].valid_nats_per_char == pytest.approx(kneser_ney.nats_per_char)


def test_a_comparison_prints_iterates_and_converts_to_a_data_frame(comparison: Comparison) -> None:
    assert [row.model for row in comparison] == NAMES and len(comparison) == len(NAMES)
    lines = str(comparison).splitlines()
    assert len(lines) == 2 + len(NAMES) and "error" not in lines[0]
    assert list(comparison.to_frame()["model"]) == NAMES


def test_adaptive_figures_have_columns_of_their_own(texts: list[str], tmp_path: Path) -> None:
    comparison = compare(
        texts,
        ["kneser-ney-char:order=5", "gru-char:hidden_size=16"],
        epochs=1,
        max_order=0,
        adaptive=True,
        max_tokens=20,
        progress=False,
    )
    counts, network = comparison
    assert counts.nats_with_document_state is not None and counts.nats_per_char is not None
    assert counts.nats_with_document_state < counts.nats_per_char
    assert counts.adaptation == "fixed weights" and counts.nats_with_adapted_weights is None
    assert network.nats_with_adapted_weights is not None and network.nats_with_document_state is not None
    assert network.nats_with_adapted_weights < network.nats_with_document_state
    assert "nats_with_document_state" in str(comparison)
    comparison.save(tmp_path)
    content = json.loads((tmp_path / "report.json").read_text("utf-8"))
    assert content["models"][1]["nats_with_adapted_weights"] == network.nats_with_adapted_weights
    for file in ("report.html", "report.md"):
        text = (tmp_path / file).read_text("utf-8")
        assert "with document state" in text and f"{network.nats_with_adapted_weights:.4f}" in text


def test_the_column_of_adaptation_is_shown_if_a_model_adapts_by_itself() -> None:
    rows = [ModelResult("gru-char", adaptation="fixed weights"), ModelResult("cm-char", adaptation="document state")]
    assert "adaptation" in Comparison(rows, [], {}).columns


def test_columns_of_adaptive_figures_are_shown_only_if_they_were_measured(comparison: Comparison, report: Path) -> None:
    assert "nats_with_document_state" not in comparison.columns and "adaptation" not in comparison.columns
    assert "with document state" not in (report / "report.md").read_text("utf-8").replace("with a document state", "")


def test_a_model_that_fails_has_its_error_in_the_table(texts: list[str], tmp_path: Path) -> None:
    good, bad = revgen.create("kneser-ney-char", order=2), revgen.create("ngram-char")

    def fit(*_: Any, **__: Any) -> Any:
        raise TrainingError("the loss | diverged <three> times")

    bad.fit = fit  # type: ignore[method-assign]
    comparison = compare(texts, [bad, good], max_order=0, progress=False)
    assert comparison[0].error == "the loss | diverged <three> times" and comparison[0].nats_per_char is None
    assert comparison[1].error is None and comparison[1].nats_per_char is not None
    assert "diverged" in str(comparison)
    report = comparison.save(tmp_path)
    assert "the loss | diverged &lt;three&gt; times" in (report / "report.html").read_text("utf-8")
    assert "the loss \\| diverged" in (report / "report.md").read_text("utf-8")


def test_text_that_is_predicted_for_certain_and_is_no_unicode_is_reported(tmp_path: Path) -> None:
    texts = ["the \ud800 <script> band of song"] * 12

    comparison = compare(texts, ["ngram-char:order=3"], max_order=0, progress=False)
    comparison.save(tmp_path)

    assert "the ? &lt;script&gt;" in (tmp_path / "report.html").read_text("utf-8")
    assert "<script>" not in comparison._repr_html_()


def test_ctrl_c_in_training_ends_the_comparison(texts: list[str]) -> None:
    class Interrupt(revgen.Callback):
        def on_step_end(self, model: revgen.LanguageModel, step: revgen.StepMetrics) -> None:
            signal.raise_signal(signal.SIGINT)

    model = revgen.create("gru-char", hidden_size=8, num_layers=1)
    model.fit = functools.partial(model.fit, callbacks=[Interrupt()])  # type: ignore[method-assign]
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs of a shell ignore SIGINT
    try:
        with pytest.raises(KeyboardInterrupt):
            compare(texts, [model], epochs=1, max_order=0, progress=False)
    finally:
        signal.signal(signal.SIGINT, before)


def test_invalid_arguments_raise_an_error_before_anything_is_trained(texts: list[str]) -> None:
    with pytest.raises(UnknownNameError, match="lstm-char"):
        compare(texts, ["kneser-ney-char", "lsmt-char"])
    with pytest.raises(OptionError, match="hidden"):
        compare(texts, ["lstm-char:hiden_size=3"])
    with pytest.raises(OptionError, match="name=value"):
        compare(texts, ["lstm-char:8"])
    with pytest.raises(OptionError, match="valid"):
        compare(texts, valid=0)
    with pytest.raises(OptionError, match="max_order"):
        compare(texts, max_order=-1)
    with pytest.raises(CorpusError):
        compare([], NAMES)


# The report


class Page(HTMLParser):
    """A parser that checks that every tag is closed, and records the URLs that a browser would load."""

    def __init__(self) -> None:
        super().__init__()
        self.open_tags: list[str] = []
        self.urls: list[str] = []
        self.ids: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID_TAGS:
            self.open_tags.append(tag)
        assert tag not in ("script", "link", "iframe"), tag
        for name, value in attrs:
            if name in ("src", "href", "xlink:href", "srcset") and not (value or "").startswith("#"):
                self.urls.append(str(value))
            if name == "id":
                self.ids.append(str(value))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID_TAGS:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open_tags.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_html_report_is_self_contained(comparison: Comparison, report: Path) -> None:
    html = (report / "report.html").read_text("utf-8")
    page = Page()
    page.feed(html)
    assert page.open_tags == [] and page.urls == []
    for namespace in NAMESPACES:
        html = html.replace(namespace, "")
    assert "http:" not in html and "https:" not in html and "@import" not in html and "url(http" not in html
    for row in comparison:
        assert row.sample is not None and row.sample in page.text
        assert f"{row.parameters:,}" in page.text
    assert {"elman-char-hidden-size-8", "ngram-char-order-8"} <= {*page.ids}
    assert html.count('class="chart"') == 2 and html.count('class="graph"') == 6
    assert html.count("<mark>") >= 2 and "∞" in page.text


def test_the_images_of_the_markdown_report_exist(comparison: Comparison, report: Path) -> None:
    text = (report / "report.md").read_text("utf-8")
    images = [part.partition(")")[0] for part in text.split("](")[1:]]
    assert len(images) == 8
    for image in images:
        assert ElementTree.parse(report / image).getroot().tag.endswith("svg")
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert len(table) == 2 + len(comparison) and {line.count("|") for line in table} == {
        len(columns_of(comparison)) + 2
    }


def test_without_matplotlib_the_report_says_so(
    comparison: Comparison, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match=r"revgen\[plots\]"):
        comparison.plot()
    assert "revgen[plots]" in (comparison.save(tmp_path) / "report.html").read_text("utf-8")


def test_plot_draws_both_charts(comparison: Comparison) -> None:
    loss, orders = comparison.plot().axes
    # The model without smoothing has an infinite loss, so it is not in the chart.
    assert [line.get_label() for line in loss.lines] == NAMES[1:]
    assert loss.lines[0].get_ydata() == pytest.approx([comparison[1].nats_per_char])
    assert list(orders.lines[1].get_ydata()) == [point.train_nats_per_char for point in comparison.orders]


def test_the_compare_command_saves_the_report(
    texts: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("posts.jsonl").write_text("".join(json.dumps({"body": text}) + "\n" for text in texts[:8]), "utf-8")
    Path("held_out.txt").write_text(texts[9], "utf-8")
    arguments = ["compare", "posts.jsonl", "--field", "body", "--models", "kneser-ney-char:order=3", "--max-order", "2"]
    assert main([*arguments, "--valid", "held_out.txt", "--json", "--out", "report", "--prompt", "a"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["settings"]["validation"] == {"documents": 1, "characters": len(texts[9])}
    assert content["models"][0]["sample"].startswith("a") and len(content["orders"]) == 2
    assert Path("report/report.html").is_file()
    assert main([*arguments, "--valid", "2"]) == 2
    assert "valid" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.25, "0.25 s"), (12.34, "12.3 s"), (61, "61.0 s"), (125, "2 min 05 s")]
)
def test_durations_have_about_three_digits(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


# Copied spans


def maximal_spans(text: str, training: list[str]) -> list[tuple[int, int]]:
    """Return, by brute force, all spans that occur in a training text and are not part of a longer one."""
    spans = [(i, j) for i in range(len(text)) for j in range(i + 1, len(text) + 1)]
    copied = [(i, j) for i, j in spans if any(text[i:j] in document for document in training)]
    return [(i, j) for i, j in copied if not any(a <= i and j <= b and (a, b) != (i, j) for a, b in copied)]


SHORT_TEXTS = st.text("abé", max_size=14)


@given(SHORT_TEXTS, st.lists(SHORT_TEXTS, max_size=4), st.integers(1, 5))
def test_find_copies_agrees_with_brute_force(text: str, training: list[str], minimum: int) -> None:
    spans = maximal_spans(text, training)
    report = find_copies(text, training, minimum)
    assert list(report.spans) == [(i, j) for i, j in spans if j - i >= minimum]
    assert report.longest == max([j - i for i, j in spans], default=0)
    positions = {position for i, j in report.spans for position in range(i, j)}
    assert report.fraction == pytest.approx(len(positions) / len(text) if text else 0)


def test_a_copied_document_is_one_span_and_no_span_crosses_documents(reviews: list[str]) -> None:
    index = SuffixIndex(reviews)
    assert find_copies(reviews[3], index).spans == ((0, len(reviews[3])),)
    assert find_copies(reviews[3], index).fraction == 1
    assert find_copies(reviews[3][:30] + reviews[4][:30], index).longest < 60
    assert find_copies("xyzzy", reviews[0]).fraction == 0
    assert find_copies("the same thing said again", "the same thing said again").longest == 25


def test_overlapping_spans_are_marked_once_and_text_is_escaped() -> None:
    report = find_copies("<b> abcdef ghi", ["abcdef", "cdef ghi"], minimum=5)
    assert mark_spans("<b> abcdef ghi", report.spans) == "&lt;b&gt; <mark>abcdef ghi</mark>"
