"""Tests of Hub failures: each raises a one-line error that says what to do, and invalid files are rejected."""

from __future__ import annotations

import json
import re
import socket
import sys
import time
from typing import Any

import pytest
from conftest import HUB_HOME, same_model
from hub_helpers import run_processes
from hub_server import Hub, Repository

import revgen
from revgen import hub as revgen_hub
from revgen.language_model import LanguageModel


@pytest.fixture
def no_network(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Send all requests to a port on which no server listens."""
    from huggingface_hub import constants

    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        closed_url = f"http://127.0.0.1:{closed.getsockname()[1]}"
    for name in ("ENDPOINT", "HUGGINGFACE_CO_URL_TEMPLATE"):
        monkeypatch.setattr(constants, name, getattr(constants, name).replace(hub.url, closed_url))


@pytest.fixture
def no_retry_delay(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the client retry without a delay."""
    monkeypatch.setattr(time, "sleep", lambda seconds: None)


def load_error(name: str = "me/model", **options: Any) -> str:
    """Load a model that cannot be loaded, and return the one-line error message."""
    with pytest.raises(revgen.HubError) as error:
        revgen.load(name, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_missing_network_is_reported_at_once(no_network: None) -> None:
    assert load_error().startswith("me/model: the Hub could not be reached: ConnectError: ")


def test_without_a_network_a_name_without_weights_is_an_error_that_says_how_to_train_it(no_network: None) -> None:
    with pytest.raises(revgen.UnknownNameError, match="elman-char has no pretrained weights: train it with") as error:
        revgen.load("elman-char")

    assert "Hub" not in str(error.value) and "revgen.create('elman-char').fit(…)" in str(error.value)


def test_without_a_network_the_error_for_a_pretrained_name_says_where_it_was_searched_for(
    no_network: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REVGEN_HUB_ORG", "zoo")
    assert load_error("elman-char").startswith(
        "elman-char has no weights in the package or the cache; zoo/elman-char.music: the Hub"
    )


def test_a_pulled_model_is_loaded_without_a_network(
    pushed: Repository, small_model: LanguageModel, request: pytest.FixtureRequest
) -> None:
    pushed.refs["v1"] = pushed.refs["main"]
    revgen.load("me/model")
    revgen.load("me/model", revision="v1")
    request.getfixturevalue("no_network")

    for options in ({}, {"revision": "v1"}, {"revision": pushed.refs["main"]}, {"local_files_only": True}):
        assert same_model(revgen.load("me/model", **options), small_model)


def test_local_files_only_sends_no_request(hub: Hub, pushed: Repository, small_model: LanguageModel) -> None:
    assert (
        load_error(local_files_only=True) == "me/model: not in the cache, and local_files_only=True allows no download"
    )
    assert hub.requests == []

    revgen.load("me/model")
    hub.requests.clear()
    assert same_model(revgen.load("me/model", local_files_only=True), small_model)
    assert hub.requests == []


def test_the_offline_mode_of_the_client_is_named_in_the_error(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)

    assert load_error() == "me/model: not in the cache, and HF_HUB_OFFLINE allows no download"


def test_a_missing_repository_is_reported(hub: Hub) -> None:
    assert "me/model: no such directory, and no such repository on the Hub; if it is private, log in" in load_error()


def test_a_missing_revision_is_reported(pushed: Repository) -> None:
    assert load_error(revision="v9") == "me/model: the repository has no revision 'v9'"
    assert load_error(revision="0" * 40) == f"me/model: the repository has no revision {'0' * 40!r}"
    revgen.load("me/model")
    assert load_error(revision="v9") == "me/model: the repository has no revision 'v9'"


def test_a_gated_repository_says_how_to_get_access(pushed: Repository) -> None:
    pushed.gated = True

    assert load_error(token="hf_other").startswith("me/model: the repository is gated: request access on its page")


@pytest.mark.parametrize("token", ["hf_expired", "hf_wrong"])
def test_an_invalid_token_is_reported(token: str, pushed: Repository, small_model: LanguageModel) -> None:
    assert re.match(
        r"me/model: the Hub does not accept the token \(.*(expired|Invalid).*\): log in", load_error(token=token)
    )
    with pytest.raises(revgen.HubError, match="the Hub does not accept the token"):
        small_model.push_to_hub("me/model", token=token)


def test_a_token_is_never_shown(pushed: Repository) -> None:
    assert "hf_expired" not in load_error(token="hf_expired")


@pytest.mark.parametrize(("owner", "token"), [("me", "hf_reader"), ("other", "hf_me")])
def test_a_push_without_write_access_is_reported(owner: str, token: str, hub: Hub, small_model: LanguageModel) -> None:
    with pytest.raises(revgen.HubError, match=f"{owner}/model: the token does not allow this"):
        small_model.push_to_hub(f"{owner}/model", token=token)


@pytest.mark.parametrize("name", ["a b", "me/mo del", "a/b/c", "me/..", ""])
def test_an_invalid_repository_name_is_an_error(name: str, hub: Hub, small_model: LanguageModel) -> None:
    with pytest.raises(revgen.RevgenError):
        small_model.push_to_hub(name)


@pytest.mark.parametrize("status", [429, 500, 503, 504])
def test_a_server_error_is_reported_unless_the_model_is_cached(
    status: int, hub: Hub, pushed: Repository, small_model: LanguageModel
) -> None:
    hub.faults.down = status
    assert load_error() == f"me/model: the Hub answered with status {status}: The server is overloaded"

    hub.faults.down = 0
    revgen.load("me/model")
    hub.faults.down = status
    assert same_model(revgen.load("me/model"), small_model), "the model is in the cache"


def test_a_repository_with_missing_files_is_reported(hub: Hub, pushed: Repository) -> None:
    del pushed.files()["model.safetensors"]
    assert load_error() == "me/model: not a revgen model: model.safetensors is missing"

    del pushed.files()["config.json"]
    assert load_error(revision="main") == "me/model: not a revgen model: config.json is missing"


def test_a_model_of_another_library_is_an_error(pushed: Repository) -> None:
    pushed.files()["config.json"] = b'{"model_type": "gpt2"}'

    with pytest.raises(revgen.CheckpointError, match="does not belong to a revgen model"):
        revgen.load("me/model")


def test_an_interrupted_download_resumes(
    hub: Hub, pushed: Repository, small_model: LanguageModel, no_retry_delay: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)
    hub.faults.truncated["model.safetensors"] = 20_500, 3

    assert same_model(revgen.load("me/model"), small_model)
    assert hub.ranges == [0, 20_000, 40_000, 60_000]


def test_a_failed_download_leaves_no_partial_files(
    hub: Hub, pushed: Repository, small_model: LanguageModel, no_retry_delay: None
) -> None:
    hub.faults.truncated["model.safetensors"] = 0, 100
    assert load_error().startswith("me/model: the Hub could not be reached: ")
    assert not list(HUB_HOME.rglob("*.incomplete"))

    hub.faults.truncated.clear()
    assert same_model(revgen.load("me/model"), small_model)


@pytest.mark.parametrize("name", ["model.safetensors", "vocabulary.json"])
def test_a_file_with_a_wrong_checksum_is_downloaded_again(
    name: str, hub: Hub, pushed: Repository, small_model: LanguageModel
) -> None:
    hub.faults.corrupted[name] = 1

    assert same_model(revgen.load("me/model"), small_model)
    assert hub.count_requests("GET", name) == 2


@pytest.mark.parametrize("name", ["model.safetensors", "vocabulary.json"])
def test_a_checksum_that_is_wrong_twice_is_an_error(name: str, hub: Hub, pushed: Repository) -> None:
    hub.faults.corrupted[name] = 100

    assert load_error().startswith(f"me/model: {name} does not have the checksum in its config.json")


def test_a_file_damaged_in_the_cache_is_downloaded_again(pushed: Repository, small_model: LanguageModel) -> None:
    path = revgen_hub.pull("me/model") / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-10])

    assert "does not have the checksum" in load_error(local_files_only=True)
    assert same_model(revgen.load("me/model"), small_model)


LIMITED_LOAD = """
import resource, signal, sys, revgen
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    revgen.load("me/model")
except revgen.HubError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no such limits")
def test_a_file_size_limit_is_reported(pushed: Repository, small_model: LanguageModel) -> None:
    """Load in a process that may write files of at most 20,000 bytes; the weights are larger."""
    [(status, out, errors)] = run_processes(LIMITED_LOAD)

    assert status == 0, errors
    assert re.fullmatch(r"me/model: could not write to the cache.*: File too large\n", out), out
    assert same_model(revgen.load("me/model"), small_model), "without the limit"


def test_a_full_disk_is_reported(pushed: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import file_download

    def raise_disk_full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device", "/cache/blob")

    monkeypatch.setattr(file_download, "http_get", raise_disk_full)

    assert load_error() == "me/model: could not write to the cache /cache/blob: No space left on device"


@pytest.mark.parametrize("name", ["../../secret", "/etc/passwd", "a/b", "..", "config.json/..", "a\\b", "C:x", ""])
@pytest.mark.parametrize("entry", ["tokenizer", "weights"])
def test_a_file_name_outside_the_directory_is_rejected_before_a_request(
    entry: str, name: str, hub: Hub, pushed: Repository
) -> None:
    content = json.loads(pushed.files()["config.json"])
    content[entry]["file"] = name
    pushed.files()["config.json"] = json.dumps(content).encode()

    with pytest.raises(revgen.CheckpointError, match=rf"config\.json is damaged: {entry}\.file must be a file name"):
        revgen.load("me/model")

    assert [path.rpartition("/")[2] for method, path in hub.requests if method == "GET"] == ["model", "config.json"]


def test_an_unregistered_cell_is_named_with_its_package(pushed: Repository) -> None:
    content = json.loads(pushed.files()["config.json"])
    content |= {"architecture": "leaky", "package": "revgen-leaky"}
    pushed.files()["config.json"] = json.dumps(content).encode()

    with pytest.raises(revgen.UnknownNameError) as error:
        revgen.load("me/model")

    assert "needs 'leaky', which is not registered here" in str(error.value)
    assert "the package 'revgen-leaky' provides it: install it if you trust it" in str(error.value)
