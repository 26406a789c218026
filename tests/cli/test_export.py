"""``revgen export``: a page or an ONNX graph, as the end of the path says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers import run, run_failing


def test_a_path_that_ends_in_html_is_a_page(
    model_directory: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "page.html"

    assert run(capsys, "export", model_directory, str(path)) == f"{path}\n"
    assert path.read_text("utf-8").startswith("<!doctype html>")
    assert json.loads(run(capsys, "export", model_directory, str(path), "--json")) == {"page": str(path)}


def test_a_page_in_a_missing_directory_fails_with_one_line(
    model_directory: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "file" / "page.html"
    path.parent.write_text("not a directory", "utf-8")

    assert str(path) in run_failing(capsys, "export", model_directory, str(path))


@pytest.mark.parametrize("paths", [(), ("a.html", "--out", "b.html")])
def test_export_takes_one_path(
    paths: tuple[str, ...], model_directory: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "one path" in run_failing(capsys, "export", model_directory, *paths)


def test_export_gives_a_page_the_title_that_a_friend_sees(
    model_directory: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page, other = tmp_path / "page.html", tmp_path / "other.html"

    run(capsys, "export", model_directory, str(page), "--title", "Names & <titles>")
    run(capsys, "export", model_directory, str(other))

    assert "<title>Names &amp; &lt;titles></title>" in page.read_text("utf-8").replace("&gt;", ">")
    assert '"name": "Names & \\u003ctitles>"' in page.read_text("utf-8")
    assert f"<title>{Path(model_directory).name}</title>" in other.read_text("utf-8")
    run(capsys, "export", "rnn-char", str(other))
    assert "<title>rnn-char</title>" in other.read_text("utf-8")
