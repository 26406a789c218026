"""Tests of the documentation site: it builds without warnings, all links work, and so does the search."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import cache, partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import pytest
from chromium import wait_until

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
PHONE_WIDTH = 390


class Page(HTMLParser):
    """The links and the ids of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.ids: set[str] = set()
        self.feed(path.read_text("utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("href", "src") and value:
                self.links.append(value)
            if name == "id" and value:
                self.ids.add(value)


class QuietHandler(SimpleHTTPRequestHandler):
    """A handler that logs nothing."""

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built with all notebooks executed. A warning is an error."""
    pytest.importorskip("mkdocs")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "NO_MKDOCS_2_WARNING": "1"}
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return folder


@pytest.fixture(scope="module")
def url(site: Path) -> Iterator[str]:
    """The address of the site on a local server."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietHandler, directory=str(site))) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def pages(site: Path) -> list[Path]:
    """Return the pages of the site, without the pages of models and reports."""
    exported = {*site.glob("live/*.html"), *site.glob("notebooks/*.html")}
    notebooks = {site / "notebooks" / f"{path.stem}.html" for path in (ROOT / "docs" / "notebooks").glob("*.ipynb")}
    return sorted({*site.rglob("*.html")} - (exported - notebooks))


def test_every_link_of_the_site_leads_to_a_file_and_an_anchor(site: Path) -> None:
    read = cache(Page)
    missing = []
    for page in pages(site):
        for link in read(page).links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc or page.name == "404.html":
                continue
            target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            target = target / "index.html" if target.is_dir() else target
            is_found = target.is_file() and (
                target.suffix != ".html" or parts.fragment in ("", *read(target).ids, "__consent")
            )
            if not is_found:
                missing.append(f"{page.relative_to(site)}: {link}")
    assert missing == []


def test_the_notebooks_show_their_results(site: Path) -> None:
    page = (site / "notebooks" / "ten-minutes.html").read_text("utf-8")

    assert page.count("saurus") > 20  # generated names
    assert "<svg" in page and "<img" in page and "mathjax_ignore" in page
    assert "%pip" not in page
    assert (site / "notebooks" / "report.html").is_file()
    assert (site / "notebooks" / "one-gate.html").is_file()


def test_the_search_finds_a_page(chromium: Chrome, url: str) -> None:
    chromium.get(f"{url}/index.html")
    wait_until(chromium, "document.querySelector('.md-search__input')")
    field = chromium.find_element("class name", "md-search__input")
    chromium.execute_script("arguments[0].focus()", field)
    field.send_keys("perplexity")
    wait_until(chromium, "document.querySelector('.md-search-result__item a')")
    links = chromium.find_elements("css selector", ".md-search-result__item a")
    addresses = [str(link.get_attribute("href")) for link in links]

    assert any("glossary.html" in address for address in addresses)
    assert any("concepts.html" in address for address in addresses)


def test_the_model_on_the_start_page_generates_text(chromium: Chrome, url: str) -> None:
    chromium.get(f"{url}/index.html")
    frame = chromium.find_element("css selector", "iframe.page")
    chromium.execute_script("arguments[0].scrollIntoView()", frame)
    chromium.switch_to.frame(frame)
    try:
        wait_until(chromium, "window.revgen && !revgen.app.run")
        chromium.find_element("id", "generate").click()
        wait_until(chromium, "!revgen.app.run && document.querySelectorAll('.token').length > 20")
    finally:
        chromium.switch_to.default_content()


def test_no_page_is_wider_than_a_phone(chromium: Chrome, site: Path, url: str) -> None:
    size = {"width": PHONE_WIDTH, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    chromium.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        for page in pages(site):
            chromium.get(f"{url}/{page.relative_to(site).as_posix()}")
            assert chromium.execute_script("return document.documentElement.scrollWidth") <= PHONE_WIDTH, page.name
    finally:
        chromium.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
