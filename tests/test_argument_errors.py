"""Odd values for every parameter of the public functions: each call works, or raises an error of the family that names
the parameter."""

from __future__ import annotations

import inspect
import random
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import revgen
from revgen.errors import RevgenError
from revgen.generation.config import GenerationOptions
from revgen.options import safe_repr
from revgen.registry import architectures, cells, tokenizers
from revgen.training.options import FitOptions
from revgen.zoo import ModelOptions

TEXT = "the band of the song plays a song. "
QUICK: dict[str, Any] = {"epochs": 1, "batch_size": 2, "sequence_length": 8, "progress": False}
SMALL: dict[str, Any] = {"hidden_size": 8, "num_layers": 1, "tokenizer": {"min_count": 1}}


class Odd:
    """An object that can do nothing, not even be shown."""

    def __repr__(self) -> str:
        raise RuntimeError("no representation")


def cyclic() -> list[Any]:
    several: list[Any] = []
    several.append(several)
    return several


VALUES: list[Any] = [
    *(None, True, False, 0, 1, -1, 2, 7.5, 0.5, -0.5, 1e-300, 1e-320, 1e39, -1e39, 1e308, -1e308, 2**31, 2**63, 2**64),
    *(10**400, -(10**400), 10**5000, float("nan"), float("inf"), -float("inf"), 1j, "", "a", "the", "\ud800", "a\0b"),
    *("~", "x" * 5000, "é\U0001f600", b"a", bytearray(b"a"), [], [1], ["a"], ["a", "b"], ["a", 1], [None], [[]]),
    *([["a"]], [b"a"], ["\ud800"], ["\0"], [1e39], [float("nan")], [10**400], [1.0, 0.0], (), ("a",), {}, {"a": 1}),
    *({"a": float("nan")}, {"a": 1e308}, {"a": 10**400}, {"a": "b"}, {"a": None}, {1: 2}, {0: "a"}, {-1: "a"}, {0: 5}),
    *({10**400: "a"}, {None: 1}, {"a": {"a": 1}}, {(1, 2): 3}, set(), {"a"}, frozenset({1}), range(3), object, len),
    *(lambda: 1, lambda i: 1.0, lambda i: "x", lambda i: 1e39, lambda *a: None, Odd(), object(), cyclic()),
    *(np.float32(1), np.float64("nan"), np.int64(3), np.int8(-1), np.bool_(True), np.str_("a"), np.bytes_(b"a")),
    *(np.array(1.0), np.array([1.0, 2.0]), np.array(["a"]), np.array([]), np.array([[1]]), np.array(None)),
    *(np.datetime64(0, "s"), Path("nowhere"), Path("a\0b"), Path("\ud800"), Path("x" * 5000), Ellipsis, NotImplemented),
]  # fmt: skip

SAID = {
    "path": "",
    "repo_id": "name of a repository",
    "cell_options": "cell",
    "gradient_accumulation_steps": "batch_size",
}
"""What a message says in place of the parameter's name."""

Call = Callable[[Any], object]


def varied(function: Callable[..., object], option: str, given: dict[str, Any]) -> Call:
    """Return a call with this option, beside what is given."""
    return lambda value: function(**given | {option: value})


