"""``revgen check``."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import run, run_failing

from revgen.cli import main
from revgen.registry import cells

MODULE = '''
import revgen
from revgen.ops import tanh


class Simple(revgen.Cell):
    """h' = tanh(x W + h U)."""

    def param_shapes(self):
        return {"W": (self.input_size, self.hidden_size), "U": (self.hidden_size, self.hidden_size)}

    def project(self, p, x):
        return x @ p.W

    def step(self, p, z, h):
        h = tanh(z + h @ p.U)
        return h, h


@revgen.register_cell("registered-simple")
class Registered(Simple):
    pass


class Forgetful(Simple):
    """Keep part of the state on the cell instead of returning it."""

    last = 0.0

    def step(self, p, z, h):
        h = tanh(z + h @ p.U + 0.5 * self.last)
        self.last = h.mean()
        return h, h


class Misshapen(Simple):
    """Multiply matrices that do not fit."""

    def step(self, p, z, h):
        h = tanh(z + h @ p.W)
        return h, h


class Lowercase(revgen.tokenizers.CharTokenizer):
    """Lose upper case."""

    level = "lowercase"

    def encode(self, text):
        return super().encode(text.lower())


def double(logits, context):
    return 2 * logits


class Careless:
    """Let no token be possible."""

    def __call__(self, logits, context):
        return logits - float("inf")


class Half:
    """A filter with a parameter that has no default."""

    def __init__(self, factor):
        self.factor = factor

    def __call__(self, logits, context):
        return self.factor * logits


SIZE = 8
half = Half(0.5)
'''


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Return the name of a module in the current directory, with classes to check."""
    (tmp_path / "my_cells.py").write_text(MODULE, "utf-8")
    (tmp_path / "broken.py").write_text("import revgen\n1 / 0\n", "utf-8")
    (tmp_path / "lonely.py").write_text("import my_missing_package\n", "utf-8")
    monkeypatch.chdir(tmp_path)
    yield "my_cells"
    sys.modules.pop("my_cells", None)
    cells.unregister("registered-simple")


@pytest.mark.parametrize("name", ["my_cells:Simple", "my_cells.py:Simple", "my_cells:Registered"])
@pytest.mark.usefixtures("module")
def test_check_prints_one_line_for_each_property_of_a_cell(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    lines = run(capsys, "check", name).splitlines()

    assert "reading a sequence twice gives the same outputs" in lines
    assert "NumPy and PyTorch agree" in lines
    assert lines[-1].endswith("save and load keep the model")
    assert len(lines) == len(set(lines)) > 10


@pytest.mark.parametrize("name", ["double", "half"])
def test_check_accepts_functions_and_objects_as_filters(
    name: str, module: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "NumPy and PyTorch agree" in run(capsys, "check", f"{module}:{name}").splitlines()


def test_check_leaves_no_class_registered(module: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = cells.names()

    run(capsys, "check", f"{module}:Simple")

    assert set(cells.names()) - set(before) == {"registered-simple"}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Forgetful", "reading a sequence twice gives different outputs"),
        ("Misshapen", "in step: RuntimeError: mat1 and mat2 shapes cannot be multiplied"),
        ("Lowercase", "was decoded as"),
        ("Careless", "no token is possible"),
    ],
)
def test_failed_check_is_one_line_with_status_1(
    name: str, message: str, module: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", f"{module}:{name}"]) == 1

    errors = capsys.readouterr().err
    assert errors.startswith(f"revgen: {module}:{name} fails a check: ") and message in errors
    assert errors.count("\n") == 1


def test_check_prints_json(module: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert json.loads(run(capsys, "check", "revgen.tokenizers:CharTokenizer", "--json"))["failure"] is None

    assert main(["check", f"{module}:Forgetful", "--json"]) == 1
    report = json.loads(capsys.readouterr().out)

    assert report["object"] == f"{module}:Forgetful"
    assert report["passed"] == ["the outputs and the state have the declared shapes"]
    assert report["failure"].startswith("reading a sequence twice gives different outputs")


@pytest.mark.parametrize(
    "name",
    [
        "revgen.tokenizers:WordTokenizer",
        "revgen.architectures.mlp:MLPModel",
        "revgen.architectures.kneser_ney:KneserNeyModel",
        "torch.nn:GRU",
    ],
)
def test_check_accepts_tokenizers_architectures_and_modules(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert len(run(capsys, "check", name).splitlines()) >= 5


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("my_cells", "must have the form my_package:MyCell"),
        ("my_cells:", "must have the form my_package:MyCell"),
        ("my_cell:Simple", "there is no module 'my_cell'"),
        ("nowhere.py:Simple", "nowhere.py: there is no such file"),
        ("my_cells:Simpel", "there is no object in my_cells 'Simpel'; did you mean Simple"),
        ("my_cells:SIZE", "my_cells:SIZE must be a sampling filter, or a subclass of revgen.Cell"),
        ("my_cells:Half", "my_cells:Half cannot be created without arguments"),
        ("pathlib:Path", "pathlib:Path must be a sampling filter, or a subclass of revgen.Cell"),
        ("broken:Simple", "broken cannot be imported: ZeroDivisionError: division by zero"),
        ("broken.py:Simple", "broken.py cannot be imported: ZeroDivisionError: division by zero"),
        ("lonely:Simple", "lonely cannot be imported: ModuleNotFoundError: No module named 'my_missing_package'"),
    ],
)
@pytest.mark.usefixtures("module")
def test_object_that_cannot_be_checked_is_an_error_with_status_2(
    name: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in run_failing(capsys, "check", name)
