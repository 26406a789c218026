"""Model directories that a stranger has changed, with the right hashes: each is refused in one line, or works.

A model that loads must do everything that a user does with it. The damage is random: bits and bytes, values of JSON,
tokens, and arrays of other types, sizes and magnitudes.
"""

from __future__ import annotations

import copy
import hashlib
import json
import random
import shutil
import struct
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fuzz_helpers import SEED, TEXTS, call
from safetensors.numpy import load, save

import revgen
from revgen.architectures.wrapper import Wrapper
from revgen.card import make_card
from revgen.errors import MAX_MESSAGE_CHARS, escape_controls
from revgen.generation_file import ENTRY_NAMES, OPTIONS
from revgen.html_card import card_html
from revgen.language_model import LanguageModel
from revgen.registry import architecture_class

SIZES = {"hidden_size": 8, "num_layers": 1, "embedding_size": 8, "num_heads": 2, "context": 4, "order": 3}
NAMES = ["gru-char", "kneser-ney-char", "transformer-subword", "ngram-char", "textgenrnn-char", "lstm-word", "mlp-char"]
NAMES += ["awd-lstm-char", "mingru-char", "rglru-char", "slstm-char", "graves-lstm-char", "mixture-char"]
NAMES += ["gated-mixture-char", "residual-char", "cm-char", "cm-word", "skip-ngram-char"]
WRAPPERS = ["document-cache", "neural-cache", "dynamic-evaluation"]
SHORT_NAMES = ["gru-char", "kneser-ney-char", "transformer-subword"]
SHORT, LONG = 8, 400
"""The number of changed directories of each model."""

NUMBERS: list[Any] = [np.nan, np.inf, -np.inf, 3.4e38, -3.4e38, 1e-45, 1e30, -1e30, 60_000.0, 0.0]
VALUES: list[Any] = [
    *(None, True, 0, -1, 1, 64, 65_536, 65_537, 2**31, 2**63, 10**400, 0.5, 1e308, float("nan"), float("inf"), ""),
    *("text", "../../etc/passwd", "/dev/zero", "\ud800", "a\0b", "\x1b[31m", "x" * 10_000, [], [[]], [1] * 1000, {}),
    *({"": 1}, [0.1, float("nan")], ["<s>", "</s>", "<unk>"], "gru", "mixture", json.loads("[" * 100 + "]" * 100)),
]


def make_model(name: str) -> LanguageModel:
    """Return a small trained model."""
    if name == "mixture-char":
        return revgen.mix([make_model("kneser-ney-char")] * 2)
    if name == "gated-mixture-char":
        mixture = revgen.mix([make_model("kneser-ney-char"), make_model("ngram-char")], gated=True)
        mixture.fit(TEXTS[:2], epochs=1, progress=False)
        return mixture
    if name == "residual-char":
        residual = make_model("gru-char")
        residual.fit(TEXTS, base=revgen.create("kneser-ney-char"), epochs=1, progress=False)
        return residual
    if name in WRAPPERS:
        wrapper: type[Wrapper] = architecture_class(name)
        return wrapper.around(name, make_model("gru-char"), {})
    level = name.rpartition("-")[2]
    tokenizer: dict[str, Any] = {"vocab_size": 290} if level == "subword" else {"min_count": 1}
    fields = type(revgen.create(name)).Config.__dataclass_fields__
    options: Any = {key: value for key, value in SIZES.items() if key in fields}
    model = revgen.create(name, tokenizer=tokenizer, **options)
    training: Any = {"epochs": 1, "batch_size": 2, "sequence_length": 8} if hasattr(model, "make_network") else {}
    training |= {"epochs": 1} if name.startswith("cm") else {}
    model.fit(TEXTS, index_texts=name == "ngram-char", progress=False, **training)
    if name == "skip-ngram-char":
        model.index_texts(TEXTS, compact=True)
        model.generation_config = {"known_words": True, "max_copied_chars": 30}
    return model


