"""Strict JSON: nothing that the package writes contains Infinity or NaN, which many parsers reject."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import revgen
from revgen.cli import main
from revgen.files import to_json


def parse_strictly(text: str) -> Any:
    def reject(constant: str) -> None:
        raise AssertionError(f"{constant} is not valid JSON")

    return json.loads(text, parse_constant=reject)


def test_infinity_and_nan_become_null() -> None:
    inf, nan = float("inf"), float("nan")
    assert parse_strictly(to_json({"loss": inf, "epochs": 2})) == {"loss": None, "epochs": 2, "infinite": True}
    assert parse_strictly(to_json({"loss": -inf})) == {"loss": None, "infinite": True}
    assert parse_strictly(to_json({"loss": nan})) == {"loss": None}
    assert parse_strictly(to_json([{"a": (1.5, inf)}, "é\ud800"])) == [{"a": [1.5, None]}, "é\ud800"]


def test_numpy_numbers_become_numbers() -> None:
    values = {
        "n": np.int64(3),
        "x": np.float32(0.5),
        "y": np.float64("inf"),
        "z": np.array([1.0, np.nan]),
        "b": np.True_,
    }
    expected = {"n": 3, "x": 0.5, "y": None, "z": [1.0, None], "b": True, "infinite": True}
    assert parse_strictly(to_json(values)) == expected


@pytest.fixture
def model_and_impossible_text(tmp_path: Path) -> tuple[str, str]:
    """The paths of a model and of a text whose probability is zero in this model."""
    model = revgen.create("ngram-char", order=3)
    model.fit(["abab abab"] * 3, progress=False)
    text = tmp_path / "text.txt"
    text.write_text("bbaa bb")
    return str(model.save(tmp_path / "model")), str(text)


def test_command_line_prints_strict_json(
    model_and_impossible_text: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, text = model_and_impossible_text

    def run_json(*command: str) -> Any:
        capsys.readouterr()
        assert main([*command, "--json"]) == 0
        return parse_strictly(capsys.readouterr().out)

    evaluation = run_json("evaluate", model, text)
    assert evaluation["nats_per_char"] is None and evaluation["infinite"] is True and evaluation["characters"] == 7
    assert any(row["logprob"] is None and row["infinite"] for row in run_json("explain", model, "bbaa bb"))
    out = str(tmp_path / "fitted")
    history = run_json("fit", "ngram-char", text, "--valid", text, "--set", "order=2", "--out", out)
    assert history["epochs"][0]["train_loss"] > 0
    report = run_json("compare", text, "--models", "ngram-char", "--valid", text, "--max-order", "2")
    assert report["models"][0]["model"] == "ngram-char"


def test_metadata_of_an_onnx_graph_is_strict_json(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    assert main(["export", "textgenrnn-char", "--out", str(tmp_path)]) == 0
    properties = {entry.key: entry.value for entry in onnx.load(tmp_path / "model.onnx").metadata_props}
    initial_values = [part["begin"] for part in parse_strictly(properties["revgen"])["state"]]
    assert "-inf" in initial_values and np.full(2, "-inf", np.float32).tolist() == [-np.inf] * 2