def quiet(function: Callable[[], object]) -> None:
    """Call a function, and see that what it raises is of the family."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        function()


@pytest.fixture(scope="module")
def models() -> dict[str, Any]:
    """Small models of several kinds."""
    made: dict[str, Any] = {}
    for name in ("gru-char", "textgenrnn-char", "transformer-word", "gru-subword"):
        options: Any = SMALL | ({"num_heads": 1} if "transformer" in name else {})
        options |= {"tokenizer": {"vocab_size": 280}} if "subword" in name else {}
        made[name] = revgen.create(name, **options)
        labels: Any = {"labels": ["pos", "neg"] * 10} if "textgenrnn" in name else {}
        made[name].fit([TEXT * 3] * 20, index_texts=name == "gru-char", **labels, **QUICK)
    made["kneser-ney-char"] = revgen.create("kneser-ney-char", order=3, tokenizer={"min_count": 1})
    made["kneser-ney-char"].fit([TEXT * 3] * 2, progress=False)
    made["mixture"] = revgen.mix([made["kneser-ney-char"]] * 2)
    return made


def generating(models: dict[str, Any]) -> dict[str, Call]:
    def call(name: str, option: str) -> Call:
        options: dict[str, Any] = {"max_tokens": 5, "seed": 1}
        return lambda value: models[name].generate("the ", **options | {option: value})

    several = ("n", *GenerationOptions.__annotations__)
    found = {f"{name}.generate({o})": call(name, o) for name in ("gru-char", "kneser-ney-char") for o in several}
    found |= {
        f"{name}.generate({o})": call(name, o) for name in ("textgenrnn-char", "mixture") for o in ("label", "regex")
    }
    found["gru-char.generate(prompt)"] = lambda value: models["gru-char"].generate(value, max_tokens=3)
    found["gru-char.stream(prompt)"] = lambda value: list(models["gru-char"].stream(value, max_tokens=3))
    given: dict[str, Any] = {"models": [models["gru-char"]], "prompt": "the ", "max_tokens": 2}
    for option in GenerationOptions.__annotations__:
        found[f"synthesize({option})"] = varied(revgen.synthesize, option, given)
    for option in ("models", "prompt"):
        found[f"synthesize({option})"] = varied(revgen.synthesize, option, given)
    found["synthesize(n)"] = lambda value: revgen.synthesize(n=least(value), **given)
    return found


def looking(models: dict[str, Any], where: Path) -> dict[str, Call]:
    gru, label, attentive = models["gru-char"], models["textgenrnn-char"], models["transformer-word"]
    return {
        "score(text)": gru.score,
        "score(label)": lambda v: label.score("the", label=v),
        "evaluate(texts)": gru.evaluate,
        "evaluate(label)": lambda v: label.evaluate(["the song", "a band"], labels=v),
        "evaluate(field)": lambda v: gru.evaluate(["the song"], field=v),
        "evaluate(documents)": lambda v: gru.evaluate(["the song"], documents=v),
        "evaluate(errors)": lambda v: gru.evaluate(["the song"], errors=v),
        "explain(text)": gru.explain,
        "explain(top)": lambda v: gru.explain("the", top=v),
        "explain(label)": lambda v: label.explain("the", label=v),
        "embed(texts)": gru.embed,
        "embed(pool)": lambda v: gru.embed(["the"], pool=v),
        "similarity(text)": lambda v: gru.similarity(v, ["the"]),
        "similarity(texts)": lambda v: gru.similarity("the", v),
        "similarity(pool)": lambda v: gru.similarity("the", ["a"], pool=v),
        "attention(text)": attentive.attention,
        "attention(label)": lambda v: label.attention("the", label=v),
        "novelty(text)": gru.novelty,
        "novelty(minimum)": lambda v: gru.novelty("the", v),
        "index_texts(texts)": models["kneser-ney-char"].index_texts,
        "to(device)": gru.to,
        "counting.to(device)": models["kneser-ney-char"].to,
        "remake(receipt)": gru.regenerate,
        "save(directory)": gru.save,
        "save(dtype)": lambda v: gru.save(where / "model", dtype=v),
        "write_samples(path)": lambda v: gru.write_samples(v, n=1, max_tokens=2, progress=False),
        "write_samples(prompt)": lambda v: gru.write_samples(where / f"{id(v)}p", v, n=1, max_tokens=2, progress=False),
        "write_samples(n)": lambda v: gru.write_samples(where / f"{id(v)}n", n=least(v), max_tokens=2, progress=False),
        "write_samples(batch_size)": lambda v: gru.write_samples(
            where / f"{id(v)}b", n=2, batch_size=v, max_tokens=2, progress=False
        ),
        "write_samples(source)": lambda v: gru.write_samples(
            where / f"{id(v)}s", n=1, source=v, max_tokens=2, progress=False
        ),
        "write_samples(resume)": lambda v: gru.write_samples(
            where / "r", n=1, resume=v, seed=1, max_tokens=2, progress=False
        ),
        "push_to_hub(repo_id)": gru.push_to_hub,
        "attention.save(path)": lambda v: attentive.attention("the song").save(v),
    }


def least(value: Any) -> Any:
    """A number of texts that a file can hold in a moment; the largest ones would be written as they are asked for."""
    return 3 if isinstance(value, int | np.integer) and value > 100 else value


def making(models: dict[str, Any], where: Path) -> dict[str, Call]:
    counting = models["kneser-ney-char"]
    found: dict[str, Call] = {
        "create(name)": revgen.create,
        "create(tokenizer)": lambda v: revgen.create("gru-char", tokenizer=v),
        "create(tokenizer: min_count)": lambda v: revgen.create("gru-char", tokenizer={"min_count": v}).fit(
            [TEXT], **QUICK
        ),
        "load(name)": revgen.load,
        "load(device)": lambda v: revgen.load("gru-char", device=v),
        "load(revision)": lambda v: revgen.load("gru-char", revision=v, local_files_only=True),
        "load(token)": lambda v: revgen.load("gru-char", token=v),
        "load(local_files_only)": lambda v: revgen.load("gru-char", local_files_only=v),
        "list_models(pattern)": revgen.list_models,
        "list_models(pretrained)": lambda v: revgen.list_models(pretrained=v),
        "models(pattern)": revgen.models,
        "to_transformers(model)": revgen.to_transformers,
        "datasets.load(name)": revgen.datasets.load,
        "mix(models)": revgen.mix,
        "mix(weights)": lambda v: revgen.mix([counting] * 2, v),
        "mix of one": lambda v: revgen.mix([counting, v]),
        "read(source)": lambda v: list(revgen.read(v)),
        "read(labels)": lambda v: list(revgen.read(["a", "b"], labels=v)),
        "read(field)": lambda v: list(revgen.read(["a", "b"], field=v)),
        "read(documents)": lambda v: list(revgen.read(["a", "b"], documents=v)),
        "read(errors)": lambda v: list(revgen.read(["a", "b"], errors=v)),
        "compare(models)": lambda v: revgen.compare([TEXT] * 4, v, max_order=0, progress=False),
        "compare(model)": lambda v: revgen.compare([TEXT] * 4, [v], max_order=0, progress=False),
        "compare(models: order)": lambda v: revgen.compare(
            [TEXT] * 4, [f"ngram-char:order={safe_repr(v)}"], max_order=0, progress=False
        ),
        "Checkpoints(directory)": revgen.CheckpointConfig,
        "Checkpoints(steps)": lambda v: revgen.CheckpointConfig(where, steps=v),
        "Checkpoints(seconds)": lambda v: revgen.CheckpointConfig(where, seconds=v),
        "Checkpoints(keep)": lambda v: revgen.CheckpointConfig(where, keep=v),
        "TensorBoard(every)": lambda v: revgen.TensorBoard(where / "logs", every=v),
        **{f"GenerationConfig({o})": varied(revgen.GenerationConfig, o, {}) for o in GenerationOptions.__annotations__},
    }
    given: dict[str, Any] = {"corpus": [TEXT] * 4, "models": ["ngram-char"], "max_order": 0, "progress": False}
    for option in ("corpus", "valid", "prompt", "max_tokens", "temperature", "max_order", "seed", "epochs"):
        found[f"compare({option})"] = varied(revgen.compare, option, given)
    for name in ("gru", "rnn", "mingru", "awd-lstm", "textgenrnn", "transformer", "kneser-ney"):
        for option in ModelOptions.__annotations__:  # one of another model is an error at once
            found[f"create({name}, {option})"] = varied(partial(revgen.create, f"{name}-char"), option, {})
    return found


def calls_of(kind: str, register: Any) -> dict[str, Call]:
    return {
        f"register_{kind}(name)": lambda v: register(v)(Odd),
        f"register_{kind}(value)": register("odd"),
        f"register_{kind}(replace)": lambda v: register("odd", replace=v)(Odd),
    }


def registering() -> dict[str, Call]:
    registries = {"cell": cells, "model": architectures, "tokenizer": tokenizers}
    found: dict[str, Call] = {}
    for kind, registry in registries.items():
        found |= calls_of(kind, getattr(revgen, f"register_{kind}"))
        assert "odd" not in registry.names()
    return found


def fitting(models: dict[str, Any], where: Path) -> dict[str, Call]:
    def fit(name: str, option: str, value: Any) -> object:
        plain = value.item() if isinstance(value, np.ndarray) and not value.shape else value
        long = plain is None or (isinstance(plain, int | float | np.number) and plain > 0.5)
        if option in ("epochs", "max_seconds") and long:  # it takes what is asked for, or what the corpus needs
            return None
        model = revgen.create(name, **SMALL if name != "ngram-char" else {})
        given: dict[str, Any] = (QUICK if name != "ngram-char" else {"progress": False}) | {"texts": [TEXT * 3] * 6}
        if option == "max_seconds":
            given.pop("epochs")
        return model.fit(**given | {option: value})

    found: dict[str, Call] = {}
    for option in ("texts", "valid", *FitOptions.__annotations__):
        for name in ("textgenrnn-char", "ngram-char"):
            if name == "textgenrnn-char" or option in inspect.signature(revgen.create(name).fit).parameters:
                found[f"{name}.fit({option})"] = partial(fit, name, option)
    trial: dict[str, Any] = {"texts": [TEXT * 3] * 6, "steps": 10, "batch_size": 2, "sequence_length": 8}
    for option in ("low", "high", "labels", "seed", "batch_size"):
        found[f"find_lr({option})"] = varied(models["gru-char"].find_lr, option, trial)
    return found


def named(parameter: str, message: str) -> bool:
    return parameter in message or (parameter in SAID and SAID[parameter] in message)


def faults(calls: dict[str, Call], values: list[Any]) -> list[str]:
    """What was raised that is not of the family, or that does not name the parameter."""
    found = []
    for name, call in calls.items():
        for value in values:
            try:
                quiet(partial(call, value))
            except RevgenError as error:
                parameter = name.partition("(")[2].split(" ")[-1].rstrip(")")
                if isinstance(error, revgen.OptionError) and not named(parameter, str(error)):
                    found.append(f"{name} = {safe_repr(value)}: the message does not name the parameter: {error}")
                if "\n" in str(error).strip() or not str(error):
                    found.append(f"{name} = {safe_repr(value)}: a message of several lines, or none: {error}")
            except BaseException as error:
                found.append(f"{name} = {safe_repr(value)}: {type(error).__name__}: {str(error)[:150]}")
    return found


def test_odd_options_together_are_errors_that_say_so(models: dict[str, Any]) -> None:
    chance = random.Random(0)
    options = [*GenerationOptions.__annotations__, "n"]
    found = []
    for _ in range(300):
        name = chance.choice(list(models))
        given = {"max_tokens": 4} | {option: chance.choice(VALUES) for option in chance.sample(options, 2)}
        found += faults({f"{name}.generate()": varied(models[name].generate, "prompt", given)}, ["the "])
    assert found == []


KINDS: list[Any] = ["generating", "looking", "making", "registering", "fitting"]


@pytest.mark.parametrize(
    "values", [random.Random(0).sample(VALUES, 30), pytest.param(VALUES, marks=pytest.mark.slow)], ids=["some", "all"]
)
@pytest.mark.parametrize("kind", KINDS)
def test_odd_arguments_are_errors_that_say_so(
    kind: str, values: list[Any], models: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hub: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    made: dict[str, Callable[[], dict[str, Call]]] = {
        "generating": lambda: generating(models),
        "looking": lambda: looking(models, tmp_path),
        "making": lambda: making(models, tmp_path),
        "registering": registering,
        "fitting": lambda: fitting(models, tmp_path),
    }

    assert faults(made[kind](), values) == []
