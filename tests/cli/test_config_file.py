"""``revgen fit --config``."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

import pytest
from helpers import run, run_failing

import revgen
from revgen.cli import build_parser
from revgen.cli.train import FIT_HELP

ALL_OPTIONS: dict[str, Any] = {
    "model": "gru-char",
    "texts": ["a.txt", "b.txt"],
    "out": "my-model",
    "valid": 0.1,
    "device": "auto",
    "labels": "genre",
    "epochs": 3,
    "preset": "quick",
    "max_seconds": 60,
    "token_budget": 1_000_000,
    "batch_size": 8,
    "gradient_accumulation_steps": 2,
    "sequence_length": 50,
    "optimizer": "muon",
    "learning_rate": 1e-3,
    "weight_decay": 0.1,
    "weight_averaging": 0.25,
    "patience": 2,
    "seed": 4,
    "checkpoint": "runs/a",
    "resume": True,
    "extend_vocabulary": True,
    "index_texts": True,
    "sample_prompt": "the ",
    "field": "body",
    "documents": "line",
    "errors": "skip",
    "encoding": "cp1252",
    "delimiter": "|",
    "quoting": "none",
    "pretrained": True,
    "overwrite": True,
    "quiet": True,
}


def as_toml(options: dict[str, Any]) -> str:
    """Return options as lines of a TOML file. The representations of Python's values differ only for booleans."""
    values = {name: str(value).lower() if isinstance(value, bool) else repr(value) for name, value in options.items()}
    return "".join(f"{name} = {value}\n" for name, value in values.items())


def parse(*arguments: str) -> argparse.Namespace:
    return build_parser()[0].parse_args(["fit", *arguments])


def test_file_takes_every_option_with_hyphens_or_underscores(tmp_path: Path) -> None:
    assert set(FIT_HELP) < set(ALL_OPTIONS)
    path = tmp_path / "run.toml"
    path.write_text(as_toml(ALL_OPTIONS) + "set = { hidden_size = 8, tokenizer = { min_count = 1 } }\n", "utf-8")
    arguments = []
    for name, value in ALL_OPTIONS.items():
        if name not in ("model", "texts"):
            arguments += [f"--{name.replace('_', '-')}", *([] if value is True else [str(value)])]
    given = ["--set", "hidden_size=8", "--set", 'tokenizer={"min_count": 1}']

    by_file = vars(parse("--config", str(path)))
    by_command_line = vars(parse("gru-char", "a.txt", "b.txt", *arguments, *given))

    assert by_file | {"config": None} == by_command_line
    path.write_text(path.read_text("utf-8").replace("batch_size", "batch-size"), "utf-8")
    assert parse(f"--config={path}").batch_size == 8


def test_command_line_has_precedence_over_the_file(
    texts_file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, path = tmp_path / "model", tmp_path / "run.toml"
    options = {"model": "elman-char", "texts": texts_file, "out": str(tmp_path / "nowhere"), "epochs": 1, "quiet": True}
    path.write_text(as_toml(options) + "[set]\nhidden_size = 8\nnum_layers = 1\n", "utf-8")

    run(capsys, "fit", "gru-char", texts_file, "--config", str(path), "--set", "hidden_size=12", "--out", str(out))

    model = revgen.load(out)
    assert (model.name, model.config.hidden_size, model.config.num_layers) == ("gru-char", 12, 1)
    assert model.metadata["training"]["epochs"] == 1
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("epoch = 3", "run.toml: there is no option 'epoch'; did you mean epochs"),
        ("model = 3\n[sets]\nhidden_size = 8", "run.toml: there is no option 'sets'; did you mean set"),
        ("config = 'other.toml'", "run.toml: there is no option 'config'"),
        ("epochs = 'three'", "run.toml: epochs = 'three': it must be a whole number"),
        ("epochs = 1.5", "run.toml: epochs = 1.5: it must be a whole number"),
        ("learning-rate = 'high'", "run.toml: learning-rate = 'high': it must be a number"),
        ("resume = 1", "run.toml: resume = 1: it must be true or false"),
        ("documents = 'page'", "run.toml: documents = 'page': choose from file, line, blank"),
        ("set = 3", "run.toml: set = 3: it must be a table"),
        ("texts = [['a.txt']]", "it must be a string or a number"),
        ("batch_size = 3\nbatch-size = 4", "batch_size is given twice"),
        ("epochs = ", "run.toml is not a TOML file: Invalid value (at "),
        (b"\xff\xfe", "run.toml is not a TOML file"),
        ("model = 'gru-char'", "the following arguments are required: texts, --out"),
        ("[set]\nhiden_size = 8", "did you mean hidden_size"),
        ("epochs = 0", "--epochs must be"),
        ("texts = " + "[" * 50_000, "run.toml is not a TOML file"),
        (f"epochs = 0x{'f' * 9000}", "--epochs must be a whole number"),
        (f"set.hidden_size = 0x{'f' * 9000}", "run.toml: set = "),
    ],
)
def test_mistake_in_the_file_is_an_error_that_names_the_file_and_the_key(
    content: str | bytes, message: str, texts_file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "run.toml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    complete = ["gru-char", texts_file, "--quiet", "--out", str(tmp_path / "model")]
    arguments = [] if "required" in message else complete

    assert message in run_failing(capsys, "fit", *arguments, "--config", str(path))


def test_missing_file_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert "--config nowhere.toml: No such file" in run_failing(capsys, "fit", "--conf", "nowhere.toml")


@pytest.mark.skipif(os.name != "posix", reason="pipes and devices")
@pytest.mark.parametrize("kind", ["pipe", "/dev/zero", "sparse"])
def test_special_file_is_an_error_at_once(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "run.toml"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "sparse":
        with path.open("wb") as file:
            file.truncate(1 << 40)
    else:
        path.symlink_to(kind)

    assert "it is not a regular file" in run_failing(capsys, "fit", "--config", str(path)) or kind == "sparse"