def use(path: Path) -> None:
    """Do what a user does with a model. Raises RevgenError only when it is loaded."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        try:
            model = revgen.load(path)
        except revgen.RevgenError as error:
            assert len(str(error)) <= MAX_MESSAGE_CHARS + 3, "a long message"
            assert escape_controls(str(error)) == str(error), "control characters"
            return
        model.generate("the", max_tokens=5, seed=0)
        model.generate("the", n=3, max_tokens=5, seed=0, temperature=0.7, top_k=5)
        model.generate("the", num_beams=2, max_tokens=3)
        model.generate(["", "a song"], max_tokens=3, repetition_penalty=1.5, min_tokens=2)
        "".join(model.stream("", max_tokens=5, seed=1, temperature=0))
        model.score("the song")
        model.evaluate(["the song of the band"])
        model.explain("the", top=3).to_html()
        card_html(model)
        make_card(model).encode()
        json.dumps(model.info())
        repr(model)
        for write in (partial(model.export, path / "page.html"), partial(model.save, path / "copy", dtype="float16")):
            try:
                write()
            except revgen.RevgenError as error:
                assert escape_controls(str(error)) == str(error) and len(str(error)) <= MAX_MESSAGE_CHARS + 3


def put(path: Path, entry: str, data: bytes) -> None:
    """Replace a file of a model, and its hash."""
    content = json.loads((path / "config.json").read_bytes())
    (path / content[entry]["file"]).write_bytes(data)
    content[entry]["sha256"] = hashlib.sha256(data).hexdigest()
    (path / "config.json").write_text(json.dumps(content), "utf-8")


def damage_bytes(data: bytes, rng: random.Random) -> bytes:
    """Flip, insert, delete or repeat some bytes."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8))):
        at = rng.randrange(max(1, min(len(out), rng.choice((16, 256, 1 << 30)))))
        changes: list[tuple[slice, bytes]] = [
            (slice(at, at + 1), bytes([out[at] ^ 1 << rng.randrange(8)]) if out else b""),
            (slice(at, at), rng.randbytes(rng.choice((1, 4, 100)))),
            (slice(at, at + rng.choice((1, 4, 100))), b""),
            (slice(at, at), bytes(out[at : at + rng.choice((4, 64, 1000))])),
            (slice(at, len(out)), b""),
            (slice(at, at + 8), struct.pack("<Q", rng.choice((0, 1, 2**31, 2**63, 2**64 - 1)))),
        ]
        where, new = rng.choice(changes)
        out[where] = new
    return bytes(out)


def key_paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value[:50]) if isinstance(value, list) else ()
    return [path, *(inner for key, item in items for inner in key_paths(item, (*path, key)))]


