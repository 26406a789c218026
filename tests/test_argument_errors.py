"""Unusual values for every parameter of the public functions: each call works or raises a RevgenError.

An OptionError must name the parameter.
"""

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


class Unprintable:
    """An object without a representation."""

    def __repr__(self) -> str:
        raise RuntimeError("no representation")


def cyclic_list() -> list[Any]:
    items: list[Any] = []
    items.append(items)
    return items


VALUES: list[Any] = [
    *(None, True, False, 0, 1, -1, 2, 7.5, 0.5, -0.5, 1e-300, 1e-320, 1e39, -1e39, 1e308, -1e308, 2**31, 2**63, 2**64),
    *(10**400, -(10**400), 10**5000, float("nan"), float("inf"), -float("inf"), 1j, "", "a", "the", "\ud800", "a\0b"),
    *("~", "x" * 5000, "é\U0001f600", b"a", bytearray(b"a"), [], [1], ["a"], ["a", "b"], ["a", 1], [None], [[]]),
    *([["a"]], [b"a"], ["\ud800"], ["\0"], [1e39], [float("nan")], [10**400], [1.0, 0.0], (), ("a",), {}, {"a": 1}),
    *({"a": float("nan")}, {"a": 1e308}, {"a": 10**400}, {"a": "b"}, {"a": None}, {1: 2}, {0: "a"}, {-1: "a"}, {0: 5}),
    *({10**400: "a"}, {None: 1}, {"a": {"a": 1}}, {(1, 2): 3}, set(), {"a"}, frozenset({1}), range(3), object, len),
    *(lambda: 1, lambda i: 1.0, lambda i: "x", lambda i: 1e39, lambda *a: None, Unprintable(), object(), cyclic_list()),
    *(np.float32(1), np.float64("nan"), np.int64(3), np.int8(-1), np.bool_(True), np.str_("a"), np.bytes_(b"a")),
    *(np.array(1.0), np.array([1.0, 2.0]), np.array(["a"]), np.array([]), np.array([[1]]), np.array(None)),
    *(np.datetime64(0, "s"), Path("nowhere"), Path("a\0b"), Path("\ud800"), Path("x" * 5000), Ellipsis, NotImplemented),
]  # fmt: skip

MESSAGE_TERMS = {
    "path": "",
    "repo_id": "name of a repository",
    "cell_options": "cell",
    "gradient_accumulation_steps": "batch_size",
}
"""For parameters that messages do not name: the term that they use instead."""

Call = Callable[[Any], object]


def vary(function: Callable[..., object], option: str, options: dict[str, Any]) -> Call:
    """Return a function of the value of ``option``; the other ``options`` are fixed."""
    return lambda value: function(**options | {option: value})


def call_without_warnings(function: Callable[[], object]) -> None:
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        function()


@pytest.fixture(scope="module")
def models() -> dict[str, Any]:
    """Small fitted models of several architectures, by name."""
    models: dict[str, Any] = {}
    for name in ("gru-char", "textgenrnn-char", "transformer-word", "gru-subword"):
        options: Any = SMALL | ({"num_heads": 1} if "transformer" in name else {})
        options |= {"tokenizer": {"vocab_size": 280}} if "subword" in name else {}
        models[name] = revgen.create(name, **options)
        labels: Any = {"labels": ["pos", "neg"] * 10} if "textgenrnn" in name else {}
        models[name].fit([TEXT * 3] * 20, index_texts=name == "gru-char", **labels, **QUICK)
    models["kneser-ney-char"] = revgen.create("kneser-ney-char", order=3, tokenizer={"min_count": 1})
    models["kneser-ney-char"].fit([TEXT * 3] * 2, progress=False)
    models["mixture"] = revgen.mix([models["kneser-ney-char"]] * 2)
    return models


