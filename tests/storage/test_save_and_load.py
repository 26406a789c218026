"""Tests of saving and loading: the files of a model directory, float16, metadata and imports."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import same_model
from numpy.typing import NDArray
from storage_helpers import change_config, change_weights, replace_file, run_python

import revgen
from revgen.language_model import LanguageModel


@pytest.mark.parametrize("level", ["char", "word", "subword"])
def test_a_loaded_model_equals_the_saved_one(
    level: str, models_by_level: dict[str, LanguageModel], reviews: list[str], tmp_path: Path
) -> None:
    model = models_by_level[level]

    loaded = revgen.load(model.save(tmp_path / "model"))

    assert same_model(model, loaded)
    assert loaded.config == model.config
    assert loaded.info() == json.loads(json.dumps(model.info()))
    assert repr(loaded) == repr(model)
    assert loaded.generate("the ", n=3, seed=5) == model.generate("the ", n=3, seed=5)
    np.testing.assert_allclose(loaded.score(reviews[50]).logprobs, model.score(reviews[50]).logprobs, atol=1e-6)


@pytest.mark.parametrize("level", ["char", "word", "subword"])
def test_float16_halves_the_file_and_hardly_changes_the_scores(
    level: str, models_by_level: dict[str, LanguageModel], reviews: list[str], tmp_path: Path
) -> None:
    model = models_by_level[level]

    full = model.save(tmp_path / "float32")
    half = model.save(tmp_path / "float16", dtype="float16")

    assert (half / "model.safetensors").stat().st_size < 0.6 * (full / "model.safetensors").stat().st_size
    loaded = revgen.load(half)
    assert all(array.dtype == np.float32 for array in loaded.weights.values())
    np.testing.assert_allclose(loaded.score(reviews[50]).logprobs, model.score(reviews[50]).logprobs, atol=0.02)


@pytest.mark.parametrize("level", ["char", "word", "subword"])
def test_int8_quarters_the_matrices_and_hardly_changes_the_loss(
    level: str, models_by_level: dict[str, LanguageModel], reviews: list[str], tmp_path: Path
) -> None:
    model = models_by_level[level]

    directory = model.save(tmp_path, dtype="int8")

    size = sum(array.size + 4 * len(array) if array.ndim > 1 else 2 * array.size for array in model.weights.values())
    assert (directory / "model.safetensors").stat().st_size < size + 3_000
    loaded = revgen.load(directory)
    assert all(array.dtype == np.float32 for array in loaded.weights.values())
    for name, array in model.weights.items():
        step = np.abs(array).max(-1, keepdims=True) / 127
        assert (np.abs(loaded.weights[name] - array) <= 0.51 * step + 1e-3 * np.abs(array)).all()
    loss = model.evaluate(reviews[150:]).nats_per_char
    assert loaded.evaluate(reviews[150:]).nats_per_char == pytest.approx(loss, abs=0.005)
    assert "multiply each row of the matrix `name` by its scale" in (directory / "README.md").read_text("utf-8")


@pytest.mark.parametrize(
    "change",
    [
        lambda arrays: arrays.pop("embedding"),
        lambda arrays: arrays.update({"embedding.int8_scale": np.ones(3, np.float32)}),
        lambda arrays: arrays.update({"embedding": arrays["embedding"].astype(np.float32)}),
    ],
)
def test_scales_that_do_not_belong_to_a_matrix_are_an_error(
    change: Callable[[dict[str, NDArray[Any]]], object], small_model: LanguageModel, tmp_path: Path
) -> None:
    directory = small_model.save(tmp_path, dtype="int8")
    change_weights(directory, change)

    with pytest.raises(revgen.CheckpointError, match="scale does not belong to a matrix of 8-bit integers"):
        revgen.load(directory)


def test_models_of_any_level_can_be_saved_to_the_same_directory(
    models_by_level: dict[str, LanguageModel], tmp_path: Path
) -> None:
    for level in ("char", "word", "subword", "char"):
        models_by_level[level].save(tmp_path, overwrite=True)

        assert same_model(revgen.load(tmp_path), models_by_level[level])


def test_save_takes_a_string_and_creates_parent_directories(small_model: LanguageModel, tmp_path: Path) -> None:
    directory = small_model.save(f"{tmp_path}/a/b/c")

    assert directory == tmp_path / "a" / "b" / "c"
    assert same_model(revgen.load(str(directory)), small_model)


def test_a_loaded_model_can_be_trained_further(saved: Path, reviews: list[str]) -> None:
    model = revgen.load(saved)
    before = model.evaluate(reviews[:10]).nats_per_char

    model.fit(reviews[:10], epochs=2, progress=False)

    assert model.evaluate(reviews[:10]).nats_per_char < before


def test_metadata_is_loaded_with_numpy_numbers_as_plain_numbers(small_model: LanguageModel, saved: Path) -> None:
    model = revgen.load(saved)
    model.metadata |= {"licence": "MIT", "rate": np.float32(0.5), "count": np.int64(3)}

    loaded = revgen.load(model.save(saved))

    assert loaded.metadata | {"licence": "MIT", "rate": 0.5, "count": 3} == loaded.metadata
    assert loaded.metadata["training"] == small_model.metadata["training"]


def test_a_model_without_weights_cannot_be_saved(tmp_path: Path) -> None:
    with pytest.raises(revgen.NotFittedError):
        revgen.create("lstm-char").save(tmp_path / "model")

    assert not (tmp_path / "model").exists()


def test_an_unknown_dtype_is_an_error(small_model: LanguageModel, tmp_path: Path) -> None:
    with pytest.raises(revgen.OptionError, match="dtype must be"):
        small_model.save(tmp_path, dtype="int4")  # type: ignore[arg-type]


@pytest.mark.parametrize(("value", "dtype"), [(np.nan, "float32"), (np.inf, "float32"), (1e6, "float16")])
def test_weights_that_are_not_finite_do_not_overwrite_a_saved_model(
    value: float, dtype: Any, small_model: LanguageModel, saved: Path
) -> None:
    model = revgen.load(saved)
    model.weights["bias"][0] = value

    with pytest.raises(revgen.CheckpointError, match="weight bias has values that are not finite"):
        model.save(saved, dtype=dtype)

    assert same_model(revgen.load(saved), small_model)


@pytest.mark.parametrize(
    ("level", "tokenizer"), [("char", "vocabulary.json"), ("word", "vocabulary.json"), ("subword", "tokenizer.model")]
)
def test_the_directory_has_exactly_four_files(
    level: str, tokenizer: str, models_by_level: dict[str, LanguageModel], tmp_path: Path
) -> None:
    models_by_level[level].save(tmp_path)

    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        ["README.md", "config.json", "model.safetensors", tokenizer]
    )


def test_saving_another_level_removes_the_old_tokenizer_file(
    models_by_level: dict[str, LanguageModel], tmp_path: Path
) -> None:
    models_by_level["subword"].save(tmp_path)
    models_by_level["char"].save(tmp_path, overwrite=True)

    assert not (tmp_path / "tokenizer.model").exists()
    assert same_model(revgen.load(tmp_path), models_by_level["char"])


def test_bfloat16_weights_are_loaded(saved: Path) -> None:
    from safetensors.torch import load_file, save

    arrays = {name: array.bfloat16() for name, array in load_file(saved / "model.safetensors").items()}
    replace_file(saved, "weights", save(arrays))

    for name, array in revgen.load(saved).weights.items():
        np.testing.assert_array_equal(array, arrays[name].float().numpy())


def test_the_configuration_has_versions_architecture_and_hashes(saved: Path, small_model: LanguageModel) -> None:
    content = json.loads((saved / "config.json").read_text(encoding="utf-8"))

    assert content["format_version"] == 1
    assert content["revgen_version"] == revgen.__version__
    assert (content["architecture"], content["level"]) == ("lstm", "char")
    assert content["config"]["hidden_size"] == 32
    assert content["tokenizer"]["sha256"] == hashlib.sha256((saved / "vocabulary.json").read_bytes()).hexdigest()
    assert content["tokenizer"]["sha256"] == small_model.tokenizer.fingerprint
    assert content["tokenizer"]["tokens"] == len(small_model.tokenizer)
    assert content["weights"]["sha256"] == hashlib.sha256((saved / "model.safetensors").read_bytes()).hexdigest()
    assert content["weights"]["parameters"] == small_model.num_parameters


def test_the_card_has_loading_code_and_training_settings(saved: Path) -> None:
    card = (saved / "README.md").read_text(encoding="utf-8")

    assert card.startswith("---\nlibrary_name: revgen\npipeline_tag: text-generation\n")
    assert "# lstm-char" in card and "revgen.load(" in card and "## Training" in card and "learning_rate" in card


def test_saving_does_not_overwrite_an_edited_card(small_model: LanguageModel, saved: Path) -> None:
    (saved / "README.md").write_text("an edited card", encoding="utf-8")

    small_model.save(saved)

    assert (saved / "README.md").read_text(encoding="utf-8") == "an edited card"


@pytest.mark.parametrize(
    "metadata",
    [
        {"licence": 5, "language": ["en"], "description": 3, "samples": 7, "load_as": None},
        {"samples": [1, None, "two\nlines"], "training": [1, 2], "evaluation": {"a": {"b": 1}}, "data": None},
        ["a", "list"],
        None,
        "text",
    ],
)
def test_a_model_with_malformed_metadata_loads_and_saves(metadata: object, saved: Path, tmp_path: Path) -> None:
    change_config(saved, lambda content: content.update(metadata=metadata))

    model = revgen.load(saved)

    assert (model.save(tmp_path / "again") / "README.md").is_file()


@pytest.mark.parametrize("level", ["char", "word", "subword"])
def test_recurrent_models_generate_score_and_evaluate_without_torch(
    level: str, models_by_level: dict[str, LanguageModel], tmp_path: Path
) -> None:
    directory = models_by_level[level].save(tmp_path)

    result = run_python(
        "import sys, revgen\n"
        "model = revgen.load(sys.argv[1])\n"
        "print(repr(model.generate('the ', seed=5, max_tokens=30)))\n"
        "model.generate('the ', n=3, temperature=0.5, top_k=5, top_p=0.9, min_p=0.01, repetition_penalty=1.1)\n"
        "list(model.stream('the ', max_tokens=3)); model.score('a text'); model.evaluate(['a text'])\n"
        "assert 'torch' not in sys.modules",
        str(directory),
    )

    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == repr(models_by_level[level].generate("the ", seed=5, max_tokens=30))


@pytest.mark.parametrize(
    ("code", "modules"),
    [
        ("import revgen", ("numpy", "torch")),
        ("import revgen.cli; revgen.cli.build_parser()[0].format_help()", ("numpy", "torch")),
        ("import revgen.cli; revgen.cli.main(['list'])", ("torch",)),
        ("import revgen; revgen.list_models(); revgen.create('lstm-char')", ("torch",)),
    ],
)
def test_importing_and_listing_do_not_import_numpy_or_torch(code: str, modules: tuple[str, ...]) -> None:
    result = run_python(f"{code}\nimport sys; print('imported', [name for name in {modules} if name in sys.modules])")

    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1] == "imported []"


@pytest.mark.parametrize("text", ["GATTACA" * 20, "静夜思床前明月光", "Abelisaurus"])
def test_a_subword_model_of_text_without_spaces_is_saved_and_loaded(text: str, tmp_path: Path) -> None:
    model = revgen.create("gru-subword", hidden_size=8, num_layers=1)
    model.fit([text] * 30, epochs=1, progress=False)

    loaded = revgen.load(model.save(tmp_path / "model"))

    assert loaded.generate("a b", seed=1, max_tokens=9) == model.generate("a b", seed=1, max_tokens=9)


def test_save_replaces_another_model_only_with_overwrite(small_model: LanguageModel, saved: Path) -> None:
    other = revgen.create("ngram-char")
    other.fit(["a text of its own. " * 9] * 3, progress=False)

    with pytest.raises(revgen.CheckpointError, match="has another model, lstm-char: pass overwrite=True to replace it"):
        other.save(saved)
    assert same_model(revgen.load(saved), small_model)

    other.save(saved, overwrite=True)
    assert same_model(revgen.load(saved), other)
    assert "ngram-char" in (saved / "README.md").read_text("utf-8")


def test_save_replaces_a_model_in_a_newer_format_only_with_overwrite(small_model: LanguageModel, saved: Path) -> None:
    content = json.loads((saved / "config.json").read_bytes())
    content["format_version"] += 1
    content["weights"]["sha256"] = "0" * 64
    (saved / "config.json").write_text(json.dumps(content), "utf-8")

    with pytest.raises(revgen.CheckpointError, match="has another model, lstm-char in another format"):
        small_model.save(saved)


def test_save_replaces_a_model_of_another_configuration_only_with_overwrite(tmp_path: Path) -> None:
    models = [revgen.create("ngram-char", order=order) for order in (2, 3)]
    for model in models:
        model.fit(["a text of its own. " * 9] * 3, progress=False)

    models[0].save(tmp_path)
    with pytest.raises(
        revgen.CheckpointError, match="another model, ngram-char with another configuration: pass overwrite=True"
    ):
        models[1].save(tmp_path)


def test_save_replaces_the_model_that_was_loaded_and_a_model_that_was_trained_again(tmp_path: Path) -> None:
    texts = ["a text of its own. " * 9] * 3
    for _ in range(2):
        model = revgen.create("ngram-char")
        model.fit(texts, progress=False)
        model.save(tmp_path)
    loaded = revgen.load(tmp_path)

    loaded.fit(["new: äöü. " * 9] * 3, extend_vocabulary=True, progress=False)
    loaded.save(tmp_path)
    loaded.save(tmp_path, dtype="float16")
    loaded.save(tmp_path)

    assert revgen.load(tmp_path).tokenizer == loaded.tokenizer
