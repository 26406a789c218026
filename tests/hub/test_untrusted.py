"""A server that lies, a repository with strange files, and secrets: nothing leaves the cache, and no token is shown."""

from __future__ import annotations

import logging
import os
import traceback
import warnings
from pathlib import Path
from typing import Any

import pytest
from conftest import HUB_HOME
from hub_server import Hub, Repository

import revgen
from revgen import hub as revgen_hub
from revgen.errors import RevgenError
from revgen.language_model import LanguageModel

ETAG = "X-Linked-Etag"
LIES: dict[str, tuple[str, dict[str, str | None]]] = {
    "no ETag": ("config.json", {"ETag": None}),
    "absolute ETag": ("config.json", {"ETag": '"/tmp/revgen-evil"'}),
    "climbing ETag": ("config.json", {"ETag": '"../../../../revgen-evil"'}),
    "climbing ETag of weights": ("model.safetensors", {ETAG: '"../../../../revgen-evil"'}),
    "long ETag": ("config.json", {"ETag": '"' + "a" * 5000 + '"'}),
    "ETag of a hidden file": ("config.json", {"ETag": '".."'}),
    "climbing commit": ("config.json", {"X-Repo-Commit": "../../../../revgen-evil"}),
    "absolute commit": ("config.json", {"X-Repo-Commit": "/tmp/revgen-evil"}),
    "no commit": ("config.json", {"X-Repo-Commit": None}),
    "huge config": ("config.json", {"Content-Length": str(300 << 20)}),
    "huge weights": ("model.safetensors", {"X-Linked-Size": str(1 << 60)}),
    "negative size": ("model.safetensors", {"X-Linked-Size": "-1"}),
    "wrong size": ("model.safetensors", {"X-Linked-Size": "5"}),
    "size of many digits": ("model.safetensors", {"X-Linked-Size": "9" * 5000}),
}


def files_outside(*roots: Path) -> set[Path]:
    """Return the files next to the cache, which no download may change."""
    return {path for root in roots for path in root.glob("*") if path.name != "hub" or not path.is_dir()}


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_of_the_server_is_an_error_and_leaves_nothing_outside_the_cache(lie: str, hub: Hub, pushed: Any) -> None:
    file, headers = LIES[lie]
    hub.faults.headers[file] = headers
    before = files_outside(HUB_HOME, HUB_HOME.parent, Path("/tmp"))

    with pytest.raises(RevgenError, match="me/model: ") as caught:
        revgen.load("me/model")

    assert len(str(caught.value)) < 600
    new = files_outside(HUB_HOME, HUB_HOME.parent, Path("/tmp")) - before
    assert not [path for path in new if "evil" in path.name or HUB_HOME in path.parents]
    assert not list(HUB_HOME.rglob("*.incomplete"))


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/x", "gopher://127.0.0.1/", "javascript:1"])
@pytest.mark.parametrize("file", ["config.json", "model.safetensors"])
def test_a_redirect_to_another_scheme_is_not_followed(target: str, file: str, hub: Hub, pushed: Any) -> None:
    hub.faults.redirects[file] = target

    with pytest.raises(RevgenError, match="me/model: the server redirects to an address that starts with"):
        revgen.load("me/model")


