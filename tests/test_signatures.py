"""Signatures of the public functions, as type checkers, help and Tab completion see them, and their run-time checks."""

from __future__ import annotations

import dataclasses
import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal, get_type_hints

import numpy as np
import pytest

import revgen
from revgen.architectures.neural import NeuralModel
from revgen.arguments import check_type, describe_annotation, validate_call
from revgen.cells import Cell
from revgen.generation.config import GenerationConfig, GenerationOptions
from revgen.options import safe_repr
from revgen.registry import architecture_class, architectures, cells
from revgen.training.options import FitOptions
from revgen.zoo import ModelOptions

ROOT = Path(revgen.__file__).parents[1]


# Signatures


@pytest.mark.parametrize("name", ["generate", "stream", "write_samples"])
def test_signature_lists_the_generation_options_in_order(name: str) -> None:
    function = getattr(revgen.load("lstm-char"), name)
    parameters = inspect.signature(function).parameters

    options = list(GenerationOptions.__annotations__)
    assert list(parameters)[-len(options) :] == options
    assert options[:2] == ["temperature", "top_k"] and "max_tokens" in options
    assert parameters["temperature"].default == 1.0 and parameters["max_tokens"].default == 300
    assert parameters["stop"].annotation == "str | Sequence[str] | None"
    assert "options" not in parameters


def test_generation_options_have_the_names_and_types_of_the_config() -> None:
    fields = [field.name for field in dataclasses.fields(GenerationConfig)]
    hints = get_type_hints(GenerationConfig)

    assert fields == list(GenerationOptions.__annotations__)
    assert get_type_hints(GenerationOptions) == {name: hints[name] for name in fields}


def test_every_generation_option_has_a_sentence_of_help() -> None:
    for field in dataclasses.fields(GenerationConfig):
        text = field.metadata["help"]
        assert text[0].isupper() and text.endswith(".") and ". " not in text, field.name


def test_create_has_the_options_of_every_architecture_and_cell() -> None:
    known: set[str] = set()
    for name in [*architectures.names(), *cells.names()]:
        model_class = architecture_class(name)
        if not model_class.__module__.startswith("revgen.") or model_class.levels == ():
            continue
        known |= {field.name for field in dataclasses.fields(model_class.Config)}
        cell = cells.get(name) if cells.is_registered(name) else None
        if isinstance(cell, type) and issubclass(cell, Cell):
            known |= cell.options().keys()
    assert known == ModelOptions.__annotations__.keys()
    assert list(inspect.signature(revgen.create).parameters) == ["name", "tokenizer", *ModelOptions.__annotations__]


def test_fit_options_are_the_parameters_of_neural_fit() -> None:
    parameters = list(inspect.signature(NeuralModel.fit).parameters)
    assert set(parameters) - {"self", "texts", "valid"} == FitOptions.__annotations__.keys()


# Type checking

VALID_CODE = """
import revgen
model = revgen.create("gru-char", hidden_size=12, tokenizer={"min_count": 1})
history = model.fit(["a text"], 0.1, epochs=3, callbacks=[lambda model, epoch: None])
one: str = model.generate("the ", temperature=0.5)
several: list[str] = model.generate("the ", n=1)
listed: list[str] = model.generate(["the "])
both: list[list[str]] = model.generate(["the "], n=2)
name: str = "any-name"
other = revgen.create(name, cell_options={"leak": 0.5})
together: str = revgen.synthesize([model], "the ")
"""
INVALID_CODE = """
import revgen
model = revgen.create("gru-char", hidden_sise=12)
model.fit(["a text"], epochz=3)
model.fit(["a text"], epochs="three")
model.generate("the ", temprature=1)
text: str = model.generate("the ", n=1)
"""


@pytest.mark.slow
def test_type_checker_finds_wrong_names_and_types(tmp_path: Path) -> None:
    pytest.importorskip("mypy")

    def check(code: str) -> list[str]:
        (tmp_path / "snippet.py").write_text(code)
        command = [sys.executable, "-m", "mypy", f"{tmp_path}/snippet.py"]  # with the cache of the project's own check
        result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        return [line for line in result.stdout.splitlines() if "snippet.py" in line and ": error:" in line]

    assert check(VALID_CODE) == []
    lines = check(INVALID_CODE)
    assert {int(line.split(":")[1]) for line in lines} == {3, 4, 5, 6, 7}, lines
    for number, expected in enumerate(["hidden_sise", "epochz", "str", "temprature", "list[str]"], 3):
        assert any(f"snippet.py:{number}:" in line and expected in line for line in lines)


# Checks at run time


@validate_call
def function(
    number: int = 0,
    ratio: float | None = None,
    names: list[str] | tuple[str, ...] = (),
    kind: Literal["a", "b"] = "a",
    where: str | Path = "x",
    flag: bool = False,
    by_name: dict[str, float] | None = None,
) -> Any:
    return locals()


@pytest.mark.parametrize(
    "arguments",
    [
        {"number": 3, "ratio": 1, "names": ["a"], "kind": "b"},
        {"number": np.int32(3), "ratio": np.float32(0.5), "flag": np.bool_(True), "names": ("a",)},
        {"ratio": None, "by_name": {"a": 1}, "where": Path("y")},
    ],
)
def test_valid_arguments_arrive_as_python_values(arguments: dict[str, Any]) -> None:
    received = function(**arguments)
    for name, value in arguments.items():
        assert received[name] == value
        assert not isinstance(received[name], np.generic)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("number", 1.5, "number must be a whole number, not 1.5"),
        ("number", True, "number must be a whole number"),
        ("number", 10**5000, "number must be a whole number, not a value of type int"),
        ("ratio", "x", "ratio must be a number or None, not 'x'"),
        ("ratio", float("nan"), "ratio must be a number or None"),
        ("ratio", 10**400, "ratio must be a number"),
        ("ratio", np.array([1.0]), "ratio must be a number"),
        ("names", "abc", "names must be a list of strings, not 'abc'"),
        ("names", ["a", 1], r"names\[1\] must be a string, not 1"),
        ("kind", "c", "kind must be 'a' or 'b', not 'c'"),
        ("kind", [], "kind must be 'a' or 'b'"),
        ("where", b"x", "where must be a string or a path"),
        ("where", "a\0b", "where must be a path that the file system can hold"),
        ("where", "\ud800", "where must be a path that the file system can hold, not '\\\\ud800'"),
        ("flag", 1, "flag must be True or False"),
        ("by_name", {"a": "b"}, "by_name must be a dictionary or None"),
        ("by_name", {1: 2}, "by_name must be a dictionary"),
        ("nmber", 3, "there is no option of function 'nmber'; did you mean number"),
    ],
    ids=safe_repr,
)
def test_invalid_argument_is_named_in_the_error(name: str, value: Any, message: str) -> None:
    with pytest.raises(revgen.OptionError, match=message.replace("|", "\\|")):
        function(**{name: value})


def test_value_without_a_representation_is_described_by_its_type() -> None:
    class Unprintable:
        def __repr__(self) -> str:
            raise RuntimeError("no")

    with pytest.raises(revgen.OptionError, match="x must be a string, not a value of type Unprintable"):
        check_type("x", Unprintable(), str)


def test_annotation_is_described_in_words() -> None:
    assert describe_annotation(str | Path | None) == "a string, a path or None"


def test_tilde_expands_to_the_home_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert function(where="~/x")["where"] == tmp_path / "x"
    assert function(where=Path("~/x"))["where"] == tmp_path / "x"
    assert function(where="~no-such-user/x")["where"] == Path("~no-such-user/x")
    assert function(where="x")["where"] == "x"
