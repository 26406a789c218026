"""The gallery in the documentation, and the script that writes its pages."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

import revgen

ROOT = Path(__file__).parents[2]


def test_the_gallery_shows_every_pretrained_model() -> None:
    page = (ROOT / "docs" / "gallery.md").read_text("utf-8")
    pictures = [ROOT / "docs" / path for path in re.findall(r"!\[[^]]+\]\((.+?)\)", page)]

    for name in revgen.list_models(pretrained=True):
        assert f"\n## {name}\n" in page and f"revgen export {name} {name}.html" in page
        samples = page.partition(f"\n## {name}\n")[2].partition("\n## ")[0]
        assert samples.count("\n> ") >= 5
    assert sorted(pictures) == sorted((ROOT / "docs" / "gallery").iterdir())
    assert sum(path.stat().st_size for path in pictures) < 300_000


def test_the_python_code_in_the_page_about_pages_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for block in re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "pages.md").read_text("utf-8"), re.DOTALL):
        exec(block, {})
    assert Path("page.html").exists()


def test_the_script_writes_pages_and_an_index(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main = runpy.run_path(str(ROOT / "examples" / "gallery.py"))["main"]

    main([str(tmp_path), "--models", "rnn-char"])

    index = (tmp_path / "index.html").read_text("utf-8")
    assert re.findall(r'href="(.+?)"', index) == ["rnn-char.html"]
    assert "288,864 parameters" in index
    assert (tmp_path / "rnn-char.html").stat().st_size > 500_000
