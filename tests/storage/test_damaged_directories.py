"""Tests of damaged or malicious model directories: each raises an error that names the file."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import same_model
from numpy.typing import NDArray
from storage_helpers import FILES, change_config, change_weights, replace_file

import revgen
from revgen.language_model import LanguageModel
from revgen.registry import cells
from revgen.storage import FORMAT_VERSION


@pytest.mark.parametrize("name", FILES)
def test_a_truncated_file_is_named_in_the_error(name: str, saved: Path) -> None:
    path = saved / name
    data = path.read_bytes()
    for length in sorted({0, 1, 2, 7, 8, 9, *range(0, len(data), max(1, len(data) // 25)), len(data) - 1}):
        path.write_bytes(data[:length])

        with pytest.raises(revgen.CheckpointError, match=name):
            revgen.load(saved)


@pytest.mark.parametrize("name", ["vocabulary.json", "model.safetensors"])
def test_a_flipped_bit_is_detected(name: str, saved: Path) -> None:
    path = saved / name
    data = path.read_bytes()
    for position in range(0, len(data), max(1, len(data) // 40)):
        flipped = bytearray(data)
        flipped[position] ^= 1 << position % 8
        path.write_bytes(flipped)

        with pytest.raises(revgen.CheckpointError, match=name):
            revgen.load(saved)


def test_a_flipped_bit_in_the_configuration_is_an_error_or_harmless(saved: Path, small_model: LanguageModel) -> None:
    path = saved / "config.json"
    data = path.read_bytes()
    for position in range(0, len(data), 3):
        flipped = bytearray(data)
        flipped[position] ^= 1 << position % 7
        path.write_bytes(flipped)
        try:
            loaded = revgen.load(saved)
        except revgen.RevgenError as error:
            assert str(saved) in str(error), f"byte {position}"
        else:
            assert same_model(loaded, small_model), f"byte {position}"


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("data", [b"", b"\0" * 4096, b"{}", b"[1, 2]", b"null", b'"text"', b"\xff\xfe{", b"<html>404"])
def test_a_file_with_garbage_is_named_in_the_error(name: str, data: bytes, saved: Path) -> None:
    (saved / name).write_bytes(data)

    with pytest.raises(revgen.CheckpointError, match=name):
        revgen.load(saved)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named_in_the_error(name: str, saved: Path) -> None:
    (saved / name).unlink()

    with pytest.raises(revgen.CheckpointError, match=name):
        revgen.load(saved)


@pytest.mark.parametrize("name", FILES)
def test_a_directory_instead_of_a_file_is_named_in_the_error(name: str, saved: Path) -> None:
    (saved / name).unlink()
    (saved / name).mkdir()

    with pytest.raises(revgen.CheckpointError, match=name):
        revgen.load(saved)


@pytest.mark.parametrize("name", ["vocabulary.json", "model.safetensors"])
def test_a_file_of_another_model_is_rejected(
    name: str, saved: Path, models_by_level: dict[str, LanguageModel], tmp_path: Path
) -> None:
    other = models_by_level["word"].save(tmp_path / "other")
    shutil.copy(other / name, saved / name)

    with pytest.raises(revgen.CheckpointError, match=f"{name}.*belongs to another model"):
        revgen.load(saved)


def test_the_configuration_of_another_model_is_rejected(
    saved: Path, models_by_level: dict[str, LanguageModel], tmp_path: Path
) -> None:
    other = models_by_level["word"].save(tmp_path / "other")
    shutil.copy(other / "config.json", saved / "config.json")

    with pytest.raises(revgen.CheckpointError, match=r"vocabulary\.json"):
        revgen.load(saved)


def test_an_empty_directory_is_not_a_model(tmp_path: Path) -> None:
    with pytest.raises(revgen.CheckpointError, match="not a model directory"):
        revgen.load(tmp_path)


def test_a_directory_of_another_library_is_not_a_model(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "gpt2", "n_layer": 12}', encoding="utf-8")

    with pytest.raises(revgen.CheckpointError, match=r"config\.json.*does not belong to a revgen model"):
        revgen.load(tmp_path)


def setter(*keys: str) -> Callable[[dict[str, Any], object], None]:
    """Return a function that sets a value in nested dictionaries."""

    def set_value(content: dict[str, Any], value: object) -> None:
        for key in keys[:-1]:
            content = content[key]
        content[keys[-1]] = value

    return set_value


@pytest.mark.parametrize("value", [None, 3, -1.5, "text", [], ["lstm"], {"a": 1}, True])
@pytest.mark.parametrize(
    "keys",
    [
        ("architecture",),
        ("level",),
        ("config",),
        ("tokenizer",),
        ("weights",),
        ("tokenizer", "file"),
        ("tokenizer", "sha256"),
        ("weights", "file"),
        ("weights", "sha256"),
        ("config", "hidden_size"),
        ("config", "num_layers"),
        ("config", "cell_options"),
    ],
    ids=".".join,
)
def test_the_error_for_a_value_of_the_wrong_type_names_the_directory(
    keys: tuple[str, ...], value: object, saved: Path
) -> None:
    change_config(saved, lambda content: setter(*keys)(content, value))

    with pytest.raises(revgen.RevgenError) as error:
        revgen.load(saved)

    assert str(saved) in str(error.value)


@pytest.mark.parametrize(
    "change",
    [
        {"hidden_size": 10**9},
        {"hidden_size": 10**400},
        {"embedding_size": 10**9},
        {"embedding_size": 10**30, "hidden_size": 10**30},
        {"hidden_size": 0},
        {"hidden_size": -32},
        {"dropout": 7},
        {"dropout": "high"},
        {"tie_embeddings": "no"},
        {"unknown_option": 1},
        {"": 1},
        {"self": 1},
        {"cell_options": {"nonlinearity": "tanh"}},
        {"cell_options": {"input_size": 3}},
        {"cell_options": {"shapes": 3}},
    ],
)
def test_a_configuration_that_does_not_match_the_weights_is_rejected(change: dict[str, Any], saved: Path) -> None:
    change_config(saved, lambda content: content["config"].update(change))

    with pytest.raises(revgen.CheckpointError, match=str(saved)):
        revgen.load(saved)


@pytest.mark.parametrize("version", [0, "1", None, [1], True])
def test_an_invalid_format_version_is_rejected(version: object, saved: Path) -> None:
    change_config(saved, lambda content: content.update(format_version=version))

    with pytest.raises(revgen.CheckpointError, match=r"has the format version .* reads versions up to \d+$"):
        revgen.load(saved)


@pytest.mark.parametrize("version", [FORMAT_VERSION + 1, 10**9])
def test_the_error_for_a_newer_format_version_says_to_upgrade(version: int, saved: Path) -> None:
    change_config(saved, lambda content: content.update(format_version=version))

    with pytest.raises(revgen.CheckpointError, match=r"config\.json has the format version .*upgrade revgen"):
        revgen.load(saved)


def test_an_older_format_version_is_loaded(
    saved: Path, small_model: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("revgen.storage.FORMAT_VERSION", FORMAT_VERSION + 1)

    assert same_model(revgen.load(saved), small_model)


def test_unknown_keys_in_the_configuration_are_ignored(saved: Path, small_model: LanguageModel) -> None:
    change_config(saved, lambda content: content.update(color="blue"))
    change_config(saved, lambda content: content["tokenizer"].update(color="blue"))

    assert same_model(revgen.load(saved), small_model)


@pytest.mark.parametrize("name", ["config.json", "config.json.new"])
@pytest.mark.parametrize("data", ["[" * 100_000, '{"a":' * 100_000, '{"format_version": ' + "9" * 100_000 + "}"])
def test_deeply_nested_or_huge_json_is_an_error(name: str, data: str, saved: Path) -> None:
    (saved / name).write_text(data, encoding="utf-8")

    with pytest.raises(revgen.CheckpointError, match=r"config\.json"):
        revgen.load(saved)


@pytest.mark.parametrize("entry", ["tokenizer", "weights"])
@pytest.mark.parametrize("name", ["../x", "..", ".", "", "/etc/passwd", "a\0b", "x" * 5000, "..\\x", "config.json"])
def test_a_file_name_outside_the_directory_is_rejected(entry: str, name: str, saved: Path) -> None:
    secret = saved.parent / "x"
    secret.write_bytes((saved / ("vocabulary.json" if entry == "tokenizer" else "model.safetensors")).read_bytes())
    change_config(saved, lambda content: content[entry].update(file=name))

    with pytest.raises(revgen.CheckpointError, match=r"model"):
        revgen.load(saved)

    assert secret.is_file()


def test_the_error_for_an_unregistered_cell_names_the_decorator(reviews: list[str], tmp_path: Path) -> None:
    class Passing(revgen.Cell):
        def param_shapes(self) -> dict[str, tuple[int, ...]]:
            return {"W": (self.input_size, self.hidden_size)}

        def step(self, p: Any, z: Any, h: Any) -> tuple[Any, Any]:
            h = z @ p.W + h * 0.5
            return h, h

    revgen.register_cell("passing")(Passing)
    try:
        model = revgen.create("passing-char", hidden_size=8)
        model.fit(reviews[:4], epochs=1, progress=False)
        model.save(tmp_path)
    finally:
        cells.unregister("passing")

    with pytest.raises(revgen.UnknownNameError, match=r"needs 'passing'.*@revgen\.register_cell\('passing'\)"):
        revgen.load(tmp_path)

    revgen.register_cell("passing")(Passing)
    try:
        assert same_model(revgen.load(tmp_path), model)
    finally:
        cells.unregister("passing")


def test_an_unregistered_tokenizer_is_named_in_the_error(saved: Path) -> None:
    change_config(saved, lambda content: content.update(level="syllable"))

    with pytest.raises(revgen.UnknownNameError, match=r"needs a tokenizer that is not registered.*'syllable'"):
        revgen.load(saved)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda arrays: arrays.pop("bias"), r"missing \['bias'\]"),
        (lambda arrays: arrays.update(color=np.zeros(3, np.float32)), r"unknown \['color'\]"),
        (lambda arrays: arrays.update(bias=arrays["bias"][:-1]), r"weight bias has the shape"),
        (lambda arrays: arrays.update(bias=arrays["bias"][:, None]), r"weight bias has the shape"),
        (lambda arrays: arrays.update(bias=arrays["bias"] * np.nan), "weight bias has values that are not finite"),
        (lambda arrays: arrays["embedding"].__setitem__((3, 3), np.inf), "weight embedding has values that are not"),
        (lambda arrays: arrays.update(bias=arrays["bias"] * np.float64(1e300)), "weight bias has values that are not"),
        (lambda arrays: arrays.update(bias=arrays["bias"].astype(np.int32)), "weight bias has values that are not"),
        (lambda arrays: arrays.clear(), "missing .*'embedding'"),
    ],
)
def test_weights_that_do_not_match_are_named_in_the_error(
    change: Callable[[dict[str, NDArray[Any]]], object], message: str, saved: Path
) -> None:
    change_weights(saved, change)

    with pytest.raises(revgen.CheckpointError, match=rf"model\.safetensors.*{message}"):
        revgen.load(saved)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x08\0\0\0\0\0\0\0{}      ",
        b"\xff\xff\xff\xff\xff\xff\xff\x7f{}",
        b'\x40\0\0\0\0\0\0\0{"bias":{"dtype":"BF16","shape":[1],"data_offsets":[0,2]}}       \0\0',
        b'\x48\0\0\0\0\0\0\0{"bias":{"dtype":"F32","shape":[1099511627776],"data_offsets":[0,4]}}  \0\0\0\0',
    ],
)
def test_malformed_weights_with_a_correct_hash_are_rejected(data: bytes, saved: Path) -> None:
    replace_file(saved, "weights", data)

    with pytest.raises(revgen.CheckpointError, match=r"model\.safetensors"):
        revgen.load(saved)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"\xff",
        b"[" * 100_000,
        b'{"level": "word", "tokens": ["<s>", "</s>", "<unk>", "a"]}',
        b'{"level": "char", "tokens": 3}',
        b'{"level": "char", "tokens": ["a", "b", "c"]}',
        b'{"level": "char", "tokens": ["<s>", "</s>", "<unk>", 7]}',
        b'{"level": "char", "tokens": ["<s>", "</s>", "<unk>", "a", "a"]}',
        b'{"level": "char", "tokens": ["<s>", "</s>", "<unk>", "a"]}',
    ],
)
def test_a_malformed_vocabulary_with_a_correct_hash_is_rejected(data: bytes, saved: Path) -> None:
    replace_file(saved, "tokenizer", data)

    with pytest.raises(revgen.CheckpointError):
        revgen.load(saved)


@pytest.mark.parametrize("data", [b"", b"\0" * 100, b"text", b"\xff" * 1000])
def test_a_malformed_subword_model_with_a_correct_hash_is_rejected(
    data: bytes, models_by_level: dict[str, LanguageModel], tmp_path: Path
) -> None:
    directory = models_by_level["subword"].save(tmp_path)
    replace_file(directory, "tokenizer", data)

    with pytest.raises(revgen.CheckpointError, match=r"tokenizer\.model"):
        revgen.load(directory)
