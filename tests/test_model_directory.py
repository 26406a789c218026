"""The directory of a saved model: what is in it, that it comes back whole, and what a damaged one answers."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import same
from numpy.typing import NDArray
from safetensors.numpy import load, save

import revgen
from revgen.errors import CheckpointError
from revgen.language_model import LanguageModel
from revgen.registry import cells
from revgen.storage import FORMAT_VERSION

FILES = ("config.json", "vocabulary.json", "model.safetensors")


@pytest.fixture(scope="module")
def models(small_model: LanguageModel, reviews: list[str]) -> dict[str, LanguageModel]:
    """A model of each level."""
    word = revgen.create("gru-word", hidden_size=12, num_layers=1, embedding_size=8)
    subword = revgen.create("elman-subword", hidden_size=12, tie_embeddings=False, tokenizer={"vocab_size": 400})
    for model in (word, subword):
        model.fit(reviews[:20], epochs=1, progress=False)
    return {"char": small_model, "word": word, "subword": subword}


@pytest.fixture(scope="module")
def kept(models: dict[str, LanguageModel], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved model, to be copied."""
    return models["char"].save(tmp_path_factory.mktemp("kept") / "model")


@pytest.fixture
def saved(kept: Path, tmp_path: Path) -> Path:
    """A saved model, to be spoilt."""
    return Path(shutil.copytree(kept, tmp_path / "model"))


def change_config(directory: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Rewrite config.json."""
    path = directory / "config.json"
    content = json.loads(path.read_bytes())
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")


def change_weights(directory: Path, change: Callable[[dict[str, NDArray[Any]]], object]) -> None:
    """Rewrite the weights, and their hash in config.json."""
    path = directory / "model.safetensors"
    arrays = load(path.read_bytes())
    change(arrays)
    replace_file(directory, "weights", save(arrays))


def replace_file(directory: Path, entry: str, data: bytes) -> None:
    """Put other content into a file, and its hash into config.json."""

    def update(content: dict[str, Any]) -> None:
        (directory / content[entry]["file"]).write_bytes(data)
        content[entry]["sha256"] = hashlib.sha256(data).hexdigest()

    change_config(directory, update)


def fresh(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A fresh interpreter."""
    root = str(Path(revgen.__file__).parents[1])
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        check=False,
        text=True,
        env=os.environ | {"PYTHONPATH": root},
    )


# The round trip


@pytest.mark.parametrize("level", ["char", "word", "subword"])
def test_a_loaded_model_is_the_saved_one(
    level: str, models: dict[str, LanguageModel], reviews: list[str], tmp_path: Path
) -> None:
    model = models[level]

    loaded = revgen.load(model.save(tmp_path / "model"))

    assert same(model, loaded)
    assert loaded.config == model.config
    assert loaded.info() == json.loads(json.dumps(model.info()))
    assert repr(loaded) == repr(model)
    assert loaded.generate("the ", n=3, seed=5) == model.generate("the ", n=3, seed=5)
    np.testing.assert_allclose(loaded.score(reviews[50]).logprobs, model.score(reviews[50]).logprobs, atol=1e-6)


@pytest.mark.parametrize("level", ["char", "word", "subword"])
def test_half_precision_halves_the_file_and_is_close(
    level: str, models: dict[str, LanguageModel], reviews: list[str], tmp_path: Path
) -> None:
    model = models[level]

    whole = model.save(tmp_path / "whole")
    half = model.save(tmp_path / "half", dtype="float16")

    assert (half / "model.safetensors").stat().st_size < 0.6 * (whole / "model.safetensors").stat().st_size
    loaded = revgen.load(half)
    assert all(array.dtype == np.float32 for array in loaded.weights.values())
    np.testing.assert_allclose(loaded.score(reviews[50]).logprobs, model.score(reviews[50]).logprobs, atol=0.02)


def test_a_model_is_saved_again_and_again_into_one_directory(models: dict[str, LanguageModel], tmp_path: Path) -> None:
    for level in ("char", "word", "subword", "char"):
        models[level].save(tmp_path)

        assert same(revgen.load(tmp_path), models[level])


def test_a_directory_may_be_named_by_a_string_and_made_with_its_parents(
    small_model: LanguageModel, tmp_path: Path
) -> None:
    directory = small_model.save(f"{tmp_path}/a/b/c")

    assert directory == tmp_path / "a" / "b" / "c"
    assert same(revgen.load(str(directory)), small_model)


