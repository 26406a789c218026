"""Model directories that are damaged, or made to do harm: each is refused by an error of the family, or does none.

Where a file is changed its checksum in config.json is changed with it, as whoever means harm would: it is the readers
behind the checksum that are tried. A directory that loads must also write, and describe itself.
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
from revgen.registry import architectures, cells
from revgen.schema import check_options
from revgen.tokenizers import CharTokenizer, SubwordTokenizer, Tokenizer, WordTokenizer

TEXT = "the band of the song, the song of the band. "
SIZES = {"hidden_size": 8, "num_layers": 1, "embedding_size": 8, "num_heads": 2, "context": 4, "order": 3}
MEMORY = Path("/dev/shm")
NAMES = sorted({*architectures.names(), *cells.names()} - {"mixture"})


@pytest.fixture(scope="module")
def tokenizers() -> dict[str, Tokenizer]:
    """A small tokenizer of each level."""
    return {
        "char": CharTokenizer.train([TEXT]),
        "word": WordTokenizer.train([TEXT], min_count=1),
        "subword": SubwordTokenizer.train([TEXT * 9], vocab_size=290),
    }


def small(name: str, tokenizer: Tokenizer) -> LanguageModel:
    """A model of a few numbers, with weights, though not with trained ones."""
    kind = type(revgen.create(name))
    options: Any = {key: value for key, value in SIZES.items() if key in kind.Config.__dataclass_fields__}
    model = revgen.create(name, tokenizer=tokenizer, **options)
    if isinstance(model, NeuralModel):
        model.weights = model.init_params(np.random.default_rng(0))
    else:
        model.fit([TEXT] * 3, progress=False)
    return model


@pytest.fixture(scope="module")
def directories(tokenizers: dict[str, Tokenizer], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A saved model of each architecture, each level, and a mixture."""
    root = tmp_path_factory.mktemp("models")
    names = [*(f"{name}-char" for name in NAMES), "gru-word", "gru-subword"]
    models = {name: small(name, tokenizers[name.rpartition("-")[2]]) for name in names}
    models["mixture-char"] = revgen.mix([models["kneser-ney-char"], models["gru-char"]])
    return {name: model.save(root / name) for name, model in models.items()}


@pytest.fixture
def directory(directories: dict[str, Path]) -> Iterator[Any]:
    """A copy of one of them by its name, to be spoilt thousands of times: in memory, where there is such a place."""
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as place:
        yield lambda name: Path(shutil.copytree(directories[name], Path(place) / name, dirs_exist_ok=True))


def tried(path: Path) -> bool:
    """Whether a directory loads and can be used; that it does not is an error of the family, of one kind or another."""
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


def put(path: Path, entry: str, data: bytes) -> None:
    """Other bytes in the tokenizer's file, or that of the weights, with the checksum that they have."""
    content = json.loads((path / "config.json").read_bytes())
    (path / content[entry]["file"]).write_bytes(data)
    content[entry]["sha256"] = hashlib.sha256(data).hexdigest()
    (path / "config.json").write_text(json.dumps(content), "utf-8")