def test_a_redirect_to_another_host_gets_no_token(hub: Hub, pushed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import threading
    from http.server import BaseHTTPRequestHandler, HTTPServer

    received: list[str] = []

    class Other(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            received.append(str(self.headers))
            self.send_error(404)

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, *_: Any) -> None:
            """Do not print requests."""

    server = HTTPServer(("127.0.0.1", 0), Other)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    hub.faults.redirects["model.safetensors"] = f"http://localhost:{server.server_port}/x"

    with pytest.raises(RevgenError):
        revgen.load("me/model", token="hf_me")

    server.shutdown()
    assert not [headers for headers in received if "hf_me" in headers]


# Tokens


def test_white_space_around_a_token_is_removed_with_a_warning(pushed: Repository, small_model: LanguageModel) -> None:
    pushed.private = True
    with pytest.warns(UserWarning, match="the white space around the token was removed"):
        revgen.load("me/model", token="hf_me\n")


@pytest.mark.parametrize("token", ["hf_se\ncret", "hf_secret\0", "hf_sécret", "hf_sec ret", "hf_secret\x7f"])
def test_a_token_that_no_request_can_send_is_an_error_without_the_token(token: str, hub: Hub) -> None:
    with pytest.raises(revgen.OptionError, match="token has characters that no request can send") as caught:
        revgen.load("me/model", token=token)

    assert "hf_" not in "".join(traceback.format_exception(caught.value, chain=True)).split("token=token")[-1]


@pytest.mark.parametrize("token", [b"hf_secret", ["hf_secret"], {"hf_secret": 1}, object()])
def test_a_token_of_another_type_is_not_shown(token: Any) -> None:
    with pytest.raises(revgen.OptionError, match="token must be a string or None, not a value of type") as caught:
        revgen.load("me/model", token=token)

    assert "hf_secret" not in str(caught.value)


def test_a_token_is_in_no_error_and_no_log(
    hub: Hub, pushed: Repository, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    logging.getLogger().setLevel(1)
    for token in ("hf_expired", "hf_wrong"):
        with pytest.raises(RevgenError) as caught, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            revgen.load("me/model", token=token)

        assert token not in str(caught.value) + repr(caught.value) + str(caught.value.__cause__)
    output = capsys.readouterr()
    assert "hf_expired" not in caplog.text + output.out + output.err
    assert "hf_wrong" not in caplog.text + output.out + output.err


def test_a_token_that_the_server_repeats_is_hidden(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    import hub_server

    def refuse(self: Any, *_: Any, **__: Any) -> Any:
        raise hub_server.RefusedError(403, message=f"the token {self.headers['Authorization']} may not do this")

    monkeypatch.setattr(hub_server.Handler, "info", refuse)
    with pytest.raises(RevgenError) as caught:
        revgen.load("me/model", token="hf_me")

    shown = "".join(traceback.format_exception(caught.value))
    assert "Bearer …" in str(caught.value)
    assert "Bearer hf_me" not in shown


# Push


def test_a_push_says_what_it_uploads(hub: Hub, small_model: LanguageModel, capsys: pytest.CaptureFixture[str]) -> None:
    small_model.push_to_hub("me/model", token="hf_me")

    told = capsys.readouterr().err
    assert "pushing to me/model: config.json (" in told
    assert all(name in told for name in ("model.safetensors (", "README.md ("))
    small_model.push_to_hub("me/model", token="hf_me", progress=False)
    assert "pushing" not in capsys.readouterr().err


def test_a_card_that_links_out_of_the_directory_is_not_pushed(
    hub: Hub, small_model: LanguageModel, tmp_path: Path
) -> None:
    (tmp_path / "key").write_text("PRIVATE")
    directory = small_model.save(tmp_path / "model")
    (directory / "README.md").unlink()
    (directory / "README.md").symlink_to(tmp_path / "key")

    with pytest.raises(revgen.CheckpointError, match=r"README\.md is a link that leads out of the directory"):
        revgen_hub.push(directory, "me/model", token="hf_me")

    assert not any(b"PRIVATE" in data for tree in hub.repositories["me/model"].trees.values() for data in tree.values())


def test_the_samples_of_an_n_gram_model_cause_a_warning_and_can_be_left_out(hub: Hub) -> None:
    model = revgen.create("ngram-char", order=10)
    model.fit(["the band of the song, the song of the band. "] * 3, progress=False)
    with pytest.warns(UserWarning, match="may be parts of its training text, which n-grams copy; samples=False"):
        model.push_to_hub("me/model", token="hf_me")
    assert "## Samples" in hub.repositories["me/model"].files()["README.md"].decode()

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.push_to_hub("me/model", token="hf_me", overwrite_card=True, samples=False)
    assert "## Samples" not in hub.repositories["me/model"].files()["README.md"].decode()


# The cache


@pytest.mark.parametrize("content", [b"\x80\xff" * 100, b"", b"[" * 10**5, b"{}", b'{"revgen_version": ', None, "fifo"])
def test_the_cache_is_listed_whatever_a_repository_contains(content: Any, pushed: Any) -> None:
    directory = revgen_hub.pull("me/model")
    other = directory.parents[2] / "models--other--model" / "snapshots" / ("0" * 40)
    other.mkdir(parents=True)
    if content == "fifo":
        os.mkfifo(other / "config.json")
    elif content is not None:
        (other / "config.json").write_bytes(content)

    assert [model.name for model in revgen_hub.list_cached()] == ["me/model"]


def test_a_large_config_in_the_cache_is_not_read(pushed: Any) -> None:
    directory = revgen_hub.pull("me/model")
    other = directory.parents[2] / "models--other--model" / "snapshots" / ("0" * 40)
    other.mkdir(parents=True)
    with (other / "config.json").open("wb") as file:
        file.truncate(1 << 40)

    assert [model.name for model in revgen_hub.list_cached()] == ["me/model"]


def test_special_files_in_the_cache_are_errors(pushed: Any, tmp_path: Path) -> None:
    directory = revgen_hub.pull("me/model")
    for name in ("model.safetensors", "config.json"):
        original = (directory / name).resolve()
        for target in ("/dev/zero", tmp_path / "pipe"):
            if target != "/dev/zero" and not Path(target).exists():
                os.mkfifo(target)
            (directory / name).unlink()
            (directory / name).symlink_to(target)

            with pytest.raises(RevgenError):
                revgen.load("me/model", local_files_only=True)

        (directory / name).unlink()
        (directory / name).symlink_to(original)
    revgen.load("me/model", local_files_only=True)