def test_a_loaded_model_can_be_fitted_further(saved: Path, reviews: list[str]) -> None:
    model = revgen.load(saved)
    before = model.evaluate(reviews[:10]).nats_per_char

    model.fit(reviews[:10], epochs=2, progress=False)

    assert model.evaluate(reviews[:10]).nats_per_char < before


def test_metadata_comes_back_with_numbers_of_numpy_as_plain_ones(small_model: LanguageModel, saved: Path) -> None:
    model = revgen.load(saved)
    model.metadata |= {"licence": "MIT", "rate": np.float32(0.5), "count": np.int64(3)}

    loaded = revgen.load(model.save(saved))

    assert loaded.metadata | {"licence": "MIT", "rate": 0.5, "count": 3} == loaded.metadata
    assert loaded.metadata["training"] == small_model.metadata["training"]


def test_a_model_without_weights_cannot_be_saved(tmp_path: Path) -> None:
    with pytest.raises(revgen.NotFittedError):
        revgen.create("lstm-char").save(tmp_path / "model")

    assert not (tmp_path / "model").exists()


def test_an_unknown_precision_is_an_option_error(small_model: LanguageModel, tmp_path: Path) -> None:
    with pytest.raises(revgen.OptionError, match="dtype must be"):
        small_model.save(tmp_path, dtype="int8")  # type: ignore[arg-type]


@pytest.mark.parametrize(("value", "dtype"), [(np.nan, "float32"), (np.inf, "float32"), (1e6, "float16")])
def test_weights_that_could_not_be_loaded_again_do_not_take_the_place_of_good_ones(
    value: float, dtype: Any, small_model: LanguageModel, saved: Path
) -> None:
    model = revgen.load(saved)
    model.weights["bias"][0] = value

    with pytest.raises(revgen.CheckpointError, match="weight bias holds values that are not finite"):
        model.save(saved, dtype=dtype)

    assert same(revgen.load(saved), small_model)


# What is in it


@pytest.mark.parametrize(
    ("level", "tokenizer"), [("char", "vocabulary.json"), ("word", "vocabulary.json"), ("subword", "tokenizer.model")]
)
def test_the_directory_holds_four_files_and_no_remains(
    level: str, tokenizer: str, models: dict[str, LanguageModel], tmp_path: Path
) -> None:
    models[level].save(tmp_path)

    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        ["README.md", "config.json", "model.safetensors", tokenizer]
    )


def test_the_tokenizer_file_of_another_level_does_not_remain(models: dict[str, LanguageModel], tmp_path: Path) -> None:
    models["subword"].save(tmp_path)
    models["char"].save(tmp_path)

    assert not (tmp_path / "tokenizer.model").exists()
    assert same(revgen.load(tmp_path), models["char"])


def test_weights_in_bfloat16_are_read(saved: Path) -> None:
    from safetensors.torch import load_file, save

    arrays = {name: array.bfloat16() for name, array in load_file(saved / "model.safetensors").items()}
    replace_file(saved, "weights", save(arrays))

    for name, array in revgen.load(saved).weights.items():
        np.testing.assert_array_equal(array, arrays[name].float().numpy())


def test_the_configuration_names_versions_architecture_and_hashes(saved: Path, small_model: LanguageModel) -> None:
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


def test_the_card_tells_how_to_load_the_model_and_what_it_was_trained_with(saved: Path) -> None:
    card = (saved / "README.md").read_text(encoding="utf-8")

    assert card.startswith("---\nlibrary_name: revgen\npipeline_tag: text-generation\n")
    assert "# lstm-char" in card and "revgen.load(" in card and "## Training" in card and "learning_rate" in card


def test_the_card_is_written_once_and_then_yours(small_model: LanguageModel, saved: Path) -> None:
    (saved / "README.md").write_text("my own words", encoding="utf-8")

    small_model.save(saved)

    assert (saved / "README.md").read_text(encoding="utf-8") == "my own words"


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
def test_strange_metadata_does_not_keep_a_model_from_being_used(metadata: object, saved: Path, tmp_path: Path) -> None:
    change_config(saved, lambda content: content.update(metadata=metadata))

    model = revgen.load(saved)

    assert (model.save(tmp_path / "again") / "README.md").is_file()