def generation_calls(models: dict[str, Any]) -> dict[str, Call]:
    def call(name: str, option: str) -> Call:
        return vary(models[name].generate, option, {"prompt": "the ", "max_tokens": 5, "seed": 1})

    names = ("n", *GenerationOptions.__annotations__)
    calls = {f"{name}.generate({o})": call(name, o) for name in ("gru-char", "kneser-ney-char") for o in names}
    calls |= {
        f"{name}.generate({o})": call(name, o) for name in ("textgenrnn-char", "mixture") for o in ("label", "regex")
    }
    calls["gru-char.generate(prompt)"] = lambda value: models["gru-char"].generate(value, max_tokens=3)
    calls["gru-char.stream(prompt)"] = lambda value: list(models["gru-char"].stream(value, max_tokens=3))
    options: dict[str, Any] = {"models": [models["gru-char"]], "prompt": "the ", "max_tokens": 2}
    for option in GenerationOptions.__annotations__:
        calls[f"synthesize({option})"] = vary(revgen.synthesize, option, options)
    for option in ("models", "prompt"):
        calls[f"synthesize({option})"] = vary(revgen.synthesize, option, options)
    calls["synthesize(n)"] = lambda value: revgen.synthesize(n=limit_count(value), **options)
    return calls


def evaluation_calls(models: dict[str, Any], directory: Path) -> dict[str, Call]:
    gru, labeled, transformer = models["gru-char"], models["textgenrnn-char"], models["transformer-word"]
    return {
        "score(text)": gru.score,
        "score(label)": lambda v: labeled.score("the", label=v),
        "evaluate(texts)": gru.evaluate,
        "evaluate(label)": lambda v: labeled.evaluate(["the song", "a band"], labels=v),
        "evaluate(field)": lambda v: gru.evaluate(["the song"], field=v),
        "evaluate(documents)": lambda v: gru.evaluate(["the song"], documents=v),
        "evaluate(errors)": lambda v: gru.evaluate(["the song"], errors=v),
        "explain(text)": gru.explain,
        "explain(top)": lambda v: gru.explain("the", top=v),
        "explain(label)": lambda v: labeled.explain("the", label=v),
        "embed(texts)": gru.embed,
        "embed(pool)": lambda v: gru.embed(["the"], pool=v),
        "similarity(text)": lambda v: gru.similarity(v, ["the"]),
        "similarity(texts)": lambda v: gru.similarity("the", v),
        "similarity(pool)": lambda v: gru.similarity("the", ["a"], pool=v),
        "attention(text)": transformer.attention,
        "attention(label)": lambda v: labeled.attention("the", label=v),
        "novelty(text)": gru.novelty,
        "novelty(minimum)": lambda v: gru.novelty("the", v),
        "index_texts(texts)": models["kneser-ney-char"].index_texts,
        "to(device)": gru.to,
        "kneser-ney-char.to(device)": models["kneser-ney-char"].to,
        "save(directory)": gru.save,
        "save(dtype)": lambda v: gru.save(directory / "model", dtype=v),
        "write_samples(path)": lambda v: gru.write_samples(v, n=1, max_tokens=2, progress=False),
        "write_samples(prompt)": lambda v: gru.write_samples(
            directory / f"{id(v)}p", v, n=1, max_tokens=2, progress=False
        ),
        "write_samples(n)": lambda v: gru.write_samples(
            directory / f"{id(v)}n", n=limit_count(v), max_tokens=2, progress=False
        ),
        "write_samples(batch_size)": lambda v: gru.write_samples(
            directory / f"{id(v)}b", n=2, batch_size=v, max_tokens=2, progress=False
        ),
        "write_samples(source)": lambda v: gru.write_samples(
            directory / f"{id(v)}s", n=1, source=v, max_tokens=2, progress=False
        ),
        "write_samples(resume)": lambda v: gru.write_samples(
            directory / "r", n=1, resume=v, seed=1, max_tokens=2, progress=False
        ),
        "push_to_hub(repo_id)": gru.push_to_hub,
        "attention.save(path)": lambda v: transformer.attention("the song").save(v),
    }


def limit_count(value: Any) -> Any:
    """Return a number of texts that is generated quickly: 3 instead of a number over 100."""
    return 3 if isinstance(value, int | np.integer) and value > 100 else value


