"""The exported page in WebKit, the engine of Safari, and in Firefox, where their drivers are installed."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from chromium import ESCAPE, Page

import revgen

pytestmark = pytest.mark.slow
PARTS = {"webkit": ("WebKitWebDriver", "Xvfb"), "firefox": ("geckodriver", "firefox")}
"""The programs that each browser needs."""


@contextmanager
def virtual_display() -> Iterator[str]:
    """Run an X server without a screen, and give its name."""
    reading, writing = os.pipe()
    with subprocess.Popen(
        ["Xvfb", "-displayfd", str(writing)], pass_fds=[writing], stderr=subprocess.DEVNULL
    ) as server:
        try:
            yield f":{os.read(reading, 16).decode().strip()}"
        finally:
            server.terminate()
            os.close(reading)
            os.close(writing)


@pytest.fixture(scope="module", params=PARTS)
def other_browser(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A browser that is not Chromium."""
    webdriver = pytest.importorskip("selenium.webdriver")
    for program in PARTS[request.param]:
        if shutil.which(program) is None:
            pytest.skip(f"needs {program}")
    with ExitStack() as stack:
        if request.param == "webkit":
            options: Any = webdriver.WebKitGTKOptions()
            options.binary_location = str(next(Path("/usr").glob("lib*/**/webkit2gtk-4.*/MiniBrowser")))
            options.add_argument("--automation")
            display = stack.enter_context(virtual_display())
            environment = {"DISPLAY": display, "HOME": str(tmp_path_factory.mktemp("webkit"))}
            environment |= {"WEBKIT_DISABLE_COMPOSITING_MODE": "1"}  # there is no graphics card
            service = webdriver.WebKitGTKService(shutil.which("WebKitWebDriver"), env=os.environ | environment)
            browser: Any = webdriver.WebKitGTK(options, service=service)
        else:
            options = webdriver.FirefoxOptions()
            options.add_argument("--headless")
            browser = webdriver.Firefox(options, webdriver.FirefoxService(shutil.which("geckodriver")))
        stack.callback(browser.quit)
        yield browser


def open_model(browser: Any, name: str, directory: Path) -> Page:
    """Open the page of a model, and stop the text that it begins by itself."""
    page = Page(browser, revgen.load(name).export(directory / "page.html"))
    page["prompt"].send_keys(ESCAPE)
    page.wait()
    return page


@pytest.mark.parametrize("name", ["lstm-char", "gru-subword", "transformer-subword"])
def test_the_page_generates_the_texts_of_the_model(other_browser: Any, name: str, tmp_path: Path) -> None:
    page = open_model(other_browser, name, tmp_path)
    page.fill(temperature=0)

    text = page.generate("the ", length=30)

    options: dict[str, Any] = {
        "known_words": False,
        "max_copied_chars": None,
        "repetition_penalty": 1.0,
    }  # not in pages
    assert text == revgen.load(name).generate("the ", max_tokens=30, temperature=0, **options)
    assert not page["error"].is_displayed()


def test_tokens_have_colors_and_alternatives(other_browser: Any, tmp_path: Path) -> None:
    page = open_model(other_browser, "rnn-char", tmp_path)
    page.generate()
    plain = page.color("document.querySelector('.token')")

    page.click("colors")
    page.token(5).click()

    assert page.color("document.querySelector('.token')") != plain
    assert page["alternatives"].is_displayed()
    options = other_browser.find_elements("css selector", "#alternatives [role=option]")
    assert len(options) == 8
    options[-1].click()
    page.wait()
    assert len(page.tokens) > 6 and not page["error"].is_displayed()
