"""``revgen doctor``."""

from __future__ import annotations

import json
from importlib import metadata
from typing import Any

import pytest
from helpers import run
from hub_server import Hub

import revgen

SECTIONS = ["versions", "processor", "gpu", "caches", "hub", "extras"]


def report(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    result: dict[str, Any] = json.loads(run(capsys, "doctor", "--json"))
    return result


def test_doctor_reports_versions_processor_caches_and_extras(hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    found = report(capsys)
    printed = run(capsys, "doctor")

    assert list(found) == SECTIONS
    assert found["versions"]["revgen"].startswith(revgen.__version__)
    assert found["versions"]["numpy"] == metadata.version("numpy")
    assert "float32" in found["processor"]["precision"] and int(found["processor"]["cores"]) > 0
    assert found["gpu"]["device"].startswith('device="auto" is ')
    assert "program" in found["caches"]["compiled code"]
    assert found["extras"]["plots"].startswith("matplotlib ")
    assert not any("error" in section for section in found.values())
    assert all(value in printed for section in found.values() for value in section.values())


def test_doctor_says_how_to_install_a_missing_extra(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    installed = metadata.version

    def version(package: str) -> str:
        if package == "pandas":
            raise metadata.PackageNotFoundError(package)
        return installed(package)

    monkeypatch.setattr("importlib.metadata.version", version)
    assert report(capsys)["extras"]["pandas"] == "pip install 'revgen[pandas]'"


@pytest.mark.parametrize(
    ("token", "login"),
    [
        ("hf_me", "me, by the token in HF_TOKEN"),
        ("hf_of_nobody", "nobody: the Hub does not accept the token"),
        ("", "no"),
    ],
)
def test_doctor_says_who_is_logged_in_and_never_prints_the_token(
    token: str, login: str, hub: Hub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_TOKEN", token)

    found = report(capsys)

    assert found["hub"]["login"].startswith(login)
    assert found["hub"]["address"] == hub.url
    for printed in (json.dumps(found), run(capsys, "doctor", "--verbose"), capsys.readouterr().err):
        assert not token or token not in printed.replace("by the token", "")


def test_doctor_reports_a_hub_that_cannot_be_reached_without_the_words_of_the_error(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_with\na_new_line")
    assert "hf_with" not in json.dumps(report(capsys))