def construction_calls(models: dict[str, Any], directory: Path) -> dict[str, Call]:
    ngram = models["kneser-ney-char"]
    calls: dict[str, Call] = {
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
        "mix(weights)": lambda v: revgen.mix([ngram] * 2, v),
        "mix of one": lambda v: revgen.mix([ngram, v]),
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
        "CheckpointConfig(directory)": revgen.CheckpointConfig,
        "CheckpointConfig(steps)": lambda v: revgen.CheckpointConfig(directory, steps=v),
        "CheckpointConfig(seconds)": lambda v: revgen.CheckpointConfig(directory, seconds=v),
        "CheckpointConfig(keep)": lambda v: revgen.CheckpointConfig(directory, keep=v),
        "TensorBoard(every)": lambda v: revgen.TensorBoard(directory / "logs", every=v),
        **{f"GenerationConfig({o})": vary(revgen.GenerationConfig, o, {}) for o in GenerationOptions.__annotations__},
    }
    options: dict[str, Any] = {"corpus": [TEXT] * 4, "models": ["ngram-char"], "max_order": 0, "progress": False}
    for option in ("corpus", "valid", "prompt", "max_tokens", "temperature", "max_order", "seed", "epochs"):
        calls[f"compare({option})"] = vary(revgen.compare, option, options)
    for name in ("gru", "rnn", "mingru", "awd-lstm", "textgenrnn", "transformer", "kneser-ney"):
        for option in ModelOptions.__annotations__:  # options of other models are rejected at once
            calls[f"create({name}, {option})"] = vary(partial(revgen.create, f"{name}-char"), option, {})
    return calls


def register_calls(kind: str, register: Any) -> dict[str, Call]:
    return {
        f"register_{kind}(name)": lambda v: register(v)(Unprintable),
        f"register_{kind}(value)": register("example"),
        f"register_{kind}(replace)": lambda v: register("example", replace=v)(Unprintable),
    }


def registration_calls() -> dict[str, Call]:
    registries = {"cell": cells, "model": architectures, "tokenizer": tokenizers}
    calls: dict[str, Call] = {}
    for kind, registry in registries.items():
        calls |= register_calls(kind, getattr(revgen, f"register_{kind}"))
        assert "example" not in registry.names()
    return calls


def fit_calls(models: dict[str, Any], directory: Path) -> dict[str, Call]:
    def fit(name: str, option: str, value: Any) -> object:
        number = value.item() if isinstance(value, np.ndarray) and not value.shape else value
        is_long = number is None or (isinstance(number, int | float | np.number) and number > 0.5)
        if option in ("epochs", "max_seconds") and is_long:  # training would take too long
            return None
        model = revgen.create(name, **SMALL if name != "ngram-char" else {})
        options: dict[str, Any] = (QUICK if name != "ngram-char" else {"progress": False}) | {"texts": [TEXT * 3] * 6}
        if option == "max_seconds":
            options.pop("epochs")
        return model.fit(**options | {option: value})

    calls: dict[str, Call] = {}
    for option in ("texts", "valid", *FitOptions.__annotations__):
        for name in ("textgenrnn-char", "ngram-char"):
            if name == "textgenrnn-char" or option in inspect.signature(revgen.create(name).fit).parameters:
                calls[f"{name}.fit({option})"] = partial(fit, name, option)
    trial: dict[str, Any] = {"texts": [TEXT * 3] * 6, "steps": 10, "batch_size": 2, "sequence_length": 8}
    for option in ("low", "high", "labels", "seed", "batch_size"):
        calls[f"find_lr({option})"] = vary(models["gru-char"].find_lr, option, trial)
    return calls


def names_parameter(parameter: str, message: str) -> bool:
    return parameter in message or (parameter in MESSAGE_TERMS and MESSAGE_TERMS[parameter] in message)


def find_errors(calls: dict[str, Call], values: list[Any]) -> list[str]:
    """Return descriptions of unexpected exceptions, and of messages that do not name the parameter in one line."""
    errors = []
    for name, call in calls.items():
        for value in values:
            try:
                call_without_warnings(partial(call, value))
            except RevgenError as error:
                parameter = name.partition("(")[2].split(" ")[-1].rstrip(")")
                if isinstance(error, revgen.OptionError) and not names_parameter(parameter, str(error)):
                    errors.append(f"{name} = {safe_repr(value)}: the message does not name the parameter: {error}")
                if "\n" in str(error).strip() or not str(error):
                    errors.append(f"{name} = {safe_repr(value)}: the message is not one line: {error}")
            except BaseException as error:
                errors.append(f"{name} = {safe_repr(value)}: {type(error).__name__}: {str(error)[:150]}")
    return errors


