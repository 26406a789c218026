"""Damaged and malicious model directories: loading each one raises a RevgenError or gives a model that works.

When a file is changed, its checksum in config.json is changed too, as an attacker would do, so that the code after the
checksum is tested. A model that loads must also generate text and give its information and its card.
"""

from __future__ import annotations

import copy
import hashlib
import json
import random
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from safetensors.numpy import load, save

import revgen
from revgen.architectures.neural import NeuralModel
from revgen.card import make_card
from revgen.language_model import LanguageModel
from revgen.registry import architecture_names, cells, levels_of
from revgen.schema import check_options
from revgen.tokenizers import CharTokenizer, SubwordTokenizer, Tokenizer, WordTokenizer

TEXT = "the band of the song, the song of the band. "
SIZES = {"hidden_size": 8, "num_layers": 1, "embedding_size": 8, "num_heads": 2, "context": 4, "order": 3}
RAM_DISK = Path("/dev/shm")
NAMES = [name for name in architecture_names() if levels_of(name)]
AROUND_OTHERS = ["mixture-char", "gated-mixture-char", "document-cache-char"]


@pytest.fixture(scope="module")
def tokenizers() -> dict[str, Tokenizer]:
    """A small tokenizer of each level, by name."""
    return {
        "char": CharTokenizer.train([TEXT]),
        "word": WordTokenizer.train([TEXT], min_count=1),
        "subword": SubwordTokenizer.train([TEXT * 9], vocab_size=290),
    }


def create_small(name: str, tokenizer: Tokenizer) -> LanguageModel:
    """Return a small model; a neural one has initial weights, any other is fitted."""
    model_class = type(revgen.create(name))
    options: Any = {key: value for key, value in SIZES.items() if key in model_class.Config.__dataclass_fields__}
    model = revgen.create(name, tokenizer=tokenizer, **options)
    if isinstance(model, NeuralModel):
        model.weights = model.init_params(np.random.default_rng(0))
    else:
        model.fit([TEXT] * 3, progress=False)
    return model


