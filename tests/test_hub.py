"""The Hub: what is pushed, what is pulled, and what each failure says; with the Hub's own client, over HTTP."""

from __future__ import annotations

import inspect
import itertools
import json
import os
import re
import runpy
import socket
import subprocess
import sys
import time
import uuid
import xml.etree.ElementTree
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from conftest import HUB_HOME, HUB_TOKEN, same
from hub_server import Hub, Repository

import revgen
from revgen import hub as revgen_hub
from revgen.card import draw_history, make_card
from revgen.cli import main
from revgen.hub import PRETRAINED
from revgen.language_model import LanguageModel
from revgen.registry import cells

ROOT = Path(revgen.__file__).parents[1]


@pytest.fixture
def pushed(hub: Hub, small_model: LanguageModel) -> Repository:
    """``me/model`` with the small model; what was asked for until now is forgotten."""
    small_model.push_to_hub("me/model")
    hub.requests.clear()
    return hub.repositories["me/model"]


def metadata(text: str) -> dict[str, Any]:
    """The metadata of a card, as the Hub's client reads it."""
    from huggingface_hub import ModelCard

    data: dict[str, Any] = ModelCard(text).data.to_dict()  # type: ignore[no-untyped-call]
    return data


def python(text: str) -> list[str]:
    """The Python of a card."""
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


# Push and pull


def test_a_pushed_model_is_the_loaded_one(hub: Hub, small_model: LanguageModel) -> None:
    address = small_model.push_to_hub("me/model")

    repository = hub.repositories["me/model"]
    assert address == f"{hub.url}/me/model/commit/{repository.refs['main']}"
    assert not repository.private
    assert same(revgen.load("me/model"), small_model)


def test_a_push_is_one_commit_of_the_model_directory_and_its_card(pushed: Repository) -> None:
    assert pushed.messages == ["initial commit", "Push lstm-char"]
    assert {*pushed.files()} == {
        ".gitattributes",
        "README.md",
        "config.json",
        "history.svg",
        "model.safetensors",
        "vocabulary.json",
    }


def test_the_hub_is_not_asked_about_a_file_of_a_model_on_this_machine(
    small_model: LanguageModel, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    small_model.save("m")
    for name in ("m/model.safetensors", "m/config.json", "m/nothing", Path("m/model.safetensors")):
        with pytest.raises(revgen.CheckpointError, match=r"is not a model directory: give the directory m$"):
            revgen.load(name)
    Path("n").mkdir()
    Path("n/notes.txt").write_text("")
    with pytest.raises(revgen.CheckpointError, match=r"n/notes.txt is a file, not a model directory"):
        revgen.load("n/notes.txt")
    assert hub.requests == []


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("gru-word", {"hidden_size": 16}),
        ("transformer-subword", {"hidden_size": 16, "num_heads": 2, "tokenizer": {"vocab_size": 400}}),
        ("kneser-ney-char", {}),
    ],
)
def test_every_kind_of_model_goes_to_the_hub_and_back(
    name: str, options: dict[str, Any], hub: Hub, reviews: list[str]
) -> None:
    model = revgen.create(name, **options)
    epochs: dict[str, Any] = {"epochs": 1} if options else {}
    model.fit(reviews[:8], progress=False, **epochs)

    model.push_to_hub("me/model")

    assert same(revgen.load("me/model"), model)
    assert revgen.load("me/model").generate("the ", seed=1) == model.generate("the ", seed=1)


def test_a_repository_without_an_owner_is_yours(hub: Hub, small_model: LanguageModel) -> None:
    small_model.push_to_hub("model", private=True, commit_message="Try it")

    assert hub.repositories["me/model"].private
    assert hub.repositories["me/model"].messages[-1] == "Try it"


def test_a_push_of_the_same_again_is_no_commit(pushed: Repository, small_model: LanguageModel) -> None:
    small_model.push_to_hub("me/model")

    assert len(pushed.messages) == 2


def test_a_directory_is_pushed_as_it_is(hub: Hub, small_model: LanguageModel, tmp_path: Path) -> None:
    directory = small_model.save(tmp_path / "model", dtype="float16")

    revgen_hub.push(directory, "me/model")

    files = hub.repositories["me/model"].files()
    for name in ("config.json", "vocabulary.json", "model.safetensors"):
        assert files[name] == (directory / name).read_bytes()
    assert b'revgen.load("me/model")' in files["README.md"]