def test_unusual_pairs_of_options_work_or_raise_a_clear_error(models: dict[str, Any]) -> None:
    rng = random.Random(0)
    options = [*GenerationOptions.__annotations__, "n"]
    errors = []
    for _ in range(300):
        name = rng.choice(list(models))
        fixed = {"max_tokens": 4} | {option: rng.choice(VALUES) for option in rng.sample(options, 2)}
        errors += find_errors({f"{name}.generate()": vary(models[name].generate, "prompt", fixed)}, ["the "])
    assert errors == []


GROUPS: list[Any] = ["generation", "evaluation", "construction", "registration", "fit"]


@pytest.mark.parametrize(
    "values", [random.Random(0).sample(VALUES, 15), pytest.param(VALUES, marks=pytest.mark.fuzz)], ids=["some", "all"]
)
@pytest.mark.parametrize("group", GROUPS)
def test_unusual_arguments_work_or_raise_a_clear_error(
    group: str, values: list[Any], models: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hub: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    groups: dict[str, Callable[[], dict[str, Call]]] = {
        "generation": lambda: generation_calls(models),
        "evaluation": lambda: evaluation_calls(models, tmp_path),
        "construction": lambda: construction_calls(models, tmp_path),
        "registration": registration_calls,
        "fit": lambda: fit_calls(models, tmp_path),
    }

    assert find_errors(groups[group](), values) == []


CREATE: Callable[..., Any] = revgen.create  # for type checkers: with any arguments


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda model: model.fit([TEXT], callbacks=[3]), r"callbacks\[0\] must be a Callback or a function, not 3"),
        (lambda model: model.generate(filters=["top", 3]), r"filters\[1\] must be a string or a function, not 3"),
        (lambda model: model.generate(["a", 3]), r"prompt\[1\] must be a string, not 3"),
        (lambda model: model.fit([TEXT], hidden_size=8), r"revgen.create\('lstm-char', hidden_size=…\)"),
        (lambda model: model.fit([TEXT], epoch=8), "no option of fit 'epoch'; did you mean epochs"),
        (lambda _: CREATE("rnn-char").fit([TEXT], nonlinearity="relu"), r"create\('rnn-char', nonlinearity=…\)"),
        (lambda _: CREATE("ngram-char").fit([TEXT], order=3), r"revgen.create\('ngram-char', order=…\)"),
        (lambda _: CREATE("gru-char", epochs=3), r"epochs is an option of training.*fit\(…, epochs=…\)"),
        (lambda model: model.generate(length_penalty=0.5), "length_penalty needs num_beams"),
        (lambda model: model.explain(TEXT, top=0), "top must be a whole number of at least 1, not 0"),
    ],
)
def test_message_names_the_item_or_the_function_that_the_argument_belongs_to(
    call: Callable[[Any], Any], message: str, small_model: revgen.LanguageModel
) -> None:
    with pytest.raises(revgen.OptionError, match=message):
        call(small_model)


@pytest.mark.parametrize("home", [None, ""])
def test_path_in_a_missing_home_directory_is_an_error_and_makes_no_directory(
    home: str | None, small_model: revgen.LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if home is None:
        monkeypatch.delenv("HOME", raising=False)
        monkeypatch.setattr("os.path.expanduser", lambda path: path)  # as without an entry in the user database
    else:
        monkeypatch.setenv("HOME", home)
    for call in (small_model.save, small_model.export, revgen.load):
        with pytest.raises(revgen.OptionError, match=r"~/m: there is no home directory to replace ~ by"):
            call("~/m")
    assert not list(tmp_path.iterdir())


def test_device_auto_is_a_gpu_that_works_or_else_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    expected = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    assert revgen.load("gru-char", device="auto").device == expected
    assert revgen.create("ngram-char").to("auto").device == "cpu"
    if expected == "cpu":
        monkeypatch.setattr("torch.cuda.is_available", lambda: True)  # as with a driver that does not work
        assert revgen.load("gru-char", device="auto").device == "cpu"
