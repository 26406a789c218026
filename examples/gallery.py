"""Write the page of each pretrained model, and an index, into a folder that any web space can show.

    python examples/gallery.py gallery
    python examples/gallery.py gallery --models lstm-char gru-char
    python examples/gallery.py gallery --screenshots docs/gallery

``--screenshots`` also takes the pictures of docs/gallery.md. It needs Selenium, Pillow, Chromium and chromedriver.
"""

from __future__ import annotations

import argparse
import html
import io
import shutil
from collections.abc import Sequence
from pathlib import Path
from string import Template
from typing import Any

import revgen

# For the screenshots.
PROMPT = "She was "
SEED = 3
HERO = "lstm-word.austen"

INDEX = Template("""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>revgen: a gallery of small language models</title>
<style>
:root {
  color-scheme: light dark;
  --paper: light-dark(#fbfaf7, #161719); --card: light-dark(#fff, #1e2023); --ink: light-dark(#23211d, #e9e6df);
  --quiet: light-dark(#6b665d, #a19c92); --line: light-dark(#e5e1d8, #33363a); --accent: light-dark(#1f6f6b, #6cc5bd);
  --serif: "Iowan Old Style", Charter, "Palatino Linotype", Palatino, P052, Georgia, serif;
}
body { max-width: 60rem; margin: 0 auto; padding: 2.5rem 1.25rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.5 system-ui, -apple-system, "Segoe UI", Inter, Roboto, "Noto Sans", sans-serif }
h1, h2, blockquote { font-family: var(--serif); margin: 0 }
p { color: var(--quiet); margin: .3rem 0 0 }
ul { list-style: none; padding: 0; margin: 2rem 0 0; display: grid; gap: 1rem;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 18rem), 1fr)) }
a { display: block; height: 100%; box-sizing: border-box; padding: 1.25rem; border: 1px solid var(--line);
  border-radius: 16px; background: var(--card); color: inherit; text-decoration: none }
a:hover, a:focus-visible { border-color: var(--accent); outline: none }
h2 { font-size: 1.2rem; color: var(--accent) }
blockquote { margin-top: .8rem; font-size: .95rem; overflow: hidden;
  display: -webkit-box; -webkit-line-clamp: 5; -webkit-box-orient: vertical }
small { color: var(--quiet) }
</style>
<h1>Small language models</h1>
<p>Each page generates text by itself, offline. Choose one.</p>
<ul>
$items
</ul>
</html>
""")
ITEM = Template("""<li><a href="$name.html"><h2>$name</h2>
<small>$facts</small>
<blockquote dir="auto">$sample</blockquote></a></li>""")


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the pages, the index and, on request, the screenshots."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--models", nargs="+", default=list(revgen.list_models(pretrained=True)), metavar="MODEL")
    parser.add_argument("--screenshots", type=Path, metavar="FOLDER")
    options = parser.parse_args(arguments)
    options.folder.mkdir(parents=True, exist_ok=True)
    items = [write_page(name, options.folder) for name in options.models]
    index = options.folder / "index.html"
    index.write_text(INDEX.substitute(items="\n".join(items)), "utf-8")
    print(index)
    if options.screenshots:
        take_screenshots(options.folder, options.screenshots)


def write_page(name: str, folder: Path) -> str:
    """Write the page of a model, and return its entry in the index."""
    model = revgen.load(name)
    path = model.export(folder / f"{name}.html")
    facts = [f"{sum(w.size for w in model.weights.values()):,} parameters", f"{path.stat().st_size / 1e6:.1f} MB"]
    if bits := model.metadata.get("evaluation", {}).get("bits_per_char"):
        facts.append(f"{bits:.2f} bits per character")
    sample = next(iter(model.metadata.get("samples", ())), "")
    print(path)
    return ITEM.substitute(name=html.escape(name), facts=html.escape(" · ".join(facts)), sample=html.escape(sample))


def take_screenshots(folder: Path, out: Path) -> None:
    """Save pictures of the page on a desktop and on a phone."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = str(shutil.which("chromium") or shutil.which("google-chrome"))
    for flag in ("headless=new", "no-sandbox", "disable-gpu", "hide-scrollbars", "force-device-scale-factor=1"):
        options.add_argument(f"--{flag}")
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    out.mkdir(parents=True, exist_ok=True)
    try:
        generate(browser, folder / f"{HERO}.html", width=840, height=840, length=120)
        browser.execute_script("scrollTo(0, 0)")
        max(browser.find_elements("class name", "token")[:20], key=lambda token: len(token.text)).click()
        save(browser.get_screenshot_as_png(), out / "page.png")
        generate(browser, folder / f"{HERO}.html", width=360, height=660, length=120, scheme="dark")
        browser.execute_script("scrollTo(0, 0)")
        save(browser.get_screenshot_as_png(), out / "phone.png")
    finally:
        browser.quit()


def generate(browser: Any, path: Path, width: int, height: int, *, length: int, scheme: str = "light") -> None:
    """Open a page in a window of this size, generate a text, and color it."""
    size = {"width": width, "height": height, "deviceScaleFactor": 1.5, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    preferences = {"prefers-color-scheme": scheme, "prefers-reduced-motion": "reduce"}  # does not generate by itself
    features = [{"name": name, "value": value} for name, value in preferences.items()]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    browser.get(path.resolve().as_uri())
    wait_until(browser, "window.revgen")
    browser.execute_script(
        """document.getElementById("prompt").value = arguments[0];
        document.getElementById("seed").value = arguments[1];
        document.getElementById("length").value = arguments[2];
        revgen.app.setColors(true);
        revgen.app.generate();""",
        PROMPT,
        SEED,
        length,
    )
    wait_until(browser, "!revgen.app.run")


def wait_until(browser: Any, condition: str) -> None:
    """Wait until a JavaScript expression is true."""
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(browser, 60).until(lambda _: browser.execute_script(f"return Boolean({condition})"))


def save(png: bytes, path: Path) -> None:
    """Save a screenshot with few colors, which makes the file small."""
    from PIL import Image

    Image.open(io.BytesIO(png)).convert("RGB").quantize(80).save(path, optimize=True)
    print(path)


if __name__ == "__main__":
    main()
