"""Tests of evaluations that show how a model adapts to documents."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import revgen
from revgen.cli import main


@pytest.fixture(scope="module")
def counts(reviews: list[str]) -> revgen.LanguageModel:
    model = revgen.create("kneser-ney-char", order=4)
    model.fit(reviews[:60], progress=False)
    return model


def test_evaluation_shows_fixed_and_adaptive_figures_in_columns(counts: revgen.LanguageModel) -> None:
    texts = ["a song for a song. " * 5]
    evaluation = counts.evaluate(texts, adaptive=True)
    assert evaluation.nats_per_char == counts.evaluate(texts).nats_per_char
    (cached,) = evaluation.adaptive
    assert cached == counts.adaptive().evaluate(texts)
    assert (evaluation.adaptation, cached.adaptation) == ("fixed weights", "document state")
    lines = str(evaluation).splitlines()
    assert lines[0].split("  ")[-2:] == ["fixed weights", "document state"]
    assert f"{evaluation.nats_per_char:.4f}" in lines[2] and f"{cached.nats_per_char:.4f}" in lines[2]
    assert "document state" in evaluation._repr_html_() and f"{cached.nats_per_char:.4f}" in evaluation._repr_html_()
    assert evaluation.to_dict()["adaptive"] == [cached.to_dict()]
    assert (
        str(counts.evaluate(texts)).endswith("; fixed weights") and "adaptive" not in counts.evaluate(texts).to_dict()
    )


def test_adaptive_model_is_compared_with_its_own_model(counts: revgen.LanguageModel) -> None:
    texts = ["a song for a song. " * 5]
    model = counts.adaptive(cache={"strength": 10})
    evaluation = model.evaluate(texts, adaptive=True)
    assert evaluation.nats_per_char == counts.evaluate(texts).nats_per_char
    assert evaluation.adaptive == (model.evaluate(texts),)


def test_model_that_always_adapts_has_one_figure(reviews: list[str]) -> None:
    model = revgen.create("cm-char")
    model.fit(reviews[:4], epochs=1, progress=False)
    evaluation = model.evaluate(reviews[4:6], adaptive=True)
    assert evaluation.adaptation == "adapted weights" and evaluation.adaptive == ()


def test_command_prints_both_figures(
    counts: revgen.LanguageModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = tmp_path / "text.txt"
    text.write_text("a song for a song. " * 5)
    model = str(counts.save(tmp_path / "model"))
    assert main(["evaluate", model, str(text), "--adaptive"]) == 0
    assert "document state" in capsys.readouterr().out
    assert main(["evaluate", model, str(text), "--adaptive", "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["adaptation"] == "fixed weights"
    assert content["adaptive"][0]["adaptation"] == "document state"
    assert content["adaptive"][0]["nats_per_char"] < content["nats_per_char"]
