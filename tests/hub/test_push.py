"""Tests of pushing models to the Hub and loading them again, with a local server."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
from conftest import same_model
from hub_helpers import ROOT
from hub_server import Hub, Repository

import revgen
from revgen import hub as revgen_hub
from revgen.language_model import LanguageModel


def test_a_pushed_model_loads_unchanged(hub: Hub, small_model: LanguageModel) -> None:
    url = small_model.push_to_hub("me/model")

    repository = hub.repositories["me/model"]
    assert url == f"{hub.url}/me/model/commit/{repository.refs['main']}"
    assert not repository.private
    assert same_model(revgen.load("me/model"), small_model)


def test_a_push_is_one_commit_with_the_model_files_and_a_card(pushed: Repository) -> None:
    assert pushed.messages == ["initial commit", "Push lstm-char"]
    assert {*pushed.files()} == {
        ".gitattributes",
        "README.md",
        "config.json",
        "history.svg",
        "model.safetensors",
        "vocabulary.json",
    }


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("gru-word", {"hidden_size": 16}),
        ("transformer-subword", {"hidden_size": 16, "num_heads": 2, "tokenizer": {"vocab_size": 400}}),
        ("kneser-ney-char", {}),
    ],
)
def test_every_kind_of_model_can_be_pushed_and_loaded(
    name: str, options: dict[str, Any], hub: Hub, reviews: list[str]
) -> None:
    model = revgen.create(name, **options)
    epochs: dict[str, Any] = {"epochs": 1} if options else {}
    model.fit(reviews[:8], progress=False, **epochs)

    model.push_to_hub("me/model")

    assert same_model(revgen.load("me/model"), model)
    assert revgen.load("me/model").generate("the ", seed=1) == model.generate("the ", seed=1)


def test_a_repository_name_without_an_owner_belongs_to_the_user(hub: Hub, small_model: LanguageModel) -> None:
    small_model.push_to_hub("model", private=True, commit_message="Try it")

    assert hub.repositories["me/model"].private
    assert hub.repositories["me/model"].messages[-1] == "Try it"


def test_pushing_an_unchanged_model_creates_no_commit(pushed: Repository, small_model: LanguageModel) -> None:
    small_model.push_to_hub("me/model")

    assert len(pushed.messages) == 2


def test_the_files_of_a_directory_are_pushed_unchanged(hub: Hub, small_model: LanguageModel, tmp_path: Path) -> None:
    directory = small_model.save(tmp_path / "model", dtype="float16")

    revgen_hub.push(directory, "me/model")

    files = hub.repositories["me/model"].files()
    for name in ("config.json", "vocabulary.json", "model.safetensors"):
        assert files[name] == (directory / name).read_bytes()
    assert b'revgen.load("me/model")' in files["README.md"]


def test_the_index_of_the_training_text_is_never_pushed(
    hub: Hub, small_model: LanguageModel, reviews: list[str], tmp_path: Path
) -> None:
    model = revgen.load(small_model.save(tmp_path / "model"))
    model.index_texts(reviews[:5])

    model.push_to_hub("me/one")
    revgen_hub.push(model.save(tmp_path / "with"), "me/other")

    for name in ("me/one", "me/other"):
        assert not any("index" in file for file in hub.repositories[name].files())
        pulled = revgen.load(name)
        assert same_model(pulled, model) and not pulled.has_index


def test_a_push_to_a_new_branch_creates_it(hub: Hub, small_model: LanguageModel) -> None:
    small_model.push_to_hub("me/model")
    other = revgen.load("me/model")
    other.weights = {name: array * 2 for name, array in other.weights.items()}

    other.push_to_hub("me/model", revision="doubled")

    assert same_model(revgen.load("me/model", revision="doubled"), other)
    assert same_model(revgen.load("me/model"), small_model)


def test_a_tag_and_a_commit_still_load_the_old_model_after_a_push(
    pushed: Repository, small_model: LanguageModel
) -> None:
    pushed.refs["v1"] = first = pushed.refs["main"]
    other = revgen.load("me/model")
    other.weights = {name: array * 2 for name, array in other.weights.items()}
    other.push_to_hub("me/model")

    for revision in ("v1", first):
        assert same_model(revgen.load("me/model", revision=revision), small_model)
    assert same_model(revgen.load("me/model"), other)


def test_a_private_repository_needs_a_token_with_access(
    hub: Hub, small_model: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    small_model.push_to_hub("me/secret", private=True, token="hf_me")

    for token in (None, "hf_other"):
        with pytest.raises(revgen.HubError, match=r"me/secret: no such directory, .* if it is private, log in"):
            revgen.load("me/secret", token=token)
    assert same_model(revgen.load("me/secret", token="hf_reader"), small_model)


def test_save_pretrained_and_from_pretrained_work_as_in_other_libraries(
    hub: Hub, small_model: LanguageModel, tmp_path: Path
) -> None:
    small_model.save_pretrained(tmp_path / "model")
    small_model.push_to_hub("me/model")

    assert same_model(LanguageModel.from_pretrained(tmp_path / "model"), small_model)
    assert same_model(LanguageModel.from_pretrained("me/model", revision="main"), small_model)


def test_push_all_pushes_directories_to_an_organization(
    hub: Hub, small_model: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("lstm-word", "elman-char.music"):
        small_model.save(tmp_path / name)

    revgen_hub.push_all([tmp_path / "lstm-word", tmp_path / "elman-char.music"], "zoo")

    assert sorted(hub.repositories) == ["zoo/elman-char.music", "zoo/lstm-word"]
    monkeypatch.setenv("REVGEN_HUB_ORG", "zoo")
    assert same_model(revgen.load("elman-char"), small_model)


def test_push_all_pushes_nothing_if_one_directory_is_damaged(
    hub: Hub, small_model: LanguageModel, tmp_path: Path
) -> None:
    small_model.save(tmp_path / "good")
    (tmp_path / "bad").mkdir()

    with pytest.raises(revgen.CheckpointError, match="bad"):
        revgen_hub.push_all([tmp_path / "good", tmp_path / "bad"], "zoo")

    assert not hub.repositories


def test_the_pretrain_script_trains_publishes_and_pushes(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    pretrain = importlib.import_module("pretrain")
    names = list(revgen.datasets.load("dinosaurs"))
    (tmp_path / "train.txt").write_text("\n".join(names[:300]), "utf-8")
    (tmp_path / "valid.txt").write_text("\n".join(names[300:350]), "utf-8")
    corpus = pretrain.CORPORA["dinosaurs"] | {"train": "train.txt", "valid": "valid.txt"}
    recipe = {"create": {"hidden_size": 8}, "fit": {"epochs": 1}, "dtype": "int8"}
    monkeypatch.setitem(pretrain.CORPORA, "dinosaurs", corpus)
    monkeypatch.setitem(pretrain.MODELS, "gru-char.dinosaurs", recipe)
    monkeypatch.setattr("revgen.pretrained.DIRECTORY", tmp_path / "published")

    for command in ("train", "publish"):
        pretrain.main([command, str(tmp_path), "--out", str(tmp_path / "runs"), "--models", "*.dinosaurs"])
    pretrain.main(["push", "me"])

    model = revgen.load("me/gru-char.dinosaurs")
    assert model.metadata["evaluation"]["nats_per_char"] > 0
    assert model.generation_config["temperature"] == 0.7 and len(model.metadata["samples"]) == 5
    assert "nats_per_char" in hub.repositories["me/gru-char.dinosaurs"].files()["README.md"].decode()
