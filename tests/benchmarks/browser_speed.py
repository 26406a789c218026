"""Speed of exported pages in a headless Chromium, and the sizes of their files."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from measure import Row, Task, medians, row

import revgen

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from chromium import new_browser, open_page, prefer

MIN_CHARS_PER_SECOND = 300
GENERATE = """
    const { model } = window.revgen;
    model.suppressed.add(EOS);
    const session = model.start({ prompt: "the ", seed: 0 }), start = performance.now();
    for (let i = 0; i < 500; i++) session.next({ temperature: 0.7, topP: 0.95 });
    return 1000 * session.text.length / (performance.now() - start);
"""


def generating(browser: Any) -> Task:
    """Return the task of generating 500 tokens in the page that is open, with all alternatives."""
    return lambda: float(browser.execute_script(GENERATE))


def browser(_: argparse.Namespace) -> Iterator[Row]:
    """Measure the pages of the pretrained models."""
    with tempfile.TemporaryDirectory() as directory, new_browser(Path(directory) / "profile") as chromium:
        prefer(chromium, reduced_motion="reduce")
        for name in revgen.list_models(pretrained=True):
            model = revgen.load(name)
            path = model.export(Path(directory) / "page.html")
            open_page(chromium, path)
            (rate,) = medians(generating(chromium))
            is_fast = rate >= MIN_CHARS_PER_SECOND
            yield row(f"page of {name}", rate, "chars/s", "limit", MIN_CHARS_PER_SECOND, "≥ the limit", is_fast)
            size, limit = path.stat().st_size / 1e6, (1.4 * 2 * model.num_parameters + 200_000) / 1e6
            yield row(f"file of {name}", size, "MB", "limit", limit, "≤ the limit", size <= limit)
