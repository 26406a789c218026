"""``Model.generation_config``: the defaults of a model, which hold unless a call gives or excludes them."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from toys import alphabet, scripted

import revgen
from revgen import CheckpointError, LanguageModel, OptionError
from revgen.card import make_card
from revgen.generation.defaults import add_defaults

CONFIG: dict[str, Any] = {
    "prompt": "the ",
    "temperature": 0.8,
    "min_p": 0.05,
    "max_tokens": 60,
    "min_tokens": 20,
    "stop_at_sentence": True,
}


@pytest.fixture
def model(small_model: LanguageModel) -> LanguageModel:
    """A small model with defaults."""
    model = copy.deepcopy(small_model)
    model.generation_config = dict(CONFIG)
    return model


def test_a_call_without_options_uses_the_defaults_of_the_model(model: LanguageModel, tmp_path: Path) -> None:
    options = {name: value for name, value in CONFIG.items() if name != "prompt"}
    expected = LanguageModel.from_directory(model.save(tmp_path / "model"))
    expected.generation_config = {}

    assert model.generate(seed=1) == expected.generate("the ", seed=1, **options)
    assert model.generate("", seed=1) == expected.generate("", seed=1, **options)
    assert "".join(model.stream(seed=1)) == "".join(expected.stream("the ", seed=1, **options))
    assert model.generate(n=3, seed=1) == expected.generate("the ", n=3, seed=1, **options)
    assert model.generate(["a", ""], seed=1) == expected.generate(["a", ""], seed=1, **options)


def test_an_option_of_the_call_wins_also_as_none(model: LanguageModel) -> None:
    options = add_defaults(model, {"min_p": None, "temperature": 1.2, "seed": 3})

    assert options["min_p"] is None and options["temperature"] == 1.2 and options["seed"] == 3
    assert options["max_tokens"] == 60


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ({"num_beams": 3}, {"max_tokens", "min_tokens", "stop_at_sentence"}),
        ({"temperature": 0}, {"max_tokens", "min_tokens", "stop_at_sentence"}),
        ({"regex": "a*"}, {"temperature", "min_p"}),
        ({"choices": ["a"]}, {"temperature", "min_p"}),
        ({"min_tokens": 5}, {"temperature", "min_p", "max_tokens", "stop_at_sentence"}),
        ({"stop": "."}, {"temperature", "min_p", "max_tokens", "min_tokens", "stop_at_sentence"}),
    ],
)
def test_an_option_excludes_the_defaults_that_contradict_it(
    model: LanguageModel, given: dict[str, Any], kept: set[str]
) -> None:
    assert set(add_defaults(model, given)) - set(given) == kept
    assert model.generate("a", **given)


def test_min_tokens_keeps_its_proportion_to_max_tokens(model: LanguageModel) -> None:
    assert add_defaults(model, {"max_tokens": 30})["min_tokens"] == 10
    assert add_defaults(model, {"max_tokens": 0})["min_tokens"] == 0
    assert add_defaults(model, {"max_tokens": 30, "min_tokens": 25})["min_tokens"] == 25
    with pytest.raises(OptionError, match="max_tokens"):
        model.generate(max_tokens="many")  # type: ignore[call-overload]


def test_options_with_defaults_stay_the_same_when_they_are_given_again(model: LanguageModel) -> None:
    for given in ({}, {"num_beams": 2}, {"max_tokens": 10}, {"regex": "b+"}, {"min_p": None}):
        options = add_defaults(model, given)
        assert add_defaults(model, options) == options


def test_a_limit_of_copies_holds_only_with_an_index(model: LanguageModel) -> None:
    model.generation_config["max_copied_chars"] = 10
    assert "max_copied_chars" not in add_defaults(model, {})

    model.index_texts(["some text"])

    assert add_defaults(model, {})["max_copied_chars"] == 10


def test_banned_tokens_are_a_default_where_no_text_is_required(model: LanguageModel, tmp_path: Path) -> None:
    model.generation_config["banned_tokens"] = ["b"]
    loaded = revgen.load(model.save(tmp_path / "model"))

    assert loaded.generation_config["banned_tokens"] == ["b"]
    assert add_defaults(loaded, {})["banned_tokens"] == ["b"]
    assert add_defaults(loaded, {"banned_tokens": None})["banned_tokens"] is None
    for required in ({"regex": "b+"}, {"choices": ["b"]}, {"forced_tokens": {0: "b"}}):
        assert "banned_tokens" not in add_defaults(loaded, required)


def test_beam_search_is_a_default_until_a_call_samples() -> None:
    model = alphabet()
    model.generation_config = {"num_beams": 2, "length_penalty": 0.5, "max_tokens": 3}

    assert model.generate("a") == "abcd"
    assert add_defaults(model, {"temperature": 0.5}) == {"temperature": 0.5, "max_tokens": 3}


def test_defaults_are_saved_in_a_file_that_transformers_understands(model: LanguageModel, tmp_path: Path) -> None:
    directory = model.save(tmp_path / "model")
    content = json.loads((directory / "generation_config.json").read_text())

    assert LanguageModel.from_directory(directory).generation_config == CONFIG
    assert content["do_sample"] is True and content["top_k"] == 0
    assert content["max_new_tokens"] == 60 and content["min_new_tokens"] == 20


@pytest.mark.parametrize("config", [{"temperature": 0.0}, {"num_beams": 4, "length_penalty": 0.5}, {"top_k": 5}, {}])
def test_every_default_loads_as_it_was_saved(config: dict[str, Any], model: LanguageModel, tmp_path: Path) -> None:
    model.save(tmp_path)
    model.generation_config = config

    model.save(tmp_path)

    assert LanguageModel.from_directory(tmp_path).generation_config == config
    assert (tmp_path / "generation_config.json").exists() == bool(config)


def test_a_file_of_transformers_is_understood(model: LanguageModel, tmp_path: Path) -> None:
    model.save(tmp_path)
    content = {"do_sample": False, "max_new_tokens": 7, "transformers_version": "5.0", "num_beams": 1, "unknown": [1]}
    (tmp_path / "generation_config.json").write_text(json.dumps(content))

    assert LanguageModel.from_directory(tmp_path).generation_config == {"temperature": 0.0, "max_tokens": 7}


@pytest.mark.parametrize(
    "content",
    [
        '{"temperature": -1}',
        '{"temperature": "hot"}',
        '{"temperature": [1, 2]}',
        '{"temperature": NaN}',
        '{"max_new_tokens": 1e99}',
        '{"max_new_tokens": 1000000000}',
        '{"num_beams": 4000}',
        '{"prompt": 5}',
        '{"prompt": "' + "a" * 20_000 + '"}',
        '{"stop": [1]}',
        '{"stop_at_sentence": "yes"}',
        '{"min_new_tokens": 500, "max_new_tokens": 100}',
        '{"label": {"a": 1}}',
        '{"label": "unknown"}',
        "[]",
        "{",
        "[" * 100_000,
        "\0",
    ],
)
def test_a_hostile_file_is_an_error_that_names_it(content: str, model: LanguageModel, tmp_path: Path) -> None:
    model.save(tmp_path)
    (tmp_path / "generation_config.json").write_text(content)

    with pytest.raises(CheckpointError, match=r"generation_config\.json"):
        LanguageModel.from_directory(tmp_path)


@pytest.mark.parametrize("value", [object(), "many", {1}, 10**5000], ids=["object", "str", "set", "int"])
@pytest.mark.parametrize("name", ["min_tokens", "temperature", "top_k", "label"])
def test_a_default_of_a_wrong_type_is_an_error_that_names_it(
    name: str, value: Any, model: LanguageModel, tmp_path: Path
) -> None:
    model.generation_config = {name: value}

    for use in (
        lambda: model.generate(max_tokens=3),
        lambda: model.save(tmp_path),
        lambda: model.export(tmp_path / "page.html"),
        lambda: make_card(model),
    ):
        with pytest.raises(OptionError, match=name):
            use()


@pytest.mark.parametrize("config", [{"seed": 1}, {"temprature": 1}, {"temperature": -1}, [], {"prompt": None}])
def test_defaults_that_no_model_can_have_are_not_saved(config: Any, model: LanguageModel, tmp_path: Path) -> None:
    model.generation_config = config

    with pytest.raises(OptionError):
        model.save(tmp_path / "model")

    assert not (tmp_path / "model" / "config.json").exists()


def test_samples_in_a_file_have_the_defaults_in_their_provenance(model: LanguageModel, tmp_path: Path) -> None:
    model.write_samples(tmp_path / "a.jsonl", n=2, seed=1, progress=False)
    (first, _) = map(json.loads, (tmp_path / "a.jsonl").read_text().splitlines())

    assert first["text"].startswith("the ")
    assert first["provenance"]["prompt"] == "the "
    assert first["provenance"]["options"] == {name: CONFIG[name] for name in CONFIG if name != "prompt"}
    assert first["text"] == model.generate(n=2, seed=1)[0]


def test_the_card_and_info_tell_the_defaults(model: LanguageModel, tmp_path: Path) -> None:
    card = (model.save(tmp_path / "model") / "README.md").read_text()

    assert 'print(model.generate("the "))' in card
    assert "`min_p=0.05`" in card and "`stop_at_sentence=True`" in card
    assert model.info()["generation_config"] == CONFIG


def test_models_in_turn_use_the_defaults_of_the_first() -> None:
    model = scripted("One two. Three four. Five.")
    model.generation_config = {"prompt": "One", "stop_at_sentence": True, "max_tokens": 50}

    assert revgen.synthesize([model, scripted("One two. Three four. Five.")]) == "One two."


def test_training_on_other_text_forgets_the_prompt(model: LanguageModel) -> None:
    model.metadata["load_as"] = "published"
    model.fit(["some text"] * 3, epochs=1, progress=False)

    assert "prompt" not in model.generation_config and model.generation_config["min_p"] == 0.05