@pytest.fixture(scope="module")
def directories(tokenizers: dict[str, Tokenizer], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A saved model of each architecture and each level, and a mixture, by name."""
    root = tmp_path_factory.mktemp("models")
    names = [*(f"{name}-char" for name in NAMES), "gru-word", "gru-subword"]
    models = {name: create_small(name, tokenizers[name.rpartition("-")[2]]) for name in names}
    models["mixture-char"] = revgen.mix([models["kneser-ney-char"], models["gru-char"]])
    models["gated-mixture-char"] = revgen.mix([models["kneser-ney-char"], models["gru-char"]], gated=True)
    models["document-cache-char"] = models["kneser-ney-char"].adaptive()
    return {name: model.save(root / name) for name, model in models.items()}


@pytest.fixture
def directory(directories: dict[str, Path]) -> Iterator[Any]:
    """A function that copies the directory of a name; the copy is in memory if possible, for thousands of changes."""
    with tempfile.TemporaryDirectory(dir=RAM_DISK if RAM_DISK.is_dir() else None) as folder:
        yield lambda name: Path(shutil.copytree(directories[name], Path(folder) / name, dirs_exist_ok=True))


def loads_and_works(path: Path) -> bool:
    """Return whether a directory loads; if so, the model must work, otherwise the error must be a RevgenError."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        try:
            model = revgen.load(path)
        except revgen.RevgenError as error:
            assert len(str(error)) < 2000
            return False
        model.generate("the", max_tokens=2, seed=0)
        model.info()
        make_card(model).encode()
        return True


def replace_file(path: Path, entry: str, data: bytes) -> None:
    """Replace the content of the file of an entry of config.json, and the checksum of the entry."""
    content = json.loads((path / "config.json").read_bytes())
    (path / content[entry]["file"]).write_bytes(data)
    content[entry]["sha256"] = hashlib.sha256(data).hexdigest()
    (path / "config.json").write_text(json.dumps(content), "utf-8")


def key_paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of keys and indices to each value in JSON."""
    yield path
    for key, item in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from key_paths(item, (*path, key))


def with_value(content: Any, key_path: tuple[Any, ...], value: Any) -> Any:
    """Return a copy of JSON with another value at a path of keys."""
    if not key_path:
        return value
    content = copy.deepcopy(content)
    inner = content
    for key in key_path[:-1]:
        inner = inner[key]
    inner[key_path[-1]] = value
    return content


# Truncated files and flipped bits


@pytest.mark.parametrize("entry", ["tokenizer", "weights", "config"])
@pytest.mark.parametrize("name", ["gru-char", "gru-word", "gru-subword", "kneser-ney-char"])
def test_truncated_file_is_rejected_at_every_length(name: str, entry: str, directory: Any) -> None:
    path = directory(name)
    file = "config.json" if entry == "config" else json.loads((path / "config.json").read_bytes())[entry]["file"]
    data = (path / file).read_bytes()
    step = max(1, len(data) // 300)
    for length in sorted({*range(0, len(data), step), *range(max(0, len(data) - 9), len(data))}):
        if entry == "config":
            (path / file).write_bytes(data[:length])
        else:
            replace_file(path, entry, data[:length])
        assert not loads_and_works(path) or entry == "tokenizer", length


@pytest.mark.parametrize("entry", ["tokenizer", "weights", "config"])
@pytest.mark.parametrize("name", ["gru-char", "gru-word", "gru-subword", "kneser-ney-char", "mixture-char"])
def test_flipped_bits_are_rejected_or_harmless(name: str, entry: str, directory: Any) -> None:
    path = directory(name)
    content = json.loads((path / "config.json").read_bytes())
    file = "config.json" if entry == "config" else content[entry]["file"]
    data = (path / file).read_bytes()
    rng = random.Random(0)
    for _ in range(200):
        damaged = bytearray(data)
        for _ in range(rng.choice((1, 1, 2, 8))):
            damaged[rng.randrange(min(len(data), rng.choice((64, 1024, 1 << 30))))] ^= 1 << rng.randrange(8)
        if entry == "config":
            (path / file).write_bytes(damaged)
        else:
            replace_file(path, entry, bytes(damaged))
        loads_and_works(path)


# Values of config.json

HOSTILE_VALUES: list[Any] = [
    None,
    True,
    0,
    -1,
    3,
    10**9,
    2**63,
    10**400,
    -(10**400),
    0.5,
    1e308,
    float("nan"),
    float("inf"),
    "",
    "text",
    "../../../etc/passwd",
    "\ud800",
    "a\0b",
    "9" * 5000,
    [],
    [[]],
    [1] * 1000,
    ["a", "a"],
    {},
    {"a": {"b": [None]}},
    {"": 1},
]

FULLY_TESTED = ("gru-char", "mixture-char")
"""The models for which every value of config.json is replaced; for the others, only the values of ``config``."""


@pytest.mark.parametrize("name", [*(f"{name}-char" for name in NAMES), *AROUND_OTHERS])
@pytest.mark.parametrize("count", [8, pytest.param(len(HOSTILE_VALUES), marks=pytest.mark.fuzz)])
def test_replacing_any_value_of_the_config_is_rejected_or_harmless(name: str, count: int, directory: Any) -> None:
    path = directory(name)
    content = json.loads((path / "config.json").read_bytes())
    rng = random.Random(name)
    for key_path in key_paths(content):
        if key_path[:1] != ("config",) and name not in FULLY_TESTED:
            continue
        for value in rng.sample(HOSTILE_VALUES, count):
            (path / "config.json").write_text(json.dumps(with_value(content, key_path, value)), "utf-8")
            loads_and_works(path)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None), max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=8,
)


@pytest.mark.parametrize("name", ["lstm-char", "transformer-char", "mixture-char", "textgenrnn-char"])
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_random_values_in_the_config_are_rejected_or_harmless(name: str, data: st.DataObject, directory: Any) -> None:
    path = directory(name)
    content = json.loads((path / "config.json").read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        content = with_value(content, data.draw(st.sampled_from([*key_paths(content)])), data.draw(JSON))
    (path / "config.json").write_text(json.dumps(content), "utf-8")
    loads_and_works(path)


# Weights


@pytest.mark.parametrize("name", [*(f"{name}-char" for name in NAMES), *AROUND_OTHERS])
def test_changed_missing_and_additional_arrays_are_rejected_or_harmless(name: str, directory: Any) -> None:
    path = directory(name)
    arrays = load((path / "model.safetensors").read_bytes())
    for key, array in arrays.items():
        replacements = [
            array[:-1],
            array[None],
            array.astype(np.float64) * np.nan,
            array.astype(np.int64),
            np.zeros((0, 3), np.float32),
            array.astype(bool),
            array.astype(np.float16) if array.dtype.kind == "f" else array[::-1].copy(),
        ]
        for replacement in replacements:
            replace_file(path, "weights", save(arrays | {key: replacement}))
            loads_and_works(path)
        replace_file(path, "weights", save({other: value for other, value in arrays.items() if other != key}))
        assert not loads_and_works(path), key
    replace_file(path, "weights", save(arrays | {"extra": np.zeros(3, np.float32)}))
    loads_and_works(path)


@pytest.mark.parametrize(
    "header",
    [
        {"a": {"dtype": "F32", "shape": [2**62, 0], "data_offsets": [0, 0]}},
        {"a": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}},
        {"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}},
        {"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}},
        {"a": {"dtype": "F8_E4M3", "shape": [4], "data_offsets": [0, 4]}},
        {"a": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}},
        {"a": {"dtype": "O", "shape": [1], "data_offsets": [0, 4]}},
        {"__metadata__": {"a": "b"}},
        {"__metadata__": 3},
        {str(i): {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for i in range(20_000)},
    ],
    ids=lambda header: str(header)[:40],
)
def test_invalid_headers_of_weights_are_rejected(header: dict[str, Any], directory: Any) -> None:
    path = directory("gru-char")
    text = json.dumps(header).encode()
    replace_file(path, "weights", len(text).to_bytes(8, "little") + text + b"\0" * 4)

    assert not loads_and_works(path)


# Configurations that would take too much memory or time


def set_options(path: Path, **options: Any) -> None:
    """Change options in config.json."""
    content = json.loads((path / "config.json").read_bytes())
    content["config"] |= options
    (path / "config.json").write_text(json.dumps(content), "utf-8")


def test_hidden_size_of_a_billion_is_rejected(directory: Any) -> None:
    path = directory("gru-char")
    set_options(path, hidden_size=10**9)

    with pytest.raises(
        revgen.CheckpointError, match=r"config\.json .* hidden_size must be a whole number from 1 to 65,536"
    ):
        revgen.load(path)


def test_network_is_not_built_before_the_shapes_of_its_weights_are_checked(directory: Any) -> None:
    """256 layers of 65,536 units would take 26 terabytes."""
    import torch

    revgen.register_cell("torch-gru")(torch.nn.GRU)
    try:
        path = directory("gru-char")
        model = revgen.create("torch-gru-char", tokenizer=revgen.load(path).tokenizer, hidden_size=8)
        assert isinstance(model, NeuralModel)
        model.weights = model.init_params(np.random.default_rng(0))
        model.save(path, overwrite=True)
        assert loads_and_works(path)
        set_options(path, hidden_size=65_536, num_layers=256)

        with pytest.raises(revgen.CheckpointError, match=r"model\.safetensors: the weights do not fit"):
            revgen.load(path)
    finally:
        cells.unregister("torch-gru")


def test_module_cell_may_read_its_weights_in_init(tokenizers: dict[str, Tokenizer]) -> None:
    import torch

    @revgen.register_cell("reading")
    class ReadingCell(torch.nn.GRU):
        def __init__(self, *sizes: int) -> None:
            super().__init__(*sizes)
            self.largest = float(next(self.parameters()).detach().max())

    try:
        model = revgen.create("reading-char", tokenizer=tokenizers["char"], hidden_size=8)
        model.fit([TEXT] * 3, epochs=1, progress=False)
        assert model.generate("the", max_tokens=2, seed=0).startswith("the")
    finally:
        cells.unregister("reading")


@pytest.mark.parametrize("nested", [False, True])
def test_mixture_of_thousands_of_models_is_rejected(nested: bool, directory: Any) -> None:
    path = directory("mixture-char")
    component = json.loads((path / "config.json").read_bytes())["config"]["models"][1]
    config = {"models": [component] * 40, "shares": [1 / 40] * 40}
    inner = {"architecture": "mixture", "config": config} if nested else component
    set_options(
        path, models=[inner] * 40 if nested else [inner] * 2000, shares=[1 / 40] * 40 if nested else [5e-4] * 2000
    )

    with pytest.raises(revgen.CheckpointError, match="the number of models must be at most 64, not"):
        revgen.load(path)


def test_config_file_of_several_megabytes_is_rejected(directory: Any) -> None:
    path = directory("gru-char")
    with (path / "config.json").open("ab") as file:
        file.write(b" " * (5 << 20))

    with pytest.raises(revgen.CheckpointError, match=r"config\.json is damaged.*bytes, more than 4,194,304"):
        revgen.load(path)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (10**400, "add cannot be 1000"),
        (1e300, "add cannot be 1e\\+300"),
        ("much", "add cannot be 'much'"),
        (True, "add cannot be True"),
        ([1.0], "add cannot be \\[1.0\\]"),
    ],
)
def test_option_of_the_wrong_type_or_size_is_rejected(value: Any, message: str, directory: Any) -> None:
    from dataclasses import dataclass

    @dataclass(frozen=True)
    class ExampleConfig:
        add: float = 1.0

    with pytest.raises(revgen.OptionError, match=message):
        check_options(ExampleConfig, {"add": value})


def test_message_about_missing_weights_lists_only_a_few_names(directory: Any) -> None:
    path = directory("lstm-char")
    set_options(path, num_layers=200)

    with pytest.raises(revgen.CheckpointError, match=r"missing \['layers.1.U', .* and \d+ more\], unknown \[\]"):
        revgen.load(path)