def test_training_text_that_a_model_remembers_is_not_passed_on(
    hub: Hub, small_model: LanguageModel, reviews: list[str], tmp_path: Path
) -> None:
    model = revgen.load(small_model.save(tmp_path / "model"))
    model.index_texts(reviews[:5])

    model.push_to_hub("me/one")
    revgen_hub.push(model.save(tmp_path / "with"), "me/other")

    for name in ("me/one", "me/other"):
        assert not any("index" in file for file in hub.repositories[name].files())
        pulled = revgen.load(name)
        assert same(pulled, model) and not pulled.has_index


def test_a_branch_is_made_and_loaded_by_its_name(hub: Hub, small_model: LanguageModel) -> None:
    small_model.push_to_hub("me/model")
    other = revgen.load("me/model")
    other.weights = {name: array * 2 for name, array in other.weights.items()}

    other.push_to_hub("me/model", revision="doubled")

    assert same(revgen.load("me/model", revision="doubled"), other)
    assert same(revgen.load("me/model"), small_model)


def test_a_tag_and_a_commit_stay_what_they_were(pushed: Repository, small_model: LanguageModel) -> None:
    pushed.refs["v1"] = first = pushed.refs["main"]
    other = revgen.load("me/model")
    other.weights = {name: array * 2 for name, array in other.weights.items()}
    other.push_to_hub("me/model")

    for revision in ("v1", first):
        assert same(revgen.load("me/model", revision=revision), small_model)
    assert same(revgen.load("me/model"), other)


