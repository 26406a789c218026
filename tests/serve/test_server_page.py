"""The page of the server, as a reader uses it in Chromium."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from chromium import ENTER, ESCAPE, Page, read_log, requests, wait_until
from local_server import Server, running

import revgen
from revgen.language_model import LanguageModel

if TYPE_CHECKING:
    from selenium.webdriver import Chrome


@pytest.fixture(scope="module")
def labelled_model() -> LanguageModel:
    """A model with labels."""
    model = revgen.create("textgenrnn-char", hidden_size=16)
    model.fit(["a" * 60, "b" * 60] * 10, labels=["first", "second"] * 10, epochs=8, progress=False)
    return model


@pytest.fixture(scope="module")
def server(models_by_level: dict[str, LanguageModel], labelled_model: LanguageModel) -> Iterator[Server]:
    """A server with a small model of each level, and one with labels."""
    large = revgen.load("rnn-char")
    large.weights["bias"][large.tokenizer.eos_id] -= 5  # it writes longer texts
    music = revgen.load("rnn-char")
    large.generation_config = music.generation_config = {}
    sentences = revgen.create("ngram-char", order=8)
    sentences.fit(["It rained. We left. All was well."] * 9, progress=False)
    sentences.generation_config = {
        "prompt": "It ",
        "temperature": 0.0,
        "max_tokens": 40,
        "min_tokens": 4,
        "stop_at_sentence": True,
    }
    others = {"labelled": labelled_model, "large": large, "music": music, "sentences": sentences}
    with running(models_by_level | others) as server:
        yield server


@pytest.fixture
def page(online_browser: Chrome, server: Server) -> Page:
    """The page of the server, opened for the first time."""
    return Page(online_browser, f"{server.url}/")


def choose_model(page: Page, name: str) -> None:
    """Choose a model in the list."""
    page["model"].send_keys(name)
    wait_until(page.browser, f"revgen.app.description.name === '{name}'")


def test_the_page_shows_the_completion_of_the_server(page: Page, server: Server, small_model: LanguageModel) -> None:
    text = page.generate("the ", length=30, seed=5)

    body = {"model": "char", "prompt": "the ", "max_tokens": 30, "seed": 5, "temperature": 0.7, "logprobs": 1}
    [choice] = server.post("/v1/completions", body)[1]["choices"]
    assert text == "the " + choice["text"]
    assert page.run("revgen.app.version.tokens.map(token => token.id)")[:5] == choice["logprobs"]["tokens"][:5]
    logprobs = page.run(
        "revgen.app.version.tokens.filter(token => !token.done).map(token => Math.log(token.probability))"
    )
    expected = small_model.score(text).logprobs
    assert logprobs == pytest.approx(expected[4 : 4 + len(logprobs)], abs=1e-3)


@pytest.mark.parametrize("level", ["char", "word", "subword"])
def test_tokens_and_alternatives_of_each_level_are_shown(level: str, page: Page) -> None:
    choose_model(page, level)

    text = page.generate("The al", length=20)

    assert text == "The al" + "".join(page.tokens)
    for token in page.run("revgen.app.version.tokens.filter(token => !token.done)"):
        probabilities = [alternative["probability"] for alternative in token["alternatives"]]
        assert probabilities == sorted(probabilities, reverse=True) and 0 < len(probabilities) <= 8
        assert 0 < token["probability"] <= 1


def test_text_appears_while_it_arrives_and_can_be_stopped(page: Page) -> None:
    choose_model(page, "large")
    page.browser.execute_script(
        """const write = revgen.app.writer.write.bind(revgen.app.writer);
        revgen.app.writer.write = async function* (...args) {  // a slow server
            for await (const token of write(...args)) {
                yield token;
                await new Promise((resolve) => setTimeout(resolve, 10));
            }
        }"""
    )
    page.fill(prompt="the ", length=4000)
    page["generate"].click()
    wait_until(page.browser, "document.querySelectorAll('.token').length > 3")

    assert page["generate"].text == "Stop"
    page.press(ESCAPE)

    assert 3 < len(page.tokens) < 4000
    assert page["error"].get_attribute("textContent") == ""


def test_an_alternative_replaces_a_token_and_the_text_before_it_stays(page: Page) -> None:
    choose_model(page, "large")
    page.generate("the ", length=30)
    before = page.tokens
    page.token(10).click()
    items = page["alternatives-list"].find_elements("tag name", "li")
    other = next(i for i, item in enumerate(items) if "now" not in str(item.get_attribute("class")).split())
    chosen = page.run(f"revgen.app.alternatives.token.alternatives[{other}].text")

    items[other].click()
    page.wait()

    assert page.tokens[:11] == [*before[:10], chosen]
    page.click("undo")
    assert page.tokens == before


def test_the_text_can_be_continued(page: Page) -> None:
    choose_model(page, "large")
    before = page.generate("the ", length=10)

    page.click("continue")

    assert page.text.startswith(before) and len(page.tokens) == 20


def test_the_end_of_a_text_has_alternatives(page: Page) -> None:
    choose_model(page, "music")

    page.generate("the ", length=4000)

    end = page.run("revgen.app.version.tokens.at(-1)")
    assert end["done"] and end["id"] == "</s>"
    assert 0 < end["probability"] < 1 and len(end["alternatives"]) == 8
    assert not page["continue"].is_displayed()


def test_a_model_can_be_chosen(page: Page, labelled_model: LanguageModel) -> None:
    assert [option.text for option in page["model"].find_elements("tag name", "option")][:2] == ["char", "word"]
    assert not page["label-field"].is_displayed()

    choose_model(page, "labelled")
    page["label"].send_keys("second")
    page.generate("", length=50)

    assert page.text.count("b") > page.text.count("a")
    page.click("about-open")
    assert page["about-title"].text == "labelled"
    assert f"{labelled_model.num_parameters:,}" in page["about-facts"].text


def test_a_server_with_one_model_shows_its_name(online_browser: Chrome, small_model: LanguageModel) -> None:
    with running({"me/reviews": small_model}) as server:
        page = Page(online_browser, f"{server.url}/")

        assert page["name"].text == "me/reviews" and not page["model"].is_displayed()
        assert page.generate("the ", length=10).startswith("the ")


def test_the_page_asks_for_the_key_of_the_server(online_browser: Chrome, small_model: LanguageModel) -> None:
    with running({"reviews": small_model}, api_key="secret") as server:
        assert "reviews" not in server.get("/")[1]
        assert server.get("/page/models")[0] == 401
        online_browser.get(f"{server.url}/")
        wait_until(online_browser, "document.getElementById('key-dialog').open")
        for key in ("wrong", "secret"):
            online_browser.switch_to.active_element.send_keys(key, ENTER)
            if key == "wrong":
                wait_until(online_browser, "!document.getElementById('key-refused').hidden")
        wait_until(online_browser, "window.revgen")
        page = Page(online_browser, f"{server.url}/")  # the key is remembered until the tab is closed

        assert page.generate("the ", length=10).startswith("the ")
        read_log(online_browser, "browser")  # the browser itself logs the refusals


def test_the_page_says_when_the_server_is_gone(online_browser: Chrome, small_model: LanguageModel) -> None:
    with running({"reviews": small_model}) as server:
        page = Page(online_browser, f"{server.url}/")
    page.generate("the ", length=10)

    assert "the server cannot be reached" in page["error"].text
    read_log(online_browser, "browser")  # the browser itself logs the refused connection


def test_the_page_shows_the_errors_of_the_server(page: Page) -> None:
    page.run("document.getElementById('length').max = 1e6")
    page.fill(length=100_000)
    page.generate("the ", length=100_000)

    assert "max_tokens" in page["error"].text
    read_log(page.browser, "browser")


def test_the_page_contacts_only_its_server(page: Page, server: Server) -> None:
    page.generate("the ", length=10)

    addresses = {url for url in requests(page.browser) if not url.startswith("data:")}
    assert addresses == {f"{server.url}/{path}" for path in ("", "page/models", "v1/completions")}


def test_the_page_fits_a_phone_and_names_every_control(page: Page) -> None:
    page.browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": 360, "height": 640, "deviceScaleFactor": 1, "mobile": True}
    )
    page.generate("the ", length=40)

    assert page.run("document.documentElement.scrollWidth <= innerWidth")
    controls = page.browser.find_elements("css selector", "button, input, textarea, select")
    assert all(control.accessible_name for control in controls if control.is_displayed())


def test_a_text_ends_at_a_sentence_and_can_be_continued(page: Page, server: Server) -> None:
    choose_model(page, "sentences")
    assert page["prompt"].get_property("value") == "It "
    page.click("generate")
    first = page.text
    page.click("continue")

    body = {"model": "sentences", "temperature": 0}
    [choice] = server.post("/v1/completions", body)[1]["choices"]
    assert first == choice["text"] == "It rained."
    assert page.text == "It rained. We left."
    assert "∎" not in page.tokens[-1]
