"""Tests of pulling: the requests that are sent, and the order in which a name is searched for."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import same_model
from hub_helpers import run_processes
from hub_server import Hub, Repository

import revgen
from revgen.language_model import LanguageModel


def test_only_needed_files_are_downloaded_with_the_configuration_first(hub: Hub, pushed: Repository) -> None:
    pushed.files()["pytorch_model.bin"] = b"a pickle"

    revgen.load("me/model")

    downloaded = [path.rpartition("/")[2] for method, path in hub.requests if method == "GET" and "/resolve/" in path]
    assert downloaded == ["config.json", "vocabulary.json", "model.safetensors"]


def test_each_load_requests_the_file_that_counts_downloads_once(hub: Hub, pushed: Repository) -> None:
    for _ in range(3):
        revgen.load("me/model")

    assert hub.count_requests("HEAD", "/config.json") == 3, "each load sends one request"
    assert hub.count_requests("GET", "config.json") == 1, "only the first load downloads the file"
    assert hub.count_requests("HEAD", "model.safetensors") == hub.count_requests("GET", "model.safetensors") == 1


def test_all_files_are_downloaded_from_the_same_commit(hub: Hub, pushed: Repository) -> None:
    revgen.load("me/model")

    commit = pushed.refs["main"]
    assert {path for method, path in hub.requests if method == "GET" and "model.safetensors" in path} == {
        f"/me/model/resolve/{commit}/model.safetensors"
    }


def test_a_cached_commit_is_loaded_without_a_request(hub: Hub, pushed: Repository) -> None:
    revgen.load("me/model", revision=pushed.refs["main"])
    hub.requests.clear()

    revgen.load("me/model", revision=pushed.refs["main"])

    assert hub.requests == []


def test_requests_carry_the_name_and_version_of_the_library(hub: Hub, pushed: Repository) -> None:
    hub.agents.clear()

    revgen.load("me/model")

    assert all(agent.startswith(f"revgen/{revgen.__version__}; hf_hub/") for agent in hub.agents), hub.agents


def test_a_model_in_the_package_is_loaded_without_a_request(hub: Hub) -> None:
    revgen.load("lstm-char")

    assert hub.requests == []


def test_a_pretrained_name_is_found_in_the_organization_and_then_in_the_cache(
    hub: Hub, small_model: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REVGEN_HUB_ORG", "zoo")
    small_model.push_to_hub("zoo/elman-char.music")
    hub.requests.clear()

    assert same_model(revgen.load("elman-char"), small_model)
    assert hub.count_requests("HEAD", "/zoo/elman-char.music/resolve/main/config.json") == 1

    hub.requests.clear()
    assert same_model(revgen.load("elman-char"), small_model)
    assert hub.requests == [], "the model is in the cache"


def test_the_default_organization_is_revgen(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REVGEN_HUB_ORG", raising=False)
    with pytest.raises(revgen.UnknownNameError, match="elman-char has no pretrained weights"):
        revgen.load("elman-char")

    assert hub.requests == [("GET", "/api/models/revgen/elman-char.music")]


def test_with_an_empty_organization_no_request_is_sent(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REVGEN_HUB_ORG", "")

    with pytest.raises(revgen.UnknownNameError, match="elman-char has no pretrained weights"):
        revgen.load("elman-char")

    assert hub.requests == []


def test_a_directory_takes_precedence_over_a_repository_of_the_same_name(
    hub: Hub, pushed: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    revgen.load("lstm-char").save("me/model")

    assert revgen.load("me/model").config.hidden_size == 384
    assert hub.requests == []
    assert revgen.load("me/model", revision="main").config.hidden_size == 32


def test_the_path_of_a_local_file_raises_an_error_without_a_request(
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


def test_processes_can_pull_the_same_model_at_once(hub: Hub, pushed: Repository, small_model: LanguageModel) -> None:
    code = "import revgen; print(repr(revgen.load('me/model').generate('the ', seed=1)))"

    for status, out, errors in run_processes(code, 3):
        assert status == 0, errors
        assert out.strip() == repr(small_model.generate("the ", seed=1))


def test_pulling_and_generating_do_not_import_torch(pushed: Repository) -> None:
    code = "import sys, revgen; revgen.load('me/model').generate('the '); assert 'torch' not in sys.modules"

    [(status, _, errors)] = run_processes(code)

    assert status == 0, errors


def test_loading_from_the_package_does_not_import_the_client() -> None:
    code = "import sys, revgen; revgen.load('lstm-char'); assert 'huggingface_hub' not in sys.modules"

    [(status, _, errors)] = run_processes(code)

    assert status == 0, errors