def test_a_private_repository_needs_its_token(
    hub: Hub, small_model: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    small_model.push_to_hub("me/secret", private=True, token="hf_me")

    for token in (None, "hf_other"):
        with pytest.raises(revgen.HubError, match=r"me/secret: there is no such .* or it is private"):
            revgen.load("me/secret", token=token)
    assert same(revgen.load("me/secret", token="hf_reader"), small_model)


def test_the_names_of_other_libraries_do_the_same(hub: Hub, small_model: LanguageModel, tmp_path: Path) -> None:
    small_model.save_pretrained(tmp_path / "model")
    small_model.push_to_hub("me/model")

    assert same(LanguageModel.from_pretrained(tmp_path / "model"), small_model)
    assert same(LanguageModel.from_pretrained("me/model", revision="main"), small_model)


def test_a_list_of_directories_goes_to_an_organization(
    hub: Hub, small_model: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("lstm-word", "elman-char"):
        small_model.save(tmp_path / name)

    revgen_hub.push_all([tmp_path / "lstm-word", tmp_path / "elman-char"], "zoo")

    assert sorted(hub.repositories) == ["zoo/elman-char", "zoo/lstm-word"]
    monkeypatch.setenv("REVGEN_HUB_ORG", "zoo")
    assert same(revgen.load("elman-char"), small_model)


def test_a_list_with_a_damaged_directory_pushes_none(hub: Hub, small_model: LanguageModel, tmp_path: Path) -> None:
    small_model.save(tmp_path / "good")
    (tmp_path / "bad").mkdir()

    with pytest.raises(revgen.CheckpointError, match="bad"):
        revgen_hub.push_all([tmp_path / "good", tmp_path / "bad"], "zoo")

    assert not hub.repositories


# What is asked for


def test_only_what_is_needed_is_downloaded_the_configuration_first(hub: Hub, pushed: Repository) -> None:
    pushed.files()["pytorch_model.bin"] = b"a pickle"

    revgen.load("me/model")

    got = [path.rpartition("/")[2] for method, path in hub.requests if method == "GET" and "/resolve/" in path]
    assert got == ["config.json", "vocabulary.json", "model.safetensors"]


def test_the_file_that_downloads_are_counted_by_is_asked_for_once_a_load(hub: Hub, pushed: Repository) -> None:
    for _ in range(3):
        revgen.load("me/model")

    assert hub.asked("HEAD", "config.json") == 3, "once for each load"
    assert hub.asked("GET", "config.json") == 1, "the client gets what the cache lacks"
    assert hub.asked("HEAD", "model.safetensors") == hub.asked("GET", "model.safetensors") == 1


def test_all_files_are_of_one_commit(hub: Hub, pushed: Repository) -> None:
    revgen.load("me/model")

    commit = pushed.refs["main"]
    assert {path for method, path in hub.requests if method == "GET" and "model.safetensors" in path} == {
        f"/me/model/resolve/{commit}/model.safetensors"
    }


def test_what_is_pinned_and_cached_is_not_asked_for(hub: Hub, pushed: Repository) -> None:
    revgen.load("me/model", revision=pushed.refs["main"])
    hub.requests.clear()

    revgen.load("me/model", revision=pushed.refs["main"])

    assert hub.requests == []


def test_the_library_names_itself_and_its_version(hub: Hub, pushed: Repository) -> None:
    hub.agents.clear()

    revgen.load("me/model")

    assert all(agent.startswith(f"revgen/{revgen.__version__}; hf_hub/") for agent in hub.agents), hub.agents


# A name alone


def test_a_name_in_the_package_asks_nobody(hub: Hub) -> None:
    revgen.load("lstm-char")

    assert hub.requests == []


def test_a_name_is_looked_for_in_the_cache_and_then_in_the_organization(
    hub: Hub, small_model: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REVGEN_HUB_ORG", "zoo")
    small_model.push_to_hub("zoo/elman-char")
    hub.requests.clear()

    assert same(revgen.load("elman-char"), small_model)
    assert hub.asked("HEAD", "/zoo/elman-char/resolve/main/config.json") == 1

    hub.requests.clear()
    assert same(revgen.load("elman-char"), small_model)
    assert hub.requests == [], "the cache has it"


def test_the_organization_is_revgen_where_no_other_is_named(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REVGEN_HUB_ORG", raising=False)
    with pytest.raises(revgen.UnknownNameError, match="elman-char has no pretrained weights"):
        revgen.load("elman-char")

    assert hub.requests == [("GET", "/api/models/revgen/elman-char")]


def test_no_organization_asks_nobody(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REVGEN_HUB_ORG", "")

    with pytest.raises(revgen.UnknownNameError, match="elman-char has no pretrained weights"):
        revgen.load("elman-char")

    assert hub.requests == []


def test_a_directory_comes_before_a_repository_of_its_name(
    hub: Hub, pushed: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    revgen.load("lstm-char").save("me/model")

    assert revgen.load("me/model").config.hidden_size == 384
    assert hub.requests == []
    assert revgen.load("me/model", revision="main").config.hidden_size == 32


# The card


def test_the_card_follows_the_conventions_of_the_hub(hub: Hub, small_model: LanguageModel, tmp_path: Path) -> None:
    model = revgen.load(small_model.save(tmp_path))
    model.metadata |= {
        "licence": "CC BY 4.0",
        "language": "no",
        "datasets": ["someone/reviews", "not a name"],
        "evaluation": {"nats_per_char": 1.25, "bits_per_char": 1.75, "nats_per_char on other text": 1.5, "note": "hm"},
    }

    model.push_to_hub("me/model")

    assert metadata(hub.repositories["me/model"].files()["README.md"].decode()) == {
        "library_name": "revgen",
        "pipeline_tag": "text-generation",
        "tags": ["lstm", "char"],
        "license": "cc-by-4.0",
        "language": "no",
        "datasets": ["someone/reviews"],
        "model-index": [
            {
                "name": "lstm-char",
                "results": [
                    {
                        "task": {"type": "text-generation", "name": "Text Generation"},
                        "dataset": {"type": "someone/reviews", "name": "held-out text"},
                        "metrics": [
                            {"type": "nats_per_char", "value": 1.25, "name": "nats per char"},
                            {"type": "bits_per_char", "value": 1.75, "name": "bits per char"},
                        ],
                    },
                    {
                        "task": {"type": "text-generation", "name": "Text Generation"},
                        "dataset": {"type": "someone/reviews", "name": "other text", "split": "other text"},
                        "metrics": [{"type": "nats_per_char", "value": 1.5, "name": "nats per char"}],
                    },
                ],
            }
        ],
    }


@pytest.mark.parametrize("licence", ["my own licence", "yes", "x: y\n---", "", "\ud800", 'a"b'])
def test_a_licence_that_the_hub_has_no_name_for_is_another(
    licence: str, small_model: LanguageModel, tmp_path: Path
) -> None:
    model = revgen.load(small_model.save(tmp_path))
    model.metadata["licence"] = licence

    found = metadata(make_card(model))

    assert found["license"] == "other"
    assert set(found) == {"library_name", "pipeline_tag", "tags", "license", "license_name"}


def test_the_card_of_each_repository_says_how_to_load_it_and_runs(hub: Hub, pushed: Repository) -> None:
    first, *_ = python(pushed.files()["README.md"].decode())

    assert 'revgen.load("me/model")' in first
    exec(first, {})


def test_the_card_shows_samples_and_the_history_as_a_picture(pushed: Repository, small_model: LanguageModel) -> None:
    text = pushed.files()["README.md"].decode()

    assert small_model.generate("", n=3, temperature=0.7, seed=1)[0].splitlines()[0] in text
    assert "](history.svg)" in text
    picture = pushed.files()["history.svg"].decode()
    xml.etree.ElementTree.fromstring(picture)
    assert picture.count("<polyline") == 1 and "training loss" in picture


def test_a_card_of_ones_own_stays(pushed: Repository, small_model: LanguageModel) -> None:
    pushed.files()["README.md"] = b"my own words"
    other = revgen.load("me/model")
    other.metadata["licence"] = "MIT"

    other.push_to_hub("me/model")
    assert pushed.files()["README.md"] == b"my own words"
    assert b'"licence": "MIT"' in pushed.files()["config.json"]

    other.push_to_hub("me/model", overwrite_card=True)
    assert b"license: mit" in pushed.files()["README.md"]


def test_a_card_that_was_changed_in_the_directory_is_pushed(
    hub: Hub, small_model: LanguageModel, tmp_path: Path
) -> None:
    directory = small_model.save(tmp_path / "model")
    (directory / "README.md").write_text("about this model", "utf-8")

    revgen_hub.push(directory, "me/model")

    assert hub.repositories["me/model"].files()["README.md"] == b"about this model"


def test_the_weights_are_read_with_safetensors_and_the_card_alone(
    pushed: Repository, small_model: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the card says, written down here once more without a line of the library."""
    for name, data in pushed.files().items():
        (tmp_path / name).write_bytes(data)
    text = pushed.files()["README.md"].decode()
    monkeypatch.chdir(tmp_path)
    read: dict[str, Any] = {}
    exec(python(text)[1], read)
    w, tokens = read["weights"], read["tokens"]
    config = json.loads(pushed.files()["config.json"])["config"]
    assert config["residual"] and config["layer_norm"] and config["tie_embeddings"]
    for array in w:
        assert f"`{re.sub('[0-9]', '{0,1}', array, count=1)}`" in text or array.split(".")[0] in text

    def sigmoid(x: Any) -> Any:
        return 1 / (1 + np.exp(-x))

    def norm(i: int, x: Any) -> Any:
        y = (x - x.mean()) / np.sqrt(x.var() + 1e-5)
        return y * w[f"norms.{i}.scale"] + w[f"norms.{i}.shift"]

    layers = [SimpleNamespace(h=np.zeros(32), c=np.zeros(32)) for _ in range(config["num_layers"])]
    logprobs = []
    ids = [0, *(tokens.index(c) for c in "the band"), 1]
    for now, following in itertools.pairwise(ids):
        x = w["embedding"][now]
        for i, layer in enumerate(layers):
            z = norm(i, x) @ w[f"layers.{i}.W"] + layer.h @ w[f"layers.{i}.U"] + w[f"layers.{i}.b"]
            in_gate, forget, out = np.split(sigmoid(z[: 3 * 32]), 3)
            layer.c = forget * layer.c + in_gate * np.tanh(z[3 * 32 :])
            layer.h = out * np.tanh(layer.c)
            x = x + layer.h
        logits = norm(len(layers), x) @ w["embedding"].T + w["bias"]
        logprobs.append(logits[following] - np.log(np.exp(logits).sum()))

    np.testing.assert_allclose(logprobs, small_model.score("the band").logprobs, atol=1e-4)


def test_the_card_shows_the_equations_of_the_network_and_its_cell(small_model: LanguageModel) -> None:
    text = make_card(small_model)

    assert "x = x + cell(norm(x))" in text
    assert inspect.cleandoc(cells.get("lstm").__doc__) in text


def test_the_history_is_drawn_with_the_held_out_text_beside_it(reviews: list[str]) -> None:
    model = revgen.create("gru-char", hidden_size=8)
    model.fit(reviews[:20], reviews[20:25], epochs=3, progress=False)

    assert len(model.metadata["history"]["nats_per_char"]) == 3
    picture = draw_history(model)
    assert picture is not None and picture.count("<polyline") == 2


def test_a_fine_tuned_model_does_not_tell_of_the_weights_that_it_had(reviews: list[str]) -> None:
    model = revgen.load("lstm-char")
    assert {"load_as", "samples", "description"} <= {*model.metadata}

    model.fit(reviews[:2], max_seconds=0.2, extend_vocabulary=True, progress=False)

    assert not {"load_as", "samples", "description"} & {*model.metadata}
    assert model.metadata["licence"] == "MIT"


def test_the_card_in_the_package_is_the_one_that_is_written_today() -> None:
    for path in PRETRAINED.glob("*/config.json"):
        assert (path.parent / "README.md").read_text("utf-8") == make_card(revgen.load(path.parent))


# Failures


@pytest.fixture
def no_network(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody answers."""
    from huggingface_hub import constants

    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        nowhere = f"http://127.0.0.1:{closed.getsockname()[1]}"
    for name in ("ENDPOINT", "HUGGINGFACE_CO_URL_TEMPLATE"):
        monkeypatch.setattr(constants, name, getattr(constants, name).replace(hub.url, nowhere))


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client tries again at once."""
    monkeypatch.setattr(time, "sleep", lambda seconds: None)


def failure(name: str = "me/model", **options: Any) -> str:
    """The one line with which loading fails."""
    with pytest.raises(revgen.HubError) as caught:
        revgen.load(name, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_no_network_is_said_at_once(no_network: None) -> None:
    assert failure().startswith("me/model: the Hub could not be reached: ConnectError: ")


def test_no_network_and_a_name_alone(no_network: None) -> None:
    assert failure("elman-char").startswith(
        "elman-char has no weights in the package or the cache; revgen/elman-char: the Hub"
    )


def test_what_was_pulled_is_loaded_without_a_network(
    pushed: Repository, small_model: LanguageModel, request: pytest.FixtureRequest
) -> None:
    pushed.refs["v1"] = pushed.refs["main"]
    revgen.load("me/model")
    revgen.load("me/model", revision="v1")
    request.getfixturevalue("no_network")

    for options in ({}, {"revision": "v1"}, {"revision": pushed.refs["main"]}, {"local_files_only": True}):
        assert same(revgen.load("me/model", **options), small_model)


def test_local_files_only_asks_nobody(hub: Hub, pushed: Repository, small_model: LanguageModel) -> None:
    assert failure(local_files_only=True) == "me/model: it is not in the cache, and the Hub was not to be asked"
    assert hub.requests == []

    revgen.load("me/model")
    hub.requests.clear()
    assert same(revgen.load("me/model", local_files_only=True), small_model)
    assert hub.requests == []


def test_the_offline_mode_of_the_client_is_named(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)

    assert failure() == "me/model: it is not in the cache, and the Hub is not asked while HF_HUB_OFFLINE is set"


def test_a_repository_that_there_is_not(hub: Hub) -> None:
    assert "me/model: there is no such directory, and on the Hub no such repository, or it is private" in failure()


def test_a_revision_that_there_is_not(pushed: Repository) -> None:
    assert failure(revision="v9") == "me/model: it has no revision 'v9'"
    assert failure(revision="0" * 40) == f"me/model: it has no revision {'0' * 40!r}"
    revgen.load("me/model")
    assert failure(revision="v9") == "me/model: it has no revision 'v9'"


def test_a_gated_repository(pushed: Repository) -> None:
    pushed.gated = True

    assert failure(token="hf_other").startswith("me/model: a gated repository: ask for access on its page, then log in")


@pytest.mark.parametrize("token", ["hf_expired", "hf_wrong"])
def test_a_token_that_is_not_valid(token: str, pushed: Repository, small_model: LanguageModel) -> None:
    assert re.match(
        r"me/model: the Hub does not accept the token \(.*(expired|Invalid).*\): log in", failure(token=token)
    )
    with pytest.raises(revgen.HubError, match="the Hub does not accept the token"):
        small_model.push_to_hub("me/model", token=token)


def test_a_token_is_never_shown(pushed: Repository) -> None:
    assert "hf_expired" not in failure(token="hf_expired")


@pytest.mark.parametrize(("owner", "token"), [("me", "hf_reader"), ("other", "hf_me")])
def test_a_push_that_is_not_allowed(owner: str, token: str, hub: Hub, small_model: LanguageModel) -> None:
    with pytest.raises(revgen.HubError, match=f"{owner}/model: the token does not allow this"):
        small_model.push_to_hub(f"{owner}/model", token=token)


@pytest.mark.parametrize("name", ["a b", "me/mo del", "a/b/c", "me/..", ""])
def test_a_name_that_no_repository_can_have(name: str, hub: Hub, small_model: LanguageModel) -> None:
    with pytest.raises(revgen.RevgenError):
        small_model.push_to_hub(name)


@pytest.mark.parametrize("status", [429, 500, 503, 504])
def test_a_hub_with_a_bad_day(status: int, hub: Hub, pushed: Repository, small_model: LanguageModel) -> None:
    hub.faults.down = status
    assert failure() == f"me/model: the Hub answered {status}: The Hub has a bad day"

    hub.faults.down = 0
    revgen.load("me/model")
    hub.faults.down = status
    assert same(revgen.load("me/model"), small_model), "the cache has it"


def test_a_repository_that_holds_no_model(hub: Hub, pushed: Repository) -> None:
    del pushed.files()["model.safetensors"]
    assert failure() == "me/model: no model of revgen: it lacks model.safetensors"

    del pushed.files()["config.json"]
    assert failure(revision="main") == "me/model: no model of revgen: it lacks config.json"


def test_a_model_of_another_library(pushed: Repository) -> None:
    pushed.files()["config.json"] = b'{"model_type": "gpt2"}'

    with pytest.raises(revgen.CheckpointError, match="not of a revgen model"):
        revgen.load("me/model")


def test_a_download_that_is_cut_off_goes_on_where_it_stopped(
    hub: Hub, pushed: Repository, small_model: LanguageModel, no_waiting: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)
    hub.faults.cut["model.safetensors"] = 20_500, 3

    assert same(revgen.load("me/model"), small_model)
    assert hub.ranges == [0, 20_000, 40_000, 60_000]


def test_a_download_that_is_cut_off_for_good_leaves_nothing_and_can_be_tried_again(
    hub: Hub, pushed: Repository, small_model: LanguageModel, no_waiting: None
) -> None:
    hub.faults.cut["model.safetensors"] = 0, 100
    assert failure().startswith("me/model: the Hub could not be reached: ")
    assert not list(HUB_HOME.rglob("*.incomplete"))

    hub.faults.cut.clear()
    assert same(revgen.load("me/model"), small_model)


@pytest.mark.parametrize("name", ["model.safetensors", "vocabulary.json"])
def test_a_wrong_checksum_is_downloaded_once_more(
    name: str, hub: Hub, pushed: Repository, small_model: LanguageModel
) -> None:
    hub.faults.spoilt[name] = 1

    assert same(revgen.load("me/model"), small_model)
    assert hub.asked("GET", name) == 2


@pytest.mark.parametrize("name", ["model.safetensors", "vocabulary.json"])
def test_a_checksum_that_stays_wrong_is_an_error(name: str, hub: Hub, pushed: Repository) -> None:
    hub.faults.spoilt[name] = 100

    assert failure().startswith(f"me/model: {name} does not have the checksum that its config.json names")


def test_a_file_that_was_damaged_in_the_cache_is_mended(pushed: Repository, small_model: LanguageModel) -> None:
    path = revgen_hub.pull("me/model") / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-10])

    assert "does not have the checksum" in failure(local_files_only=True)
    assert same(revgen.load("me/model"), small_model)


def in_processes(code: str, count: int = 1) -> list[tuple[int, str, str]]:
    """Return code, output and errors of processes that run at once."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    started = [
        subprocess.Popen([sys.executable, "-c", code], env=environment, text=True, stdout=-1, stderr=-1)
        for _ in range(count)
    ]
    ended = [(process, *process.communicate(timeout=60)) for process in started]
    return [(process.returncode, out, errors) for process, out, errors in ended]


def test_processes_that_pull_at_once_all_have_it(hub: Hub, pushed: Repository, small_model: LanguageModel) -> None:
    code = "import revgen; print(repr(revgen.load('me/model').generate('the ', seed=1)))"

    for returned, out, errors in in_processes(code, 3):
        assert returned == 0, errors
        assert out.strip() == repr(small_model.generate("the ", seed=1))


FULL = """
import resource, signal, sys, revgen
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    revgen.load("me/model")
except revgen.HubError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no such limits")
def test_a_disk_on_which_there_is_no_room(pushed: Repository, small_model: LanguageModel) -> None:
    """A file may have 20,000 bytes here, which the weights have not; a full disk says the same in other words."""
    [(returned, out, errors)] = in_processes(FULL)

    assert returned == 0, errors
    assert re.fullmatch(r"me/model: could not write to the cache.*: File too large\n", out), out
    assert same(revgen.load("me/model"), small_model), "where there is room again"


def test_a_full_disk_is_named(pushed: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import file_download

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device", "/cache/blob")

    monkeypatch.setattr(file_download, "http_get", full)

    assert failure() == "me/model: could not write to the cache /cache/blob: No space left on device"


# What comes from the Hub is data


@pytest.mark.parametrize("name", ["../../secret", "/etc/passwd", "a/b", "..", "config.json/..", "a\\b", "C:x", ""])
@pytest.mark.parametrize("entry", ["tokenizer", "weights"])
def test_a_file_name_that_leads_elsewhere_is_refused_before_it_is_asked_for(
    entry: str, name: str, hub: Hub, pushed: Repository
) -> None:
    content = json.loads(pushed.files()["config.json"])
    content[entry]["file"] = name
    pushed.files()["config.json"] = json.dumps(content).encode()

    with pytest.raises(revgen.CheckpointError, match=rf"config\.json is damaged: {entry}\.file must be the plain name"):
        revgen.load("me/model")

    assert [path.rpartition("/")[2] for method, path in hub.requests if method == "GET"] == ["model", "config.json"]


def test_a_cell_that_is_not_here_is_named_with_the_package_that_the_repository_names(pushed: Repository) -> None:
    content = json.loads(pushed.files()["config.json"])
    content |= {"architecture": "leaky", "package": "revgen-leaky"}
    pushed.files()["config.json"] = json.dumps(content).encode()

    with pytest.raises(revgen.UnknownNameError) as caught:
        revgen.load("me/model")

    assert "needs 'leaky', which is not registered here" in str(caught.value)
    assert "the package 'revgen-leaky' provides it: install it if you trust it" in str(caught.value)


# The command line


def command(line: str, capsys: pytest.CaptureFixture[str], returned: int = 0) -> str:
    """What a command prints, or the line on standard error with which it fails."""
    assert main(line.split()) == returned
    out, errors = capsys.readouterr()
    assert not returned or errors.count("\n") == 1
    return errors if returned else out


def test_push_pull_generate_and_cache_on_the_command_line(
    hub: Hub, small_model: LanguageModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = small_model.save(tmp_path / "model")
    assert command("cache", capsys).splitlines()[2:] == []

    address = command(f"push {directory} me/model --private --message First", capsys).strip()
    commit = address.rpartition("/")[2]
    assert hub.repositories["me/model"].messages[-1] == "First" and hub.repositories["me/model"].private

    pulled = Path(command("pull me/model", capsys).strip())
    assert sorted(path.name for path in pulled.iterdir()) == ["config.json", "model.safetensors", "vocabulary.json"]
    assert command("generate me/model --prompt the --seed 1", capsys) == small_model.generate("the", seed=1) + "\n"
    assert 'revgen.load("me/model")' in command("info me/model --revision main", capsys)

    [line] = json.loads(command("cache --json", capsys))
    assert (line["name"], line["revisions"], line["commit"]) == ("me/model", ["main"], commit)
    assert "me/model  main" in command("cache", capsys)
    assert "bytes freed" in command("cache --remove me/model", capsys)
    assert json.loads(command("cache --json", capsys)) == []
    assert "me/model is not in the cache" in command("cache --remove me/model", capsys, 2)


def test_several_directories_on_the_command_line(
    hub: Hub, small_model: LanguageModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, other = small_model.save(tmp_path / "one"), small_model.save(tmp_path / "other")

    addresses = json.loads(command(f"push {one} {other} --organization zoo --revision v1 --json", capsys))

    assert [address.split("/")[4] for address in addresses] == ["one", "other"]
    assert "v1" in hub.repositories["zoo/one"].refs


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("push nowhere me/model", "nowhere is not a model directory"),
        ("push one", "push takes a directory and a repository"),
        ("pull me/model", "me/model: there is no such directory, and on the Hub no such repository"),
        ("pull me/model --revision v1", "me/model: there is no such directory"),
        ("pull gru-char", "revgen/gru-char: there is no such"),
        ("generate me/model", "me/model: there is no such"),
        ("fit me/model texts.txt --out out", "me/model: there is no such"),
    ],
)
def test_errors_on_the_command_line_are_one_line(
    line: str, message: str, hub: Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in command(line, capsys, 2)


def test_a_repository_is_fitted_further_on_the_command_line(
    pushed: Repository, reviews: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = tmp_path / "texts.txt"
    texts.write_text(reviews[0], "utf-8")

    command(f"fit me/model {texts} --epochs 1 --extend-vocabulary --out {tmp_path / 'out'} --json", capsys)

    assert revgen.load(tmp_path / "out").config.hidden_size == 32


# What it does not cost, and the documentation


def test_a_model_is_pulled_and_writes_without_torch(pushed: Repository) -> None:
    code = "import sys, revgen; revgen.load('me/model').generate('the '); assert 'torch' not in sys.modules"

    [(returned, _, errors)] = in_processes(code)

    assert returned == 0, errors


def test_a_model_in_the_package_does_not_import_the_client() -> None:
    code = "import sys, revgen; revgen.load('lstm-char'); assert 'huggingface_hub' not in sys.modules"

    [(returned, _, errors)] = in_processes(code)

    assert returned == 0, errors


def test_the_python_of_the_documentation_runs(
    hub: Hub, small_model: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    small_model.save("my-model")
    scope: dict[str, Any] = {}
    for block in python((ROOT / "docs" / "hub.md").read_text("utf-8")):
        exec(compile(block, "docs/hub.md", "exec"), scope)

    assert "me/my-model" in hub.repositories


# The real one

REAL = """
import sys, revgen
from huggingface_hub import HfApi
name, directory = sys.argv[1:]
try:
    model = revgen.load(directory)
    address = model.push_to_hub(name, private=True)
    model.push_to_hub(name, revision="v1", commit_message="A branch")
    for revision in (None, "v1", address.rpartition("/")[2]):
        loaded = revgen.load(name, revision=revision)
        assert loaded.generate("the ", seed=1) == model.generate("the ", seed=1)
    assert revgen.load(name, local_files_only=True).tokenizer == model.tokenizer
    for options in ({"token": False}, {"revision": "v9"}):
        try:
            revgen.load(name, **options)
        except revgen.HubError as error:
            print(error)
        else:
            raise SystemExit(f"no error with {options}")
finally:
    HfApi().delete_repo(name, missing_ok=True)
"""


@pytest.mark.skipif(HUB_TOKEN is None, reason="needs HF_TOKEN, with which a repository is made and deleted")
@pytest.mark.hub
def test_the_real_hub_does_the_same(small_model: LanguageModel, tmp_path: Path) -> None:
    directory = small_model.save(tmp_path / "model")
    strange = ("HF_ENDPOINT", "HF_HUB_DISABLE_XET")
    environment = {name: value for name, value in os.environ.items() if name not in strange}
    environment |= {"HF_TOKEN": str(HUB_TOKEN), "HF_HOME": str(tmp_path / "home"), "PYTHONPATH": str(ROOT)}
    name = f"revgen-test-{uuid.uuid4().hex[:8]}"

    owner = subprocess.run(
        [sys.executable, "-c", "from huggingface_hub import whoami; print(whoami()['name'])"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    done = subprocess.run(
        [sys.executable, "-c", REAL, f"{owner}/{name}", str(directory)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert "it has no revision 'v9'" in done.stdout


def test_the_pretrained_models_are_trained_evaluated_and_pushed_by_one_command(
    hub: Hub, reviews: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, texts in (("train", reviews[:60]), ("valid", reviews[60:70])):
        lines = (json.dumps({"text": text}) for text in texts)
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines), "utf-8")
    arguments = ["pretrain.py", str(tmp_path / "train.jsonl"), str(tmp_path / "valid.jsonl")]
    arguments += ["--models", "rnn-char", "textgenrnn-char", "--max-seconds", "0.5"]
    monkeypatch.setattr(sys, "argv", [*arguments, "--out", str(tmp_path / "models"), "--push", "me"])

    runpy.run_path(str(ROOT / "examples" / "pretrain.py"), run_name="__main__")

    for name in ("rnn-char", "textgenrnn-char"):
        model = revgen.load(f"me/{name}")
        assert model.name == name and model.metadata["evaluation"]["nats_per_char"] > 0
        assert "nats_per_char" in hub.repositories[f"me/{name}"].files()["README.md"].decode()
