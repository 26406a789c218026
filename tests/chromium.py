"""A headless Chromium, and the exported pages that it opens."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from selenium.webdriver import Chrome
    from selenium.webdriver.remote.webelement import WebElement

ENTER, ESCAPE, CONTROL, SHIFT = "\ue007", "\ue00c", "\ue009", "\ue008"
HOME, LEFT, RIGHT, UP, DOWN = "\ue011", "\ue012", "\ue014", "\ue013", "\ue015"

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = (
    "headless=new",
    "no-sandbox",
    "disable-gpu",
    "disable-quic",
    "no-first-run",
    "disable-background-networking",
    "disable-component-update",
    "disable-sync",
)


@contextmanager
def new_browser(profile: Path) -> Iterator[Chrome]:
    """Start a Chromium without a window and with a profile of its own; skip the test if it is not installed."""
    selenium = pytest.importorskip("selenium.webdriver")
    path, driver = next(filter(None, map(shutil.which, BROWSERS)), None), shutil.which("chromedriver")
    if not path or not driver:
        pytest.skip("needs Chromium and chromedriver")
    options = selenium.ChromeOptions()
    options.binary_location = path
    for flag in (*FLAGS, f"user-data-dir={profile}"):
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    chromium = selenium.Chrome(options=options, service=selenium.ChromeService(driver))
    yield chromium
    chromium.quit()


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    """A Chromium. It logs the console and the requests of the pages that it opens."""
    with new_browser(tmp_path_factory.mktemp("chromium")) as chromium:
        yield chromium


@pytest.fixture
def online_browser(chromium: Chrome) -> Iterator[Chrome]:
    """A Chromium whose user prefers a light color scheme and reduced motion, so that pages wait for a click.

    The test fails if a page logs an error.
    """
    chromium.get("about:blank")
    requests(chromium)  # forget those of the browser's own start page
    chromium.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    prefer(chromium, color_scheme="light", reduced_motion="reduce")
    yield chromium
    chromium.execute_script("localStorage.clear(); sessionStorage.clear()")
    assert [
        entry["message"] for entry in read_log(chromium, "browser") if entry["level"] in ("SEVERE", "WARNING")
    ] == []


@pytest.fixture
def browser(online_browser: Chrome) -> Iterator[Chrome]:
    """The same Chromium; the test also fails if a page uses the network."""
    yield online_browser
    assert [url for url in requests(online_browser) if not url.startswith(("file:", "data:", "about:"))] == []


def prefer(browser: Chrome, **preferences: str) -> None:
    """Emulate the preferences of a user, such as ``color_scheme="dark"``."""
    features = [{"name": f"prefers-{name.replace('_', '-')}", "value": value} for name, value in preferences.items()]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def read_log(browser: Any, name: str) -> list[dict[str, Any]]:
    """Return the entries that were added to a log since the last call."""
    entries: list[dict[str, Any]] = browser.get_log(name)
    return entries


def requests(browser: Chrome) -> list[str]:
    """Return the URLs that pages have requested since the last call."""
    events = [json.loads(entry["message"])["message"] for entry in read_log(browser, "performance")]
    return [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]


def open_page(browser: Chrome, page: Path | str) -> None:
    """Open a page, given by its path or its address, and wait until its model is ready."""
    browser.get(page if isinstance(page, str) else page.as_uri())
    wait_until(browser, "window.revgen")


def wait_until(browser: Chrome, condition: str) -> None:
    """Wait until a JavaScript expression is true."""
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(browser, 20, poll_frequency=0.02).until(
        lambda _: browser.execute_script(f"return Boolean({condition})")
    )


class Page:
    """The page with the methods that a test needs."""

    def __init__(self, browser: Chrome, page: Path | str) -> None:
        self.browser = browser
        open_page(browser, page)

    def __getitem__(self, name: str) -> WebElement:
        """Return the element with this id."""
        return self.browser.find_element("id", name)

    def run(self, code: str, *arguments: Any) -> Any:
        """Return the value of a JavaScript expression."""
        return self.browser.execute_script(f"return {code}", *arguments)

    def fill(self, **values: object) -> None:
        """Set the values of fields, as if they were typed."""
        code = """for (const [name, value] of Object.entries(arguments[0])) {
            const field = document.getElementById(name);
            field.value = value;
            field.dispatchEvent(new Event("input", {bubbles: true}));
        }"""
        self.browser.execute_script(code, values)

    def generate(self, prompt: str = "the ", *, length: int | str = 40, seed: int = 1) -> str:
        """Fill in the fields, generate, and return the text."""
        self.fill(prompt=prompt, length=length, seed=seed)
        self.click("generate")
        return self.text

    def click(self, name: str) -> None:
        """Click an element, and wait until no text is being generated."""
        self[name].click()
        self.wait()

    def press(self, *keys: str) -> None:
        """Press keys, one after the other, and wait until no text is being generated."""
        for key in keys:
            self.browser.switch_to.active_element.send_keys(key)
        self.wait()

    def wait(self) -> None:
        """Wait until no text is being generated."""
        wait_until(self.browser, "!revgen.app.run")

    @property
    def text(self) -> str:
        """The text on the page, with its prompt."""
        return str(self.run("document.getElementById('text').textContent"))

    @property
    def tokens(self) -> list[str]:
        """The text of each token."""
        return list(self.run("[...document.querySelectorAll('.token')].map(token => token.textContent)"))

    def token(self, i: int) -> WebElement:
        """Return the element of a token."""
        return self.browser.find_elements("class name", "token")[i]

    def color(self, code: str) -> str:
        """Return the background color of the element that an expression gives."""
        return str(self.run(f"getComputedStyle({code}).backgroundColor"))
