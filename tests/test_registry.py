"""Tests of model names: lists and tables of models, errors for unknown names and options, and registration."""

from __future__ import annotations

import shutil
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
    """The directory of pretrained models, with only one model in it."""
    monkeypatch.setattr("revgen.pretrained.DIRECTORY", tmp_path / "pretrained")
    model = revgen.load(small_model.save(tmp_path / "pretrained" / "lstm-char.music"))
    model.metadata |= {"licence": "MIT", "evaluation": {"nats_per_char": 1.5}}
    model.save(tmp_path / "pretrained" / "lstm-char.music")
    return tmp_path / "pretrained"


# Lists of names


def test_every_architecture_is_listed_with_every_level() -> None:
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
def test_wildcards_select_names(pattern: str | Sequence[str], expected: set[str]) -> None:
    assert {name for name in revgen.list_models(pattern) if name.partition("-")[0] in cells.names()} == expected


def test_pretrained_selects_names_with_weights(pretrained: Path) -> None:
    shutil.copytree(pretrained / "lstm-char.music", pretrained / "lstm-char.austen")

    assert revgen.list_models(pretrained=True) == ["lstm-char.austen", "lstm-char.music"]
    assert revgen.list_models("*.austen", pretrained=True) == ["lstm-char.austen"]
    assert revgen.list_models("lstm-char", pretrained=True) == ["lstm-char.austen", "lstm-char.music"]
    assert revgen.list_models("gru-*", pretrained=True) == []
    assert "lstm-char.austen" not in revgen.list_models()


def test_a_pretrained_model_is_loaded_by_its_name(pretrained: Path) -> None:
    model = revgen.load("lstm-char")

    assert model.generate("the ", seed=1, max_tokens=5).startswith("the ")


@pytest.mark.usefixtures("hub")
def test_the_error_for_a_name_without_weights_says_how_to_train_it(pretrained: Path) -> None:
    with pytest.raises(revgen.UnknownNameError, match=r"^gru-char has no pretrained weights.*create\('gru-char'\)"):
        revgen.load("gru-char")
    with pytest.raises(
        revgen.UnknownNameError, match=r"^lstm-char\.austin has no .*create\('lstm-char'\).* for music$"
    ):
        revgen.load("lstm-char.austin")


def test_a_cell_with_the_name_of_an_architecture_is_rejected() -> None:
    with pytest.raises(revgen.RegistrationError, match="has the name of an architecture"):
        revgen.register_cell("transformer")(type("Mine", (revgen.Cell,), {}))


# The table of models


def test_the_table_shows_license_score_and_size_of_pretrained_models(pretrained: Path) -> None:
    table = revgen.models("lstm-*")

    header, _, *lines = str(table).splitlines()
    columns = ("name", "description", "pretrained", "parameters", "size", "licence", "score", "source")
    assert header.split() == list(columns)
    assert [line.split()[0] for line in lines] == ["lstm-char", "lstm-subword", "lstm-word"]
    assert "MIT" in lines[0] and "1.5000" in lines[0] and "package" in lines[0]
    assert "MIT" not in lines[1]
    assert str(table) == repr(table)


def test_the_table_can_be_filtered(pretrained: Path) -> None:
    table = revgen.models().filter(lambda model: model.pretrained)

    assert [row.name for row in table] == ["lstm-char"]
    assert len(table) == 1


def test_the_table_converts_to_dictionaries(pretrained: Path) -> None:
    trained, untrained = revgen.models(["lstm-char", "lstm-word"]).to_dicts()

    assert trained["pretrained"] and trained["parameters"] > 10_000
    assert trained["score"] == 1.5 and trained["licence"] == "MIT"
    assert trained["size"] == (pretrained / "lstm-char.music" / "model.safetensors").stat().st_size
    assert not untrained["pretrained"] and untrained["parameters"] is None and untrained["source"] is None


def test_the_table_converts_to_a_data_frame(pretrained: Path) -> None:
    frame = revgen.models("*-char").to_frame()

    assert list(frame["name"]) == revgen.list_models("*-char")
    assert frame.set_index("name").loc["lstm-char", "score"] == 1.5


def test_the_table_describes_a_cell_by_the_first_line_of_its_docstring(halving: str) -> None:
    assert [row.description for row in revgen.models("halving-*")] == ["h' = (x W + h) / 2."] * 3


# Unknown names and options


@pytest.mark.parametrize("name", ["lstn-char", "lstm-chr", "LSTM-char", "lstm_char"])
def test_the_error_for_an_unknown_name_suggests_a_similar_one(name: str) -> None:
    with pytest.raises(revgen.UnknownNameError, match=f"{name}.*did you mean .*lstm-char"):
        revgen.create(name)


@pytest.mark.parametrize("name", ["", "lstm", "-char", "zzzzzzzz", "lstm-char-char"])
def test_a_name_similar_to_no_other_is_an_unknown_name(name: str) -> None:
    with pytest.raises(revgen.UnknownNameError, match="there is no model"):
        revgen.create(name)


def test_loading_an_unknown_name_suggests_a_pretrained_one(pretrained: Path) -> None:
    with pytest.raises(revgen.UnknownNameError, match="did you mean lstm-char"):
        revgen.load("lstm-chat")


def test_the_error_for_a_name_without_a_level_lists_the_levels() -> None:
    for function in (revgen.create, revgen.load):
        with pytest.raises(revgen.UnknownNameError, match=r"lacks the tokenizer level.*lstm-subword or lstm-word"):
            function("lstm")
    with pytest.raises(revgen.UnknownNameError, match="there is no model 'mixture'"):
        revgen.create("mixture")


