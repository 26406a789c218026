"""Names: what there is, what a name gives, what a wrong one answers, and how others add theirs."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

import revgen
from revgen.architectures.recurrent import RecurrentModel
from revgen.language_model import LanguageModel
from revgen.networks.stack import make_cell
from revgen.registry import architectures, cells, tokenizers
from revgen.tokenizers.char import CharTokenizer

LEVELS = tuple(tokenizers.names())


class Halving(revgen.Cell):
    """h' = (x W + h) / 2."""

    scale: float = 0.5

    def param_shapes(self) -> dict[str, tuple[int, ...]]:
        return {"W": (self.input_size, self.hidden_size)}

    def project(self, p: Any, x: Any) -> Any:
        return x @ p.W

    def step(self, p: Any, z: Any, h: Any) -> tuple[Any, Any]:
        h = (z + h) * self.scale
        return h, h


@pytest.fixture
def halving() -> Iterator[str]:
    """The name of a cell that is registered for one test."""
    revgen.register_cell("halving")(Halving)
    yield "halving"
    cells.unregister("halving")


@pytest.fixture
def pretrained(small_model: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of pretrained models, with one in it."""
    monkeypatch.setattr("revgen.hub.PRETRAINED", tmp_path / "pretrained")
    model = revgen.load(small_model.save(tmp_path / "pretrained" / "lstm-char"))
    model.metadata |= {"licence": "MIT", "evaluation": {"nats_per_char": 1.5}}
    model.save(tmp_path / "pretrained" / "lstm-char")
    return tmp_path / "pretrained"


def python(code: str, *search: Path) -> subprocess.CompletedProcess[str]:
    """A fresh interpreter that finds modules and distributions in ``search`` too."""
    path = os.pathsep.join([*map(str, search), str(Path(revgen.__file__).parents[1])])
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        check=False,
        text=True,
        env=os.environ | {"PYTHONPATH": path, "PYTHONWARNINGS": "default"},
    )


def write_plugin(root: Path, name: str, code: str) -> Path:
    """A distribution as an installer leaves it: a module, and the entry point that names it."""
    root.mkdir(exist_ok=True)
    (root / f"{name}.py").write_text(code, encoding="utf-8")
    info = root / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n", encoding="utf-8")
    (info / "entry_points.txt").write_text(f"[revgen.plugins]\n{name} = {name}\n", encoding="utf-8")
    return root


PLUGIN = """
import revgen
from revgen.ops import tanh

@revgen.register_cell("plugged")
class Plugged(revgen.Cell):
    "A cell of another package."
    def param_shapes(self):
        return {"W": (self.input_size, self.hidden_size), "U": (self.hidden_size, self.hidden_size)}
    def project(self, p, x):
        return x @ p.W
    def step(self, p, z, h):
        h = tanh(z + h @ p.U)
        return h, h
"""


# The list


def test_every_architecture_comes_at_every_level() -> None:
    names = revgen.list_models()

    assert {f"{cell}-{level}" for cell in cells.names() for level in LEVELS} <= set(names)
    assert names == sorted(set(names))


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("lstm-*", {"lstm-char", "lstm-subword", "lstm-word"}),
        ("gru-char", {"gru-char"}),
        (["gru-c*", "elman-w*", "gru-char"], {"gru-char", "elman-word"}),
        ("[ge]*n*-word", {"elman-word"}),
        ("nothing*", set()),
        ([], set()),
    ],
)
def test_wildcards_choose_names(pattern: str | Sequence[str], expected: set[str]) -> None:
    assert {name for name in revgen.list_models(pattern) if name.partition("-")[0] in cells.names()} == expected


def test_pretrained_lists_those_with_weights(pretrained: Path) -> None:
    assert revgen.list_models(pretrained=True) == ["lstm-char"]
    assert revgen.list_models("gru-*", pretrained=True) == []


def test_a_pretrained_model_loads_by_its_name(pretrained: Path) -> None:
    model = revgen.load("lstm-char")

    assert model.generate("the ", seed=1, max_tokens=5).startswith("the ")


@pytest.mark.usefixtures("hub")
def test_a_name_without_weights_says_how_to_train_it_and_what_is_pretrained(pretrained: Path) -> None:
    with pytest.raises(revgen.UnknownNameError, match=r"no pretrained weights.*create\('gru-char'\).*are lstm-char"):
        revgen.load("gru-char")


def test_a_cell_that_an_architecture_would_hide_is_refused() -> None:
    with pytest.raises(revgen.RegistrationError, match="hidden by the architecture"):
        revgen.register_cell("transformer")(type("Mine", (revgen.Cell,), {}))


# The table


def test_the_table_shows_what_is_known_of_each_model(pretrained: Path) -> None:
    table = revgen.models("lstm-*")

    header, _, *lines = str(table).splitlines()
    columns = ("name", "description", "pretrained", "parameters", "size", "licence", "score", "source")
    assert header.split() == list(columns)
    assert [line.split()[0] for line in lines] == ["lstm-char", "lstm-subword", "lstm-word"]
    assert "MIT" in lines[0] and "1.5000" in lines[0] and "package" in lines[0]
    assert "MIT" not in lines[1]
    assert str(table) == repr(table)


def test_the_table_filters(pretrained: Path) -> None:
    table = revgen.models().filter(lambda model: model.pretrained)

    assert [row.name for row in table] == ["lstm-char"]
    assert len(table) == 1


def test_the_table_becomes_dictionaries(pretrained: Path) -> None:
    known, unknown = revgen.models(["lstm-char", "lstm-word"]).to_dicts()

    assert known["pretrained"] and known["parameters"] > 10_000 and known["score"] == 1.5 and known["licence"] == "MIT"
    assert known["size"] == (pretrained / "lstm-char" / "model.safetensors").stat().st_size
    assert not unknown["pretrained"] and unknown["parameters"] is None and unknown["source"] is None


def test_the_table_becomes_a_data_frame(pretrained: Path) -> None:
    frame = revgen.models("*-char").to_frame()

    assert list(frame["name"]) == revgen.list_models("*-char")
    assert frame.set_index("name").loc["lstm-char", "score"] == 1.5


def test_the_table_describes_a_cell_by_the_first_line_of_its_docstring(halving: str) -> None:
    assert [row.description for row in revgen.models("halving-*")] == ["h' = (x W + h) / 2."] * 3


# Names and options that there are not


@pytest.mark.parametrize("name", ["lstn-char", "lstm-chr", "LSTM-char", "lstm_char"])
def test_an_unknown_name_offers_the_nearest(name: str) -> None:
    with pytest.raises(revgen.UnknownNameError, match=f"{name}.*did you mean .*lstm-char"):
        revgen.create(name)


@pytest.mark.parametrize("name", ["", "lstm", "-char", "zzzzzzzz", "lstm-char-char"])
def test_a_name_like_no_other_is_an_error_of_the_same_kind(name: str) -> None:
    with pytest.raises(revgen.UnknownNameError, match="there is no model"):
        revgen.create(name)


def test_loading_an_unknown_name_offers_the_nearest_pretrained(pretrained: Path) -> None:
    with pytest.raises(revgen.UnknownNameError, match="did you mean lstm-char"):
        revgen.load("lstm-chat")


def test_a_name_without_its_level_says_which_levels_there_are() -> None:
    for made in (revgen.create, revgen.load):
        with pytest.raises(revgen.UnknownNameError, match=r"lacks the level.*lstm-char, lstm-subword or lstm-word"):
            made("lstm")
    with pytest.raises(revgen.UnknownNameError, match="there is no model 'mixture'"):
        revgen.create("mixture")


def test_a_text_in_place_of_a_name_is_an_unknown_name() -> None:
    with pytest.raises(revgen.UnknownNameError):
        revgen.load("a long text about music " * 500)


@pytest.mark.parametrize("path", [Path("nowhere"), Path("no/where"), "./no/where", "/no/where", "no/where/else"])
def test_a_path_that_is_not_there_is_named(path: str | Path) -> None:
    with pytest.raises(revgen.CheckpointError, match=f"{path}: no such directory"):
        revgen.load(path)


@pytest.mark.usefixtures("hub")
def test_a_name_that_is_neither_directory_nor_repository_is_named() -> None:
    with pytest.raises(revgen.HubError, match="no/where: no such directory, and no such repository on the Hub"):
        revgen.load("no/where")


def test_an_unknown_tokenizer_level_offers_the_nearest() -> None:
    with pytest.raises(revgen.UnknownNameError, match="no tokenizer level 'words'; did you mean word"):
        tokenizers.get("words")


def test_every_unknown_name_is_a_lookup_error() -> None:
    with pytest.raises(LookupError):
        revgen.create("nothing-of-this-kind")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("lstm-char", {"hiden_size": 8}, "no option of lstm 'hiden_size'; did you mean hidden_size"),
        ("gru-word", {"layers": 2}, "no option of gru 'layers'; did you mean num_layers"),
        ("rnn-char", {"non_linearity": "relu"}, "did you mean nonlinearity"),
        ("rnn-char", {"zzzzzzzz": 1}, "known: hidden_size, .*nonlinearity"),
        ("lstm-char", {"tokenizer": {"mincount": 2}}, "no option of the char tokenizer 'mincount'.*min_count"),
        ("lstm-word", {"tokenizer": {"vocab": 20}}, "option of the word tokenizer 'vocab'; did you mean vocab_size"),
        ("lstm-char", {"tokenizer": {"vocab_size": 20}}, "option of the char tokenizer 'vocab_size'"),
        ("lstm-char", {"tokenizer": "char"}, "tokenizer must be a Tokenizer, a dictionary or None, not 'char'"),
    ],
)
def test_an_unknown_option_offers_the_nearest(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(revgen.OptionError, match=message):
        revgen.create(name, **options)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("hidden_size", 0),
        ("hidden_size", -3),
        ("hidden_size", 2.5),
        ("hidden_size", "256"),
        ("hidden_size", True),
        ("num_layers", 0),
        ("embedding_size", 0),
        ("dropout", 1),
        ("dropout", -0.1),
        ("dropout", float("nan")),
        ("dropout", "0.1"),
        ("residual", 1),
        ("layer_norm", "yes"),
        ("tie_embeddings", None),
        ("cell_options", 3),
    ],
)
def test_an_option_out_of_its_range_is_named(option: str, value: Any) -> None:
    with pytest.raises(revgen.OptionError, match=f"{option} must be|{option} must lie"):
        revgen.create("lstm-char", **{option: value})


@pytest.mark.parametrize("value", ["sigmoid", 3])
def test_an_option_of_a_cell_out_of_its_range_is_named(value: Any) -> None:
    with pytest.raises(revgen.OptionError, match="nonlinearity"):
        revgen.create("rnn-char", nonlinearity=value)


def test_an_option_of_a_cell_is_given_like_those_of_its_network() -> None:
    direct = revgen.create("rnn-char", nonlinearity="relu", hidden_size=8)
    nested = revgen.create("rnn-char", cell_options={"nonlinearity": "relu"}, hidden_size=8)

    assert direct.config == nested.config
    assert direct.config.cell_options == {"nonlinearity": "relu"}


def test_a_tokenizer_of_another_level_is_refused(small_model: LanguageModel) -> None:
    with pytest.raises(revgen.OptionError, match="level 'char', but gru-word needs one of 'word'"):
        revgen.create("gru-word", tokenizer=small_model.tokenizer)


def test_a_trained_tokenizer_is_taken_as_it_is(small_model: LanguageModel) -> None:
    assert revgen.create("gru-char", tokenizer=small_model.tokenizer).tokenizer is small_model.tokenizer


def test_a_model_that_was_not_fitted_says_so() -> None:
    model = revgen.create("lstm-char")

    assert "not fitted" in repr(model) and not model.is_fitted
    with pytest.raises(revgen.NotFittedError, match="lstm-char has no tokenizer yet"):
        model.generate("the ")
    with pytest.raises(revgen.NotFittedError, match="lstm-char has no weights yet"):
        _ = model.num_parameters


# Registration


def test_a_registered_cell_is_an_architecture_at_every_level(halving: str) -> None:
    assert revgen.list_models("halving-*") == [f"halving-{level}" for level in LEVELS]
    options: Any = {"scale": 0.25}
    for level in LEVELS:
        assert revgen.create(f"halving-{level}", **options).config.cell_options == {"scale": 0.25}


def test_a_name_is_registered_once(halving: str) -> None:
    with pytest.raises(revgen.RegistrationError, match=r"cell 'halving' is registered already.*replace=True"):
        revgen.register_cell("halving")(Halving)


def test_a_name_that_is_built_in_cannot_be_taken_unseen() -> None:
    with pytest.raises(revgen.RegistrationError, match="registered already"):
        revgen.register_cell("lstm")(Halving)


def test_replace_puts_another_in_its_place(halving: str) -> None:
    class Other(Halving):
        pass

    assert revgen.register_cell("halving", replace=True)(Other) is Other
    assert cells.get("halving") is Other


@pytest.mark.parametrize("name", ["", "Halving", "halving cell", "halving_cell", "-halving", "halving--cell", "a/b"])
def test_a_bad_name_is_refused(name: str) -> None:
    with pytest.raises(revgen.RegistrationError, match="use lower-case letters and digits, joined by hyphens"):
        revgen.register_cell(name)


def test_a_decorator_without_its_name_is_refused() -> None:
    with pytest.raises(revgen.RegistrationError, match="use lower-case letters"):
        revgen.register_cell(Halving)  # type: ignore[arg-type]


def test_a_tokenizer_level_has_no_hyphen_as_it_ends_a_models_name() -> None:
    with pytest.raises(revgen.RegistrationError, match=r"use lower-case letters and digits$"):
        revgen.register_tokenizer("byte-pair")


@pytest.mark.parametrize(
    ("register", "value", "needs"),
    [
        (revgen.register_cell, dict, "shapes and project and step"),
        (revgen.register_cell, Halving(2, 3), "shapes and project and step"),
        (revgen.register_cell, torch.nn.GRU(2, 3), "must be a class"),
        (revgen.register_model, Halving, "fit and generate and Config"),
        (revgen.register_tokenizer, int, "train and encode and decode"),
    ],
)
def test_a_wrong_object_is_refused(register: Any, value: object, needs: str) -> None:
    with pytest.raises(revgen.RegistrationError, match=needs):
        register("wrong")(value)


def test_a_registered_architecture_is_created_by_its_name() -> None:
    class Deep(RecurrentModel):
        """A stack of another name than its cell's."""

        levels = ("char",)

        def validate_config(self) -> None:
            make_cell("gru", 1, 1, self.config.cell_options)

    revgen.register_model("deep")(Deep)
    try:
        assert revgen.list_models("deep-*") == ["deep-char"]
        assert type(revgen.create("deep-char", hidden_size=8)) is Deep
        with pytest.raises(revgen.UnknownNameError, match=r"deep-word.*did you mean .*deep-char"):
            revgen.create("deep-word")
    finally:
        architectures.unregister("deep")


def test_a_registered_tokenizer_is_a_level_of_every_architecture(reviews: list[str]) -> None:
    class Lower(CharTokenizer):
        """Characters, under another name."""

        level = "lower"

    revgen.register_tokenizer("lower")(Lower)
    try:
        model = revgen.create("gru-lower", hidden_size=8, num_layers=1)
        model.fit(reviews[:5], epochs=1, progress=False)
        assert "gru-lower" in revgen.list_models("gru-*")
        assert isinstance(model.tokenizer, Lower)
    finally:
        tokenizers.unregister("lower")


# Plug-in packages


def test_a_plugin_package_is_found_by_its_name(tmp_path: Path) -> None:
    write_plugin(tmp_path, "friendly", PLUGIN)

    done = python(
        "import revgen, sys\n"
        "revgen.create('lstm-char')\n"
        "assert 'friendly' not in sys.modules, 'loaded before anybody asked for it'\n"
        "model = revgen.create('plugged-char', hidden_size=8)\n"
        "print(model.name, type(model).__name__)",
        tmp_path,
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout == "plugged-char RecurrentModel\n"


def test_a_plugin_package_is_in_the_list(tmp_path: Path) -> None:
    write_plugin(tmp_path, "friendly", PLUGIN)

    done = python("import revgen; print(revgen.list_models('plug*')); print(revgen.models('plug*-word'))", tmp_path)

    assert "['plugged-char', 'plugged-subword', 'plugged-word']" in done.stdout
    assert "A cell of another package." in done.stdout


def test_a_plugin_that_cannot_be_imported_warns_and_does_not_break_the_rest(tmp_path: Path) -> None:
    write_plugin(tmp_path, "absent", "import a_module_that_nobody_has")
    write_plugin(tmp_path, "broken", "1 / 0")
    write_plugin(tmp_path, "friendly", PLUGIN)
    write_plugin(tmp_path, "greedy", PLUGIN.replace('"plugged"', '"lstm"'))

    done = python("import revgen; print(revgen.list_models(['lstm-char', 'plugged-char']))", tmp_path)

    assert done.stdout == "['lstm-char', 'plugged-char']\n"
    assert "plug-in 'absent' (absent) could not be loaded: ModuleNotFoundError" in done.stderr
    assert "plug-in 'broken' (broken) could not be loaded: ZeroDivisionError" in done.stderr
    assert "plug-in 'greedy' (greedy) could not be loaded: RegistrationError" in done.stderr
    assert "friendly" not in done.stderr


# The face


def test_every_name_of_the_package_resolves() -> None:
    assert {"create", "load", "models", "Cell", "ops", "RevgenError", "History"} <= set(dir(revgen))
    for name in dir(revgen):
        assert getattr(revgen, name) is not None


def test_models_is_a_table_before_and_after_the_architectures_are_loaded() -> None:
    done = python(
        "import revgen\n"
        "first = revgen.models('lstm-char').to_dicts()\n"
        "import revgen.architectures.recurrent\n"
        "assert revgen.models('lstm-char').to_dicts() == first"
    )

    assert done.returncode == 0, done.stderr


def test_a_name_that_the_package_has_not_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="attribute lode"):
        _ = revgen.lode  # type: ignore[attr-defined]