def damage_json(data: bytes, rng: random.Random) -> bytes:
    """Replace or delete some values of a JSON object."""
    content = json.loads(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        paths = [path for path in key_paths(content) if path]
        if not paths:
            break
        path = rng.choice(paths)
        inner = content
        for key in path[:-1]:
            inner = inner[key]
        if rng.random() < 0.1:
            del inner[path[-1]]
        else:
            inner[path[-1]] = copy.deepcopy(rng.choice(VALUES))
    return json.dumps(content).encode("utf-8", "surrogatepass")


def damage_defaults(data: bytes, rng: random.Random) -> bytes:
    """Return a generation_config.json, whatever it was before."""
    values = [*VALUES, 1, 2, 0.3, 1.5, -2.5, 100, 99_999, 1e-300, "a", "the", [""], ["the", "a"]]
    names = [*OPTIONS, *ENTRY_NAMES.values(), "do_sample"]
    entries = {rng.choice(names): rng.choice(values) for _ in range(rng.choice((1, 1, 2, 4)))}
    return json.dumps(entries).encode("utf-8", "surrogatepass")


def damage_tokens(data: bytes, rng: random.Random) -> bytes:
    """Change the list of tokens of a tokenizer."""
    if not data.startswith(b"{"):
        return damage_bytes(data, rng)
    content = json.loads(data)
    tokens = content["tokens"]
    at = rng.randrange(len(tokens))
    new: Any = rng.choice(["", tokens[3], "\ud800", "\x1b[2J", "\u202e", "x" * 100_000, 1, None, ["a"], True])
    changes: list[Callable[[], Any]] = [
        lambda: tokens.__setitem__(at, new),
        lambda: rng.shuffle(tokens),
        lambda: tokens.__delitem__(slice(at, None)),
        lambda: tokens.extend(chr(0x4E00 + i) for i in range(20_000)),
        lambda: content.__setitem__("tokens", dict.fromkeys(tokens)),
        lambda: content.__setitem__(rng.choice(list(content)), rng.choice(VALUES)),
    ]
    rng.choice(changes)()
    return json.dumps(content).encode("utf-8", "surrogatepass")


def damage_arrays(data: bytes, rng: random.Random) -> bytes:
    """Change the values, types, shapes and names of arrays."""
    arrays = {name: array.copy() for name, array in sorted(load(data).items())}
    for _ in range(rng.choice((1, 1, 2, len(arrays)))):
        name = rng.choice(list(arrays))
        array = arrays[name]
        if array.dtype.kind == "f":
            extreme = np.where(np.arange(array.size).reshape(array.shape) % 2, 3e38, -3e38)
            scale = np.float32(rng.choice((1e10, -1e10, 1e30, 1e-30)))
            arrays[name] = rng.choice([np.full_like(array, rng.choice(NUMBERS)), extreme, array * scale])
            if array.size and rng.random() < 0.4:
                arrays[name] = array.copy()
                arrays[name].flat[rng.randrange(array.size)] = rng.choice(NUMBERS)
            arrays[name] = arrays[name].astype(rng.choice((np.float32, np.float32, np.float64, np.float16)))
            if rng.random() < 0.1:
                arrays[name] = array.astype(np.float64) * 1e300
        elif array.size:
            limit = True if array.dtype == bool else np.iinfo(array.dtype).max
            array.flat[rng.randrange(array.size)] = rng.choice((0, 1, limit))
            arrays[name] = rng.choice([array, np.zeros_like(array), np.full_like(array, limit), array[::-1].copy()])
        if rng.random() < 0.2:
            shapes = [array[:-1], array[None], array[:0], array.astype(np.int8), array.reshape(-1), array.astype(bool)]
            arrays[name] = rng.choice(shapes)
        if rng.random() < 0.1 and len(arrays) > 1:
            arrays[rng.choice(("more", "99.logp", "layers.99.W", ""))] = arrays.pop(name)
    return save(arrays)


def damage_header(data: bytes, rng: random.Random) -> bytes:
    """Change the header of a safetensors file."""
    size = int.from_bytes(data[:8], "little")
    header, body = json.loads(data[8 : 8 + size]), data[8 + size :]
    name = rng.choice(sorted(header))
    if rng.random() < 0.2:
        return rng.choice((0, 2**32, 2**63, size - 1, len(data))).to_bytes(8, "little") + data[8:]
    if isinstance(header[name], dict) and name != "__metadata__":
        values: dict[str, list[Any]] = {
            "dtype": ["F64", "F16", "BF16", "I64", "U8", "BOOL", "F8_E4M3", "O", 1],
            "shape": [[], [0], [2**62, 0], [2**40], [-1], [1] * 100, [2**32, 2**32], [1.5], "x", None],
            "data_offsets": [[0, 0], [4, 0], [0, 2**63], [-4, 0], [0], None],
        }
        key = rng.choice(list(values))
        header[name][key] = rng.choice(values[key])
    else:
        header[name] = rng.choice((None, [], 1, "x", {"a": {"b": 1}}))
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


DAMAGE: dict[str, list[Callable[[bytes, random.Random], bytes]]] = {
    "config": [damage_json, damage_json, damage_bytes],
    "weights": [damage_arrays, damage_arrays, damage_arrays, damage_header, damage_bytes],
    "tokenizer": [damage_tokens, damage_bytes],
    "index": [damage_arrays, damage_header, damage_bytes],
    "generation_config": [damage_defaults],
}


def attack(name: str, folder: Path, count: int) -> None:
    original = make_model(name).save(folder / "original")
    rng, failures = random.Random(f"{SEED} {name} {count}"), []
    for number in range(count):
        path = Path(shutil.copytree(original, folder / "model"))
        content = json.loads((path / "config.json").read_bytes())
        entry = rng.choice([entry for entry in DAMAGE if entry in content or entry.endswith("config")])
        file = path / (f"{entry}.json" if entry.endswith("config") else content[entry]["file"])
        damage = rng.choice(DAMAGE[entry])
        with np.errstate(all="ignore"):
            data = damage(file.read_bytes() if file.exists() else b"", rng)
        if entry in content and entry != "config":
            put(path, entry, data)
        else:
            file.write_bytes(data)
        if (outcome := call(lambda: use(path))) != "null":
            failures.append(f"{name} {number}, {damage.__name__} of {entry}: {outcome[:300]}")
        shutil.rmtree(path)
    assert failures == []


@pytest.mark.parametrize("name", SHORT_NAMES)
def test_a_changed_model_is_refused_or_works(name: str, tmp_path: Path) -> None:
    attack(name, tmp_path, SHORT)


@pytest.mark.fuzz
@pytest.mark.parametrize("name", [*NAMES, *WRAPPERS])
def test_many_changed_models_are_refused_or_work(name: str, tmp_path: Path) -> None:
    attack(name, tmp_path, LONG)
