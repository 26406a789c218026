"""Scalars of NumPy and PyTorch are numbers: whatever takes one gives what it gives for Python's own."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import same_weights

import revgen
from revgen import OptionError
from revgen.files import to_json
from revgen.options import to_builtins

NUMPY: dict[type, Callable[[Any], Any]] = {bool: np.bool_, int: np.int64, float: np.float32}
KINDS: dict[str, Callable[[Any], Any]] = {
    "numpy": lambda value: NUMPY[type(value)](value),
    "array": np.array,
    "torch": torch.tensor,
}


@pytest.fixture(params=KINDS)
def of(request: pytest.FixtureRequest) -> Callable[[Any], Any]:
    """A number, which float32 can hold, as one of another library."""
    return KINDS[request.param]


def fit(of: Callable[[Any], Any], texts: list[str], directory: Path, **more: Any) -> revgen.LanguageModel:
    model = revgen.create(
        "gru-char",
        hidden_size=of(8),
        num_layers=of(1),
        dropout=of(0.25),
        residual=of(True),
        tokenizer={"min_count": of(1)},
    )
    model.fit(
        texts,
        valid=of(0.25),
        epochs=of(2),
        batch_size=of(4),
        sequence_length=of(16),
        learning_rate=of(0.0078125),
        weight_decay=of(0.25),
        weight_averaging=of(0.25),
        patience=of(3),
        seed=of(3),
        gradient_accumulation_steps=of(2),
        progress=False,
        checkpoint=revgen.CheckpointConfig(directory, steps=of(5), seconds=of(60.0), keep=of(2)),
        index_texts=True,
        **more,
    )
    model.metadata |= {"year": of(2020), "evaluation": {**model.metadata["evaluation"], "nats_per_char on x": of(1.5)}}
    return model


def test_a_run_by_such_numbers_is_the_same_run(of: Callable[[Any], Any], reviews: list[str], tmp_path: Path) -> None:
    one = fit(lambda value: value, reviews[:8], tmp_path / "one")
    other = fit(of, reviews[:8], tmp_path / "other")

    configs = []
    for model, name in ((one, "a"), (other, "b")):
        for timed in ("training", "history"):
            model.metadata[timed].pop("seconds", None)
        directory = model.save(tmp_path / name)
        configs.append(json.loads((directory / "config.json").read_text()))
    assert same_weights(one, other) and one.fingerprint == other.fingerprint
    assert configs[0] == configs[1]
    assert (tmp_path / "a" / "README.md").read_text() == (tmp_path / "b" / "README.md").read_text()
    assert "nats_per_char" in (tmp_path / "b" / "README.md").read_text().partition("model-index")[2]
    assert json.dumps(other.info(), sort_keys=True) == json.dumps(one.info(), sort_keys=True)
    assert type(other.config.hidden_size) is int and type(other.config.residual) is bool


def test_a_checkpoint_continues_by_such_numbers(of: Callable[[Any], Any], reviews: list[str], tmp_path: Path) -> None:
    one = fit(lambda value: value, reviews[:8], tmp_path / "one")
    other = fit(of, reviews[:8], tmp_path / "one", resume=True)
    assert same_weights(one, other)


def test_generation_takes_them(of: Callable[[Any], Any], small_model: revgen.LanguageModel, tmp_path: Path) -> None:
    def written(of: Callable[[Any], Any], key: type, name: str) -> list[Any]:  # arrays are no keys of dictionaries
        model = small_model
        shaping: dict[str, Any] = {"temperature": of(0.5), "top_k": of(5), "top_p": of(0.875), "min_p": of(0.0)}
        shaping |= {"typical_p": of(0.875), "repetition_penalty": of(1.5), "frequency_penalty": of(0.25)}
        tokens: dict[str, Any] = {"max_tokens": of(20), "min_tokens": of(2), "seed": of(4)}
        biases: dict[str, Any] = {
            "logit_bias": {key(5): of(0.5)},
            "banned_tokens": [of(6)],
            "forced_tokens": {key(0): of(7)},
        }
        path = tmp_path / f"{name}.jsonl"
        model.write_samples(path, n=of(3), batch_size=of(2), progress=False, temperature=of(0.5), seed=of(1), **biases)
        return [
            model.generate("the ", n=of(3), check_novelty=of(False), **tokens, **shaping, **biases),
            model.generate("the ", temperature=[of(0.5), of(1.0)], **tokens),
            model.generate("the ", num_beams=of(2), length_penalty=of(0.5), max_tokens=of(5)),
            model.explain("a song", top=of(2)).to_dicts(),
            path.read_text(),
        ]

    assert written(of, np.int64, "other") == written(lambda value: value, int, "one")


def test_arrays_are_lists_of_options(small_model: revgen.LanguageModel) -> None:
    for name, given in {"temperature": [0.5, 1.0], "banned_tokens": [5, 6]}.items():
        options: list[dict[str, Any]] = [
            {name: value, "max_tokens": 20, "seed": 1} for value in (given, np.array(given))
        ]
        one, other = options
        assert small_model.generate("the ", **one) == small_model.generate("the ", **other)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("ngram", {"order": 3}),
        ("kneser-ney", {"order": 3, "min_gain": 0.5, "max_bytes": 4000}),
        ("mlp", {"hidden_size": 8, "num_layers": 1, "context": 4, "embedding_size": 8, "dropout": 0.5}),
        ("transformer", {"hidden_size": 16, "num_layers": 1, "num_heads": 2, "context": 8}),
        ("textgenrnn", {"hidden_size": 8, "num_layers": 1, "embedding_size": 8}),
        ("graves-lstm", {"hidden_size": 8, "num_layers": 1, "tie_embeddings": True}),
        ("awd-lstm", {"hidden_size": 8, "num_layers": 1, "embedding_size": 8, "alpha": 2.0, "weight_drop": 0.5}),
    ],
)
def test_every_architecture_takes_them(
    name: str, options: dict[str, Any], of: Callable[[Any], Any], reviews: list[str], tmp_path: Path
) -> None:
    made: list[Any] = []
    for kind in (of, lambda value: value):
        model = revgen.create(f"{name}-char", **{key: kind(value) for key, value in options.items()})
        more = {} if "hidden_size" not in options else {"epochs": kind(1)}
        model.fit(reviews[:4], valid=kind(0.25), seed=kind(2), progress=False, **more)
        made.append(revgen.load(model.save(tmp_path / str(len(made)))))
    assert made[0].config == made[1].config and made[0].fingerprint == made[1].fingerprint


def test_the_learning_rate_finder_and_mixtures_take_them(
    of: Callable[[Any], Any], small_model: revgen.LanguageModel, reviews: list[str], tmp_path: Path
) -> None:
    found = small_model.find_lr(
        reviews[:4], low=of(0.0078125), high=of(1.0), steps=of(10), batch_size=of(4), seed=of(1)
    )
    assert type(found.suggestion) is float
    mixture = revgen.mix([small_model, small_model], [of(0.25), of(0.75)])
    assert revgen.load(mixture.save(tmp_path / "mixture")).config == mixture.config


def test_a_label_may_be_a_number(reviews: list[str]) -> None:
    model = revgen.create("textgenrnn-char", hidden_size=8, num_layers=1, embedding_size=8)
    model.fit(reviews[:6], labels=np.array([1, 0, 1, 0, 1, 0]), epochs=1, progress=False)
    assert model.labels == (0, 1)
    labels: list[Any] = ["1", 1, np.int64(1), torch.tensor(1)]
    assert len({model.generate("a", label=label, max_tokens=9, seed=1) for label in labels}) == 1
    assert len({model.score("a song", label=label).total for label in labels}) == 1


@pytest.mark.parametrize("name", ["hidden_size", "residual"])
def test_flags_are_no_sizes_and_sizes_no_flags(name: str) -> None:
    wrong: Any = np.bool_(True) if name == "hidden_size" else np.int64(1)
    with pytest.raises(OptionError, match=f"{name} must be"):
        revgen.create("gru-char", **{name: wrong})


def test_json_has_no_numbers_of_numpy_and_none_that_is_not_finite() -> None:
    given = {
        np.int64(1): np.float32(0.5),
        "a": np.array([[1, np.nan]]),
        "b": (np.bool_(True), float("inf")),
        "c": {"x"},
    }
    assert json.loads(to_json(given)) == {"1": 0.5, "a": [[1.0, None]], "b": [True, None], "c": ["x"]}
    assert to_builtins(np.longdouble(2)) == 2.0 and type(to_builtins(np.longdouble(2))) is float


def test_metadata_that_no_file_can_hold_is_found_before_anything_is_written(
    small_model: revgen.LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(small_model, "metadata", {"made by": object()})
    with pytest.raises(OptionError, match=r"metadata holds a value .* not JSON serializable"):
        small_model.save(tmp_path / "model")
    assert not (tmp_path / "model").exists()