def test_a_long_text_is_an_unknown_name() -> None:
    with pytest.raises(revgen.UnknownNameError):
        revgen.load("a long text about music " * 500)


@pytest.mark.parametrize("path", [Path("nowhere"), Path("no/where"), "./no/where", "/no/where", "no/where/else"])
def test_a_missing_path_is_named_in_the_error(path: str | Path) -> None:
    with pytest.raises(revgen.CheckpointError, match=f"{path}: no such directory"):
        revgen.load(path)


@pytest.mark.usefixtures("hub")
def test_a_name_that_is_neither_directory_nor_repository_is_an_error() -> None:
    with pytest.raises(revgen.HubError, match="no/where: no such directory, and no such repository on the Hub"):
        revgen.load("no/where")


def test_the_error_for_an_unknown_tokenizer_level_suggests_a_similar_one() -> None:
    with pytest.raises(revgen.UnknownNameError, match="no tokenizer level 'words'; did you mean word"):
        tokenizers.get("words")


def test_unknown_name_errors_are_lookup_errors() -> None:
    with pytest.raises(LookupError):
        revgen.create("no-such-model")


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
def test_an_unknown_option_error_suggests_a_similar_one(name: str, options: dict[str, Any], message: str) -> None:
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
        ("ngram_heads", (3, 2)),
        ("ngram_heads", (0, 2)),
        ("ngram_heads", (2, 2)),
        ("ngram_heads", 3),
        ("ngram_heads", (1, 100)),
        ("cell_options", 3),
    ],
)
def test_an_option_outside_its_range_is_named_in_the_error(option: str, value: Any) -> None:
    with pytest.raises(revgen.OptionError, match=f"{option} must be|{option} must lie"):
        revgen.create("lstm-char", **{option: value})


@pytest.mark.parametrize("value", ["sigmoid", 3])
def test_a_cell_option_outside_its_range_is_named_in_the_error(value: Any) -> None:
    with pytest.raises(revgen.OptionError, match="nonlinearity"):
        revgen.create("rnn-char", nonlinearity=value)


def test_cell_options_can_be_passed_directly_or_nested() -> None:
    direct = revgen.create("rnn-char", nonlinearity="relu", hidden_size=8)
    nested = revgen.create("rnn-char", cell_options={"nonlinearity": "relu"}, hidden_size=8)

    assert direct.config == nested.config
    assert direct.config.cell_options == {"nonlinearity": "relu"}


def test_a_tokenizer_of_another_level_is_rejected(small_model: LanguageModel) -> None:
    with pytest.raises(revgen.OptionError, match="level 'char', but gru-word needs the level 'word'"):
        revgen.create("gru-word", tokenizer=small_model.tokenizer)


def test_a_trained_tokenizer_is_used_unchanged(small_model: LanguageModel) -> None:
    assert revgen.create("gru-char", tokenizer=small_model.tokenizer).tokenizer is small_model.tokenizer


def test_an_unfitted_model_raises_errors_that_say_so() -> None:
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


def test_a_name_can_be_registered_only_once(halving: str) -> None:
    with pytest.raises(revgen.RegistrationError, match=r"cell 'halving' is already registered.*replace=True"):
        revgen.register_cell("halving")(Halving)


def test_a_built_in_name_cannot_be_registered_again() -> None:
    with pytest.raises(revgen.RegistrationError, match="already registered"):
        revgen.register_cell("lstm")(Halving)


def test_replace_registers_another_class_with_the_name(halving: str) -> None:
    class Other(Halving):
        pass

    assert revgen.register_cell("halving", replace=True)(Other) is Other
    assert cells.get("halving") is Other


@pytest.mark.parametrize("name", ["", "Halving", "halving cell", "halving_cell", "-halving", "halving--cell", "a/b"])
def test_an_invalid_name_is_rejected(name: str) -> None:
    with pytest.raises(revgen.RegistrationError, match="use lower-case letters and digits, joined by hyphens"):
        revgen.register_cell(name)


def test_a_decorator_without_a_name_is_rejected() -> None:
    with pytest.raises(revgen.RegistrationError, match="use lower-case letters"):
        revgen.register_cell(Halving)  # type: ignore[arg-type]


def test_a_tokenizer_level_must_not_have_a_hyphen() -> None:
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
def test_an_object_without_the_required_attributes_is_rejected(register: Any, value: object, needs: str) -> None:
    with pytest.raises(revgen.RegistrationError, match=needs):
        register("wrong")(value)


def test_a_registered_architecture_can_be_created_by_its_name() -> None:
    class Deep(RecurrentModel):
        """A stack whose name is not the name of its cell."""

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


def test_a_registered_tokenizer_becomes_a_level_of_every_architecture(reviews: list[str]) -> None:
    class Lower(CharTokenizer):
        """The character tokenizer with another name."""

        level = "lower"

    revgen.register_tokenizer("lower")(Lower)
    try:
        model = revgen.create("gru-lower", hidden_size=8, num_layers=1)
        model.fit(reviews[:5], epochs=1, progress=False)
        assert "gru-lower" in revgen.list_models("gru-*")
        assert isinstance(model.tokenizer, Lower)
    finally:
        tokenizers.unregister("lower")


# Public names


def test_every_public_name_can_be_imported() -> None:
    assert {"create", "load", "models", "Cell", "ops", "RevgenError", "History"} <= set(dir(revgen))
    for name in dir(revgen):
        assert getattr(revgen, name) is not None


def test_an_unknown_attribute_of_the_package_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="attribute lode"):
        _ = revgen.lode  # type: ignore[attr-defined]