def places(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to each value in JSON."""
    yield place
    for key, item in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(item, (*place, key))


def changed(content: Any, place: tuple[Any, ...], value: Any) -> Any:
    """A copy of JSON with another value at a place."""
    if not place:
        return value
    content = copy.deepcopy(content)
    inner = content
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    return content


# Truncated, flipped


@pytest.mark.parametrize("entry", ["tokenizer", "weights", "config"])
@pytest.mark.parametrize("name", ["gru-char", "gru-word", "gru-subword", "kneser-ney-char"])
def test_truncated_at_every_length(name: str, entry: str, directory: Any) -> None:
    path = directory(name)
    file = "config.json" if entry == "config" else json.loads((path / "config.json").read_bytes())[entry]["file"]
    data = (path / file).read_bytes()
    step = max(1, len(data) // 300)
    for length in sorted({*range(0, len(data), step), *range(max(0, len(data) - 9), len(data))}):
        if entry == "config":
            (path / file).write_bytes(data[:length])
        else:
            put(path, entry, data[:length])
        assert not tried(path) or entry == "tokenizer", length


@pytest.mark.parametrize("entry", ["tokenizer", "weights", "config"])
@pytest.mark.parametrize("name", ["gru-char", "gru-word", "gru-subword", "kneser-ney-char", "mixture-char"])
def test_flipped_bits(name: str, entry: str, directory: Any) -> None:
    path = directory(name)
    content = json.loads((path / "config.json").read_bytes())
    file = "config.json" if entry == "config" else content[entry]["file"]
    data = (path / file).read_bytes()
    chance = random.Random(0)
    for _ in range(200):
        spoilt = bytearray(data)
        for _ in range(chance.choice((1, 1, 2, 8))):
            spoilt[chance.randrange(min(len(data), chance.choice((64, 1024, 1 << 30))))] ^= 1 << chance.randrange(8)
        if entry == "config":
            (path / file).write_bytes(spoilt)
        else:
            put(path, entry, bytes(spoilt))
        tried(path)


# Values of config.json

HOSTILE: list[Any] = [
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


WHOLE = ("gru-char", "mixture-char")
"""Of these all of the configuration is tried, of others what is their own."""


@pytest.mark.parametrize("name", [*(f"{name}-char" for name in NAMES), "mixture-char"])
def test_every_value_in_turn_is_another(name: str, directory: Any) -> None:
    path = directory(name)
    whole = json.loads((path / "config.json").read_bytes())
    for place in places(whole):
        if place[:1] != ("config",) and name not in WHOLE:
            continue
        for value in HOSTILE:
            (path / "config.json").write_text(json.dumps(changed(whole, place, value)), "utf-8")
            tried(path)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None), max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=8,
)


@pytest.mark.parametrize("name", ["lstm-char", "transformer-char", "mixture-char", "textgenrnn-char"])
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_value_anywhere(name: str, data: st.DataObject, directory: Any) -> None:
    path = directory(name)
    content = json.loads((path / "config.json").read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        content = changed(content, data.draw(st.sampled_from([*places(content)])), data.draw(JSON))
    (path / "config.json").write_text(json.dumps(content), "utf-8")
    tried(path)


# Weights


@pytest.mark.parametrize("name", [*(f"{name}-char" for name in NAMES), "mixture-char"])
def test_arrays_that_are_missing_more_or_others(name: str, directory: Any) -> None:
    path = directory(name)
    arrays = load((path / "model.safetensors").read_bytes())
    for key, array in arrays.items():
        others = [
            array[:-1],
            array[None],
            array.astype(np.float64) * np.nan,
            array.astype(np.int64),
            np.zeros((0, 3), np.float32),
            array.astype(bool),
            array.astype(np.float16) if array.dtype.kind == "f" else array[::-1].copy(),
        ]
        for other in others:
            put(path, "weights", save(arrays | {key: other}))
            tried(path)
        put(path, "weights", save({k: v for k, v in arrays.items() if k != key}))
        assert not tried(path), key
    put(path, "weights", save(arrays | {"more": np.zeros(3, np.float32)}))
    tried(path)


@pytest.mark.parametrize(
    "head",
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
    ids=lambda head: str(head)[:40],
)
def test_heads_of_weights_that_claim_too_much(head: dict[str, Any], directory: Any) -> None:
    path = directory("gru-char")
    text = json.dumps(head).encode()
    put(path, "weights", len(text).to_bytes(8, "little") + text + b"\0" * 4)

    assert not tried(path)


# What would take all memory, or all time


def configured(path: Path, **options: Any) -> None:
    """Other options in config.json."""
    content = json.loads((path / "config.json").read_bytes())
    content["config"] |= options
    (path / "config.json").write_text(json.dumps(content), "utf-8")


def test_a_billion_units_are_refused_by_their_number(directory: Any) -> None:
    path = directory("gru-char")
    configured(path, hidden_size=10**9)

    with pytest.raises(
        revgen.CheckpointError, match=r"config\.json .* hidden_size must be a whole number from 1 to 65,536"
    ):
        revgen.load(path)


def test_the_largest_network_of_modules_is_not_built_before_its_weights_fit(directory: Any) -> None:
    """256 layers of 65,536 units would take 26 terabytes."""
    import torch

    revgen.register_cell("torch-gru")(torch.nn.GRU)
    try:
        path = directory("gru-char")
        model = revgen.create("torch-gru-char", tokenizer=revgen.load(path).tokenizer, hidden_size=8)
        assert isinstance(model, NeuralModel)
        model.weights = model.init_params(np.random.default_rng(0))
        model.save(path)
        assert tried(path)
        configured(path, hidden_size=65_536, num_layers=256)

        with pytest.raises(revgen.CheckpointError, match=r"model\.safetensors: not the weights of its configuration"):
            revgen.load(path)
    finally:
        cells.unregister("torch-gru")


def test_a_cell_that_looks_into_its_values_as_it_is_made_is_made_all_the_same(tokenizers: dict[str, Tokenizer]) -> None:
    import torch

    @revgen.register_cell("looking")
    class Looking(torch.nn.GRU):
        def __init__(self, *sizes: int) -> None:
            super().__init__(*sizes)
            self.largest = float(next(self.parameters()).detach().max())

    try:
        model = revgen.create("looking-char", tokenizer=tokenizers["char"], hidden_size=8)
        model.fit([TEXT] * 3, epochs=1, progress=False)
        assert model.generate("the", max_tokens=2, seed=0).startswith("the")
    finally:
        cells.unregister("looking")


@pytest.mark.parametrize("nested", [False, True])
def test_a_mixture_of_thousands_is_refused(nested: bool, directory: Any) -> None:
    path = directory("mixture-char")
    part = json.loads((path / "config.json").read_bytes())["config"]["models"][1]
    many = {"models": [part] * 40, "shares": [1 / 40] * 40}
    inner = {"architecture": "mixture", "config": many} if nested else part
    configured(
        path, models=[inner] * 40 if nested else [inner] * 2000, shares=[1 / 40] * 40 if nested else [5e-4] * 2000
    )

    with pytest.raises(revgen.CheckpointError, match="the number of models must be at most 64, not"):
        revgen.load(path)


def test_a_configuration_of_many_megabytes_is_not_read(directory: Any) -> None:
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
def test_the_options_of_an_architecture_are_of_the_kinds_that_it_declares(
    value: Any, message: str, directory: Any
) -> None:
    from dataclasses import dataclass

    @dataclass(frozen=True)
    class Adding:
        add: float = 1.0

    with pytest.raises(revgen.OptionError, match=message):
        check_options(Adding, {"add": value})


def test_a_message_is_one_line_of_a_few_names_however_many_weights_are_missing(directory: Any) -> None:
    path = directory("lstm-char")
    configured(path, num_layers=200)

    with pytest.raises(revgen.CheckpointError, match=r"missing \['layers.1.U', .* and \d+ more\], unknown \[\]"):
        revgen.load(path)
