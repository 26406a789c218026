"""JSON that any reader takes: no Infinity and no NaN in what the package writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import revgen
from revgen.cli import main
from revgen.files import to_json


def strict(text: str) -> Any:
    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    return json.loads(text, parse_constant=refuse)


def test_a_number_that_json_does_not_have_is_null() -> None:
    inf, nan = float("inf"), float("nan")
    assert strict(to_json({"loss": inf, "epochs": 2})) == {"loss": None, "epochs": 2, "infinite": True}
    assert strict(to_json({"loss": -inf})) == {"loss": None, "infinite": True}
    assert strict(to_json({"loss": nan})) == {"loss": None}
    assert strict(to_json([{"a": (1.5, inf)}, "é\ud800"])) == [{"a": [1.5, None]}, "é\ud800"]


def test_numbers_of_numpy_are_numbers() -> None:
    given = {
        "n": np.int64(3),
        "x": np.float32(0.5),
        "y": np.float64("inf"),
        "z": np.array([1.0, np.nan]),
        "b": np.True_,
    }
    wanted = {"n": 3, "x": 0.5, "y": None, "z": [1.0, None], "b": True, "infinite": True}
    assert strict(to_json(given)) == wanted


@pytest.fixture
def surprised(tmp_path: Path) -> tuple[str, str]:
    """A model and a text that it holds to be impossible."""
    model = revgen.create("ngram-char", order=3)
    model.fit(["abab abab"] * 3, progress=False)
    text = tmp_path / "text.txt"
    text.write_text("bbaa bb")
    return str(model.save(tmp_path / "model")), str(text)


def test_what_the_command_line_prints_is_json_for_any_reader(
    surprised: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, text = surprised

    def printed(*command: str) -> Any:
        capsys.readouterr()
        assert main([*command, "--json"]) == 0
        return strict(capsys.readouterr().out)

    evaluation = printed("evaluate", model, text)
    assert evaluation["nats_per_char"] is None and evaluation["infinite"] is True and evaluation["characters"] == 7
    assert any(row["logprob"] is None and row["infinite"] for row in printed("explain", model, "bbaa bb"))
    out = str(tmp_path / "fitted")
    history = printed("fit", "ngram-char", text, "--valid", text, "--set", "order=2", "--out", out)
    assert history["epochs"][0]["train_loss"] > 0
    report = printed("compare", text, "--models", "ngram-char", "--valid", text, "--max-order", "2")
    assert report["models"][0]["model"] == "ngram-char"


def test_the_metadata_of_a_graph_is_json_for_any_reader(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    assert main(["export", "textgenrnn-char", "--out", str(tmp_path)]) == 0
    properties = {entry.key: entry.value for entry in onnx.load(tmp_path / "model.onnx").metadata_props}
    begins = [part["begin"] for part in strict(properties["revgen"])["state"]]
    assert "-inf" in begins and np.full(2, "-inf", np.float32).tolist() == [-np.inf] * 2