# Damage


@pytest.mark.parametrize("name", FILES)
def test_a_truncated_file_is_named(name: str, saved: Path) -> None:
    path = saved / name
    data = path.read_bytes()
    for length in sorted({0, 1, 2, 7, 8, 9, *range(0, len(data), max(1, len(data) // 25)), len(data) - 1}):
        path.write_bytes(data[:length])

        with pytest.raises(revgen.CheckpointError, match=name):
            revgen.load(saved)


@pytest.mark.parametrize("name", ["vocabulary.json", "model.safetensors"])
def test_a_flipped_bit_is_found(name: str, saved: Path) -> None:
    path = saved / name
    data = path.read_bytes()
    for place in range(0, len(data), max(1, len(data) // 40)):
        flipped = bytearray(data)
        flipped[place] ^= 1 << place % 8
        path.write_bytes(flipped)

        with pytest.raises(revgen.CheckpointError, match=name):
            revgen.load(saved)


def test_a_flipped_bit_of_the_configuration_is_an_error_or_leaves_the_weights_alone(
    saved: Path, small_model: LanguageModel
) -> None:
    path = saved / "config.json"
    data = path.read_bytes()
    for place in range(0, len(data), 3):
        flipped = bytearray(data)
        flipped[place] ^= 1 << place % 7
        path.write_bytes(flipped)
        try:
            loaded = revgen.load(saved)
        except revgen.RevgenError as error:
            assert str(saved) in str(error), f"byte {place}"
        else:
            assert same(loaded, small_model), f"byte {place}"


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("data", [b"", b"\0" * 4096, b"{}", b"[1, 2]", b"null", b'"text"', b"\xff\xfe{", b"<html>404"])
def test_garbage_in_place_of_a_file_is_named(name: str, data: bytes, saved: Path) -> None:
    (saved / name).write_bytes(data)

    with pytest.raises(revgen.CheckpointError, match=name):
        revgen.load(saved)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(name: str, saved: Path) -> None:
    (saved / name).unlink()

    with pytest.raises(revgen.CheckpointError, match=name):
        revgen.load(saved)


@pytest.mark.parametrize("name", FILES)
def test_a_directory_in_place_of_a_file_is_named(name: str, saved: Path) -> None:
    (saved / name).unlink()
    (saved / name).mkdir()

    with pytest.raises(revgen.CheckpointError, match=name):
        revgen.load(saved)


@pytest.mark.parametrize("name", ["vocabulary.json", "model.safetensors"])
def test_the_file_of_another_model_is_refused(
    name: str, saved: Path, models: dict[str, LanguageModel], tmp_path: Path
) -> None:
    other = models["word"].save(tmp_path / "other")
    shutil.copy(other / name, saved / name)

    with pytest.raises(revgen.CheckpointError, match=f"{name}.*belongs to another model"):
        revgen.load(saved)


def test_the_configuration_of_another_model_is_refused(
    saved: Path, models: dict[str, LanguageModel], tmp_path: Path
) -> None:
    other = models["word"].save(tmp_path / "other")
    shutil.copy(other / "config.json", saved / "config.json")

    with pytest.raises(revgen.CheckpointError, match=r"vocabulary\.json"):
        revgen.load(saved)


def test_an_empty_directory_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(revgen.CheckpointError, match="not a model directory"):
        revgen.load(tmp_path)


def test_the_directory_of_another_library_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "gpt2", "n_layer": 12}', encoding="utf-8")

    with pytest.raises(revgen.CheckpointError, match=r"config\.json.*not of a revgen model"):
        revgen.load(tmp_path)


# A configuration that is JSON, and wrong


def at(*keys: str) -> Callable[[dict[str, Any], object], None]:
    """A function that puts a value into nested dictionaries."""

    def put(content: dict[str, Any], value: object) -> None:
        for key in keys[:-1]:
            content = content[key]
        content[keys[-1]] = value

    return put


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
def test_a_value_of_a_wrong_type_is_an_error_that_names_the_directory(
    keys: tuple[str, ...], value: object, saved: Path
) -> None:
    change_config(saved, lambda content: at(*keys)(content, value))

    with pytest.raises(revgen.RevgenError) as caught:
        revgen.load(saved)

    assert str(saved) in str(caught.value)


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
        {"dropout": "much"},
        {"tie_embeddings": "no"},
        {"unheard_of": 1},
        {"": 1},
        {"self": 1},
        {"cell_options": {"nonlinearity": "tanh"}},
        {"cell_options": {"input_size": 3}},
        {"cell_options": {"shapes": 3}},
    ],
)
def test_a_configuration_that_its_weights_do_not_have_is_refused_without_building_it(
    change: dict[str, Any], saved: Path
) -> None:
    change_config(saved, lambda content: content["config"].update(change))

    with pytest.raises(revgen.CheckpointError, match=str(saved)):
        revgen.load(saved)


@pytest.mark.parametrize("version", [0, "1", None, [1], True])
def test_a_value_that_is_no_format_version_is_refused(version: object, saved: Path) -> None:
    change_config(saved, lambda content: content.update(format_version=version))

    with pytest.raises(revgen.CheckpointError, match=r"config\.json has the format version .* reads 1 to \d+$"):
        revgen.load(saved)


@pytest.mark.parametrize("version", [FORMAT_VERSION + 1, 10**9])
def test_a_newer_format_version_is_refused_with_the_remedy(version: int, saved: Path) -> None:
    change_config(saved, lambda content: content.update(format_version=version))

    with pytest.raises(revgen.CheckpointError, match=r"config\.json has the format version .*upgrade revgen"):
        revgen.load(saved)


def test_an_older_format_version_is_read(
    saved: Path, small_model: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("revgen.storage.FORMAT_VERSION", FORMAT_VERSION + 1)

    assert same(revgen.load(saved), small_model)


def test_keys_that_a_later_version_may_add_are_no_harm(saved: Path, small_model: LanguageModel) -> None:
    change_config(saved, lambda content: content.update(colour="blue"))
    change_config(saved, lambda content: content["tokenizer"].update(colour="blue"))

    assert same(revgen.load(saved), small_model)


@pytest.mark.parametrize("name", ["config.json", "config.json.new"])
@pytest.mark.parametrize("data", ["[" * 100_000, '{"a":' * 100_000, '{"format_version": ' + "9" * 100_000 + "}"])
def test_deep_or_endless_json_is_an_error_like_any_other(name: str, data: str, saved: Path) -> None:
    (saved / name).write_text(data, encoding="utf-8")

    with pytest.raises(revgen.CheckpointError, match=r"config\.json"):
        revgen.load(saved)


@pytest.mark.parametrize("entry", ["tokenizer", "weights"])
@pytest.mark.parametrize("name", ["../x", "..", ".", "", "/etc/passwd", "a\0b", "x" * 5000, "..\\x", "config.json"])
def test_a_file_name_leads_nowhere_else(entry: str, name: str, saved: Path) -> None:
    secret = saved.parent / "x"
    secret.write_bytes((saved / ("vocabulary.json" if entry == "tokenizer" else "model.safetensors")).read_bytes())
    change_config(saved, lambda content: content[entry].update(file=name))

    with pytest.raises(revgen.CheckpointError, match=r"model"):
        revgen.load(saved)

    assert secret.is_file()


def test_an_unregistered_cell_is_named_with_the_decorator_that_brings_it(reviews: list[str], tmp_path: Path) -> None:
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
        assert same(revgen.load(tmp_path), model)
    finally:
        cells.unregister("passing")


def test_an_unregistered_tokenizer_is_named(saved: Path) -> None:
    change_config(saved, lambda content: content.update(level="syllable"))

    with pytest.raises(revgen.UnknownNameError, match=r"needs a tokenizer that is not registered.*'syllable'"):
        revgen.load(saved)


# Weights that are well-formed, and wrong


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda arrays: arrays.pop("bias"), r"missing \['bias'\]"),
        (lambda arrays: arrays.update(colour=np.zeros(3, np.float32)), r"unknown \['colour'\]"),
        (lambda arrays: arrays.update(bias=arrays["bias"][:-1]), r"weight bias has the shape"),
        (lambda arrays: arrays.update(bias=arrays["bias"][:, None]), r"weight bias has the shape"),
        (lambda arrays: arrays.update(bias=arrays["bias"] * np.nan), "weight bias holds values that are not finite"),
        (lambda arrays: arrays["embedding"].__setitem__((3, 3), np.inf), "weight embedding holds values that are not"),
        (lambda arrays: arrays.update(bias=arrays["bias"].astype(np.int32)), "weight bias holds values that are not"),
        (lambda arrays: arrays.clear(), "missing .*'embedding'"),
    ],
)
def test_weights_that_do_not_fit_are_named(
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
def test_weights_that_are_no_such_file_are_named_though_their_hash_is_right(data: bytes, saved: Path) -> None:
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
def test_a_tokenizer_that_is_none_is_refused_though_its_hash_is_right(data: bytes, saved: Path) -> None:
    replace_file(saved, "tokenizer", data)

    with pytest.raises(revgen.CheckpointError):
        revgen.load(saved)


@pytest.mark.parametrize("data", [b"", b"\0" * 100, b"text", b"\xff" * 1000])
def test_a_subword_model_that_is_none_is_refused_though_its_hash_is_right(
    data: bytes, models: dict[str, LanguageModel], tmp_path: Path
) -> None:
    directory = models["subword"].save(tmp_path)
    replace_file(directory, "tokenizer", data)

    with pytest.raises(revgen.CheckpointError, match=r"tokenizer\.model"):
        revgen.load(directory)


# Saving is all or nothing

SAVER = """
import os, random, signal, sys, time
from pathlib import Path
import numpy as np
import revgen

one, other, target = (Path(path) for path in sys.argv[1:])
a, b = revgen.load(one), revgen.load(other)
random.seed(0)
a.save(target)
seen = set()
for kill in range(25):
    child = os.fork()
    if child == 0:
        while True:
            b.save(target)
            a.save(target)
    time.sleep(random.uniform(0.0, 0.08))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    found = revgen.load(target)
    wanted = a if found.name == a.name else b
    assert found.name == wanted.name and found.tokenizer == wanted.tokenizer, kill
    assert found.weights.keys() == wanted.weights.keys(), kill
    assert all(np.array_equal(found.weights[k], wanted.weights[k]) for k in wanted.weights), kill
    seen.add(found.name)
a.save(target)
print(len(seen), len(list(target.iterdir())))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the test forks the process that it kills")
def test_a_process_killed_while_it_saves_leaves_one_model_or_the_other(
    models: dict[str, LanguageModel], tmp_path: Path
) -> None:
    one, other = models["char"].save(tmp_path / "one"), models["word"].save(tmp_path / "other")

    done = fresh(SAVER, str(one), str(other), str(tmp_path / "target"))

    assert done.returncode == 0, done.stderr
    assert done.stdout == "2 4\n", "2: both models were found; 4: the next save leaves nothing of the killed ones"


@pytest.mark.parametrize("failing", range(1, 8))
@pytest.mark.parametrize("step", ["replace", "write"])
def test_a_failure_at_any_step_of_saving_leaves_a_model(
    step: str, failing: int, models: dict[str, LanguageModel], saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0
    module, name = (Path, "replace") if step == "replace" else (os, "fsync")
    original = getattr(module, name)

    def fail(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == failing:
            raise OSError(28, "No space left on device")
        return original(*arguments)

    (saved / "README.md").unlink()
    monkeypatch.setattr(module, name, fail)
    try:
        models["word"].save(saved)
    except revgen.CheckpointError as error:
        assert "No space left" in str(error) and str(saved) in str(error)
    finally:
        monkeypatch.undo()

    loaded = revgen.load(saved)
    assert same(loaded, models["char"]) or same(loaded, models["word"])
    models["subword"].save(saved)
    assert same(revgen.load(saved), models["subword"])


def test_a_save_that_was_cut_off_is_brought_to_its_end(
    models: dict[str, LanguageModel], saved: Path, tmp_path: Path
) -> None:
    other = models["word"].save(tmp_path / "other")
    for name in FILES:
        shutil.copy(other / name, saved / f"{name}.new")

    assert same(revgen.load(saved), models["word"])
    assert not list(saved.glob("*.new"))


def test_a_save_that_was_cut_off_before_it_counted_is_as_if_it_had_never_been(
    models: dict[str, LanguageModel], saved: Path, tmp_path: Path
) -> None:
    other = models["word"].save(tmp_path / "other")
    for name in FILES[1:]:
        shutil.copy(other / name, saved / f"{name}.new")

    assert same(revgen.load(saved), models["char"])


@pytest.mark.parametrize("path", ["file", "file/below", "/dev/null", "/proc/nowhere/model", "x" * 5000])
def test_an_impossible_place_to_save_in_is_named(path: str, small_model: LanguageModel, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way", encoding="utf-8")

    with pytest.raises(revgen.CheckpointError, match="could not save the model"):
        small_model.save(tmp_path / path)

    assert (tmp_path / "file").read_text(encoding="utf-8") == "in the way"


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_directory_that_may_not_be_written_to_is_named(small_model: LanguageModel, tmp_path: Path) -> None:
    tmp_path.chmod(0o555)

    with pytest.raises(revgen.CheckpointError, match="could not save the model: Permission denied"):
        small_model.save(tmp_path)


# What it does not cost


@pytest.mark.parametrize("level", ["char", "word", "subword"])
def test_a_saved_recurrent_model_writes_scores_and_is_measured_without_torch(
    level: str, models: dict[str, LanguageModel], tmp_path: Path
) -> None:
    directory = models[level].save(tmp_path)

    done = fresh(
        "import sys, revgen\n"
        "model = revgen.load(sys.argv[1])\n"
        "print(repr(model.generate('the ', seed=5, max_tokens=30)))\n"
        "model.generate('the ', n=3, temperature=0.5, top_k=5, top_p=0.9, min_p=0.01, repetition_penalty=1.1)\n"
        "list(model.stream('the ', max_tokens=3)); model.score('a text'); model.evaluate(['a text'])\n"
        "assert 'torch' not in sys.modules",
        str(directory),
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == repr(models[level].generate("the ", seed=5, max_tokens=30))


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        ("import revgen", ("numpy", "torch")),
        ("import revgen.cli; revgen.cli.build_parser()[0].format_help()", ("numpy", "torch")),
        ("import revgen.cli; revgen.cli.main(['list'])", ("torch",)),
        ("import revgen; revgen.list_models(); revgen.create('lstm-char')", ("torch",)),
    ],
)
def test_what_needs_no_library_imports_none(code: str, absent: tuple[str, ...]) -> None:
    done = fresh(f"{code}\nimport sys; print('imported', [name for name in {absent} if name in sys.modules])")

    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "imported []"


# What could not be loaded is never written ------------------------------------------------


def test_a_model_whose_tokenizer_could_not_be_loaded_is_not_saved(
    small_model: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = small_model.save(tmp_path / "model")
    before = {path.name: path.read_bytes() for path in directory.iterdir()}
    again = revgen.load(directory)
    again.weights = {name: array + 1 for name, array in again.weights.items()}
    monkeypatch.setattr(type(again.tokenizer), "to_bytes", lambda self: b'{"level": "char", "tokens": []}')

    with pytest.raises(CheckpointError, match=r"vocabulary\.json is damaged"):
        again.save(directory)
    with pytest.raises(CheckpointError, match=r"vocabulary\.json is damaged"):
        again.save(tmp_path / "new")

    assert {path.name: path.read_bytes() for path in directory.iterdir()} == before
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda model: model.metadata.update(notes="x" * (5 << 20)), "more than 4,194,304"),
        (lambda model: model.weights.update(more=np.zeros(3, np.float32)), r"unknown \['more'\]"),
        (lambda model: model.weights.update(bias=np.zeros(3, np.float32)), "the weight bias has the shape"),
    ],
)
def test_a_model_that_could_not_be_loaded_is_not_saved(
    small_model: LanguageModel, tmp_path: Path, change: Any, message: str
) -> None:
    model = revgen.load(small_model.save(tmp_path / "model"))
    change(model)

    with pytest.raises(CheckpointError, match=message):
        model.save(tmp_path / "new")

    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("text", ["GATTACA" * 20, "静夜思床前明月光", "Abelisaurus"])
def test_a_subword_model_of_text_without_spaces_is_loaded_again(text: str, tmp_path: Path) -> None:
    model = revgen.create("gru-subword", hidden_size=8, num_layers=1)
    model.fit([text] * 30, epochs=1, progress=False)

    loaded = revgen.load(model.save(tmp_path / "model"))

    assert loaded.generate("a b", seed=1, max_tokens=9) == model.generate("a b", seed=1, max_tokens=9)
